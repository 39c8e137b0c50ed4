package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// party is a certificate with its key in files of a folder.
type party struct {
	*issuer
	cert, key string
}

// issue makes a certificate like t, signed by ca.
func issue(t testing.TB, ca *party, template x509.Certificate, from, to time.Time) party {
	t.Helper()
	m := &maker{from: from, to: to}
	var signer *issuer
	if ca != nil {
		signer = ca.issuer
	}
	made := m.make("crt", "key", &template, signer)
	dir := t.TempDir()
	if err := errors.Join(m.err, writeAll(dir, m.files)); err != nil {
		t.Fatal(err)
	}
	return party{made, filepath.Join(dir, "crt"), filepath.Join(dir, "key")}
}

func valid() (from, to time.Time) {
	return time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
}

func authority(t testing.TB) party {
	from, to := valid()
	return issue(t, nil, x509.Certificate{Subject: subject("a test CA"), IsCA: true, KeyUsage: x509.KeyUsageCertSign}, from, to)
}

func agentTemplate(uses ...x509.ExtKeyUsage) x509.Certificate {
	return x509.Certificate{Subject: subject("an agent"), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: uses}
}

func serverTemplate(uses ...x509.ExtKeyUsage) x509.Certificate {
	c := agentTemplate(uses...)
	c.DNSNames = []string{"rea.test"}
	return c
}

// handshake connects the two over a loopback socket and returns what each saw
// after the first byte from the server, as TLS 1.3 tells a client only then
// that its certificate was refused.
func handshake(t testing.TB, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		s := tls.Server(c, server)
		if err = s.Handshake(); err == nil {
			_, err = s.Write([]byte("!"))
		}
		done <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, client)
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	if clientErr != nil {
		raw.Close()
	}
	return clientErr, <-done
}

func pinOf(p party) string {
	sum := sha256.Sum256(p.issuer.cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func TestHandshakes(t *testing.T) {
	from, to := valid()
	ca, other := authority(t), authority(t)
	server := issue(t, &ca, serverTemplate(x509.ExtKeyUsageServerAuth), from, to)
	agent := issue(t, &ca, agentTemplate(x509.ExtKeyUsageClientAuth), from, to)
	good := Client{CAFile: ca.cert, CertFile: agent.cert, KeyFile: agent.key, Verify: true, ServerName: "rea.test"}
	with := func(change func(*Client)) Client { c := good; change(&c); return c }

	for _, c := range []struct {
		name   string
		client Client
		want   string // what Explain says; "" for a connection
	}{
		{"all is right", good, ""},
		{"a pin of the server", with(func(c *Client) { c.Pins = []string{pinOf(other), "sha256/" + pinOf(server)} }), ""},
		{"a pin of the authority", with(func(c *Client) { c.Pins = []string{pinOf(ca)} }), ""},
		{"no pin that fits", with(func(c *Client) { c.Pins = []string{pinOf(other), pinOf(agent)} }), "no pinned key"},
		{"an authority that is not trusted", with(func(c *Client) { c.CAFile = other.cert }), "not trusted here"},
		{"another name", with(func(c *Client) { c.ServerName = "other.test" }), "for another name"},
		{"no verification", with(func(c *Client) { c.CAFile, c.Verify = other.cert, false }), ""},
		{"no verification but a pin", with(func(c *Client) { c.CAFile, c.Verify, c.Pins = other.cert, false, []string{pinOf(server)} }), ""},
		{"no verification, a pin of the authority", with(func(c *Client) { c.Verify, c.Pins = false, []string{pinOf(ca)} }), "no pinned key"},
		{"no client certificate", with(func(c *Client) { c.CertFile, c.KeyFile = "", "" }), "wants a client certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			serverConf, err := ServerTLS(Server{CertFile: server.cert, KeyFile: server.key, ClientCAFile: ca.cert})
			if err != nil {
				t.Fatal(err)
			}
			clientConf, err := ClientTLS(c.client)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := handshake(t, clientConf, serverConf)
			if (c.want == "") != (got == nil) || !strings.Contains(Explain(got), c.want) {
				t.Errorf("got %v, explained %q, want %q", got, Explain(got), c.want)
			}
		})
	}
}

// What the files cannot show, since a program would refuse to start with them,
// still comes over the wire.
func TestHandshakesWithBadCertificates(t *testing.T) {
	from, to := valid()
	old := from.Add(-2 * time.Hour)
	ca, other := authority(t), authority(t)
	server := issue(t, &ca, serverTemplate(x509.ExtKeyUsageServerAuth), from, to)
	agent := issue(t, &ca, agentTemplate(x509.ExtKeyUsageClientAuth), from, to)
	for _, c := range []struct {
		name          string
		server, agent party
		want          string
	}{
		{"an agent of another authority", server, issue(t, &other, agentTemplate(x509.ExtKeyUsageClientAuth), from, to), "must come from the CA"},
		{"an agent that has expired", server, issue(t, &ca, agentTemplate(x509.ExtKeyUsageClientAuth), old, from), "has expired"},
		{"an agent before its time", server, issue(t, &ca, agentTemplate(x509.ExtKeyUsageClientAuth), to, to.Add(time.Hour)), "has expired: issue a new one, or check the clocks"},
		{"an agent with a server's certificate", server, issue(t, &ca, agentTemplate(x509.ExtKeyUsageServerAuth), from, to), "clientAuth"},
		{"an agent that signed itself", server, issue(t, nil, agentTemplate(x509.ExtKeyUsageClientAuth), from, to), "must come from the CA"},
		{"a server that has expired", issue(t, &ca, serverTemplate(x509.ExtKeyUsageServerAuth), old, from), agent, "has expired"},
		{"a server before its time", issue(t, &ca, serverTemplate(x509.ExtKeyUsageServerAuth), to, to.Add(time.Hour)), agent, "is not valid before"},
		{"a server with an agent's certificate", issue(t, &ca, serverTemplate(x509.ExtKeyUsageClientAuth), from, to), agent, "not made for a server"},
	} {
		t.Run(c.name, func(t *testing.T) {
			serverConf, err := ServerTLS(Server{CertFile: server.cert, KeyFile: server.key, ClientCAFile: ca.cert})
			if err != nil {
				t.Fatal(err)
			}
			clientConf, err := ClientTLS(Client{CAFile: ca.cert, CertFile: agent.cert, KeyFile: agent.key, Verify: true, ServerName: "rea.test"})
			if err != nil {
				t.Fatal(err)
			}
			pair := tls.Certificate{Certificate: [][]byte{c.server.issuer.cert.Raw}, PrivateKey: c.server.issuer.key}
			serverConf.Certificates = []tls.Certificate{pair}
			clientConf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: [][]byte{c.agent.issuer.cert.Raw}, PrivateKey: c.agent.issuer.key}, nil
			}
			if got, _ := handshake(t, clientConf, serverConf); got == nil || !strings.Contains(Explain(got), c.want) {
				t.Errorf("got %v, explained %q, want %q", got, Explain(got), c.want)
			}
		})
	}
}

