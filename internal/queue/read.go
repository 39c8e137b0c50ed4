package queue

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/rea-agent/rea/internal/durable"
)

const (
	keepBuffer = 64 << 10 // the read buffer that an empty queue keeps
	maxStrikes = 3        // reads that fail in a row before what they read is given up
)

// Peek appends to dst the durable records that are not acknowledged, oldest
// first: at least one if there is any, and then as many as lie together and
// make up about size bytes. Without an Ack it returns the same again. The data
// can be read until the next Peek or Ack.
//
// Records that are damaged are skipped and become Losses. An error means that
// the disk could not be read; after some of them in a row what lies there is
// given up as damaged, but not because a file cannot be opened or read at the moment.
func (q *Queue) Peek(dst []Record, size int) ([]Record, error) {
	q.reading.Lock()
	defer q.reading.Unlock()
	q.flight = q.flight[:0]
	if err := q.noted(q.assure()); err != nil && q.suspect { // else it only keeps losses back
		return dst, err
	}
	for {
		v, err := q.front()
		if err != nil {
			return dst, err
		}
		if v.offset >= v.end {
			return dst, nil
		}
		if err := q.noted(q.vouch(v.segment)); err != nil {
			return dst, err
		}
		damaged, err := q.fill(v, int64(size))
		if err != nil {
			return dst, err
		}
		if damaged {
			q.skipDamage(v)
		}
		if len(q.flight) > 0 {
			q.mu.Lock()
			q.handed = max(q.handed, q.flight[len(q.flight)-1].frame.last())
			q.oldest = q.flight[0].frame.time
			q.mu.Unlock()
			return q.appendFlight(dst, v.offset), nil
		}
	}
}

// vouch sees to it that no number in s can come back as another record, before s
// is read. An earlier process wrote s, and this one could not make it durable: a
// power cut may take it. Then what failed writes left in older segments, behind its
// base, would be believed. So these go first; all of them are done.
func (q *Queue) vouch(s *segment) error {
	q.mu.Lock()
	safe := !s.found || s.sealed || q.segments[0] == s && q.ghosts == 0
	done := q.doneLocked()
	q.mu.Unlock()
	if safe {
		return nil
	}
	if err := q.cursor.settle(q.mark()); err != nil {
		return err
	}
	return q.removeDone(done)
}

// appendFlight appends the records that lie in buf, which was read from off.
func (q *Queue) appendFlight(dst []Record, off int64) []Record {
	for _, r := range q.flight {
		data := q.buf[r.end-r.frame.size()-off:][frameSize:]
		dst = append(dst, Record{r.frame.first, r.frame.count, data[:r.frame.length:r.frame.length]})
	}
	return dst
}

// A view is a position, and what was true of its segment when it was taken.
type view struct {
	position
	end   int64  // of the durable frames
	final uint64 // the last number before end
	acked uint64
}

// front returns the view of the first record that is not acknowledged, with
// the file of its segment open. At the end of the queue offset is at end.
func (q *Queue) front() (view, error) {
	q.mu.Lock()
	q.settlePosLocked()
	v := view{position: q.pos, acked: q.acked}
	if s := v.segment; s != nil {
		v.end, v.final = s.end, s.last
	}
	closed := q.closed
	q.mu.Unlock()
	if closed {
		return view{}, ErrClosed
	}
	if v.offset >= v.end {
		return v, nil
	}
	if err := q.openIn(v.segment); err != nil {
		if durable.IsOfTheMoment(err) {
			return v, q.noted(err)
		}
		if err = q.readFailed(v.segment, err); q.strikes < maxStrikes {
			return v, err
		}
		q.strikes = 0
		q.pass(v, v.end, CauseDamaged, v.final, v.final-v.last, v.segment.newest)
		return q.front()
	}
	return v, nil
}

// settlePosLocked moves pos on from the end of a segment that will not grow.
func (q *Queue) settlePosLocked() {
	for s := q.pos.segment; s != nil && s != q.active && q.pos.offset >= s.end; s = q.pos.segment {
		q.seekLocked(slices.Index(q.segments, s) + 1)
	}
}

func (q *Queue) openIn(s *segment) error {
	if q.in != nil && q.inID == s.id {
		return nil
	}
	if err := q.closeIn(); err != nil {
		return err
	}
	f, err := q.dir.Open(s.name(), false)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	q.in, q.inID, q.strikes = f, s.id, 0
	return nil
}

// closeIn closes the file being read.
func (q *Queue) closeIn() error {
	if q.in == nil {
		return nil
	}
	err := q.in.Close()
	if q.in, q.strikes = nil, 0; err != nil {
		return fmt.Errorf("close segment %016x: %w", q.inID, err)
	}
	return nil
}

