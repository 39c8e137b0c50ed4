package event

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrTooLarge says that a line is longer than its limit even with every text in
// it cut away.
var ErrTooLarge = errors.New("event is larger than max_event_bytes and has no text to cut")

// A Class says what a text may reveal, and so how it is redacted.
type Class uint8

const (
	Text    Class = iota + 1 // words of others: may hold secrets
	Command                  // command-line arguments
	Account                  // names of users
	Path                     // file paths: may lie in somebody's home
)

// A Redactor decides what becomes of the text s in a field of a kind of event: it
// returns what may be written and whether anything may (a text that is not kept
// is left out of the event). secrets names the kinds of secrets that it took out
// of the text, divided by commas; it is empty where there were none.
// It is called again when a line has to be cut and must decide the same.
type Redactor func(kind Kind, field string, class Class, s string) (clean string, keep bool, secrets string)

// Stamp is what the pipeline adds to an event.
type Stamp struct {
	Node   string
	Host   string
	Stream string
}

// An Encoder writes events as lines of NDJSON. It belongs to one goroutine at a
// time. Its methods for members may be called only from within Body.Encode, and
// the names of members are written as they stand: they are literals of ours, or
// words of others in which a Body left nothing that JSON would escape, since a
// receiver refuses names with escapes, and names that are there twice.
type Encoder struct {
	envelope []byte // ,"node":…,"host":…,"stream":…,"seq": rendered once
	redact   Redactor
	kind     Kind // of this event
	max      int  // bytes a line, its newline included

	buf      []byte
	redacted []string // what was redacted in this event, as dotted paths
	paths    []string // every such path seen so far, so that none is built twice
	path     []string // where in the body the encoder stands
	texts    []int    // encoded length of each text of this event
	cut      int      // longest encoded text allowed, or uncut

	opens  Kind   // the kind of the event that was written last …
	opened []byte // … and how its body begins: ,"kind":"cpu","cpu":{

	second int64  // of the time that was written last …
	nano   uint32 // … and how it reads, in quotes: 2006-01-02T15:04:05.000000000Z
	stamp  []byte
}

const uncut = math.MaxInt

// NewEncoder returns an Encoder that stamps events with s, redacts by r (nil
// for not at all) and keeps lines within max bytes (0 for no limit).
func NewEncoder(s Stamp, r Redactor, max int) *Encoder {
	e := &Encoder{redact: r, max: max}
	b := append([]byte(nil), `,"node":`...)
	b = appendQuoted(b, s.Node)
	b = append(b, `,"hostname":`...)
	b = appendQuoted(b, s.Host)
	b = append(b, `,"stream":`...)
	b = appendQuoted(b, s.Stream)
	e.envelope = append(b, `,"seq":`...)
	return e
}

// Append appends ev as one line, its newline included, to dst and returns the
// longer slice. A line over the limit is cut in its longest texts and says
// "truncated"; if that is not enough, dst is returned as it was, with
// ErrTooLarge.
func (e *Encoder) Append(dst []byte, ev *Event, seq uint64) ([]byte, error) {
	start := len(dst)
	e.cut = uncut
	e.buf = dst
	e.line(ev, seq)
	if excess := len(e.buf) - start - e.max; e.max > 0 && excess > 0 {
		e.cut = longest(e.texts, excess+len(`,"truncated":true`))
		if e.cut < 0 {
			return e.take(start), ErrTooLarge
		}
		e.buf = e.buf[:start]
		e.line(ev, seq)
		if len(e.buf)-start > e.max {
			return e.take(start), ErrTooLarge
		}
	}
	return e.take(len(e.buf)), nil
}

// take gives the buffer back to the caller, cut to n bytes.
func (e *Encoder) take(n int) []byte {
	b := e.buf[:n]
	e.buf = nil
	return b
}

