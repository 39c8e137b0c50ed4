package evtx

import (
	"encoding/binary"
	"hash/crc32"
	"unicode/utf16"
)

// The encoder writes logs as Windows does: a name or a template is written where
// it is first used, and from then on named by its offset in the chunk.
type encoder struct {
	b         []byte
	names     map[string]int
	templates map[*template]int
	inside    bool // a template
	firstID   uint64
	lastID    uint64
	number    uint64 // of the first record
	records   uint64
}

// What a document is made of; a string is a text.
type (
	element struct {
		name  string
		needs int // 1 and the id of the value without which it is left out
		attrs []attr
		kids  []any // none: an empty-element tag
	}
	attr struct {
		name  string
		value []any
	}
	sub         struct{ id int }
	optional    struct{ id int }
	charRef     uint16
	entityRef   string
	cdata       string
	instruction struct{ target, data string }
	raw         []byte
	pair        [2]any
	template    struct{ root any }
	instance    struct {
		of     *template
		values []val
	}
	val struct {
		kind byte
		data []byte
		node any // for BinXml, instead of data
	}
)

func newChunk(number uint64) *encoder {
	return &encoder{b: make([]byte, chunkHeader), names: map[string]int{}, templates: map[*template]int{}, number: number}
}

func (e *encoder) u8(v ...byte)  { e.b = append(e.b, v...) }
func (e *encoder) u16(v int)     { e.b = binary.LittleEndian.AppendUint16(e.b, uint16(v)) }
func (e *encoder) u32(v int)     { e.b = binary.LittleEndian.AppendUint32(e.b, uint32(v)) }
func (e *encoder) text(s string) { e.b = append(e.b, utf16le(s)...) }

// size reserves room for a size of n bytes and returns what fills it in.
func (e *encoder) size(n int) func() {
	at := len(e.b)
	e.b = append(e.b, make([]byte, n)...)
	return func() {
		size := len(e.b) - at - n
		if n == 2 {
			binary.LittleEndian.PutUint16(e.b[at:], uint16(size))
		} else {
			binary.LittleEndian.PutUint32(e.b[at:], uint32(size))
		}
	}
}

func utf16le(s string) []byte {
	var b []byte
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}

func (e *encoder) name(s string) {
	at, known := e.names[s]
	if known {
		e.u32(at)
		return
	}
	e.names[s] = len(e.b) + 4
	e.u32(len(e.b) + 4)
	e.u32(0)
	e.u16(0)
	e.u16(len(utf16.Encode([]rune(s))))
	e.text(s)
	e.u16(0)
}

func (e *encoder) counted(s string) {
	e.u16(len(utf16.Encode([]rune(s))))
	e.text(s)
}

func (e *encoder) node(n any) {
	switch n := n.(type) {
	case element:
		e.element(n)
	case instance:
		e.instance(n)
	case string:
		e.u8(tokenText|more, kindString)
		e.counted(n)
	case sub:
		e.u8(tokenNormal)
		e.u16(n.id)
		e.u8(kindString)
	case optional:
		e.u8(tokenOptional)
		e.u16(n.id)
		e.u8(kindString)
	case charRef:
		e.u8(tokenCharRef)
		e.u16(int(n))
	case entityRef:
		e.u8(tokenEntityRef)
		e.name(string(n))
	case cdata:
		e.u8(tokenCDATA)
		e.counted(string(n))
	case instruction:
		e.u8(tokenPITarget)
		e.name(n.target)
		e.u8(tokenPIData)
		e.counted(n.data)
	case raw:
		e.u8(n...)
	case pair:
		e.node(n[0])
		e.node(n[1])
	}
}

func (e *encoder) element(n element) {
	token := byte(tokenElement)
	if len(n.attrs) > 0 {
		token |= more
	}
	e.u8(token)
	if e.inside {
		e.u16(n.needs - 1)
	}
	done := e.size(4)
	e.name(n.name)
	if len(n.attrs) > 0 {
		list := e.size(4)
		for _, a := range n.attrs {
			e.u8(tokenAttribute | more)
			e.name(a.name)
			for _, v := range a.value {
				e.node(v)
			}
		}
		list()
	}
	if n.kids == nil {
		e.u8(tokenCloseEmpty)
	} else {
		e.u8(tokenCloseStart)
		for _, kid := range n.kids {
			e.node(kid)
		}
		e.u8(tokenEnd)
	}
	done()
}

