package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/metric"
)

// How long a source that returned waits before it is run again, and how often
// one failure that goes on is logged.
const (
	restartAfter = 5 * time.Second
	remindAfter  = 10 * time.Minute
)

// The states of a source.
const (
	Starting    = "starting"
	OK          = "ok"
	Failing     = "failing"
	Unsupported = "unsupported" // on this system; not tried again
)

// A State is what is known of one source.
type State struct {
	Name        string
	State       string
	LastSuccess time.Time
	LastError   string
	Failures    uint64 // since the last success
	Parts       []Part // of those that tell of them, by name
}

// A Part is what is known of one part of a source, such as a channel of a log.
type Part struct {
	Name, State string
	Error       string // what keeps it from working; empty where it works
	Since       time.Time
	Backlog     Backlog
}

// A Backlog is how far behind a part of a source is, and what went missing of it.
type Backlog struct {
	Lag     time.Duration // how old the newest record is that was handed over, while there are newer ones
	Records uint64        // that are there and were not handed over, as last counted
	Missing uint64        // of which gap events told since the source was made
}

// A Runner runs sources, each in a goroutine of its own.
type Runner struct {
	emit    Emit
	log     *slog.Logger
	metrics *metric.Set
	began   time.Time // of Run
	running sync.WaitGroup

	replacing sync.Mutex // held while the sources become others; taken before mu

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before and after
	watches []*Watch        // in the order of Add
}

// NewRunner returns a Runner whose sources hand over their events to emit.
func NewRunner(emit Emit, log *slog.Logger, m *metric.Set) *Runner {
	return &Runner{emit: emit, log: log, metrics: m}
}

// Add adds a source. It must be called before Run.
func (r *Runner) Add(name string, s Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked(name, s)
}

func (r *Runner) addLocked(name string, s Source) {
	w := &Watch{
		r: r, source: s, state: State{Name: name, State: Starting}, stop: func() {},
		readings: r.metrics.Counter("rea_source_readings_total", "Readings that a source took.", "source", name),
	}
	r.watches = append(r.watches, w)
	r.launchLocked(w)
}

// launchLocked runs the source of w from now on, if Run does.
func (r *Runner) launchLocked(w *Watch) {
	if r.ctx == nil {
		return
	}
	ctx, end := context.WithCancel(r.ctx)
	ended := make(chan struct{})
	w.stop = func() {
		end()
		<-ended
	}
	r.running.Go(func() {
		defer close(ended)
		defer end()
		w.run(ctx)
	})
}

// Replace has another source in the place of the one of that name, or none if open
// is nil. The one before has ended when open is called. How it fared is known of the
// next as well, of its parts nothing is. It may be called before Run, while it runs,
// and after.
func (r *Runner) Replace(name string, open func() Source) {
	r.replacing.Lock()
	defer r.replacing.Unlock()
	w := r.find(name)
	if w != nil {
		w.stop()
	}
	var next Source
	if open != nil {
		next = open()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case next == nil:
		r.watches = slices.DeleteFunc(slices.Clone(r.watches), func(other *Watch) bool { return other == w })
	case w == nil:
		r.addLocked(name, next)
	default:
		w.renew(next)
		r.launchLocked(w)
	}
}

func (r *Runner) find(name string) *Watch {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(r.watches, func(w *Watch) bool { return w.state.Name == name }); i >= 0 {
		return r.watches[i]
	}
	return nil
}

// Run runs all sources until ctx ends and every source has returned.
func (r *Runner) Run(ctx context.Context) error {
	r.launch(ctx)
	<-ctx.Done()
	r.mu.Lock()
	r.ctx = nil // from here on nothing is launched
	r.mu.Unlock()
	r.running.Wait()
	return ctx.Err()
}

func (r *Runner) launch(ctx context.Context) {
	r.replacing.Lock()
	defer r.replacing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ctx, r.began = ctx, time.Now()
	for _, w := range r.watches {
		r.launchLocked(w)
	}
}

