package wire

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"time"
	"unicode/utf8"
)

// Limits bound what a line may be.
type Limits struct {
	Line    int // bytes, the newline included
	Depth   int // objects and lists within each other; the line itself is the first
	Members int // members of one object
}

// DefaultLimits is at least what an agent with the greatest max_event_bytes sends.
var DefaultLimits = Limits{Line: MaxLine, Depth: 16, Members: 256}

// The widest that a server can be set to, so that what one of them keeps every
// reader of its store can read.
const (
	MostDepth   = 64
	MostMembers = 4096
)

// A Line is one event: its envelope, and where its body stands. It borrows the
// scanned bytes and the Scanner's memory until the next Scan.
type Line struct {
	Raw     []byte // as it came, its newline included
	Version uint64
	Time    time.Time
	Node    []byte
	Host    []byte // unescaped
	Stream  []byte
	Seq     uint64
	Kind    []byte
	Body    []byte // the object under the kind
}

// A LineError says which line is at fault, and why.
type LineError struct {
	Line   int // counted from 1
	Column int // of the byte, counted from 1; 0 where the whole line is meant
	Reason string
	Rule   Rule
}

// A Rule is what a line broke, for counters: few words, always the same.
type Rule string

// The rules of a line.
const (
	RuleLine      Rule = "line_bytes" // Limits.Line
	RuleDepth     Rule = "depth"      // Limits.Depth
	RuleMembers   Rule = "members"    // Limits.Members
	RuleDuplicate Rule = "duplicate"  // no name twice in one object
	RuleText      Rule = "text"       // UTF-8, without control characters
	RuleNumber    Rule = "number"     // short, and within 64-bit floating point
	RuleEnvelope  Rule = "envelope"   // complete and of the right types
	RuleJSON      Rule = "json"       // all else
)

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text()) }

// Text is the error without the number of its line.
func (e *LineError) Text() string {
	if e.Column == 0 {
		return e.Reason
	}
	return fmt.Sprintf("column %d: %s", e.Column, e.Reason)
}

// A Scanner reads lines of NDJSON that strangers wrote. It accepts less than
// JSON (RFC 8259): UTF-8 only, names of members without escapes and never twice
// in one object, numbers that a float64 can hold, the envelope complete and of
// the right types, "kind" before the body, a newline after every line. It
// allocates nothing but its error.
//
// Use it as a bufio.Scanner: Reset, then Line after each Scan that is true,
// then Err. It belongs to one goroutine at a time.
type Scanner struct {
	limits Limits
	rest   []byte // what follows the current line
	count  int    // lines so far
	line   Line
	err    *LineError

	b    []byte // the current line
	i    int    // where in b the scanner stands
	seen envelope
	keys []key     // members of all open objects, innermost last
	sets []nameSet // one for each depth
	host []byte
	seed maphash.Seed

	factor uint64 // as unknown as the seed
}

// envelope is a set of members that were there.
type envelope uint16

const (
	hasVersion envelope = 1 << iota
	hasTime
	hasNode
	hasHost
	hasStream
	hasSeq
	hasKind
	hasBody
)

// key is the name of a member: a hash, and its place in the line.
type key struct {
	hash       uint64
	start, end int
}

// nameSet is a Bloom filter over the names of one object: a name whose bit is
// not set was not there, so that names are compared only where it is likely.
type nameSet [32]uint64

// NewScanner returns a Scanner that holds lines to l.
func NewScanner(l Limits) *Scanner {
	seed := maphash.MakeSeed()
	return &Scanner{limits: l, sets: make([]nameSet, l.Depth), seed: seed, factor: maphash.String(seed, "factor")}
}

// Reset makes the scanner read data, which must not change until the last line
// was read.
func (s *Scanner) Reset(data []byte) {
	s.rest, s.count, s.err, s.line, s.b = data, 0, nil, Line{}, nil
}

// Line returns the line that the last Scan read.
func (s *Scanner) Line() *Line { return &s.line }

// Count returns how many lines were read, the one at fault included.
func (s *Scanner) Count() int { return s.count }

// Err returns what stopped the scanner; nil at the end of the data.
func (s *Scanner) Err() error {
	if s.err == nil {
		return nil
	}
	return s.err
}

// Scan reads the next line. It returns false at the end and at the first fault.
func (s *Scanner) Scan() bool {
	if s.err != nil || len(s.rest) == 0 {
		return false
	}
	s.count++
	n := bytes.IndexByte(s.rest[:min(len(s.rest), s.limits.Line)], '\n') + 1
	switch {
	case n == 0 && len(s.rest) >= s.limits.Line:
		return s.fault(RuleLine, "is longer than %d bytes", s.limits.Line)
	case n == 0:
		return s.fault(RuleJSON, "does not end with a newline")
	}
	s.b, s.rest, s.i = s.rest[:n], s.rest[n:], 0
	s.line, s.seen, s.keys = Line{Raw: s.b}, 0, s.keys[:0]
	return s.event() && s.complete()
}

