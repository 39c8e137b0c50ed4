package xpath

import "errors"

// maxNodes bounds the elements and attributes of one record.
const maxNodes = 1 << 16

var errNodes = errors.New("more elements and attributes than an expression can be asked about")

// A Tree is one record as expressions see it: elements, attributes and texts,
// without namespaces. It is made with Reset, Element, Attribute and Text, and used
// again. The zero Tree is ready, and selected by nothing. It belongs to one
// goroutine at a time.
type Tree struct {
	nodes []node
	now   int64 // in ticks, while it is asked
}

// A node is an element or an attribute. Its numbers are indexes of others, 0 for
// none. The first stands for the document.
type node struct {
	name, value       []byte
	first, last, next int32
	attribute, branch bool // a branch has elements in it, and no text
}

// Reset makes the tree empty and returns the node in which the root stands.
func (t *Tree) Reset() (document int32) {
	t.nodes = append(t.nodes[:0], node{branch: true})
	return 0
}

// Element adds an element as the last child of parent. The tree keeps name.
func (t *Tree) Element(parent int32, name []byte) (int32, error) {
	t.nodes[parent].branch, t.nodes[parent].value = true, nil
	return t.add(parent, node{name: name})
}

// Attribute adds an attribute of an element. The tree keeps name and value.
func (t *Tree) Attribute(element int32, name, value []byte) error {
	_, err := t.add(element, node{name: name, value: value, attribute: true})
	return err
}

// Text sets what stands in an element; it is of no use where that has others in it.
func (t *Tree) Text(element int32, text []byte) {
	if n := &t.nodes[element]; !n.branch {
		n.value = text
	}
}

// Find returns the text of the first element at the end of the path from the
// document, nil if there is none.
func (t *Tree) Find(path ...string) []byte {
	if len(t.nodes) == 0 {
		return nil
	}
	n := int32(0)
	for _, name := range path {
		c := t.nodes[n].first
		for c != 0 && (t.nodes[c].attribute || string(t.nodes[c].name) != name) {
			c = t.nodes[c].next
		}
		if n = c; n == 0 {
			return nil
		}
	}
	return t.nodes[n].value
}

func (t *Tree) add(parent int32, n node) (int32, error) {
	if len(t.nodes) >= maxNodes {
		return 0, errNodes
	}
	i := int32(len(t.nodes))
	t.nodes = append(t.nodes, n)
	if p := &t.nodes[parent]; p.first == 0 {
		p.first, p.last = i, i
	} else {
		t.nodes[p.last].next = i
		p.last = i
	}
	return i, nil
}