// Once takes one reading of every polled source, all at the same time, and
// returns the errors of those that failed.
func (r *Runner) Once(ctx context.Context) error {
	errs := make([]error, len(r.watches))
	var wg sync.WaitGroup
	for i, w := range r.watches {
		if p, ok := w.source.(*poll); ok {
			wg.Go(func() {
				if err := p.once(ctx, w); err != nil {
					errs[i] = fmt.Errorf("%s: %w", w.state.Name, err)
				}
			})
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// States returns the state of every source, in the order in which they were added.
func (r *Runner) States() []State {
	r.mu.Lock()
	watches := r.watches
	r.mu.Unlock()
	states := make([]State, len(watches))
	for i, w := range watches {
		w.mu.Lock()
		states[i] = w.state
		states[i].Parts = slices.Clone(w.state.Parts)
		w.mu.Unlock()
	}
	return states
}

// A Watch is what one running source tells of itself.
type Watch struct {
	r        *Runner
	source   Source
	readings *metric.Counter
	stop     func() // ends the source if it runs, and returns when it has ended

	mu      sync.Mutex
	state   State
	since   time.Time // when the state began
	reminds time.Time // when a failure that goes on is next logged
}

// renew has another source tell of itself, which does not run yet.
func (w *Watch) renew(s Source) {
	w.source = s
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Parts = nil
}

// Emit hands over events of this source.
func (w *Watch) Emit(ctx context.Context, events ...event.Event) error {
	return w.r.emit(ctx, events...)
}

// Up says that the source works. The first time after a failure it is told in
// an agent event.
func (w *Watch) Up(ctx context.Context) {
	now := time.Now()
	w.mu.Lock()
	before, since := w.state.State, w.since
	w.state.LastSuccess, w.state.Failures = now, 0
	if before != OK {
		w.state.State, w.state.LastError, w.since = OK, "", now
	}
	w.mu.Unlock()
	w.readings.Inc()
	if before == Failing {
		w.r.log.Info("source works again", "source", w.state.Name, "after", now.Sub(since).Round(time.Millisecond).String())
		w.tell(ctx, &event.Notice{Action: "source_up", Source: w.state.Name, Lasted: now.Sub(since)})
	}
}

// Down says that the source does not work and why. It is counted by reason
// (error, timeout or panic), told in an agent event when it begins, and logged
// when it begins, when the error changes, and every ten minutes.
func (w *Watch) Down(ctx context.Context, reason string, err error) {
	now, text := time.Now(), err.Error()
	w.mu.Lock()
	began, changed := w.state.State != Failing, w.state.LastError != text
	w.state.State, w.state.LastError = Failing, text
	w.state.Failures++
	if began {
		w.since = now
	}
	due := began || changed || now.After(w.reminds)
	if due {
		w.reminds = now.Add(remindAfter)
	}
	failures := w.state.Failures
	w.mu.Unlock()
	w.r.metrics.Counter("rea_source_errors_total", "Readings that a source did not take.", "source", w.state.Name, "reason", reason).Inc()
	if due {
		attrs := []any{"source", w.state.Name, "reason", reason, "error", text, "failures", failures}
		if p := (*panicError)(nil); errors.As(err, &p) {
			attrs = append(attrs, "stack", string(p.stack))
		}
		w.r.log.Warn("source does not work; it is tried again", attrs...)
	}
	if began {
		w.tell(ctx, &event.Notice{Action: "source_down", Source: w.state.Name, Reason: text})
	}
}

// Part says how a part of the source fares: its state, and what keeps it from
// working or nil. When it stops working and when it works again is logged and told
// in an agent event, of which the source is SOURCE/PART.
func (w *Watch) Part(ctx context.Context, name, state string, err error) {
	p := Part{Name: name, State: state, Since: time.Now()}
	if err != nil {
		p.Error = err.Error()
	}
	w.mu.Lock()
	now := w.partLocked(name)
	before := *now
	if before.State == state {
		p.Since = before.Since
	}
	p.Backlog = before.Backlog
	*now = p
	source := w.state.Name + "/" + name
	w.mu.Unlock()
	switch {
	case p.Error != "" && before.Error == "":
		w.r.log.Warn("a part of a source does not work; it is tried again", "source", source, "state", state, "error", p.Error)
		w.tell(ctx, &event.Notice{Action: "source_down", Source: source, Reason: p.Error})
	case p.Error != "" && p.Error != before.Error:
		w.r.log.Warn("a part of a source still does not work", "source", source, "state", state, "error", p.Error)
	case p.Error == "" && before.Error != "":
		lasted := time.Since(before.Since)
		w.r.log.Info("a part of a source works again", "source", source, "after", lasted.Round(time.Millisecond).String())
		w.tell(ctx, &event.Notice{Action: "source_up", Source: source, Lasted: lasted})
	}
}

// Behind says how far behind a part of the source is.
func (w *Watch) Behind(name string, b Backlog) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partLocked(name).Backlog = b
}

// partLocked returns the part of that name, which is made where there is none. It
// is good as long as the lock is held.
func (w *Watch) partLocked(name string) *Part {
	i, known := slices.BinarySearchFunc(w.state.Parts, name, func(p Part, name string) int { return strings.Compare(p.Name, name) })
	if !known {
		w.state.Parts = slices.Insert(w.state.Parts, i, Part{Name: name, State: Starting})
	}
	return &w.state.Parts[i]
}

func (w *Watch) tell(ctx context.Context, n *event.Notice) {
	if err := w.Emit(ctx, event.Event{Time: time.Now(), Kind: event.Agent, Body: n}); err != nil && ctx.Err() == nil {
		w.r.log.Error("emit agent event", "action", n.Action, "source", n.Source, "error", err.Error())
	}
}

// run runs the source again and again until ctx ends.
func (w *Watch) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := guard(func() error { return w.source.Run(ctx, w) })
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errors.ErrUnsupported):
			w.unsupported(ctx)
			return
		case err == nil:
			err = errors.New("source ended")
		}
		w.Down(ctx, reasonOf(err), err)
		sleep(ctx, restartAfter)
	}
}

func (w *Watch) unsupported(ctx context.Context) {
	text := "not supported on " + runtime.GOOS
	w.mu.Lock()
	w.state.State, w.state.LastError = Unsupported, text
	w.mu.Unlock()
	w.r.log.Warn("source cannot run here", "source", w.state.Name, "error", text)
	w.tell(ctx, &event.Notice{Action: "source_down", Source: w.state.Name, Reason: text})
}

// A panicError is a panic that was recovered.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// guard calls f and turns a panic into an error.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
	}()
	return f()
}

func reasonOf(err error) string {
	var p *panicError
	switch {
	case errors.As(err, &p):
		return "panic"
	case errors.Is(err, errTimeout):
		return "timeout"
	}
	return "error"
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
