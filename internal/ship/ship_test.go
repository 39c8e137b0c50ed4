package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

// A server is a RoundTripper that answers by a script, and then for ever 200.
// It keeps what it said 200 to.
type server struct {
	t      *testing.T
	began  time.Time
	script []answer
	slow   answer // to batches of more lines than most, if that is set
	most   uint64

	refuse  map[string]int // line -> status, to batches that have it
	resumes []answer       // to Resume, and then what is so
	old     func() bool    // whether it knows no dictionaries; nil: never

	mu       sync.Mutex
	needs    []uint32 // the dictionaries of the first frames of batches
	seen     []string // "first-last answer"
	kept     []string // lines
	high     uint64
	assigned uint64
	beats    int // Resumes
	largest  int // bytes of a batch, decoded
}

type answer struct {
	status int
	header http.Header
	body   string // "" is a proper Answer
	err    error
}

func (s *server) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Path == wire.ResumePath {
		return s.resume(req)
	}
	defer req.Body.Close()
	raw, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	b, err := wire.ParseBatch(req.Header)
	if err != nil {
		s.t.Errorf("header: %v", err)
	}
	if int64(len(raw)) != req.ContentLength {
		s.t.Errorf("body has %d bytes, Content-Length says %d", len(raw), req.ContentLength)
	}
	var unreadable bool
	needs := wire.FrameDictionary(raw)
	if req.Header.Get("Content-Encoding") == wire.Zstd {
		raw, err = wire.NewDecompressor().Decode(nil, raw, 1<<24)
		if unreadable = errors.Is(err, wire.ErrDictionary); err != nil && !unreadable {
			s.t.Errorf("body: %v", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.needs = append(s.needs, needs)
	s.largest = max(s.largest, len(raw))
	a := answer{status: http.StatusOK}
	if unreadable || needs != 0 && s.isOld() {
		a.status = http.StatusBadRequest
	} else if len(s.script) > 0 {
		a, s.script = s.script[0], s.script[1:]
	}
	if s.most > 0 && b.Last-b.First >= s.most {
		a = s.slow
	}
	for line := range strings.Lines(string(raw)) {
		if status := s.refuse[strings.TrimSpace(line)]; status != 0 {
			a = answer{status: status}
		}
	}
	what := strconv.Itoa(a.status)
	if a.err != nil {
		what = a.err.Error()
	}
	s.seen = append(s.seen, fmt.Sprintf("%d-%d %s", b.First, b.Last, what))
	if a.err != nil {
		return nil, a.err
	}
	body := a.body
	if body == "" {
		body = fmt.Sprintf(`{"last":%d}`, b.Last)
		if a.status == http.StatusOK {
			s.high = max(s.high, b.Last)
			for line := range strings.Lines(string(raw)) {
				s.kept = append(s.kept, strings.TrimSpace(line))
			}
		}
	}
	return &http.Response{StatusCode: a.status, Status: http.StatusText(a.status), Header: s.head(a), Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
}

func (s *server) isOld() bool { return s.old != nil && s.old() }

// head is the head of an answer.
func (s *server) head(a answer) http.Header {
	h := http.Header{}
	maps.Copy(h, a.header)
	if !s.isOld() {
		wire.SetDictionaries(h)
	}
	return h
}

func (s *server) resume(req *http.Request) (*http.Response, error) {
	r, err := wire.ParseResume(req.Header)
	if err != nil {
		s.t.Errorf("header: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats++
	a := answer{status: http.StatusOK, body: fmt.Sprintf(`{"last":%d,"assigned":%d}`, s.high, s.assigned)}
	if len(s.resumes) > 0 {
		a, s.resumes = s.resumes[0], s.resumes[1:]
	}
	s.assigned = max(s.assigned, r.Assigned)
	if a.err != nil {
		return nil, a.err
	}
	return &http.Response{StatusCode: a.status, Status: http.StatusText(a.status), Header: s.head(a), Body: io.NopCloser(strings.NewReader(a.body)), Request: req}, nil
}

// An account notes what a Sender tells it.
type account struct {
	refused []string
	crashed uint64
	full    int // how often nothing can be declared
	renewed int
	renew   func() (*queue.Queue, error)
	bury    func()
}

func (a *account) Bury(_ context.Context, r Refused) error {
	a.refused = append(a.refused, fmt.Sprintf("%d %s %s", r.First, r.Cause, bytes.TrimSpace(r.Data)))
	if a.bury != nil {
		a.bury()
	}
	return nil
}

func (a *account) Crashed(_ context.Context, n uint64) error {
	if a.full > 0 {
		a.full--
		return errors.New("no space left on device")
	}
	a.crashed += n
	return nil
}

func (a *account) Renew(context.Context) (*queue.Queue, error) {
	a.renewed++
	return a.renew()
}

// A lane is a queue with a writer and a sender to a server.
type lane struct {
	*Writer
	*Sender
	*server
	account
	queue *queue.Queue
	set   metric.Set
	log   bytes.Buffer
	next  uint64
}

func newLane(t *testing.T, compress bool, script ...answer) *lane {
	q, err := queue.Open(queue.Options{Dir: t.TempDir(), MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	l := &lane{queue: q, server: &server{t: t, began: time.Now(), script: script}, next: q.Next()}
	l.Writer = NewWriter(WriterOptions{Queue: q, Compress: compress, Dictionary: true, Linger: time.Second})
	l.Sender = NewSender(SenderOptions{
		Queue: q, Lane: "test", Endpoint: "https://server", Client: &http.Client{Transport: l.server}, Interval: time.Second,
		Backoff: Backoff{500 * time.Millisecond, 5 * time.Second}, RetryBudget: 60,
		Explain: func(error) string { return "" }, Instance: strings.Repeat("0a", 16), Assigned: l.Writer.Assigned, Account: &l.account, Set: &l.set, Log: slog.New(slog.NewTextHandler(&l.log, nil)),
	})
	return l
}

// keep keeps n lines and waits until they are durable.
func (l *lane) keep(t *testing.T, n int) {
	t.Helper()
	var lines []byte
	for i := range n {
		lines = fmt.Appendf(lines, "{\"seq\":%d}\n", l.next+uint64(i))
	}
	wait, err := l.Keep(lines, l.next, n)
	l.next += uint64(n)
	if err == nil {
		err = wait(t.Context())
	}
	if err != nil {
		t.Errorf("keep: %v", err)
	}
}

// run runs the writer while f does, and the sender for d after that.
func (l *lane) run(t *testing.T, d time.Duration, f func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() { _ = l.Writer.Run(ctx) })
	f()
	cancel()
	writer.Wait()
	ctx, cancel = context.WithTimeout(t.Context(), d)
	defer cancel()
	_ = l.Sender.Run(ctx)
}

func lines(from, to int) (list []string) {
	for i := from; i <= to; i++ {
		list = append(list, fmt.Sprintf(`{"seq":%d}`, i))
	}
	return list
}

func (l *lane) metric(t *testing.T, want string) {
	t.Helper()
	var out bytes.Buffer
	if _, err := l.set.WriteTo(&out); err != nil || !strings.Contains(out.String(), want+"\n") {
		t.Errorf("metrics lack %q:\n%s", want, out.String())
	}
}

func TestLinesOfManyReachTheServerInOneBatch(t *testing.T) {
	for name, compress := range map[string]bool{"zstd": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane(t, compress)
				l.run(t, time.Minute, func() {
					l.keep(t, 2)
					var sources sync.WaitGroup
					for range 5 {
						n := l.next
						l.next++
						wait, err := l.Keep(fmt.Appendf(nil, "{\"seq\":%d}\n", n), n, 1)
						if err != nil {
							t.Error(err)
						}
						sources.Go(func() { _ = wait(t.Context()) })
					}
					sources.Wait()
				})
				if d := cmp.Diff(lines(1, 7), l.kept); d != "" {
					t.Errorf("kept (-want +got):\n%s", d)
				}
				if s := l.queue.Stats(); s.Records != 0 {
					t.Errorf("queue still holds %+v", s)
				}
				if d := cmp.Diff([]string{"1-7 200"}, l.seen); d != "" {
					t.Errorf("requests (-want +got):\n%s", d)
				}
				l.metric(t, `rea_batches_sent_total{lane="test"} 1`)
				l.metric(t, `rea_events_sent_total{lane="test"} 7`)
			})
		})
	}
}

func TestNothingTheServerAnswersLosesAnything(t *testing.T) {
	for name, c := range map[string]struct {
		answer answer
		reason string
		least  time.Duration // before the next try
		most   time.Duration
	}{
		"no connection":              {answer{err: errors.New("connection refused")}, "unreachable", 0, 500 * time.Millisecond},
		"time-out":                   {answer{err: context.DeadlineExceeded}, "timeout", 0, 500 * time.Millisecond},
		"a page of another server":   {answer{status: 200, body: "<html>sign in</html>"}, "answer", 0, 500 * time.Millisecond},
		"only a part was kept":       {answer{status: 200, body: `{"last":2}`}, "answer", 0, 500 * time.Millisecond},
		"the answer to another":      {answer{status: 200, body: `{"last":99,"stream":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}`}, "answer", 0, 500 * time.Millisecond},
		"redirect":                   {answer{status: 302, body: "moved"}, "server", 0, 500 * time.Millisecond},
		"not allowed":                {answer{status: 403, body: `{"error":"revoked"}`}, "denied", 15 * time.Second, 45 * time.Second},
		"another agent's stream":     {answer{status: 409, body: `{"error":"clone"}`}, "conflict", 0, 500 * time.Millisecond},
		"too large":                  {answer{status: 413, body: `{"error":"over 4 MiB"}`}, "too_large", 0, 500 * time.Millisecond},
		"a line at fault":            {answer{status: 422, body: `{"error":"not JSON","line":2}`}, "rejected", 0, 500 * time.Millisecond},
		"busy, with a time":          {answer{status: 503, header: http.Header{"Retry-After": {"60"}}}, "busy", 60 * time.Second, 67 * time.Second},
		"busy, without one":          {answer{status: 429}, "busy", 0, 500 * time.Millisecond},
		"asks for ever":              {answer{status: 503, header: http.Header{"Retry-After": {"999999999"}}}, "busy", 10 * time.Minute, 11*time.Minute + time.Second},
		"a Retry-After of nonsense":  {answer{status: 503, header: http.Header{"Retry-After": {"-1"}}}, "busy", 0, 500 * time.Millisecond},
		"the server's own trouble":   {answer{status: 500}, "server", 0, 500 * time.Millisecond},
		"a status that nobody knows": {answer{status: 299}, "server", 0, 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane(t, true, c.answer)
				l.run(t, time.Hour, func() { l.keep(t, 4) })
				if d := cmp.Diff(lines(1, 4), l.kept); d != "" {
					t.Errorf("kept (-want +got):\n%s", d)
				}
				l.metric(t, fmt.Sprintf(`rea_batch_errors_total{lane="test",reason=%q} 1`, c.reason))
				if s := l.Sender.State(); s.State != "ok" || s.LastSuccess.Sub(l.server.began) > c.most+time.Second || s.LastSuccess.Sub(l.server.began) < c.least {
					t.Errorf("%+v, %v after the start", s, s.LastSuccess.Sub(l.server.began))
				}
				if n := strings.Count(l.log.String(), "level=WARN"); n != 1 {
					t.Errorf("said %d times:\n%s", n, l.log.String())
				}
			})
		})
	}
}

