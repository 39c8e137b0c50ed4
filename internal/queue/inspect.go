package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// An Inspection is how the folder of a queue looked when Inspect read it. What
// an agent writes and removes afterwards is not in it.
type Inspection struct {
	Stream    Stream
	Acked     uint64 // every number up to it is delivered, or was declared lost
	Next      uint64 // the next free number
	Dropped   uint64 // the highest number that went to make room
	Cursor    CursorInfo
	Losses    []Loss        // that the cursor remembers: the agent has yet to declare them
	Segments  []SegmentInfo // oldest first
	Foreign   []Foreign
	Waiting   Waiting
	DiskBytes int64 // of the folder, in blocks

	dir      reader
	promised uint64 // the next free number by the cursor, before the segments were read
}

// Waiting is what is not delivered.
type Waiting struct {
	Records, Events uint64
	Bytes           int64
	Oldest          time.Time // when the first of it was appended; zero if there is none
}

// A CursorInfo tells how the cursor file fares.
type CursorInfo struct {
	Exists     bool
	Found      bool   // a slot holds
	Generation uint64 // of the newer slot
	Slots      [2]SlotState

	size  int64
	stray bool // something lies between the slots
}

// A SlotState is what was found in a slot of the cursor.
type SlotState string

// The states of a slot. An empty one was never written.
const (
	SlotWhole   SlotState = "whole"
	SlotEmpty   SlotState = "empty"
	SlotDamaged SlotState = "damaged"
)

// A SegmentInfo tells of one segment, by its footer or else by its frames.
type SegmentInfo struct {
	ID              uint64
	Name            string
	Base            uint64 // the next free number when it began
	Last            uint64 // Base-1 if it is empty
	Records, Events uint64
	Size            int64 // of the file
	Tail            int64 // bytes behind the last frame and the footer
	Sealed          bool
	Oldest, Newest  time.Time // append times; zero if it is empty

	salt   uint32
	end    int64 // of the frames
	header bool  // it has one that holds
}

// A Foreign file lies in the folder and is not of the queue. The queue leaves it
// alone, and it takes up room within the bound.
type Foreign struct {
	Name  string
	Why   string
	Bytes int64
}

// inspectTries is how often an inspection begins anew because a segment went
// while it was reading.
const inspectTries = 5

// Inspect reads the folder of a queue. It takes no lock and writes nothing, so
// the agent may be running. What goes meanwhile was delivered, or dropped: the
// cursor, which is read last, tells.
func Inspect(dir string) (*Inspection, error) {
	in, err := inspect(shared(dir))
	if err != nil {
		return nil, fmt.Errorf("inspect queue %s: %w", dir, err)
	}
	return in, nil
}

func inspect(dir reader) (*Inspection, error) {
	for try := 1; ; try++ {
		in := &Inspection{dir: dir}
		calm, err := in.look()
		if err != nil || calm || try == inspectTries {
			return in, err
		}
	}
}

// look takes one snapshot. It is calm if nothing that was listed had gone when
// it was read.
//
// The order makes it hold together: every number below what the cursor promised
// before the segments were listed was durable in them, or had gone; and what had
// gone when they were read stands in the cursor that is read after them, since a
// queue saves the cursor before it removes.
func (in *Inspection) look() (calm bool, err error) {
	before, err := readCursor(in.dir)
	if err != nil {
		return false, err
	}
	entries, err := in.dir.List()
	if err != nil {
		return false, err
	}
	files := in.sort(entries)
	in.Stream, in.promised = before.stream, before.next
	if !before.Found {
		in.Stream = in.streamOf(files)
	}
	calm = true
	for bound, i := uint64(maxNumber), 0; i < len(files); i++ {
		s, err := in.load(files[i], bound)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			calm = false
			continue
		case err != nil:
			return false, err
		case s == nil: // foreign
			continue
		}
		if s.Base > 0 {
			bound = min(bound, s.Base)
		}
		in.Segments = append(in.Segments, *s)
	}
	slices.Reverse(in.Segments)
	after, err := readCursor(in.dir)
	if err != nil {
		return false, err
	}
	in.apply(after)
	same := !after.Found || after.stream == in.Stream // else it was swapped for another queue
	counted, err := in.count(after)
	return calm && counted && same, err
}

