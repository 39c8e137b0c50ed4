package evtx

import (
	"bytes"
	"encoding/binary"
)

const (
	recordHeader = 24
	recordTail   = 4 // the size once more
)

var recordMagic = []byte("\x2a\x2a\x00\x00")

// chunk is the walk over the records of one chunk.
type chunk struct {
	*walk
	header
	index int
	last  uint64 // the id of the last record found or told lost, 0 before the first
}

// run goes from record to record. Where there is none it looks for the next.
func (c *chunk) run() bool {
	c.render.begin(c.walk.chunk)
	pos := chunkHeader
	for {
		size := c.recordAt(pos, true)
		if size == 0 {
			next := c.resync(pos)
			if next == 0 {
				break
			}
			if !c.lost(pos, binary.LittleEndian.Uint64(c.walk.chunk[next+8:])-1, errNoRecord) {
				return false
			}
			pos = next
			continue
		}
		if !c.record(pos, size) {
			return false
		}
		pos += size
	}
	return c.finish(pos)
}

// recordAt returns the size of the record that begins at pos, or 0 if none does.
// It follows another, or was looked for.
func (c *chunk) recordAt(pos int, follows bool) int {
	b := c.walk.chunk[pos:]
	if len(b) < recordHeader+recordTail || !bytes.HasPrefix(b, recordMagic) {
		return 0
	}
	le := binary.LittleEndian
	size, id := le.Uint32(b[4:]), le.Uint64(b[8:])
	if size < recordHeader+recordTail || size > uint32(len(b)) || le.Uint32(b[size-4:]) != size {
		return 0
	}
	if id <= c.last || id == ^uint64(0) || !c.fits(pos, id, follows) {
		return 0
	}
	return int(size)
}

// fits reports whether a record with this id can lie at pos, as far as the header
// tells. Where the ids have no holes, another one than the next is damaged itself.
//
// Behind the end that the header names lie what is left of older records, and in
// a log that was not closed also records that are newer than the header: these
// follow without a hole.
func (c *chunk) fits(pos int, id uint64, follows bool) bool {
	switch {
	case !c.whole:
		return true
	case c.empty:
		return c.last == 0 || id == c.last+1
	case pos >= c.free || follows && c.dense():
		return id == max(c.last+1, c.firstID)
	}
	return c.firstID <= id && id <= c.lastID
}

// resync returns where the next record begins, or 0 if there is none behind pos.
func (c *chunk) resync(pos int) int {
	end := chunkSize
	if c.whole {
		end = c.free
	}
	for pos++; pos < end; pos++ {
		i := bytes.Index(c.walk.chunk[pos:end], recordMagic)
		if i < 0 {
			return 0
		}
		pos += i
		if c.recordAt(pos, false) > 0 {
			return pos
		}
	}
	return 0
}

// record renders one record and hands it out.
func (c *chunk) record(pos, size int) bool {
	b := c.walk.chunk[pos:]
	rec := Record{
		ID:      binary.LittleEndian.Uint64(b[8:]),
		Written: filetime(binary.LittleEndian.Uint64(b[16:])),
		Offset:  offset(c.index) + int64(pos),
	}
	if !c.whole && c.last == 0 && 0 < c.nextID && c.nextID < rec.ID && !c.lost(pos, rec.ID-1, errMissing) {
		return false
	}
	c.last = rec.ID
	var err error
	if rec.XML, err = c.render.record(pos+recordHeader, pos+size-recordTail); err != nil {
		d := c.damage(pos, err)
		d.First, d.Last, d.Count = rec.ID, rec.ID, 1
		return c.yield(Record{}, d)
	}
	return c.yield(rec, nil)
}

// finish tells what the header promises and nobody found, and keeps what the next
// chunk should begin with.
func (c *chunk) finish(pos int) bool {
	last := c.last
	if c.tells() {
		last = max(last, c.lastID)
		c.filtered = c.filtered || !c.dense()
	}
	if last >= c.nextID && last > 0 {
		c.nextID, c.nextNumber = last+1, 0
		if c.tells() {
			c.nextNumber = c.lastNumber + 1 + last - c.lastID
		}
	}
	return !c.tells() || c.last >= c.lastID || c.lost(pos, c.lastID, errMissing)
}

// lost tells that the records up to last are gone, those that follow the last that
// was found.
func (c *chunk) lost(pos int, last uint64, err error) bool {
	d := c.damage(pos, err)
	first := c.last + 1
	if c.last == 0 {
		first = c.nextID
		if c.tells() {
			first = c.firstID
		}
	}
	if first > 0 && first <= last {
		d.First, d.Last = first, last
		if c.tells() && c.dense() {
			d.Count = last - first + 1
		}
	}
	c.last = max(c.last, last)
	return c.yield(Record{}, d)
}

func (c *chunk) damage(pos int, err error) *Damage {
	return &Damage{Chunk: c.index, Chunks: 1, Offset: offset(c.index) + int64(pos), Err: err}
}
