package queue

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bytes on the disk, drawn in docs/queue-format.md. All integers are little
// endian. This file knows nothing of files.
const (
	headerSize = 64  // of a segment
	footerSize = 64  // of a sealed segment
	frameSize  = 32  // of a frame's header, in front of its data
	frameAlign = 8   // of a frame's start
	slotSize   = 512 // of a cursor slot: one sector
	slotGap    = 4096
	cursorSize = slotGap + slotSize

	headerMagic = "REAQSEG1"
	footerMagic = "REAQEND1"
	slotMagic   = "REAQCUR1"
	frameMagic  = 0x5AEA // never the start of two zero bytes, and not ASCII
	frameRecord = 1

	maxNumber = math.MaxInt64 // beyond it a number is damage
)

// A Stream is the random id of a queue, and of the numbers in it. A queue that
// was wiped is a new stream.
type Stream [16]byte

// String returns 32 hexadecimal digits.
func (s Stream) String() string { return hex.EncodeToString(s[:]) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// saltOf is where the checksums of a segment start. Bytes of another queue or
// of another segment, valid as they were there, do not validate here.
func saltOf(stream Stream, id uint64) uint32 {
	var b [24]byte
	copy(b[:], stream[:])
	binary.LittleEndian.PutUint64(b[16:], id)
	return crc32.Checksum(b[:], castagnoli)
}

// sum is the salted checksum of b at offset off: the same bytes at another
// place have another one.
func sum(salt uint32, off int64, b []byte) uint32 {
	return crc32.Update(salt^uint32(off/frameAlign), castagnoli, b)
}

// A header is the start of a segment.
type header struct {
	id      uint64
	stream  Stream
	base    uint64 // the next number when the segment began; older segments hold none from here on
	created int64  // Unix nanoseconds
}

func (h header) append(b []byte) []byte {
	n := len(b)
	b = append(b, headerMagic...)
	b = binary.LittleEndian.AppendUint64(b, h.id)
	b = append(b, h.stream[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.base)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.created))
	b = append(b, make([]byte, headerSize-4-48)...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[n:], castagnoli))
}

func decodeHeader(b []byte) (h header, ok bool) {
	if len(b) < headerSize || string(b[:8]) != headerMagic ||
		crc32.Checksum(b[:60], castagnoli) != binary.LittleEndian.Uint32(b[60:]) {
		return header{}, false
	}
	h.id = binary.LittleEndian.Uint64(b[8:])
	copy(h.stream[:], b[16:])
	h.base = binary.LittleEndian.Uint64(b[32:])
	h.created = int64(binary.LittleEndian.Uint64(b[40:]))
	return h, h.base >= 1 && h.base <= maxNumber
}

// A frame is one record in a segment: this header, the data, and zeros up to
// the next multiple of eight.
type frame struct {
	first  uint64
	count  uint32
	length uint32
	time   uint32 // of the append, Unix seconds
	crc    uint32 // of the data
}

// last returns the last number of the frame.
func (f frame) last() uint64 { return f.first + uint64(f.count) - 1 }

// size returns what the frame takes up in its segment.
func (f frame) size() int64 { return sizeOf(int64(f.length)) }

func sizeOf(data int64) int64 { return (frameSize + data + frameAlign - 1) &^ (frameAlign - 1) }

// append appends the header of a frame that lies at offset off.
func (f frame) append(b []byte, salt uint32, off int64) []byte {
	n := len(b)
	b = binary.LittleEndian.AppendUint16(b, frameMagic)
	b = append(b, frameRecord, 0)
	b = binary.LittleEndian.AppendUint32(b, f.length)
	b = binary.LittleEndian.AppendUint64(b, f.first)
	b = binary.LittleEndian.AppendUint32(b, f.count)
	b = binary.LittleEndian.AppendUint32(b, f.time)
	b = binary.LittleEndian.AppendUint32(b, f.crc)
	return binary.LittleEndian.AppendUint32(b, sum(salt, off, b[n:]))
}

// decodeFrame reads the frame header at offset off of a segment whose frames
// end by limit. It says nothing about the data.
func decodeFrame(b []byte, salt uint32, off, limit int64) (f frame, ok bool) {
	if len(b) < frameSize || binary.LittleEndian.Uint16(b) != frameMagic ||
		sum(salt, off, b[:28]) != binary.LittleEndian.Uint32(b[28:]) {
		return frame{}, false
	}
	f = frame{
		length: binary.LittleEndian.Uint32(b[4:]),
		first:  binary.LittleEndian.Uint64(b[8:]),
		count:  binary.LittleEndian.Uint32(b[16:]),
		time:   binary.LittleEndian.Uint32(b[20:]),
		crc:    binary.LittleEndian.Uint32(b[24:]),
	}
	ok = b[2] == frameRecord && b[3] == 0 && f.count >= 1 && f.first >= 1 &&
		f.first <= maxNumber-uint64(f.count) && off+f.size() <= limit
	return f, ok
}

// A footer is the end of a sealed segment: what a reader would otherwise scan
// the segment for.
type footer struct {
	base, last      uint64 // last is base-1 if the segment is empty
	records, events uint64
	end             int64  // where the frames end and the footer lies
	oldest, newest  uint32 // append times of the first and the last record
}

