package ship

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/trouble"
	"github.com/rea-agent/rea/internal/wire"
)

// What one request may carry: so many bytes as they lie in the queue, and so
// many when decoded, which the server bounds too.
const (
	batchBytes   = 1 << 20
	decodedBytes = 8 << 20
	answerBytes  = 64 << 10
	batchRecords = 1 << 20 // no bound
)

// widenAfter is how long batches stay small after one was refused for its size
// or its content, or took too long. They grow again after that, not at once: a
// server or a line that takes no more would refuse every other batch.
const widenAfter = time.Minute

// SenderOptions say where a Sender posts and how hard it tries.
type SenderOptions struct {
	Queue       *queue.Queue
	Lane        string // the label of its metrics and logs
	Endpoint    string // https://host:port
	Client      *http.Client
	UserAgent   string
	Interval    time.Duration // least time between two rounds of posts
	Backoff     Backoff
	RetryBudget int                // retries a minute
	Explain     func(error) string // what a failed connection means, in words
	Set         *metric.Set
	Log         *slog.Logger
}

// The states of a Sender.
const (
	Starting = "starting"
	OK       = "ok"
	Failing  = "failing"
)

// A SenderState is what is known of a Sender.
type SenderState struct {
	State       string
	LastSuccess time.Time
	LastError   string
	Failures    uint64 // since the last success
}

// A Sender delivers the records of one queue, in order, one batch in flight.
type Sender struct {
	o       SenderOptions
	trouble trouble.Trouble
	records []queue.Record
	max     int       // records in the next batch; fewer after a refusal
	refused time.Time // when that was
	budget  budget

	sent, events, bytes *metric.Counter

	mu    sync.Mutex
	state SenderState
}

// NewSender returns a Sender.
func NewSender(o SenderOptions) *Sender {
	s := &Sender{o: o, max: batchRecords, budget: budget{perMinute: o.RetryBudget}, state: SenderState{State: Starting}}
	s.sent = o.Set.Counter("rea_batches_sent_total", "Batches that the server acknowledged.", "lane", o.Lane)
	s.events = o.Set.Counter("rea_events_sent_total", "Events that the server acknowledged.", "lane", o.Lane)
	s.bytes = o.Set.Counter("rea_sent_bytes_total", "Bytes of acknowledged batches, as sent.", "lane", o.Lane)
	for _, reason := range reasons {
		s.errors(reason)
	}
	o.Set.Func("rea_sender_last_success_timestamp_seconds", "When the server last acknowledged a batch.", func() float64 {
		if t := s.State().LastSuccess; !t.IsZero() {
			return float64(t.UnixMilli()) / 1000
		}
		return 0
	}, "lane", o.Lane)
	return s
}

func (s *Sender) errors(reason string) *metric.Counter {
	return s.o.Set.Counter("rea_batch_errors_total", "Tries to deliver a batch that failed, by reason; the batch is kept.", "lane", s.o.Lane, "reason", reason)
}

// State returns how the Sender fares.
func (s *Sender) State() SenderState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Run delivers until ctx ends. What is not acknowledged by then stays in the queue.
func (s *Sender) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		more, wait := s.deliver(ctx)
		switch {
		case wait > 0:
			sleep(ctx, wait)
		case more:
		default:
			s.idle(ctx)
		}
	}
	return nil
}

// idle waits until there is something to send and the interval since the last
// batch is over, in that order: a sender with nothing to do is not woken.
func (s *Sender) idle(ctx context.Context) {
	select {
	case <-s.o.Queue.Ready():
	case <-ctx.Done():
		return
	}
	if last := s.State().LastSuccess; !last.IsZero() {
		if wait := s.o.Interval - time.Since(last); wait > 0 {
			sleep(ctx, wait)
		}
	}
}

