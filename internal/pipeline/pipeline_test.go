package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/ledger"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/redact"
)

// A text is a body with one member.
type text string

func (s text) Encode(e *event.Encoder) { e.Sensitive("text", event.Text, string(s)) }

// A shelf is a Keeper in memory. While fail is set it keeps nothing.
type shelf struct {
	stream string
	mu     sync.Mutex
	next   uint64
	lines  []byte
	fail   error
	late   bool // fail in wait, not in Keep
	most   int  // 0 is 1 MiB
	keeps  int  // calls of Keep
}

func newShelf(stream string, next uint64) *shelf {
	return &shelf{stream: strings.Repeat(stream, 32), next: next}
}

func (s *shelf) Stream() string { return s.stream }
func (s *shelf) Next() uint64   { return s.next }
func (s *shelf) Most() int {
	if s.most == 0 {
		return 1 << 20
	}
	return s.most
}
func (s *shelf) Keep(lines []byte, first uint64, n int) (func(context.Context) error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeps++
	fail := s.fail
	if fail != nil && s.late {
		return func(context.Context) error { return fail }, nil
	}
	if fail == nil {
		s.lines = append(s.lines, lines...)
	}
	return nil, fail
}

func (s *shelf) setFail(err error) {
	s.mu.Lock()
	s.fail = err
	s.mu.Unlock()
}