// A server that appends a pinned authority to its chain has not proved anything.
func TestAnAppendedAuthorityDoesNotSatisfyAPin(t *testing.T) {
	from, to := valid()
	ca, pinned := authority(t), authority(t)
	server := issue(t, &ca, serverTemplate(x509.ExtKeyUsageServerAuth), from, to)
	for _, verify := range []bool{true, false} {
		conf, err := ClientTLS(Client{CAFile: ca.cert, Verify: verify, ServerName: "rea.test", Pins: []string{pinOf(pinned)}})
		if err != nil {
			t.Fatal(err)
		}
		serverConf := base()
		serverConf.Certificates = []tls.Certificate{{
			Certificate: [][]byte{server.issuer.cert.Raw, pinned.issuer.cert.Raw}, PrivateKey: server.issuer.key,
		}}
		if got, _ := handshake(t, conf, serverConf); !errors.Is(got, ErrPin) {
			t.Errorf("verify %v: %v", verify, got)
		}
	}
}

func TestOnlyTLS13AndHTTP11AreSpoken(t *testing.T) {
	from, to := valid()
	ca := authority(t)
	server := issue(t, &ca, serverTemplate(x509.ExtKeyUsageServerAuth), from, to)
	agent := issue(t, &ca, agentTemplate(x509.ExtKeyUsageClientAuth), from, to)
	serverConf, err := ServerTLS(Server{CertFile: server.cert, KeyFile: server.key, ClientCAFile: ca.cert})
	if err != nil {
		t.Fatal(err)
	}
	client := func() *tls.Config {
		c, err := ClientTLS(Client{CAFile: ca.cert, CertFile: agent.cert, KeyFile: agent.key, Verify: true, ServerName: "rea.test"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old, h2 := client(), client()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	h2.NextProtos = []string{"h2"}
	if got, _ := handshake(t, old, serverConf); !strings.Contains(Explain(got), "TLS 1.3") {
		t.Errorf("TLS 1.2: %v, %q", got, Explain(got))
	}
	if got, _ := handshake(t, h2, serverConf); !strings.Contains(Explain(got), "HTTP/1.1") {
		t.Errorf("HTTP/2: %v, %q", got, Explain(got))
	}
}

func TestPlainServerIsExplained(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			io.Copy(io.Discard, c) // to close with something unread takes back what was written
			c.Close()
		}
	}()
	_, err = tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "rea.test"})
	if !strings.Contains(Explain(err), "does not speak TLS") {
		t.Errorf("%v: %q", err, Explain(err))
	}
	if got := Explain(errors.New("connection refused")); got != "" {
		t.Errorf("another error is explained: %q", got)
	}
}

