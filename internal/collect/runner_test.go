package collect

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/metric"
)

// A script is a Reader that does one step at each reading, and the last one for ever.
type script struct {
	mu    sync.Mutex
	steps []func(ctx context.Context, emit Emit) error
	reads int
}

func (s *script) Read(ctx context.Context, emit Emit) error {
	s.mu.Lock()
	step := s.steps[min(s.reads, len(s.steps)-1)]
	s.reads++
	s.mu.Unlock()
	return step(ctx, emit)
}

func (s *script) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

func good(ctx context.Context, emit Emit) error {
	return emit(ctx, event.Event{Time: time.Now(), Kind: event.CPU})
}
func quiet(context.Context, Emit) error  { return nil }
func fails(context.Context, Emit) error  { return errors.New("open /proc/stat: permission denied") }
func panics(context.Context, Emit) error { panic("index out of range") }
func hangs(d time.Duration) func(context.Context, Emit) error {
	return func(context.Context, Emit) error { time.Sleep(d); return nil }
}

// A bench runs sources and notes what they emit and log.
type bench struct {
	*Runner
	metrics metric.Set
	mu      sync.Mutex
	told    []string
	log     bytes.Buffer
}

func newBench() *bench {
	b := &bench{}
	b.Runner = NewRunner(b.emit, slog.New(slog.NewTextHandler(&b.log, nil)), &b.metrics)
	return b
}

func (b *bench) emit(_ context.Context, events ...event.Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ev := range events {
		if n, ok := ev.Body.(*event.Notice); ok {
			b.told = append(b.told, strings.TrimSpace(n.Action+" "+n.Source+" "+n.Reason))
		} else {
			b.told = append(b.told, string(ev.Kind))
		}
	}
	return nil
}

// runFor runs the sources for d of virtual time.
func (b *bench) runFor(t *testing.T, d time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := b.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run returned %v", err)
	}
}

func TestTroubleOfOneSource(t *testing.T) {
	for name, c := range map[string]struct {
		steps []func(context.Context, Emit) error
		told  []string
		count string
	}{
		"an error is told once and its end too": {
			[]func(context.Context, Emit) error{good, fails, fails, good},
			[]string{"cpu", "source_down s open /proc/stat: permission denied", "cpu", "source_up s", "cpu"},
			`rea_source_errors_total{reason="error",source="s"} 2`,
		},
		"a panic is recovered": {
			[]func(context.Context, Emit) error{panics, good},
			[]string{"source_down s panic: index out of range", "cpu", "source_up s", "cpu", "cpu", "cpu"},
			`rea_source_errors_total{reason="panic",source="s"} 1`,
		},
		"a hanging reading is timed out and not started twice": {
			[]func(context.Context, Emit) error{hangs(25 * time.Second), good},
			[]string{"source_down s no reading within 2s; waiting for it to return", "cpu", "source_up s", "cpu"},
			`rea_source_errors_total{reason="timeout",source="s"} 1`,
		},
		"what the system does not have is not tried again": {
			[]func(context.Context, Emit) error{func(context.Context, Emit) error { return errors.ErrUnsupported }},
			[]string{"source_down s not supported on " + runtime.GOOS},
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, other := newBench(), &script{steps: []func(context.Context, Emit) error{quiet}}
				b.Add("s", Poll(&script{steps: c.steps}, 10*time.Second, 2*time.Second))
				b.Add("other", Poll(other, 10*time.Second, 2*time.Second))
				b.runFor(t, 45*time.Second)
				got := b.told
				if d := cmp.Diff(c.told, got); d != "" {
					t.Errorf("told (-want +got):\n%s", d)
				}
				var m bytes.Buffer
				if _, err := b.metrics.WriteTo(&m); err != nil || !strings.Contains(m.String(), c.count) {
					t.Errorf("metrics lack %q:\n%s", c.count, m.String())
				}
				if other.count() != 5 {
					t.Errorf("the other source was read %d times, want 5", other.count())
				}
			})
		})
	}
}

func TestTheContextEndsOnlyForTheReadingThatTookTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		var causes []error
		waits := func(ctx context.Context, _ Emit) error {
			<-ctx.Done()
			causes = append(causes, context.Cause(ctx))
			return ctx.Err()
		}
		alive := func(ctx context.Context, emit Emit) error {
			causes = append(causes, ctx.Err())
			return good(ctx, emit)
		}
		b.Add("s", Poll(&script{steps: []func(context.Context, Emit) error{alive, waits, alive, alive}}, 10*time.Second, 2*time.Second))
		b.runFor(t, 35*time.Second)
		if d := cmp.Diff([]error{nil, errTimeout, nil, nil}, causes, cmpopts.EquateErrors()); d != "" {
			t.Errorf("contexts (-want +got):\n%s", d)
		}
		if s := b.States()[0]; s.State != OK {
			t.Errorf("state is %+v", s)
		}
	})
}

func TestTheEndDoesNotWaitForAReadingThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.Add("s", Poll(&script{steps: []func(context.Context, Emit) error{hangs(time.Hour)}}, 10*time.Second, 2*time.Hour))
		began := time.Now()
		b.runFor(t, 5*time.Second)
		if d := time.Since(began); d != 5*time.Second+abandonAfter {
			t.Errorf("ended after %v", d)
		}
		time.Sleep(2 * time.Hour) // the goroutine of the reading ends with its call
	})
}

func TestAReadingMakesNothingAnew(t *testing.T) {
	b := newBench()
	b.Add("s", Poll(&script{steps: []func(context.Context, Emit) error{quiet}}, time.Hour, time.Hour))
	w := b.watches[0]
	r := w.source.(*poll).reading(t.Context(), w)
	defer r.end()
	if n := testing.AllocsPerRun(100, func() {
		if err := r.take(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestEmitTimeIsNotTheReadersFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		r := NewRunner(func(ctx context.Context, events ...event.Event) error {
			told = append(told, string(events[0].Kind))
			sleep(ctx, 30*time.Second) // a keeper whose disk is slow
			return nil
		}, slog.New(slog.DiscardHandler), nil)
		r.Add("s", Poll(&script{steps: []func(context.Context, Emit) error{good}}, 10*time.Second, 2*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 95*time.Second)
		defer cancel()
		_ = r.Run(ctx)
		if d := cmp.Diff([]string{"cpu", "cpu", "cpu"}, told); d != "" {
			t.Errorf("emitted (-want +got):\n%s", d)
		}
		if s := r.States()[0]; s.State != OK {
			t.Errorf("state is %+v", s)
		}
	})
}

func TestFailureThatGoesOnIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.Add("s", Poll(&script{steps: []func(context.Context, Emit) error{fails}}, time.Second, time.Second))
		b.runFor(t, 25*time.Minute-time.Millisecond)
		if n := strings.Count(b.log.String(), "permission denied"); n != 3 {
			t.Errorf("logged %d times in 25 minutes, want at 0, 10 and 20:\n%s", n, b.log.String())
		}
		if s := b.States()[0]; s.State != Failing || s.Failures != 25*60 {
			t.Errorf("state is %+v", s)
		}
	})
}

func TestOnceReadsEverySourceOnce(t *testing.T) {
	b := newBench()
	s := &script{steps: []func(context.Context, Emit) error{good}}
	b.Add("good", Poll(s, time.Hour, time.Second))
	b.Add("bad", Poll(&script{steps: []func(context.Context, Emit) error{fails}}, time.Hour, time.Second))
	err := b.Once(t.Context())
	if err == nil || err.Error() != "bad: open /proc/stat: permission denied" {
		t.Errorf("Once returned %v", err)
	}
	if s.count() != 1 || !cmp.Equal(b.told, []string{"cpu"}) {
		t.Errorf("read %d times, told %v", s.count(), b.told)
	}
}

func BenchmarkReading(b *testing.B) {
	bench := newBench()
	bench.Add("s", Poll(&script{steps: []func(context.Context, Emit) error{good}}, time.Hour, time.Hour))
	w := bench.watches[0]
	w.r.emit = func(context.Context, ...event.Event) error { return nil }
	r := w.source.(*poll).reading(b.Context(), w)
	defer r.end()
	b.ReportAllocs()
	for b.Loop() {
		if err := r.take(); err != nil {
			b.Fatal(err)
		}
	}
}

// parts is a source of two parts, each of which fares as a step says.
type parts struct {
	steps []func(context.Context, *Watch)
}

