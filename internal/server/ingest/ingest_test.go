package ingest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
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

func TestRefusals(t *testing.T) {
	b := newBench(t, small)
	good := b.lines(1, 3)
	set := func(name string, values ...string) func(*http.Request) *http.Request {
		return func(r *http.Request) *http.Request {
			r.Header.Del(name)
			for _, v := range values {
				r.Header.Add(name, v)
			}
			return r
		}
	}
	for _, c := range []struct {
		name   string
		body   string
		change func(*http.Request) *http.Request
		status int
		line   int
		want   string
	}{
		{"another method", good, func(r *http.Request) *http.Request { r.Method = "PUT"; return r }, 405, 0, "want POST"},
		{"another content type", good, set("Content-Type", "application/json"), 415, 0, "application/x-ndjson"},
		{"gzip", good, set("Content-Encoding", "gzip"), 415, 0, "zstd"},
		{"two encodings", good, set("Content-Encoding", "zstd", "zstd"), 415, 0, "zstd"},
		{"no length", good, func(r *http.Request) *http.Request { r.ContentLength = -1; return r }, 411, 0, "length"},
		{"a large body", strings.Repeat(" ", 1<<20+1), nil, 413, 0, "the limit is 1048576"},
		{"many lines", good, set("Rea-Last", "1001"), 413, 0, "the limit is 1000"},
		{"no stream", good, set("Rea-Stream"), 400, 0, "Rea-Stream"},
		{"another schema", good, set("Rea-Schema", "2"), 400, 0, "schema 2"},
		{"a dictionary that is not known", good, func(r *http.Request) *http.Request {
			frame := wire.NewDictionaryCompressor().Append(nil, []byte(good))
			return withFrames(r, bytes.Replace(frame, []byte{0x01, 0xea}, []byte{0x5f, 0xea}, 1))
		}, 400, 0, "dictionary that is not known"},
		{"a body that is not zstd", good, set("Content-Encoding", "zstd"), 400, 0, "zstd"},
		{"a damaged frame", good, func(r *http.Request) *http.Request {
			r = compressed(r)
			raw, _ := io.ReadAll(r.Body)
			raw[len(raw)-1] ^= 1
			return withFrames(r, raw)
		}, 400, 0, "zstd"},
		{"a bomb", "", func(r *http.Request) *http.Request {
			return withFrames(r, wire.NewCompressor().Append(nil, make([]byte, 64<<20)))
		}, 413, 0, "more than 200 for one"},
		{"more than the limit when decoded", "", func(r *http.Request) *http.Request {
			noise := make([]byte, 64<<10) // so that the ratio is a usual one
			for i, r := 0, rand.New(rand.NewPCG(1, 1)); i < len(noise); i++ {
				noise[i] = byte(r.Uint32())
			}
			return withFrames(r, wire.NewCompressor().Append(wire.NewCompressor().Append(nil, noise), make([]byte, 64<<20)))
		}, 413, 0, "more than 4194304 bytes when decoded"},
		{"a window that is too large", "", func(r *http.Request) *http.Request {
			return withFrames(r, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x60, 1, 0, 0}) // 4 MiB
		}, 400, 0, "window"},
		{"frames without content", "", func(r *http.Request) *http.Request {
			return withFrames(r, bytes.Repeat([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00, 1, 0, 0}, 60_000))
		}, 413, 0, "zstd frames and blocks"},
		{"a dictionary that nobody has", "", func(r *http.Request) *http.Request {
			return withFrames(r, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x40, 7, 1, 0, 0})
		}, 400, 0, "zstd"},
		{"gaps without end", strings.Replace(good, `"cpu","cpu":{"n":1}`, `"gap","gap":{"cause":"x","count":1,"more":"`+strings.Repeat("x", 60_000)+`"}`, 1), func(r *http.Request) *http.Request {
			var body strings.Builder
			for n := uint64(1); n <= 6; n++ {
				body.WriteString(strings.Replace(b.lines(n, n), fmt.Sprintf(`"cpu","cpu":{"n":%d}`, n), `"gap","gap":{"cause":"x","count":1,"more":"`+strings.Repeat("x", 60_000)+`"}`, 1))
			}
			return b.request([]byte(body.String()), 1, 6)
		}, 413, 5, "the gaps of the batch"},
		{"many members", strings.Replace(good, `"n":1`, many(257), 1), nil, 422, 1, "more than 256 members"},
		{"a number that is too long", strings.Replace(good, `"n":1`, `"n":`+strings.Repeat("1", 41), 1), nil, 422, 1, "longer than 40"},
		{"a bomb of spaces in a line", "", func(r *http.Request) *http.Request {
			return withFrames(r, wire.NewCompressor().Append(nil, bytes.Repeat([]byte(" "), 1<<20)))
		}, 422, 1, "longer than 65536"},
		{"no body", "", nil, 422, 0, "ends before number 1"},
		{"too few lines", b.lines(1, 2), nil, 422, 0, "ends before number 3"},
		{"too many lines", b.lines(1, 4), nil, 422, 4, "one more"},
		{"a line that is cut", good[:len(good)-1], nil, 422, 3, "newline"},
		{"a hole", b.lines(1, 1) + b.lines(3, 4), nil, 422, 2, "seq is 3, want 2"},
		{"a repeated number", b.lines(1, 2) + b.lines(2, 2), nil, 422, 3, "seq is 2, want 3"},
		{"numbers of another batch", b.lines(4, 6), nil, 422, 1, "seq is 4, want 1"},
		{"another stream", strings.Replace(good, stream[:8], "00000000", 1), nil, 422, 1, "stream is"},
		{"another version", strings.Replace(good, `"v":1`, `"v":2`, 1), nil, 422, 1, "v is 2"},
		{"another node", strings.Replace(good, b.node, "0190d1c0-0000-7000-8000-00000000000b", 1), nil, 403, 1, "the certificate names"},
		{"a name twice", strings.Replace(good, `"v":1`, `"v":1,"v":1`, 1), nil, 422, 1, "twice"},
		{"a name twice, deep, in line two", b.lines(1, 1) + strings.Replace(b.lines(2, 3), `"n":2`, `"n":2,"n":2`, 1), nil, 422, 2, "twice"},
		{"seventeen deep", strings.Replace(good, `{"n":1}`, `{"n":`+strings.Repeat("[", 15)+strings.Repeat("]", 15)+`}`, 1), nil, 422, 1, "deep"},
		{"no JSON", "hello\n", nil, 422, 1, "want an object"},
		{"a gap without a cause", strings.Replace(good, `"cpu","cpu":{"n":2}`, `"gap","gap":{"count":2}`, 1), nil, 422, 2, "gap: cause: want"},
		{"a gap that ends before it begins", strings.Replace(good, `"cpu","cpu":{"n":3}`, `"gap","gap":{"cause":"x","count":2,"stream":"`+stream+`","first":2,"last":1}`, 1), nil, 422, 3, "first is 2 and last is 1"},
		{"not UTF-8", strings.Replace(good, "lab-7", "lab\xff", 1), nil, 422, 1, "UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := b.request([]byte(c.body), 1, 3)
			if c.change != nil {
				r = c.change(r)
			}
			resp, a := b.send(r)
			if resp.StatusCode != c.status || a.Line != c.line || !strings.Contains(a.Error, c.want) || a.Last != 0 {
				t.Errorf("%s %+v, want %d, line %d, %q", resp.Status, a, c.status, c.line, c.want)
			}
			if c.status == 405 && resp.Header.Get("Allow") != "POST" {
				t.Errorf("Allow: %q", resp.Header.Get("Allow"))
			}
			if d := cmp.Diff(wire.Dictionaries(), wire.ParseDictionaries(resp.Header)); d != "" {
				t.Errorf("dictionaries in the answer (-want +got):\n%s", d)
			}
		})
	}
	if got := b.store.batches(); len(got) != 0 {
		t.Errorf("kept %+v", got)
	}
	want := []string{
		"announced", "body_bytes", "content_type", "decoded_bytes", "depth", "duplicate", "encoding", "frames", "gap", "gaps", "head", "json", "line_bytes", "lines", "members",
		"method", "no_length", "node", "number", "numbers", "ratio", "text", "window", "zstd",
	}
	if d := cmp.Diff(want, b.counted()); d != "" {
		t.Errorf("the reasons that were counted: %s", d)
	}
	// and the server goes on
	if resp, a := b.send(b.request([]byte(good), 1, 3)); resp.StatusCode != 200 {
		t.Errorf("%s %+v", resp.Status, a)
	}
}