func (e *Encoder) line(ev *Event, seq uint64) {
	e.redacted, e.texts = e.redacted[:0], e.texts[:0]
	e.kind, e.path = ev.Kind, append(e.path[:0], string(ev.Kind))
	e.buf = strconv.AppendUint(append(e.buf, `{"v":`...), Version, 10)
	when := ev.Time
	if !writable(when) { // a foreign record may bear any time: then all that is known is when it was read
		when = ev.Observed
	}
	e.Time("time", when)
	if !ev.Observed.Equal(when) {
		e.Time("observed", ev.Observed)
	}
	e.buf = strconv.AppendUint(append(e.buf, e.envelope...), seq, 10)
	if ev.Kind != e.opens || e.opened == nil {
		e.opens = ev.Kind
		e.opened = append(append(e.opened[:0], `,"kind":"`...), ev.Kind...)
		e.opened = append(append(append(e.opened, `","`...), ev.Kind...), `":{`...)
	}
	e.buf = append(e.buf, e.opened...)
	if ev.Body != nil {
		ev.Body.Encode(e)
	}
	e.buf = append(e.buf, '}')
	e.path = e.path[:0]
	e.problems(ev.Errors)
	e.redactions()
	if e.cut != uncut {
		e.Bool("truncated", true)
	}
	e.buf = append(e.buf, '}', '\n')
}

// longest returns the greatest length to which texts have to be cut so that
// together they lose at least excess bytes, or -1 if they cannot.
func longest(texts []int, excess int) int {
	slices.Sort(texts)
	for i, n := len(texts)-1, 1; i >= 0; i, n = i-1, n+1 {
		next := 0
		if i > 0 {
			next = texts[i-1]
		}
		// The n longest texts have one length now; cutting them to next frees this much.
		if room := (texts[i] - next) * n; excess > room {
			excess -= room
			continue
		}
		return texts[i] - (excess+n-1)/n
	}
	return -1
}

func (e *Encoder) name(name string) {
	b := e.buf
	if c := b[len(b)-1]; c != '{' && c != '[' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	e.buf = append(b, '"', ':')
}

// Open begins an object under name; Close ends it.
func (e *Encoder) Open(name string) {
	e.name(name)
	e.buf = append(e.buf, '{')
	e.path = append(e.path, name)
}

// Close ends the object that Open began.
func (e *Encoder) Close() {
	e.buf = append(e.buf, '}')
	e.path = e.path[:len(e.path)-1]
}

// OpenList begins a list under name; CloseList ends it.
func (e *Encoder) OpenList(name string) {
	e.name(name)
	e.buf = append(e.buf, '[')
	e.path = append(e.path, name)
}

// CloseList ends the list that OpenList began.
func (e *Encoder) CloseList() {
	e.buf = append(e.buf, ']')
	e.path = e.path[:len(e.path)-1]
}

// OpenItem begins an object that is an element of a list; CloseItem ends it.
func (e *Encoder) OpenItem() {
	if e.buf[len(e.buf)-1] != '[' {
		e.buf = append(e.buf, ',')
	}
	e.buf = append(e.buf, '{')
}

// CloseItem ends the element that OpenItem began.
func (e *Encoder) CloseItem() { e.buf = append(e.buf, '}') }

// Int writes a whole number.
func (e *Encoder) Int(name string, v int64) {
	e.name(name)
	e.buf = strconv.AppendInt(e.buf, v, 10)
}

// Uint writes a whole number that cannot be negative.
func (e *Encoder) Uint(name string, v uint64) {
	e.name(name)
	e.buf = strconv.AppendUint(e.buf, v, 10)
}

// MaybeInt writes v if it is known.
func (e *Encoder) MaybeInt(name string, v Maybe[int64]) {
	if v.Known {
		e.Int(name, v.V)
	}
}

// MaybeUint writes v if it is known.
func (e *Encoder) MaybeUint(name string, v Maybe[uint64]) {
	if v.Known {
		e.Uint(name, v.V)
	}
}

// MaybeFloat writes v, as Float does, if it is known.
func (e *Encoder) MaybeFloat(name string, v Maybe[float64], places int) {
	if v.Known {
		e.Float(name, v.V, places)
	}
}

// Float writes v rounded to so many decimal places (0 to 9). What JSON cannot
// say (NaN, infinities) is left out.
func (e *Encoder) Float(name string, v float64, places int) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	e.name(name)
	e.buf = appendDecimal(e.buf, v, places)
}

// Bool writes a truth value.
func (e *Encoder) Bool(name string, v bool) {
	e.name(name)
	e.buf = strconv.AppendBool(e.buf, v)
}

