package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/rea-agent/rea/internal/event"
)

// What a record may hold, so that every receiver takes the event that comes of
// it. One that holds more stands in xml as it was, and errors says so.
const (
	maxMembers = 250  // of one element, by different names
	maxNodes   = 4096 // elements and attributes of data
	maxName    = 256  // bytes
	maxDepth   = 32   // elements within elements
	maxNesting = 13   // of objects and lists below the body: an event may have 16
)

// A span is a part of the record's texts: below len(xml) of its XML, above that
// of what was resolved.
type span struct{ start, end int }

func (s span) empty() bool { return s.start == s.end }

// A node is an element or an attribute of the data of an event. Its numbers are
// indexes of other nodes, 0 for none.
type node struct {
	name, value span
	first, last int32  // of its children
	next        int32  // its sibling
	same        int32  // the next sibling of the same name
	again       bool   // an earlier sibling has the name
	names       uint64 // a Bloom filter of the names of its children
	members     int32  // how many different names these are
}

// The first nodes hold the others.
const (
	rootData    = iota // EventData, the Data elements with names
	rootUnnamed        // EventData, those without
	rootUser           // UserData
	rootOther          // elements beside these
	roots
)

// A scanner reads one XML document in a single pass. It knows what Windows
// renders, and of the rest of XML as much as is needed to pass over it.
type scanner struct {
	b          []byte
	i          int
	attributes []attribute // of the tag that was read last
	resolved   []byte      // texts that do not stand in b as they are
	nodes      []node
	depth      int // the deepest element
}

type attribute struct{ name, value span }

// A Parser reads records, one after the other, and reuses its memory. The zero
// Parser is ready. It belongs to one goroutine at a time.
type Parser struct {
	KeepXML bool // in every record, not only in those that cannot be read
	s       scanner
}

// Parse makes r the event in xml, as Windows renders it, in UTF-8. What cannot be
// read as one is no error: then r says what was wrong, and has what came before
// that and the whole of the XML. It keeps nothing of xml.
func (p *Parser) Parse(xml []byte, r *Record) {
	xml = bytes.TrimRight(xml, "\x00")
	if !utf8.Valid(xml) {
		xml = bytes.ToValidUTF8(xml, []byte("\ufffd"))
	}
	s := &p.s
	*s = scanner{b: xml, attributes: s.attributes, resolved: s.resolved[:0], nodes: append(r.nodes[:0], make([]node, roots)...)}
	*r = Record{errors: r.errors[:0], keywordNames: r.keywordNames[:0], keepXML: p.KeepXML}
	f := fields{keywordNames: r.keywordNames}
	err := s.document(&f)
	if deep := s.tooDeep(); err == nil {
		err = deep
	}
	r.nodes, r.xml, r.resolved = s.nodes, string(xml), ""
	if len(s.resolved) > 0 {
		r.resolved = string(s.resolved)
	}
	r.take(&f)
	if err != nil {
		r.broken = true
		r.errors = append(r.errors, "xml: "+err.Error())
	}
	s.b, s.nodes = nil, nil
}

// fields are the parts of System and RenderingInfo as they stand in the text.
type fields struct {
	provider, guid, source, id, qualifiers, version, level, task, opcode, keywords, created,
	record, activity, related, pid, tid, channel, computer, user, dataName, binary span

	message, culture, levelName, taskName, opcodeName, channelName, providerName span
	keywordNames                                                                 []span
}

var errEnd = errors.New("it ends in the middle")

// document reads the whole of it.
func (s *scanner) document(f *fields) error {
	if err := s.prolog(); err != nil {
		return err
	}
	s.i++
	name, err := s.name()
	if err != nil {
		return err
	}
	if s.text(name) != "Event" {
		return fmt.Errorf("it begins with %q, not with Event", s.text(name))
	}
	empty, err := s.open()
	if err != nil {
		return err
	}
	for more := !empty; more; {
		var part span
		if part, more, err = s.child(name); err == nil && more {
			err = s.part(f, part)
		}
		if err != nil {
			return err
		}
	}
	if err := s.prolog(); !errors.Is(err, errEnd) {
		return errors.New("something stands behind the event")
	}
	return nil
}