func (f footer) append(b []byte, salt uint32, id uint64) []byte {
	n := len(b)
	b = append(b, footerMagic...)
	b = binary.LittleEndian.AppendUint64(b, id)
	b = binary.LittleEndian.AppendUint64(b, f.base)
	b = binary.LittleEndian.AppendUint64(b, f.last)
	b = binary.LittleEndian.AppendUint64(b, f.records)
	b = binary.LittleEndian.AppendUint64(b, f.events)
	b = binary.LittleEndian.AppendUint32(b, uint32(f.end))
	b = binary.LittleEndian.AppendUint32(b, f.oldest)
	b = binary.LittleEndian.AppendUint32(b, f.newest)
	return binary.LittleEndian.AppendUint32(b, sum(salt, f.end, b[n:]))
}

// decodeFooter reads the footer that lies at offset off of segment id.
func decodeFooter(b []byte, salt uint32, id uint64, off int64) (f footer, ok bool) {
	if len(b) < footerSize || string(b[:8]) != footerMagic ||
		sum(salt, off, b[:60]) != binary.LittleEndian.Uint32(b[60:]) ||
		binary.LittleEndian.Uint64(b[8:]) != id {
		return footer{}, false
	}
	f = footer{
		base:    binary.LittleEndian.Uint64(b[16:]),
		last:    binary.LittleEndian.Uint64(b[24:]),
		records: binary.LittleEndian.Uint64(b[32:]),
		events:  binary.LittleEndian.Uint64(b[40:]),
		end:     int64(binary.LittleEndian.Uint32(b[48:])),
		oldest:  binary.LittleEndian.Uint32(b[52:]),
		newest:  binary.LittleEndian.Uint32(b[56:]),
	}
	ok = f.end == off && f.base >= 1 && f.base <= maxNumber && f.last >= f.base-1 && f.last < maxNumber
	return f, ok
}

// A mark is what the cursor file remembers: how far delivery has come.
type mark struct {
	stream  Stream
	acked   uint64 // every number up to it is delivered, or was declared lost
	next    uint64 // the next free number: the segments that knew it may be gone
	dropped uint64 // the highest number that went to make room
	segment uint64 // where the first record after acked lies; a hint that is checked
	offset  int64
	records uint64 // in that segment, before that offset
	events  uint64
	fresh   uint64 // the next free segment id: an id is never used twice
	losses  []Loss // that are not declared, markLosses at most
}

const markLosses = 8

// causes are the codes of a loss in the cursor.
var causes = [...]string{1: CauseQueueFull, 2: CauseDiskFull, 3: CauseDamaged}

func (m mark) append(b []byte, generation uint64) []byte {
	n := len(b)
	b = append(b, slotMagic...)
	b = binary.LittleEndian.AppendUint64(b, generation)
	b = append(b, m.stream[:]...)
	for _, v := range [...]uint64{m.acked, m.next, m.dropped, m.segment, uint64(m.offset), m.records, m.events, m.fresh} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.losses)))
	for _, l := range m.losses {
		b = binary.LittleEndian.AppendUint32(b, uint32(slices.Index(causes[:], l.Cause)))
		b = binary.LittleEndian.AppendUint64(b, l.First)
		b = binary.LittleEndian.AppendUint64(b, l.Last)
		b = binary.LittleEndian.AppendUint64(b, l.Count)
		b = binary.LittleEndian.AppendUint32(b, seconds(l.Since))
		b = binary.LittleEndian.AppendUint32(b, seconds(l.Until))
	}
	b = append(b, make([]byte, slotSize-4-(len(b)-n))...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[n:], castagnoli))
}

func decodeMark(b []byte) (m mark, generation uint64, ok bool) {
	if len(b) < slotSize || string(b[:8]) != slotMagic ||
		crc32.Checksum(b[:slotSize-4], castagnoli) != binary.LittleEndian.Uint32(b[slotSize-4:]) {
		return mark{}, 0, false
	}
	generation = binary.LittleEndian.Uint64(b[8:])
	copy(m.stream[:], b[16:])
	var offset uint64
	for i, v := range [...]*uint64{&m.acked, &m.next, &m.dropped, &m.segment, &offset, &m.records, &m.events, &m.fresh} {
		*v = binary.LittleEndian.Uint64(b[32+8*i:])
	}
	m.offset = int64(offset)
	ok = m.next >= 1 && m.next <= maxNumber && m.acked < m.next && m.dropped < m.next && m.offset >= 0
	n := binary.LittleEndian.Uint32(b[96:])
	for b = b[100:]; n > 0 && n <= markLosses; n, b = n-1, b[36:] {
		cause := binary.LittleEndian.Uint32(b)
		l := Loss{
			First: binary.LittleEndian.Uint64(b[4:]),
			Last:  binary.LittleEndian.Uint64(b[12:]),
			Count: binary.LittleEndian.Uint64(b[20:]),
			Since: unix(binary.LittleEndian.Uint32(b[28:])),
			Until: unix(binary.LittleEndian.Uint32(b[32:])),
		}
		if cause < 1 || int(cause) >= len(causes) || l.First < 1 || l.Last < l.First || l.Last >= m.next {
			return mark{}, 0, false
		}
		l.Cause = causes[cause]
		m.losses = append(m.losses, l)
	}
	return m, generation, ok && n == 0
}

// unix and seconds turn the times on the disk into time.Time and back; 0 is
// unknown.
func unix(seconds uint32) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}

func seconds(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	return uint32(t.Unix())
}

// segmentName and segmentID turn an id into a file name and back.
func segmentName(id uint64) string { return fmt.Sprintf("%016x.seg", id) }

func segmentID(name string) (id uint64, ok bool) {
	digits, found := strings.CutSuffix(name, ".seg")
	id, err := strconv.ParseUint(digits, 16, 64)
	return id, found && err == nil && name == segmentName(id)
}
