// Package ship takes lines to the server by way of the disk queue.
//
// A Writer gathers lines into records, compresses each once as a zstd frame and
// appends it to the queue; lines are safe when that is durable, and everybody
// who hands lines over at that time shares the wait. A Sender reads records from the
// queue, posts them as they lie, and acknowledges them only when the server says
// that it keeps them. The queue between the two is the only place where sending
// is decoupled from collecting.
package ship

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

// lastWait is how long whoever waits for a record waits on when its context has
// ended: about as long as a disk takes.
const lastWait = 500 * time.Millisecond

// groupRecords is how many full records are written and synced together at most:
// to wait for the disk costs as much as to compress a record.
const groupRecords = 2

// spareBytes is the largest buffer that is kept between groups: what a full
// group needs as its slice grows, so that a long burst does not pay for new
// memory with each group, and less than a single line can be.
const spareBytes = (groupRecords + 1) * wire.RecordBytes

var errClosed = errors.New("the agent is stopping")

// WriterOptions say how a Writer gathers.
type WriterOptions struct {
	Queue      *queue.Queue
	First      uint64           // the first number to give, if the queue would give a lower one
	Compressor *wire.Compressor // nil for plain lines; writers may share one
	Linger     time.Duration    // how long a record waits for more lines
}

// A Writer is the keeper of one lane. It keeps only while Run runs.
type Writer struct {
	o     WriterOptions
	most  int           // bytes of lines in a record
	wake  chan struct{} // capacity 1: there are lines to commit
	frame []byte        // the records being written

	mu       sync.Mutex
	room     sync.Cond // the open group was taken
	open     *group
	taken    *group // the last that was
	assigned uint64 // the highest number that Keep was given
	waiting  int    // lines that are not in the queue yet
	spare    []byte
	closed   bool
}

// A group is the records that are made durable together, and those who wait for
// them.
type group struct {
	lines   []byte
	records []*record
	full    chan struct{} // capacity 1: do not linger
	done    chan struct{}
}

// A record is a run of a group's lines.
type record struct {
	group      *group
	first      uint64
	count      int
	start, end int   // in the lines of the group
	err        error // valid when the group is done
}

// NewWriter returns a Writer.
func NewWriter(o WriterOptions) *Writer {
	w := &Writer{o: o, most: mostLines(o.Queue.MaxRecord()), wake: make(chan struct{}, 1)}
	w.room.L = &w.mu
	w.open, w.taken, w.assigned = newGroup(nil), newGroup(nil), max(o.First, o.Queue.Next())-1
	close(w.taken.done)
	return w
}

// mostLines returns how many bytes of lines certainly fit into a record of so
// many bytes, and not more than a server must take. Lines that cannot be
// compressed grow by a frame's header and 3 bytes for 128 KiB.
func mostLines(record int) int {
	return min(wire.RecordBytes, record-64-record>>12)
}

func newGroup(buf []byte) *group {
	return &group{lines: buf[:0], full: make(chan struct{}, 1), done: make(chan struct{})}
}

// Stream returns the id of the queue's sequence of numbers.
func (w *Writer) Stream() string { return w.queue().Stream().String() }

// Next returns the first free number.
func (w *Writer) Next() uint64 { return w.Assigned() + 1 }

func (w *Writer) queue() *queue.Queue {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.o.Queue
}

// Most returns how many bytes of lines make a record.
func (w *Writer) Most() int { return w.most }

// Keep adds n lines, numbered from first, to the open group, and returns how to
// wait until they are durable. It waits itself while the open group is full. The
// lines of one call share their fate: they are in one record.
func (w *Writer) Keep(lines []byte, first uint64, n int) (func(context.Context) error, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.closed && len(w.open.records) > 0 && len(w.open.lines)+len(lines) > groupRecords*w.most {
		signal(w.open.full)
		w.room.Wait()
	}
	if w.closed {
		return nil, errClosed
	}
	g := w.open
	if len(g.records) == 0 {
		signal(w.wake)
	}
	r := g.add(lines, first, n, w.most)
	if len(g.records) > 1 { // the one before it is full
		signal(g.full)
	}
	w.assigned = max(w.assigned, first+uint64(n)-1)
	w.waiting += n
	return r.wait, nil
}

// add adds n lines to the last record, or to a new one if that would be more than
// most bytes, and returns it.
func (g *group) add(lines []byte, first uint64, n, most int) *record {
	start := len(g.lines)
	g.lines = append(g.lines, lines...)
	if i := len(g.records) - 1; i >= 0 && len(g.lines)-g.records[i].start <= most {
		r := g.records[i]
		r.count, r.end = r.count+n, len(g.lines)
		return r
	}
	r := &record{group: g, first: first, count: n, start: start, end: len(g.lines)}
	g.records = append(g.records, r)
	return r
}

