package ship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/trouble"
)

// heartbeat is how often a sender with nothing to send says how far its stream
// has come, and so that it is there.
const heartbeat = time.Minute

// SenderOptions say where a Sender posts and how hard it tries.
type SenderOptions struct {
	Queue       *queue.Queue
	Lane        string // the label of its metrics and logs
	Endpoint    string // https://host:port
	Client      *http.Client
	UserAgent   string
	Node        string        // that requests name, where no certificate does; else ""
	Instance    string        // of this process: 32 hexadecimal digits
	Assigned    func() uint64 // the highest number that an event of the queue's stream has
	Interval    time.Duration // least time between two rounds of posts
	Backoff     Backoff
	RetryBudget int                // retries a minute
	Explain     func(error) string // what a failed connection means, in words
	Account     Account
	Set         *metric.Set
	Log         *slog.Logger
}

// An Account is told of what a Sender cannot deliver. Each method returns nil
// when what it was told is safe, so that the Sender may forget it; after an
// error it is told again.
type Account interface {
	// Bury takes a line that the server refuses, and declares it missing.
	Bury(context.Context, Refused) error
	// Crashed declares events that had numbers, which were told to the server,
	// and were not on the disk when the last process ended.
	Crashed(ctx context.Context, count uint64) error
	// Renew begins a new stream and takes along, under new numbers, what is not
	// acknowledged. It returns the queue to use from then on, also beside an
	// error; nil is the one that there was.
	Renew(context.Context) (*queue.Queue, error)
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
	o         SenderOptions
	trouble   trouble.Trouble
	budget    budget
	cut       cutter
	records   []queue.Record
	acked     uint64 // what the server has, or never will
	confirmed uint64 // what it said that it has, to this process
	narrow    narrow // how much the next batch may hold
	bad       span   // the smallest run of numbers that the server is known to refuse
	alone     int    // how often bad was refused when it was a single line

	resumed bool      // the server was asked where the stream stands
	met     bool      // it was, in this process
	began   uint64    // the first number that this process gave
	crashed uint64    // events that the last process took along, and that are not declared
	behind  bool      // the server keeps numbers from began on: they are of another life of this machine
	renewed bool      // the stream is new, and nothing of it was accepted yet
	spoke   time.Time // when the server last answered well

	dictionaries []uint32 // that the server has, as its last answer says

	sent, events, bytes, renewals, remade *metric.Counter

	mu    sync.Mutex
	state SenderState
}

