package queue

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"slices"
	"time"

	"github.com/rea-agent/rea/internal/durable"
)

const (
	block       = 4096             // what files are counted in
	groupBytes  = 1<<20 + block    // written at once, or one record: four of 256 KiB, with their headers
	outBuffer   = 64 << 10         // gathers small records
	directBytes = 32 << 10         // a record of this size is written from where it lies
	fullPause   = 10 * time.Second // after a write found the disk full, until growth is tried again
)

// A Pending append was submitted and may not be durable yet.
type Pending struct {
	queue *Queue
	frame frame
	data  []byte
	done  chan struct{} // closed when err holds
	err   error
}

// Submit is the first half of Append: it fixes the record's place behind all
// that was submitted before, so a caller who numbers records under a lock can
// wait for them outside. Wait must follow.
func (q *Queue) Submit(r Record) *Pending {
	p := &Pending{queue: q, data: r.Data, done: make(chan struct{})}
	if len(r.Data) <= q.MaxRecord() {
		p.frame = frame{r.First, r.Count, uint32(len(r.Data)), uint32(time.Now().Unix()), crc32.Checksum(r.Data, castagnoli)}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		p.err = ErrClosed
	case len(r.Data) > q.MaxRecord():
		p.err = fmt.Errorf("append %d bytes: %w", len(r.Data), ErrTooLarge)
	case r.Count == 0 || r.First < q.tail || r.First > maxNumber-uint64(r.Count):
		p.err = fmt.Errorf("append %d numbers from %d: the next free number is %d", r.Count, r.First, q.tail)
	default:
		q.tail = r.last() + 1
		q.pending = append(q.pending, p)
		return p
	}
	close(p.done)
	return p
}

// Wait is the second half of Append. It may outlast ctx by the write that is
// under way.
func (p *Pending) Wait(ctx context.Context) error {
	q := p.queue
	cancelled := ctx.Done()
	for {
		select {
		case <-p.done:
			return p.err
		case q.lead <- struct{}{}:
			runtime.Gosched() // those whose records were just written may join the group
			gone := ctx.Err() != nil && q.withdraw(p)
			if !gone && !p.isDone() && errors.Is(q.commitNext(), errNoRoomYet) {
				q.awaitRoom(ctx)
			}
			<-q.lead
			if gone {
				return context.Cause(ctx)
			}
		case <-cancelled:
			if q.withdraw(p) {
				return context.Cause(ctx)
			}
			cancelled = nil // a leader has it, and data is borrowed
		}
	}
}

func (p *Pending) isDone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// withdraw takes p out of the pending, unless a leader has it.
func (q *Queue) withdraw(p *Pending) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.pending, p)
	if i < 0 {
		return false
	}
	q.pending = slices.Delete(q.pending, i, i+1)
	q.retailLocked()
	return true
}

// retailLocked gives the numbers behind the last record on its way free again.
func (q *Queue) retailLocked() {
	q.tail = q.next
	for _, p := range q.group {
		q.tail = max(q.tail, p.frame.last()+1)
	}
	if n := len(q.pending); n > 0 {
		q.tail = q.pending[n-1].frame.last() + 1
	}
}

// errNoRoomYet says that the records stay pending until Ack makes room.
var errNoRoomYet = errors.New("waiting for room")

// awaitRoom waits until it may be worth trying again. Room on the disk comes
// unannounced, hence the timer.
func (q *Queue) awaitRoom(ctx context.Context) {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-q.freed:
	case <-t.C:
	case <-ctx.Done():
	}
}

// commitNext writes the next group of pending records and tells their owners.
// The caller holds the lead, and so it does in all of this file from here on.
func (q *Queue) commitNext() error {
	group, size := q.take()
	if len(group) == 0 {
		return nil
	}
	err := q.commit(group, size)
	q.mu.Lock()
	q.group = nil
	if errors.Is(err, errNoRoomYet) {
		q.pending = append(group, q.pending...)
		q.mu.Unlock()
		return err
	}
	if err != nil {
		q.failLocked(err)
	}
	q.retailLocked()
	q.mu.Unlock()
	finish(group, err)
	return err
}

// take takes as many records from the pending as make one write.
func (q *Queue) take() (group []*Pending, size int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	room := min(groupBytes, q.options.SegmentBytes-headerSize-footerSize)
	n := 0
	for ; n < len(q.pending); n++ {
		s := q.pending[n].frame.size()
		if n > 0 && size+s > room {
			break
		}
		size += s
	}
	group = q.pending[:n:n]
	q.pending = q.pending[n:]
	q.group = group
	return group, size
}

func finish(group []*Pending, err error) {
	for _, p := range group {
		p.err, p.data = err, nil
		close(p.done)
	}
}

