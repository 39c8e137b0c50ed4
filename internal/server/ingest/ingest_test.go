package ingest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/wire"
)

const stream = "7f3a00000000000000000000000000c1"

// fake keeps what it is given, or does what put says.
type fake struct {
	mu   sync.Mutex
	got  []Batch
	put  func(*Batch) (uint64, error)
	high uint64

	resumed []Resume
	resume  func(*Resume) (high, assigned uint64, err error)
}

func (f *fake) Put(_ context.Context, b *Batch) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if put := f.put; put != nil {
		f.mu.Unlock()
		defer f.mu.Lock()
		return put(b)
	}
	c := *b // what is borrowed is copied
	c.Lines, c.Frames = bytes.Clone(b.Lines), bytes.Clone(b.Frames)
	f.got = append(f.got, c)
	f.high = max(f.high, b.Last)
	return f.high, nil
}

func (f *fake) Resume(_ context.Context, r *Resume) (high, assigned uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resumed = append(f.resumed, *r)
	if f.resume != nil {
		return f.resume(r)
	}
	return f.high, f.high, nil
}

func (f *fake) batches() []Batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got
}

var small = Limits{
	Body: 1 << 20, Decoded: 4 << 20, Ratio: 200, Window: 1 << 20, Line: 64 << 10, Depth: 16, Members: 256, Lines: 1000, InFlight: 8, Memory: 16 << 20,
	BodyRate: 4 << 10, BodyTime: 30 * time.Second,
}

// bench is a Handler behind TLS on a loopback socket, and a client with the
// certificate of an agent.
type bench struct {
	t      *testing.T
	store  *fake
	url    string
	node   string
	client *http.Client
	log    *bytes.Buffer
	set    *metric.Set
}

