package server

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/wire"
)

// A maker is a certificate with its key, which may sign others.
type maker struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// mint signs c, whatever stands in it; by itself where by is nil.
func mint(t *testing.T, by *maker, key crypto.Signer, c *x509.Certificate) *maker {
	t.Helper()
	var err error
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		t.Fatal(err)
	}
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now().Add(-time.Hour)
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	if by == nil {
		by = &maker{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &maker{cert, key}
}

func (m *maker) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.cert.Raw})
}

// chain is the certificate as it is shown, with others behind it.
func (m *maker) chain(others ...*maker) *tls.Certificate {
	c := &tls.Certificate{Certificate: [][]byte{m.cert.Raw}, PrivateKey: m.key}
	for _, o := range others {
		c.Certificate = append(c.Certificate, o.cert.Raw)
	}
	return c
}

func authority(t *testing.T, name string, change func(*x509.Certificate), by *maker) *maker {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	if change != nil {
		change(c)
	}
	return mint(t, by, newKey(t, ""), c)
}

// A matrix is a server with all that the cases want of it.
type matrix struct {
	*running
	t *testing.T

	ca, deep, middle, stale, stranger *maker // deep signs middle; stale has expired; stranger is not trusted
	server                            *maker // for the cases about servers, by ca
	next                              uint64 // number of the next event
}

func newMatrix(t *testing.T, clientAuth string) *matrix {
	m := &matrix{t: t}
	m.ca = authority(t, "a CA", nil, nil)
	m.deep = authority(t, "a root", nil, nil)
	m.middle = authority(t, "an intermediate CA", nil, m.deep)
	m.stale = authority(t, "a CA of yesterday", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	}, nil)
	m.stranger = authority(t, "another CA", nil, nil)
	m.server = m.host(nil, m.ca)
	m.running = start(t, func(c *Config) {
		apart(c)
		all := bytes.Join([][]byte{m.ca.pem(), m.deep.pem(), m.stale.pem()}, nil)
		c.TLS.ClientAuth = clientAuth
		c.TLS.DenylistFile = filepath.Join(filepath.Dir(c.TLS.ClientCAFile), "revoked.jsonl")
		c.Limits.ReadTimeout = time.Second
		c.Limits.SlowAfter, c.Limits.CutAfter = 0, 0 // many of these are what nobody honest does
		if err := errors.Join(os.WriteFile(c.TLS.ClientCAFile, all, 0o600), os.WriteFile(c.TLS.DenylistFile, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	})
	return m
}

// leaf makes an agent's certificate, as change wants it.
func (m *matrix) leaf(by *maker, change func(*x509.Certificate)) *maker {
	return m.leafOf(by, "", change)
}

func (m *matrix) leafOf(by *maker, kind string, change func(*x509.Certificate)) *maker {
	c := &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "rea", Path: "/agent/" + m.node}},
	}
	if change != nil {
		change(c)
	}
	return mint(m.t, by, newKey(m.t, kind), c)
}

// host makes a server's certificate.
func (m *matrix) host(change func(*x509.Certificate), by *maker) *maker {
	c := &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{"rea.test"},
	}
	if change != nil {
		change(c)
	}
	return mint(m.t, by, newKey(m.t, ""), c)
}

// outcome is what a case came to, in a few words.
func outcome(status int, a wire.Answer, err error) string {
	switch {
	case err == nil && status == 200:
		return "200"
	case err == nil:
		return strings.TrimSpace(fmt.Sprintf("%d %s", status, a.Error))
	}
	if text := identity.Explain(err); text != "" {
		return "no connection: " + text
	}
	return "no connection: " + err.Error()
}

// showing is the configuration of an agent that shows cert.
func (m *matrix) showing(cert *tls.Certificate) *tls.Config {
	conf := m.trusting()
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	return conf
}

// deliver sends the next event over a new connection.
func (m *matrix) deliver(conf *tls.Config) string {
	c := m.client(conf)
	defer c.CloseIdleConnections()
	return m.send(c)
}