// commit makes a group durable. After a failed write it goes on in a new
// segment, once; after a write that found the disk full it makes room first,
// as often as there is something to drop.
func (q *Queue) commit(group []*Pending, size int64) error {
	var failed error
	for {
		err := q.prepare(size)
		if errors.Is(err, errNoRoomYet) || errors.Is(err, ErrFull) {
			return errors.Join(err, failed)
		}
		if err == nil {
			err = q.write(group)
		}
		if err == nil {
			q.publish(group, size)
			return nil
		}
		q.abandon()
		q.mu.Lock()
		full := durable.IsFull(err)
		if full {
			q.ceiling, q.lifted = max(q.used-1, 1), time.Now().Add(fullPause)
		}
		q.failLocked(err)
		q.mu.Unlock()
		if failed != nil && !full {
			return err
		}
		failed = err
	}
}

// prepare makes sure of a segment and of the room in it, and reserves it.
func (q *Queue) prepare(size int64) error {
	for {
		if s := q.active; s != nil && s.end+size+footerSize > q.segmentBytes() {
			if err := q.roll(); err != nil {
				return err
			}
		}
		after, growth := q.growth(size)
		cause, ok := q.fits(growth)
		switch {
		case ok && q.active == nil:
			return q.begin(after)
		case ok:
			q.mu.Lock()
			q.resizeLocked(q.active, after)
			q.mu.Unlock()
			return nil
		}
		if err := q.evict(cause); err != nil {
			return err
		}
	}
}

// segmentBytes returns how large a segment may grow: while the disk is full an
// eighth of what there is, so that making room costs no more than that.
func (q *Queue) segmentBytes() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ceiling > 0 {
		return max(min(q.options.SegmentBytes, q.ceiling/8), block)
	}
	return q.options.SegmentBytes
}

// growth returns how large the segment will be, footer included, and how much
// more the folder will take up.
func (q *Queue) growth(size int64) (after, growth int64) {
	if q.active == nil {
		after = headerSize + size + footerSize
		return after, blocks(after)
	}
	after = q.active.end + size + footerSize
	return after, blocks(after) - blocks(q.active.size)
}

