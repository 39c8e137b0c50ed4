package eventlog

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/rea-agent/rea/internal/xpath"
)

// maxOutline is how deep elements may be nested in an outline. A record of a file
// is at most that deep.
const maxOutline = 64

// Outline makes t the whole record in xml, as XPath expressions see it. t is good
// until the next call or until xml changes. On an error t has what came before it.
func (p *Parser) Outline(xml []byte, t *xpath.Tree) error {
	xml = bytes.TrimRight(xml, "\x00")
	if !utf8.Valid(xml) {
		xml = bytes.ToValidUTF8(xml, []byte("\ufffd"))
	}
	s := &p.s
	*s = scanner{b: xml, attributes: s.attributes, resolved: s.resolved[:0]}
	document := t.Reset()
	if err := s.prolog(); err != nil {
		return err
	}
	return s.outline(t, document, 1)
}

// outline reads an element below parent, s.i being at its <.
func (s *scanner) outline(t *xpath.Tree, parent int32, depth int) error {
	if depth > maxOutline {
		return fmt.Errorf("elements are nested more than %d deep", maxOutline)
	}
	s.i++
	name, err := s.name()
	if err != nil {
		return err
	}
	n, err := t.Element(parent, s.bytes(name))
	if err != nil {
		return err
	}
	empty, err := s.open()
	if err != nil {
		return err
	}
	for _, a := range s.attributes {
		if err := t.Attribute(n, s.bytes(a.name), s.bytes(a.value)); err != nil {
			return err
		}
	}
	if empty {
		return nil
	}
	var text span
	for {
		end, err := s.pieces(&text)
		switch {
		case err != nil:
			return err
		case end:
			t.Text(n, s.bytes(text))
			return s.close(name)
		}
		if err := s.outline(t, n, depth+1); err != nil {
			return err
		}
	}
}