func (m *matrix) send(c *http.Client) string {
	m.next++
	return outcome(m.post(c, m.lines(m.node, m.next, m.next), m.next, m.next))
}

// shows is deliver for an agent that shows a leaf, and others behind it.
func (m *matrix) shows(leaf *maker, others ...*maker) string {
	return m.deliver(m.showing(leaf.chain(others...)))
}

// revoke adds a line to the denylist.
func (m *matrix) revoke(d identity.Denial) {
	name := m.config.TLS.DenylistFile
	b, err := os.ReadFile(name)
	if err != nil {
		m.t.Fatal(err)
	}
	line, _ := json.Marshal(d)
	if err := errors.Join(os.WriteFile(name+".new", append(append(b, line...), '\n'), 0o600), os.Rename(name+".new", name)); err != nil {
		m.t.Fatal(err)
	}
}

// revoked sends with a certificate until it is refused, which must be soon.
func (m *matrix) revoked(d func(*maker) identity.Denial, change func(*x509.Certificate)) string {
	leaf := m.leaf(m.ca, change)
	if got := m.shows(leaf); got != "200" {
		return "before: " + got
	}
	m.revoke(d(leaf))
	return m.soon(func() string { return m.shows(leaf) })
}

// soon repeats a try while it answers 200, for a while, and when the connection was
// closed under a request that was let in before.
func (m *matrix) soon(try func() string) (got string) {
	began := time.Now()
	for time.Since(began) < patience {
		if got = try(); got != "200" && !strings.HasPrefix(got, "no connection") {
			m.t.Logf("a revocation took %v", time.Since(began).Round(time.Millisecond))
			return got
		}
		time.Sleep(50 * time.Millisecond)
	}
	return got + " still"
}

// patience is how long a revocation may take on a machine that is busy. It is five
// seconds at most on one that is not.
const patience = 20 * time.Second

// meets connects an agent that is configured like c to a server that shows chain.
func (m *matrix) meets(chain *tls.Certificate, c identity.Client, change func(*tls.Config)) string {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, append(m.ca.pem(), m.deep.pem()...), 0o600); err != nil {
		m.t.Fatal(err)
	}
	c.CAFile, c.ServerName = file, "rea.test"
	conf, err := identity.ClientTLS(c)
	if err != nil {
		m.t.Fatal(err)
	}
	server := &tls.Config{Certificates: []tls.Certificate{*chain}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	if change != nil {
		change(server)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			_ = tls.Server(c, server).Handshake()
			c.Close()
		}
	}()
	there, err := tls.Dial("tcp", l.Addr().String(), conf)
	if err == nil {
		there.Close()
	}
	<-done
	if err == nil {
		return "connected"
	}
	return outcome(0, wire.Answer{}, err)
}

// pinned is a meeting with a server of an intermediate CA.
func (m *matrix) pinned(verify bool, pins ...*maker) string {
	host := m.host(nil, m.middle)
	var texts []string
	for _, p := range pins {
		if p == nil {
			p = host
		}
		texts = append(texts, identity.SPKI(p.cert))
	}
	return m.meets(host.chain(m.middle, m.stranger), identity.Client{Verify: verify, Pins: texts}, nil)
}

// bytes sends text without TLS, and returns what comes back until the server hangs up.
func (m *matrix) bytes(text string, hangUp bool) string {
	c, err := net.Dial("tcp", m.addr)
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(c, text)
	if hangUp {
		c.(*net.TCPConn).CloseWrite()
	}
	b, err := io.ReadAll(io.LimitReader(c, 1000))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "still open"
	}
	if i := bytes.IndexByte(b, '\r'); i > 0 && bytes.HasPrefix(b, []byte("HTTP/")) {
		return string(b[:i])
	}
	return "closed"
}

