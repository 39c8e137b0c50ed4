// Package pipeline takes events from the sources to where they are safe. Emit
// redacts an event, gives it its number, encodes it once as a line, hands a copy
// to every tee, and returns when the lane's keeper has it.
//
// There are two lanes, each with a stream of numbers of its own: measurements,
// and evidence (event log, journal, agent, gap), which measurements must never
// push out. Where one keeper serves both, they share its numbers.
//
// What is lost is counted by stage and reason, noted in the ledger, and declared
// in a gap event, which is kept as soon as anything can be kept again. What a
// process that is killed could not even note is seen only as numbers that never
// arrive.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/ledger"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/trouble"
)

// A Keeper is where lines become safe.
type Keeper interface {
	// Stream is the id of the sequence of numbers, Next the first free one.
	Stream() string
	Next() uint64
	// Most is how many bytes of lines Keep is given at once; a single line may
	// be longer.
	Most() int
	// Keep takes n lines, numbered from first; it borrows them until it
	// returns. The lines are safe when wait returns nil, or, if it is nil, now.
	// An error that has a Cause() string gives the gap event its cause.
	Keep(lines []byte, first uint64, n int) (wait func(context.Context) error, err error)
}

// A Sink is handed a copy of every line. Its errors are counted, not returned.
type Sink interface {
	Write(lines []byte, n int) error
	Close() error
}

// A Tee is a Sink with the name under which its losses are counted.
type Tee struct {
	Name string
	Sink Sink
}

// Options say how events are stamped and where they go.
type Options struct {
	Node, Host    string
	MaxEventBytes int
	Redact        event.Redactor
	Metrics       Keeper // for measurements
	Evidence      Keeper // for all else; may be the same
	Tees          []Tee
	Ledger        *ledger.Ledger // of losses; nil: one in memory
	Set           *metric.Set
	Log           *slog.Logger
}

// A Pipeline is safe for use by many sources at once.
type Pipeline struct {
	metrics, evidence *lane
	set               *metric.Set
	log               *slog.Logger
	emitted           map[event.Kind]*metric.Counter

	ledger    *ledger.Ledger
	forgetful trouble.Trouble // the ledger cannot be written
	onWay     sync.WaitGroup  // lines of which nobody knows yet what becomes of them

	mu     sync.Mutex
	losses map[string]*trouble.Trouble // by cause
}

// A lane numbers, encodes and keeps events, one Emit after the other.
type lane struct {
	tees    []*tee
	encoder func(stream string) *event.Encoder

	mu     sync.Mutex
	keeper Keeper
	enc    *event.Encoder
	next   uint64
	buf    []byte
	closed bool
}

// begin makes the lane go on where its keeper stands.
func (l *lane) begin() { l.next, l.enc = l.keeper.Next(), l.encoder(l.keeper.Stream()) }

var errClosed = errors.New("the pipeline is closed")

// New returns a Pipeline that continues the numbers of its keepers.
func New(o Options) *Pipeline {
	p := &Pipeline{set: o.Set, log: o.Log, emitted: map[event.Kind]*metric.Counter{}, ledger: o.Ledger, losses: map[string]*trouble.Trouble{}}
	if p.ledger == nil {
		p.ledger = ledger.New()
	}
	for _, k := range event.Kinds {
		p.emitted[k] = o.Set.Counter("rea_events_emitted_total", "Events that were numbered and encoded.", "kind", string(k))
	}
	for _, c := range causes {
		p.dropped(c.stage, c.reason)
	}
	tees := newTees(o)
	newLane := func(k Keeper) *lane {
		l := &lane{keeper: k, tees: tees, encoder: func(stream string) *event.Encoder {
			return event.NewEncoder(event.Stamp{Node: o.Node, Host: o.Host, Stream: stream}, o.Redact, o.MaxEventBytes)
		}}
		l.begin()
		return l
	}
	p.metrics = newLane(o.Metrics)
	p.evidence = p.metrics
	if o.Evidence != o.Metrics {
		p.evidence = newLane(o.Evidence)
	}
	return p
}

// Emit is collect.Emit: it returns nil when the keepers have the events or the
// loss of those they could not take is noted for a gap event, and an error only
// if ctx ends first or the Pipeline is closed. It takes nothing once ctx has
// ended; if ctx ends while it waits for a keeper, that may have the events even so.
func (p *Pipeline) Emit(ctx context.Context, events ...event.Event) error {
	var kept bool
	for len(events) > 0 {
		n := sameLane(events)
		taken, ok, err := p.keep(ctx, p.lane(events[0].Kind), events[:n])
		if err != nil {
			return err
		}
		kept = kept || ok
		events = events[taken:]
	}
	if kept && p.ledger.Pending() {
		p.Declare(ctx)
	}
	return nil
}

func (p *Pipeline) lane(k event.Kind) *lane {
	if k.Evidence() {
		return p.evidence
	}
	return p.metrics
}