func TestADeadServerIsTriedGentlyAndSaidNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var script []answer
		for range 10_000 {
			script = append(script, answer{err: errors.New("connection refused")})
		}
		l := newLane(t, true, script...)
		l.run(t, time.Hour, func() { l.keep(t, 1) })
		if n := len(l.seen); n < 3600/4 || n > 3600 {
			t.Errorf("%d tries in an hour, want about one in two and a half seconds", n)
		}
		if n := strings.Count(l.log.String(), "\n"); n < 11 || n > 13 {
			t.Errorf("%d lines of log in an hour:\n%s", n, l.log.String())
		}
		if s := l.Sender.State(); s.State != "failing" || s.LastError != "connection refused" {
			t.Errorf("%+v", s)
		}
		if s := l.queue.Stats(); s.Events != 1 {
			t.Errorf("queue holds %+v", s)
		}
	})
}

func TestABatchOverTheLimitIsSentInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tooLarge := answer{status: 413}
		l := newLane(t, true, tooLarge, tooLarge)
		l.run(t, time.Hour, func() {
			for range 8 {
				l.keep(t, 1)
			}
		})
		want := []string{"1-8 413", "1-4 413", "1-2 200", "3-4 200", "5-6 200", "7-8 200"}
		if d := cmp.Diff(want, l.seen); d != "" {
			t.Errorf("requests (-want +got):\n%s", d)
		}
	})
}

