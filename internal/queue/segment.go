package queue

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/rea-agent/rea/internal/durable"
)

// A segment is one file of frames. Its fields are guarded by Queue.mu, but for
// id, salt and base, which never change once it is listed.
type segment struct {
	id      uint64
	salt    uint32
	base    uint64 // no older segment holds a number from here on
	last    uint64 // base-1 if empty
	records uint64
	events  uint64
	end     int64  // of the durable frames; 0 before the first of them
	size    int64  // of the file, and room for the footer; the most it can be
	oldest  uint32 // append times, Unix seconds
	newest  uint32
	sealed  bool // nothing lies behind end but the footer
	found   bool // by Open: what is not sealed of it may not be on the disk
	unread  bool // by Open, in part: it goes before what is newer does, lest that part be believed
	stub    bool // it was given up before it got a record
}

func (s *segment) name() string { return segmentName(s.id) }

// footer returns what seals the segment.
func (s *segment) footer() footer {
	return footer{s.base, s.last, s.records, s.events, s.end, s.oldest, s.newest}
}

// extend counts a frame that is durable.
func (s *segment) extend(f frame) {
	if s.records == 0 {
		s.oldest = f.time
	}
	s.newest, s.last = f.time, f.last()
	s.records++
	s.events += uint64(f.count)
}

// seal cuts f behind the frames, syncs it if asked to, and writes the footer.
// The footer says that the frames are on the disk, so it comes after their sync.
// It is not synced itself: a segment without it is scanned.
func (s *segment) seal(f file, sync bool) error {
	if err := f.Truncate(s.end); err != nil {
		return fmt.Errorf("seal segment %016x: %w", s.id, err)
	}
	if sync {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("seal segment %016x: %w", s.id, err)
		}
	}
	if _, err := f.WriteAt(s.footer().append(nil, s.salt, s.id), s.end); err != nil {
		return fmt.Errorf("seal segment %016x: %w", s.id, err)
	}
	return nil
}

// loadFooter fills s from the footer of its file, and reports whether there is
// one.
func (s *segment) loadFooter(f file) bool {
	off := s.size - footerSize
	if off < headerSize {
		return false
	}
	var b [footerSize]byte
	if err := readAgain(f, b[:], off); err != nil {
		return false
	}
	t, ok := decodeFooter(b[:], s.salt, s.id, off)
	if !ok {
		return false
	}
	s.base, s.last, s.records, s.events = t.base, t.last, t.records, t.events
	s.end, s.oldest, s.newest, s.sealed = t.end, t.oldest, t.newest, true
	return true
}

// loadFrames fills s from the frames of its file, below the number bound: a
// newer segment began there. A frame whose data are torn or damaged counts: its
// numbers are used up, and the reader will declare them lost.
func (s *segment) loadFrames(sc *scanner, bound uint64) {
	s.last, s.end = max(s.base, 1)-1, headerSize
	off := int64(headerSize)
	for {
		f, at, ok := sc.next(off)
		if !ok || f.last() >= bound {
			return
		}
		if s.base == 0 { // the header is damaged
			s.base, s.last = f.first, f.first-1
		}
		if f.first > s.last {
			s.extend(f)
			s.end = at + f.size()
		}
		off = at + f.size()
	}
}

const scanBuffer = 64 << 10

// A scanner reads the frames of a file in order through a small buffer. Pages
// that cannot be read are zeros to it, so that they cost what they hold and not
// the segment; err keeps the first such error.
type scanner struct {
	file  file
	salt  uint32
	limit int64 // frames end by here
	buf   []byte
	start int64 // of buf in the file
	blind int64 // where the last page ends that could not be read
	err   error
}

// next returns the first frame at or after off whose header holds, and where
// it lies.
func (s *scanner) next(off int64) (f frame, at int64, ok bool) {
	for ; off+frameSize <= s.limit; off += frameAlign {
		if f, ok := decodeFrame(s.window(off, frameSize), s.salt, off, s.limit); ok {
			return f, off, true
		}
	}
	return frame{}, off, false
}

// window returns the n bytes at off, all of them before limit.
func (s *scanner) window(off, n int64) []byte {
	if s.buf == nil || off < s.start || off+n > s.start+int64(len(s.buf)) {
		s.fill(off)
	}
	return s.buf[off-s.start:][:n]
}

func (s *scanner) fill(off int64) {
	if s.buf == nil {
		s.buf = make([]byte, min(scanBuffer, s.limit))
	}
	s.start = off
	b := s.buf[:min(int64(len(s.buf)), s.limit-off)]
	clear(s.buf[len(b):])
	blind, err := readPages(s.file, b, off)
	s.blind = max(s.blind, blind)
	if err != nil && s.err == nil {
		s.err = err
	}
}

// readPages fills b from off. Pages that cannot be read are zeros; blind is
// where the last of them ends, and the error that of the first.
func readPages(f io.ReaderAt, b []byte, off int64) (blind int64, failed error) {
	if _, err := f.ReadAt(b, off); err == nil {
		return 0, nil
	}
	for i := int64(0); i < int64(len(b)); {
		end := min((off+i)/page*page+page-off, int64(len(b)))
		if err := readAgain(f, b[i:end], off+i); err != nil {
			clear(b[i:end])
			blind = off + end
			if failed == nil {
				failed = err
			}
		}
		i = end
	}
	return blind, failed
}

const page = 4096 // what a disk loses at once

// readAgain fills b from off. A read error may be gone the next time, so it
// tries some times.
func readAgain(f io.ReaderAt, b []byte, off int64) (err error) {
	for range maxStrikes {
		if _, err = f.ReadAt(b, off); err == nil || errors.Is(err, io.EOF) {
			return err
		}
	}
	return err
}

// openAgain opens a file for reading, and tries some times.
func openAgain(dir folder, name string) (f file, err error) {
	open := func() error {
		f, err = dir.Open(name, false)
		return err
	}
	for range maxStrikes {
		if err := durable.Patiently(open); err == nil || errors.Is(err, fs.ErrNotExist) || durable.IsOfTheMoment(err) {
			return f, err
		}
	}
	return nil, err
}