// many is a list of so many members.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":0`, i)
	}
	return b.String()[1:]
}

// counted returns the reasons for which requests were refused.
func (b *bench) counted() (reasons []string) {
	for _, reason := range Reasons {
		if b.set.Counter("rea_requests_refused_total", "", "reason", reason).Value() > 0 {
			reasons = append(reasons, reason)
		}
	}
	slices.Sort(reasons)
	return reasons
}

func TestHostsAndKindsOfABatchAreBounded(t *testing.T) {
	b := newBench(t, small)
	var body strings.Builder
	for n := uint64(1); n <= 100; n++ {
		body.WriteString(strings.Replace(b.lines(n, n), "lab-7", fmt.Sprint("lab-", n), 1))
	}
	if resp, a := b.send(b.request([]byte(body.String()), 1, 100)); resp.StatusCode != 422 || a.Line != 65 {
		t.Errorf("%s %+v", resp.Status, a)
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

// question makes a Resume of the bench's stream.
func (b *bench) question(assigned uint64, instance string) *http.Request {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, strings.Replace(b.url, wire.IngestPath, wire.ResumePath, 1), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	wire.Resume{Stream: stream, Assigned: assigned, Instance: strings.Repeat(instance, 32)}.SetHeader(r.Header)
	return r
}

func TestAStreamIsToldOfAndAskedFor(t *testing.T) {
	b := newBench(t, small)
	b.store.resume = func(*Resume) (uint64, uint64, error) { return 1450, 1455, nil }
	if resp, a := b.send(b.question(1462, "a")); resp.StatusCode != 200 || a != (wire.Answer{Last: 1450, Assigned: 1455, Stream: stream}) {
		t.Errorf("%s %+v", resp.Status, a)
	}
	b.send(b.question(0, "b"))
	b.send(b.question(7, "a"))
	for i, want := range []Resume{{Assigned: 1462}, {Assigned: 0}, {Assigned: 7, Superseded: true}} {
		got := b.store.resumed[i]
		if time.Since(got.Received) > time.Minute {
			t.Errorf("received %s", got.Received)
		}
		want.Node, want.Stream, want.Received = b.node, stream, got.Received
		if got != want {
			t.Errorf("%d: %+v, want %+v", i, got, want)
		}
	}
	b.store.resume = func(*Resume) (uint64, uint64, error) { return 3, 4, errors.New("disk full at /secret/path") }
	resp, a := b.send(b.question(8, "b"))
	if want := (wire.Answer{Error: "the server cannot keep batches now"}); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "10" || a != want {
		t.Errorf("%s %+v", resp.Status, a)
	}
}

func TestQuestionsThatAreRefused(t *testing.T) {
	b := newBench(t, small)
	for name, c := range map[string]struct {
		change func(r *http.Request)
		status int
		want   string
	}{
		"another method": {func(r *http.Request) { r.Method = http.MethodGet }, 405, "want POST"},
		"a body":         {func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1 }, 400, "no body"},
		"no instance":    {func(r *http.Request) { r.Header.Del("Rea-Instance") }, 400, "Rea-Instance"},
		"no stream":      {func(r *http.Request) { r.Header.Del("Rea-Stream") }, 400, "Rea-Stream"},
		"no number":      {func(r *http.Request) { r.Header.Set("Rea-Assigned", "-1") }, 400, "Rea-Assigned"},
	} {
		r := b.question(3, "a")
		c.change(r)
		if resp, a := b.send(r); resp.StatusCode != c.status || !strings.Contains(a.Error, c.want) {
			t.Errorf("%s: %s %+v", name, resp.Status, a)
		}
	}
	if n := len(b.store.resumed); n != 0 {
		t.Errorf("%d reached the store", n)
	}
}

func TestAQuestionWaitsForItsTurn(t *testing.T) {
	b := newBench(t, small)
	entered, leave, done := make(chan struct{}), make(chan struct{}), make(chan int)
	b.store.put = func(batch *Batch) (uint64, error) { entered <- struct{}{}; <-leave; return batch.Last, nil }
	go func() {
		resp, _ := b.send(b.request([]byte(b.lines(1, 3)), 1, 3))
		done <- resp.StatusCode
	}()
	<-entered
	if resp, _ := b.send(b.question(3, "a")); resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	close(leave)
	if status := <-done; status != 200 {
		t.Errorf("the batch: %d", status)
	}
	if resp, _ := b.send(b.question(3, "a")); resp.StatusCode != 200 {
		t.Errorf("after it: %s", resp.Status)
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

// A batch of nothing but gaps takes memory from the budget like any other.
func TestGapsTakeMemoryOfTheBudget(t *testing.T) {
	l := small
	l.Memory = 100 << 10
	b := newBench(t, l)
	var body strings.Builder
	for n := uint64(1); n <= 200; n++ {
		body.WriteString(strings.Replace(b.lines(n, n), fmt.Sprintf(`"cpu","cpu":{"n":%d}`, n), `"gap","gap":{"cause":"x","count":1}`, 1))
	}
	if resp, a := b.send(b.request([]byte(body.String()), 1, 200)); resp.StatusCode != 503 || a.Line != 0 {
		t.Errorf("%s %+v", resp.Status, a)
	}
}

func (b *bench) requestOf(stream string) *http.Request {
	r := b.request(nil, 1, 3)
	r.Header.Set("Rea-Stream", stream+r.Header.Get("Rea-Stream")[4:])
	return r
}

func TestMemoryIsSharedAndGivenBack(t *testing.T) {
	m := budget{free: 100}
	a, c := m.hold(), m.hold()
	if !a.grow(60) || c.grow(60) || !c.grow(40) || a.grow(1) {
		t.Error("the budget is not what was set")
	}
	a.release()
	a.release()
	c.release()
	if m.free != 100 {
		t.Errorf("%d are free", m.free)
	}
	l := small
	l.Memory = 100 << 10 // less than decoding takes at first
	b := newBench(t, l)
	for range 2 {
		if resp, a := b.send(compressed(b.request([]byte(b.lines(1, 3)), 1, 3))); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s %+v", resp.Status, a)
		}
	}
	if resp, a := b.send(b.request([]byte(b.lines(1, 3)), 1, 3)); resp.StatusCode != 200 {
		t.Errorf("%s %+v", resp.Status, a)
	}
}

// A body that is announced and does not come takes no more memory than what
// came, and is not the fault of its content.
func TestABodyThatDoesNotCome(t *testing.T) {
	m := budget{free: 1 << 20}
	reserve := m.hold()
	_, err := small.readBody(new(bodies), httptest.NewRecorder(), &http.Request{Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 100_000))), ContentLength: 1 << 20}, &reserve)
	var no *refusal
	if !errors.As(err, &no) || no.status != http.StatusRequestTimeout || reserve.held > 256<<10 {
		t.Errorf("%v, %d bytes held", err, reserve.held)
	}
}

