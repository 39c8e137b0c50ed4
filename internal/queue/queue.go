// Package queue keeps records on the disk, in order and within a bound, until
// they are delivered.
//
// A record is opaque bytes that stand for a run of numbers (one zstd frame of
// events, as it will go on the wire). [Queue.Append] returns when its record
// would survive a power cut; only then can [Queue.Peek] see it. So the receiver
// never learns a number that the machine may take back. [Queue.Ack] says what
// is delivered; a kill before it repeats records, and never loses one.
//
// The numbers are the account: they are never used twice, over restarts and
// power cuts, and a number that is missing is in [Queue.Losses]. When the bound
// is reached the oldest segment goes (or, with Options.Wait, the writer waits),
// but never one that holds records which Peek has handed out: what is on its
// way to the receiver is not declared lost.
//
// # On the disk
//
// Segments are files of frames that are only ever appended to; each start, and
// each failed write, begins a new one. A failed write or sync is not tried
// again on its descriptor. Checksums are salted with the queue, the segment and
// the place, so stale bytes do not validate; after damage the reader goes on at
// the next frame that does. The cursor is a file of two slots written in turn.
// The format is drawn in docs/queue-format.md.
//
// # Concurrency
//
// Any number of goroutines may append. The queue has none of its own: of those
// that wait, one takes the lead, writes the records of all, and syncs once. One
// goroutine at a time reads (Peek, Ack). There are three locks, taken in this
// order: the lead guards the file being written, reading guards the file being
// read and the cursor, and mu guards the state in memory and is never held over
// a call to the disk.
package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/metric"
)

// Options say where a queue lies and how large it may become.
type Options struct {
	Dir          string // made if missing, with permissions 0700
	MaxBytes     int64  // hard bound of what the queue takes up in Dir, in blocks of 4 KiB; at least MinBytes
	MinFreeBytes int64  // the queue does not grow while the disk has less free; 0 is no guard
	SegmentBytes int64  // 0 is MaxBytes/8 and at most 16 MiB; more than MaxBytes/8 is cut to it
	Wait         bool   // when full, Append waits for room instead of dropping the oldest segment
	Metrics      *metric.Set
	Lane         string // label of the metrics
}

// MinBytes is the smallest bound of a queue.
const MinBytes = 64 << 10

var (
	// ErrFull says that there is no room for a record, and that none could be
	// made: by policy, or because what is left is on its way to the receiver.
	ErrFull = errors.New("the queue is full")
	// ErrTooLarge says that a record can never fit into a segment. It is an
	// ErrFull as well.
	ErrTooLarge = fmt.Errorf("record is larger than a segment: %w", ErrFull)
	// ErrClosed says that the queue was closed.
	ErrClosed = errors.New("the queue is closed")
)

// A Record stands for the numbers First to First+Count-1.
type Record struct {
	First uint64 // at least 1
	Count uint32 // at least 1
	Data  []byte
}

// last returns the last number of the record.
func (r Record) last() uint64 { return r.First + uint64(r.Count) - 1 }

// A Queue is an open queue. Its methods may be called from any goroutine, but
// Peek and Ack only from one at a time.
type Queue struct {
	dir     folder
	path    string
	options Options
	lock    io.Closer
	stream  Stream
	alien   int64 // bytes of files in the folder that are not of this queue
	drops   drops
	ready   chan struct{} // capacity 1: something can be read
	freed   chan struct{} // capacity 1: room was made by Ack
	lossy   chan struct{} // capacity 1: there are losses to declare

	lead chan struct{} // capacity 1: whoever has put a value in holds it
	file file          // of the active segment; guarded by lead
	out  []byte        // guarded by lead

	reading sync.Mutex
	cursor  cursor   // guarded by reading
	in      file     // of segment inID; guarded by reading
	inID    uint64   // guarded by reading
	buf     []byte   // what Peek handed out; guarded by reading
	flight  []flying // the records in buf; guarded by reading
	strikes int      // reads that failed in a row; guarded by reading
	struck  uint64   // in this segment; guarded by reading
	suspect bool     // what was found at Open may not be on the disk; guarded by reading

	mu       sync.Mutex
	closed   bool
	pending  []*Pending
	group    []*Pending // being written by the leader
	tail     uint64     // the number after all that is pending or being written
	next     uint64     // the number after all that is durable
	hidden   uint64     // numbers that Open passed over, see hide
	fresh    uint64     // the next segment id
	segments []*segment // by id; only the last can be active
	active   *segment   // nil before the first append and after a failed one
	pos      position
	handed   uint64 // the highest number that Peek handed out
	acked    uint64
	dropped  uint64
	used     int64     // bytes in blocks, of all that is in the folder
	ghosts   int64     // of them, of files whose removal is not durable
	ceiling  int64     // while the disk is full, what the queue may take up; 0 is no ceiling
	lifted   time.Time // when the ceiling goes, if the disk was found full by a write
	losses   []Loss    // that Losses has not returned
	withheld bool      // they wait until the next number is durable
	told     []Loss    // that it has, and that are not declared
	oldest   uint32    // append time of the record at pos, Unix seconds
	state    string
	trouble  error // the last one
}

