package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
)

// eventually waits for something; how long it takes does not matter.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited, but not so: %s", what)
		}
	}
}

// trusts makes authorities those that may vouch for agents.
func (r *running) trusts(dirs ...string) {
	r.t.Helper()
	var all []byte
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, b...)
	}
	name := r.config.TLS.ClientCAFile
	if err := os.WriteFile(name+".new", all, 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		r.t.Fatal(err)
	}
}

// agent is a client with a certificate from the authority in the folder.
func (r *running) agent(ca string) *http.Client {
	r.t.Helper()
	cert := r.issue(func(*x509.Certificate) {}, ca)
	conf := r.trusting()
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return r.client(conf)
}

// trusting trusts the server, whoever may vouch for agents now.
func (r *running) trusting() *tls.Config {
	r.t.Helper()
	c, err := identity.ClientTLS(identity.Client{CAFile: filepath.Join(r.certs, "server-ca.crt"), Verify: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// apart gives the server a file of its own for those who vouch for agents.
func apart(c *Config) {
	dir := filepath.Dir(c.TLS.ClientCAFile)
	b, err := os.ReadFile(c.TLS.ClientCAFile)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "server-ca.crt"), b, 0o600)
	}
	if err != nil {
		panic(err)
	}
	c.TLS.ClientCAFile = filepath.Join(dir, "clients.crt")
	if err := os.WriteFile(c.TLS.ClientCAFile, b, 0o600); err != nil {
		panic(err)
	}
}

func TestAnotherAuthorityLetsConnectionsGoOnAndItsWithdrawalClosesThem(t *testing.T) {
	r := start(t, apart)
	others := filepath.Join(t.TempDir(), "others")
	if _, err := MakeCertificates(others, nil); err != nil {
		t.Fatal(err)
	}
	first, second := r.agent(r.certs), r.agent(others)
	n := uint64(0)
	send := func(c *http.Client) error {
		n++
		status, a, err := r.post(c, r.lines(r.node, n, n), n, n)
		if err == nil && status != 200 {
			t.Errorf("%d %+v", status, a)
		}
		return err
	}
	if err := send(first); err != nil {
		t.Fatal(err)
	}
	if err := send(second); err == nil {
		t.Fatal("an agent of an authority that is not trusted yet was let in")
	}
	connections := func() int { return strings.Count(r.log.String(), "connection closed") }
	r.trusts(r.certs, others)
	eventually(t, "the second authority is trusted", func() bool { return send(second) == nil })
	if err := send(first); err != nil || connections() != 0 {
		t.Errorf("the first agent after that: %v\n%s", err, r.log)
	}
	r.trusts(others)
	eventually(t, "the first agent's connection is closed", func() bool { return connections() == 1 })
	eventually(t, "the first agent is refused when it comes again", func() bool {
		return strings.Contains(identity.Explain(send(first)), "does not trust this agent's certificate")
	})
	if err := send(second); err != nil {
		t.Error(err)
	}
}

func TestAConnectionEndsWithItsCertificate(t *testing.T) {
	c, _, node := configure(t)
	g, err := (&Options{Config: c, Log: slog.New(slog.DiscardHandler)}).gate(new(metric.Set))
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Minute)
	cert := []*x509.Certificate{{NotAfter: end, URIs: []*url.URL{{Scheme: "spiffe", Host: "rea", Path: "/agent/" + node}}}}
	here, there := net.Pipe()
	defer there.Close()
	there.SetReadDeadline(time.Now().Add(time.Minute))
	g.tenants[here] = &tenant{asked: true, cert: cert, set: g.certs.Set()}
	g.evict(end)
	if len(g.tenants) != 1 || g.refuse(cert, end) != nil {
		t.Error("ended before its time")
	}
	g.evict(end.Add(time.Second))
	if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || len(g.tenants) != 0 {
		t.Errorf("it goes on: %v", err)
	}
	if err := g.refuse(cert, end.Add(time.Second)); !errors.Is(err, errExpired) {
		t.Errorf("a request of it: %v", err)
	}
}