// fits reports whether the folder may grow so much, and if not, why.
func (q *Queue) fits(growth int64) (cause string, ok bool) {
	free := int64(-1)
	if q.options.MinFreeBytes > 0 {
		if n, err := q.dir.Free(); q.noted(err) == nil {
			free = n
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case free >= 0 && free-growth < q.options.MinFreeBytes:
		if q.ceiling == 0 || q.ceiling > q.used {
			q.ceiling = q.used
		}
	case !time.Now().Before(q.lifted):
		q.ceiling = 0
	}
	if q.ceiling > 0 && q.used+growth > q.ceiling {
		return CauseDiskFull, false
	}
	return CauseQueueFull, q.used+growth <= q.options.MaxBytes
}

// begin creates the next segment, reserving size for it. Its header is written
// with the first group. The folder is synced before the segment grows: what was
// removed to make room must not come back beside it.
func (q *Queue) begin(size int64) error {
	if err := q.ensureCursor(); err != nil {
		return err
	}
	q.mu.Lock()
	s := &segment{id: q.fresh, salt: saltOf(q.stream, q.fresh), base: q.next, last: q.next - 1}
	q.fresh++
	q.mu.Unlock()
	f, err := q.dir.Create(s.name())
	if err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	q.file = f
	q.mu.Lock()
	q.active = s
	q.segments = append(q.segments, s)
	q.resizeLocked(s, size)
	q.mu.Unlock()
	if err := q.syncFolder(); err != nil {
		return err
	}
	q.removeStubs()
	return nil
}

// removeStubs removes segments that got no record, now that the name of a newer
// one keeps their ids from being used again.
func (q *Queue) removeStubs() {
	q.reading.Lock()
	defer q.reading.Unlock()
	for _, s := range slices.Clone(q.segments) {
		if !s.stub {
			continue
		}
		if err := q.remove(s); q.noted(err) != nil {
			continue // with the next segment
		}
		q.mu.Lock()
		q.dropLocked(s)
		q.mu.Unlock()
	}
}

// ensureCursor makes the first cursor, so that the stream's id is on the disk
// twice before the first number is, and mends one that has lost a slot.
func (q *Queue) ensureCursor() error {
	q.reading.Lock()
	defer q.reading.Unlock()
	c := &q.cursor
	if c.begun && !c.torn && (c.generation > 1 || c.durable) {
		return nil
	}
	// One that an earlier process wrote may be in the cache alone, and marked as
	// clean there: it is written again. And one that it tore there may be whole on
	// the disk, with numbers that are given again now: it is written over.
	if err := c.write(q.mark()); err != nil {
		return err
	}
	if err := c.sync(); err != nil {
		return err
	}
	c.torn = false
	return nil
}

// write puts the group behind the durable frames and syncs it.
func (q *Queue) write(group []*Pending) error {
	s := q.active
	o := output{file: q.file, off: s.end, buf: q.out[:0]}
	if s.end == 0 {
		o.buf = header{s.id, q.stream, s.base, time.Now().UnixNano()}.append(o.buf)
	}
	for _, p := range group {
		o.frame(p.frame, s.salt, p.data)
	}
	o.flush()
	if cap(o.buf) <= outBuffer {
		q.out = o.buf
	}
	if o.err != nil {
		return fmt.Errorf("write segment %016x: %w", s.id, o.err)
	}
	if err := q.file.Sync(); err != nil {
		return fmt.Errorf("sync segment %016x: %w", s.id, err)
	}
	return nil
}

// publish lets the group be read: it is durable.
func (q *Queue) publish(group []*Pending, size int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.active
	if q.unreadLocked() == 0 {
		q.oldest = group[0].frame.time
	}
	s.end = max(s.end, headerSize) + size
	for _, p := range group {
		s.extend(p.frame)
	}
	q.next = s.last + 1
	q.tellLocked() // the segment's base is beyond all that Open found lost
	if q.pos.segment == nil {
		q.pos = position{segment: s, offset: headerSize, last: s.base - 1}
	}
	q.state = "ok"
	if q.used+q.options.SegmentBytes > q.options.MaxBytes {
		q.state = "full"
	}
	if q.ceiling > 0 {
		q.state = "disk_full"
	}
	signal(q.ready)
}

// roll ends the active segment. The footer saves the next start a scan, no
// more: it is not synced, and a failure to write it does not lose a record.
func (q *Queue) roll() error {
	s, f := q.active, q.file
	err := s.seal(f, false) // each group was synced
	err = errors.Join(err, f.Close())
	q.mu.Lock()
	defer q.mu.Unlock()
	q.active, q.file = nil, nil
	if err != nil {
		q.failLocked(err)
	} else {
		s.sealed = true
	}
	return nil
}

// abandon ends the active segment after a failed write: what lies behind the
// durable frames must not come back, now that their numbers will be used again.
// The next segment's base says so to a later start, too. Meanwhile no
// acknowledgement may remove the segment, which could be seen as done.
func (q *Queue) abandon() {
	s := q.active
	if s == nil {
		return // there was none to be had
	}
	q.reading.Lock()
	defer q.reading.Unlock()
	err := q.file.Close()
	q.mu.Lock()
	q.active, q.file = nil, nil
	q.mu.Unlock()
	if s.end > 0 {
		err = errors.Join(err, q.settle(s))
	} else {
		err = errors.Join(err, q.discard(s))
	}
	if err != nil {
		q.mu.Lock()
		q.failLocked(err)
		q.mu.Unlock()
	}
}

// discard removes a segment that got no record, once the cursor keeps its id from
// being used again; until then its name does. The caller holds reading.
func (q *Queue) discard(s *segment) error {
	s.stub = true
	err := q.cursor.write(q.mark())
	if err == nil {
		err = q.cursor.sync()
	}
	if err == nil {
		err = q.remove(s)
	}
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropLocked(s)
	return nil
}

// settle seals a segment durably through a descriptor of its own.
func (q *Queue) settle(s *segment) error {
	f, err := q.dir.Open(s.name(), true)
	if err != nil {
		return fmt.Errorf("seal segment %016x: %w", s.id, err)
	}
	err = s.seal(f, true)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	s.sealed = true
	q.resizeLocked(s, s.end+footerSize)
	return nil
}

// An output gathers what is written to a file in order, and remembers the first
// error.
type output struct {
	file file
	off  int64 // of buf in the file
	buf  []byte
	err  error
}

func (o *output) frame(f frame, salt uint32, data []byte) {
	if len(o.buf)+frameSize > outBuffer {
		o.flush()
	}
	o.buf = f.append(o.buf, salt, o.off+int64(len(o.buf)))
	if len(data) < directBytes {
		if len(o.buf)+len(data)+frameAlign > outBuffer {
			o.flush()
		}
		o.buf = append(o.buf, data...)
	} else {
		o.flush()
		o.write(data)
	}
	var zeros [frameAlign]byte
	o.buf = append(o.buf, zeros[:f.size()-frameSize-int64(len(data))]...)
}

func (o *output) flush() {
	o.write(o.buf)
	o.buf = o.buf[:0]
}

func (o *output) write(b []byte) {
	if o.err == nil && len(b) > 0 {
		_, o.err = o.file.WriteAt(b, o.off)
	}
	o.off += int64(len(b))
}