// said returns what is on the shelf as "seq kind text-or-cause…".
func (s *shelf) said(t *testing.T) []string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for line := range bytes.Lines(s.lines) {
		var ev struct {
			Seq       uint64
			Stream    string
			Kind      string
			Truncated bool
			CPU       struct{ Text string }
			Agent     struct{ Text string }
			Gap       struct {
				Source, Cause, Stream string
				First, Last, Count    uint64
			}
		}
		if err := json.Unmarshal(line, &ev); err != nil {
			t.Fatalf("line is not JSON: %v\n%s", err, line)
		}
		if ev.Stream != s.stream {
			t.Errorf("stream is %s, want the keeper's", ev.Stream)
		}
		words := []string{number(ev.Seq), ev.Kind}
		if ev.Kind == "gap" {
			words = append(words, ev.Gap.Cause, number(ev.Gap.Count))
			if ev.Gap.First > 0 {
				words = append(words, "of", ev.Gap.Stream[:1]+number(ev.Gap.First)+"-"+number(ev.Gap.Last))
			}
		} else if ev.Truncated {
			words = append(words, "truncated")
		} else {
			words = append(words, ev.CPU.Text+ev.Agent.Text)
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

type bench struct {
	*Pipeline
	set metric.Set
	log bytes.Buffer
}

func newBench(metrics, evidence Keeper, tees ...Tee) *bench {
	b := &bench{}
	b.Pipeline = New(Options{
		Node: "n", Host: "h", MaxEventBytes: 1024, Redact: Redactor(redact.New(redact.Options{PII: true})), Metrics: metrics, Evidence: evidence, Tees: tees,
		Set: &b.set, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
	})
	return b
}

func (b *bench) emit(t *testing.T, kind event.Kind, texts ...string) {
	t.Helper()
	var events []event.Event
	for _, s := range texts {
		events = append(events, event.Event{Time: time.Now(), Kind: kind, Body: text(s)})
	}
	if err := b.Emit(t.Context(), events...); err != nil {
		t.Errorf("Emit: %v", err)
	}
}

func wantSaid(t *testing.T, s *shelf, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, s.said(t)); d != "" {
		t.Errorf("kept (-want +got):\n%s", d)
	}
}

func TestEachLaneHasItsOwnNumbers(t *testing.T) {
	m, e := newShelf("a", 1), newShelf("b", 100)
	b := newBench(m, e)
	b.emit(t, event.CPU, "one", "two")
	b.emit(t, event.Agent, "start")
	b.emit(t, event.CPU, "three")
	wantSaid(t, m, "1 cpu one", "2 cpu two", "3 cpu three")
	wantSaid(t, e, "100 agent start")
}

func TestOneKeeperForBothLanesNumbersThemTogether(t *testing.T) {
	k := newShelf("a", 7)
	b := newBench(k, k)
	err := b.Emit(t.Context(),
		event.Event{Kind: event.CPU, Body: text("one")}, event.Event{Kind: event.Agent, Body: text("start")}, event.Event{Kind: event.CPU, Body: text("two")})
	if err != nil {
		t.Fatal(err)
	}
	wantSaid(t, k, "7 cpu one", "8 agent start", "9 cpu two")
}

type causeError string

func (c causeError) Error() string { return "keeper: " + string(c) }
func (c causeError) Cause() string { return string(c) }

func TestWhatCannotBeKeptIsDeclaredOnceItCan(t *testing.T) {
	for name, late := range map[string]bool{"refused at once": false, "refused when waited for": true} {
		t.Run(name, func(t *testing.T) {
			m, e := newShelf("a", 1), newShelf("b", 1)
			m.late = late
			b := newBench(m, e)
			b.emit(t, event.CPU, "one")
			m.setFail(causeError("disk_full"))
			b.emit(t, event.CPU, "lost", "lost too")
			b.emit(t, event.CPU, "and this")
			m.setFail(nil)
			b.emit(t, event.CPU, "five")
			b.emit(t, event.CPU, "six")
			wantSaid(t, m, "1 cpu one", "5 cpu five", "6 cpu six")
			wantSaid(t, e, "1 gap disk_full 3 of a2-4")
			var out bytes.Buffer
			if _, err := b.set.WriteTo(&out); err != nil || !strings.Contains(out.String(), `rea_events_dropped_total{reason="disk_full",stage="keep"} 3`) {
				t.Errorf("the loss is not in the metrics:\n%s", out.String())
			}
			if n := strings.Count(b.log.String(), "level=ERROR"); n != 1 {
				t.Errorf("one loss that goes on was logged %d times:\n%s", n, b.log.String())
			}
		})
	}
}

func TestAGapThatCannotBeKeptStaysNoted(t *testing.T) {
	m, e := newShelf("a", 1), newShelf("b", 1)
	b := newBench(m, e)
	m.setFail(errors.New("EIO"))
	b.emit(t, event.CPU, "lost")
	m.setFail(nil)
	e.setFail(errors.New("EIO"))
	b.emit(t, event.CPU, "kept")
	e.setFail(nil)
	b.emit(t, event.CPU, "kept too")
	wantSaid(t, m, "2 cpu kept", "3 cpu kept too")
	wantSaid(t, e, "2 gap write_failed 1 of b1-1", "3 gap write_failed 1 of a1-1")
}

func TestALineThatIsTooLargeIsCutOrBecomesAGap(t *testing.T) {
	k := newShelf("a", 1)
	b := newBench(k, k)
	b.emit(t, event.CPU, strings.Repeat("long ", 1000))
	err := b.Emit(t.Context(), event.Event{Time: time.Now(), Kind: event.CPU, Body: numbers(1000)}, event.Event{Kind: event.CPU, Body: text("next")})
	if err != nil {
		t.Fatal(err)
	}
	wantSaid(t, k, "1 cpu truncated", "2 cpu next", "3 gap too_large 1")
}

// numbers is a body that has nothing to cut.
type numbers int

func (n numbers) Encode(e *event.Encoder) {
	for range n {
		e.Int("n", 1)
	}
}

// broken is a body of a collector that has a bug.
type broken struct{}

func (broken) Encode(e *event.Encoder) {
	e.Int("n", 1)
	panic("nil map")
}

func TestABodyThatPanicsCostsItsEventAndNotTheLane(t *testing.T) {
	k := newShelf("a", 1)
	b := newBench(k, k)
	now := time.Now()
	err := b.Emit(t.Context(), event.Event{Time: now, Kind: event.CPU, Body: text("one")},
		event.Event{Time: now, Kind: event.CPU, Body: broken{}}, event.Event{Time: now, Kind: event.CPU, Body: text("two")})
	if err != nil {
		t.Fatal(err)
	}
	b.emit(t, event.CPU, "three") // hung here for ever, as did all others
	wantSaid(t, k, "1 cpu one", "2 cpu two", "3 gap encode_failed 1", "4 cpu three")
	if !strings.Contains(b.log.String(), "nil map") || !strings.Contains(b.log.String(), "broken.Encode") {
		t.Errorf("the log does not tell of the bug:\n%s", b.log.String())
	}
}

func TestAKeeperIsGivenNoMoreAtOnceThanItWants(t *testing.T) {
	k := newShelf("a", 1)
	k.most = 500
	b := newBench(k, k)
	long := strings.Repeat("x", 600)
	b.emit(t, event.CPU, "one", "two", "three", long, "five", "six", "seven")
	wantSaid(t, k, "1 cpu one", "2 cpu two", "3 cpu three", "4 cpu "+long, "5 cpu five", "6 cpu six", "7 cpu seven")
	if k.keeps != 3 {
		t.Errorf("handed over in %d parts", k.keeps)
	}
	b.emit(t, event.CPU, long, long)
	wantSaid(t, k, "1 cpu one", "2 cpu two", "3 cpu three", "4 cpu "+long, "5 cpu five", "6 cpu six", "7 cpu seven", "8 cpu "+long, "9 cpu "+long)
}

func TestWhatIsRefusedInPartsIsDeclaredAsOneGap(t *testing.T) {
	m, e := newShelf("a", 1), newShelf("b", 1)
	m.most = 500
	b := newBench(m, e)
	m.setFail(causeError("disk_full"))
	b.emit(t, event.CPU, "1", "2", "3", "4", "5", "6", "7")
	if n := b.Undeclared(); n != 7 {
		t.Errorf("%d events are undeclared, want 7", n)
	}
	m.setFail(nil)
	b.emit(t, event.CPU, "kept")
	wantSaid(t, e, "1 gap disk_full 7 of a1-7")
	if n := b.Undeclared(); n != 0 {
		t.Errorf("%d events are undeclared, want none", n)
	}
}

func TestNothingIsTakenOnceTheContextEnded(t *testing.T) {
	k := newShelf("a", 1)
	b := newBench(k, k)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Emit(ctx, event.Event{Kind: event.CPU, Body: text("late")}); !errors.Is(err, context.Canceled) {
		t.Errorf("Emit returned %v", err)
	}
	if k.keeps != 0 || b.Undeclared() != 0 {
		t.Errorf("%d calls of Keep, %d undeclared", k.keeps, b.Undeclared())
	}
}

// busySink is a sink whose writes hang until they are let go.
type busySink struct {
	writing  chan struct{}
	let      chan struct{}
	finished atomic.Int32
}

func (s *busySink) Close() error { return nil }
func (s *busySink) Write([]byte, int) error {
	s.writing <- struct{}{}
	<-s.let
	s.finished.Add(1)
	return nil
}

func TestNobodyWritesOnceThePipelineIsClosed(t *testing.T) {
	s := &busySink{writing: make(chan struct{}), let: make(chan struct{})}
	k := SinkKeeper(s)
	b := newBench(k, k)
	hung := make(chan error)
	go func() { hung <- b.Emit(context.Background(), event.Event{Kind: event.CPU, Body: text("late")}) }()
	<-s.writing
	time.AfterFunc(20*time.Millisecond, func() { close(s.let) })
	b.Close()
	if s.finished.Load() != 1 {
		t.Error("closed in the middle of a write")
	}
	if err := <-hung; err != nil {
		t.Error(err)
	}
	if err := b.Emit(t.Context(), event.Event{Kind: event.CPU, Body: text("later")}); !errors.Is(err, errClosed) || s.finished.Load() != 1 {
		t.Errorf("Emit returned %v", err)
	}
}

func TestATeeThatFailsCostsOnlyItsCopies(t *testing.T) {
	k, tee := newShelf("a", 1), &brokenSink{}
	b := newBench(k, k, Tee{"stdout", tee})
	b.emit(t, event.CPU, "one", "two")
	tee.err = errors.New("no reader")
	b.emit(t, event.CPU, "three")
	b.emit(t, event.CPU, "four")
	tee.err = nil
	b.emit(t, event.CPU, "five")
	wantSaid(t, k, "1 cpu one", "2 cpu two", "3 cpu three", "4 cpu four", "5 cpu five")
	if tee.n != 3 {
		t.Errorf("tee has %d lines, want 3", tee.n)
	}
	var out bytes.Buffer
	if _, err := b.set.WriteTo(&out); err != nil || !strings.Contains(out.String(), `rea_sink_dropped_events_total{sink="stdout"} 2`) {
		t.Errorf("the copies lost are not in the metrics:\n%s", out.String())
	}
	if n := strings.Count(b.log.String(), "level=ERROR"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, b.log.String())
	}
}

