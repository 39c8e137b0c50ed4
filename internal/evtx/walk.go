package evtx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// walk is one pass over a file. Its methods return false when the caller of the
// iterator has had enough.
type walk struct {
	f      *File
	yield  func(Record, *Damage) bool
	chunk  []byte // the chunk at hand, always chunkSize long
	render renderer

	// What the next chunk begins with if nothing is missing. Ids are those of the
	// log; numbers count what is in this file, and have no holes even in a log that
	// was exported with a filter. Zero is unknown.
	nextID, nextNumber uint64
	any                bool   // there was a chunk
	filtered           bool   // the ids have holes where nothing is missing
	bad                Damage // a run of chunks that are none, not yet told
}

// header is what the first bytes of a chunk say of its records.
type header struct {
	firstNumber, lastNumber uint64
	firstID, lastID         uint64
	free                    int  // where the records end
	whole                   bool // the checksum fits, so that it can be believed
	empty                   bool // whole, and without a record
}

func (w *walk) run() {
	if w.f.damage != nil && !w.yield(Record{}, &Damage{Chunk: -1, Err: w.f.damage}) {
		return
	}
	n := w.f.chunks
	if w.f.tail > 0 {
		n++
	}
	first := w.oldest()
	for i := range n {
		if !w.next((first + i) % n) {
			return
		}
	}
	w.end()
}

// oldest returns the chunk to begin with. Windows writes the chunks round and
// round, so the one with the lowest ids may lie anywhere, and from there on they
// are in order. If only chunks that do not tell lie before it, nothing went round.
func (w *walk) oldest() int {
	at, lowest, first := 0, ^uint64(0), -1
	for i := range w.f.chunks {
		b := w.chunk[:chunkHeader]
		if _, err := w.f.r.ReadAt(b, offset(i)); err != nil || !bytes.HasPrefix(b, chunkMagic) {
			continue
		}
		h := parseHeader(b)
		if !h.tells() {
			continue
		}
		if first < 0 {
			first = i
		}
		if h.firstID < lowest {
			at, lowest = i, h.firstID
		}
	}
	if at == first {
		return 0
	}
	return at
}

func offset(chunk int) int64 { return fileHeader + int64(chunk)*chunkSize }

// next reads a chunk and walks over what is in it.
func (w *walk) next(i int) bool {
	err := w.read(i)
	if !bytes.HasPrefix(w.chunk, chunkMagic) {
		w.skip(i, err)
		return true
	}
	w.any = true
	h := parseHeader(w.chunk)
	if !w.before(i, &h) {
		return false
	}
	switch {
	case err != nil:
	case !h.whole:
		err = errChunk
	case crc32.ChecksumIEEE(w.chunk[chunkHeader:h.free]) != binary.LittleEndian.Uint32(w.chunk[52:]):
		err = errChecksum
	}
	if err != nil && !w.yield(Record{}, &Damage{Chunk: i, Chunks: 1, Offset: offset(i), Err: err}) {
		return false
	}
	c := chunk{walk: w, header: h, index: i}
	return c.run()
}

// read fills w.chunk. What the file does not have is zero.
func (w *walk) read(i int) error {
	n, err := w.f.r.ReadAt(w.chunk, offset(i))
	clear(w.chunk[n:])
	switch {
	case n == chunkSize:
		return nil
	case errors.Is(err, io.EOF):
		return errTruncated
	}
	return err
}

// parseHeader reads the header of a chunk. One that cannot be true is as bad as
// one without its checksum.
func parseHeader(b []byte) header {
	le := binary.LittleEndian
	h := header{
		firstNumber: le.Uint64(b[8:]), lastNumber: le.Uint64(b[16:]),
		firstID: le.Uint64(b[24:]), lastID: le.Uint64(b[32:]),
		free: int(le.Uint32(b[48:])),
	}
	sum := crc32.Update(crc32.ChecksumIEEE(b[:120]), crc32.IEEETable, b[128:chunkHeader])
	h.whole = sum == le.Uint32(b[124:]) && h.free >= chunkHeader && h.free <= chunkSize
	h.empty = h.whole && h.free == chunkHeader
	if !h.empty {
		h.whole = h.whole && 0 < h.firstID && h.firstID <= h.lastID && h.lastID != ^uint64(0) &&
			h.firstNumber <= h.lastNumber && h.lastNumber-h.firstNumber <= h.lastID-h.firstID
	}
	return h
}

// tells reports whether the header says which records there are.
func (h *header) tells() bool { return h.whole && !h.empty }

// dense reports whether the ids have no holes, as far as the header tells.
func (h *header) dense() bool {
	return h.lastNumber-h.firstNumber == h.lastID-h.firstID
}

// skip adds a chunk that is none to the run of such chunks. One that was never
// used, and holds zeros, is no damage in itself.
func (w *walk) skip(i int, err error) {
	if err == nil || errors.Is(err, errTruncated) {
		if err = nil; !blank(w.chunk) {
			err = errNoChunk
		}
	}
	if w.bad.Chunks == 0 {
		w.bad = Damage{Chunk: i, Offset: offset(i)}
	}
	w.bad.Chunks++
	if w.bad.Err == nil {
		w.bad.Err = err
	}
}

func blank(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	return true
}

// before tells what is missing between the last chunk and this one.
func (w *walk) before(i int, h *header) bool {
	d := w.bad
	w.bad = Damage{}
	if d.Chunks == 0 {
		d = Damage{Chunk: i, Offset: offset(i)}
	}
	if h.tells() && w.nextID > 0 && h.firstID > w.nextID {
		d.First, d.Last = w.nextID, h.firstID-1
		if w.nextNumber > 0 && h.firstNumber >= w.nextNumber {
			d.Count = min(h.firstNumber-w.nextNumber, d.Last-d.First+1)
			w.filtered = w.filtered || d.Count <= d.Last-d.First
			if d.Count == 0 {
				d.First, d.Last = 0, 0
			}
		}
	}
	return w.missing(d)
}

// end tells what is missing behind the last chunk. A log that had records has a
// chunk even when it was emptied, so where there is none they are gone, and nobody
// knows which.
func (w *walk) end() {
	d := w.bad
	if d.Chunks == 0 {
		d = Damage{Chunk: w.f.chunks, Offset: offset(w.f.chunks)}
	}
	if !w.filtered && w.nextID > 0 && w.f.next > w.nextID {
		d.First, d.Last = w.nextID, w.f.next-1
	}
	if !w.any && w.f.next > 1 && d.Err == nil {
		d.Err = errMissing
	}
	w.missing(d)
}

func (w *walk) missing(d Damage) bool {
	if d.Err == nil && d.First > 0 {
		d.Err = errMissing
	}
	return d.Err == nil || w.yield(Record{}, &d)
}