// readFailed keeps an error for Stats and counts it. What fails in one segment
// says nothing about the next.
func (q *Queue) readFailed(s *segment, err error) error {
	if q.struck != s.id {
		q.struck, q.strikes = s.id, 0
	}
	q.strikes++
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failLocked(err)
	return err
}

// fill reads records from v on into buf and flight. It stops in front of damage
// and reports it if there is no record before it.
func (q *Queue) fill(v view, max int64) (damaged bool, err error) {
	want := min(v.end-v.offset, max+frameSize+frameAlign)
	for {
		if err := q.read(v, want); err != nil {
			return false, err
		}
		want, damaged = q.parse(v, max)
		if len(q.flight) > 0 || damaged || want == 0 {
			return damaged, nil
		}
	}
}

// read fills buf with n bytes from v on.
func (q *Queue) read(v view, n int64) error {
	q.buf = slices.Grow(q.buf[:0], int(n))[:n]
	var err error
	if q.struck == v.segment.id && q.strikes >= maxStrikes {
		_, err = readPages(q.in, q.buf, v.offset)
	} else if _, err = q.in.ReadAt(q.buf, v.offset); durable.IsOfTheMoment(err) {
		return q.noted(fmt.Errorf("read segment: %w", err))
	} else if err != nil {
		return q.readFailed(v.segment, fmt.Errorf("read segment %016x: %w", v.segment.id, err))
	}
	if err == nil {
		q.strikes = 0
	}
	return nil
}

// parse finds the records in buf, which was read from v on. Without one it
// returns damaged, or how much must be read to see the first, or neither if it
// passed over records that need no delivery.
func (q *Queue) parse(v view, max int64) (want int64, damaged bool) {
	off, total, last := v.offset, int64(0), v.last
	for b := q.buf; len(b) > 0; {
		if len(b) < frameSize && off+int64(len(b)) < v.end {
			return q.wantMore(off - v.offset + frameSize), false
		}
		f, ok := decodeFrame(b, v.segment.salt, off, v.end)
		if !ok || f.last() > v.final { // beyond what its own footer told
			return 0, len(q.flight) == 0
		}
		if f.size() > int64(len(b)) {
			return q.wantMore(off - v.offset + f.size()), false
		}
		if total += int64(f.length); len(q.flight) > 0 && total > max {
			return 0, false
		}
		if f.last() <= last || f.last() <= v.acked {
			if len(q.flight) == 0 {
				q.pass(v, off+f.size(), "", f.last(), uint64(f.count), f.time)
			}
			return 0, false
		}
		if crc32.Checksum(b[frameSize:][:f.length], castagnoli) != f.crc {
			return 0, len(q.flight) == 0
		}
		last = f.last()
		off += f.size()
		b = b[f.size():]
		q.flight = append(q.flight, flying{f, off})
	}
	return 0, false
}

func (q *Queue) wantMore(n int64) int64 {
	if len(q.flight) > 0 {
		return 0
	}
	return n
}

// skipDamage goes past the damage at v to the next frame that holds.
func (q *Queue) skipDamage(v view) {
	sc := scanner{file: q.in, salt: v.segment.salt, limit: v.end}
	f, at, ok := sc.next(v.offset)
	ok = ok && f.last() <= v.final // or nothing in it can be believed
	switch {
	case ok && at == v.offset: // the numbers are known, the data are lost
		q.pass(v, at+f.size(), CauseDamaged, f.last(), uint64(f.count), f.time)
	case ok && f.first > v.last:
		q.pass(v, at, CauseDamaged, f.first-1, f.first-1-v.last, f.time)
	case ok:
		q.pass(v, at, CauseDamaged, v.last, 0, f.time)
	default:
		q.pass(v, v.end, CauseDamaged, v.final, v.final-v.last, v.segment.newest)
	}
}

// pass moves pos from v to offset without delivery of the numbers up to last.
// With a cause they are lost, as far as they are not acknowledged.
func (q *Queue) pass(v view, offset int64, cause string, last, count uint64, until uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pos.segment != v.segment {
		return
	}
	if first := max(v.last, v.acked) + 1; cause != "" && last >= first {
		q.loseLocked(Loss{cause, first, last, min(count, last-first+1), unix(q.oldest), unix(until)})
	}
	q.pos.offset = offset
	q.pos.last = max(q.pos.last, last)
	q.pos.records++
	q.pos.events += count
	q.pos.roundOff()
}