// NewSender returns a Sender.
func NewSender(o SenderOptions) *Sender {
	s := &Sender{
		o: o, budget: budget{perMinute: o.RetryBudget}, narrow: narrow{most: batchLines}, acked: o.Queue.Acked(), began: o.Assigned() + 1,
		state: SenderState{State: Starting},
	}
	s.sent = o.Set.Counter("rea_batches_sent_total", "Batches that the server acknowledged.", "lane", o.Lane)
	s.events = o.Set.Counter("rea_events_sent_total", "Events that the server acknowledged.", "lane", o.Lane)
	s.bytes = o.Set.Counter("rea_sent_bytes_total", "Bytes of acknowledged batches, as sent.", "lane", o.Lane)
	s.remade = o.Set.Counter("rea_records_recompressed_total", "Records that were compressed again to be sent, since the server does not have their dictionary.", "lane", o.Lane)
	s.renewals = o.Set.Counter("rea_stream_renewals_total", "New streams, begun because another agent uses the old one or this one is behind its own past.", "lane", o.Lane)
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

// Run delivers until ctx ends. What is not acknowledged by then stays in the
// queue. Before the first try it waits at random, so that machines which start
// together do not come together.
func (s *Sender) Run(ctx context.Context) error {
	sleep(ctx, jitter(s.o.Backoff.Min))
	for ctx.Err() == nil {
		more, wait := s.step(ctx)
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
// batch is over, in that order: a sender with nothing to do is not woken but for
// its heartbeat.
func (s *Sender) idle(ctx context.Context) {
	beat := time.NewTimer(heartbeat - time.Since(s.spoke))
	defer beat.Stop()
	select {
	case <-s.o.Queue.Ready():
	case <-beat.C:
		s.resumed = false
		return
	case <-ctx.Done():
		return
	}
	if last := s.State().LastSuccess; !last.IsZero() {
		if wait := s.o.Interval - time.Since(last); wait > 0 {
			sleep(ctx, wait)
		}
	}
}

// step asks where the stream stands, or sends the next batch. It reports whether
// there may be more to do, and how long to wait first.
func (s *Sender) step(ctx context.Context) (more bool, wait time.Duration) {
	if !s.resumed {
		if f := s.resume(ctx); f != nil {
			return true, s.failed(ctx, batch{}, f)
		}
	}
	b, err := s.next()
	if err != nil {
		return true, s.failed(ctx, b, &failure{reason: "queue", err: fmt.Errorf("read queue: %w", err)})
	}
	if s.behind && (b.count == 0 || b.First >= s.began) {
		if s.renewed { // nobody can have given numbers of this stream
			s.behind, s.resumed = false, false
			return true, s.failed(ctx, b, &failure{reason: "answer", slow: true, err: errors.New("the server claims to keep numbers of a stream that has just begun")})
		}
		return true, s.renew(ctx, b, "the server keeps numbers that this process has just given: this machine is behind its own past, as after the restoring of a snapshot")
	}
	if b.count == 0 {
		return false, 0
	}
	f := s.post(ctx, b)
	if f == nil {
		f = s.accepted(b)
	}
	if f == nil {
		return true, 0
	}
	return true, s.refused(ctx, b, f)
}

// accepted forgets what the server keeps.
func (s *Sender) accepted(b batch) *failure {
	if err := s.o.Queue.Ack(b.Last); err != nil {
		return &failure{reason: "queue", err: fmt.Errorf("acknowledge in queue: %w", err)}
	}
	s.acked, s.confirmed, s.renewed, s.alone = b.Last, b.Last, false, 0
	if s.bad.first = b.Last + 1; s.bad.first > s.bad.last {
		s.bad = span{}
	}
	s.narrow.widen()
	s.delivered(b)
	return nil
}

// refused decides what follows from a try that did not deliver, and returns how
// long to wait before the next one.
func (s *Sender) refused(ctx context.Context, b batch, f *failure) time.Duration {
	if ctx.Err() != nil {
		return 0 // that is why
	}
	switch f.reason {
	case "conflict":
		s.resumed = false
		return s.close(ctx, b, f)
	case "rejected":
		if !b.whole && slices.ContainsFunc(b.records, func(r queue.Record) bool { return !s.readable(r) }) {
			f.quick = true // another server answered, or an older one, and it is not the fault of a line
			return s.failed(ctx, b, f)
		}
		return s.close(ctx, b, f)
	case "too_large":
		if s.narrow.half(b.count); b.count == 1 {
			return s.close(ctx, b, f)
		}
	case "timeout":
		s.narrow.half(b.count)
	}
	return s.failed(ctx, b, f)
}

// failed counts and says a failure and returns how long to wait.
func (s *Sender) failed(ctx context.Context, b batch, f *failure) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	s.errors(f.reason).Inc()
	if f.reason == "answer" {
		s.o.Client.CloseIdleConnections() // the answers of this one may be out of step
	}
	text := f.err.Error()
	said := s.trouble.Failed(text)
	_, failures := s.trouble.Now()
	s.mu.Lock()
	s.state.State, s.state.LastError, s.state.Failures = Failing, text, failures
	s.mu.Unlock()
	wait := max(s.o.Backoff.delay(failures, f), s.budget.take(time.Now(), s.o.Backoff.Max))
	if said {
		s.o.Log.Warn("batch is not delivered; it is kept and tried again", "lane", s.o.Lane, "endpoint", s.o.Endpoint, "reason", f.reason, "error", text,
			"failures", failures, "batch", b.ID, "stream", b.Stream, "first", b.First, "last", b.Last, "retry_in", wait.Round(time.Millisecond).String())
	}
	return wait
}

// reached says that the server answers again, if all is delivered: else the next
// batch will say it.
func (s *Sender) reached() {
	if s.o.Queue.Stats().Records > 0 {
		return
	}
	s.mu.Lock()
	s.state.State, s.state.Failures = OK, 0
	s.mu.Unlock()
	if failures, lasted := s.trouble.Worked(); failures > 0 {
		s.o.Log.Info("the server answers again; nothing is waiting", "lane", s.o.Lane, "endpoint", s.o.Endpoint, "failures", failures, "after", lasted.Round(time.Millisecond).String())
	}
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
	s.spoke = time.Now()
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
