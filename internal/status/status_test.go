package status

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rea-agent/rea/internal/metric"
)

var update = flag.Bool("update", false, "write golden files instead of comparing with them")

var oldest = 12.5

func report() Report {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	return Report{
		Status: Degraded, Reasons: []string{"source disk: timed out"},
		Version: "1.2.3", Node: "0190d1c0-0000-7000-8000-000000000001", UptimeSeconds: 61.25,
		Sources: map[string]Part{
			"cpu":  {State: OK, LastSuccess: noon},
			"disk": {State: Failing, LastSuccess: noon, LastError: `statfs "/mnt": timed out`, LastErrorAt: noon.Add(time.Minute), Failures: 3, NextTry: noon.Add(time.Hour)},
			"host": {State: OK},
		},
		Sinks:  map[string]Part{"stdout": {State: OK, LastSuccess: noon}},
		Sender: map[string]Part{"evidence": {State: OK, LastSuccess: noon}, "metrics": {State: "connecting"}},
		Queue: map[string]Lane{
			"evidence": {State: OK},
			"metrics":  {Bytes: 123456, MaxBytes: 1 << 30, Events: 1000, OldestSeconds: &oldest, State: OK},
		},
	}
}

func metrics() *metric.Set {
	set := new(metric.Set)
	set.Counter("rea_events_emitted_total", "Events emitted.", "kind", "cpu").Add(3)
	set.Counter("rea_events_emitted_total", "Events emitted.", "kind", `a"\b`).Add(4)
	set.Gauge("rea_queue_bytes", "Bytes in the queue.", "lane", "metrics").Set(123456)
	return set
}

// ask sends a request for path to a Server without a network.
func ask(s *Server, method, host, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, nil)
	r.Host = host
	s.handler().ServeHTTP(w, r)
	return w
}

