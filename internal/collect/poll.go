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
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		err := p.read(ctx, w)
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

// read takes one reading in a goroutine of its own and waits for it.
func (p *poll) read(ctx context.Context, w *Watch) error {
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := make(chan struct{}, 1)
	clock := time.AfterFunc(p.timeout, func() {
		cancel(errTimeout)
		late <- struct{}{}
	})
	defer clock.Stop()
	emit := func(_ context.Context, events ...event.Event) error {
		stopped := clock.Stop()
		err := w.Emit(ctx, events...)
		if stopped {
			clock.Reset(p.timeout)
		}
		return err
	}
	done := make(chan error, 1)
	go func() { done <- guard(func() error { return p.reader.Read(reading, emit) }) }()

	select {
	case err := <-done:
		return err
	case <-late:
		w.Down(ctx, "timeout", fmt.Errorf("%w within %v; waiting for it to return", errTimeout, p.timeout))
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		if err == nil {
			err = errLate
		}
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(abandonAfter):
		return ctx.Err()
	}
}
