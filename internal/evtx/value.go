package evtx

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"time"
)

// Types of values. An array has the bit kindArray besides.
const (
	kindNull     = 0x00
	kindString   = 0x01
	kindANSI     = 0x02
	kindInt8     = 0x03
	kindUint8    = 0x04
	kindInt16    = 0x05
	kindUint16   = 0x06
	kindInt32    = 0x07
	kindUint32   = 0x08
	kindInt64    = 0x09
	kindUint64   = 0x0a
	kindReal32   = 0x0b
	kindReal64   = 0x0c
	kindBool     = 0x0d
	kindBinary   = 0x0e
	kindGUID     = 0x0f
	kindSize     = 0x10
	kindFiletime = 0x11
	kindSystime  = 0x12
	kindSID      = 0x13
	kindHex32    = 0x14
	kindHex64    = 0x15
	kindHandle   = 0x20
	kindBinXML   = 0x21
	kindXML      = 0x23
	kindArray    = 0x80
)

// value renders a value that is put into a template. BinXml can only stand in
// content, since it makes elements.
func (r *renderer) value(v value, content bool) error {
	b := r.chunk[v.pos:v.end]
	switch {
	case v.kind == kindBinXML && !content:
		return errValue
	case v.kind == kindBinXML:
		return r.fragment(v.pos, v.end, scope{})
	case v.kind&kindArray != 0:
		var err error
		if b, err = r.item(v); err != nil {
			return err
		}
	}
	var ok bool
	if r.out, ok = appendValue(r.out, v.kind&^kindArray, b); !ok {
		return errValue
	}
	return r.spend(len(b))
}

// item returns the item of an array that this repetition of the element is for,
// and sees to it that there are as many repetitions as items. An array with none
// makes one empty element.
func (r *renderer) item(v value) ([]byte, error) {
	if r.array.item == 0 {
		n, err := r.items(v)
		if err != nil {
			return nil, err
		}
		r.array.count = max(r.array.count, n)
	}
	c := cursor{pos: v.pos, at: v.pos}
	if r.cursor.pos == v.pos && r.cursor.item <= r.array.item {
		c = r.cursor
	}
	for ; c.at < v.end; c.item++ {
		size, skip, err := r.itemAt(v, c.at)
		if err != nil {
			return nil, err
		}
		if c.item == r.array.item {
			r.cursor = c
			return r.chunk[c.at : c.at+size], nil
		}
		c.at += size + skip
	}
	return nil, nil
}

// items counts the items of an array.
func (r *renderer) items(v value) (n int, err error) {
	for at := v.pos; at < v.end; n++ {
		size, skip, err := r.itemAt(v, at)
		if err != nil {
			return 0, err
		}
		at += size + skip
	}
	return n, nil
}

// itemAt returns how many bytes the item of an array has that begins at a place,
// and how many lie between it and the next.
func (r *renderer) itemAt(v value, at int) (size, skip int, err error) {
	kind := v.kind &^ kindArray
	if kind == kindSize || kind == kindHandle { // the file does not say which
		if kind = kindHex64; (v.end-v.pos)%8 != 0 {
			kind = kindHex32
		}
	}
	size, skip = itemSize(kind, r.chunk[at:v.end])
	if size+skip == 0 || at+size+skip > v.end {
		return 0, 0, errValue
	}
	return size, skip, r.spend(size + skip)
}

// itemSize is itemAt for what begins with the item; both are 0 if it cannot be said.
func itemSize(kind byte, b []byte) (size, skip int) {
	switch kind {
	case kindString:
		for size+1 < len(b) {
			if b[size]|b[size+1] == 0 {
				return size, 2
			}
			size += 2
		}
		return len(b), 0
	case kindANSI:
		for size = range b {
			if b[size] == 0 {
				return size, 1
			}
		}
		return len(b), 0
	case kindSID:
		if len(b) < 8 {
			return 0, 0
		}
		return 8 + 4*int(b[1]), 0
	}
	return fixedSize(kind), 0
}

// fixedSize returns how many bytes a value of this type has, or 0.
func fixedSize(kind byte) int {
	switch kind {
	case kindInt8, kindUint8:
		return 1
	case kindInt16, kindUint16:
		return 2
	case kindInt32, kindUint32, kindHex32, kindReal32, kindBool:
		return 4
	case kindInt64, kindUint64, kindHex64, kindReal64, kindFiletime:
		return 8
	case kindGUID, kindSystime:
		return 16
	}
	return 0
}

// appendValue appends the text of a value. Any type may have no bytes, and is
// then the empty text.
func appendValue(out []byte, kind byte, b []byte) ([]byte, bool) {
	if len(b) == 0 {
		return out, true
	}
	switch kind {
	case kindNull:
		return out, true
	case kindString, kindXML:
		return appendUTF16(out, untilZeros(b), inText), true
	case kindANSI:
		return appendANSI(out, b), true
	case kindBinary:
		return hex.AppendEncode(out, b), true
	case kindGUID:
		return appendGUID(out, b)
	case kindSystime:
		return appendSystime(out, b)
	case kindSID:
		return appendSID(out, b)
	}
	return appendNumber(out, kind, b)
}

