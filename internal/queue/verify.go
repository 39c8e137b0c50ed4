package queue

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"iter"
	"slices"
)

// Damage is a place that does not hold what was written there.
type Damage struct {
	File          string // "" where no file holds the numbers
	Offset, Bytes int64
	What          string
	First, Last   uint64 // the numbers that cannot be read for it; 0 if there are none
}

func (d *Damage) Error() string {
	s := d.What
	if d.File != "" {
		s = fmt.Sprintf("%s: %d bytes at offset %d: %s", d.File, d.Bytes, d.Offset, s)
	}
	if d.First > 0 {
		s += fmt.Sprintf(": numbers %d to %d", d.First, d.Last)
	}
	return s
}

// Findings are what Verify found.
type Findings struct {
	Records, Events uint64 // that hold, delivered ones too
	Bytes           int64  // read
	Tail            int64  // bytes at the end of the newest segment that never became durable: no damage
	Damage          []*Damage
}

// Verify reads every byte of the files of the inspection. What the agent
// removes meanwhile is passed over.
func (in *Inspection) Verify() (*Findings, error) {
	v := &Findings{Damage: in.cursorDamage()}
	if in.Cursor.Exists {
		v.Bytes += in.Cursor.size
	}
	expected := in.Acked + 1
	for i := range in.Segments {
		s, next := &in.Segments[i], in.promised
		newest := i == len(in.Segments)-1
		if !newest {
			next = in.Segments[i+1].Base
		}
		v.lacks(in.hole(expected, s.Base))
		end, err := in.check(v, s, newest, next)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("verify %s: %w", s.Name, err)
		}
		expected = max(expected, end)
	}
	v.lacks(in.hole(expected, in.promised))
	return v, nil
}

// hole returns the damage that numbers from first to before end are in no
// segment, or nil. Those that went to make room are not damage.
func (in *Inspection) hole(first, end uint64) *Damage {
	if first = max(first, in.Acked+1, in.Dropped+1); first >= end {
		return nil
	}
	return &Damage{What: "no segment holds them", First: first, Last: end - 1}
}

// lacks adds a damage, if there is one.
func (v *Findings) lacks(d *Damage) {
	if d != nil {
		v.Damage = append(v.Damage, d)
	}
}

// cursorDamage tells of the cursor. Its damage costs no event: what it forgot is
// delivered again.
func (in *Inspection) cursorDamage() (list []*Damage) {
	c := &in.Cursor
	switch {
	case len(in.Segments) == 0 && (!c.Exists || c.Slots == [2]SlotState{SlotEmpty, SlotEmpty}):
		return nil // nothing was ever appended: the cursor is on the disk before the first segment
	case !c.Exists:
		return []*Damage{{File: cursorName, What: "is missing"}}
	}
	for i, s := range c.Slots {
		if s == SlotDamaged || s == SlotEmpty && !c.Found {
			list = append(list, &Damage{File: cursorName, Offset: int64(i) * slotGap, Bytes: slotSize, What: fmt.Sprintf("slot %d does not hold", i)})
		}
	}
	if c.stray {
		list = append(list, &Damage{File: cursorName, Offset: slotSize, Bytes: slotGap - slotSize, What: "between the slots should be zeros"})
	}
	if c.size < cursorSize {
		list = append(list, &Damage{File: cursorName, Offset: c.size, Bytes: cursorSize - c.size, What: "is cut off"})
	}
	return list
}

// check reads a segment, behind which the numbers go on with next. It returns
// the number after the last that is accounted for: it holds, or is in a damage.
func (in *Inspection) check(v *Findings, s *SegmentInfo, newest bool, next uint64) (end uint64, err error) {
	if !s.header && (s.Records > 0 || s.Sealed) {
		v.lacks(&Damage{File: s.Name, Bytes: min(s.Size, headerSize), What: "the header does not hold"})
	}
	tail, end := s.Tail, s.Last+1
	err = in.walk(s, func(r Record, d *Damage) bool {
		if newest && s.unfinished(r, d) {
			tail, end = s.Size-d.Offset, max(d.First, 1)
			return true
		}
		v.lacks(d)
		if r.Count > 0 {
			v.Records++
			v.Events += uint64(r.Count)
		}
		return true
	})
	v.Bytes += s.Size
	switch hole := in.hole(end, next); {
	case s.Sealed:
	case tail > 0 && hole != nil:
		v.lacks(&Damage{s.Name, s.Size - tail, tail, "these bytes were records", hole.First, hole.Last})
		end = next
	case newest:
		v.Tail = tail
	case s.Records > 0: // a newer one was begun, so this one was ended
		v.lacks(&Damage{File: s.Name, Offset: s.end, Bytes: tail, What: "the footer does not hold"})
	}
	return end, err
}