func TestABatchThatTakesTooLongIsSentInParts(t *testing.T) {
	for name, slow := range map[string]answer{
		"no answer in time":             {err: context.DeadlineExceeded},
		"the server gave up reading it": {status: 408, body: `{"error":"read body: i/o timeout"}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane(t, true)
				l.server.most = 2 // a line that carries no more in the time of a request
				l.server.slow = slow
				l.run(t, time.Hour, func() {
					for range 64 {
						l.keep(t, 1)
					}
				})
				if d := cmp.Diff(lines(1, 64), l.kept); d != "" {
					t.Errorf("kept (-want +got):\n%s", d)
				}
				if n := len(l.seen); n > 40 { // 32 of two lines each, and the tries before
					t.Errorf("%d requests:\n%s", n, strings.Join(l.seen, "\n"))
				}
				l.metric(t, `rea_batch_errors_total{lane="test",reason="timeout"} 5`)
			})
		})
	}
}

func TestBatchesGrowAgainAWhileAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true, answer{status: 413})
		ctx, cancel := context.WithCancel(t.Context())
		var writer sync.WaitGroup
		writer.Go(func() { _ = l.Writer.Run(ctx) })
		defer writer.Wait()
		defer cancel()
		deliver := func(records int) {
			for range records {
				l.keep(t, 1)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_ = l.Sender.Run(ctx)
		}
		deliver(8)
		time.Sleep(widenAfter)
		deliver(24)
		if d := cmp.Diff([]string{"1-8 413", "1-4 200", "5-8 200", "9-12 200", "13-20 200", "21-32 200"}, l.seen); d != "" {
			t.Errorf("requests (-want +got):\n%s", d)
		}
	})
}

func TestABatchEndsAtAHoleAndWhereTheEncodingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.run(t, time.Hour, func() {
			l.keep(t, 2)
			l.next += 3 // lost, and declared elsewhere
			l.keep(t, 2)
			l.zstd = nil
			l.keep(t, 2)
		})
		if d := cmp.Diff([]string{"1-2 200", "6-7 200", "8-9 200"}, l.seen); d != "" {
			t.Errorf("requests (-want +got):\n%s", d)
		}
	})
}

// However well lines compress: a server that nobody configured takes the batch.
func TestABatchIsNoLargerThanAnyServerTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.run(t, time.Hour, func() {
			for range 30 {
				l.keep(t, 15_000) // some 200 KB, of which 20 KB are sent
			}
		})
		if len(l.kept) != 30*15_000 || l.largest > wire.BatchBytes || l.largest < wire.BatchBytes/2 {
			t.Errorf("%d lines were kept, the largest batch had %d bytes", len(l.kept), l.largest)
		}
	})
}

func TestFullJitterStaysWithinItsBounds(t *testing.T) {
	b := Backoff{500 * time.Millisecond, 5 * time.Second}
	for failures, most := range map[uint64]time.Duration{1: 500 * time.Millisecond, 2: time.Second, 4: 4 * time.Second, 5: 5 * time.Second, 60: 5 * time.Second} {
		var low, high time.Duration = time.Hour, 0
		for range 2000 {
			d := b.delay(failures, &failure{})
			low, high = min(low, d), max(high, d)
		}
		if high > most || high < most*9/10 || low > most/10 {
			t.Errorf("after %d failures: %v to %v, want all of 0 to %v", failures, low, high, most)
		}
	}
}

func TestTheBudgetBoundsTriesAMinute(t *testing.T) {
	b := budget{perMinute: 6}
	now := time.Unix(0, 0)
	tries := 0
	for now.Before(time.Unix(600, 0)) {
		now = now.Add(max(time.Second, b.take(now, 5*time.Second)))
		tries++
	}
	if tries < 60 || tries > 67 {
		t.Errorf("%d tries in ten minutes at six a minute", tries)
	}
}

func TestAWriterThatStopsKeepsWhatItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = l.Writer.Run(ctx) })
		l.keep(t, 1) // the first goes at once
		wait, err := l.Keep([]byte("{\"seq\":2}\n"), 2, 1)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := wait(t.Context()); err != nil {
			t.Errorf("the last line: %v", err)
		}
		done.Wait()
		if n := l.queue.Next(); n != 3 {
			t.Errorf("next number is %d, want 3", n)
		}
		if _, err := l.Keep([]byte("{\"seq\":3}\n"), 3, 1); !errors.Is(err, errClosed) {
			t.Errorf("Keep after the end returned %v", err)
		}
	})
}

func TestAFullGroupDoesNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.run(t, time.Minute, func() {
			l.keep(t, 1)
			began := time.Now()
			big := []byte(`{"x":"` + strings.Repeat("y", wire.RecordBytes-20) + "\"}\n")
			for range 4 {
				if _, err := l.Keep(big, l.next, 1); err != nil {
					t.Error(err)
				}
				l.next++
			}
			if d := time.Since(began); d != 0 {
				t.Errorf("full groups waited %v", d)
			}
		})
		if len(l.kept) != 5 {
			t.Errorf("kept %d lines, want 5", len(l.kept))
		}
	})
}

