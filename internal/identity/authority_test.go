package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newAuthority(t testing.TB, kind string) *Authority {
	t.Helper()
	a, err := NewAuthority("example.org", kind, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAnAuthorityDecidesWhatStandsInACertificate(t *testing.T) {
	a := newAuthority(t, ECDSA)
	key, err := NewKey(ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	evil := &url.URL{Scheme: "spiffe", Host: "example.org", Path: "/agent/0190d1c0-0000-7000-8000-00000000000b"}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "another CA", Organization: []string{"evil"}}, URIs: []*url.URL{evil}, DNSNames: []string{"rea.example.org"},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}}, // CA:TRUE
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Sign(csr, uuid, 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if node, err := Node(c); err != nil || node != uuid {
		t.Errorf("names %q, %v", node, err)
	}
	if c.IsCA || len(c.DNSNames) > 0 || c.Subject.String() != "CN=REA agent,O=example.org" {
		t.Errorf("CA %v, names %v, subject %s", c.IsCA, c.DNSNames, c.Subject)
	}
	if c.KeyUsage != x509.KeyUsageDigitalSignature || fmt.Sprint(c.ExtKeyUsage) != fmt.Sprint([]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("key usage %v, %v", c.KeyUsage, c.ExtKeyUsage)
	}
	if c.NotAfter.After(a.Cert.NotAfter) {
		t.Errorf("outlives its authority: %v", c.NotAfter)
	}
	csr.Signature[len(csr.Signature)-1] ^= 1
	if _, err := a.Sign(csr, uuid, time.Hour); err == nil {
		t.Error("a request that is not signed with its key")
	}
}

func TestAnAuthorityRefuses(t *testing.T) {
	a := newAuthority(t, ECDSA)
	good, err := NewKey(ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	short, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"", "x", strings.ToUpper(uuid), uuid + "/", "../" + uuid, uuid + "?x"} {
		if _, err := a.SignAgent(good.Public(), node, time.Hour); !errors.Is(err, ErrNode) {
			t.Errorf("node %q: %v", node, err)
		}
	}
	if _, err := a.SignAgent(short.Public(), uuid, time.Hour); err == nil {
		t.Error("a key of P-224")
	}
	if _, err := a.SignAgent(weak.Public(), uuid, time.Hour); err == nil {
		t.Error("a key of RSA with 1024 bits")
	}
	for _, names := range [][]string{nil, {"https://x"}, {"a b"}} {
		if _, err := a.SignServer(good.Public(), names, time.Hour); !errors.Is(err, ErrName) {
			t.Errorf("names %q: %v", names, err)
		}
	}
	for _, org := range []string{"", "Example", "a/b", "a b"} {
		if _, err := NewAuthority(org, ECDSA, time.Hour); !errors.Is(err, ErrAsked) {
			t.Errorf("organisation %q: %v", org, err)
		}
	}
	if _, err := NewAuthority("x", "dsa", time.Hour); !errors.Is(err, ErrAsked) {
		t.Errorf("a key of DSA: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, ECDSA)
		time.Sleep(25 * time.Hour)
		if _, err := a.SignAgent(good.Public(), uuid, time.Hour); !errors.Is(err, ErrTime) {
			t.Errorf("an authority that has expired: %v", err)
		}
	})
}

func TestCertificatesOfBothKindsOfKeysMeet(t *testing.T) {
	for _, kind := range []string{ECDSA, Ed25519} {
		dir := t.TempDir()
		a := newAuthority(t, kind)
		make := func(sub, what string, sign func(public any) (*x509.Certificate, error)) string {
			key, err := NewKey(kind)
			if err != nil {
				t.Fatal(err)
			}
			c, err := sign(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.SavePair(filepath.Join(dir, sub), what, c, key); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, sub)
		}
		server := make("server", ServerFile, func(p any) (*x509.Certificate, error) { return a.SignServer(p, []string{"rea.test", "::1"}, time.Hour) })
		agent := make("agent", AgentFile, func(p any) (*x509.Certificate, error) { return a.SignAgent(p, uuid, time.Hour) })
		serverConf, err := ServerTLS(Server{CertFile: server + "/server.crt", KeyFile: server + "/server.key", ClientCAFile: server + "/ca.crt"})
		if err != nil {
			t.Fatal(err)
		}
		clientConf, err := ClientTLS(Client{CAFile: agent + "/ca.crt", CertFile: agent + "/agent.crt", KeyFile: agent + "/agent.key", Verify: true, ServerName: "rea.test"})
		if err != nil {
			t.Fatal(err)
		}
		if c, s := handshake(t, clientConf, serverConf); c != nil || s != nil {
			t.Errorf("%s: %v, %v", kind, c, s)
		}
	}
}

func TestAnAuthorityIsLoadedOnlyWithItsKey(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	if err := errors.Join(newAuthority(t, ECDSA).Save(a), newAuthority(t, Ed25519).Save(b)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join
	for _, dir := range []string{a, b} {
		if got, err := LoadAuthority(file(dir, CAFile), file(dir, CAKey)); err != nil || got.Org() != "example.org" {
			t.Errorf("%v", err)
		}
	}
	from, to := valid()
	leaf := issue(t, nil, agentTemplate(), from, to)
	old := issue(t, nil, x509.Certificate{Subject: subject("old"), IsCA: true, KeyUsage: x509.KeyUsageCertSign}, from.Add(-time.Hour), from)
	damaged := file(t.TempDir(), "ca.key")
	if err := os.WriteFile(damaged, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, files := range map[string][2]string{
		"does not belong to the certificate": {file(a, CAFile), file(b, CAKey)},
		"does not exist":                     {file(a, "gone"), file(a, CAKey)},
		"is a private key":                   {file(a, CAKey), file(a, CAKey)},
		"name the right file":                {file(a, CAFile), t.TempDir()},
		"not the certificate of an authorit": {leaf.cert, leaf.key},
		"expired":                            {old.cert, old.key},
		"is damaged":                         {file(a, CAFile), damaged},
	} {
		var fe *FileError
		if _, err := LoadAuthority(files[0], files[1]); !errors.As(err, &fe) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := newAuthority(t, ECDSA).Save(a); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwrites: %v", err)
	}
}

// The hybrid of X25519 and ML-KEM guards what is recorded today against tomorrow's
// computers. Nothing here asks for it: it is what Go does, unless it is switched off.
func TestTheKeyExchangeIsHybridAndPostQuantum(t *testing.T) {
	from, to := valid()
	ca := authority(t)
	server := issue(t, &ca, serverTemplate(x509.ExtKeyUsageServerAuth), from, to)
	agent := issue(t, &ca, agentTemplate(x509.ExtKeyUsageClientAuth), from, to)
	serverConf, err := ServerTLS(Server{CertFile: server.cert, KeyFile: server.key, ClientCAFile: ca.cert})
	if err != nil {
		t.Fatal(err)
	}
	clientConf, err := ClientTLS(Client{CAFile: ca.cert, CertFile: agent.cert, KeyFile: agent.key, Verify: true, ServerName: "rea.test"})
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	done := make(chan error, 1)
	s := tls.Server(b, serverConf)
	go func() { done <- s.Handshake() }()
	c := tls.Client(a, clientConf)
	if err := errors.Join(c.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	state := c.ConnectionState()
	if state.CurveID != tls.X25519MLKEM768 || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "http/1.1" {
		t.Errorf("%v, %s, %q", state.CurveID, tls.VersionName(state.Version), state.NegotiatedProtocol)
	}
}