// Time writes an instant as RFC 3339 with nanoseconds, in UTC. The zero time,
// and what RFC 3339 cannot say (years before 1 and after 9999), is left out.
func (e *Encoder) Time(name string, t time.Time) {
	if !writable(t) {
		return
	}
	if s := t.Unix(); s != e.second || e.stamp == nil {
		e.stamp = t.UTC().AppendFormat(e.stamp[:0], `"2006-01-02T15:04:05.000000000Z"`)
		e.second, e.nano = s, uint32(t.Nanosecond())
	}
	if n := uint32(t.Nanosecond()); n != e.nano {
		e.nano = n
		for i := len(e.stamp) - len(`0Z"`); e.stamp[i] != '.'; i, n = i-1, n/10 {
			e.stamp[i] = byte('0' + n%10)
		}
	}
	e.name(name)
	e.buf = append(e.buf, e.stamp...)
}

// writable reports whether t is set and of a year from 1 to 9999.
func writable(t time.Time) bool {
	const first, end = -62135596800, 253402300800 // 0001-01-01 and 10000-01-01 as Unix time
	s := t.Unix()
	return first <= s && s < end && !t.IsZero()
}

// String writes a text that reveals nothing about people: the name of a device,
// a state, a unit. It is never redacted. An empty one is left out.
func (e *Encoder) String(name, s string) {
	if s == "" {
		return
	}
	e.name(name)
	e.text(s)
}

// Sensitive writes a text as far as the redactor lets it through.
// An empty one is left out.
func (e *Encoder) Sensitive(name string, class Class, s string) {
	if s == "" {
		return
	}
	if s, keep := e.clean(name, class, s); keep {
		e.String(name, s)
	}
}

// Foreign writes a text of somebody else's record, as far as the redactor lets it
// through for the field, which may be known by another name than it stands under.
// An empty one is written too: the record says that it is empty.
func (e *Encoder) Foreign(name, field string, class Class, s string) {
	if s, keep := e.cleanAs(name, field, class, s); keep {
		e.name(name)
		e.text(s)
	}
}

// Item writes a text as an element of the list that OpenList began, as far as the
// redactor lets it through for the field.
func (e *Encoder) Item(field string, class Class, s string) {
	s, keep := e.cleanAs("", field, class, s)
	if !keep {
		return
	}
	if e.buf[len(e.buf)-1] != '[' {
		e.buf = append(e.buf, ',')
	}
	e.text(s)
}

// Clean returns what the redactor lets through of a text in that field, for a
// Body that has the text elsewhere too.
func (e *Encoder) Clean(field string, class Class, s string) (clean string, keep bool) {
	if e.redact == nil || s == "" {
		return s, true
	}
	clean, keep, _ = e.redact(e.kind, field, class, s)
	return clean, keep
}

// clean returns what may be written of s, and notes what was taken out.
func (e *Encoder) clean(name string, class Class, s string) (clean string, keep bool) {
	return e.cleanAs(name, name, class, s)
}

// cleanAs is clean for a member that is known to the redactor as field. Without a
// name it is an element of the list in which the encoder stands.
func (e *Encoder) cleanAs(name, field string, class Class, s string) (clean string, keep bool) {
	if e.redact == nil || s == "" {
		return s, true
	}
	clean, keep, secrets := e.redact(e.kind, field, class, s)
	switch {
	case secrets != "":
		e.Withheld(name + ":" + secrets)
	case !keep || clean != s:
		e.Withheld(name)
	}
	return clean, keep
}

// What is told of redactions is bounded, whatever names and secrets an event has.
const (
	maxRedacted = 32   // in one event; then "…" says that there were more
	maxPaths    = 1024 // that are kept between events
)

// Withheld notes that the member was redacted, for one that the collector did
// not even read.
func (e *Encoder) Withheld(name string) {
	size := len(e.path) + len(name) // of the path
	for _, p := range e.path {
		size += len(p)
	}
	if name == "" || name[0] == ':' { // of a list: eventlog.data, eventlog.data:password
		size--
	}
	for _, r := range e.redacted {
		if len(r) == size && isPath(r, e.path, name) {
			return
		}
	}
	if len(e.redacted) >= maxRedacted {
		e.redacted = append(e.redacted[:maxRedacted], "…")
		return
	}
	for _, p := range e.paths {
		if len(p) == size && isPath(p, e.path, name) {
			e.redacted = append(e.redacted, p)
			return
		}
	}
	p := strings.Join(e.path, ".")
	switch {
	case p == "":
		p = name
	case name == "" || name[0] == ':':
		p += name
	default:
		p += "." + name
	}
	if len(e.paths) >= maxPaths {
		e.paths = e.paths[:0]
	}
	e.paths = append(e.paths, p)
	e.redacted = append(e.redacted, p)
}