// prolog passes over what may stand in front of an element and behind the last.
func (s *scanner) prolog() error {
	s.i += len(s.b[s.i:]) - len(bytes.TrimPrefix(s.b[s.i:], []byte("\ufeff")))
	for {
		s.space()
		switch {
		case s.i == len(s.b):
			return errEnd
		case s.b[s.i] != '<':
			return fmt.Errorf("text where an element should begin, at byte %d", s.i)
		case s.at("<?"):
			if err := s.until("?>"); err != nil {
				return err
			}
		case s.at("<!--"):
			if err := s.until("-->"); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (s *scanner) at(prefix string) bool {
	return len(s.b)-s.i >= len(prefix) && string(s.b[s.i:s.i+len(prefix)]) == prefix
}

// until goes behind the next mark.
func (s *scanner) until(mark string) error {
	n := bytes.Index(s.b[s.i:], []byte(mark))
	if n < 0 {
		return errEnd
	}
	s.i += n + len(mark)
	return nil
}

func (s *scanner) space() {
	for s.i < len(s.b) && blank(s.b[s.i]) {
		s.i++
	}
}

func blank(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// text returns a text while it is read. It is good as long as nothing is resolved.
func (s *scanner) text(t span) string {
	if n := len(s.b); t.start >= n {
		return string(s.resolved[t.start-n : t.end-n])
	}
	return string(s.b[t.start:t.end])
}

func (s *scanner) bytes(t span) []byte {
	if n := len(s.b); t.start >= n {
		return s.resolved[t.start-n : t.end-n]
	}
	return s.b[t.start:t.end]
}

// inName tells the bytes that a name can go on with, and : for its prefix.
var inName = func() (t [256]bool) {
	for c := range t {
		t[c] = c > ' '
	}
	for _, c := range []byte("<>/=\"'&:") {
		t[c] = false
	}
	return t
}()

// name reads a name and returns it without the prefix of its namespace.
func (s *scanner) name() (span, error) {
	n := span{s.i, s.i}
	for {
		for s.i < len(s.b) && inName[s.b[s.i]] {
			s.i++
		}
		if s.i == len(s.b) {
			return n, errEnd
		}
		if s.b[s.i] != ':' {
			break
		}
		s.i++
		n.start = s.i
	}
	n.end = s.i
	switch c := s.b[s.i]; {
	case c != '>' && c != '/' && c != '=' && !blank(c):
		return n, fmt.Errorf("%q in a name, at byte %d", c, s.i)
	case n.empty():
		return n, fmt.Errorf("no name at byte %d", s.i)
	}
	return n, nil
}

// open reads the rest of the tag that begins an element, its name being read, and
// its attributes into s.attributes, but for those that declare namespaces. empty
// says that the element ends there.
func (s *scanner) open() (empty bool, err error) {
	s.attributes = s.attributes[:0]
	for {
		s.space()
		switch {
		case s.i == len(s.b):
			return false, errEnd
		case s.b[s.i] == '>':
			s.i++
			return false, nil
		case s.at("/>"):
			s.i += 2
			return true, nil
		}
		if err := s.attribute(); err != nil {
			return false, err
		}
	}
}

func (s *scanner) attribute() error {
	start := s.i
	name, err := s.name()
	if err != nil {
		return err
	}
	namespace := bytes.HasPrefix(s.b[start:s.i], []byte("xmlns"))
	if s.space(); !s.at("=") {
		return fmt.Errorf("an attribute without a value, at byte %d", s.i)
	}
	s.i++
	if s.space(); s.i == len(s.b) {
		return errEnd
	}
	quote := s.b[s.i]
	if quote != '\'' && quote != '"' {
		return fmt.Errorf("an attribute without quotes, at byte %d", s.i)
	}
	s.i++
	n := bytes.IndexByte(s.b[s.i:], quote)
	if n < 0 {
		return errEnd
	}
	if !namespace {
		if len(s.attributes) > maxMembers {
			return fmt.Errorf("an element has more than %d attributes", maxMembers)
		}
		s.attributes = append(s.attributes, attribute{name, s.resolve(span{s.i, s.i + n})})
	}
	s.i += n + 1
	return nil
}

// value returns the attribute of that name, empty if there is none.
func (s *scanner) value(name string) span {
	for _, a := range s.attributes {
		if s.text(a.name) == name {
			return a.value
		}
	}
	return span{}
}

// close reads the tag that ends the element of that name, s.i being at its </.
func (s *scanner) close(want span) error {
	s.i += 2
	if n := want.end - want.start; s.i+n < len(s.b) && s.b[s.i+n] == '>' && string(s.b[s.i:s.i+n]) == string(s.b[want.start:want.end]) {
		s.i += n + 1
		return nil
	}
	name, err := s.name()
	if err != nil {
		return err
	}
	if s.text(name) != s.text(want) {
		return fmt.Errorf("%s is ended by %s, at byte %d", s.text(want), s.text(name), name.start)
	}
	if s.space(); !s.at(">") {
		return fmt.Errorf("the end of %s does not end, at byte %d", s.text(want), s.i)
	}
	s.i++
	return nil
}

// child goes to the next element within the one of that name, whose tag was read,
// and reads its name; or it goes behind the end of parent.
// Text between them is of no use there.
func (s *scanner) child(parent span) (name span, more bool, err error) {
	end, err := s.pieces(nil)
	switch {
	case err != nil:
		return name, false, err
	case end:
		return name, false, s.close(parent)
	}
	s.i++
	name, err = s.name()
	return name, err == nil, err
}

// pieces reads text, CDATA, comments and instructions up to the next tag, s.i
// being at its < then, and joins the text to what is in text, if that is not nil.
// end says that the tag ends an element.
func (s *scanner) pieces(text *span) (end bool, err error) {
	for {
		n := bytes.IndexByte(s.b[s.i:], '<')
		if n < 0 {
			return false, errEnd
		}
		if n > 0 && text != nil {
			*text = s.join(*text, s.resolve(span{s.i, s.i + n}))
		}
		s.i += n
		switch {
		case s.at("</"):
			return true, nil
		case !s.at("<!") && !s.at("<?"):
			return false, nil
		case s.at("<![CDATA["):
			start := s.i + len("<![CDATA[")
			if err := s.until("]]>"); err != nil {
				return false, err
			}
			if text != nil {
				*text = s.join(*text, span{start, s.i - len("]]>")})
			}
		case s.at("<!--"):
			err = s.until("-->")
		case s.at("<?"):
			err = s.until("?>")
		default:
			err = fmt.Errorf("a declaration at byte %d", s.i)
		}
		if err != nil {
			return false, err
		}
	}
}

// part reads an element that stands in Event.
func (s *scanner) part(f *fields, name span) error {
	switch s.text(name) {
	case "System":
		return s.system(f, name)
	case "RenderingInfo":
		return s.rendering(f, name)
	case "EventData":
		return s.eventData(f, name)
	case "UserData":
		return s.userData(name)
	}
	return s.element(rootOther, name, 1, false)
}

func (s *scanner) system(f *fields, name span) error {
	empty, err := s.open()
	if err != nil || empty {
		return err
	}
	for {
		part, more, err := s.child(name)
		if err == nil && more {
			err = s.systemPart(f, part)
		}
		if err != nil || !more {
			return err
		}
	}
}

// systemPart reads an element of System.
func (s *scanner) systemPart(f *fields, name span) error {
	var text span
	if err := s.leaf(name, &text); err != nil {
		return err
	}
	switch s.text(name) {
	case "Provider":
		f.provider, f.guid, f.source = s.value("Name"), s.value("Guid"), s.value("EventSourceName")
	case "EventID":
		f.id, f.qualifiers = text, s.value("Qualifiers")
	case "Version":
		f.version = text
	case "Level":
		f.level = text
	case "Task":
		f.task = text
	case "Opcode":
		f.opcode = text
	case "Keywords":
		f.keywords = text
	case "TimeCreated":
		f.created = s.value("SystemTime")
	case "EventRecordID":
		f.record = text
	case "Correlation":
		f.activity, f.related = s.value("ActivityID"), s.value("RelatedActivityID")
	case "Execution":
		f.pid, f.tid = s.value("ProcessID"), s.value("ThreadID")
	case "Channel":
		f.channel = text
	case "Computer":
		f.computer = text
	case "Security":
		f.user = s.value("UserID")
	}
	return nil
}

// leaf reads an element that holds no others, and its text. Its attributes stay
// in s.attributes.
func (s *scanner) leaf(name span, text *span) error {
	empty, err := s.open()
	if err != nil || empty {
		return err
	}
	end, err := s.pieces(text)
	if err != nil {
		return err
	}
	if !end {
		return fmt.Errorf("an element within %s, at byte %d", s.text(name), s.i)
	}
	return s.close(name)
}

// rendering reads RenderingInfo, the texts that a forwarding machine added.
func (s *scanner) rendering(f *fields, name span) error {
	empty, err := s.open()
	if err != nil || empty {
		return err
	}
	f.culture = s.value("Culture")
	for {
		part, more, err := s.child(name)
		if err == nil && more {
			err = s.renderingPart(f, part)
		}
		if err != nil || !more {
			return err
		}
	}
}

func (s *scanner) renderingPart(f *fields, name span) error {
	var unused span
	text := &unused
	switch s.text(name) {
	case "Message":
		text = &f.message
	case "Level":
		text = &f.levelName
	case "Task":
		text = &f.taskName
	case "Opcode":
		text = &f.opcodeName
	case "Channel":
		text = &f.channelName
	case "Provider":
		text = &f.providerName
	case "Keywords":
		return s.keywords(f, name)
	}
	return s.leaf(name, text)
}

func (s *scanner) keywords(f *fields, name span) error {
	const most = 64 // they are bits
	empty, err := s.open()
	if err != nil || empty {
		return err
	}
	for {
		part, more, err := s.child(name)
		if err != nil || !more {
			return err
		}
		var keyword span
		if err := s.leaf(part, &keyword); err != nil {
			return err
		}
		if !keyword.empty() && len(f.keywordNames) < most {
			f.keywordNames = append(f.keywordNames, keyword)
		}
	}
}

// eventData reads EventData: Data elements, which have their names in an
// attribute or none, and Binary.
func (s *scanner) eventData(f *fields, name span) error {
	empty, err := s.open()
	if err != nil {
		return err
	}
	if f.dataName = s.value("Name"); empty {
		return nil
	}
	for {
		part, more, err := s.child(name)
		if err != nil || !more {
			return err
		}
		switch s.text(part) {
		case "Binary":
			err = s.leaf(part, &f.binary)
		case "Data":
			err = s.element(rootData, part, 1, true)
		default:
			err = s.element(rootData, part, 1, false)
		}
		if err != nil {
			return err
		}
	}
}

func (s *scanner) userData(name span) error {
	empty, err := s.open()
	if err != nil || empty {
		return err
	}
	for {
		part, more, err := s.child(name)
		if err == nil && more {
			err = s.element(rootUser, part, 1, false)
		}
		if err != nil || !more {
			return err
		}
	}
}

// element reads an element of any kind, of which the name is read, into a node
// below parent. That of a Data
// element is called what its attribute Name says; without one it has no name.
func (s *scanner) element(parent int32, name span, depth int, isData bool) error {
	if depth > maxDepth {
		return fmt.Errorf("elements are nested more than %d deep", maxDepth)
	}
	empty, err := s.open()
	if err != nil {
		return err
	}
	called := name
	if isData {
		if called = s.value("Name"); called.empty() {
			parent = rootUnnamed
		}
	}
	n, err := s.add(parent, called, span{})
	if err != nil {
		return err
	}
	for _, a := range s.attributes {
		if isData && s.text(a.name) == "Name" {
			continue
		}
		if _, err := s.add(n, a.name, a.value); err != nil {
			return err
		}
	}
	if empty {
		return nil
	}
	return s.content(n, name, depth)
}

// content reads what stands in the element of node n, to its end.
func (s *scanner) content(n int32, name span, depth int) error {
	s.depth = max(s.depth, depth)
	var text span
	for elements := false; ; elements = true {
		var run span
		end, err := s.pieces(&run)
		if err != nil {
			return err
		}
		if elements = elements || !end; !elements || !s.isBlank(run) { // blanks between elements mean nothing
			text = s.join(text, run)
		}
		if end {
			s.nodes[n].value = text
			return s.close(name)
		}
		s.i++
		child, err := s.name()
		if err == nil {
			err = s.element(n, child, depth+1, false)
		}
		if err != nil {
			return err
		}
	}
}

func (s *scanner) isBlank(t span) bool {
	for _, c := range s.bytes(t) {
		if !blank(c) {
			return false
		}
	}
	return true
}

// add makes a node of that name and value, the last child of parent.
func (s *scanner) add(parent int32, name, value span) (int32, error) {
	n := int32(len(s.nodes))
	switch {
	case n >= maxNodes:
		return 0, fmt.Errorf("more than %d elements and attributes", maxNodes)
	case name.end-name.start > maxName:
		return 0, fmt.Errorf("a name of more than %d bytes", maxName)
	}
	if parent != rootUnnamed {
		name = s.member(name)
	}
	s.nodes = append(s.nodes, node{name: name, value: value})
	p, c := &s.nodes[parent], &s.nodes[n]
	if parent != rootUnnamed {
		if err := s.pair(p, c, n); err != nil {
			return 0, err
		}
	}
	if p.first == 0 {
		p.first = n
	} else {
		s.nodes[p.last].next = n
	}
	p.last = n
	return n, nil
}

// pair joins c, the node n, to an earlier child of p that has its name.
func (s *scanner) pair(p, c *node, n int32) error {
	name := s.bytes(c.name)
	bit := bloom(name)
	if p.names&bit != 0 {
		for o := p.first; o != 0; o = s.nodes[o].next {
			if s.nodes[o].again || !bytes.Equal(s.bytes(s.nodes[o].name), name) {
				continue
			}
			for s.nodes[o].same != 0 {
				o = s.nodes[o].same
			}
			s.nodes[o].same, c.again = n, true
			return nil
		}
	}
	p.names |= bit
	if p.members++; p.members > maxMembers {
		return fmt.Errorf("an element has more than %d members", maxMembers)
	}
	return nil
}

// bloom returns the bit of a name, which differs for most.
func bloom(name []byte) uint64 {
	h := uint64(len(name))
	for _, c := range name {
		h = bits.RotateLeft64(h, 5) ^ uint64(c)
	}
	return 1 << (h * 0x9e3779b97f4a7c15 >> 58)
}

// member returns the name under which a member can stand: without what JSON would
// escape, which becomes _.
func (s *scanner) member(name span) span {
	odd := func(c byte) bool { return c < ' ' || c == '"' || c == '\\' || c == 0x7f }
	b := s.bytes(name)
	i := 0
	for i < len(b) && !odd(b[i]) {
		i++
	}
	if i == len(b) {
		return name
	}
	name = s.copied(b)
	for i, c := range s.bytes(name) {
		if odd(c) {
			s.bytes(name)[i] = '_'
		}
	}
	return name
}

// copied puts a text behind those that were resolved.
func (s *scanner) copied(b []byte) span {
	start := len(s.b) + len(s.resolved)
	s.resolved = append(s.resolved, b...)
	return span{start, start + len(b)}
}

// join returns two texts that follow on each other as one.
func (s *scanner) join(a, b span) span {
	switch {
	case a.empty():
		return b
	case b.empty():
		return a
	}
	if a.end != len(s.b)+len(s.resolved) {
		a = s.copied(s.bytes(a))
	}
	return span{a.start, s.copied(s.bytes(b)).end}
}

// resolve returns the text with its references (&lt; and the like) replaced. What
// is no reference stays as it is.
func (s *scanner) resolve(t span) span {
	b := s.b[t.start:t.end]
	n := bytes.IndexByte(b, '&')
	if n < 0 {
		return t
	}
	start := len(s.resolved)
	for n >= 0 {
		s.resolved = append(s.resolved, b[:n]...)
		r, size := reference(b[n:])
		s.resolved = utf8.AppendRune(s.resolved, r)
		b = b[n+size:]
		n = bytes.IndexByte(b, '&')
	}
	s.resolved = append(s.resolved, b...)
	return span{len(s.b) + start, len(s.b) + len(s.resolved)}
}

// reference reads the reference at the start of b, which begins with &.
func reference(b []byte) (r rune, size int) {
	end := bytes.IndexByte(b[:min(len(b), 12)], ';')
	if end < 0 {
		return '&', 1
	}
	switch name := b[1:end]; string(name) {
	case "lt":
		return '<', end + 1
	case "gt":
		return '>', end + 1
	case "amp":
		return '&', end + 1
	case "apos":
		return '\'', end + 1
	case "quot":
		return '"', end + 1
	default:
		if len(name) < 2 || name[0] != '#' {
			return '&', 1
		}
		digits, base := name[1:], 10
		if digits[0] == 'x' || digits[0] == 'X' {
			digits, base = digits[1:], 16
		}
		n, err := strconv.ParseUint(string(digits), base, 32)
		if err != nil {
			return '&', 1
		}
		if n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
			return utf8.RuneError, end + 1
		}
		return rune(n), end + 1
	}
}

// tooDeep says so if objects and lists are nested deeper than an event may have
// them, and drops them.
func (s *scanner) tooDeep() error {
	if s.depth < maxNesting/2 {
		return nil
	}
	for root := range int32(roots) {
		if s.nesting(root) > maxNesting {
			clear(s.nodes[:roots])
			return fmt.Errorf("objects and lists are nested more than %d deep", maxNesting)
		}
	}
	return nil
}

// nesting returns how deep the object of node n is.
func (s *scanner) nesting(n int32) int {
	deepest := 0
	for c := s.nodes[n].first; c != 0; c = s.nodes[c].next {
		d := 0
		if s.nodes[c].first != 0 {
			d = s.nesting(c)
		}
		if s.nodes[c].again || s.nodes[c].same != 0 {
			d++
		}
		deepest = max(deepest, d)
	}
	return deepest + 1
}

// number reads a whole number as Windows renders it: 4624, 0x10.
func number(s string) (uint64, error) {
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		return strconv.ParseUint(s[2:], 16, 64)
	}
	return strconv.ParseUint(s, 10, 64)
}

// instant reads a time as Windows renders it, 2018-08-05T10:34:37.552695700Z,
// which time.Parse takes four times as long for.
func instant(s string) (time.Time, error) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[len(s)-1] != 'Z' || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return time.Parse(time.RFC3339Nano, s)
	}
	year, ok1 := digits(s[:4])
	month, ok2 := digits(s[5:7])
	day, ok3 := digits(s[8:10])
	hour, ok4 := digits(s[11:13])
	minute, ok5 := digits(s[14:16])
	second, ok6 := digits(s[17:19])
	fraction := s[19 : len(s)-1]
	nano, ok7 := 0, true
	if fraction != "" {
		if fraction[0] != '.' || len(fraction) > 10 {
			return time.Parse(time.RFC3339Nano, s)
		}
		nano, ok7 = digits(fraction[1:])
		for range 10 - len(fraction) {
			nano *= 10
		}
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nano, time.UTC)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || !ok7 || t.Month() != time.Month(month) || t.Day() != day || t.Hour() != hour || t.Minute() != minute || t.Second() != second {
		return time.Parse(time.RFC3339Nano, s) // which says what is wrong
	}
	return t, nil
}

func digits(s string) (n int, ok bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, s != ""
}

// known reads a number of System; what is no number is noted.
func (r *Record) known(field string, t span) event.Maybe[uint64] {
	if t.empty() {
		return event.Maybe[uint64]{}
	}
	n, err := number(r.text(t))
	if err != nil {
		r.errors = append(r.errors, field+": "+err.Error())
		return event.Maybe[uint64]{}
	}
	return event.Known(n)
}