func (p parts) Run(ctx context.Context, w *Watch) error {
	for _, step := range p.steps {
		step(ctx, w)
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestAPartTellsWhenItStopsWorkingAndWhenItWorksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		denied := errors.New("access denied")
		part := func(name, state string, err error) func(context.Context, *Watch) {
			return func(ctx context.Context, w *Watch) { w.Part(ctx, name, state, err) }
		}
		b.Add("log", parts{[]func(context.Context, *Watch){
			part("b", OK, nil), part("a", "denied", denied), part("a", "denied", denied), part("b", "lagging", nil),
			part("b", OK, nil), part("a", OK, nil),
			func(_ context.Context, w *Watch) {
				w.Behind("b", Backlog{Missing: 3})
				w.Behind("c", Backlog{Records: 7})
			},
			part("b", Failing, denied),
		}})
		b.runFor(t, time.Second)
		if d := cmp.Diff([]string{"source_down log/a access denied", "source_up log/a", "source_down log/b access denied"}, b.told); d != "" {
			t.Errorf("told (-want +got):\n%s", d)
		}
		want := []Part{
			{Name: "a", State: OK}, {Name: "b", State: Failing, Error: "access denied", Backlog: Backlog{Missing: 3}},
			{Name: "c", State: Starting, Backlog: Backlog{Records: 7}},
		}
		if d := cmp.Diff(want, b.States()[0].Parts, cmpopts.IgnoreFields(Part{}, "Since")); d != "" {
			t.Errorf("parts (-want +got):\n%s", d)
		}
		if n := strings.Count(b.log.String(), "level=WARN"); n != 2 {
			t.Errorf("logged %d times:\n%s", n, b.log.String())
		}
	})
}

func TestASourceTakesThePlaceOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		poll := func(interval time.Duration, steps ...func(context.Context, Emit) error) func() Source {
			return func() Source { return Poll(&script{steps: steps}, interval, time.Second) }
		}
		b.Add("s", poll(10*time.Second, fails)())
		b.Replace("s", poll(20*time.Second, fails)) // before Run
		b.Add("stays", poll(time.Hour, quiet)())
		var run sync.WaitGroup
		run.Go(func() { b.runFor(t, 95*time.Second) })
		time.Sleep(time.Second)
		b.want(t, "source_down s open /proc/stat: permission denied")
		b.Replace("s", poll(30*time.Second, good)) // at 1 s; it reads then and at 30, 60, 90
		time.Sleep(30 * time.Second)
		b.want(t, "cpu", "source_up s", "cpu")
		b.Replace("s", nil)
		time.Sleep(30 * time.Second)
		b.want(t)
		if names := b.names(); names != "stays" {
			t.Errorf("there are %s", names)
		}
		b.Replace("s", nil)
		b.Replace("s", poll(20*time.Second, good)) // at 61 s
		run.Wait()
		b.want(t, "cpu", "cpu")
		if names := b.names(); names != "stays s" {
			t.Errorf("there are %s", names)
		}
		b.Replace("s", poll(time.Second, good)) // after Run
		time.Sleep(time.Minute)
		b.want(t)
	})
}

// A source that does not end in time would have two of a name run at once.
func TestTheOneBeforeHasEndedWhenItIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		var running, most atomic.Int32
		slow := func() Source {
			if running.Load() != 0 {
				t.Error("the next is made while the one before runs")
			}
			return sourceFunc(func(ctx context.Context, _ *Watch) error {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				<-ctx.Done()
				time.Sleep(3 * time.Second) // it hands over its last
				return ctx.Err()
			})
		}
		b.Add("s", slow())
		ctx, end := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = b.Run(ctx) })
		for range 3 {
			time.Sleep(time.Second)
			b.Replace("s", slow)
		}
		run.Go(func() { b.Replace("s", slow) })
		synctest.Wait()
		end() // while it is replaced
		run.Wait()
		if running.Load() != 0 || most.Load() != 1 {
			t.Errorf("%d run, %d at once", running.Load(), most.Load())
		}
	})
}

func TestAReplacedSourceForgetsThePartsOfTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		part := func(name string) func() Source {
			return func() Source {
				return sourceFunc(func(ctx context.Context, w *Watch) error {
					w.Part(ctx, name, Failing, errors.New("it is broken"))
					<-ctx.Done()
					return ctx.Err()
				})
			}
		}
		b.Add("s", part("a")())
		ctx, end := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = b.Run(ctx) })
		synctest.Wait()
		b.Replace("s", part("b"))
		synctest.Wait()
		if s := b.States()[0]; len(s.Parts) != 1 || s.Parts[0].Name != "b" {
			t.Errorf("parts %+v", s.Parts)
		}
		end()
		run.Wait()
	})
}

type sourceFunc func(context.Context, *Watch) error

func (f sourceFunc) Run(ctx context.Context, w *Watch) error { return f(ctx, w) }

// want compares what was told since the last time.
func (b *bench) want(t *testing.T, told ...string) {
	t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := cmp.Diff(told, b.told, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
	b.told = nil
}

func (b *bench) names() string {
	var names []string
	for _, s := range b.States() {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}