func TestAGroupIsAsManyRecordsAsItsLinesNeed(t *testing.T) {
	for _, c := range []struct {
		name    string
		sizes   []int  // of lines that wait for the writer together
		refused []bool // by the queue, which takes no record over 128 KiB
		want    []queue.Record
	}{
		{"one", []int{60 << 10, 60 << 10}, []bool{false, false}, []queue.Record{{First: 1, Count: 2}}},
		{"two", []int{60 << 10, 60 << 10, 60 << 10}, []bool{false, false, false}, []queue.Record{{First: 1, Count: 2}, {First: 3, Count: 1}}},
		{"three", []int{70 << 10, 70 << 10, 70 << 10}, []bool{false, false, false}, []queue.Record{{First: 1, Count: 1}, {First: 2, Count: 1}, {First: 3, Count: 1}}},
		{"one of two", []int{60 << 10, 130_950, 60 << 10}, []bool{false, true, false}, []queue.Record{{First: 1, Count: 1}, {First: 3, Count: 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLane(t, false)
			var waits []func(context.Context) error
			for i, size := range c.sizes {
				wait, err := l.Keep(bytes.Repeat([]byte("y"), size), uint64(i)+1, 1)
				if err != nil {
					t.Fatal(err)
				}
				waits = append(waits, wait)
			}
			l.run(t, 0, func() {
				for i, wait := range waits {
					if err := wait(t.Context()); errors.Is(err, queue.ErrTooLarge) != c.refused[i] || err != nil && !c.refused[i] {
						t.Errorf("line %d: %v", i+1, err)
					}
				}
			})
			var got []queue.Record
			if err := l.queue.Each(func(r queue.Record) error {
				got = append(got, r)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(queue.Record{}, "Data")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Four sources hand over as much as they can at once, and wait until it is kept.
func BenchmarkWriter(b *testing.B) {
	q, err := queue.Open(queue.Options{Dir: b.TempDir(), MaxBytes: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	w := NewWriter(WriterOptions{Queue: q, Compress: true, Linger: 20 * time.Millisecond})
	ctx, cancel := context.WithCancel(b.Context())
	var writer sync.WaitGroup
	writer.Go(func() { _ = w.Run(ctx) })
	defer writer.Wait()
	defer cancel()
	const count = 256
	lines := bytes.Repeat([]byte(`{"v":1,"kind":"cpu","cpu":{"utilization":0.25}}`+"\n"), 7*count) // as long as events are
	var mu sync.Mutex
	next, left := uint64(1), b.N
	keep := func() (wait func(context.Context) error, err error) {
		mu.Lock()
		defer mu.Unlock()
		if left--; left < 0 {
			return nil, nil
		}
		next += count
		return w.Keep(lines, next-count, count)
	}
	b.SetBytes(int64(len(lines)))
	b.ResetTimer()
	var sources sync.WaitGroup
	for range 4 {
		sources.Go(func() {
			for {
				wait, err := keep()
				if err == nil && wait == nil {
					return
				}
				if err == nil {
					err = wait(ctx)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	sources.Wait()
}

func TestRecordsFitIntoTheSmallestQueue(t *testing.T) {
	for name, compress := range map[string]bool{"zstd": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			q, err := queue.Open(queue.Options{Dir: t.TempDir(), MaxBytes: 256 << 10, SegmentBytes: 32 << 10})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			w := NewWriter(WriterOptions{Queue: q, Compress: compress})
			ctx, cancel := context.WithCancel(t.Context())
			var done sync.WaitGroup
			done.Go(func() { _ = w.Run(ctx) })
			defer done.Wait()
			defer cancel()
			noise := make([]byte, w.Most()/2)
			random := rand.NewChaCha8([32]byte{})
			_, _ = random.Read(noise)
			var waits []func(context.Context) error
			for n := range uint64(5) { // more than a record together, two of them exactly one
				wait, err := w.Keep(noise, n+1, 1)
				if err != nil {
					t.Fatal(err)
				}
				waits = append(waits, wait)
			}
			for _, wait := range waits {
				if err := wait(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestALineThatNoRecordHoldsSaysWhy(t *testing.T) {
	q, err := queue.Open(queue.Options{Dir: t.TempDir(), MaxBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	w := NewWriter(WriterOptions{Queue: q})
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = w.Run(ctx) })
	defer done.Wait()
	defer cancel()
	wait, err := w.Keep(make([]byte, 100<<10), 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	var cause interface{ Cause() string }
	if err := wait(t.Context()); !errors.As(err, &cause) || cause.Cause() != "too_large" {
		t.Errorf("Keep: %v", err)
	}
}

func TestWhoStopsWaitingStillLearnsThatItsLinesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = l.Writer.Run(ctx) })
		defer done.Wait()
		defer cancel()
		l.keep(t, 1) // the first goes at once
		wait, err := l.Keep([]byte("{\"seq\":2}\n"), 2, 1)
		if err != nil {
			t.Fatal(err)
		}
		source, stop := context.WithCancel(t.Context())
		stop()
		if err := wait(source); err != nil {
			t.Errorf("the source was told %v, and would hand the line over again", err)
		}
		if n := l.queue.Next(); n != 3 {
			t.Errorf("next number is %d, want 3", n)
		}
	})
}

func TestWhoStopsWaitingForADiskThatHangsIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true) // nobody runs the writer
		wait, err := l.Keep([]byte("{\"seq\":1}\n"), 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("wait returned %v", err)
		}
	})
}

func TestALineAtFaultIsFoundAndGivenUp(t *testing.T) {
	for name, bad := range map[string][]int{
		"the first": {1}, "in the middle": {300}, "the last": {1000}, "two neighbours": {511, 512}, "far apart": {2, 700},
	} {
		for encoding, compress := range map[string]bool{"zstd": true, "plain": false} {
			t.Run(name+" "+encoding, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLane(t, compress)
					l.refuse = map[string]int{}
					var want, refused []string
					for i, line := range lines(1, 1000) {
						if slices.Contains(bad, i+1) {
							l.refuse[line] = http.StatusUnprocessableEntity
							refused = append(refused, fmt.Sprintf("%d rejected %s", i+1, line))
						} else {
							want = append(want, line)
						}
					}
					l.run(t, time.Hour, func() {
						for range 4 {
							l.keep(t, 250)
						}
					})
					if d := cmp.Diff(want, l.server.kept); d != "" {
						t.Errorf("kept (-want +got):\n%s", d)
					}
					if d := cmp.Diff(refused, l.account.refused); d != "" {
						t.Errorf("given up (-want +got):\n%s", d)
					}
					refusals := 0
					for _, what := range l.seen {
						if strings.HasSuffix(what, " 422") {
							refusals++
						}
					}
					// log2(1000) is 10; a first line is asked thrice, since nothing else was accepted.
					if most := len(bad) * (10 + 2 + 2); len(l.seen) > most+3 {
						t.Errorf("%d requests, %d refused, want at most %d:\n%s", len(l.seen), refusals, most, strings.Join(l.seen, "\n"))
					}
					if s := l.queue.Stats(); s.Records != 0 {
						t.Errorf("queue still holds %+v", s)
					}
				})
			})
		}
	}
}

func TestRecordsGoOutAsTheyLieToWhoHasTheirDictionary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.run(t, time.Minute, func() { l.keep(t, 3) })
		if d := cmp.Diff(wire.Dictionaries()[len(wire.Dictionaries())-1:], l.needs); d != "" {
			t.Errorf("dictionaries (-want +got):\n%s", d)
		}
		if d := cmp.Diff(lines(1, 3), l.kept); d != "" {
			t.Error(d)
		}
	})
}

func TestAnOldServerGetsFramesWithoutADictionary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.old = func() bool { return true }
		l.run(t, time.Minute, func() {
			l.keep(t, 3)
			l.keep(t, 2)
		})
		if d := cmp.Diff([]string{"1-5 200"}, l.seen); d != "" || l.needs[0] != 0 {
			t.Errorf("dictionaries %v, seen (-want +got):\n%s", l.needs, d)
		}
		if d := cmp.Diff(lines(1, 5), l.kept); d != "" {
			t.Error(d)
		}
	})
}

// The one that was asked has the dictionary and the one that gets the batch has
// it not, as while the servers behind one name are replaced.
func TestALineIsNotAtFaultForItsDictionary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.old = func() bool { return l.beats > 0 && len(l.needs) <= 2 }
		l.resumes = []answer{{status: http.StatusOK, body: "{}", header: http.Header{"Rea-Dictionaries": {"59905"}}}}
		l.narrow.most = 1 // and then 2, and 4
		l.run(t, time.Minute, func() {
			for range 5 {
				l.keep(t, 1)
			}
		})
		if d := cmp.Diff([]string{"1-1 400", "1-1 200", "2-3 200", "4-5 200"}, l.seen); d != "" {
			t.Errorf("seen (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]uint32{59905, 0, 0, 59905}, l.needs); d != "" {
			t.Errorf("dictionaries (-want +got):\n%s", d)
		}
		if len(l.account.refused) > 0 {
			t.Errorf("given up: %q", l.account.refused)
		}
	})
}

