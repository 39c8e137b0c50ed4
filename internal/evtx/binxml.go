package evtx

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits that no real event comes near. They keep a hostile template, which can
// name itself or its values again and again, from growing without bound.
const (
	maxXML     = 1 << 20 // bytes of XML a record
	maxDepth   = 64      // elements and templates in each other
	recordFuel = 2 << 20 // bytes and tokens looked at, a record
	chunkFuel  = 8 << 20 // the same, a chunk; real ones take up to 170,000
)

var (
	errShort  = errors.New("BinXml ends too early")
	errToken  = errors.New("token in the wrong place")
	errName   = errors.New("a name that XML does not allow")
	errValue  = errors.New("value of the wrong size or type")
	errRoot   = errors.New("not exactly one root element")
	errDepth  = fmt.Errorf("deeper than %d elements and templates", maxDepth)
	errTooBig = fmt.Errorf("more than %d bytes of XML, or of work for it", maxXML)
)

// Tokens. Most of them may have the bit more.
const (
	tokenEOF = iota
	tokenElement
	tokenCloseStart
	tokenCloseEmpty
	tokenEnd
	tokenText
	tokenAttribute
	tokenCDATA
	tokenCharRef
	tokenEntityRef
	tokenPITarget
	tokenPIData
	tokenTemplate
	tokenNormal
	tokenOptional
	tokenFragment

	more = 0x40
)

const noDependency = 0xffff

// renderer turns BinXml into text. All positions are offsets in the chunk: names
// and templates are written once, where they are first used, and named by their
// offset from then on.
type renderer struct {
	chunk  []byte
	out    []byte
	values []value // of all templates that are open, the innermost last
	left   int     // fuel for this chunk
	fuel   int     // fuel for this record
	depth  int
	open   int // elements
	roots  int
	array  array
	cursor cursor
}

// value is one of the values that go into a template.
type value struct {
	pos, end int
	kind     byte
}

// scope says which values the substitutions of a fragment mean. Only what stands
// in a template has any, and only its elements name the value they depend on.
type scope struct {
	first, n int
	template bool
}

// array is the state of an element that is repeated for each item of an array.
type array struct{ item, count int }

// cursor remembers where an item of the array at pos begins, or finding each would
// mean to look at all before it.
type cursor struct{ pos, item, at int }

// begin takes up a new chunk.
func (r *renderer) begin(chunk []byte) {
	r.chunk, r.left = chunk, chunkFuel
}

// record renders the BinXml from pos to end. The text is valid until the next call.
func (r *renderer) record(pos, end int) ([]byte, error) {
	r.out, r.values, r.depth, r.open, r.roots = r.out[:0], r.values[:0], 0, 0, 0
	r.array, r.cursor = array{}, cursor{}
	r.fuel = min(recordFuel, r.left)
	before := r.fuel
	err := r.fragment(pos, end, scope{})
	r.left -= before - max(r.fuel, 0)
	if err != nil {
		return nil, err
	}
	if r.roots != 1 {
		return nil, errRoot
	}
	return r.out, nil
}

// spend pays for n bytes or tokens.
func (r *renderer) spend(n int) error {
	r.fuel -= n
	if r.fuel < 0 || len(r.out) > maxXML {
		return errTooBig
	}
	return nil
}

// u8, u16 and u32 read at pos, if that lies before end.
func (r *renderer) u8(pos, end int) (byte, error) {
	if pos >= end {
		return 0, errShort
	}
	return r.chunk[pos], nil
}

func (r *renderer) u16(pos, end int) (int, error) {
	if pos+2 > end {
		return 0, errShort
	}
	return int(binary.LittleEndian.Uint16(r.chunk[pos:])), nil
}

// u32 refuses what cannot be an offset or a size in a chunk.
func (r *renderer) u32(pos, end int) (int, error) {
	if pos+4 > end {
		return 0, errShort
	}
	v := binary.LittleEndian.Uint32(r.chunk[pos:])
	if v > chunkSize {
		return 0, errShort
	}
	return int(v), nil
}