// Ack says that every number up to last is delivered. Segments that are done
// are removed. An error means that the cursor could not be written: a restart
// may deliver again what was acknowledged, and nothing is removed until a later
// Ack succeeds.
func (q *Queue) Ack(last uint64) error {
	q.reading.Lock()
	defer q.reading.Unlock()
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return ErrClosed
	case last >= q.next:
		defer q.mu.Unlock()
		return fmt.Errorf("acknowledge number %d: the next free number is %d", last, q.next)
	case last <= q.acked:
		q.mu.Unlock()
		return nil
	}
	q.acked = last
	q.land(last)
	q.settlePosLocked()
	v := view{position: q.pos, acked: last}
	if v.segment != nil {
		v.end = v.segment.end
	}
	q.mu.Unlock()
	if v.offset < v.end && len(q.flight) == 0 {
		q.walk(v)
	}
	if q.Stats().Records == 0 && cap(q.buf) > keepBuffer {
		q.buf = nil
	}
	return q.reap()
}

// land moves pos over the records in flight, and then over segments, up to
// last.
func (q *Queue) land(last uint64) {
	p := &q.pos
	for len(q.flight) > 0 && q.flight[0].frame.last() <= last {
		f := q.flight[0]
		p.offset, p.last = f.end, f.frame.last()
		p.records++
		p.events += uint64(f.frame.count)
		q.flight = q.flight[1:]
		p.roundOff()
	}
	if len(q.flight) > 0 {
		q.oldest = q.flight[0].frame.time
		return
	}
	for q.settlePosLocked(); p.segment != nil && p.segment.last <= last && p.offset < p.segment.end; q.settlePosLocked() {
		s := p.segment
		*p = position{s, s.end, s.last, s.records, s.events}
	}
}

// walk moves pos from v over records that are acknowledged and were not in
// flight, and learns the age of the first that is not.
func (q *Queue) walk(v view) {
	if q.openIn(v.segment) != nil {
		return // Peek will say so
	}
	p := v.position
	oldest, ok := uint32(0), false
	if v.last < v.acked {
		sc := scanner{file: q.in, salt: v.segment.salt, limit: v.end}
		p, oldest, ok = skipAcked(&sc, p, v.acked)
	} else {
		var b [frameSize]byte
		if _, err := q.in.ReadAt(b[:], p.offset); err == nil {
			var f frame
			f, ok = decodeFrame(b[:], v.segment.salt, p.offset, v.end)
			oldest = f.time
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pos.segment == v.segment {
		if q.pos = p; ok {
			q.oldest = oldest
		}
		q.pos.roundOff()
	}
}

// skipAcked returns the position after the frames from p on that are
// acknowledged, and the append time of the next one if it is found.
func skipAcked(sc *scanner, p position, acked uint64) (_ position, oldest uint32, ok bool) {
	for off := p.offset; ; {
		f, at, ok := sc.next(off)
		if !ok || f.last() > acked {
			return p, f.time, ok
		}
		off = at + f.size()
		p.offset, p.last = off, f.last()
		p.records++
		p.events += uint64(f.count)
	}
}

// reap saves the cursor and removes the segments before it. They go only after
// both slots say that they may: else the damage of one would make their absence
// look like a loss.
func (q *Queue) reap() error {
	q.mu.Lock()
	done := q.doneLocked()
	q.mu.Unlock()
	if len(done) == 0 {
		return q.noted(q.cursor.write(q.mark()))
	}
	if err := q.cursor.settle(q.mark()); err != nil {
		return q.noted(err)
	}
	_ = q.noted(q.removeDone(done)) // it is tried again; the acknowledgement itself is kept
	return nil
}

// doneLocked returns the segments before the one that is read.
func (q *Queue) doneLocked() (done []*segment) {
	for _, s := range q.segments {
		if s == q.active || s == q.pos.segment {
			break
		}
		done = append(done, s)
	}
	return done
}

// removeDone removes segments, the oldest first. What was cut off one that is not
// sealed must not outlive the segments behind it; one that is sealed, and that
// somebody holds, keeps no other.
func (q *Queue) removeDone(done []*segment) (err error) {
	if q.hasGhosts() {
		if err := q.syncFolder(); err != nil {
			return err
		}
	}
	for _, s := range done {
		if failed := q.remove(s); failed != nil {
			err = failed
			if !s.sealed {
				break
			}
			continue
		}
		q.mu.Lock()
		q.dropLocked(s)
		q.mu.Unlock()
		if !s.sealed {
			if err := q.syncFolder(); err != nil {
				return err
			}
		}
	}
	synced := q.syncFolder()
	if synced == nil {
		signal(q.freed)
	}
	return errors.Join(err, synced)
}

// noted keeps err for Stats and returns it.
func (q *Queue) noted(err error) error {
	if err != nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.failLocked(err)
	}
	return err
}

// Acked returns the highest number that is acknowledged.
func (q *Queue) Acked() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.acked
}
