package agent

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rea-agent/rea/internal/deadletter"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/pipeline"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/redact"
	"github.com/rea-agent/rea/internal/ship"
	"github.com/rea-agent/rea/internal/trouble"
)

// A lane is a queue on disk with its name, and who fills and empties it. It
// keeps the account of what is lost on the way: all that the queue gives up and
// the server refuses is declared in a gap event before it is forgotten.
type lane struct {
	name     string
	evidence bool
	agent    *Agent
	queue    atomic.Pointer[queue.Queue] // another one after a renewal
	writer   *ship.Writer
	sender   *ship.Sender

	declaring sync.Mutex    // who calls Losses and Declared of the queue; taken before the pipeline's locks
	renewed   chan struct{} // capacity 1: the queue is another one
}

// declare declares what the queue gives up, until ctx ends.
func (l *lane) declare(ctx context.Context) {
	for {
		var again <-chan time.Time
		if !l.agent.ledger.Empty() {
			again = time.After(lookAgain)
		}
		select {
		case <-l.queue.Load().Lossy():
		case <-l.renewed:
		case <-again:
		case <-ctx.Done():
			return
		}
		l.declareLosses(ctx)
		l.agent.pipeline.Declare(ctx)
	}
}

// lookAgain is how long a gap event waits that could not be kept, if no other
// event brings it along, and how long one that was delivered is remembered.
const lookAgain = 10 * time.Second

// declareLosses moves what the queue gave up into the ledger.
func (l *lane) declareLosses(ctx context.Context) {
	l.declaring.Lock()
	defer l.declaring.Unlock()
	q := l.queue.Load()
	losses := q.Losses()
	if l.evidence {
		for _, loss := range losses {
			l.agent.ledger.Lost(loss.First, loss.Last)
		}
		l.agent.ledger.Delivered(q.Settled())
	}
	for _, loss := range losses {
		if err := l.agent.pipeline.LostFor(ctx, pipeline.Queue, missing(q, loss), errGaveUp); err != nil {
			return // the queue tells of it again when the agent starts
		}
	}
	if len(losses) > 0 {
		q.Declared()
	}
}

var errGaveUp = errors.New("the queue gave them up")

func missing(q *queue.Queue, l queue.Loss) event.Missing {
	return event.Missing{
		Cause: l.Cause, Stream: q.Stream().String(), First: l.First, Last: l.Last, Count: l.Count, Since: l.Since, Until: l.Until,
	}
}

// first returns the first number that this process gives: none that the last one
// has given and declared missing, also where the queue knows nothing of it. A
// number between, of which that process could not even say so, is declared now, and
// written down before it is passed over: later nobody would see it.
func (l *lane) first() uint64 {
	q := l.queue.Load()
	stream, next := q.Stream().String(), q.Next()
	begins, ends := l.agent.ledger.Ends(stream)
	if ends < next {
		return next
	}
	if begins > next {
		now := time.Now()
		l.agent.ledger.Note(event.Missing{Cause: "crash", Stream: stream, First: next, Last: begins - 1, Count: begins - next, Since: now, Until: now})
		_ = l.agent.ledger.Save() // if the disk refuses that, it is tried and said again before the gap event
	}
	return ends + 1
}

// Bury keeps the line for people, and declares it missing.
func (l *lane) Bury(ctx context.Context, r ship.Refused) error {
	a, now := l.agent, time.Now()
	r.Reason, _ = redact.Secrets(r.Reason) // the words of a peer
	err := a.output.letters.Put(deadletter.Letter{
		Time: now, Lane: l.name, Stream: r.Stream, Seq: r.First, Status: r.Status, Reason: r.Reason, Line: bytes.TrimSuffix(r.Data, []byte{'\n'}),
	})
	if err != nil {
		a.o.Log.Error("a refused event cannot be kept for people to look at", "error", err.Error(), "stream", r.Stream, "seq", r.First)
	} else {
		a.o.Log.Warn("the server refuses an event; it is kept as a dead letter", "lane", l.name, "stream", r.Stream, "seq", r.First, "error", r.Reason)
		a.metrics.Counter("rea_dead_letters_total", "Events that the server refused, kept for people to look at.", "lane", l.name).Inc()
	}
	return a.pipeline.LostFor(ctx, pipeline.Send, event.Missing{
		Cause: r.Cause, Stream: r.Stream, First: r.First, Last: r.First + r.Count - 1, Count: r.Count, Since: now, Until: now,
	}, errors.New(r.Reason))
}

// Crashed declares events that had numbers and were not on the disk when the
// last process ended. Their numbers are used again, so the gap event names none.
func (l *lane) Crashed(ctx context.Context, count uint64) error {
	now := time.Now()
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	return l.agent.pipeline.LostFor(ctx, pipeline.Send, event.Missing{Cause: "crash", Count: count, Since: now, Until: now},
		errors.New("the last process ended before they were on the disk"))
}

// Renew begins a new stream and takes along what is not delivered. Under its old
// numbers that never arrives, which a gap event says.
func (l *lane) Renew(ctx context.Context) (*queue.Queue, error) {
	l.declaring.Lock()
	defer l.declaring.Unlock()
	err := l.agent.pipeline.Renew(l.writer, func() error {
		return l.writer.Renew(ctx, func(old *queue.Queue) (*queue.Queue, error) {
			renewed, err := old.Renew(func(fresh *queue.Queue) error { return l.move(ctx, old, fresh) })
			if renewed == nil {
				renewed, err = l.reopen(ctx, old, err)
			}
			if renewed != nil {
				l.switchTo(renewed)
			}
			return renewed, err
		})
	})
	signal(l.renewed)
	return l.queue.Load(), err
}

// reopen opens what lies in the place of a queue that was closed to be renewed and
// could not be opened again, because of err. It tries until ctx ends: without a queue
// all that comes would be refused.
func (l *lane) reopen(ctx context.Context, closed *queue.Queue, err error) (*queue.Queue, error) {
	var tried trouble.Trouble
	for {
		if tried.Failed("") {
			l.agent.o.Log.Error("the queue cannot be opened, and events wait for it", "lane", l.name, "error", err.Error())
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return nil, err
		}
		q, failed := closed.Reopen()
		switch {
		case failed != nil:
			err = failed
		case q.Stream() == closed.Stream():
			return q, err
		default:
			return q, nil
		}
	}
}

// move fills the queue of the new stream. What it notes as missing is told once
// the lane is open again.
func (l *lane) move(ctx context.Context, old, fresh *queue.Queue) error {
	moved, err := ship.Move(ctx, old, fresh, "")
	if err != nil {
		return err
	}
	var gaps []event.Missing
	for _, loss := range old.Losses() {
		gaps = append(gaps, missing(old, loss))
	}
	now := time.Now()
	rest := event.Missing{Cause: "renumbered", Stream: old.Stream().String(), First: old.Acked() + 1, Last: old.Next() - 1, Count: moved.Events, Since: now, Until: now}
	if moved.Torn > 0 {
		gaps = append(gaps, event.Missing{Cause: queue.CauseDamaged, Count: moved.Torn, Since: now, Until: now})
	}
	if rest.First <= rest.Last {
		gaps = append(gaps, rest)
	}
	for _, g := range gaps {
		if err := l.agent.ledger.Add(g); err != nil {
			return err
		}
	}
	old.Declared()
	return nil
}

// switchTo makes q, in which a new stream begins, the queue of the lane.
func (l *lane) switchTo(q *queue.Queue) {
	l.queue.Store(q)
	if l.evidence {
		l.agent.ledger.Restream(q.Stream().String(), q.Next()-1)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