func TestWhoHasNoCertificateGoesWhenOneIsWantedAgain(t *testing.T) {
	c, _, _ := configure(t)
	c.TLS.ClientAuth = "optional"
	now := c
	var log bytes.Buffer
	o := &Options{Config: c, Log: slog.New(slog.NewTextHandler(&log, nil)), Reload: func() (Config, string, error) { return now, "", nil }}
	g, err := o.gate(new(metric.Set))
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	defer there.Close()
	g.tenants[here] = &tenant{asked: true, set: g.certs.Set()}
	fresh, other := net.Pipe() // in its handshake
	defer other.Close()
	g.tenants[fresh] = new(tenant)
	if g.evict(time.Now()); len(g.tenants) != 2 {
		t.Fatalf("it is closed:\n%s", log.String())
	}
	if report := g.health("", time.Now()); report.TLS.ClientAuth != "optional" || report.Status != "ok" {
		t.Errorf("%+v", report)
	}
	now.TLS.ClientAuth = "require"
	set, _, err := (&follower{o: o}).load()
	if err != nil {
		t.Fatal(err)
	}
	if why := g.stay(tenant{asked: true, set: g.certs.Set()}, set, time.Now()); why == nil {
		t.Error("it stays")
	}
	g.close(here, *g.tenants[here], errors.New("gone"))
	if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || g.tenants[here] != nil {
		t.Errorf("it goes on: %v", err)
	}
	if n := strings.Count(log.String(), "CLIENT CERTIFICATES ARE NOT REQUIRED"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
}

func TestWhoIsToldWhyIsNotCutOffBeforeTheAnswer(t *testing.T) {
	c, _, node := configure(t)
	g, err := (&Options{Config: c, Log: slog.New(slog.DiscardHandler)}).gate(new(metric.Set))
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(-time.Minute)
	cert := []*x509.Certificate{{NotAfter: end, URIs: []*url.URL{{Scheme: "spiffe", Host: "rea", Path: "/agent/" + node}}}}
	here, there := net.Pipe()
	defer there.Close()
	conn := tls.Server(here, &tls.Config{})
	g.tenants[here] = &tenant{asked: true, cert: cert, set: g.certs.Set()}
	r := httptest.NewRequest(http.MethodPost, "/ingest", nil).WithContext(g.context(t.Context(), conn))
	r.TLS = &tls.ConnectionState{PeerCertificates: cert}
	w := httptest.NewRecorder()
	g.handler(nil, func(*http.Request, string) {}).ServeHTTP(w, r)
	if g.evict(time.Now()); w.Code != http.StatusForbidden || len(g.tenants) != 1 {
		t.Errorf("answered %d, and %d connections are left", w.Code, len(g.tenants))
	}
	g.tenants[here].leave = time.Now().Add(-time.Nanosecond) // who does not take the answer
	if g.evict(time.Now()); len(g.tenants) != 0 {
		t.Error("it stays for ever")
	}
}

func TestAServerKeepsItsCertificateUntilAnotherIsWhole(t *testing.T) {
	r := start(t, apart)
	others := filepath.Join(t.TempDir(), "others")
	if _, err := MakeCertificates(others, nil); err != nil {
		t.Fatal(err)
	}
	move := func(name string) {
		b, err := os.ReadFile(filepath.Join(others, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(r.certs, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	move("server.crt")
	eventually(t, "the server says that it does not take that", func() bool { return strings.Contains(r.log.String(), "does not belong to the certificate") })
	if status, _, err := r.post(r.agent(r.certs), r.lines(r.node, 1, 1), 1, 1); err != nil || status != 200 {
		t.Errorf("an agent meanwhile: %d, %v", status, err)
	}
	move("server.key")
	eventually(t, "the other certificate is shown", func() bool {
		_, _, err := r.post(r.agent(r.certs), r.lines(r.node, 2, 2), 2, 2)
		return strings.Contains(identity.Explain(err), "not trusted here")
	})
}

func TestABrokenConfigurationDoesNotKeepARevocationFromBeingObeyed(t *testing.T) {
	list := filepath.Join(t.TempDir(), "revoked.jsonl")
	write := func(text string) {
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	var broken error
	c := Default()
	c.TLS.DenylistFile = list
	d := &denier{o: &Options{Config: c, Reload: func() (Config, string, error) { return c, "server.toml", broken }}}
	if l, files, err := d.load(); err != nil || len(l.All()) != 0 || strings.Join(files, " ") != "server.toml "+list {
		t.Fatal(files, err)
	}
	write(`{"serial":"12"}` + "\n")
	broken = errors.New("line 7 is wrong")
	if l, _, err := d.load(); err != nil || len(l.All()) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	broken, c.TLS.DenylistFile = nil, ""
	if l, _, err := d.load(); err != nil || len(l.All()) != 0 {
		t.Errorf("no list is named: %+v, %v", l, err)
	}
}
