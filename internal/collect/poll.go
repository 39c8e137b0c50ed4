package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rea-agent/rea/internal/event"
)

var (
	errTimeout = errors.New("no reading")
	errLate    = errors.New("reading came too late") // reported when its time was over
)

// How long the end of the agent waits for a reading that hangs in the kernel
// before it leaves it to the end of the process.
const abandonAfter = time.Second

// Poll makes a Source of a Reader: a reading at once, then one at every
// interval, counted from when the Runner began, so that readings of one interval
// fall together and wake the machine once. One that cannot be taken in time is
// left out. A reading that takes longer than timeout is reported and its
// context ends; since a call that hangs in the kernel cannot be ended, the next
// reading waits until it returns. The time that Emit takes does not count: a
// slow keeper is not the collector's fault.
func Poll(r Reader, interval, timeout time.Duration) Source {
	return &poll{r, interval, timeout}
}

type poll struct {
	reader            Reader
	interval, timeout time.Duration
}

func (p *poll) Run(ctx context.Context, w *Watch) error {
	r := p.reading(ctx, w)
	defer r.end()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		err := r.take()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errors.ErrUnsupported):
			return err
		case err == nil:
			w.Up(ctx)
		case errors.Is(err, errLate):
		default:
			w.Down(ctx, reasonOf(err), err)
		}
		tick.Reset(p.untilNext(time.Since(w.r.began)))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// untilNext returns how long it is from a time since the start to the next reading.
func (p *poll) untilNext(since time.Duration) time.Duration {
	return p.interval - since%p.interval
}

// once takes one reading.
func (p *poll) once(ctx context.Context, w *Watch) error {
	r := p.reading(ctx, w)
	defer r.end()
	return r.take()
}

// A reading is taken in a goroutine of its own, so that one that hangs holds up
// nobody else. Goroutine, context and clock serve one reading after the other:
// made anew for each, they and a stack that has to grow cost about as much as the
// reading of a small collector.
type reading struct {
	p     *poll
	w     *Watch
	ctx   context.Context // ends with the source
	clock *time.Timer
	turn  chan context.Context // capacity 1, and never two at a time
	done  chan error           // capacity 1, so that a late one is not waited for

	limited context.Context // ends when a reading took too long; then it is made anew
	cancel  context.CancelCauseFunc
}

// reading begins the goroutine that end ends.
func (p *poll) reading(ctx context.Context, w *Watch) *reading {
	r := &reading{p: p, w: w, ctx: ctx, clock: time.NewTimer(p.timeout), turn: make(chan context.Context, 1), done: make(chan error, 1)}
	r.clock.Stop()
	r.limited, r.cancel = context.WithCancelCause(ctx)
	go r.run()
	return r
}

func (r *reading) run() {
	var limited context.Context
	emit := Emit(r.emit)
	read := func() error { return r.p.reader.Read(limited, emit) }
	for limited = range r.turn {
		r.done <- guard(read)
	}
}

// end ends the goroutine, if need be when the call returns in which it hangs.
func (r *reading) end() {
	r.clock.Stop()
	r.cancel(nil)
	close(r.turn)
}

// emit stops the clock while the keeper has the events.
func (r *reading) emit(_ context.Context, events ...event.Event) error {
	stopped := r.clock.Stop()
	err := r.w.Emit(r.ctx, events...)
	if stopped {
		r.clock.Reset(r.p.timeout)
	}
	return err
}

// take takes one reading and waits for it.
func (r *reading) take() error {
	if r.limited.Err() != nil {
		r.limited, r.cancel = context.WithCancelCause(r.ctx)
	}
	r.clock.Reset(r.p.timeout)
	defer r.clock.Stop()
	r.turn <- r.limited
	select {
	case err := <-r.done:
		return err
	case <-r.clock.C:
		r.cancel(errTimeout)
		r.w.Down(r.ctx, "timeout", fmt.Errorf("%w within %v; waiting for it to return", errTimeout, r.p.timeout))
	case <-r.ctx.Done():
	}
	select {
	case err := <-r.done:
		if err == nil {
			err = errLate
		}
		return err
	case <-r.ctx.Done():
	}
	select {
	case err := <-r.done:
		return err
	case <-time.After(abandonAfter):
		return r.ctx.Err()
	}
}