// hello is the beginning of a handshake.
func (m *matrix) hello() string {
	here, there := net.Pipe()
	got := make(chan string, 1)
	go func() {
		b := make([]byte, 4096)
		n, _ := there.Read(b)
		got <- string(b[:n])
		there.Close()
	}()
	_ = tls.Client(here, &tls.Config{ServerName: "rea.test"}).Handshake()
	return <-got
}

// speaking is deliver with a change of how TLS is spoken.
func (m *matrix) speaking(change func(*tls.Config)) string {
	conf := m.showing(m.leaf(m.ca, nil).chain())
	change(conf)
	return m.deliver(conf)
}

// body sends a body that may have lines of somebody else.
func (m *matrix) body(body []byte, first, last uint64, head func(http.Header)) string {
	return m.bodyAs(m.showing(m.leaf(m.ca, nil).chain()), body, first, last, head)
}

func (m *matrix) bodyAs(conf *tls.Config, body []byte, first, last uint64, head func(http.Header)) string {
	c := m.client(conf)
	defer c.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodPost, "https://"+m.addr+wire.IngestPath, bytes.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	wire.Batch{Stream: stream, First: first, Last: last, ID: "b", Schema: 1, Assigned: last}.SetHeader(req.Header)
	if head != nil {
		head(req.Header)
	}
	resp, err := c.Do(req)
	if err != nil {
		return outcome(0, wire.Answer{}, err)
	}
	defer resp.Body.Close()
	var a wire.Answer
	err = json.NewDecoder(resp.Body).Decode(&a)
	return outcome(resp.StatusCode, a, err)
}

// claims sends the next event of a node, as one that names a node in the head.
func (m *matrix) claims(node, of string, conf *tls.Config) string {
	m.next++
	return m.bodyAs(conf, m.lines(of, m.next, m.next), m.next, m.next, func(h http.Header) {
		if node != "" {
			wire.SetNode(h, node)
		}
	})
}

// asks is claims with no certificate and no event.
func (m *matrix) asks(node string) string {
	c := m.client(m.bare())
	defer c.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodPost, "https://"+m.addr+wire.ResumePath, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	wire.Resume{Stream: stream, Assigned: 1000, Instance: stream}.SetHeader(req.Header)
	wire.SetNode(req.Header, node)
	resp, err := c.Do(req)
	if err != nil {
		return outcome(0, wire.Answer{}, err)
	}
	defer resp.Body.Close()
	var a wire.Answer
	return outcome(resp.StatusCode, a, json.NewDecoder(resp.Body).Decode(&a))
}

// bare is the configuration of an agent that shows no certificate.
func (m *matrix) bare() *tls.Config {
	conf := m.trusting()
	conf.GetClientCertificate = nil
	return conf
}

// Nodes beside that of the matrix.
const (
	elsewhere = "0190d1c0-0000-7000-8000-00000000000b"
	stranger  = "0190d1c0-0000-7000-8000-00000000000c" // never shows a certificate
	third     = "0190d1c0-0000-7000-8000-00000000000d"
)

func path(p string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.URIs[0].Path = p }
}

func uses(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = u }
}

func times(from, to time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
}