func newBench(t *testing.T, l Limits) *bench {
	t.Helper()
	dir := t.TempDir()
	certs, err := identity.Generate(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	server, err := identity.ServerTLS(identity.Server{CertFile: file("server.crt"), KeyFile: file("server.key"), ClientCAFile: file("ca.crt")})
	if err != nil {
		t.Fatal(err)
	}
	client, err := identity.ClientTLS(identity.Client{CAFile: file("ca.crt"), CertFile: file("agent.crt"), KeyFile: file("agent.key"), Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: &fake{}, node: certs.Node, log: &bytes.Buffer{}, set: new(metric.Set)}
	b.client = &http.Client{Transport: &http.Transport{TLSClientConfig: client}, Timeout: 30 * time.Second}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	b.url = "https://" + listener.Addr().String() + wire.IngestPath
	srv := &http.Server{Handler: New(b.store, Names{Certified: identity.Node}, l, Watch{Metrics: b.set}, slog.New(slog.NewTextHandler(b.log, nil)))}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(listener) }()
	t.Cleanup(func() {
		b.client.CloseIdleConnections()
		srv.Close()
		<-done
	})
	return b
}

// lines makes the lines first to last of the bench's agent.
func (b *bench) lines(first, last uint64) string {
	var s strings.Builder
	for n := first; n <= last; n++ {
		fmt.Fprintf(&s, `{"v":1,"time":"2026-01-02T03:04:%02dZ","node":%q,"hostname":"lab-7","stream":%q,"seq":%d,"kind":"cpu","cpu":{"n":%d}}`+"\n", n%60, b.node, stream, n, n)
	}
	return s.String()
}

// request makes the post of a body as lines first to last.
func (b *bench) request(body []byte, first, last uint64) *http.Request {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url, bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	wire.Batch{Stream: stream, First: first, Last: last, ID: "b1", Schema: 1, Assigned: last + 2000}.SetHeader(r.Header)
	r.Header.Set("User-Agent", "rea-agent/1.2.3")
	return r
}

func (b *bench) send(r *http.Request) (*http.Response, wire.Answer) {
	b.t.Helper()
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	var a wire.Answer
	if err := json.Unmarshal(raw, &a); err != nil {
		b.t.Fatalf("answer %q: %v", raw, err)
	}
	return resp, a
}

func compressed(r *http.Request) *http.Request {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	return withFrames(r, wire.NewDictionaryCompressor().Append(nil, raw))
}

func withFrames(r *http.Request, frames []byte) *http.Request {
	r.Body, r.ContentLength, r.GetBody = io.NopCloser(bytes.NewReader(frames)), int64(len(frames)), nil
	r.Header.Set("Content-Encoding", "zstd")
	return r
}

func TestBatchesReachTheStore(t *testing.T) {
	b := newBench(t, small)
	plain := b.lines(1, 3)
	more := b.lines(4, 6)
	if resp, a := b.send(b.request([]byte(plain), 1, 3)); resp.StatusCode != 200 || a != (wire.Answer{Last: 3, Stream: stream}) {
		t.Fatalf("%s %+v", resp.Status, a)
	}
	if resp, a := b.send(compressed(b.request([]byte(more), 4, 6))); resp.StatusCode != 200 || a.Last != 6 {
		t.Fatalf("%s %+v", resp.Status, a)
	}
	at := func(second int) time.Time { return time.Date(2026, 1, 2, 3, 4, second, 0, time.UTC) }
	want := []Batch{
		{Node: b.node, Stream: stream, First: 1, Last: 3, ID: "b1", Agent: "rea-agent/1.2.3", Earliest: at(1), Latest: at(3), Hosts: []string{"lab-7"}, Kinds: []string{"cpu"}, Lines: []byte(plain), Assigned: 2003},
		{Node: b.node, Stream: stream, First: 4, Last: 6, ID: "b1", Agent: "rea-agent/1.2.3", Earliest: at(4), Latest: at(6), Hosts: []string{"lab-7"}, Kinds: []string{"cpu"}, Lines: []byte(more), Frames: wire.NewDictionaryCompressor().Append(nil, []byte(more)), Assigned: 2006},
	}
	got := b.store.batches()
	for i := range got {
		if time.Since(got[i].Received) > time.Minute {
			t.Errorf("received %s", got[i].Received)
		}
		got[i].Received = time.Time{}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestWhatTheStoreSaysIsAnswered(t *testing.T) {
	b := newBench(t, small)
	for _, c := range []struct {
		high   uint64
		err    error
		status int
		retry  string
		answer wire.Answer
	}{
		{90, nil, 200, "", wire.Answer{Last: 90, Stream: stream}},
		{90, fmt.Errorf("batch: %w", ErrConflict), 409, "", wire.Answer{Last: 90, Error: "batch: " + ErrConflict.Error()}},
		{90, ErrSuperseded, 409, "", wire.Answer{Last: 90, Error: ErrSuperseded.Error()}},
		{0, errors.New("disk full at /secret/path"), 503, "10", wire.Answer{Error: "the server cannot keep batches now"}},
	} {
		b.store.put = func(*Batch) (uint64, error) { return c.high, c.err }
		resp, a := b.send(b.request([]byte(b.lines(1, 3)), 1, 3))
		if resp.StatusCode != c.status || resp.Header.Get("Retry-After") != c.retry {
			t.Errorf("%v: %s, Retry-After %q", c.err, resp.Status, resp.Header.Get("Retry-After"))
		}
		if d := cmp.Diff(c.answer, a); d != "" {
			t.Errorf("%v: %s", c.err, d)
		}
	}
}

func TestAFaultThatGoesOnIsLoggedOnce(t *testing.T) {
	b := newBench(t, small)
	b.store.put = func(*Batch) (uint64, error) { return 0, errors.New("disk full") }
	for range 5 {
		b.send(b.request([]byte(b.lines(1, 3)), 1, 3))
	}
	b.store.put = nil
	b.send(b.request([]byte(b.lines(1, 3)), 1, 3))
	log := b.log.String()
	if strings.Count(log, "disk full") != 1 || !strings.Contains(log, "kept again") || !strings.Contains(log, "failures=5") {
		t.Errorf("log:\n%s", log)
	}
}

// Whoever is wrong in another way each time, and right in between, does not fill
// the log.
func TestTheLogIsNotFilledByOneAgent(t *testing.T) {
	b := newBench(t, small)
	for n := range 100 {
		b.send(b.request([]byte(strings.Repeat(" ", n)+"x\n"), 1, 1))
		b.send(b.request([]byte(b.lines(1, 3)), 1, 3))
	}
	if n := strings.Count(b.log.String(), "\n"); n > mostSaid || n < mostSaid/2 {
		t.Errorf("%d lines", n)
	}
}

func TestABugIsAnsweredAndHoldsNothing(t *testing.T) {
	l := small
	l.InFlight = 1
	b := newBench(t, l)
	b.store.put = func(*Batch) (uint64, error) { panic("a bug") }
	for range 3 { // would be 429 or 503 if the first one held its place
		if resp, a := b.send(b.request([]byte(b.lines(1, 3)), 1, 3)); resp.StatusCode != 500 || !strings.Contains(a.Error, "bug") {
			t.Fatalf("%s %+v", resp.Status, a)
		}
	}
	b.store.put = nil
	if resp, a := b.send(b.request([]byte(b.lines(1, 3)), 1, 3)); resp.StatusCode != 200 {
		t.Fatalf("%s %+v", resp.Status, a)
	}
}

func TestOneBatchOfAStreamAtATime(t *testing.T) {
	l := small
	l.InFlight = 2
	b := newBench(t, l)
	entered, leave := make(chan struct{}), make(chan struct{})
	hold := func(batch *Batch) (uint64, error) { entered <- struct{}{}; <-leave; return batch.Last, nil }
	b.store.put = hold
	done := make(chan int)
	post := func(stream string) {
		body := strings.ReplaceAll(b.lines(1, 3), "7f3a", stream)
		r := b.request([]byte(body), 1, 3)
		r.Header.Set("Rea-Stream", strings.Replace(r.Header.Get("Rea-Stream"), "7f3a", stream, 1))
		resp, _ := b.send(r)
		done <- resp.StatusCode
	}
	go post("0001")
	<-entered
	if resp, _ := b.send(b.requestOf("0001")); resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("the same stream: %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	go post("0002")
	<-entered
	if resp, _ := b.send(b.requestOf("0003")); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("a third stream: %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	close(leave)
	if x, y := <-done, <-done; x != 200 || y != 200 {
		t.Errorf("answered %d and %d", x, y)
	}
}

// by makes the post of lines by a process.
func (b *bench) by(instance string, first, last uint64) *http.Request {
	r := b.request([]byte(b.lines(first, last)), first, last)
	wire.Batch{Stream: stream, First: first, Last: last, ID: "b1", Schema: 1, Assigned: last, Instance: strings.Repeat(instance, 32)}.SetHeader(r.Header)
	return r
}

func TestTheStoreLearnsThatAProcessIsSuperseded(t *testing.T) {
	b := newBench(t, small)
	b.store.put = func(batch *Batch) (uint64, error) {
		if batch.Superseded {
			return 9, ErrSuperseded
		}
		return batch.Last, nil
	}
	for i, step := range []struct {
		by     string
		status int
	}{{"a", 200}, {"b", 200}, {"a", 409}, {"b", 200}, {"a", 409}, {"", 200}, {"a", 409}} {
		if resp, a := b.send(b.by(step.by, 1, 3)); resp.StatusCode != step.status || step.status == 409 && a != (wire.Answer{Last: 9, Error: ErrSuperseded.Error()}) {
			t.Errorf("step %d, %s: %s %+v", i, step.by, resp.Status, a)
		}
	}
	if n := strings.Count(b.log.String(), "two agents use this stream"); n != 1 {
		t.Errorf("said %d times:\n%s", n, b.log)
	}
}

func TestWhatGapsDeclareReachesTheStore(t *testing.T) {
	b := newBench(t, small)
	lines := strings.Replace(b.lines(1, 3), `"cpu","cpu":{"n":2}`, `"gap","gap":{"cause":"queue_full","count":2,"stream":"`+stream+`","first":7,"last":8}`, 1)
	lines = strings.Replace(lines, `"cpu","cpu":{"n":3}`, `"gap","gap":{"cause":"too_large","count":1,"source":"cpu"}`, 1)
	if resp, a := b.send(b.request([]byte(lines), 1, 3)); resp.StatusCode != 200 {
		t.Fatalf("%s %+v", resp.Status, a)
	}
	want := []wire.Gap{{Seq: 2, Cause: "queue_full", Count: 2, Stream: stream, First: 7, Last: 8}, {Seq: 3, Cause: "too_large", Count: 1, Source: "cpu"}}
	if d := cmp.Diff(want, b.store.batches()[0].Gaps); d != "" {
		t.Error(d)
	}
}
