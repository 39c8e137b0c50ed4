package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/server/pki"
	"github.com/rea-agent/rea/internal/server/registrar"
	"github.com/rea-agent/rea/internal/wire"
)

const node = "0190d1c0-0000-7000-8000-000000000001"

// office is an authority and a server that enrols with it.
type office struct {
	t    *testing.T
	dir  string
	ca   *identity.Authority
	url  string
	asks atomic.Int32
	// around stands between the server and its answers; may be nil.
	around func(http.ResponseWriter, *http.Request, http.Handler)
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, dir: filepath.Join(t.TempDir(), "pki")}
	f, err := pki.Init(o.dir, "example.org", identity.ECDSA, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o.ca = f.Authority
	made, err := f.IssueServer([]string{"127.0.0.1"}, identity.ECDSA, filepath.Join(o.dir, "server"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(made.Dir, name) }
	set, err := identity.LoadServer(identity.Server{CertFile: at(identity.ServerFile), KeyFile: at(identity.ServerKey), ClientCAFile: at(identity.CAFile)})
	if err != nil {
		t.Fatal(err)
	}
	g, err := registrar.New(registrar.Options{
		Dir: o.dir, Life: time.Hour, Admits: func(*x509.Certificate) error { return nil }, Denied: func(string, string) error { return nil },
		Metrics: new(metric.Set), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.asks.Add(1)
		if o.around != nil {
			o.around(w, r, g.Enroll())
			return
		}
		g.Enroll().ServeHTTP(w, r)
	}))
	srv.TLS = set.Welcome(o.ca.Cert)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	o.url = srv.URL
	return o
}

func (o *office) token() string {
	o.t.Helper()
	_, token, err := pki.NewToken(o.dir, node, time.Hour)
	if err != nil {
		o.t.Fatal(err)
	}
	return token.String()
}

func (o *office) enrol(token, dir string, force bool) (*Enrolled, error) {
	return Enroll(context.Background(), Options{Server: o.url, Token: token, Dir: dir, Key: identity.ECDSA, Force: force, Timeout: 10 * time.Second})
}

