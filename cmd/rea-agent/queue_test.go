package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/deadletter"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/wire"
)

const testStream = "7f3a9d0c5b6e4f1a8c2d3e4f5a6b7c8d"

// A replayed server answers letters by their number, and remembers them.
type replayed struct {
	t       *testing.T
	answers map[uint64][]int // statuses, one a try; the last one stays
	seen    []string
}

func (s *replayed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}
	b, err := wire.ParseBatch(r.Header)
	if err != nil {
		s.t.Error(err)
	}
	want := wire.Batch{Stream: testStream, First: b.First, Last: b.First, Assigned: b.First, Schema: 1, ID: fmt.Sprintf("7f3a9d0c-%d-%d", b.First, b.First)}
	if diff := cmp.Diff(want, b); diff != "" {
		s.t.Error(diff)
	}
	if e := r.Header.Get("Content-Encoding"); r.URL.Path != wire.IngestPath || e != "" || len(r.TLS.PeerCertificates) != 1 {
		s.t.Errorf("%s, encoding %q, %d certificates", r.URL, e, len(r.TLS.PeerCertificates))
	}
	status, last := http.StatusOK, b.First
	if a := s.answers[b.First]; len(a) > 0 {
		if status = a[0]; len(a) > 1 {
			s.answers[b.First] = a[1:]
		}
	}
	s.seen = append(s.seen, fmt.Sprintf("%d %s", status, bytes.TrimSuffix(body, []byte("\n"))))
	if status == 0 { // it does not keep it, although it is polite
		status, last = http.StatusOK, b.First-1
	}
	w.Header().Set("Retry-After", "0")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"last":%d,"error":"answer %d"}`, last, status)
}

// serve starts s with mutual TLS, and returns the configuration of an agent that
// trusts it and has a letter for each number.
func (s *replayed) serve(t *testing.T, numbers ...uint64) (config string) {
	t.Helper()
	dir := t.TempDir()
	certs := filepath.Join(dir, "certs")
	if _, err := identity.Generate(certs, []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(certs, identity.ServerFile), filepath.Join(certs, identity.ServerKey))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(certs, identity.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	server := httptest.NewUnstartedServer(s)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
	server.StartTLS()
	t.Cleanup(server.Close)

	box, err := deadletter.Open(filepath.Join(dir, "queue", "dead-letters"), deadletter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		err := box.Put(deadletter.Letter{Time: time.Now(), Lane: "metrics", Stream: testStream, Seq: n, Status: 422, Reason: "no", Line: fmt.Appendf(nil, `{"seq":%d}`, n)})
		if err != nil {
			t.Fatal(err)
		}
	}
	config = filepath.Join(dir, "agent.toml")
	text := fmt.Sprintf("[networking]\nendpoint = %q\nqueue_dir = 'queue'\n[tls]\nca_file = 'certs/ca.crt'\nclient_cert = 'certs/agent.crt'\nclient_key = 'certs/agent.key'\n", server.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir) // what is no absolute path is from here
	return config
}

// rea runs the program.
func rea(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	p := program(new(supervisor))
	p.Stdout, p.Stderr = &out, &errs
	code = p.Main(t.Context(), args)
	return out.String(), errs.String(), code
}

func lines(format string, numbers ...uint64) (s string) {
	for _, n := range numbers {
		s += fmt.Sprintf(format, testStream, n) + "\n"
	}
	return s
}

func TestALetterGoesOnlyWhenTheServerKeepsIt(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers map[uint64][]int
		args    []string
		want    string // on standard output
		seen    []string
		code    int
		stays   []uint64
	}{
		{name: "all are kept", args: []string{"--all"}, want: lines("delivered metrics %s:%d", 3, 5, 9),
			seen: []string{`200 {"seq":3}`, `200 {"seq":5}`, `200 {"seq":9}`}},
		{name: "one is named", args: []string{testStream + ":5"}, want: lines("delivered metrics %s:%d", 5),
			seen: []string{`200 {"seq":5}`}, stays: []uint64{3, 9}},
		{name: "one is refused again", answers: map[uint64][]int{3: {422}}, args: []string{"--all"}, code: cli.Data,
			want: lines("refused metrics %s:%d: the server answered 422 Unprocessable Entity: answer 422", 3) + lines("delivered metrics %s:%d", 5, 9),
			seen: []string{`422 {"seq":3}`, `200 {"seq":5}`, `200 {"seq":9}`}, stays: []uint64{3}},
		{name: "its numbers are others'", answers: map[uint64][]int{9: {409}}, args: []string{testStream + ":9"}, code: cli.Data,
			want: lines("refused metrics %s:%d: the server answered 409 Conflict: answer 409", 9),
			seen: []string{`409 {"seq":9}`}, stays: []uint64{3, 5, 9}},
		{name: "the server is busy and then not", answers: map[uint64][]int{3: {429, 503, 200}}, args: []string{"--all"}, want: lines("delivered metrics %s:%d", 3, 5, 9),
			seen: []string{`429 {"seq":3}`, `503 {"seq":3}`, `200 {"seq":3}`, `200 {"seq":5}`, `200 {"seq":9}`}},
		{name: "the server stays busy", answers: map[uint64][]int{5: {503}}, args: []string{"--all"}, code: cli.Unavailable, want: lines("delivered metrics %s:%d", 3),
			seen: []string{`200 {"seq":3}`, `503 {"seq":5}`, `503 {"seq":5}`, `503 {"seq":5}`, `503 {"seq":5}`}, stays: []uint64{5, 9}},
		{name: "the agent is not let in", answers: map[uint64][]int{3: {403}}, args: []string{"--all"}, code: cli.Unavailable,
			seen: []string{`403 {"seq":3}`}, stays: []uint64{3, 5, 9}},
		{name: "the server has a fault", answers: map[uint64][]int{3: {500}}, args: []string{"--all"}, code: cli.Unavailable,
			seen: []string{`500 {"seq":3}`}, stays: []uint64{3, 5, 9}},
		{name: "200 without keeping it", answers: map[uint64][]int{3: {0}}, args: []string{"--all"}, code: cli.Unavailable,
			seen: []string{`0 {"seq":3}`}, stays: []uint64{3, 5, 9}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &replayed{t: t, answers: c.answers}
			config := s.serve(t, 3, 5, 9)
			out, errs, code := rea(t, append([]string{"queue", "dead-letters", "replay", "--config", config}, c.args...)...)
			if code != c.code || (errs == "") != (code == 0) {
				t.Errorf("exit %d, want %d; %s", code, c.code, errs)
			}
			if diff := cmp.Diff(c.want, out); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.seen, s.seen); diff != "" {
				t.Error(diff)
			}
			letters, err := deadletter.List(filepath.Join("queue", "dead-letters"))
			var stays []uint64
			for _, l := range letters {
				stays = append(stays, l.Seq)
			}
			if diff := cmp.Diff(c.stays, stays); err != nil || diff != "" {
				t.Errorf("letters: %v, %s", err, diff)
			}
		})
	}
}

func TestADamagedLetterIsNeverSent(t *testing.T) {
	s := &replayed{t: t}
	config := s.serve(t, 3, 5)
	files, err := filepath.Glob("queue/dead-letters/*0003.letter")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], bytes.Replace(data, []byte(`{"seq":3}`), []byte(`{"seq":8}`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := rea(t, "queue", "dead-letters", "replay", "--all", "--config", config)
	if code != cli.Data || !strings.Contains(out, "refused metrics "+testStream+":3: the line is damaged") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if diff := cmp.Diff([]string{`200 {"seq":5}`}, s.seen); diff != "" {
		t.Error(diff)
	}
}

func TestAServerThatIsNotTrustedGetsNoLetter(t *testing.T) {
	s := &replayed{t: t}
	config := s.serve(t, 3)
	if _, err := identity.Generate("other", []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	_, errs, code := rea(t, "queue", "dead-letters", "replay", "--all", "--config", config, "--tls.ca-file", "other/ca.crt")
	if code != cli.Unavailable || !strings.Contains(errs, "authority that is not trusted here") || s.seen != nil {
		t.Errorf("exit %d, seen %q: %s", code, s.seen, errs)
	}
}

func TestWhatIsShownOnATerminalCannotActOnIt(t *testing.T) {
	var b bytes.Buffer
	n, err := escaped{&b}.Write([]byte("{\"a\":\"\u202e\u009b31m\x1b\"}\n"))
	if want := "{\"a\":\"\\u202e\\u009b31m\\x1b\"}\n"; err != nil || n != 18 || b.String() != want {
		t.Errorf("%d, %v, %q, want %q", n, err, b.String(), want)
	}
}