// isPath reports whether s names the member of that name at path, or for a name
// that is empty or begins with a colon the list at path.
func isPath(s string, path []string, name string) bool {
	list := name == "" || name[0] == ':'
	for i, p := range path {
		if !strings.HasPrefix(s, p) {
			return false
		}
		s = s[len(p):]
		if list && i == len(path)-1 {
			break
		}
		if s == "" || s[0] != '.' {
			return false
		}
		s = s[1:]
	}
	return s == name
}

// redactions writes which members were redacted. These are names, which a cut
// would turn into others, so they are no texts to the limit.
func (e *Encoder) redactions() {
	if len(e.redacted) == 0 {
		return
	}
	e.name("redacted")
	for i, p := range e.redacted {
		e.buf = append(e.buf, "[,"[min(i, 1)])
		e.buf = appendQuoted(e.buf, p)
	}
	e.buf = append(e.buf, ']')
}

// Strings writes a list of texts that are never redacted. An empty list is left out.
func (e *Encoder) Strings(name string, list []string) {
	if len(list) == 0 {
		return
	}
	e.name(name)
	e.buf = append(e.buf, '[')
	for i, s := range list {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.text(s)
	}
	e.buf = append(e.buf, ']')
}

// problems writes what could not be read. The words are often those of others:
// of the system, of a program that was asked.
func (e *Encoder) problems(list []string) {
	const name = "errors"
	for i, s := range list {
		if i == 0 {
			e.name(name)
			e.buf = append(e.buf, '[')
		} else {
			e.buf = append(e.buf, ',')
		}
		s, _ = e.clean(name, Text, s)
		e.text(s)
	}
	if len(list) > 0 {
		e.buf = append(e.buf, ']')
	}
}

// text appends s quoted, cut to the length that the line's limit leaves it.
func (e *Encoder) text(s string) {
	e.buf = append(e.buf, '"')
	start := len(e.buf)
	e.buf = appendEscaped(e.buf, s, e.cut)
	e.texts = append(e.texts, len(e.buf)-start)
	e.buf = append(e.buf, '"')
}

func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = appendEscaped(dst, s, uncut)
	return append(dst, '"')
}

// appendEscaped appends s as the inside of a JSON string (RFC 8259, section 7),
// at most room bytes of it and never a part of a character. Bytes that are not
// UTF-8 become U+FFFD.
func appendEscaped(dst []byte, s string, room int) []byte {
	for {
		n := plain(s)
		if n > room {
			return append(dst, s[:room]...)
		}
		dst, s, room = append(dst, s[:n]...), s[n:], room-n
		if s == "" {
			return dst
		}
		start := len(dst)
		dst, n = appendSpecial(dst, s)
		if room -= len(dst) - start; room < 0 {
			return dst[:start]
		}
		s = s[n:]
	}
}

// plain returns how many bytes at the start of s stand for themselves.
func plain(s string) int {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return i
		}
	}
	return len(s)
}

// appendSpecial appends the first character of s, which is not plain, and
// returns how many bytes of s that was.
func appendSpecial(dst []byte, s string) ([]byte, int) {
	const hex = "0123456789abcdef"
	c := s[0]
	switch {
	case c >= utf8.RuneSelf:
		r, n := utf8.DecodeRuneInString(s)
		return utf8.AppendRune(dst, r), n // r is U+FFFD for a bad byte
	case c == '"' || c == '\\':
		return append(dst, '\\', c), 1
	case c == '\n':
		return append(dst, `\n`...), 1
	case c == '\r':
		return append(dst, `\r`...), 1
	case c == '\t':
		return append(dst, `\t`...), 1
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15]), 1
}

var pow10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// appendDecimal appends v rounded half away from zero to places decimals,
// without trailing zeros.
func appendDecimal(dst []byte, v float64, places int) []byte {
	scaled := math.Round(v * pow10[places])
	if math.Abs(scaled) >= 1<<53 { // too large to count in whole units
		return strconv.AppendFloat(dst, v, 'g', -1, 64)
	}
	n := int64(scaled)
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	unit := int64(pow10[places])
	dst = strconv.AppendInt(dst, n/unit, 10)
	fraction := n % unit
	if fraction == 0 {
		return dst
	}
	dst = append(dst, ".000000000"[:1+places]...)
	for i := len(dst) - 1; fraction > 0; i, fraction = i-1, fraction/10 {
		dst[i] = byte('0' + fraction%10)
	}
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}