// Assigned returns the highest number that a line has which was handed over:
// more than the queue knows while lines wait for it.
func (w *Writer) Assigned() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.assigned
}

// Waiting returns how many lines were handed over and are not in the queue yet.
func (w *Writer) Waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting
}

// Renew calls renew when all that was handed over is in the queue or refused,
// and goes on in the queue that it returns; nil is the one that there was.
// Nobody may call Keep meanwhile.
func (w *Writer) Renew(ctx context.Context, renew func(*queue.Queue) (*queue.Queue, error)) error {
	w.mu.Lock()
	open, taken := w.open, w.taken
	waiting := len(open.records) > 0
	w.mu.Unlock()
	taken.wait(ctx) // those who wait for it know what became of it
	if waiting {
		signal(open.full)
		open.wait(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	q, err := renew(w.o.Queue)
	if q == nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.o.Queue = q
	w.assigned = q.Next() - 1
	return err
}

// wait returns when the record is durable or is not going to be. It is written
// whether anybody waits for it or not, so whoever left before that would not know
// that it was kept and hand the same over again after the next start: when ctx
// ends the group lingers no more, and its end is waited for.
func (r *record) wait(ctx context.Context) error {
	if !r.group.wait(ctx) {
		return ctx.Err()
	}
	return r.err
}

// wait reports whether the group is done. It is not if ctx ended and the disk
// hangs.
func (g *group) wait(ctx context.Context) bool {
	select {
	case <-g.done:
		return true
	case <-ctx.Done():
	}
	signal(g.full)
	t := time.NewTimer(lastWait)
	defer t.Stop()
	select {
	case <-g.done:
		return true
	case <-t.C:
		return false
	}
}

// Run commits groups until ctx ends, and then the last one.
func (w *Writer) Run(ctx context.Context) error {
	linger := time.Duration(0) // the first record of a run goes at once
	for {
		select {
		case <-w.wake:
			w.linger(ctx, linger)
			w.commit()
			linger = w.o.Linger
		case <-ctx.Done():
			w.mu.Lock()
			w.closed = true
			w.mu.Unlock()
			w.room.Broadcast()
			w.commit()
			return nil
		}
	}
}

// linger waits for more lines.
func (w *Writer) linger(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	w.mu.Lock()
	full := w.open.full
	w.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-full:
		runtime.Gosched() // who is about to hand lines over may join the group
	case <-ctx.Done():
	}
}

// commit makes the open group durable.
func (w *Writer) commit() {
	w.mu.Lock()
	g := w.open
	if len(g.records) == 0 {
		w.mu.Unlock()
		return
	}
	w.open, w.taken = newGroup(w.spare), g
	w.spare = nil
	w.mu.Unlock()
	w.room.Broadcast()

	w.append(g)
	buf := g.lines
	w.mu.Lock()
	for _, r := range g.records {
		w.waiting -= r.count
	}
	if cap(buf) <= spareBytes {
		w.spare = buf
	}
	w.mu.Unlock()
	close(g.done)
}

// append hands all records of g to the queue before it waits for the first, so
// that the queue writes and syncs them at once.
func (w *Writer) append(g *group) {
	q := w.queue()
	w.frame = w.frame[:0]
	pending := make([]*queue.Pending, len(g.records))
	for i, r := range g.records {
		pending[i] = q.Submit(queue.Record{First: r.first, Count: uint32(r.count), Data: w.encode(g.lines[r.start:r.end])})
	}
	for i, r := range g.records {
		// Not the caller's context: lines that were numbered are written even when
		// the agent stops.
		if err := pending[i].Wait(context.Background()); err != nil {
			r.err = &refusal{err, q.Stats().State}
		}
	}
	if cap(w.frame) > spareBytes {
		w.frame = nil
	}
}

// encode returns the data of a record, behind those of the group's records that
// were encoded before.
func (w *Writer) encode(lines []byte) []byte {
	if w.o.Compressor == nil {
		return lines
	}
	start := len(w.frame)
	w.frame = w.o.Compressor.Append(w.frame, lines)
	return w.frame[start:]
}

// A refusal says why the queue did not take a record.
type refusal struct {
	error
	state string // of the queue: full, disk_full, read_only, io_error
}

// Cause is the cause in the gap event.
func (r *refusal) Cause() string {
	switch {
	case errors.Is(r.error, queue.ErrTooLarge): // one line, or Most is wrong
		return "too_large"
	case r.state == "full":
		return queue.CauseQueueFull
	case r.state == "ok": // it was another record that failed last
		return "write_failed"
	}
	return r.state
}

func (r *refusal) Unwrap() error { return r.error }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
