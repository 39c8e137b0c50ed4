package queue

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rea-agent/rea/internal/durable"
)

// recover builds the state from what lies in the folder. It fails if the folder
// cannot be listed, or a file in it not be opened or read for a reason that may pass.
func (q *Queue) recover() error {
	entries, err := q.dir.List()
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	m, found, err := q.cursor.load()
	if durable.IsOfTheMoment(err) {
		return err
	}
	q.noteLocked(err)
	var files []entry
	for _, e := range entries {
		id, ok := segmentID(e.name)
		if ok {
			q.fresh = max(q.fresh, id)
		}
		switch {
		case ok && !e.other:
			files = append(files, e)
		case e.name != cursorName && e.name != lockName:
			q.alien += blocks(e.size)
		}
	}
	q.fresh = max(q.fresh+1, m.fresh)
	slices.SortFunc(files, func(a, b entry) int { return strings.Compare(b.name, a.name) })
	q.stream = m.stream
	if !found {
		if q.stream, err = q.streamOf(files); err != nil {
			return err
		}
	}
	if err := q.load(files); err != nil {
		return err
	}
	q.used += q.alien + blocks(cursorSize)
	q.number(m, found)
	_ = q.noted(q.assure()) // what it could not save is not read, cut off or told
	if !q.suspect && q.sealAll() {
		q.removeEmpty()
	}
	q.countCut()
	q.locate(m, found)
	if q.unreadLocked() > 0 {
		signal(q.ready)
	}
	return nil
}

// streamOf returns the id that the newest segment names, or a new one. It fails if
// one that may name it cannot be opened or read for a reason that may pass.
func (q *Queue) streamOf(newestFirst []entry) (s Stream, err error) {
	for _, e := range newestFirst {
		id, _ := segmentID(e.name)
		h, ok, err := q.readHeader(e.name)
		if durable.IsOfTheMoment(err) {
			return s, err
		}
		if ok && h.id == id {
			return h.stream, nil
		}
	}
	rand.Read(s[:]) // never fails: crypto/rand
	return s, nil
}

func (q *Queue) readHeader(name string) (h header, ok bool, err error) {
	f, err := openAgain(q.dir, name)
	if err != nil {
		return h, false, fmt.Errorf("open segment: %w", err)
	}
	defer f.Close()
	var b [headerSize]byte
	if err := readAgain(f, b[:], 0); err != nil {
		return h, false, fmt.Errorf("read segment: %w", err)
	}
	h, ok = decodeHeader(b[:])
	return h, ok, nil
}

// load lists the segments. It goes from the newest to the oldest, since what a
// segment may hold ends where the next one begins.
func (q *Queue) load(newestFirst []entry) error {
	bound := uint64(maxNumber)
	for _, e := range newestFirst {
		s, err := q.loadSegment(e, bound)
		if err != nil {
			return err
		}
		if s == nil {
			q.alien += blocks(e.size)
			continue
		}
		if s.base > 0 {
			bound = min(bound, s.base)
		}
		if s.records == 0 {
			s.base, s.end = max(s.base, 1), 0
		} else if !s.sealed {
			s.size += footerSize
		}
		q.used += blocks(s.size)
		q.segments = append(q.segments, s)
	}
	slices.Reverse(q.segments)
	return nil
}

// loadSegment learns what a file holds below the number bound. It returns
// nil for a file that is not of this queue: it is counted and left alone.
func (q *Queue) loadSegment(e entry, bound uint64) (*segment, error) {
	id, _ := segmentID(e.name)
	s := &segment{id: id, salt: saltOf(q.stream, id), size: e.size, found: true}
	f, err := openAgain(q.dir, e.name)
	if err != nil {
		err = fmt.Errorf("open segment: %w", err)
		if durable.IsOfTheMoment(err) {
			return nil, err
		}
		q.noteLocked(err)
		q.hide(bound, 1, e.size)
		s.unread = true
		return s, nil
	}
	defer f.Close()
	if s.loadFooter(f) && s.last < bound {
		return s, nil
	}
	*s = segment{id: id, salt: s.salt, size: e.size, found: true}
	sc := scanner{file: f, salt: s.salt, limit: e.size}
	if e.size >= headerSize {
		h, ok := decodeHeader(sc.window(0, headerSize))
		if ok && (h.stream != q.stream || h.id != id) {
			q.noteLocked(fmt.Errorf("segment %s belongs to queue %s and is left alone", e.name, h.stream))
			return nil, nil
		}
		s.base = h.base
	}
	s.loadFrames(&sc, bound)
	if durable.IsOfTheMoment(sc.err) {
		return nil, fmt.Errorf("read segment: %w", sc.err)
	}
	q.noteLocked(sc.err)
	if sc.blind > s.end {
		q.hide(bound, s.last+1, e.size-s.end)
	}
	s.unread = sc.err != nil
	return s, nil
}

