package xpath

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A token is a name, a number, a literal or a mark.
type token struct {
	kind  tokenKind
	text  string // of a literal: without its quotes
	start int    // in bytes
}

type tokenKind int

const (
	atEnd tokenKind = iota
	aName
	aNumber
	aLiteral
	aMark
)

// String shows a token in a message.
func (t token) String() string {
	switch t.kind {
	case atEnd:
		return "the end"
	case aLiteral:
		return fmt.Sprintf("the text %.30q", t.text)
	}
	return fmt.Sprintf("%.30q", t.text)
}

func (t token) is(mark string) bool { return t.kind == aMark && t.text == mark }

const blanks = " \t\r\n"

// marks are those of two characters before those of one.
var marks = []string{"!=", "<=", ">=", "::", "=", "<", ">", "(", ")", "[", "]", "/", "@", ",", "*"}

// strange are beginnings that mean something in XPath, in XML or elsewhere, and
// nothing here.
var strange = []struct{ text, what, fix string }{
	{"//", "Windows takes no //", "name each element on the way: Event/System/EventID"},
	{"==", "== is no comparison", "write ="},
	{"<>", "<> is no comparison", "write !="},
	{"&&", "&& joins nothing", "write and"},
	{"||", "|| joins nothing", "write or"},
	{"|", "Windows takes no union of paths", "write or between two conditions"},
	{"&lt;", "this is < as XML writes it", "write <"},
	{"&gt;", "this is > as XML writes it", "write >"},
	{"&amp;", "this is & as XML writes it", "write & within quotes"},
	{"&quot;", "this is a quote as XML writes it", `write "`},
	{"&apos;", "this is a quote as XML writes it", "write '"},
	{"..", "Windows goes to children and attributes only, not to what is around", "begin at an element that holds both"},
	{"$", "Windows has no variables", "write the value"},
	{"+", "Windows does not reckon", "write the number that comes out"},
	{"-", "a number cannot be negative here", "write it as text: '-1'"},
	{"“", "this is not a quote that XPath knows", `write straight quotes: "`},
	{"”", "this is not a quote that XPath knows", `write straight quotes: "`},
	{"‘", "this is not a quote that XPath knows", "write straight quotes: '"},
	{"’", "this is not a quote that XPath knows", "write straight quotes: '"},
}

// next reads the token at p.i.
func (p *parser) next() error {
	rest := strings.TrimLeft(p.s[p.i:], blanks)
	p.i = len(p.s) - len(rest)
	p.token = token{start: p.i}
	if rest == "" {
		return nil
	}
	for _, s := range strange {
		if strings.HasPrefix(rest, s.text) {
			return p.fail(p.i, s.fix, "%s", s.what)
		}
	}
	switch r, _ := utf8.DecodeRuneInString(rest); {
	case r == '"' || r == '\'':
		return p.quoted(rest)
	case r >= '0' && r <= '9':
		return p.number(rest)
	case nameStart(r):
		return p.name(rest)
	}
	for _, m := range marks {
		if strings.HasPrefix(rest, m) {
			p.token.kind, p.token.text = aMark, m
			p.i += len(m)
			return nil
		}
	}
	if rest[0] == '.' {
		return p.fail(p.i, "name the element itself: Data='x'", "Windows takes no . for the element")
	}
	r, _ := utf8.DecodeRuneInString(rest)
	return p.fail(p.i, "", "%q means nothing here", r)
}

func (p *parser) quoted(rest string) error {
	end := strings.IndexByte(rest[1:], rest[0])
	if end < 0 {
		return p.fail(p.i, "end the text with "+rest[:1], "a text that does not end")
	}
	p.token.kind, p.token.text = aLiteral, rest[1:1+end]
	p.i += end + 2
	return nil
}

func (p *parser) number(rest string) error {
	n := strings.IndexFunc(rest, func(r rune) bool { return !nameStart(r) && !unicode.IsDigit(r) && r != '.' })
	if n < 0 {
		n = len(rest)
	}
	p.token.kind, p.token.text = aNumber, rest[:n]
	if _, ok := numberOf([]byte(rest[:n])); !ok {
		return p.fail(p.i, "write one of 64 bits like 4624 or 0x10, or put quotes around a text", "%.30q is not a number", rest[:n])
	}
	p.i += n
	return nil
}

func (p *parser) name(rest string) error {
	n := strings.IndexFunc(rest, func(r rune) bool {
		return !nameStart(r) && !unicode.IsDigit(r) && r != '-' && r != '.' && r != '·' && !unicode.Is(unicode.M, r)
	})
	if n < 0 {
		n = len(rest)
	}
	if after := rest[n:]; strings.HasPrefix(after, ":") && !strings.HasPrefix(after, "::") {
		return p.fail(p.i, "leave out the part before the colon", "Windows takes no namespaces")
	}
	p.token.kind, p.token.text = aName, rest[:n]
	p.i += n
	return nil
}

func nameStart(r rune) bool { return r == '_' || unicode.IsLetter(r) }

// fail makes an error about what stands at that byte.
func (p *parser) fail(at int, fix, format string, args ...any) error {
	return &Error{Column: utf8.RuneCountInString(p.s[:at]) + 1, What: fmt.Sprintf(format, args...), Fix: fix}
}