type brokenSink struct {
	err error
	n   int
}

func (s *brokenSink) Close() error { return nil }
func (s *brokenSink) Write(_ []byte, n int) error {
	if s.err == nil {
		s.n += n
	}
	return s.err
}

// A source that was given up left while the disk hung. What then becomes of its
// lines is not forgotten.
func TestWhatIsRefusedWhenNobodyWaitsIsDeclared(t *testing.T) {
	for _, c := range []struct {
		err  error
		want []string
	}{
		{nil, []string{"2 cpu two"}},
		{causeError("io_error"), []string{"2 cpu two", "3 gap io_error 1 of a1-1"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			shelf := newShelf("a", 1)
			hung := &hung{shelf: shelf, done: make(chan struct{}), err: c.err}
			b := newBench(hung, hung)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := b.Emit(ctx, event.Event{Kind: event.CPU, Body: text("one")}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Emit returned %v", err)
			}
			close(hung.done)
			synctest.Wait()
			b.emit(t, event.CPU, "two")
			wantSaid(t, shelf, c.want...)
			b.Close()
		})
	}
}

// What becomes of lines that the keeper still has is in the account when Close
// returns, whoever waits for them.
func TestCloseWaitsForWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := &hung{shelf: newShelf("a", 1), done: make(chan struct{}), err: causeError("io_error")}
		b := newBench(hung, hung)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { _ = b.Emit(ctx, event.Event{Kind: event.CPU, Body: text("one")}) }()
		synctest.Wait()
		time.AfterFunc(time.Minute, func() { close(hung.done) })
		b.Close()
		if n := b.Undeclared(); n != 1 {
			t.Errorf("when it is closed %d events are known to be lost", n)
		}
		synctest.Wait()
	})
}