// hide notes that records from number next on may lie in size bytes at the end
// of the queue which the disk does not give back. Nobody knows how many numbers
// they had; to use none of them again, one for each byte is passed over and so
// declared lost. Where a newer segment has a base there is no need.
func (q *Queue) hide(bound, next uint64, size int64) {
	q.suspect = true
	if bound == maxNumber {
		q.next = max(q.next, next)
		q.hidden += uint64(size)
	}
}

// number finds the next free number, and the holes in the numbers that nobody
// delivered: segments that went to make room, or whose end or file is gone. What
// it finds lost is withheld: the next number may come from the newer slot of the
// cursor, and the next write could tear that.
func (q *Queue) number(m mark, found bool) {
	q.acked, q.dropped = m.acked, m.dropped
	q.next = max(1, m.next, q.next)
	oldest := uint64(0)
	for _, s := range q.segments {
		q.next = max(q.next, s.base, s.last+1)
		if oldest == 0 && s.records > 0 {
			oldest = s.base
		}
	}
	if !found {
		q.acked = max(oldest, 1) - 1
		if oldest == 0 {
			q.acked = q.next - 1
		}
	}
	q.next += q.hidden
	q.tail = q.next
	slices.SortFunc(m.losses, func(a, b Loss) int { return cmp.Compare(a.First, b.First) })
	q.losses, q.withheld = slices.Clone(m.losses), true
	for _, h := range untold(q.holes(), m.losses, q.acked) {
		q.holeLocked(h)
	}
	q.withheld = len(q.losses) > 0
}

// A hole is numbers that no segment holds, from first to before end.
type hole struct{ first, end uint64 }

// holes returns those behind what is acknowledged.
func (q *Queue) holes() (list []hole) {
	expected := q.acked + 1
	for _, s := range q.segments {
		if s.records > 0 {
			list = append(list, hole{expected, s.base})
			expected = max(expected, s.last+1)
		}
	}
	return append(list, hole{expected, q.next})
}

// untold returns what of the holes the cursor did not tell. Of losses that it had to
// join nobody knows which numbers they count: they tell of the holes in their run if
// they count all that may be lost in it. If not, some of it is told again, lest what
// was dropped there since be silent. So are numbers that the writer jumped over.
func untold(holes []hole, told []Loss, acked uint64) []hole {
	alone := func(l Loss) bool { return l.Count > l.Last-l.First }
	holes = without(holes, slices.DeleteFunc(slices.Clone(told), func(l Loss) bool { return !alone(l) }))
	joined := slices.DeleteFunc(slices.Clone(told), alone)
	joined = slices.DeleteFunc(joined, func(l Loss) bool {
		lost := min(max(acked+1, l.First), l.Last+1) - l.First // or delivered
		for _, h := range holes {
			if from, to := max(h.first, l.First), min(h.end, l.Last+1); from < to {
				lost += to - from
			}
		}
		return lost > l.Count
	})
	return without(holes, joined)
}

// without takes losses, which are in order, out of holes.
func without(holes []hole, losses []Loss) (rest []hole) {
	for _, h := range holes {
		for _, l := range losses {
			if l.First >= h.end || l.Last < h.first {
				continue
			}
			if h.first < l.First {
				rest = append(rest, hole{h.first, l.First})
			}
			h.first = l.Last + 1
		}
		if h.first < h.end {
			rest = append(rest, h)
		}
	}
	return rest
}

// holeLocked declares the numbers of a hole lost.
func (q *Queue) holeLocked(h hole) {
	for first := h.first; first < h.end; {
		cause, to := CauseDamaged, h.end
		if first <= q.dropped {
			cause, to = CauseQueueFull, min(h.end, q.dropped+1)
		}
		q.loseLocked(Loss{Cause: cause, First: first, Last: to - 1, Count: to - first})
		first = to
	}
}