func TestFilesAreRefusedWithARemedy(t *testing.T) {
	from, to := valid()
	ca := authority(t)
	agent := issue(t, &ca, agentTemplate(x509.ExtKeyUsageClientAuth), from, to)
	other := issue(t, &ca, agentTemplate(x509.ExtKeyUsageClientAuth), from, to)
	write := func(text string) string {
		name := filepath.Join(t.TempDir(), "f.pem")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	open := write(read(t, agent.key))
	if err := os.Chmod(open, 0o640); err != nil {
		t.Fatal(err)
	}
	shared := write(read(t, ca.cert))
	if err := os.Chmod(shared, 0o666); err != nil {
		t.Fatal(err)
	}
	expired := issue(t, &ca, agentTemplate(x509.ExtKeyUsageClientAuth), time.Date(2025, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	future := issue(t, &ca, agentTemplate(), to, to.Add(time.Hour))
	oldCA := issue(t, nil, x509.Certificate{IsCA: true}, time.Date(2025, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	damaged := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))

	for _, c := range []struct {
		name          string
		ca, cert, key string
		want          []string
	}{
		{"a missing authority", "/nowhere/ca.crt", agent.cert, agent.key, []string{"certificate authority /nowhere/ca.crt does not exist", "rea-server certs"}},
		{"an empty authority", write(" \n"), agent.cert, agent.key, []string{"certificate authority", "is empty"}},
		{"an authority that is text", write("hello"), agent.cert, agent.key, []string{"is no PEM text"}},
		{"a folder", t.TempDir(), agent.cert, agent.key, []string{"is no file"}},
		{"an expired authority", oldCA.cert, agent.cert, agent.key, []string{"expired 2026-01-02"}},
		{"a damaged certificate", ca.cert, write(damaged), agent.key, []string{"damaged"}},
		{"a key as certificate", ca.cert, agent.key, agent.key, []string{"client certificate", "is a private key"}},
		{"a certificate as key", ca.cert, agent.cert, write(read(t, agent.cert)), []string{"client key", "is a certificate"}},
		{"a key with a passphrase", ca.cert, agent.cert, write("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), []string{"passphrase"}},
		{"another key", ca.cert, agent.cert, other.key, []string{"client key", "does not belong to the certificate"}},
		{"an expired certificate", ca.cert, expired.cert, expired.key, []string{"client certificate", "expired 2026-01-02: issue a new one"}},
		{"a certificate of the future", ca.cert, future.cert, future.key, []string{"not valid before", "clock"}},
		{"a certificate for servers", ca.cert, issue(t, &ca, agentTemplate(x509.ExtKeyUsageServerAuth), from, to).cert, agent.key, []string{"not made for a client"}},
		{"the authority itself", ca.cert, ca.cert, ca.key, []string{"is the certificate of an authority"}},
		{"a certificate without key", ca.cert, agent.cert, "", []string{"client key", "not named"}},
		{"a key without certificate", ca.cert, "", agent.key, []string{"client certificate", "not named"}},
		{"a key open to others", ca.cert, agent.cert, open, []string{"mode 0640", "chmod 600 " + open}},
		{"an authority that others can change", shared, agent.cert, agent.key, []string{"certificate authority", "mode 0666", "chmod go-w " + shared}},
		{"a certificate that others can change", ca.cert, shared, agent.key, []string{"client certificate", "mode 0666", "chmod go-w " + shared}},
	} {
		if strings.Contains(strings.Join(c.want, " "), "mode 0") && runtime.GOOS == "windows" {
			continue // nothing there has a mode
		}
		_, err := ClientTLS(Client{CAFile: c.ca, CertFile: c.cert, KeyFile: c.key, Verify: true})
		var fe *FileError
		if !errors.As(err, &fe) {
			t.Errorf("%s: got %v, want a FileError", c.name, err)
			continue
		}
		if slices.ContainsFunc(c.want, func(w string) bool { return !strings.Contains(err.Error(), w) }) {
			t.Errorf("%s: got %q, want %q", c.name, err, c.want)
		}
	}
}

func TestPinsAreRefusedThatAreNoDigests(t *testing.T) {
	for _, pin := range []string{"", "abc", strings.Repeat("A", 44), base64.StdEncoding.EncodeToString([]byte("short"))} {
		if _, err := ClientTLS(Client{Verify: true, Pins: []string{pin}}); err == nil {
			t.Errorf("pin %q", pin)
		}
	}
}

func read(t testing.TB, name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