func names(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// onlyKey reports whether a folder has the key of an enrolment alone.
func onlyKey(names string) bool {
	ok, _ := filepath.Match(pending+"????????????.key", names)
	return ok
}

// load loads what an agent would.
func load(dir string) (*identity.Set, error) {
	pair := filepath.Join(dir, PairFile)
	return identity.LoadClient(identity.Client{CAFile: filepath.Join(dir, identity.CAFile), CertFile: pair, KeyFile: pair, Verify: true})
}

func TestAMachineBecomesAnAgent(t *testing.T) {
	o := newOffice(t)
	dir := filepath.Join(t.TempDir(), "a", "b")
	e, err := o.enrol(o.token(), dir, false)
	if err != nil {
		t.Fatal(err)
	}
	set, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := identity.Node(set.Leaf); err != nil || got != node || e.Node != node || !e.NotAfter.Equal(set.Leaf.NotAfter) {
		t.Errorf("%q %v %+v", got, err, e)
	}
	if got := names(t, dir); got != "agent.pem ca.crt" {
		t.Errorf("left behind: %s", got)
	}
	if info, err := os.Stat(e.Pair); runtime.GOOS != "windows" && (err != nil || info.Mode().Perm() != 0o600) {
		t.Error(info.Mode(), err)
	}
}

func TestALostAnswerStrandsNobody(t *testing.T) {
	o := newOffice(t)
	token, dir := o.token(), t.TempDir()
	o.around = func(_ http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	if _, err := o.enrol(token, dir, false); !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
	if got := names(t, dir); !onlyKey(got) {
		t.Error(got)
	}
	o.around = nil
	if _, err := o.enrol(token, t.TempDir(), false); !errors.Is(err, ErrRefused) {
		t.Errorf("another key gets a certificate for the same token: %v", err)
	}
	for _, junk := range []string{"agent.pem.123.tmp", "enrolling-0123456789ab.key"} { // of earlier tries
		if err := os.WriteFile(filepath.Join(dir, junk), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.enrol(token, dir, false); err != nil {
		t.Fatal(err)
	}
	if _, err := load(dir); err != nil || names(t, dir) != "agent.pem ca.crt" {
		t.Error(err, names(t, dir))
	}
}

func TestATokenIsNotShownToAStranger(t *testing.T) {
	ours, other := newOffice(t), newOffice(t)
	token := ours.token()
	ours.url = other.url
	if _, err := ours.enrol(token, t.TempDir(), false); !errors.Is(err, identity.ErrStranger) || other.asks.Load() != 0 {
		t.Errorf("%v, asked %d times", err, other.asks.Load())
	}
}

func TestNothingIsOverwrittenUnlessForced(t *testing.T) {
	o := newOffice(t)
	dir := t.TempDir()
	if _, err := o.enrol(o.token(), dir, false); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(filepath.Join(dir, PairFile))
	asked := o.asks.Load()
	if _, err := o.enrol(o.token(), dir, false); !errors.Is(err, fs.ErrExist) || o.asks.Load() != asked {
		t.Errorf("%v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, PairFile)); string(after) != string(before) {
		t.Error("it was overwritten")
	}
	if _, err := o.enrol(o.token(), dir, true); err != nil {
		t.Error(err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, PairFile)); string(after) == string(before) {
		t.Error("it was not replaced")
	}

	elsewhere, token := t.TempDir(), o.token()
	other := identity.EncodeCertificates(newOffice(t).ca.Cert)
	if err := os.WriteFile(filepath.Join(elsewhere, identity.CAFile), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.enrol(token, elsewhere, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("another authority: %v", err)
	}
	if got, _ := os.ReadFile(filepath.Join(elsewhere, identity.CAFile)); string(got) != string(other) {
		t.Error("another authority was overwritten")
	}
	if _, err := o.enrol(token, elsewhere, true); err != nil {
		t.Errorf("the token is of no use after that: %v", err)
	}
	if _, err := load(elsewhere); err != nil {
		t.Error(err)
	}
}

// Wherever an enrolment stops that replaces another authority's, the machine has a
// pair and trusts the server that takes it.
func TestAReplacementThatIsCutShortLeavesAnAgent(t *testing.T) {
	old, fresh := newOffice(t), newOffice(t)
	for steps := range 4 { // with three of them it is whole
		dir := t.TempDir()
		if _, err := old.enrol(old.token(), dir, false); err != nil {
			t.Fatal(err)
		}
		elsewhere := t.TempDir()
		if _, err := fresh.enrol(fresh.token(), elsewhere, false); err != nil {
			t.Fatal(err)
		}
		read := func(dir, name string) []byte {
			t.Helper()
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		e := &Enrolled{Pair: filepath.Join(dir, PairFile), CA: filepath.Join(dir, identity.CAFile)}
		was, is := read(dir, PairFile), read(elsewhere, PairFile)
		files := e.files(read(dir, identity.CAFile), read(elsewhere, identity.CAFile), is)
		if len(files) != 3 {
			t.Fatalf("%d files are written", len(files))
		}
		for _, f := range files[:steps] {
			if err := os.WriteFile(f.name, f.text, f.mode); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := load(dir); err != nil {
			t.Errorf("after %d files: %v", steps, err)
		}
		server := fresh.ca.Cert
		switch now := read(dir, PairFile); {
		case bytes.Equal(now, was):
			server = old.ca.Cert
		case !bytes.Equal(now, is):
			t.Errorf("after %d files: neither pair", steps)
		}
		if !bytes.Contains(read(dir, identity.CAFile), identity.EncodeCertificates(server)) {
			t.Errorf("after %d files the server of its pair is not trusted", steps)
		}
		if steps == len(files) && !bytes.Equal(read(dir, identity.CAFile), identity.EncodeCertificates(fresh.ca.Cert)) {
			t.Error("the old authority is trusted still")
		}
	}
}

func TestAnswersThatAreNotTaken(t *testing.T) {
	o := newOffice(t)
	foreign, err := identity.NewAuthority("example.org", identity.ECDSA, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	// signed answers with a certificate of that authority for the request's key.
	signed := func(a *identity.Authority, life time.Duration) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			var q wire.EnrollRequest
			_ = json.NewDecoder(r.Body).Decode(&q)
			csr, err := identity.ParseRequest(q.CSR)
			if err != nil {
				t.Error(err)
				return
			}
			cert, err := a.Sign(csr, node, life)
			if err != nil {
				t.Error(err)
				return
			}
			_ = json.NewEncoder(w).Encode(wire.Enrolled{Certificates: string(identity.EncodeCertificates(cert)), CA: string(identity.EncodeCertificates(a.Cert))})
		}
	}
	says := func(status int, body string, header ...string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for name, c := range map[string]struct {
		around func(http.ResponseWriter, *http.Request, http.Handler)
		want   error
	}{
		"a certificate of another authority": {signed(foreign, time.Hour), identity.ErrIssued},
		"one that is over":                   {signed(o.ca, -time.Minute), identity.ErrIssued},
		"for another key":                    {says(200, `{"certificates":`+quoted(o.ca)+`}`), identity.ErrIssued},
		"a page":                             {says(200, "<html>welcome"), identity.ErrIssued},
		"far too much":                       {says(200, `{"ca":"`+strings.Repeat("a", 1<<20)+`"}`), identity.ErrIssued},
		"elsewhere":                          {says(307, "", "Location", "https://127.0.0.1:1/enroll"), ErrRefused},
		"another service":                    {says(404, "not found"), ErrRefused},
		"come again":                         {says(429, `{"error":"too many requests"}`, "Retry-After", "7"), ErrBusy},
		"broken":                             {says(503, ``), ErrBusy},
	} {
		t.Run(name, func(t *testing.T) {
			o.around = c.around
			dir := t.TempDir()
			if _, err := o.enrol(o.token(), dir, false); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if got := names(t, dir); !onlyKey(got) {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

func quoted(a *identity.Authority) string {
	key, _ := identity.NewKey(identity.ECDSA)
	cert, _ := a.SignAgent(key.Public(), node, time.Hour)
	b, _ := json.Marshal(string(identity.EncodeCertificates(cert)))
	return string(b)
}

func TestAddressesThatAreNone(t *testing.T) {
	o := newOffice(t)
	token := o.token()
	for _, url := range []string{"", "rea.test:8444", "http://rea.test:8444", "https://", "https://rea.test/enroll", "https://u:p@rea.test", "https://rea.test?x"} {
		o.url = url
		dir := filepath.Join(t.TempDir(), "x")
		if _, err := o.enrol(token, dir, false); !errors.Is(err, ErrServer) || names(t, dir) != "" {
			t.Errorf("%q: %v", url, err)
		}
	}
}
