// Package ship takes lines to the server by way of the disk queue.
//
// A Writer gathers lines into records, compresses each once as a zstd frame and
// appends it to the queue; lines are safe when that is durable, and everybody
// whose lines are in the record shares the wait. A Sender reads records from the
// queue, posts them as they lie, and acknowledges them only when the server says
// that it keeps them. The queue between the two is the only place where sending
// is decoupled from collecting.
package ship

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

// lastWait is how long whoever waits for a record waits on when its context has
// ended: about as long as a disk takes.
const lastWait = 500 * time.Millisecond

// spareBytes is the largest buffer that is kept between records: what a full
// record needs as its slice grows, so that a long burst does not pay for new
// memory with each record, and less than a single line can be.
const spareBytes = 2 * wire.RecordBytes

var errClosed = errors.New("the agent is stopping")

// WriterOptions say how a Writer gathers.
type WriterOptions struct {
	Queue      *queue.Queue
	Compress   bool
	Dictionary bool          // compress small records with the dictionary, which takes half a megabyte of memory
	Linger     time.Duration // how long a record waits for more lines
}

// A Writer is the keeper of one lane. It keeps only while Run runs.
type Writer struct {
	o     WriterOptions
	most  int              // bytes of lines in a record
	zstd  *wire.Compressor // nil for plain lines
	wake  chan struct{}    // capacity 1: there are lines to commit
	frame []byte           // the record being written

	mu       sync.Mutex
	room     sync.Cond // the open group was taken
	open     *group
	taken    *group // the last that was
	assigned uint64 // the highest number that Keep was given
	spare    []byte
	closed   bool
}

// A group is the lines of one record and those who wait for it.
type group struct {
	lines []byte
	first uint64
	count int
	full  chan struct{} // capacity 1: do not linger
	done  chan struct{}
	err   error // valid when done is closed
}

// NewWriter returns a Writer.
func NewWriter(o WriterOptions) *Writer {
	w := &Writer{o: o, most: mostLines(o.Queue.MaxRecord()), wake: make(chan struct{}, 1)}
	w.room.L = &w.mu
	w.open, w.taken, w.assigned = newGroup(nil), newGroup(nil), o.Queue.Next()-1
	close(w.taken.done)
	switch {
	case o.Compress && o.Dictionary:
		w.zstd = wire.NewDictionaryCompressor()
	case o.Compress:
		w.zstd = wire.NewCompressor()
	}
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
func (w *Writer) Next() uint64 { return w.queue().Next() }

func (w *Writer) queue() *queue.Queue {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.o.Queue
}

// Most returns how many bytes of lines make a record.
func (w *Writer) Most() int { return w.most }

// Keep adds n lines, numbered from first, to the open group, and returns how to
// wait until they are durable. It waits itself while the open group is full.
func (w *Writer) Keep(lines []byte, first uint64, n int) (func(context.Context) error, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.closed && w.open.count > 0 && len(w.open.lines)+len(lines) > w.most {
		signal(w.open.full)
		w.room.Wait()
	}
	if w.closed {
		return nil, errClosed
	}
	g := w.open
	if g.count == 0 {
		g.first = first
		signal(w.wake)
	}
	g.lines = append(g.lines, lines...)
	g.count += n
	w.assigned = max(w.assigned, first+uint64(n)-1)
	return g.wait, nil
}

// Assigned returns the highest number that a line has which was handed over:
// more than the queue knows while lines wait for it.
func (w *Writer) Assigned() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.assigned
}

// Renew calls renew when all that was handed over is in the queue or refused,
// and goes on in the queue that it returns; nil is the one that there was.
// Nobody may call Keep meanwhile.
func (w *Writer) Renew(ctx context.Context, renew func(*queue.Queue) (*queue.Queue, error)) error {
	w.mu.Lock()
	open, taken := w.open, w.taken
	waiting := open.count > 0
	w.mu.Unlock()
	_ = taken.wait(ctx) // those who wait for it know what became of it
	if waiting {
		signal(open.full)
		_ = open.wait(ctx)
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

// wait returns when the group is durable or is not going to be. The record is
// written whether anybody waits for it or not, so whoever left before that would
// not know that it was kept and hand the same over again after the next start:
// when ctx ends the record lingers no more, and its end is waited for.
func (g *group) wait(ctx context.Context) error {
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
	}
	signal(g.full)
	t := time.NewTimer(lastWait)
	defer t.Stop()
	select {
	case <-g.done:
		return g.err
	case <-t.C:
		return ctx.Err()
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
	case <-ctx.Done():
	}
}

// commit makes the open group a durable record.
func (w *Writer) commit() {
	w.mu.Lock()
	g := w.open
	if g.count == 0 {
		w.mu.Unlock()
		return
	}
	w.open, w.taken = newGroup(w.spare), g
	w.spare = nil
	w.mu.Unlock()
	w.room.Broadcast()

	g.err = w.append(g)
	buf := g.lines
	close(g.done)
	if cap(buf) <= spareBytes {
		w.mu.Lock()
		w.spare = buf
		w.mu.Unlock()
	}
}

func (w *Writer) append(g *group) error {
	data := g.lines
	if w.zstd != nil {
		w.frame = w.zstd.Append(w.frame[:0], g.lines)
		data = w.frame
	}
	// Not the caller's context: lines that were numbered are written even when
	// the agent stops.
	q := w.queue()
	err := q.Append(context.Background(), queue.Record{First: g.first, Count: uint32(g.count), Data: data})
	if cap(w.frame) > spareBytes {
		w.frame = nil
	}
	if err != nil {
		return &refusal{err, q.Stats().State}
	}
	return nil
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
