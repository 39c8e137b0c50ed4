package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
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