// assure makes the next number durable if what Open found may not be: before a
// number is read or told lost, and before the end of a segment is cut off that
// the disk did not give back, since no number may be used again.
func (q *Queue) assure() error {
	if !q.suspect && !q.withholds() {
		return nil
	}
	if err := q.cursor.settle(q.mark()); err != nil {
		return err
	}
	if err := q.syncFolder(); err != nil {
		return err
	}
	q.suspect = false
	q.mu.Lock()
	q.tellLocked()
	q.mu.Unlock()
	return nil
}

// sealAll makes durable what an earlier process wrote and did not seal, names
// included. If the disk refuses, the queue works on, and makes sure of the next
// number before anything can be read.
func (q *Queue) sealAll() (ok bool) {
	ok = true
	found := false
	note := func(err error) {
		q.noteLocked(err)
		q.suspect, ok = true, false
	}
	for _, s := range q.segments {
		if s.sealed || s.records == 0 {
			continue
		}
		found = true
		err := q.rewrite(s)
		if err == nil {
			err = q.settle(s)
		}
		if err != nil {
			note(err)
		}
	}
	if found {
		if err := q.syncFolder(); err != nil {
			note(err)
		}
	}
	return ok
}

// countCut counts what an earlier process may have cut off the segments that
// could not be sealed: it may come back.
func (q *Queue) countCut() {
	for _, s := range q.segments {
		if !s.sealed && s.records > 0 {
			q.resizeLocked(s, max(s.size, q.options.SegmentBytes))
		}
	}
}

// rewrite writes the frames of a segment over themselves. A sync that failed in
// an earlier process may have left them in the cache alone, and marked as clean:
// a sync of this process would do nothing, and say that all is well. What cannot
// be read cannot be handed out either, and is passed over.
func (q *Queue) rewrite(s *segment) error {
	f, err := q.dir.Open(s.name(), true)
	if err != nil {
		return fmt.Errorf("rewrite segment %016x: %w", s.id, err)
	}
	var b [page]byte
	for off := int64(0); off < s.end && err == nil; off += page {
		p := b[:min(page, s.end-off)]
		if readAgain(f, p, off) == nil {
			_, err = f.WriteAt(p, off)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("rewrite segment %016x: %w", s.id, err)
	}
	return nil
}

// removeEmpty removes segments without a record. Until now their bases ended
// what older segments may hold; now those are sealed. And their names kept their
// ids from being used again; now the cursor does. It ends at one that was not
// read whole: nobody can seal that.
func (q *Queue) removeEmpty() {
	if !slices.ContainsFunc(q.segments, func(s *segment) bool { return s.records == 0 && !s.unread }) {
		return
	}
	if err := q.cursor.settle(q.mark()); err != nil {
		q.noteLocked(err)
		return
	}
	for _, s := range slices.Clone(q.segments) {
		switch {
		case s.records > 0:
			continue
		case s.unread:
			return
		}
		if err := q.dir.Remove(s.name()); err != nil {
			q.noteLocked(err)
			continue
		}
		q.dropLocked(s)
	}
}

// locate finds the first record that is not acknowledged: where the cursor
// says, if a frame lies there, or by reading the frames before it. A cursor that
// counts more before it than a scan found is not followed: there was damage.
func (q *Queue) locate(m mark, found bool) {
	i := slices.IndexFunc(q.segments, func(s *segment) bool { return s.records > 0 && s.last > q.acked })
	if i < 0 {
		return
	}
	q.pos.last = q.acked
	q.seekLocked(i)
	s := q.segments[i]
	if s.base > q.acked {
		return
	}
	f, err := openAgain(q.dir, s.name())
	if err != nil {
		q.noteLocked(err)
		return
	}
	defer f.Close()
	sc := scanner{file: f, salt: s.salt, limit: s.end}
	counts := m.records < s.records && m.events < s.events
	if found && counts && m.segment == s.id && m.offset >= headerSize && m.offset < s.end && m.offset%frameAlign == 0 {
		if f, at, ok := sc.next(m.offset); ok && at == m.offset && f.last() > q.acked {
			q.pos.offset, q.pos.records, q.pos.events, q.oldest = at, m.records, m.events, f.time
			return
		}
	}
	p, oldest, ok := skipAcked(&sc, q.pos, q.acked)
	if q.pos = p; ok {
		q.oldest = oldest
	}
}

// noteLocked keeps an error of the start for Stats.
func (q *Queue) noteLocked(err error) {
	if err != nil {
		q.failLocked(err)
	}
}