// sameLane returns how many events at the front go to one lane.
func sameLane(events []event.Event) int {
	for i, ev := range events {
		if ev.Kind.Evidence() != events[0].Kind.Evidence() {
			return i
		}
	}
	return len(events)
}

// keep hands events to the lane's keeper, as many as it is given at once. It
// returns how many that were, and whether the keeper has any of them.
func (p *Pipeline) keep(ctx context.Context, l *lane, events []event.Event) (taken int, kept bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0, false, errClosed
	}
	taken, first, n := l.encode(p, events)
	events = events[:taken]
	if n == 0 {
		l.mu.Unlock()
		return taken, false, nil
	}
	for _, t := range l.tees {
		t.write(l.buf, n)
	}
	stream := l.keeper.Stream() // Renew may change it while this waits
	wait, err := l.keeper.Keep(l.buf, first, n)
	if wait != nil {
		p.onWay.Add(1) // before Close can close the lane
		defer p.onWay.Done()
	}
	l.mu.Unlock()
	if err == nil && wait != nil {
		err = wait(ctx)
	}
	m := event.Missing{
		Stream: stream, First: first, Last: first + uint64(n) - 1, Count: uint64(n), Since: events[0].Time, Until: events[len(events)-1].Time,
	}
	switch {
	case err == nil:
		return taken, true, nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		if wait != nil { // they have numbers, and may be refused though nobody waits any more
			p.onWay.Go(func() { p.refused(m, wait(context.WithoutCancel(ctx))) })
		}
		return 0, false, err
	}
	p.refused(m, err)
	return taken, false, nil
}

// refused is Lost for what a keeper did not take, if it did not.
func (p *Pipeline) refused(m event.Missing, err error) {
	if err != nil {
		m.Cause = causeOf(err)
		p.Lost(Keep, m, err)
	}
}

// encode writes events into the lane's buffer under the next numbers, until the
// keeper is to be given no more at once: taken is how many events were dealt
// with, n how many lines they made. An event that is too large, or whose body
// cannot be written, takes no number; it is noted as lost.
func (l *lane) encode(p *Pipeline, events []event.Event) (taken int, first uint64, n int) {
	l.buf, first = l.buf[:0], l.next
	var kind event.Kind
	var emitted *metric.Counter // of that kind: to find it for each event costs more than to count
	for i := range events {
		ev := &events[i]
		b, err := l.line(ev)
		switch {
		case errors.Is(err, event.ErrTooLarge):
			p.Lost(Encode, event.Missing{Source: string(ev.Kind), Cause: "too_large", Count: 1, Since: ev.Time, Until: ev.Time}, err)
			continue
		case err != nil:
			p.Lost(Encode, event.Missing{Source: string(ev.Kind), Cause: "encode_failed", Count: 1, Since: ev.Time, Until: ev.Time}, err)
			continue
		case len(b) > l.keeper.Most() && l.next > first:
			return i, first, int(l.next - first)
		}
		l.buf = b
		l.next++
		if ev.Kind != kind {
			kind, emitted = ev.Kind, p.emitted[ev.Kind]
		}
		emitted.Inc()
	}
	return len(events), first, int(l.next - first)
}

// line appends ev to the lane's buffer. What writes a body is the code of a
// collector: if it panics that costs its event, and not the lane, whose lock is
// held here.
func (l *lane) line(ev *event.Event) (b []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return l.enc.Append(l.buf, ev, l.next)
}

// A Stage is where events were lost.
type Stage string

// The stages, in the order of the flow.
const (
	Encode Stage = "encode" // they never had numbers
	Keep   Stage = "keep"   // the keeper did not take them
	Queue  Stage = "queue"  // the keeper had them and gave them up
	Send   Stage = "send"   // the receiver does not take them, or never will
)

// causes lists what is known to happen at each stage, so that its figures are
// there before it happens.
var causes = [...]struct {
	stage  Stage
	reason string
}{
	{Encode, "too_large"}, {Encode, "encode_failed"},
	{Keep, "queue_full"}, {Keep, "disk_full"}, {Keep, "read_only"}, {Keep, "io_error"}, {Keep, "write_failed"}, {Keep, "sink_stuck"},
	{Queue, "queue_full"}, {Queue, "disk_full"}, {Queue, "damaged"},
	{Send, "rejected"}, {Send, "too_large"}, {Send, "crash"},
}

func (p *Pipeline) dropped(stage Stage, reason string) *metric.Counter {
	return p.set.Counter("rea_events_dropped_total", "Events that were lost, each declared in a gap event.", "stage", string(stage), "reason", reason)
}

// Lost counts events that are missing, says so in the log (once, and now and
// then while it goes on), and notes them for a gap event. err is what happened.
func (p *Pipeline) Lost(stage Stage, m event.Missing, err error) {
	p.ledger.Note(m)
	p.save() // what kept a line from the queue may not keep this from the disk
	p.count(stage, m, err)
}