// A body that comes too slowly is given up, and until then it takes no place of
// those that are worked on.
func TestASlowBodyHoldsUpNobody(t *testing.T) {
	l := small
	l.InFlight, l.BodyTime = 1, 300*time.Millisecond
	b := newBench(t, l)
	reader, writer := io.Pipe()
	defer writer.Close()
	slow := b.requestOf("0001")
	slow.Body, slow.ContentLength, slow.GetBody = reader, 1000, nil
	answered := make(chan int)
	go func() {
		resp, _ := b.send(slow)
		answered <- resp.StatusCode
	}()
	writer.Write([]byte("x")) // returns when the client reads on: the head is on its way
	if resp, a := b.send(b.request([]byte(b.lines(1, 3)), 1, 3)); resp.StatusCode != 200 {
		t.Errorf("beside it: %s %+v", resp.Status, a)
	}
	if status := <-answered; status != 408 {
		t.Errorf("the slow one: %d", status)
	}
	if got := b.counted(); !slices.Equal(got, []string{"body_slow"}) {
		t.Errorf("counted %v", got)
	}
}

// A refusal does not wait for the rest of a body that has no length, and so no end.
func TestABodyWithoutEndIsNotWaitedFor(t *testing.T) {
	b := newBench(t, small)
	reader, writer := io.Pipe()
	defer writer.Close()
	r := b.request(nil, 1, 3)
	r.Header.Set("Content-Type", "text/html")
	r.Body, r.ContentLength, r.GetBody = reader, -1, nil
	if resp, a := b.send(r); resp.StatusCode != 415 || !resp.Close {
		t.Errorf("%s %+v, close %v", resp.Status, a, resp.Close)
	}
}