// fault notes what is wrong with the line as a whole.
func (s *Scanner) fault(rule Rule, format string, args ...any) bool {
	s.err = &LineError{Line: s.count, Reason: fmt.Sprintf(format, args...), Rule: rule}
	return false
}

// bad notes what is no JSON at the place where the scanner stands.
func (s *Scanner) bad(format string, args ...any) bool { return s.breach(RuleJSON, format, args...) }

// breach notes which rule is broken at the place where the scanner stands.
func (s *Scanner) breach(rule Rule, format string, args ...any) bool {
	s.fault(rule, format, args...)
	s.err.Column = s.i + 1
	return false
}

// event reads the object that the line must be, and nothing after it.
func (s *Scanner) event() bool {
	if s.space(); s.b[s.i] != '{' {
		return s.bad("want an object")
	}
	if !s.object(1) {
		return false
	}
	s.space()
	if s.i != len(s.b)-1 {
		return s.bad("want nothing after the object")
	}
	return true
}

// complete reports whether the whole envelope was there.
func (s *Scanner) complete() bool {
	if s.seen == hasBody<<1-1 {
		return true
	}
	for i, name := range [...]string{"v", "time", "node", "hostname", "stream", "seq", "kind"} {
		if s.seen&(1<<i) == 0 {
			return s.fault(RuleEnvelope, "has no %q", name)
		}
	}
	return s.fault(RuleEnvelope, "has no object under its kind, or has it before its kind")
}

// The line ends with a newline, which no value contains and which space stops
// at: so reading s.b[s.i] stays within the line as long as nobody steps over it.

func (s *Scanner) space() {
	for {
		switch s.b[s.i] {
		case ' ', '\t', '\r':
			s.i++
		default:
			return
		}
	}
}

// value reads any value; depth counts the objects and lists around it.
func (s *Scanner) value(depth int) bool {
	switch c := s.b[s.i]; {
	case c == '"':
		_, ok := s.text()
		return ok
	case c == '{':
		return s.object(depth + 1)
	case c == '[':
		return s.list(depth + 1)
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	}
	return s.bad("want a value")
}

func (s *Scanner) object(depth int) bool {
	if depth > s.limits.Depth {
		return s.breach(RuleDepth, "is nested more than %d deep", s.limits.Depth)
	}
	first := len(s.keys)
	s.sets[depth-1] = nameSet{}
	s.i++
	if s.space(); s.b[s.i] == '}' {
		s.i++
		return true
	}
	for {
		if !s.member(depth, first) {
			return false
		}
		s.space()
		switch s.b[s.i] {
		case ',':
			s.i++
			s.space()
		case '}':
			s.i++
			s.keys = s.keys[:first]
			return true
		default:
			return s.bad("want ',' or '}'")
		}
	}
}

// member reads a name and its value; the names of its object begin at
// s.keys[first].
func (s *Scanner) member(depth, first int) bool {
	if s.b[s.i] != '"' {
		return s.bad("want the name of a member")
	}
	start := s.i + 1
	name, ok := s.text()
	if !ok {
		return false
	}
	if bytes.IndexByte(name, '\\') >= 0 {
		s.i = start
		return s.bad("the name of a member has an escape")
	}
	if !s.unique(&s.sets[depth-1], first, name, start) {
		return false
	}
	if s.space(); s.b[s.i] != ':' {
		return s.bad("want ':'")
	}
	s.i++
	s.space()
	if depth == 1 {
		return s.top(name)
	}
	return s.value(depth)
}

// unique adds a name to its object and reports whether there was room for it
// and it was not there yet.
func (s *Scanner) unique(set *nameSet, first int, name []byte, start int) bool {
	if len(s.keys)-first == s.limits.Members {
		return s.breach(RuleMembers, "an object has more than %d members", s.limits.Members)
	}
	k := key{s.hash(name), start, start + len(name)}
	word, bit := &set[k.hash>>6%uint64(len(set))], uint64(1)<<(k.hash%64)
	if *word&bit != 0 {
		for _, o := range s.keys[first:] {
			if o.hash == k.hash && bytes.Equal(s.b[o.start:o.end], name) {
				s.i = start
				return s.breach(RuleDuplicate, "the name of a member is there twice")
			}
		}
	}
	*word |= bit
	s.keys = append(s.keys, k)
	return true
}