func TestPagesGolden(t *testing.T) {
	s := New(0, metrics(), report)
	for path, c := range map[string]struct{ file, contentType string }{
		"/healthz": {"testdata/healthz.golden", "application/json"},
		"/metrics": {"testdata/metrics.golden", "text/plain; version=0.0.4; charset=utf-8"},
		"/":        {"testdata/index.golden", "text/plain; charset=utf-8"},
	} {
		t.Run(path, func(t *testing.T) {
			w := ask(s, "GET", "127.0.0.1:9100", path)
			if w.Code != 200 || w.Header().Get("Content-Type") != c.contentType {
				t.Errorf("%d, %q", w.Code, w.Header().Get("Content-Type"))
			}
			got := w.Body.String()
			if *update {
				if err := os.WriteFile(c.file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(c.file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("%s (-want +got):\n%s", c.file, d)
			}
		})
	}
}

func TestHealthCodes(t *testing.T) {
	for state, want := range map[State]int{OK: 200, Degraded: 200, Failing: 503} {
		s := New(0, nil, func() Report { return Report{Status: state} })
		w := ask(s, "GET", "localhost", "/healthz")
		if w.Code != want || !strings.Contains(w.Body.String(), `"status": "`+string(state)+`"`) {
			t.Errorf("%s: %d %s", state, w.Code, w.Body)
		}
	}
}

func TestReportThatIsNoJSON(t *testing.T) {
	s := New(0, nil, func() Report { return Report{Status: OK, UptimeSeconds: math.NaN()} })
	if w := ask(s, "GET", "localhost", "/healthz"); w.Code != 500 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]int{
		"127.0.0.1": 200, "127.0.0.1:9100": 200, "127.8.9.1:1": 200,
		"localhost": 200, "LocalHost:9100": 200, "localhost.": 200, "[::1]:9100": 200, "[::1]": 200,
		"":                          403,
		"evil.example":              403,
		"evil.example:9100":         403,
		"localhost.evil.example":    403,
		"127.0.0.1.evil.example":    403,
		"10.0.0.1:9100":             403,
		"0.0.0.0:9100":              403,
		"[::]:9100":                 403,
		"127.0.0.1:80@evil.example": 403,
		"127.0.0.1:evil.example":    403,
		"2130706433":                403,
		"[::ffff:10.0.0.1]:9100":    403,
	} {
		for _, path := range []string{"/", "/healthz", "/metrics", "/none"} {
			want := want
			if want == 200 && path == "/none" {
				want = 404
			}
			if w := ask(New(0, metrics(), report), "GET", host, path); w.Code != want {
				t.Errorf("Host %q, %s: %d, want %d", host, path, w.Code, want)
			} else if want == 403 && strings.Contains(w.Body.String(), "rea_") {
				t.Errorf("Host %q was told %s", host, w.Body)
			}
		}
	}
}

func TestMethods(t *testing.T) {
	for method, want := range map[string]int{
		"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405, "TRACE": 405, "BREW": 405,
	} {
		w := ask(New(0, metrics(), report), method, "localhost", "/healthz")
		if w.Code != want {
			t.Errorf("%s: %d, want %d", method, w.Code, want)
		}
		if allow := w.Header().Get("Allow"); want == 405 && allow != "GET, HEAD" {
			t.Errorf("%s: Allow %q", method, allow)
		}
	}
}

// serve runs s on a free port until the test ends.
func serve(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func TestOverTheNetwork(t *testing.T) {
	s := New(0, metrics(), report)
	serve(t, s)
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	res, err := client.Get(s.URL() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != 200 || !strings.Contains(string(body), `"version": "1.2.3"`) {
		t.Errorf("%d %s, %v", res.StatusCode, body, err)
	}
	if host, _, _ := net.SplitHostPort(s.listener.Addr().String()); host != "127.0.0.1" {
		t.Errorf("listens on %s", host)
	}
}

func TestConnectionsAreFewAndGivenBack(t *testing.T) {
	s := New(0, metrics(), report)
	serve(t, s)
	addr := s.listener.Addr().String()
	ask := func(c net.Conn) error {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			return err
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		return errors.Join(err, res.Body.Close())
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var first []net.Conn
	for range maxConnections {
		c := dial()
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		first = append(first, c)
	}
	one := dial()
	answered := make(chan error, 1)
	go func() { answered <- ask(one) }()
	if n := len(s.listener.(*limited).free); n != maxConnections {
		t.Errorf("%d connections are open", n)
	}
	select {
	case err := <-answered:
		t.Errorf("one connection more was answered (%v)", err)
	default: // it can only be late, never wrong
	}
	first[0].Close()
	if err := <-answered; err != nil {
		t.Errorf("after another one was closed: %v", err)
	}
}

func TestRunEndsWithItsContextWhileEveryConnectionIsTaken(t *testing.T) {
	s := New(0, metrics(), report)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	l := s.listener.(*limited)
	for range maxConnections {
		l.free <- struct{}{} // so that Accept waits
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	s := New(port, nil, report)
	for what, f := range map[string]func() error{
		"Listen": s.Listen,
		"Run":    func() error { return s.Run(t.Context()) },
	} {
		err := f()
		if err == nil || !strings.Contains(err.Error(), "status.port: port "+strconv.Itoa(port)+" of 127.0.0.1 is in use") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSlowHeaderIsTimedOut(t *testing.T) {
	// The limits of the server itself, on a pipe instead of a network, so that
	// its time is the bubble's.
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		s := New(0, nil, report)
		s.listener = l
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		client, server := net.Pipe()
		l.conns <- server
		start := time.Now()
		if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: local"); err != nil {
			t.Error(err)
		}
		io.Copy(io.Discard, client) // until the server hangs up
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("hung up after %v", d)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// The text format, line by line
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
var (
	comment = regexp.MustCompile(`^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$`)
	sample  = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{([a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\["\\n])*"(,[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\["\\n])*")*)\})? (\S+)$`)
)

// parse checks text and returns the value of each series.
func parse(t *testing.T, text string) map[string]float64 {
	t.Helper()
	types, values := map[string]string{}, map[string]float64{}
	family := ""
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			t.Errorf("the last line has no end: %q", line)
		}
		line = strings.TrimSuffix(line, "\n")
		if m := comment.FindStringSubmatch(line); m != nil {
			if m[1] == "TYPE" {
				if _, twice := types[m[2]]; twice || m[3] != "counter" && m[3] != "gauge" {
					t.Errorf("%q", line)
				}
				types[m[2]] = m[3]
			}
			family = m[2]
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("%q is no sample", line)
			continue
		}
		if m[1] != family || types[family] == "" {
			t.Errorf("%q stands under %q", line, family)
		}
		if types[family] == "counter" != strings.HasSuffix(family, "_total") {
			t.Errorf("%s is a %s", family, types[family])
		}
		v, err := strconv.ParseFloat(m[7], 64)
		if _, twice := values[m[1]+m[2]]; err != nil || twice {
			t.Errorf("%q: %v", line, err)
		}
		values[m[1]+m[2]] = v
	}
	return values
}

func TestMetricsParse(t *testing.T) {
	set := metrics()
	Self(set, `1.2.3 "odd" \ build`)
	values := parse(t, ask(New(0, set, report), "GET", "localhost", "/metrics").Body.String())
	if got := values[`rea_events_emitted_total{kind="a\"\\b"}`]; got != 4 {
		t.Errorf("%v", values)
	}
}

func TestSelf(t *testing.T) {
	set := new(metric.Set)
	Self(set, "1.2.3")
	spin := time.Now()
	for time.Since(spin) < 20*time.Millisecond { // use some CPU time
	}
	values := parse(t, ask(New(0, set, report), "GET", "localhost", "/metrics").Body.String())
	build := `rea_build_info{arch="` + runtime.GOARCH + `",goversion="` + runtime.Version() + `",os="` + runtime.GOOS + `",version="1.2.3"}`
	if values[build] != 1 {
		t.Errorf("%v has no %s", values, build)
	}
	if n := values["rea_go_goroutines"]; n < 2 || n > 1000 {
		t.Errorf("%v goroutines", n)
	}
	if s := values["rea_process_cpu_seconds_total"]; s <= 0 || s > 600 {
		t.Errorf("%v CPU seconds", s)
	}
	if runtime.GOOS == "linux" || runtime.GOOS == "windows" {
		if b := values["rea_process_resident_memory_bytes"]; b < 1<<20 || b > 8<<30 {
			t.Errorf("%v bytes", b)
		}
	}
}