// deliver sends the next batch. It reports whether there may be more, and how
// long to wait first.
func (s *Sender) deliver(ctx context.Context) (more bool, wait time.Duration) {
	b, err := s.next()
	if err != nil {
		return true, s.failed(b, &failure{reason: "queue", err: fmt.Errorf("read queue: %w", err)})
	}
	if b.count == 0 {
		return false, 0
	}
	if f := s.post(ctx, b); f != nil {
		if ctx.Err() != nil {
			return false, 0
		}
		s.narrow(f, b)
		return true, s.failed(b, f)
	}
	if err := s.o.Queue.Ack(b.Last); err != nil {
		return true, s.failed(b, &failure{reason: "queue", err: fmt.Errorf("acknowledge in queue: %w", err)})
	}
	s.widen()
	s.delivered(b)
	return true, 0
}

// A batch is a run of records whose numbers follow on each other, in one encoding.
type batch struct {
	wire.Batch
	records []queue.Record
	count   uint64
	bytes   int
	zstd    bool
}

// next reads the next batch from the queue; its count is 0 if there is none.
func (s *Sender) next() (batch, error) {
	var err error
	if s.records, err = s.o.Queue.Peek(s.records[:0], batchBytes); err != nil || len(s.records) == 0 {
		return batch{}, err
	}
	first := s.records[0]
	b := batch{zstd: wire.IsZstd(first.Data)}
	next, decoded := first.First, 0
	for i, r := range s.records {
		size := wire.DecodedSize(r.Data)
		if r.First != next || i >= s.max || wire.IsZstd(r.Data) != b.zstd || i > 0 && decoded+size > decodedBytes {
			break
		}
		decoded += size
		next += uint64(r.Count)
		b.count += uint64(r.Count)
		b.bytes += len(r.Data)
		b.records = s.records[:i+1]
	}
	stream := s.o.Queue.Stream().String()
	b.Batch = wire.Batch{
		Stream: stream, First: first.First, Last: next - 1, Schema: wire.Schema, Assigned: s.o.Queue.Next() - 1,
		ID: fmt.Sprintf("%s-%d-%d", stream[:8], first.First, next-1),
	}
	return b, nil
}

// narrow makes the next batch smaller after the server refused the content of
// this one, so that what is good goes through and the log names what is not; and
// after a time-out, since a line may be too slow for so many bytes in that time,
// and would carry the same again and again.
func (s *Sender) narrow(f *failure, b batch) {
	switch f.reason {
	case "too_large", "rejected", "timeout":
		s.max, s.refused = max(1, len(b.records)/2), time.Now()
	}
}

// widen makes batches larger again when there was no refusal for a while.
func (s *Sender) widen() {
	if time.Since(s.refused) >= widenAfter {
		s.max = min(2*s.max, batchRecords)
	}
}

// post sends b and returns nil only if the server says that it keeps all of it.
func (s *Sender) post(ctx context.Context, b batch) *failure {
	lease := &lease{records: b.records}
	defer lease.release()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.o.Endpoint+wire.IngestPath, lease.body())
	if err != nil {
		return &failure{reason: "request", err: err}
	}
	req.ContentLength = int64(b.bytes)
	req.GetBody = func() (io.ReadCloser, error) { return lease.body(), nil }
	req.Header["Idempotency-Key"] = nil // a repeat is dropped, so a connection that went stale may be retried
	req.Header.Set("User-Agent", s.o.UserAgent)
	b.SetHeader(req.Header)
	if b.zstd {
		req.Header.Set("Content-Encoding", wire.Zstd)
	}
	resp, err := s.o.Client.Do(req)
	if err != nil {
		return unreachable(err, s.o.Explain)
	}
	defer resp.Body.Close()
	return judge(resp, b.Last)
}

// A failure is a try that did not deliver.
type failure struct {
	reason string // the label in rea_batch_errors_total
	err    error
	after  time.Duration // what the server asked for
	slow   bool          // trying soon again cannot help
}