// fragment renders what stands outside of any element: a record, the body of a
// template, or a value that is BinXml.
func (r *renderer) fragment(pos, end int, s scope) error {
	if r.depth++; r.depth > maxDepth {
		return errDepth
	}
	defer func() { r.depth-- }()
	for pos < end {
		if err := r.spend(1); err != nil {
			return err
		}
		var err error
		switch r.chunk[pos] &^ more {
		case tokenEOF:
			return nil
		case tokenFragment:
			pos += 4
		case tokenElement:
			pos, err = r.element(pos, end, s)
		case tokenTemplate:
			pos, err = r.instance(pos, end)
		case tokenPITarget:
			pos, err = r.instruction(pos, end)
		default:
			err = errToken
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// instance renders a template with the values that follow it, and returns where
// they end.
//
//	0c  1 byte  4 id  4 offset of the definition  [definition, if here]  values
func (r *renderer) instance(pos, end int) (int, error) {
	def, err := r.u32(pos+6, end)
	if err != nil {
		return 0, err
	}
	pos += 10
	size, err := r.u32(def+20, len(r.chunk))
	if err != nil || def+24+size > len(r.chunk) {
		return 0, errShort
	}
	if def == pos {
		pos += 24 + size
	}
	s := scope{first: len(r.values), template: true}
	if pos, err = r.pushValues(pos, end); err != nil {
		return 0, err
	}
	s.n = len(r.values) - s.first
	err = r.fragment(def+24, def+24+size, s)
	r.values = r.values[:s.first]
	return pos, err
}

// pushValues reads how many values there are, the size and type of each, and then
// where each lies.
func (r *renderer) pushValues(pos, end int) (int, error) {
	n, err := r.u32(pos, end)
	if err != nil {
		return 0, err
	}
	pos += 4
	at := pos + 4*n
	if at > end {
		return 0, errShort
	}
	if err := r.spend(n); err != nil {
		return 0, err
	}
	for range n {
		size := int(binary.LittleEndian.Uint16(r.chunk[pos:]))
		r.values = append(r.values, value{at, at + size, r.chunk[pos+2]})
		if at += size; at > end {
			return 0, errShort
		}
		pos += 4
	}
	return at, nil
}

// element renders an element, once or, if an array stands in it, once for each
// item, and returns where it ends.
//
//	01 or 41  [2 value it depends on]  4 size  4 offset of the name  [name, if here]
func (r *renderer) element(pos, end int, s scope) (int, error) {
	if r.depth++; r.depth > maxDepth {
		return 0, errDepth
	}
	defer func() { r.depth-- }()
	attributes := r.chunk[pos]&more != 0
	pos++
	dependency := noDependency
	var err error
	if s.template {
		if dependency, err = r.u16(pos, end); err != nil {
			return 0, err
		}
		pos += 2
	}
	size, err := r.u32(pos, end)
	if pos += 4; err != nil || pos+size > end {
		return 0, errShort
	}
	end = pos + size
	if dependency < s.n && r.null(s, dependency) {
		return end, nil
	}
	if r.open == 0 {
		if r.roots++; r.roots > 1 {
			return 0, errRoot
		}
	}
	outer := r.array
	defer func() { r.array = outer }()
	for r.array = (array{}); ; {
		last, err := r.once(pos, end, attributes, s)
		if r.array.item++; err != nil || r.array.item >= r.array.count {
			return last, err
		}
		if r.open == 0 {
			return 0, errRoot
		}
	}
}

// once renders an element from its name to its end.
func (r *renderer) once(pos, end int, attributes bool, s scope) (int, error) {
	r.out = append(r.out, '<')
	from := len(r.out)
	pos, err := r.name(pos, end)
	to := len(r.out)
	if err == nil && attributes {
		pos, err = r.attributes(pos, end, s)
	}
	if err != nil {
		return 0, err
	}
	token, err := r.u8(pos, end)
	switch {
	case err != nil:
		return 0, err
	case token == tokenCloseEmpty:
		r.out = append(r.out, "/>"...)
		return pos + 1, nil
	case token != tokenCloseStart:
		return 0, errToken
	}
	if next, _ := r.u8(pos+1, end); next == tokenEnd { // Windows closes it at once
		r.out = append(r.out, "/>"...)
		return pos + 2, nil
	}
	r.out = append(r.out, '>')
	r.open++
	pos, err = r.content(pos+1, end, s)
	r.open--
	if err != nil {
		return 0, err
	}
	r.out = append(r.out, "</"...)
	r.out = append(r.out, r.out[from:to]...)
	r.out = append(r.out, '>')
	return pos, nil
}

// content renders what stands between the tags of an element, and returns where
// the end tag ends.
func (r *renderer) content(pos, end int, s scope) (int, error) {
	for pos < end {
		if err := r.spend(1); err != nil {
			return 0, err
		}
		var err error
		switch r.chunk[pos] &^ more {
		case tokenEnd:
			return pos + 1, nil
		case tokenElement:
			pos, err = r.element(pos, end, s)
		case tokenTemplate:
			pos, err = r.instance(pos, end)
		case tokenFragment:
			pos += 4
		case tokenCDATA:
			pos, err = r.cdata(pos, end)
		case tokenPITarget:
			pos, err = r.instruction(pos, end)
		default:
			pos, err = r.characters(pos, end, s, true)
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, errShort
}

// characters renders what can stand both in content and in an attribute.
func (r *renderer) characters(pos, end int, s scope, content bool) (int, error) {
	switch r.chunk[pos] &^ more {
	case tokenText:
		if kind, err := r.u8(pos+1, end); err != nil || kind != kindString {
			return 0, errValue
		}
		return r.counted(pos+2, end, inText)
	case tokenCharRef:
		c, err := r.u16(pos+1, end)
		r.out = appendCharRef(r.out, rune(c))
		return pos + 3, err
	case tokenEntityRef:
		return r.entity(pos, end)
	case tokenNormal, tokenOptional:
		id, err := r.u16(pos+1, end)
		if err != nil || pos+4 > end {
			return 0, errShort
		}
		if id < s.n {
			err = r.value(r.values[s.first+id], content)
		}
		return pos + 4, err
	}
	return 0, errToken
}

// attributes renders a list of attributes, and returns where it ends.
func (r *renderer) attributes(pos, end int, s scope) (int, error) {
	size, err := r.u32(pos, end)
	if pos += 4; err != nil || pos+size > end {
		return 0, errShort
	}
	end = pos + size
	for pos < end {
		if err := r.spend(1); err != nil {
			return 0, err
		}
		if r.chunk[pos]&^more != tokenAttribute {
			return 0, errToken
		}
		if pos, err = r.attribute(pos+1, end, s); err != nil {
			return 0, err
		}
	}
	return pos, nil
}

// attribute renders one attribute; without a value it is left out, as Windows does.
func (r *renderer) attribute(pos, end int, s scope) (int, error) {
	before := len(r.out)
	r.out = append(r.out, ' ')
	pos, err := r.name(pos, end)
	r.out = append(r.out, "='"...)
	from := len(r.out)
	for err == nil && pos < end && r.chunk[pos]&^more != tokenAttribute {
		if err = r.spend(1); err == nil {
			pos, err = r.characters(pos, end, s, false)
		}
	}
	if len(r.out) == from {
		r.out = r.out[:before]
		return pos, err
	}
	r.out = append(r.out, '\'')
	return pos, err
}

// name renders the name whose offset stands at pos, and returns what follows.
//
//	4 offset  [4 next  2 hash  2 characters  the name  2 zero, if here]
func (r *renderer) name(pos, end int) (int, error) {
	at, err := r.u32(pos, end)
	if err != nil {
		return 0, err
	}
	n, err := r.u16(at+6, len(r.chunk))
	if err != nil || at+8+2*n > len(r.chunk) {
		return 0, errShort
	}
	if pos += 4; at == pos {
		pos += 8 + 2*n + 2
	}
	if pos > end {
		return 0, errShort
	}
	var ok bool
	if r.out, ok = appendName(r.out, r.chunk[at+8:at+8+2*n]); !ok {
		return 0, errName
	}
	return pos, r.spend(n)
}

// counted renders a string that its number of characters stands before.
func (r *renderer) counted(pos, end int, m mode) (int, error) {
	n, err := r.u16(pos, end)
	if pos += 2; err != nil || pos+2*n > end {
		return 0, errShort
	}
	r.out = appendUTF16(r.out, r.chunk[pos:pos+2*n], m)
	return pos + 2*n, r.spend(2 * n)
}

func (r *renderer) cdata(pos, end int) (int, error) {
	r.out = append(r.out, "<![CDATA["...)
	pos, err := r.counted(pos+1, end, inCDATA)
	r.out = append(r.out, "]]>"...)
	return pos, err
}

func (r *renderer) entity(pos, end int) (int, error) {
	r.out = append(r.out, '&')
	from := len(r.out)
	pos, err := r.name(pos+1, end)
	if err != nil {
		return 0, err
	}
	switch string(r.out[from:]) {
	case "lt", "gt", "amp", "quot", "apos":
		r.out = append(r.out, ';')
		return pos, nil
	}
	return 0, errName
}

// instruction renders a processing instruction.
func (r *renderer) instruction(pos, end int) (int, error) {
	r.out = append(r.out, "<?"...)
	from := len(r.out)
	pos, err := r.name(pos+1, end)
	if err != nil {
		return 0, err
	}
	if reserved(r.out[from:]) {
		return 0, errName
	}
	token, err := r.u8(pos, end)
	if err != nil || token != tokenPIData {
		return 0, errToken
	}
	r.out = append(r.out, ' ')
	pos, err = r.counted(pos+1, end, inInstruction)
	r.out = append(r.out, "?>"...)
	return pos, err
}

// null reports whether the value with this id has none.
func (r *renderer) null(s scope, id int) bool {
	return r.values[s.first+id].kind == kindNull
}
