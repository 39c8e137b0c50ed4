package eventlog

import (
	"bytes"
	"fmt"
	"math/bits"
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

// element reads an element of any kind, of which the name is read, into a node
// below parent. That of a Data element is called what its attribute Name says;
// without one it has no name.
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