// The reasons of failures, for metrics that exist before the first one.
var reasons = [...]string{"unreachable", "timeout", "tls", "busy", "server", "denied", "conflict", "too_large", "rejected", "answer"}

func unreachable(err error, explain func(error) string) *failure {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // the log names the endpoint anyway
	}
	if text := explain(err); text != "" {
		return &failure{reason: "tls", err: errors.New(text)}
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op != "dial" {
		err = op.Err // without our port, which is another one every time
	}
	f := &failure{reason: "unreachable", err: err}
	if t := net.Error(nil); errors.As(err, &t) && t.Timeout() {
		f.reason = "timeout"
	}
	return f
}

// judge reads the server's answer.
func judge(resp *http.Response, last uint64) *failure {
	var a wire.Answer
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if resp.StatusCode == http.StatusOK {
		switch {
		case err != nil:
			return &failure{reason: "answer", err: fmt.Errorf("the answer 200 is not of a REA server: %w", err)}
		case a.Last < last:
			return &failure{reason: "answer", err: fmt.Errorf("the server keeps numbers up to %d of a batch up to %d", a.Last, last)}
		}
		return nil
	}
	f := &failure{reason: "server", err: fmt.Errorf("the server answered %s: %s", resp.Status, a.Error), after: retryAfter(resp.Header)}
	if a.Line > 0 {
		f.err = fmt.Errorf("the server answered %s: line %d: %s", resp.Status, a.Line, a.Error)
	}
	switch c := resp.StatusCode; {
	case c == http.StatusUnauthorized || c == http.StatusForbidden:
		f.reason, f.slow = "denied", true
	case c == http.StatusConflict:
		f.reason, f.slow = "conflict", true
	case c == http.StatusRequestTimeout:
		f.reason = "timeout"
	case c == http.StatusRequestEntityTooLarge:
		f.reason = "too_large"
	case c == http.StatusTooManyRequests || c == http.StatusServiceUnavailable:
		f.reason = "busy"
	case c >= 400 && c < 500:
		f.reason = "rejected"
	}
	return f
}

// maxRetryAfter bounds what a server may ask for.
const maxRetryAfter = 10 * time.Minute

// retryAfter reads Retry-After (RFC 9110, section 10.2.3), in seconds or as a date.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(0, time.Until(t)), maxRetryAfter)
	}
	return 0
}

// failed counts and says a failure and returns how long to wait.
func (s *Sender) failed(b batch, f *failure) time.Duration {
	s.errors(f.reason).Inc()
	text := f.err.Error()
	said := s.trouble.Failed(text)
	_, failures := s.trouble.Now()
	s.mu.Lock()
	s.state.State, s.state.LastError, s.state.Failures = Failing, text, failures
	s.mu.Unlock()
	wait := max(s.o.Backoff.delay(failures, f), s.budget.take(time.Now()))
	if said {
		s.o.Log.Warn("batch is not delivered; it is kept and tried again", "lane", s.o.Lane, "endpoint", s.o.Endpoint, "reason", f.reason, "error", text,
			"failures", failures, "batch", b.ID, "stream", b.Stream, "first", b.First, "last", b.Last, "retry_in", wait.Round(time.Millisecond).String())
	}
	return wait
}

// delivered counts a success and says so if it ends a failure.
func (s *Sender) delivered(b batch) {
	s.sent.Inc()
	s.events.Add(b.count)
	s.bytes.Add(uint64(b.bytes))
	s.mu.Lock()
	first := s.state.LastSuccess.IsZero()
	s.state = SenderState{State: OK, LastSuccess: time.Now()}
	s.mu.Unlock()
	failures, lasted := s.trouble.Worked()
	if failures > 0 || first {
		s.o.Log.Info("delivering", "lane", s.o.Lane, "endpoint", s.o.Endpoint, "failures", failures, "after", lasted.Round(time.Millisecond).String(), "batch", b.ID, "stream", b.Stream, "first", b.First, "last", b.Last)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