func (e *encoder) instance(n instance) {
	e.u8(tokenTemplate, 1)
	e.u32(7)
	if at, known := e.templates[n.of]; known {
		e.u32(at)
	} else {
		e.templates[n.of] = len(e.b) + 4
		e.u32(len(e.b) + 4)
		e.b = append(e.b, make([]byte, 20)...)
		done := e.size(4)
		e.fragment(n.of.root, true)
		done()
	}
	e.u32(len(n.values))
	var sizes []func()
	for _, v := range n.values {
		at := len(e.b)
		e.u16(0)
		e.u8(v.kind, 0)
		sizes = append(sizes, func() {
			from := len(e.b)
			if v.node != nil {
				e.fragment(v.node, false)
			} else {
				e.u8(v.data...)
			}
			binary.LittleEndian.PutUint16(e.b[at:], uint16(len(e.b)-from))
		})
	}
	for _, write := range sizes {
		write()
	}
}

func (e *encoder) fragment(n any, inside bool) {
	outer := e.inside
	e.inside = inside
	e.u8(tokenFragment, 1, 1, 0)
	e.node(n)
	e.u8(tokenEOF)
	e.inside = outer
}

// record appends a record and returns where it begins.
func (e *encoder) record(id uint64, n any) int {
	at := len(e.b)
	e.u8(recordMagic...)
	e.u32(0)
	e.b = binary.LittleEndian.AppendUint64(e.b, id)
	e.b = binary.LittleEndian.AppendUint64(e.b, 131_586_400_775_526_957) // 2017-12-25T01:47:57.5526957Z
	e.fragment(n, false)
	for len(e.b)%8 != 4 {
		e.u8(0)
	}
	size := len(e.b) + 4 - at
	e.u32(size)
	binary.LittleEndian.PutUint32(e.b[at+4:], uint32(size))
	if e.records++; e.firstID == 0 {
		e.firstID = id
	}
	e.lastID = id
	return at
}

// bytes returns the chunk with its header.
func (e *encoder) bytes() []byte {
	b := make([]byte, chunkSize)
	copy(b, e.b)
	le := binary.LittleEndian
	copy(b, chunkMagic)
	le.PutUint64(b[8:], e.number)
	le.PutUint64(b[16:], e.number+e.records-1)
	le.PutUint64(b[24:], e.firstID)
	le.PutUint64(b[32:], e.lastID)
	le.PutUint32(b[40:], 128)
	le.PutUint32(b[48:], uint32(len(e.b)))
	sealChunk(b)
	return b
}

// sealChunk gives a chunk the checksums of what is in it.
func sealChunk(b []byte) {
	le := binary.LittleEndian
	if free := le.Uint32(b[48:]); free >= chunkHeader && free <= chunkSize {
		le.PutUint32(b[52:], crc32.ChecksumIEEE(b[chunkHeader:free]))
	}
	le.PutUint32(b[124:], crc32.Update(crc32.ChecksumIEEE(b[:120]), crc32.IEEETable, b[128:chunkHeader]))
}

// logFile puts a header before chunks; next is the id of the next record.
func logFile(next uint64, chunks ...[]byte) []byte {
	b := make([]byte, fileHeader)
	le := binary.LittleEndian
	copy(b, fileMagic)
	le.PutUint64(b[24:], next)
	le.PutUint32(b[32:], 128)
	le.PutUint16(b[36:], 1)
	le.PutUint16(b[38:], 3)
	le.PutUint16(b[40:], fileHeader)
	le.PutUint16(b[42:], uint16(len(chunks)))
	sealFile(b)
	for _, c := range chunks {
		b = append(b, c...)
	}
	return b
}

func sealFile(b []byte) {
	binary.LittleEndian.PutUint32(b[124:], crc32.ChecksumIEEE(b[:120]))
}

// The shape of nearly every event: one template around another.
var (
	eventTemplate = &template{element{name: "Event", attrs: []attr{{"xmlns", []any{"http://schemas.microsoft.com/win/2004/08/events/event"}}}, kids: []any{
		element{name: "System", kids: []any{
			element{name: "Provider", attrs: []attr{{"Name", []any{"Test"}}, {"Guid", []any{optional{2}}}}},
			element{name: "Version", needs: 1 + 2, kids: []any{optional{2}}},
			element{name: "EventRecordID", kids: []any{sub{0}}},
			element{name: "Correlation", attrs: []attr{{"ActivityID", []any{optional{2}}}}},
		}},
		sub{1},
	}}}
	dataTemplate = &template{element{name: "EventData", kids: []any{
		element{name: "Data", attrs: []attr{{"Name", []any{"text"}}}, kids: []any{sub{0}}},
	}}}
)

func event(id uint64, s string) instance {
	data := instance{dataTemplate, []val{{kind: kindString, data: utf16le(s)}}}
	return instance{eventTemplate, []val{
		{kind: kindUint64, data: binary.LittleEndian.AppendUint64(nil, id)},
		{kind: kindBinXML, node: data},
		{kind: kindNull},
	}}
}

// chunkOf is a chunk of events with the ids from first to last, which are also
// their numbers.
func chunkOf(first, last uint64) []byte {
	e := newChunk(first)
	for id := first; id <= last; id++ {
		e.record(id, event(id, "event"))
	}
	return e.bytes()
}