// hash returns one that strangers cannot foresee. For short names, of which a
// body can hold most, it is a product, whose halves are folded.
func (s *Scanner) hash(name []byte) uint64 {
	if len(name) > 8 {
		return maphash.Bytes(s.seed, name)
	}
	x := uint64(0)
	for _, c := range name {
		x = x<<8 | uint64(c)
	}
	high, low := bits.Mul64(x^s.factor, 0x9e3779b97f4a7c15)
	return high ^ low
}

// top reads the value of a member of the event itself.
func (s *Scanner) top(name []byte) bool {
	l := &s.line
	switch string(name) {
	case "v":
		return s.envelopeNumber(&l.Version, hasVersion)
	case "seq":
		return s.envelopeNumber(&l.Seq, hasSeq)
	case "time":
		return s.envelopeTime()
	case "node":
		return s.envelopeText(&l.Node, hasNode, isName)
	case "stream":
		return s.envelopeText(&l.Stream, hasStream, IsStream[[]byte])
	case "kind":
		return s.envelopeText(&l.Kind, hasKind, isKind)
	case "hostname":
		return s.envelopeHost()
	}
	start := s.i
	if !s.value(1) {
		return false
	}
	if s.seen&hasKind != 0 && bytes.Equal(name, l.Kind) && s.b[start] == '{' {
		l.Body = s.b[start:s.i]
		s.seen |= hasBody
	}
	return true
}

func (s *Scanner) envelopeText(dst *[]byte, has envelope, ok func([]byte) bool) bool {
	start := s.i
	text, isText := s.maybeText()
	if s.err != nil {
		return false
	}
	if !isText || !ok(text) {
		s.i = start
		return s.breach(RuleEnvelope, "the envelope has a value of the wrong form")
	}
	*dst = text
	s.seen |= has
	return true
}

func (s *Scanner) envelopeHost() bool {
	if !s.envelopeText(&s.line.Host, hasHost, isHost) {
		return false
	}
	if bytes.IndexByte(s.line.Host, '\\') >= 0 {
		s.host = appendUnescaped(s.host[:0], s.line.Host)
		s.line.Host = s.host
	}
	return true
}

// envelopeTime reads a time as RFC 3339 in UTC.
func (s *Scanner) envelopeTime() bool {
	start := s.i
	text, ok := s.maybeText()
	if s.err != nil {
		return false
	}
	if !ok || len(text) == 0 || text[len(text)-1] != 'Z' || s.line.Time.UnmarshalText(text) != nil {
		s.i = start
		return s.breach(RuleEnvelope, "the time is not RFC 3339 in UTC")
	}
	s.seen |= hasTime
	return true
}

// envelopeNumber reads a whole number from 0 to MaxSeq.
func (s *Scanner) envelopeNumber(dst *uint64, has envelope) bool {
	start := s.i
	var n uint64
	for '0' <= s.b[s.i] && s.b[s.i] <= '9' && s.i-start < 19 { // 19 digits fit in 64 bits
		n = n*10 + uint64(s.b[s.i]-'0')
		s.i++
	}
	digits, next := s.i-start, s.b[s.i]
	if digits == 0 || digits > 1 && s.b[start] == '0' || n > MaxSeq ||
		next != ',' && next != '}' && next != ' ' && next != '\t' && next != '\r' {
		s.i = start
		return s.breach(RuleEnvelope, "want a whole number from 0 to %d", uint64(MaxSeq))
	}
	*dst = n
	s.seen |= has
	return true
}

// maybeText reads a string and returns its inside, or reports that there is
// another value.
func (s *Scanner) maybeText() ([]byte, bool) {
	if s.b[s.i] != '"' {
		return nil, false
	}
	return s.text()
}

func (s *Scanner) list(depth int) bool {
	if depth > s.limits.Depth {
		return s.breach(RuleDepth, "is nested more than %d deep", s.limits.Depth)
	}
	s.i++
	if s.space(); s.b[s.i] == ']' {
		s.i++
		return true
	}
	for {
		if !s.value(depth) {
			return false
		}
		s.space()
		switch s.b[s.i] {
		case ',':
			s.i++
			s.space()
		case ']':
			s.i++
			return true
		default:
			return s.bad("want ',' or ']'")
		}
	}
}

func (s *Scanner) word(w string) bool {
	if !bytes.HasPrefix(s.b[s.i:], []byte(w)) {
		return s.bad("want a value")
	}
	s.i += len(w)
	return true
}

// maxNumber is longer than any number that strconv writes for 64 bits.
const maxNumber = 40