// appendNumber appends what is one little-endian number. The size in the file
// counts, not the one that the type should have: a boolean has 1 byte or 4.
func appendNumber(out []byte, kind byte, b []byte) ([]byte, bool) {
	u, ok := number(b)
	if !ok {
		return out, false
	}
	switch kind {
	case kindInt8, kindInt16, kindInt32, kindInt64:
		shift := 64 - 8*len(b)
		return strconv.AppendInt(out, int64(u<<shift)>>shift, 10), true
	case kindUint8, kindUint16, kindUint32, kindUint64:
		return strconv.AppendUint(out, u, 10), true
	case kindHex32, kindHex64, kindSize, kindHandle:
		return strconv.AppendUint(append(out, "0x"...), u, 16), true
	case kindBool:
		return strconv.AppendBool(out, u != 0), true
	case kindReal32:
		return appendFloat(out, float64(math.Float32frombits(uint32(u))), 32), len(b) == 4
	case kindReal64:
		return appendFloat(out, math.Float64frombits(u), 64), len(b) == 8
	case kindFiletime:
		return appendTime(out, filetime(u)), len(b) == 8
	}
	return out, false
}

func number(b []byte) (uint64, bool) {
	le := binary.LittleEndian
	switch len(b) {
	case 1:
		return uint64(b[0]), true
	case 2:
		return uint64(le.Uint16(b)), true
	case 4:
		return uint64(le.Uint32(b)), true
	case 8:
		return le.Uint64(b), true
	}
	return 0, false
}

// appendFloat writes what the runtime library of Windows would write of numbers
// that are none, and else the shortest text that reads back as the same number.
func appendFloat(out []byte, f float64, bits int) []byte {
	switch abs := math.Abs(f); {
	case math.IsNaN(f):
		return append(out, "-1.#IND"...)
	case math.IsInf(f, 1):
		return append(out, "1.#INF"...)
	case math.IsInf(f, -1):
		return append(out, "-1.#INF"...)
	case abs != 0 && abs < 1e-6 || abs >= 1e21:
		return strconv.AppendFloat(out, f, 'e', -1, bits)
	}
	return strconv.AppendFloat(out, f, 'f', -1, bits)
}

// filetime counts in units of 100 ns since 1601.
func filetime(u uint64) time.Time {
	const seconds = 11_644_473_600 // from 1601 to 1970
	return time.Unix(int64(u/1e7)-seconds, int64(u%1e7)*100).UTC()
}

// appendTime writes nine digits of the second, as Windows does, though the last
// two are always 0.
func appendTime(out []byte, t time.Time) []byte {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	out = appendDate(out, year, int(month), day, hour, minute, second)
	return append(appendPadded(append(out, '.'), t.Nanosecond(), 9), 'Z')
}

func appendSystime(out, b []byte) ([]byte, bool) {
	if len(b) != 16 {
		return out, false
	}
	at := func(i int) int { return int(binary.LittleEndian.Uint16(b[2*i:])) }
	out = appendDate(out, at(0), at(1), at(3), at(4), at(5), at(6))
	return append(appendPadded(append(out, '.'), at(7), 3), 'Z'), true
}

func appendDate(out []byte, year, month, day, hour, minute, second int) []byte {
	out = appendPadded(out, year, 4)
	out = appendPadded(append(out, '-'), month, 2)
	out = appendPadded(append(out, '-'), day, 2)
	out = appendPadded(append(out, 'T'), hour, 2)
	out = appendPadded(append(out, ':'), minute, 2)
	return appendPadded(append(out, ':'), second, 2)
}

func appendPadded(out []byte, n, width int) []byte {
	for ten := 10; width > 1; width, ten = width-1, ten*10 {
		if n < ten {
			out = append(out, '0')
		}
	}
	return strconv.AppendInt(out, int64(n), 10)
}

func appendGUID(out, b []byte) ([]byte, bool) {
	if len(b) != 16 {
		return out, false
	}
	order := [16]byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]}
	copy(order[8:], b[8:])
	out = hex.AppendEncode(append(out, '{'), order[:4])
	out = hex.AppendEncode(append(out, '-'), order[4:6])
	out = hex.AppendEncode(append(out, '-'), order[6:8])
	out = hex.AppendEncode(append(out, '-'), order[8:10])
	out = hex.AppendEncode(append(out, '-'), order[10:])
	return append(out, '}'), true
}

// appendSID writes a security identifier: revision, how many numbers follow, the
// authority in 6 big-endian bytes, the numbers.
func appendSID(out, b []byte) ([]byte, bool) {
	if len(b) < 8 || len(b) < 8+4*int(b[1]) {
		return out, false
	}
	out = strconv.AppendUint(append(out, "S-"...), uint64(b[0]), 10)
	authority := uint64(binary.BigEndian.Uint16(b[2:]))<<32 | uint64(binary.BigEndian.Uint32(b[4:]))
	if out = append(out, '-'); authority>>32 != 0 {
		out = append(out, "0x"...)
		out = hex.AppendEncode(out, b[2:8])
	} else {
		out = strconv.AppendUint(out, authority, 10)
	}
	for i := range int(b[1]) {
		out = strconv.AppendUint(append(out, '-'), uint64(binary.LittleEndian.Uint32(b[8+4*i:])), 10)
	}
	return out, true
}
