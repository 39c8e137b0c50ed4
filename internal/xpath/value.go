package xpath

import (
	"bytes"
	"cmp"
	"strconv"
	"time"
)

// An operator compares; turned is the one for the operands exchanged.
type operator string

var turned = map[operator]operator{"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

// takes reports whether the operator holds for the outcome of a comparison.
func (o operator) takes(order int) bool {
	switch o {
	case "=":
		return order == 0
	case "!=":
		return order != 0
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

// A literal is what the text of a node is compared with. Its own text says what
// as: Microsoft's specification has it that types are told by the syntax.
type literal struct {
	text    []byte
	kind    kind
	number  number
	instant int64
}

type kind int

const (
	isText kind = iota
	isNumber
	isInstant
	isGUID
)

// newLiteral reads a literal; a bare one stood without quotes.
func newLiteral(text string, bare bool) literal {
	l := literal{text: []byte(text)}
	n, ok := numberOf(l.text)
	if ok && (bare || n.fraction == nil && !bytes.ContainsRune(l.text, '.')) { // '10.0' is a version more often than a number
		l.kind, l.number = isNumber, n
	} else if t, ok := instantOf(l.text); ok {
		l.kind, l.instant = isInstant, t
	} else if guid(l.text) {
		l.kind = isGUID
	}
	return l
}

// compare reports whether text stands so to the literal. What is of another kind
// than the literal is only other than it.
func (l *literal) compare(text []byte, op operator) bool {
	switch l.kind {
	case isNumber:
		if n, ok := numberOf(text); ok {
			return op.takes(n.compare(l.number))
		}
		return op == "!="
	case isInstant:
		if t, ok := instantOf(text); ok {
			return op.takes(cmp.Compare(t, l.instant))
		}
		return op == "!="
	case isGUID:
		if guid(text) && bytes.EqualFold(text, l.text) {
			return op.takes(0)
		}
	}
	return op.takes(bytes.Compare(text, l.text))
}

// A number is exact, whatever its size: a magnitude, and the digits behind the
// point without zeros at the end.
type number struct {
	negative bool
	whole    uint64
	fraction []byte
}

// numberOf reads what Windows writes for a number: 4624, -1, 0.5, 0x3e7. A text
// with other zeros in front is none: it was written by somebody as text.
func numberOf(text []byte) (n number, ok bool) {
	rest, negative := bytes.CutPrefix(text, []byte("-"))
	if len(rest) == 0 {
		return n, false
	}
	if hex, is := bytes.CutPrefix(rest, []byte("0x")); is && !negative {
		n.whole, ok = hexadecimal(hex)
		return n, ok
	}
	whole, fraction, point := bytes.Cut(rest, []byte("."))
	if n.whole, ok = decimal(whole); !ok || point && (len(fraction) == 0 || !allDigits(fraction)) {
		return n, false
	}
	if fraction = bytes.TrimRight(fraction, "0"); len(fraction) > 0 {
		n.fraction = fraction
	}
	n.negative = negative && (n.whole != 0 || n.fraction != nil)
	return n, true
}

func (n number) compare(o number) int {
	if n.negative != o.negative {
		if n.negative {
			return -1
		}
		return 1
	}
	order := cmp.Or(cmp.Compare(n.whole, o.whole), bytes.Compare(n.fraction, o.fraction))
	if n.negative {
		return -order
	}
	return order
}

// bitsOf reads a whole number as 64 bits.
func bitsOf(text []byte) (uint64, bool) {
	n, ok := numberOf(text)
	if !ok || n.fraction != nil {
		return 0, false
	}
	if n.negative {
		return -n.whole, true
	}
	return n.whole, true
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func decimal(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 || !allDigits(b) || b[0] == '0' && len(b) > 1 {
		return 0, false
	}
	if len(b) == 20 { // it may not fit
		n, err := strconv.ParseUint(string(b), 10, 64)
		return n, err == nil
	}
	for _, c := range b {
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

func hexadecimal(b []byte) (n uint64, ok bool) {
	for _, c := range b {
		d := digit(c)
		if d > 15 || n>>60 != 0 {
			return 0, false
		}
		n = n<<4 | uint64(d)
	}
	return n, len(b) > 0
}

// digit returns what a hexadecimal digit is worth, more than 15 for no digit.
func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// Times are counted in ticks of 100 ns since 1601, as a FILETIME does.
const (
	ticksPerMS = 10_000
	epoch      = 11_644_473_600 // seconds to 1970
)

func ticksOf(t time.Time) int64 { return (t.Unix()+epoch)*1000*ticksPerMS + int64(t.Nanosecond()/100) }

// instantOf reads a time as Windows writes it: 2018-08-05T10:34:37.552695700Z.
func instantOf(text []byte) (int64, bool) {
	if len(text) < len("2006-01-02T15:04:05Z") || text[4] != '-' || text[10] != 'T' {
		return 0, false
	}
	var t time.Time
	if t.UnmarshalText(text) != nil {
		return 0, false
	}
	return ticksOf(t), true
}

// guid reports whether a text is one like {54849625-5478-4994-a5ba-3e3b0328c30d}.
// They are the same in capitals.
func guid(text []byte) bool {
	const form = "{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}"
	if len(text) != len(form) {
		return false
	}
	for i, c := range text {
		if form[i] == 'x' && digit(c) > 15 || form[i] != 'x' && c != form[i] {
			return false
		}
	}
	return true
}