func TestABodyEarnsTimeByWhatHasCome(t *testing.T) {
	p := (&Limits{BodyRate: 1000, BodyTime: time.Minute}).patience(httptest.NewRecorder())
	for have, want := range map[int]time.Duration{0: grace, 1000: grace + time.Second, 10_000: grace + 10*time.Second, 1 << 30: time.Minute} {
		p.until = time.Time{}
		if p.extend(have); p.until.Sub(p.began) != want {
			t.Errorf("after %d bytes: %v, want %v", have, p.until.Sub(p.began), want)
		}
	}
}

func TestWithoutACertificateNobodyIsHeard(t *testing.T) {
	h := New(&fake{}, Names{Certified: identity.Node}, small, Watch{}, slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	resp, err := http.Post("http://"+l.Addr().String()+wire.IngestPath, wire.ContentType, strings.NewReader("{}\n"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Error(resp.Status)
	}
	if _, err := h.who(&http.Request{TLS: &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}}); err == nil {
		t.Error("a certificate without a name was taken")
	}
}

// FuzzCheck feeds bodies past the head: whatever is accepted is what was announced.
func FuzzCheck(f *testing.F) {
	b := &bench{node: "0190d1c0-0000-7000-8000-00000000000b"}
	f.Add([]byte(b.lines(1, 3)), uint64(1), uint64(3), false)
	f.Add(wire.NewCompressor().Append(nil, []byte(b.lines(5, 6))), uint64(5), uint64(6), true)
	f.Add([]byte("{}\n"), uint64(1), uint64(1), false)
	f.Add([]byte(strings.Replace(b.lines(1, 2), `"cpu","cpu":{"n":2}`, `"gap","gap":{"cause":"x","count":2,"stream":"`+stream+`","first":1,"last":9223372036854775807}`, 1)), uint64(1), uint64(2), false)
	w := newWork(small)
	f.Fuzz(func(t *testing.T, body []byte, first, last uint64, zstd bool) {
		m := budget{free: small.Memory}
		reserve := m.hold()
		w.reserve = &reserve
		batch := &Batch{Node: b.node, Stream: stream, First: first, Last: last}
		r := &http.Request{Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
		if zstd {
			r.Header.Set("Content-Encoding", wire.Zstd)
		}
		if w.read(r, body, batch) != nil || w.check(batch) != nil || last < first {
			return
		}
		if n := bytes.Count(batch.Lines, []byte("\n")); uint64(n) != last-first+1 {
			t.Errorf("%d lines as %d to %d", n, first, last)
		}
		for _, g := range batch.Gaps {
			if g.Seq < first || g.Seq > last || g.First > g.Last || g.Last > wire.MaxSeq || (g.First == 0) != (g.Stream == "") || g.Count < 1 || g.Count > wire.MaxSeq {
				t.Errorf("%+v", g)
			}
		}
	})
}

// A client without a certificate is who it says, where that may be, and what is
// remembered and counted of it is its address's.
func TestAClientWithoutACertificate(t *testing.T) {
	const proven, taken, unknown = "0190d1c0-0000-7000-8000-00000000000c", "0190d1c0-0000-7000-8000-00000000000d", "0190d1c0-0000-7000-8000-00000000000e"
	store, set, log := &fake{}, new(metric.Set), new(bytes.Buffer)
	names := Names{
		Certified: identity.Node,
		Claimed: func(_ context.Context, node string) error {
			switch node {
			case proven:
				return fmt.Errorf("%w: it has one", ErrNotAllowed)
			case unknown:
				return errors.New("disk on fire")
			}
			return nil
		},
		Address: func(r *http.Request) string { return "there" },
	}
	var kept []Batch
	store.put = func(b *Batch) (uint64, error) {
		if b.Node == taken { // showed a certificate a moment ago
			return 0, ErrProven
		}
		kept = append(kept, *b)
		return b.Last, nil
	}
	store.resume = func(r *Resume) (uint64, uint64, error) {
		if r.Node == taken {
			return 0, 0, ErrProven
		}
		return 7, 9, nil
	}
	h := New(store, names, small, Watch{Metrics: set}, slog.New(slog.NewTextHandler(log, nil)))
	ask := func(path, node, body string) (int, wire.Answer) {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		r.TLS = new(tls.ConnectionState)
		if path == wire.ResumePath {
			wire.Resume{Stream: stream, Assigned: 9, Instance: stream}.SetHeader(r.Header)
		} else {
			wire.Batch{Stream: stream, First: 1, Last: 2, ID: "b", Schema: 1, Assigned: 2}.SetHeader(r.Header)
		}
		if node != "" {
			wire.SetNode(r.Header, node)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var a wire.Answer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		return w.Code, a
	}
	lines := func(node string) string { return (&bench{node: node}).lines(1, 2) }
	for _, c := range []struct {
		name, node, lines string
		status            int
		want              string
	}{
		{"one that nobody knows", fuzzNode, fuzzNode, 200, ""},
		{"lines of another one", fuzzNode, openNode + "x", 403, "the request names"},
		{"no name", "", fuzzNode, 403, "header Rea-Node is missing"},
		{"a path", "../" + fuzzNode, fuzzNode, 403, "header Rea-Node: want"},
		{"one with a certificate", proven, proven, 403, "it has one"},
		{"one with a certificate since a moment", taken, taken, 403, "has shown a certificate"},
		{"when nobody can tell", unknown, unknown, 503, "cannot keep"},
	} {
		if status, a := ask(wire.IngestPath, c.node, lines(c.lines)); status != c.status || !strings.Contains(a.Error, c.want) {
			t.Errorf("%s: %d %+v", c.name, status, a)
		}
	}
	if len(kept) != 1 || !kept[0].Unproven || kept[0].Node != fuzzNode {
		t.Errorf("%+v", kept)
	}
	if status, a := ask(wire.ResumePath, fuzzNode, ""); status != 200 || a.Last != 7 || !store.resumed[len(store.resumed)-1].Unproven {
		t.Errorf("resume: %d %+v", status, a)
	}
	if status, _ := ask(wire.ResumePath, taken, ""); status != 403 {
		t.Errorf("resume of one with a certificate: %d", status)
	}
	if n := h.count("unproven").Value(); n != 3 {
		t.Errorf("%d are counted", n)
	}
	for range 100 { // each with a name of its own
		ask(wire.IngestPath, identity.NewNode(), "nonsense")
	}
	if len(h.troubles) > 1 || len(h.voices) > 1 || len(h.flying) > 0 || strings.Count(log.String(), "\n") > mostSaid+1 {
		t.Errorf("%d troubles, %d voices, %d flying\n%s", len(h.troubles), len(h.voices), len(h.flying), log)
	}
}

func TestAnAddressWithoutCertificatesHasSoManyRequestsAtATime(t *testing.T) {
	h := New(&fake{}, Names{}, Limits{InFlight: 1000}, Watch{}, slog.New(slog.DiscardHandler))
	taken := 0
	var ends []func()
	for n := range 100 {
		land, err := h.takeOff(sender{node: fmt.Sprint(n), stranger: true, address: "there"}, stream)
		if err == nil {
			taken, ends = taken+1, append(ends, land)
		}
	}
	if _, err := h.takeOff(sender{node: "a", stranger: true, address: "elsewhere"}, stream); err != nil || taken != perAddress {
		t.Errorf("%d requests, elsewhere %v", taken, err)
	}
	for _, land := range ends {
		land()
	}
	if len(h.flying) != 3 {
		t.Errorf("%v are left", h.flying)
	}
}