// sort returns the segments' files, newest first, and counts everything.
func (in *Inspection) sort(entries []entry) (files []entry) {
	for _, e := range entries {
		in.DiskBytes += blocks(e.size)
		if _, ok := segmentID(e.name); ok {
			files = append(files, e)
		} else if e.name != cursorName && e.name != lockName {
			in.Foreign = append(in.Foreign, Foreign{e.name, "no file of a queue", e.size})
		}
	}
	slices.SortFunc(files, func(a, b entry) int { return strings.Compare(b.name, a.name) })
	return files
}

// streamOf returns the id that the newest segment names.
func (in *Inspection) streamOf(newestFirst []entry) (s Stream) {
	for _, e := range newestFirst {
		f, err := in.dir.Open(e.name, false)
		if err != nil {
			continue
		}
		var b [headerSize]byte
		_, err = f.ReadAt(b[:], 0)
		_ = f.Close() // it was only read
		id, _ := segmentID(e.name)
		if h, ok := decodeHeader(b[:]); err == nil && ok && h.id == id {
			return h.stream
		}
	}
	return s
}

// load learns what a file holds below the number bound, as Open does. It
// returns nil for a file that is not of this queue.
func (in *Inspection) load(e entry, bound uint64) (*SegmentInfo, error) {
	id, _ := segmentID(e.name)
	f, err := in.dir.Open(e.name, false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size() // it may have grown since it was listed
	if err != nil {
		return nil, err
	}
	salt := saltOf(in.Stream, id)
	sc := scanner{file: f, salt: salt, limit: size}
	var h header
	whole := false
	if size >= headerSize {
		h, whole = decodeHeader(sc.window(0, headerSize))
	}
	if whole && (h.stream != in.Stream || h.id != id) {
		in.Foreign = append(in.Foreign, Foreign{e.name, fmt.Sprintf("segment %016x of queue %s", h.id, h.stream), size})
		return nil, nil
	}
	s := segment{id: id, salt: salt, size: size}
	if !s.loadFooter(f) || s.last >= bound {
		s = segment{id: id, salt: salt, size: size, base: h.base}
		s.loadFrames(&sc, bound)
	}
	return s.info(whole), nil
}

func (s *segment) info(header bool) *SegmentInfo {
	i := &SegmentInfo{
		ID: s.id, Name: s.name(), Base: max(s.base, 1), Last: s.last, Records: s.records, Events: s.events,
		Size: s.size, Tail: max(0, s.size-s.end), Sealed: s.sealed, Oldest: unix(s.oldest), Newest: unix(s.newest),
		salt: s.salt, end: s.end, header: header,
	}
	if s.sealed {
		i.Tail = 0
	}
	if s.records == 0 && !header && !s.sealed {
		i.Base, i.Last = 0, 0 // it may have begun anywhere
	}
	return i
}

// apply takes over what the cursor says, and learns the next number as Open does.
func (in *Inspection) apply(c cursorView) {
	in.Cursor, in.Losses = c.CursorInfo, c.losses
	in.Acked, in.Dropped, in.Next = c.acked, c.dropped, max(1, c.next)
	oldest := uint64(0)
	for i := range in.Segments {
		s := &in.Segments[i]
		in.Next = max(in.Next, s.Base, s.Last+1)
		if oldest == 0 && s.Records > 0 {
			oldest = s.Base
		}
	}
	if !c.Found && oldest > 0 {
		in.Acked = oldest - 1
	} else if !c.Found {
		in.Acked = in.Next - 1
	}
}

// count adds up what is not delivered. It returns false if a segment has gone.
func (in *Inspection) count(c cursorView) (bool, error) {
	for i := range in.Segments {
		s := &in.Segments[i]
		if s.Records == 0 || s.Last <= in.Acked {
			continue
		}
		p, oldest := position{offset: headerSize}, s.Oldest
		if s.Base <= in.Acked {
			var err error
			p, oldest, err = in.locate(s, c)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
		}
		w := &in.Waiting
		w.Records += s.Records - min(s.Records, p.records)
		w.Events += s.Events - min(s.Events, p.events)
		w.Bytes += max(0, s.end-p.offset)
		if w.Oldest.IsZero() {
			w.Oldest = oldest
		}
	}
	return true, nil
}

// locate finds the first record of s that is not delivered: where the cursor
// says, if a frame lies there, or by reading the frames before it.
func (in *Inspection) locate(s *SegmentInfo, c cursorView) (position, time.Time, error) {
	f, err := in.dir.Open(s.Name, false)
	if err != nil {
		return position{}, time.Time{}, err
	}
	defer f.Close()
	sc := scanner{file: f, salt: s.salt, limit: s.end}
	if c.segment == s.ID && c.offset >= headerSize && c.offset < s.end && c.offset%frameAlign == 0 {
		if f, at, ok := sc.next(c.offset); ok && at == c.offset && f.last() > in.Acked {
			return position{offset: at, records: c.records, events: c.events}, unix(f.time), nil
		}
	}
	p, oldest, _ := skipAcked(&sc, position{offset: headerSize}, in.Acked)
	return p, unix(oldest), nil
}

// A cursorView is the cursor file, read without the queue.
type cursorView struct {
	CursorInfo
	mark
}

// readCursor reads both slots. One that the agent is writing at this moment
// looks damaged, so damage is looked at again.
func readCursor(dir reader) (c cursorView, err error) {
	for try := 1; ; try++ {
		c, err = readSlots(dir)
		damaged := c.Slots[0] == SlotDamaged || c.Slots[1] == SlotDamaged
		if err != nil || !damaged || try == inspectTries {
			return c, err
		}
		time.Sleep(time.Millisecond)
	}
}

func readSlots(dir reader) (c cursorView, err error) {
	f, err := dir.Open(cursorName, false)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	defer f.Close()
	c.Exists = true
	if c.size, err = f.Size(); err != nil {
		return c, err
	}
	var b [cursorSize]byte
	_, _ = readPages(f, b[:min(c.size, cursorSize)], 0) // what cannot be read is zeros
	for i := range c.Slots {
		slot := b[i*slotGap:][:slotSize]
		m, generation, ok := decodeMark(slot)
		switch {
		case !ok && isZero(slot):
			c.Slots[i] = SlotEmpty
		case !ok:
			c.Slots[i] = SlotDamaged
		default:
			c.Slots[i] = SlotWhole
		}
		if ok && (!c.Found || generation > c.Generation) {
			c.Found, c.Generation, c.mark = true, generation, m
		}
	}
	c.stray = !isZero(b[slotSize:slotGap])
	return c, nil
}

func isZero(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
}

// A reader is all that an inspection needs of a folder.
type reader interface {
	List() ([]entry, error)
	Open(name string, write bool) (file, error)
}

// shared is a folder that another process is using: names go while it is
// listed, and a file that is open here must not keep the other from removing it.
type shared string

// List lists the files. What is no file is left out: opening it might hang.
func (d shared) List() (entries []entry, err error) {
	names, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		info, err := n.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			entries = append(entries, entry{name: n.Name(), size: info.Size()})
		}
	}
	return entries, nil
}

// Open opens a file for reading. Opened by way of its folder it can be removed
// on Windows too: os.Open would forbid that to everybody.
func (d shared) Open(name string, _ bool) (file, error) {
	f, err := os.OpenInRoot(string(d), name)
	if err != nil {
		return nil, err // not f: a nil *os.File is not a nil file
	}
	return osFile{f}, nil
}