// Who gets in, and who does not: each case is one way of being the wrong one, or
// the right one in an unusual way. The table is printed with -v.
func TestTheMatrixOfIdentities(t *testing.T) {
	m, o := newMatrix(t, "require"), newMatrix(t, "optional")
	agent := m.leaf(m.ca, nil)
	all := identity.Client{Verify: true}
	cases := []struct {
		group, name, want string
		got               func() string
	}{
		{"agent", "all is right", "200", func() string { return m.shows(agent) }},
		{"agent", "a key of Ed25519", "200", func() string { return m.shows(m.leafOf(m.ca, "ed25519", nil)) }},
		{"agent", "a key of RSA, 2048 bits", "200", func() string { return m.shows(m.leafOf(m.ca, "rsa", nil)) }},
		{"agent", "a key of P-384", "200", func() string { return m.shows(m.leafOf(m.ca, "p384", nil)) }},
		{"agent", "no certificate", "no connection: the server wants a client certificate", func() string {
			return m.deliver(m.bare())
		}},
		{"agent", "a certificate without its key", "no connection: the server ended the TLS handshake", func() string {
			return m.deliver(m.showing(&tls.Certificate{Certificate: [][]byte{agent.cert.Raw}, PrivateKey: newKey(t, "")}))
		}},

		{"time", "expired", "no connection: the server says that this agent's certificate has expired", func() string { return m.shows(m.leaf(m.ca, times(-2*time.Hour, -time.Minute))) }},
		{"time", "not yet valid", "no connection: the server says that this agent's certificate has expired", func() string { return m.shows(m.leaf(m.ca, times(time.Hour, 2*time.Hour))) }},
		{"time", "clock of the CA 30 min ahead, backdated 1 h", "200", func() string { return m.shows(m.leaf(m.ca, times(-30*time.Minute, time.Hour))) }},
		{"time", "clock of the CA 2 min ahead, not backdated", "no connection: the server says that this agent's certificate has expired", func() string { return m.shows(m.leaf(m.ca, times(2*time.Minute, time.Hour))) }},
		{"time", "valid, of a CA that has expired", "no connection: the server says that this agent's certificate has expired", func() string { return m.shows(m.leaf(m.stale, nil)) }},

		{"chain", "of another CA", "no connection: the server does not trust", func() string { return m.shows(m.leaf(m.stranger, nil)) }},
		{"chain", "of another CA, that CA appended", "no connection: the server does not trust", func() string { return m.shows(m.leaf(m.stranger, nil), m.stranger) }},
		{"chain", "of another CA, the right CA appended", "no connection: the server does not trust", func() string { return m.shows(m.leaf(m.stranger, nil), m.ca) }},
		{"chain", "of another CA, a good agent appended", "no connection: the server does not trust", func() string { return m.shows(m.leaf(m.stranger, nil), agent) }},
		{"chain", "signed by itself", "no connection: the server does not trust", func() string { return m.shows(m.leaf(nil, nil)) }},
		{"chain", "signed by an agent", "no connection: the server", func() string { return m.shows(m.leaf(agent, nil), agent) }},
		{"chain", "of an intermediate CA, which is shown", "200", func() string { return m.shows(m.leaf(m.middle, nil), m.middle) }},
		{"chain", "of an intermediate CA, which is not shown", "no connection: the server does not trust", func() string { return m.shows(m.leaf(m.middle, nil)) }},
		{"chain", "below a CA that may have none below it", "no connection: the server", func() string {
			flat := authority(t, "flat", func(c *x509.Certificate) { c.MaxPathLenZero = true }, m.deep)
			under := authority(t, "under", nil, flat)
			return m.shows(m.leaf(under, nil), under, flat)
		}},
		{"chain", "the CA itself", "no connection: the server", func() string {
			return m.shows(authority(t, "ca", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, m.ca))
		}},

		{"usage", "of a server", "no connection: the server refuses this agent's certificate", func() string { return m.shows(m.leaf(m.ca, uses(x509.ExtKeyUsageServerAuth))) }},
		{"usage", "for signing code", "no connection: the server refuses this agent's certificate", func() string { return m.shows(m.leaf(m.ca, uses(x509.ExtKeyUsageCodeSigning))) }},
		{"usage", "any", "200", func() string { return m.shows(m.leaf(m.ca, uses(x509.ExtKeyUsageAny))) }},
		{"usage", "not said", "200", func() string { return m.shows(m.leaf(m.ca, uses())) }},

		{"name", "no URI", "403 the certificate names no agent", func() string { return m.shows(m.leaf(m.ca, func(c *x509.Certificate) { c.URIs = nil })) }},
		{"name", "the UUID as common name only", "403 the certificate names no agent", func() string {
			return m.shows(m.leaf(m.ca, func(c *x509.Certificate) { c.URIs, c.Subject.CommonName = nil, m.node }))
		}},
		{"name", "the UUID as DNS name only", "403 the certificate names no agent", func() string {
			return m.shows(m.leaf(m.ca, func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{m.node} }))
		}},
		{"name", "two agents", "403 the certificate has 2 spiffe URIs", func() string {
			return m.shows(m.leaf(m.ca, func(c *x509.Certificate) {
				c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "rea", Path: "/agent/" + elsewhere})
			}))
		}},
		{"name", "an agent and a URI of another scheme", "200", func() string {
			return m.shows(m.leaf(m.ca, func(c *x509.Certificate) { c.URIs = append(c.URIs, &url.URL{Scheme: "https", Host: "x"}) }))
		}},
		{"name", "a server", "403 the certificate names no agent", func() string { return m.shows(m.leaf(m.ca, path("/server/"+m.node))) }},
		{"name", "capitals", "403 the certificate names no agent", func() string { return m.shows(m.leaf(m.ca, path("/agent/"+strings.ToUpper(m.node)))) }},
		{"name", "a way up", "403 the certificate names no agent", func() string { return m.shows(m.leaf(m.ca, path("/agent/../agent/"+m.node))) }},

		{"spoof", "events of another agent", "403 node is", func() string { return m.shows(m.leaf(m.ca, path("/agent/"+elsewhere))) }},
		{"spoof", "one event of another agent among its own", "403 node is", func() string {
			n := m.next + 1
			return m.body(append(m.lines(m.node, n, n), m.lines(elsewhere, n+1, n+1)...), n, n+1, nil)
		}},
		{"spoof", "another name in headers", "200", func() string {
			m.next++
			return m.body(m.lines(m.node, m.next, m.next), m.next, m.next, func(h http.Header) {
				for _, name := range []string{"Rea-Node", "X-Node", "X-Client-Cert", "X-Forwarded-Client-Cert", "X-Ssl-Client-S-Dn", "Forwarded", "Authorization"} {
					h.Set(name, "spiffe://rea/agent/"+elsewhere)
				}
			})
		}},
		{"spoof", "a name twice in one event", "422", func() string {
			n := m.next + 1
			line := bytes.Replace(m.lines(m.node, n, n), []byte(`"node":`), []byte(`"node":"`+elsewhere+`","node":`), 1)
			return m.body(line, n, n, nil)
		}},
		{"spoof", "a cloned key, other events under the same numbers", "409 two agents use this stream", func() string {
			line := bytes.Replace(m.lines(m.node, 1, 1), []byte("0.117"), []byte("0.9"), 1)
			return m.body(line, 1, 1, nil)
		}},

		{"revoked", "by serial number", "403 this agent was revoked (lost)", func() string {
			return m.revoked(func(l *maker) identity.Denial {
				return identity.Denial{Serial: identity.Serial(l.cert), Reason: "lost"}
			}, nil)
		}},
		{"revoked", "by key", "403 this agent was revoked", func() string {
			return m.revoked(func(l *maker) identity.Denial { return identity.Denial{SPKI: identity.SPKI(l.cert)} }, nil)
		}},
		{"revoked", "by name", "403 this agent was revoked", func() string {
			// Its events are of another one; that is not asked before.
			leaf := m.leaf(m.ca, path("/agent/"+elsewhere))
			m.revoke(identity.Denial{Node: elsewhere})
			return m.soon(func() string {
				if got := m.shows(leaf); !strings.HasPrefix(got, "403 node is") {
					return got
				}
				return "200"
			})
		}},
		{"revoked", "while connected", "closed", func() string {
			leaf := m.leaf(m.ca, nil)
			conf := m.showing(leaf.chain())
			conf.ServerName = "127.0.0.1"
			c, err := tls.Dial("tcp", m.addr, conf)
			if err != nil {
				return err.Error()
			}
			defer c.Close()
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			c.SetReadDeadline(time.Now().Add(patience))
			if _, err := c.Read(make([]byte, 1000)); err != nil {
				return err.Error()
			}
			m.revoke(identity.Denial{Serial: identity.Serial(leaf.cert)})
			began := time.Now()
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				return "still open"
			}
			t.Logf("a connection was closed after %v", time.Since(began).Round(time.Millisecond))
			return "closed"
		}},
		{"revoked", "comes again with a session of before", "403 this agent was revoked", func() string {
			leaf := m.leaf(m.ca, nil)
			conf := m.showing(leaf.chain())
			conf.ClientSessionCache = tls.NewLRUClientSessionCache(8)
			if got := m.deliver(conf); got != "200" {
				return "before: " + got
			}
			m.revoke(identity.Denial{Serial: identity.Serial(leaf.cert)})
			return m.soon(func() string { return m.deliver(conf) })
		}},
		{"revoked", "a session is never resumed", "200, resumed false", func() string {
			conf := m.showing(m.leaf(m.ca, nil).chain())
			conf.ClientSessionCache = tls.NewLRUClientSessionCache(8)
			got := m.deliver(conf)
			conf.ServerName = "127.0.0.1"
			c, err := tls.Dial("tcp", m.addr, conf)
			if err != nil {
				return err.Error()
			}
			defer c.Close()
			return fmt.Sprintf("%s, resumed %v", got, c.ConnectionState().DidResume)
		}},
		{"revoked", "another agent meanwhile", "200", func() string { return m.shows(agent) }},

		{"require", "no certificate, a name in the head", "no connection: the server wants a client certificate", func() string { return m.claims(elsewhere, elsewhere, m.bare()) }},
		{"optional", "no certificate, a node that nobody knows", "200", func() string { return o.claims(stranger, stranger, o.bare()) }},
		{"optional", "no certificate, no name", "403 a verified client certificate is needed, or the name of a node: header Rea-Node is missing", func() string { return o.claims("", stranger, o.bare()) }},
		{"optional", "no certificate, a name that is a path", "403 a verified client certificate is needed, or the name of a node: header Rea-Node: want", func() string { return o.claims("../"+stranger, stranger, o.bare()) }},
		{"optional", "no certificate, events of another node", "403 node is", func() string { return o.claims(stranger, elsewhere, o.bare()) }},
		{"optional", "no certificate, asks for its stream", "200", func() string { return o.asks(stranger) }},
		{"optional", "a certificate", "200", func() string { return o.shows(o.leaf(o.ca, nil)) }},
		{"optional", "a certificate, another name in the head", "200", func() string { return o.claims(stranger, o.node, o.showing(o.leaf(o.ca, nil).chain())) }},
		{"optional", "a certificate, head and events of another node", "403 node is", func() string { return o.claims(stranger, stranger, o.showing(o.leaf(o.ca, nil).chain())) }},
		{"optional", "no certificate, for an agent that has one", "403 not without a certificate: this agent has shown one before", func() string { return o.claims(o.node, o.node, o.bare()) }},
		{"optional", "no certificate, for one that has one, in capitals", "403 not without a certificate: this agent has shown one before", func() string {
			return o.claims(strings.ToUpper(o.node), strings.ToUpper(o.node), o.bare())
		}},
		{"optional", "no certificate, asks for an agent that has one", "403 not without a certificate", func() string { return o.asks(o.node) }},
		{"optional", "of another CA", "no connection: the server does not trust", func() string { return o.claims(stranger, stranger, o.showing(o.leaf(o.stranger, nil).chain())) }},
		{"optional", "signed by itself", "no connection: the server does not trust", func() string { return o.claims(stranger, stranger, o.showing(o.leaf(nil, nil).chain())) }},
		{"optional", "expired", "no connection: the server says that this agent's certificate has expired", func() string {
			return o.claims(stranger, stranger, o.showing(o.leaf(o.ca, times(-2*time.Hour, -time.Minute)).chain()))
		}},
		{"optional", "of a server", "no connection: the server refuses this agent's certificate", func() string {
			return o.claims(stranger, stranger, o.showing(o.leaf(o.ca, uses(x509.ExtKeyUsageServerAuth)).chain()))
		}},
		{"optional", "a certificate without its key", "no connection: the server ended the TLS handshake", func() string {
			return o.claims(stranger, stranger, o.showing(&tls.Certificate{Certificate: [][]byte{o.leaf(o.ca, nil).cert.Raw}, PrivateKey: newKey(t, "")}))
		}},
		{"optional", "a certificate that names no agent, a name in the head", "403 the certificate names no agent", func() string {
			return o.claims(stranger, stranger, o.showing(o.leaf(o.ca, func(c *x509.Certificate) { c.URIs = nil }).chain()))
		}},
		{"optional", "revoked by name, no certificate", "403 not without a certificate: this agent was revoked (lost)", func() string {
			if got := o.claims(elsewhere, elsewhere, o.bare()); got != "200" {
				return "before: " + got
			}
			o.revoke(identity.Denial{Node: elsewhere, Reason: "lost"})
			return o.soon(func() string { return o.claims(elsewhere, elsewhere, o.bare()) })
		}},
		{"optional", "revoked by key, comes without", "403 not without a certificate: this agent has shown one before", func() string {
			leaf := o.leaf(o.ca, path("/agent/"+third))
			if got := o.claims("", third, o.showing(leaf.chain())); got != "200" {
				return "before: " + got
			}
			o.revoke(identity.Denial{SPKI: identity.SPKI(leaf.cert)})
			if got := o.soon(func() string { return o.claims("", third, o.showing(leaf.chain())) }); !strings.HasPrefix(got, "403 this agent was revoked") {
				return "revoked: " + got
			}
			return o.claims(third, third, o.bare())
		}},
		{"optional", "without one, then with one, then without", "200, 200, 403", func() string {
			const late = "0190d1c0-0000-7000-8000-00000000000f"
			conf := o.showing(o.leaf(o.ca, path("/agent/"+late)).chain())
			return o.claims(late, late, o.bare()) + ", " + o.claims("", late, conf) + ", " + o.claims(late, late, o.bare())[:3]
		}},
		{"optional", "no certificate, HTTP/2 by ALPN", "no connection: the server does not speak HTTP/1.1", func() string {
			conf := o.bare()
			conf.NextProtos = []string{"h2"}
			return o.claims(stranger, stranger, conf)
		}},
		{"optional", "another one without meanwhile", "200", func() string { return o.claims(stranger, stranger, o.bare()) }},

		{"server", "all is right", "connected", func() string { return m.meets(m.server.chain(), all, nil) }},
		{"server", "expired", "no connection: the server's certificate, or its authority's, has expired", func() string { return m.meets(m.host(times(-2*time.Hour, -time.Hour), m.ca).chain(), all, nil) }},
		{"server", "not yet valid", "no connection: the server's certificate is not valid before", func() string { return m.meets(m.host(times(time.Hour, 2*time.Hour), m.ca).chain(), all, nil) }},
		{"server", "of another CA", "no connection: the server's certificate is from an authority that is not trusted", func() string { return m.meets(m.host(nil, m.stranger).chain(m.ca), all, nil) }},
		{"server", "another name", "no connection: the server's certificate is for another name", func() string {
			return m.meets(m.host(func(c *x509.Certificate) { c.DNSNames = []string{"other.test"} }, m.ca).chain(), all, nil)
		}},
		{"server", "the name as common name only", "no connection: the server's certificate is for another name", func() string {
			return m.meets(m.host(func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, "rea.test" }, m.ca).chain(), all, nil)
		}},
		{"server", "an agent's certificate with the right name", "no connection: the server's certificate is not made for a server", func() string {
			return m.meets(m.host(uses(x509.ExtKeyUsageClientAuth), m.ca).chain(), all, nil)
		}},
		{"server", "TLS 1.2 only", "no connection: the server does not speak TLS 1.3", func() string {
			return m.meets(m.server.chain(), all, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 })
		}},
		{"server", "another protocol only", "no connection: the server does not speak HTTP/1.1", func() string {
			return m.meets(m.server.chain(), all, func(c *tls.Config) { c.NextProtos = []string{"other"} })
		}},

		{"pin", "of the leaf", "connected", func() string { return m.pinned(true, nil) }},
		{"pin", "of the intermediate CA", "connected", func() string { return m.pinned(true, m.middle) }},
		{"pin", "of the root, which is not sent", "connected", func() string { return m.pinned(true, m.deep) }},
		{"pin", "of none of them", "no connection: the server has no pinned key", func() string { return m.pinned(true, m.ca) }},
		{"pin", "of a CA that is appended only", "no connection: the server has no pinned key", func() string { return m.pinned(true, m.stranger) }},
		{"pin", "two, of which one fits", "connected", func() string { return m.pinned(true, m.ca, nil) }},
		{"pin", "of the leaf, not verified", "connected", func() string { return m.pinned(false, nil) }},
		{"pin", "of the root, not verified", "no connection: the server has no pinned key", func() string { return m.pinned(false, m.deep) }},

		{"wire", "TLS 1.2", "no connection: the server does not speak TLS 1.3", func() string {
			return m.speaking(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 })
		}},
		{"wire", "HTTP/2 by ALPN", "no connection: the server does not speak HTTP/1.1", func() string { return m.speaking(func(c *tls.Config) { c.NextProtos = []string{"h2"} }) }},
		{"wire", "HTTP/2 or HTTP/1.1 by ALPN", "200", func() string { return m.speaking(func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }) }},
		{"wire", "no ALPN", "200", func() string { return m.speaking(func(c *tls.Config) { c.NextProtos = nil }) }},
		{"wire", "X25519 without the post-quantum half", "200", func() string {
			return m.speaking(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} })
		}},
		{"wire", "HTTP without TLS", "HTTP/1.0 400 Bad Request", func() string { return m.bytes("POST /ingest HTTP/1.1\r\nHost: x\r\n\r\n", false) }},
		{"wire", "half of a handshake, then nothing", "closed", func() string { return m.bytes(m.hello()[:40], false) }},
		{"wire", "half of a handshake, then hung up", "closed", func() string { return m.bytes(m.hello()[:40], true) }},
		{"wire", "a handshake that does not go on", "closed", func() string { return m.bytes(m.hello(), false) }},
		{"wire", "bytes of nothing", "closed", func() string { return m.bytes(strings.Repeat("\x00\xff", 20000), false) }},
		{"wire", "an agent after all that", "200", func() string { return m.shows(agent) }},
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tGROUP\tCASE\tOUTCOME")
	for _, c := range cases {
		got, mark := c.got(), "ok"
		if got != c.want && (!strings.HasPrefix(got, c.want) || c.want == "200") {
			mark = "FAIL"
			t.Errorf("%s, %s: %s; want %s", c.group, c.name, got, c.want)
		}
		if len(got) > 90 {
			got = got[:90] + "…"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", mark, c.group, c.name, got)
	}
	w.Flush()
	t.Logf("%d cases\n%s", len(cases), &table)
	if len(cases) < 40 {
		t.Errorf("%d cases only", len(cases))
	}
	reader, err := OpenReader(m.config.Server.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := reader.Events(t.Context(), Filter{}, func(l *Line) error {
		if string(l.Node) != m.node {
			t.Errorf("an event of %s is stored", l.Node)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	open, err := OpenReader(o.config.Server.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	hosts, err := open.Hosts(t.Context())
	if err != nil || len(hosts) != 5 {
		t.Errorf("%d hosts, %v", len(hosts), err)
	}
	for _, h := range hosts {
		certified := h.Node == o.node || h.Node == third
		if certified && h.Unproven > 0 || !certified && h.Unproven == 0 || h.Node == stranger && h.Unproven != h.Events {
			t.Errorf("%s: %d of %d events came without a certificate", h.Node, h.Unproven, h.Events)
		}
	}
}
