package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

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

func compressor(compress bool) *wire.Compressor {
	if !compress {
		return nil
	}
	return wire.NewDictionaryCompressor()
}

func newLane(t *testing.T, compress bool, script ...answer) *lane {
	q, err := queue.Open(queue.Options{Dir: t.TempDir(), MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	l := &lane{queue: q, server: &server{t: t, began: time.Now(), script: script}, next: q.Next()}
	l.Writer = NewWriter(WriterOptions{Queue: q, Compressor: compressor(compress), Linger: time.Second})
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