// unfinished reports whether a damage in the newest segment looks like a write
// that never became durable: nothing is behind it, footer included.
func (s *SegmentInfo) unfinished(r Record, d *Damage) bool {
	return d != nil && r.Count == 0 && !s.Sealed && d.Offset+d.Bytes >= s.end
}

// Records returns what is not delivered, oldest first, or all that is still on
// the disk. In the place of a record that cannot be read it gives the *Damage.
// The data can be read until the next step.
func (in *Inspection) Records(all bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for i := range in.Segments {
			s := &in.Segments[i]
			if s.Last <= in.Acked && !all {
				continue
			}
			more := true
			err := in.walk(s, func(r Record, d *Damage) bool {
				switch {
				case r.Count > 0 && (all || r.last() > in.Acked):
					more = yield(r, nil)
				case i == len(in.Segments)-1 && s.unfinished(r, d):
				case r.Count == 0 && d.First > 0 && (all || d.Last > in.Acked):
					more = yield(Record{}, d)
				}
				return more
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				more = more && yield(Record{}, fmt.Errorf("read segment %s: %w", s.Name, err))
			}
			if !more {
				return
			}
		}
	}
}

// walk visits what lies in s, in order: records, each with Count > 0, and damage
// in the place of a record or beside one.
func (in *Inspection) walk(s *SegmentInfo, visit func(Record, *Damage) bool) error {
	if s.Records == 0 {
		return nil
	}
	f, err := in.dir.Open(s.Name, false)
	if err != nil {
		return err
	}
	defer f.Close()
	w := walker{scanner: scanner{file: f, salt: s.salt, limit: s.end}, s: s, off: headerSize, last: s.Base - 1}
	for w.off < s.end {
		if r, d := w.step(); !visit(r, d) {
			return nil
		}
	}
	return nil
}

// A walker reads the frames of a segment and all of their bytes.
type walker struct {
	scanner
	s    *SegmentInfo
	off  int64
	last uint64 // the last number before off
	data []byte
}

// step reads what lies at off and goes past it.
//
// In a segment that is being written, what is seen half written is whole when it
// is looked at again after something behind it was seen: it is written in order.
func (w *walker) step() (Record, *Damage) {
	r, d, off, last := w.look()
	if d != nil && !w.s.Sealed {
		w.buf = nil
		r, d, off, last = w.look()
	}
	w.off, w.last = off, last
	return r, d
}

func (w *walker) look() (r Record, d *Damage, off int64, last uint64) {
	f, at, ok := w.next(w.off)
	switch {
	case !ok || f.last() > w.s.Last: // what its own footer does not know cannot be believed
		return r, w.damage(w.s.end, w.s.Last, "no record is here"), w.s.end, w.s.Last
	case at > w.off:
		return r, w.damage(at, f.first-1, "no record is here"), at, max(w.last, f.first-1)
	case f.first <= w.last:
		return r, &Damage{File: w.s.Name, Offset: at, Bytes: f.size(), What: "the numbers of this record were given before"}, at + f.size(), w.last
	}
	off, last = at+f.size(), f.last()
	w.data = slices.Grow(w.data[:0], int(f.size()-frameSize))[:f.size()-frameSize]
	_, err := readPages(w.file, w.data, at+frameSize)
	switch data := w.data[:f.length]; {
	case crc32.Checksum(data, castagnoli) == f.crc:
		r = Record{f.first, f.count, data}
		if !isZero(w.data[f.length:]) {
			d = &Damage{File: w.s.Name, Offset: at + frameSize + int64(f.length), Bytes: f.size() - frameSize - int64(f.length), What: "behind a record should be zeros"}
		}
	default:
		w.last = f.first - 1 // numbers that the writer jumped over are not in it
		d = w.damage(off, last, "the record does not hold")
		if err != nil {
			d.What = fmt.Sprintf("the record cannot be read: %v", err)
		}
	}
	return r, d, off, last
}

// damage tells of what lies between off and end, with the numbers up to last.
func (w *walker) damage(end int64, last uint64, what string) *Damage {
	d := &Damage{File: w.s.Name, Offset: w.off, Bytes: end - w.off, What: what}
	if last > w.last {
		d.First, d.Last = w.last+1, last
	}
	return d
}