// hung takes the first lines and says when it is done what became of them.
type hung struct {
	*shelf
	done chan struct{}
	err  error
}

func (h *hung) Keep(lines []byte, first uint64, n int) (func(context.Context) error, error) {
	if first > 1 {
		return h.shelf.Keep(lines, first, n)
	}
	return func(ctx context.Context) error {
		select {
		case <-h.done:
			return h.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}, nil
}

func TestManySourcesEmitAtOnceWithoutHoles(t *testing.T) {
	m, e := newShelf("a", 1), newShelf("b", 1)
	b := newBench(m, e)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				b.emit(t, event.CPU, "x", "y")
				b.emit(t, event.Agent, "z")
			}
		})
	}
	wg.Wait()
	for s, n := range map[*shelf]int{m: 3200, e: 1600} {
		said := s.said(t)
		if len(said) != n {
			t.Errorf("kept %d lines, want %d", len(said), n)
		}
		for i, line := range said {
			if !strings.HasPrefix(line, number(uint64(i+1))+" ") {
				t.Fatalf("line %d is %q", i+1, line)
			}
		}
	}
}

func BenchmarkEmit(b *testing.B) {
	p := New(Options{Node: "n", Host: "h", MaxEventBytes: 1 << 16, Redact: Redactor(redact.New(redact.Options{PII: true})),
		Metrics: discard{}, Evidence: discard{}, Log: slog.New(slog.DiscardHandler)})
	events := []event.Event{{Time: time.Now(), Kind: event.CPU, Body: text(strings.Repeat("abcdefgh ", 20))}}
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Emit(b.Context(), events...)
	}
}

func BenchmarkEmitManyAtOnce(b *testing.B) {
	p := New(Options{Node: "n", Host: "h", MaxEventBytes: 1 << 16, Redact: Redactor(redact.New(redact.Options{PII: true, Commands: true})),
		Metrics: discard{}, Evidence: discard{}, Set: new(metric.Set), Log: slog.New(slog.DiscardHandler)})
	events := slices.Repeat([]event.Event{{Time: time.Now(), Kind: event.CPU, Body: text("abcdefgh")}}, 256)
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Emit(b.Context(), events...)
	}
}

type discard struct{}