// LostFor is Lost for those who remember a loss until it is noted where it
// survives a crash, and come again if it is not: it returns nil when it is, and
// counts the loss then. It tries until ctx ends.
func (p *Pipeline) LostFor(ctx context.Context, stage Stage, m event.Missing, err error) error {
	if failed := p.ledger.Add(m); failed != nil { // a gap event that is safe is as good, as long as it lasts
		if err := p.tellSafely(ctx, m); err != nil {
			return errors.Join(err, failed)
		}
	}
	p.count(stage, m, err)
	p.Declare(ctx)
	return nil
}

// tellSafely returns nil when a loss that could not be written down has a gap
// event that is safe, or could be after all. If that gap event is given up later,
// it is told again.
func (p *Pipeline) tellSafely(ctx context.Context, m event.Missing) error {
	e := p.ledger.Hold(m)
	for !p.told(ctx, e) {
		if err := pause(ctx); err != nil {
			p.ledger.Drop(e)
			return err
		}
		if p.ledger.Save() == nil {
			p.ledger.Back(e)
			return nil
		}
	}
	return nil
}

// declarePause is how long a loss waits to be declared when nothing can be kept.
const declarePause = time.Second

func pause(ctx context.Context) error {
	select {
	case <-time.After(declarePause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Declare keeps a gap event for every loss that is noted and not told, and
// reports whether none is left. Emit does so too, whenever it could keep events.
func (p *Pipeline) Declare(ctx context.Context) bool {
	all := true
	list := p.ledger.Take()
	p.save() // all that is taken, before its gap events, which can be lost
	for _, e := range list {
		if !p.told(ctx, e) {
			p.ledger.Back(e)
			all = false
		}
	}
	p.save()
	return all
}

// told keeps the gap event of an entry, and reports whether that is safe.
func (p *Pipeline) told(ctx context.Context, e *ledger.Entry) bool {
	stream, first := p.evidence.position()
	_, ok, err := p.keep(ctx, p.evidence, []event.Event{{Time: time.Now(), Kind: event.Gap, Body: &e.Missing}})
	_, next := p.evidence.position() // that of the gap event is among those before it
	return ok && err == nil && p.ledger.Told(e, stream, first, next-1)
}

// position returns the stream of the lane and its next number.
func (l *lane) position() (stream string, next uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keeper.Stream(), l.next
}

// save writes the ledger down. If that fails it is tried with the next loss, and
// what is noted is in memory only.
func (p *Pipeline) save() {
	err := p.ledger.Save()
	switch {
	case err == nil:
		p.forgetful.Worked()
	case p.forgetful.Failed(""):
		p.log.Error("what is missing is known to this process only, and a crash would forget it", "error", err.Error())
	}
}

// count counts what is lost and says so.
func (p *Pipeline) count(stage Stage, m event.Missing, err error) {
	dropped := p.dropped(stage, m.Cause)
	dropped.Add(m.Count)
	if p.loss(m.Cause).Failed(m.Source) {
		p.log.Error("events are lost and will be declared in a gap event", "cause", m.Cause, "source", m.Source,
			"lost", dropped.Value(), "stream", m.Stream, "first", m.First, "last", m.Last, "error", err.Error())
	}
}

// loss returns how losses of that cause go on.
func (p *Pipeline) loss(cause string) *trouble.Trouble {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.losses[cause]
	if t == nil {
		t = new(trouble.Trouble)
		p.losses[cause] = t
	}
	return t
}

// Renew calls renew, after which the keeper k has a new stream, while nothing is
// handed to k, and goes on with the numbers of that.
func (p *Pipeline) Renew(k Keeper, renew func() error) error {
	l := p.metrics
	if l.keeper != k {
		l = p.evidence
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed
	}
	if err := renew(); err != nil {
		return err
	}
	l.begin()
	return nil
}

// Close ends the handing over: when it returns nobody uses the keepers and the
// tees any more, not even a source that was given up because it hung. It waits for
// the lines that the keepers have; these have ended, or will. What the disk did not
// let the ledger remember is tried once more.
func (p *Pipeline) Close() {
	for _, l := range []*lane{p.metrics, p.evidence} {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
	}
	p.onWay.Wait()
	p.save()
}

// Remembers reports whether the next process will know what is lost and not
// declared.
func (p *Pipeline) Remembers() bool { return p.ledger.Save() == nil && p.ledger.Lasts() }

// Undeclared returns how many events are lost that no gap event tells of yet.
func (p *Pipeline) Undeclared() uint64 { return p.ledger.Untold() }

func causeOf(err error) string {
	var c interface{ Cause() string }
	if errors.As(err, &c) {
		return c.Cause()
	}
	return "write_failed"
}