// A position is where the first record lies that is not acknowledged.
type position struct {
	segment *segment // nil if all are
	offset  int64
	last    uint64 // the last number before it
	records uint64 // before it, in the segment
	events  uint64
}

// roundOff makes the counts right at the end of the segment: what is passed over
// is not always counted as it was appended.
func (p *position) roundOff() {
	if p.offset >= p.segment.end {
		p.records, p.events = p.segment.records, p.segment.events
	}
}

// A flying record was handed out by Peek and is not acknowledged.
type flying struct {
	frame frame
	end   int64 // where the next one begins
}

// Open opens the queue in o.Dir, or makes it. Whatever it finds there, it
// starts: what is damaged is in Losses, what is not of this queue is left
// alone, and a Renew that was cut short is completed or undone. It fails if
// another process has the folder (durable.ErrLocked), if the folder cannot be made,
// locked and listed, or if a file in it cannot be opened or read for a reason that
// may pass (durable.IsOfTheMoment): it would give up what is whole.
func Open(o Options) (*Queue, error) {
	if o.Dir == "" {
		return nil, errors.New("open queue: no folder is named")
	}
	o.Dir = filepath.Clean(o.Dir) // names beside it are made by suffixes
	if err := settleSwap(osRenamer{}, o.Dir); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", o.Dir, err)
	}
	if err := durable.Mkdir(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	return open(o, osFolder(o.Dir))
}

func open(o Options, dir folder) (*Queue, error) {
	if o.MaxBytes < MinBytes {
		return nil, fmt.Errorf("open queue %s: a bound of %d bytes is less than %d", o.Dir, o.MaxBytes, MinBytes)
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 16 << 20
	}
	o.SegmentBytes = max(min(o.SegmentBytes, o.MaxBytes/8), block)
	return start(o, dir)
}

// start opens a queue with exactly these bounds.
func start(o Options, dir folder) (*Queue, error) {
	lock, err := dir.Lock()
	if err != nil {
		return nil, fmt.Errorf("open queue %s: %w", o.Dir, err)
	}
	q := &Queue{
		dir: dir, path: o.Dir, options: o, lock: lock,
		cursor: cursor{dir: dir},
		ready:  make(chan struct{}, 1), freed: make(chan struct{}, 1), lossy: make(chan struct{}, 1), lead: make(chan struct{}, 1),
		state: "ok", drops: newDrops(o.Metrics, o.Lane),
	}
	if err := q.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open queue %s: %w", o.Dir, err), lock.Close())
	}
	q.publishMetrics()
	return q, nil
}

// Stream returns the id of the numbers in this queue. It is durable with the
// first record.
func (q *Queue) Stream() Stream { return q.stream }

// Next returns the next free number. Numbers that were ever readable are below
// it, before and after every restart.
func (q *Queue) Next() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.tail
}

// MaxRecord returns the size of the largest record that fits.
func (q *Queue) MaxRecord() int {
	return int(q.options.SegmentBytes - headerSize - footerSize - frameSize - frameAlign)
}

// Append adds a record and returns nil when it is durable. Its numbers begin at
// Next or later; numbers that it jumps over are accounted for by the caller.
// Data is borrowed until the return. If Append fails the record is not in the
// queue, and its numbers are free again if nothing was appended behind it.
func (q *Queue) Append(ctx context.Context, r Record) error {
	return q.Submit(r).Wait(ctx)
}

// Ready returns a channel of capacity 1 that receives when something has become
// readable. A reader drains Peek before it waits.
func (q *Queue) Ready() <-chan struct{} { return q.ready }

// Close seals the segment, saves the cursor and gives the folder free. Appends
// that wait fail with ErrClosed. What is not delivered stays for the next Open.
func (q *Queue) Close() error {
	signal(q.freed) // a leader that waits for room lets go
	q.lead <- struct{}{}
	defer func() { <-q.lead }()
	q.reading.Lock()
	defer q.reading.Unlock()
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	group := q.pending
	q.pending = nil
	q.mu.Unlock()
	finish(group, ErrClosed)
	var err error
	if q.active != nil {
		err = q.roll()
	}
	if q.cursor.begun {
		err = errors.Join(err, q.cursor.write(q.mark()), q.cursor.sync())
	}
	err = errors.Join(err, q.closeIn())
	if err = errors.Join(err, q.cursor.close(), q.lock.Close()); err != nil {
		return fmt.Errorf("close queue %s: %w", q.path, err)
	}
	return nil
}

// mark returns what the cursor is to remember.
func (q *Queue) mark() mark {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := mark{stream: q.stream, acked: q.acked, next: q.next, dropped: q.dropped, fresh: q.fresh, losses: q.undeclaredLocked()}
	if s := q.pos.segment; s != nil {
		m.segment, m.offset, m.records, m.events = s.id, q.pos.offset, q.pos.records, q.pos.events
	}
	return m
}

// signal puts a value into c unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