func (discard) Stream() string { return strings.Repeat("0", 32) }
func (discard) Next() uint64   { return 1 }
func (discard) Most() int      { return 1 << 20 }
func (discard) Keep([]byte, uint64, int) (func(context.Context) error, error) {
	return nil, nil
}

// forgetful is a ledger whose file cannot be written.
func forgetful(t *testing.T) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(filepath.Join(t.TempDir(), "gone", "missing"), strings.Repeat("e", 32), 1)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var full = event.Missing{Cause: "queue_full", Stream: strings.Repeat("a", 32), First: 3, Last: 9, Count: 7}

func TestALossThatIsRememberedElsewhereIsSafeBeforeItIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		evidence := newShelf("e", 1)
		b := newBench(newShelf("a", 1), evidence)
		b.ledger = forgetful(t)
		evidence.setFail(causeError("disk_full"))
		declared := make(chan error, 1)
		go func() { declared <- b.LostFor(t.Context(), Queue, full, errors.New("full")) }()
		time.Sleep(10 * declarePause)
		select {
		case err := <-declared:
			t.Fatalf("forgotten while nothing can be kept: %v", err)
		default:
		}
		evidence.setFail(nil)
		if err := <-declared; err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(evidence.said(t), func(said string) bool { return strings.HasSuffix(said, "gap queue_full 7 of a3-9") }) {
			t.Errorf("said %q", evidence.said(t))
		}
		if n := b.dropped(Queue, "queue_full").Value(); n != 7 {
			t.Errorf("%d events are counted, want 7", n)
		}
	})
}

// The disk refuses the ledger, so the loss is in a gap event alone; then the queue
// gives that up, too.
func TestALossIsToldAgainThoughTheLedgerCannotBeWritten(t *testing.T) {
	evidence := newShelf("e", 1)
	b := newBench(newShelf("a", 1), evidence)
	b.ledger = forgetful(t)
	if err := b.LostFor(t.Context(), Queue, full, errors.New("full")); err != nil {
		t.Fatal(err)
	}
	wantSaid(t, evidence, "1 gap queue_full 7 of a3-9")
	b.ledger.Lost(1, 1)
	b.emit(t, event.CPU, "kept")
	wantSaid(t, evidence, "1 gap queue_full 7 of a3-9", "2 gap queue_full 7 of a3-9")
}

