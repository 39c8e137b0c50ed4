package registrar

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/server/pki"
	"github.com/rea-agent/rea/internal/wire"
)

const node = "0190d1c0-0000-7000-8000-000000000001"

// office is a Registrar with its authority.
type office struct {
	*Registrar
	t      testing.TB
	dir    string
	ca     *identity.Authority
	log    bytes.Buffer
	denied error // of everybody
	blamed int   // requests of agents that were refused
	said   map[string]bool
}

func newOffice(t testing.TB) *office {
	t.Helper()
	o := &office{t: t, dir: filepath.Join(t.TempDir(), "pki"), said: map[string]bool{}}
	f, err := pki.Init(o.dir, "example.org", identity.ECDSA, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o.ca = f.Authority
	o.Registrar, err = New(Options{
		Dir: o.dir, Life: time.Hour, Admits: func(*x509.Certificate) error { return nil },
		Denied:  func(string, string) error { return o.denied },
		Refused: func(*http.Request) { o.blamed++ },
		Said:    func(reason string) bool { before := o.said[reason]; o.said[reason] = true; return !before },
		Metrics: new(metric.Set), Log: slog.New(slog.NewTextHandler(&o.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *office) token(name string) (pki.JoinToken, string) {
	o.t.Helper()
	made, secret, err := pki.NewToken(o.dir, name, time.Hour)
	if err != nil {
		o.t.Fatal(err)
	}
	return made, secret.String()
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := identity.NewKey(identity.ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func body(t testing.TB, token string, key crypto.Signer) []byte {
	t.Helper()
	csr, err := identity.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(wire.EnrollRequest{Token: token, CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// post sends body as a stranger or, with a certificate, as an agent.
func (o *office) post(h http.Handler, method, path string, body []byte, shown *x509.Certificate) (int, wire.Enrolled) {
	o.t.Helper()
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	if shown != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{shown}, VerifiedChains: [][]*x509.Certificate{{shown}}}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var answer wire.Enrolled
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		o.t.Fatalf("%d %q: %v", w.Code, w.Body, err)
	}
	if (w.Code == http.StatusOK) != (answer.Error == "") || w.Code != http.StatusOK && answer.Certificates != "" {
		o.t.Errorf("%d %+v", w.Code, answer)
	}
	return w.Code, answer
}

func (o *office) enrol(token string, key crypto.Signer) (int, wire.Enrolled) {
	o.t.Helper()
	return o.post(o.Enroll(), http.MethodPost, wire.EnrollPath, body(o.t, token, key), nil)
}

func TestATokenBuysACertificateForTheNameThatItIsBoundTo(t *testing.T) {
	o := newOffice(t)
	_, token := o.token(node)
	key := newKey(t)
	for range 2 { // the first answer may have been lost
		code, answer := o.enrol(token, key)
		certs, got, err := identity.CheckIssued([]byte(answer.Certificates), key, time.Now())
		if err == nil {
			err = identity.Vouches(o.ca.Cert, certs, time.Now())
		}
		if code != http.StatusOK || got != node || err != nil || answer.CA != string(identity.EncodeCertificates(o.ca.Cert)) {
			t.Fatalf("%d %q %v", code, got, err)
		}
		if uri := certs[0].URIs[0].String(); uri != "spiffe://example.org/agent/"+node {
			t.Error(uri)
		}
	}
	issued, err := pki.List(o.dir)
	if err != nil || len(issued) != 2 || issued[0].Node != node {
		t.Errorf("%+v %v", issued, err)
	}
	if text := o.log.String(); !strings.Contains(text, "msg=enrolled") || strings.Contains(text, token[4:30]) {
		t.Error(text)
	}
}

// A stranger learns nothing of why a token is refused; the log tells it.
func TestEveryTokenThatIsNotTakenGetsTheSameAnswer(t *testing.T) {
	o := newOffice(t)
	_, used := o.token("used")
	if code, _ := o.enrol(used, newKey(t)); code != http.StatusOK {
		t.Fatal(code)
	}
	made, revoked := o.token("revoked")
	if _, err := pki.RevokeToken(o.dir, made.ID); err != nil {
		t.Fatal(err)
	}
	other := newOffice(t)
	_, foreign := other.token("foreign")
	var first wire.Enrolled
	for _, c := range []struct{ name, token, logged string }{
		{"unknown", identity.NewToken(o.ca.Cert).String(), "there is no such token"},
		{"used", used, "the token was used for another key"},
		{"revoked", revoked, "the token was revoked"},
		{"of another authority", foreign, "the token was made for another authority"},
		{"no token", "", "this is no join token"},
		{"a slip", used[:20] + used[21:] + "a", "a character is wrong"},
	} {
		o.log.Reset()
		code, answer := o.enrol(c.token, newKey(t))
		if first == (wire.Enrolled{}) {
			first = answer
		}
		if code != http.StatusForbidden || answer != first {
			t.Errorf("%s: %d %+v", c.name, code, answer)
		}
		if !strings.Contains(o.log.String(), c.logged) {
			t.Errorf("%s: the log does not say %q:\n%s", c.name, c.logged, o.log.String())
		}
	}
	_, good := o.token("good")
	o.denied = errors.New("denied by the list")
	if code, answer := o.enrol(good, newKey(t)); code != http.StatusForbidden || answer != first || !strings.Contains(o.log.String(), "denied by the list") {
		t.Errorf("denied: %d %+v", code, answer)
	}
}

func TestAnAgentRenewsForItselfAlone(t *testing.T) {
	o := newOffice(t)
	old := newKey(t)
	shown, err := o.ca.SignAgent(old.Public(), node, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"a new key": newKey(t), "the same key": old} {
		code, answer := o.post(o.Renew(), http.MethodPost, wire.RenewPath, body(t, "", key), shown)
		certs, got, err := identity.CheckIssued([]byte(answer.Certificates), key, time.Now())
		if code != http.StatusOK || err != nil || got != node || certs[0].Equal(shown) {
			t.Errorf("%s: %d %v %q", name, code, err, got)
		}
	}
	if code, _ := o.post(o.Renew(), http.MethodPost, wire.RenewPath, body(t, "", old), nil); code != http.StatusUnauthorized {
		t.Errorf("without a certificate: %d", code)
	}
	server, err := o.ca.SignServer(old.Public(), []string{"rea.test"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := o.post(o.Renew(), http.MethodPost, wire.RenewPath, body(t, "", old), server); code != http.StatusForbidden {
		t.Errorf("with a server's certificate: %d", code)
	}
	o.denied = errors.New("this agent was revoked")
	if code, answer := o.post(o.Renew(), http.MethodPost, wire.RenewPath, body(t, "", newKey(t)), shown); code != http.StatusForbidden || answer.Error != "this agent was revoked" {
		t.Errorf("denied: %d %+v", code, answer)
	}
}

func TestWhatAnAgentIsRefusedIsSaidOnceAndHeldAgainstIt(t *testing.T) {
	o := newOffice(t)
	agent, err := o.ca.SignAgent(newKey(t).Public(), node, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	nameless, err := o.ca.SignServer(newKey(t).Public(), []string{"rea.test"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o.denied = errors.New("this agent was revoked")
	csr := body(t, "", newKey(t))
	for range 8 { // less than its burst
		o.post(o.Renew(), http.MethodPost, wire.RenewPath, csr, agent)
		o.post(o.Renew(), http.MethodPost, wire.RenewPath, csr, nameless)
		o.post(o.Renew(), http.MethodPost, wire.RenewPath, []byte("nonsense"), nameless)
		o.post(o.Renew(), http.MethodPost, wire.RenewPath, csr, nil)
	}
	for text, want := range map[string]int{"no certificate is issued": 3, node: 1, "serial " + identity.Serial(nameless): 1} {
		if n := strings.Count(o.log.String(), text); n != want {
			t.Errorf("%q was said %d times, want %d:\n%s", text, n, want, o.log.String())
		}
	}
	if o.blamed != 32 {
		t.Errorf("%d of 32 requests are held against them", o.blamed)
	}
	o.o.Admits = func(*x509.Certificate) error { return errors.New("not among those") }
	o.denied = nil
	if code, _ := o.post(o.Renew(), http.MethodPost, wire.RenewPath, csr, agent); code != http.StatusServiceUnavailable || o.blamed != 32 {
		t.Errorf("%d, and %d are held against them though the server is broken", code, o.blamed)
	}
}

func TestRequestsThatAreNotWhatTheyShouldBe(t *testing.T) {
	o := newOffice(t)
	_, token := o.token("lab-7")
	good := string(body(t, token, newKey(t)))
	for name, c := range map[string]struct {
		method, path, body string
		want               int
	}{
		"another method":       {http.MethodGet, wire.EnrollPath, "", http.StatusMethodNotAllowed},
		"another path":         {http.MethodPost, wire.IngestPath, good, http.StatusNotFound},
		"nothing":              {http.MethodPost, wire.EnrollPath, "", http.StatusBadRequest},
		"no JSON":              {http.MethodPost, wire.EnrollPath, "token", http.StatusBadRequest},
		"another field":        {http.MethodPost, wire.EnrollPath, strings.Replace(good, "{", `{"node":"x",`, 1), http.StatusBadRequest},
		"more after it":        {http.MethodPost, wire.EnrollPath, good + "{}", http.StatusBadRequest},
		"no request in it":     {http.MethodPost, wire.EnrollPath, `{"token":"` + token + `"}`, http.StatusBadRequest},
		"a request that is no": {http.MethodPost, wire.EnrollPath, `{"token":"` + token + `","csr":"AAAA"}`, http.StatusBadRequest},
		"too much":             {http.MethodPost, wire.EnrollPath, good + strings.Repeat(" ", wire.MaxEnroll), http.StatusRequestEntityTooLarge},
		"deep":                 {http.MethodPost, wire.EnrollPath, strings.Repeat("[", 16000), http.StatusBadRequest},
	} {
		if code, answer := o.post(o.Enroll(), c.method, c.path, []byte(c.body), nil); code != c.want {
			t.Errorf("%s: %d %+v", name, code, answer)
		}
	}
	if code, _ := o.enrol(token, newKey(t)); code != http.StatusOK {
		t.Errorf("the token is spent by nonsense: %d", code)
	}
}

func TestWhoAsksTooOftenWaits(t *testing.T) {
	p := newPace(3, time.Second, maxStrangers)
	now := time.Now()
	take := func(name string, after time.Duration) int {
		var no *refusal
		if err := p.take(name, now.Add(after)); errors.As(err, &no) {
			if no.status != http.StatusTooManyRequests {
				t.Error(no.status)
			}
			return int(no.after / time.Millisecond)
		}
		return 0
	}
	for i, c := range []struct {
		name  string
		after time.Duration
		want  int
	}{
		{"a", 0, 0}, {"a", 0, 0}, {"a", 0, 0}, {"a", 0, 1000}, {"b", 0, 0},
		{"a", 600 * time.Millisecond, 400}, {"a", time.Second, 0}, {"a", time.Second, 1000}, {"a", time.Hour, 0},
	} {
		if got := take(c.name, c.after); got != c.want {
			t.Errorf("step %d: waits %d ms, want %d", i, got, c.want)
		}
	}
}

func TestWhatCouldNotBeGivenIsNotCounted(t *testing.T) {
	p := newPace(2, time.Hour, maxAgents)
	now := time.Now()
	for range 10 {
		if err := p.take("agent", now); err != nil {
			t.Fatal(err)
		}
		p.giveBack("agent")
	}
}

func TestNamesThatAreRememberedAreBounded(t *testing.T) {
	p := newPace(2, time.Second, maxStrangers)
	now := time.Now()
	for i := range maxStrangers {
		p.debts[string(rune('a'+i%26))+time.Duration(i).String()] = now.Add(time.Second)
	}
	if p.take("new", now) == nil {
		t.Error("more are remembered than may be")
	}
	if err := p.take("new", now.Add(2*time.Second)); err != nil || len(p.debts) != 1 {
		t.Errorf("%v, %d remembered", err, len(p.debts))
	}
}

func TestAddressesAreOneAMachine(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:4711": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8:1:2:3::4]:1": "2001:db8:1:2::/64", "[fe80::1%eth0]:1": "fe80::/64", "": "",
	} {
		if got := address(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("%q: %q", remote, got)
		}
	}
}

func TestAnAuthorityThatCannotBeUsedIsToldAsSuch(t *testing.T) {
	o := newOffice(t)
	_, token := o.token("lab-7")
	o.o.Admits = func(*x509.Certificate) error { return errors.New("not among those") }
	code, answer := o.enrol(token, newKey(t))
	if code != http.StatusServiceUnavailable || strings.Contains(answer.Error, "among") || !strings.Contains(o.log.String(), "not among those") {
		t.Errorf("%d %+v\n%s", code, answer, o.log.String())
	}
	o.o.Admits = func(*x509.Certificate) error { return nil }
	if code, _ := o.enrol(token, newKey(t)); code != http.StatusOK {
		t.Errorf("the token was spent for nothing: %d", code)
	}
}

func FuzzEnroll(f *testing.F) {
	o := newOffice(f)
	o.o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	o.strangers = newPace(1<<30, time.Nanosecond, maxStrangers)
	f.Add(body(f, identity.NewToken(o.ca.Cert).String(), newKey(f)))
	f.Add([]byte(`{"token":"rea1","csr":""}`))
	f.Add([]byte(`{"csr":null}{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o.t = t
		if code, answer := o.post(o.Enroll(), http.MethodPost, wire.EnrollPath, b, nil); code < 400 || code >= 500 {
			t.Errorf("%d %+v", code, answer)
		}
	})
}