// A record that a later version made lies in the queue of this one.
func TestARecordThatNobodyCanReadDoesNotStopDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		frame := wire.NewDictionaryCompressor().Append(nil, []byte(strings.Join(lines(1, 2), "\n")+"\n"))
		frame = bytes.Replace(frame, []byte{0x01, 0xea}, []byte{0x5f, 0xea}, 1)
		if err := l.queue.Append(t.Context(), queue.Record{First: 1, Count: 2, Data: frame}); err != nil {
			t.Fatal(err)
		}
		l.next = 3
		l.run(t, time.Hour, func() { l.keep(t, 1) })
		if d := cmp.Diff(lines(3, 3), l.kept); d != "" {
			t.Errorf("kept (-want +got):\n%s", d)
		}
		if len(l.account.refused) != 1 || !strings.HasPrefix(l.account.refused[0], "1 rejected ") || !strings.HasSuffix(l.account.refused[0], string(frame)) {
			t.Errorf("given up: %q", l.account.refused)
		}
	})
}

func TestAServerThatRefusesEverythingIsNotBelievedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.refuse = map[string]int{}
		for _, line := range lines(1, 100) {
			l.refuse[line] = http.StatusBadRequest
		}
		l.run(t, 10*time.Minute, func() { l.keep(t, 100) })
		if n := len(l.account.refused); n == 0 || n > 20 {
			t.Errorf("%d lines are given up in ten minutes, want one a minute or so", n)
		}
		if len(l.seen) > 150 {
			t.Errorf("%d requests in ten minutes", len(l.seen))
		}
	})
}

func TestASingleLineThatIsTooLargeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.refuse = map[string]int{`{"seq":3}`: http.StatusRequestEntityTooLarge}
		l.run(t, time.Hour, func() { l.keep(t, 5) })
		if d := cmp.Diff([]string{`3 too_large {"seq":3}`}, l.account.refused); d != "" {
			t.Errorf("given up (-want +got):\n%s", d)
		}
		if d := cmp.Diff(append(lines(1, 2), lines(4, 5)...), l.server.kept); d != "" {
			t.Errorf("kept (-want +got):\n%s", d)
		}
	})
}

func TestAGapEventThatIsRefusedDoesNotChaseItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		gap := func(seq uint64) string { return fmt.Sprintf(`{"seq":%d,"kind":"gap","gap":{}}`, seq) }
		l.refuse = map[string]int{}
		for seq := range uint64(1000) {
			l.refuse[gap(seq)] = http.StatusUnprocessableEntity
		}
		ctx, cancel := context.WithCancel(t.Context())
		var writer sync.WaitGroup
		writer.Go(func() { _ = l.Writer.Run(ctx) })
		defer writer.Wait()
		defer cancel()
		l.keep(t, 1)
		_, _ = l.Keep([]byte(gap(2)+"\n"), 2, 1)
		time.Sleep(time.Minute)
		l.account.bury = func() { // as the agent does
			l.next++
			_, _ = l.Keep([]byte(gap(l.next)+"\n"), l.next, 1)
		}
		l.next = 2
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		_ = l.Sender.Run(ctx)
		if n := len(l.account.refused); n < 2 || n > 41 {
			t.Errorf("%d gap events chased each other in ten minutes", n)
		}
	})
}

func TestAConflictBeginsANewStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.refuse = map[string]int{}
		for _, line := range lines(7, 10) {
			l.refuse[line] = http.StatusConflict
		}
		l.account.renew = func() (*queue.Queue, error) {
			clear(l.refuse)
			return l.queue, nil
		}
		l.run(t, time.Hour, func() { l.keep(t, 10) })
		if l.account.renewed != 1 || l.Sender.acked != 10 {
			t.Errorf("%d new streams, acknowledged up to %d:\n%s", l.account.renewed, l.Sender.acked, strings.Join(l.seen, "\n"))
		}
		if d := cmp.Diff(lines(1, 10), l.server.kept); d != "" {
			t.Errorf("kept (-want +got):\n%s", d)
		}
	})
}

func TestAServerThatRefusesEveryStreamDoesNotGetNewOnesForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.refuse = map[string]int{}
		for _, line := range lines(1, 10) {
			l.refuse[line] = http.StatusConflict
		}
		l.account.renew = func() (*queue.Queue, error) { return l.queue, nil }
		l.run(t, time.Hour, func() { l.keep(t, 10) })
		if l.account.renewed != 1 {
			t.Errorf("%d new streams", l.account.renewed)
		}
		if n := len(l.seen); n > 300 {
			t.Errorf("%d requests in an hour", n)
		}
	})
}

func TestAnAgentBehindItsOwnPastBeginsANewStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.server.high = 5 // of which this process, which begins with 1, knows nothing
		l.account.renew = func() (*queue.Queue, error) {
			l.server.high = 0 // of the new stream
			return l.queue, nil
		}
		l.run(t, time.Hour, func() { l.keep(t, 3) })
		if l.account.renewed != 1 {
			t.Errorf("%d new streams, want 1", l.account.renewed)
		}
	})
}