// The disk refuses the ledger until a moment before the end.
func TestWhatCouldNotBeWrittenDownIsWrittenAtTheEnd(t *testing.T) {
	evidence, path := newShelf("e", 1), filepath.Join(t.TempDir(), "folder", "missing")
	b := newBench(newShelf("a", 1), evidence)
	var err error
	if b.ledger, err = ledger.Open(path, evidence.Stream(), 1); err != nil {
		t.Fatal(err)
	}
	if err := b.LostFor(t.Context(), Queue, full, errDisk); err != nil {
		t.Fatal(err)
	}
	wantSaid(t, evidence, "1 gap queue_full 7 of a3-9")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	b.Close()
	next, err := ledger.Open(path, evidence.Stream(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if first, last := next.Ends(full.Stream); next.Empty() || first != full.First || last != full.Last {
		t.Errorf("the next process knows of %d to %d, empty: %t", first, last, next.Empty())
	}
}

// An interrupter is a log that does something with the first line.
type interrupter struct {
	slog.Handler
	do func()
}

func (i *interrupter) Enabled(context.Context, slog.Level) bool { return true }

func (i *interrupter) Handle(context.Context, slog.Record) error {
	if do := i.do; do != nil {
		i.do = nil
		do()
	}
	return nil
}

// A loss may be noted while the ledger is written, too late to be in it.
func TestNoGapEventIsKeptBeforeTheLedgerIsWritten(t *testing.T) {
	evidence, path := newShelf("e", 1), filepath.Join(t.TempDir(), "folder", "missing")
	b := newBench(newShelf("a", 1), evidence)
	var err error
	if b.ledger, err = ledger.Open(path, evidence.Stream(), 1); err != nil {
		t.Fatal(err)
	}
	damaged := full
	damaged.Cause = "damaged"
	b.ledger.Note(full)
	b.Pipeline.log = slog.New(&interrupter{slog.DiscardHandler, func() {
		b.ledger.Note(damaged)
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Error(err)
		}
	}})
	var written []byte
	keep := &watched{evidence, func() { written, _ = os.ReadFile(path) }}
	b.evidence.keeper = keep
	b.Declare(t.Context())
	wantSaid(t, evidence, "1 gap queue_full 7 of a3-9") // the file could not be written
	b.Declare(t.Context())
	wantSaid(t, evidence, "1 gap queue_full 7 of a3-9", "2 gap damaged 7 of a3-9")
	if !bytes.Contains(written, []byte("damaged")) {
		t.Errorf("the ledger says %q when the gap event is kept", written)
	}
}

// A watched keeper has somebody look before it keeps.
type watched struct {
	*shelf
	look func()
}

func (w *watched) Keep(lines []byte, first uint64, n int) (func(context.Context) error, error) {
	w.look()
	return w.shelf.Keep(lines, first, n)
}

func TestALossThatTheLedgerHasNeedsNoGapEventToBeSafe(t *testing.T) {
	evidence := newShelf("e", 1)
	b := newBench(newShelf("a", 1), evidence)
	var err error
	if b.ledger, err = ledger.Open(filepath.Join(t.TempDir(), "missing"), evidence.Stream(), 1); err != nil {
		t.Fatal(err)
	}
	evidence.setFail(causeError("disk_full"))
	if err := b.LostFor(t.Context(), Queue, full, errors.New("full")); err != nil {
		t.Fatal(err)
	}
	evidence.setFail(nil)
	b.emit(t, event.CPU, "kept")
	if !slices.ContainsFunc(evidence.said(t), func(said string) bool { return strings.HasSuffix(said, "gap queue_full 7 of a3-9") }) {
		t.Errorf("said %q", evidence.said(t))
	}
	if n := b.Undeclared(); n != 0 {
		t.Errorf("%d events are undeclared", n)
	}
}

func TestDeclaringEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		evidence := newShelf("e", 1)
		evidence.setFail(causeError("disk_full"))
		b := newBench(newShelf("a", 1), evidence)
		b.ledger = forgetful(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := b.LostFor(ctx, Queue, full, errDisk); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("LostFor: %v", err)
		}
		if n := b.dropped(Queue, "queue_full").Value(); n != 0 {
			t.Errorf("%d events are counted that will be told of again", n)
		}
	})
}

var errDisk = errors.New("input/output error")

func TestARenewedLaneGoesOnInItsNewStream(t *testing.T) {
	metrics, evidence := newShelf("a", 7), newShelf("e", 1)
	b := newBench(metrics, evidence)
	b.emit(t, event.CPU, "before")
	err := b.Renew(metrics, func() error {
		metrics.lines, metrics.stream, metrics.next = nil, strings.Repeat("b", 32), 3
		b.ledger.Note(event.Missing{Cause: "renumbered", Stream: strings.Repeat("a", 32), First: 7, Last: 8, Count: 2})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.emit(t, event.CPU, "after")
	wantSaid(t, metrics, "3 cpu after")
	wantSaid(t, evidence, "1 gap renumbered 2 of a7-8")

	if err := b.Renew(evidence, func() error { return errDisk }); !errors.Is(err, errDisk) {
		t.Errorf("Renew: %v", err)
	}
	b.emit(t, event.Agent, "still there")
	wantSaid(t, evidence, "1 gap renumbered 2 of a7-8", "2 agent still there")
}

// A slow shelf fails when it is told to.
type slow struct {
	*shelf
	told chan error
}

func (s *slow) Keep([]byte, uint64, int) (func(context.Context) error, error) {
	return func(context.Context) error { return <-s.told }, nil
}

// Who waits for a keeper holds no lock, and the lane may get a new stream meanwhile.
func TestALossIsOfTheStreamThatGaveItsNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics, evidence := &slow{newShelf("a", 7), make(chan error)}, newShelf("e", 1)
		b := newBench(metrics, evidence)
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.emit(t, event.CPU, "lost")
		}()
		synctest.Wait()
		if err := b.Renew(metrics, func() error { metrics.stream, metrics.next = strings.Repeat("b", 32), 1; return nil }); err != nil {
			t.Fatal(err)
		}
		metrics.told <- errDisk
		<-done
		b.Declare(t.Context())
		wantSaid(t, evidence, "1 gap write_failed 1 of a7-7")
	})
}