// number reads a number by the grammar of RFC 8259, section 6.
func (s *Scanner) number() bool {
	start := s.i
	e := 0 // where the exponent stands
	if s.b[s.i] == '-' {
		s.i++
	}
	if s.b[s.i] == '0' {
		s.i++
	} else if !s.digits() {
		return s.bad("want a digit")
	}
	if s.b[s.i] == '.' {
		if s.i++; !s.digits() {
			return s.bad("want a digit")
		}
	}
	if s.b[s.i]|0x20 == 'e' {
		e = s.i
		if s.i++; s.b[s.i] == '+' || s.b[s.i] == '-' {
			s.i++
		}
		if !s.digits() {
			return s.bad("want a digit")
		}
	}
	if s.i-start > maxNumber {
		s.i = start
		return s.breach(RuleNumber, "a number is longer than %d bytes", maxNumber)
	}
	if e > 0 && !inRange(s.b[start:e], s.b[e+1:s.i]) {
		s.i = start
		return s.breach(RuleNumber, "a number is beyond 64-bit floating point")
	}
	return true
}

// largest are the digits of the greatest number of 64-bit floating point, which
// is 1.7976931348623157e308.
const largest = "17976931348623157"

// inRange reports whether a number is at most that. It costs no more than reading
// it, for a body may consist of nothing but numbers that strconv.ParseFloat is
// slow with. The exponent is a sign, or none, and digits.
func inRange(mantissa, exponent []byte) bool {
	power := 0
	for _, c := range exponent {
		switch {
		case c == '-':
			return true // the mantissa alone is below 1e40
		case c != '+':
			power = min(10*power+int(c-'0'), 1<<20)
		}
	}
	first, point := len(mantissa), len(mantissa) // where the first digit that counts is, and the point
	for i, c := range mantissa {
		switch {
		case c == '.':
			point = i
		case c > '0' && first == len(mantissa):
			first = i
		}
	}
	if first == len(mantissa) {
		return true // zero
	}
	if power += point - first; first > point {
		power++
	}
	return power < 309 || power == 309 && atMost(mantissa[first:], largest) // 0.ddd times ten to the power
}

// atMost compares the digits of a number, whose point may stand anywhere, with
// others of the same magnitude.
func atMost(number []byte, digits string) bool {
	for _, c := range number {
		switch {
		case c == '.':
		case digits == "":
			if c != '0' {
				return false
			}
		case c != digits[0]:
			return c < digits[0]
		default:
			digits = digits[1:]
		}
	}
	return true
}

// digits reads at least one.
func (s *Scanner) digits() bool {
	start := s.i
	for '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

// plain says which bytes stand for themselves in a string.
var plain = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// text reads a string (RFC 8259, section 7) and returns its inside, escapes as
// they are.
func (s *Scanner) text() ([]byte, bool) {
	s.i++
	start, b, i := s.i, s.b, s.i
	for {
		for plain[b[i]] {
			i++
		}
		switch c := b[i]; {
		case c == '"':
			s.i = i + 1
			return b[start:i], true
		case c == '\\':
			n := escapeLen(b[i:])
			if n == 0 {
				s.i = i
				return nil, s.bad("an escape that JSON does not know")
			}
			i += n
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				s.i = i
				return nil, s.breach(RuleText, "a string is not UTF-8")
			}
			i += n
		default:
			s.i = i
			return nil, s.breach(RuleText, "a string has no end, or a control character")
		}
	}
}

// escapeLen returns the length of the escape that b begins with; 0 if it is none.
func escapeLen(b []byte) int {
	switch b[1] { // at least the newline is there
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 || slices.ContainsFunc(b[2:6], func(c byte) bool { return unhex(c) < 0 }) {
			return 0
		}
		return 6
	}
	return 0
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// appendUnescaped appends the characters that the inside of a JSON string
// stands for. A lone half of a surrogate pair becomes U+FFFD.
func appendUnescaped(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			i++
			continue
		}
		if s[i+1] != 'u' {
			dst = append(dst, unescapeShort(s[i+1]))
			i += 2
			continue
		}
		r := unescapeHex(s[i:])
		i += 6
		if 0xd800 <= r && r < 0xdc00 && i+6 <= len(s) && s[i] == '\\' && s[i+1] == 'u' {
			if low := unescapeHex(s[i:]); 0xdc00 <= low && low < 0xe000 {
				r = 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
				i += 6
			}
		}
		dst = utf8.AppendRune(dst, r) // U+FFFD for half a pair
	}
	return dst
}

func unescapeShort(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

func unescapeHex(b []byte) (r rune) {
	for _, c := range b[2:6] {
		r = r<<4 | rune(unhex(c))
	}
	return r
}

// isName wants what can name a node: 1 to 128 letters, digits, "-", "_", ".", ":".
func isName(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && bytes.IndexByte([]byte("-_.:"), c) < 0 {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 128
}

// isHost wants at most the 255 bytes that a DNS name can have, even if all of
// them had to be escaped.
func isHost(b []byte) bool { return len(b) <= 6*255 }

// isKind wants 1 to 32 lower-case letters, digits, underscores.
func isKind(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 32
}