// A server that claims to keep numbers of every stream is not given new ones until
// the queue is full of their gap events. What is not delivered is kept.
func TestAServerThatKnowsEveryStreamDoesNotGetNewOnesForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		for range 20 {
			l.resumes = append(l.resumes, answer{status: http.StatusOK, body: `{"last":9223372036854775807}`})
		}
		l.account.renew = func() (*queue.Queue, error) { return l.queue, nil }
		l.run(t, time.Hour, func() { l.keep(t, 3) })
		if l.account.renewed != 1 {
			t.Errorf("%d new streams, want 1", l.account.renewed)
		}
		if d := cmp.Diff(lines(1, 3), l.server.kept); d != "" {
			t.Errorf("kept once the server spoke sense (-want +got):\n%s", d)
		}
	})
}

func TestWhatACrashTookIsDeclared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.server.assigned = 4 // told by the process before, which had none of it on the disk
		l.run(t, time.Hour, func() { l.keep(t, 9) })
		if l.account.crashed != 4 {
			t.Errorf("%d events are declared, want 4", l.account.crashed)
		}
	})
}

func TestWhatCannotBeDeclaredYetDoesNotStopDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.server.assigned, l.account.full = 4, 3
		l.run(t, time.Minute, func() { l.keep(t, 9) })
		if d := cmp.Diff(lines(1, 9), l.server.kept); d != "" || l.account.crashed != 0 {
			t.Errorf("kept (-want +got), %d declared:\n%s", l.account.crashed, d)
		}
		l.run(t, time.Hour, func() {})
		if l.account.crashed != 4 {
			t.Errorf("%d events are declared in the end, want 4", l.account.crashed)
		}
	})
}

func TestASilentLaneSaysThatItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.run(t, time.Hour, func() {})
		if n := l.beats; n < 59 || n > 61 {
			t.Errorf("%d heartbeats in an hour", n)
		}
		if s := l.Sender.State(); s.State != OK {
			t.Errorf("a lane with nothing to send is %+v", s)
		}
	})
}

func TestAResumeThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.resumes = []answer{{err: errors.New("connection refused")}, {status: 503}, {status: 404, body: "no"}}
		l.run(t, time.Hour, func() { l.keep(t, 3) })
		if d := cmp.Diff(lines(1, 3), l.server.kept); d != "" {
			t.Errorf("kept (-want +got):\n%s", d)
		}
	})
}

func TestMoveGivesEventsAnotherStreamAndNode(t *testing.T) {
	for name, compress := range map[string]bool{"zstd": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			open := func() *queue.Queue {
				q, err := queue.Open(queue.Options{Dir: t.TempDir(), MaxBytes: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { q.Close() })
				return q
			}
			old, fresh := open(), open()
			event := func(node string, q *queue.Queue, seq uint64, n int) string {
				return fmt.Sprintf(`{"v":1,"time":"2026-01-02T03:04:05Z","node":%q,"hostname":"a\",\"node\":\"x","stream":%q,"seq":%d,"kind":"gap","gap":{"n":%d,"stream":%q,"seq":7}}`+"\n",
					node, q.Stream(), seq, n, old.Stream())
			}
			for first := uint64(1); first < 10; first += 3 {
				var lines []byte
				for n := range uint64(3) {
					lines = append(lines, event("lab-7", old, first+n, int(first+n))...)
				}
				if err := (&mover{ctx: t.Context(), fresh: old}).append(lines, compress); err != nil {
					t.Fatal(err)
				}
			}
			if err := old.Ack(5); err != nil {
				t.Fatal(err)
			}
			m, err := Move(t.Context(), old, fresh, "lab-0000007")
			if err != nil || m != (Moved{Events: 4}) {
				t.Fatalf("moved %+v, %v", m, err)
			}
			var got, want string
			records, err := fresh.Peek(nil, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				lines, err := new(cutter).decode(r)
				if err != nil {
					t.Fatal(err)
				}
				got += string(lines)
			}
			for n := range 4 {
				want += event("lab-0000007", fresh, uint64(n+1), n+6)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("moved (-want +got):\n%s", d)
			}
		})
	}
}

func TestAnAgentWithoutACertificateNamesItselfInEveryRequest(t *testing.T) {
	for _, node := range []string{"", "lab-7"} {
		s := &Sender{o: SenderOptions{Endpoint: "https://server", Node: node}}
		for _, path := range []string{wire.IngestPath, wire.ResumePath} {
			req, err := s.request(t.Context(), path, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.ParseNode(req.Header)
			if got != node || (err == nil) != (node != "") {
				t.Errorf("%s names %q, want %q: %v", path, got, node, err)
			}
		}
	}
}
