// Package xpath selects records of the Windows event log as Windows does: by the
// part of XPath 1.0 that it takes, with its own functions.
//
// [Compile] reads an expression, [Expr.Selects] asks it about one record. What
// Windows does not take is an [Error] that says where it stands and what would be
// right. docs/evtx.md tells what is taken, and what is not known of Windows.
package xpath

import (
	"fmt"
	"iter"
	"time"
)

// The bounds of an expression.
const (
	MaxLength = 32 << 10 // bytes
	maxDepth  = 64       // brackets within brackets
)

// An Error says what is wrong with an expression, where, and how to get on.
type Error struct {
	Column int // in characters, from 1
	What   string
	Fix    string // may be empty
}

func (e *Error) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.What) }

// An Expr is an expression that was read. It does not change, so goroutines may
// share it.
type Expr struct{ root test }

// Selects reports whether the expression selects the record in t; now is what
// timediff counts to.
func (e *Expr) Selects(t *Tree, now time.Time) bool {
	if len(t.nodes) == 0 {
		return false
	}
	t.now = ticksOf(now)
	return e.root.holds(t, place{})
}

// A place is where a test is made: at a node, the one of that number among those
// that its step found.
type place struct {
	node     int32
	position uint64
}

// A test is a condition.
type test interface {
	holds(t *Tree, at place) bool
}

type and []test

func (l and) holds(t *Tree, at place) bool {
	for _, each := range l {
		if !each.holds(t, at) {
			return false
		}
	}
	return true
}

type or []test

func (l or) holds(t *Tree, at place) bool {
	for _, each := range l {
		if each.holds(t, at) {
			return true
		}
	}
	return false
}

// A counted test compares position() with a number.
type counted struct {
	op     operator
	number uint64
}

func (c counted) holds(_ *Tree, at place) bool {
	switch {
	case at.position < c.number:
		return c.op.takes(-1)
	case at.position > c.number:
		return c.op.takes(1)
	}
	return c.op.takes(0)
}

// A found test holds where any of the nodes that its path leads to fits.
type found struct {
	path []step
	is   leaf
}

func (f *found) holds(t *Tree, at place) bool { return f.from(t, at.node, f.path) }

func (f *found) from(t *Tree, n int32, path []step) bool {
	if len(path) == 0 {
		return f.is.fits(t, &t.nodes[n])
	}
	s := &path[0]
	for c := range s.children(t, n) {
		if f.from(t, c, path[1:]) {
			return true
		}
	}
	return false
}

// children walks over what the step finds at node n. Each predicate counts what
// those before it have left.
func (s *step) children(t *Tree, n int32) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		var few [4]uint64
		positions := few[:]
		if len(s.predicates) > len(few) {
			positions = make([]uint64, len(s.predicates))
		}
	next:
		for c := t.nodes[n].first; c != 0; c = t.nodes[c].next {
			if !s.names(&t.nodes[c]) {
				continue
			}
			for i, p := range s.predicates {
				if positions[i]++; !p.holds(t, place{c, positions[i]}) {
					continue next
				}
			}
			if !yield(c) {
				return
			}
		}
	}
}

// A step goes to the children of a node, or to its attributes.
type step struct {
	attribute  bool
	name       string // * for all
	predicates []test

	counts int  // where one of them asks for the position, 0 for none
	deeper bool // one of them asks for elements within
}

func (s *step) names(n *node) bool {
	return s.attribute == n.attribute && (s.name == "*" || s.name == string(n.name))
}

// A leaf is what is asked of the node at the end of a path.
type leaf interface {
	fits(t *Tree, n *node) bool
}

type exists struct{}

func (exists) fits(*Tree, *node) bool { return true }

// A compared node has a text that stands so to a literal.
type compared struct {
	op operator
	to literal
}

func (c *compared) fits(_ *Tree, n *node) bool { return !n.branch && c.to.compare(n.value, c.op) }

// A masked node is a number that has one of the bits.
type masked struct{ bits uint64 }

func (m masked) fits(_ *Tree, n *node) bool {
	v, ok := bitsOf(n.value)
	return ok && v&m.bits != 0
}

// A dated node is a time that is so many milliseconds before another.
type dated struct {
	op     operator
	number number
	other  int64 // in ticks
	isNow  bool  // the other is the time of asking
	second bool  // the node is the later one, if the difference is positive
}

func (d *dated) fits(t *Tree, n *node) bool {
	at, ok := instantOf(n.value)
	if !ok {
		return false
	}
	other := d.other
	if d.isNow {
		other = t.now
	}
	if d.second {
		at, other = other, at
	}
	ms := (other - at) / ticksPerMS
	difference := number{negative: ms < 0, whole: uint64(max(ms, -ms))}
	return d.op.takes(difference.compare(d.number))
}
