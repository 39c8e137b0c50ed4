package evtx

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzFile walks over logs of two chunks. The bytes are the headers of the chunks
// and what follows them, without the zeros behind; the file is laid out from them,
// and sealed with the checksums that it should have, or nothing would ever get
// beneath these.
func FuzzFile(f *testing.F) {
	seed := func(sealed bool, chunks ...[]byte) {
		var parts [2][]byte
		for i, c := range chunks {
			parts[i] = c[:binary.LittleEndian.Uint32(c[48:])]
		}
		f.Add(parts[0], parts[1], uint16(0), sealed)
	}
	for _, values := range [][]val{
		{{kind: kindString, data: utf16le("a<b")}, {kind: kindGUID, data: make([]byte, 16)}, {kind: kindSID, data: sid}},
		{{kind: kindFiletime, data: make([]byte, 8)}, {kind: kindSystime, data: make([]byte, 16)}, {kind: kindReal64, data: make([]byte, 8)}},
		{{kind: kindArray | kindString, data: utf16le("a\x00b\x00")}, {kind: kindArray | kindUint16, data: make([]byte, 6)}, {kind: kindNull}},
		{{kind: kindBinXML, node: event(1, "inner")}, {kind: kindANSI, data: []byte("a\xe9")}, {kind: kindBinary, data: []byte{1}}},
	} {
		e := newChunk(1)
		e.record(1, instance{&template{element{name: "a", attrs: []attr{{"b", []any{optional{1}}}}, kids: []any{
			element{name: "c", needs: 3, kids: []any{sub{0}}}, cdata("x]]>"), charRef(33), entityRef("lt"), instruction{"do", "it"}, sub{2},
		}}}, values})
		e.record(2, event(2, "text"))
		seed(true, e.bytes(), chunkOf(3, 5))
	}
	seed(false, chunkOf(1, 3))
	seed(true, chunkOf(8, 9), sparse(1, 1, 5))
	seed(true, newChunk(1).bytes())
	f.Fuzz(func(t *testing.T, first, second []byte, cut uint16, sealed bool) {
		b := logFile(uint64(cut), lay(first, sealed), lay(second, sealed))
		check(t, b[:len(b)-int(cut)])
	})
}

// lay makes a chunk of its first bytes.
func lay(b []byte, sealed bool) []byte {
	c := make([]byte, chunkSize)
	copy(c, b)
	if sealed {
		sealChunk(c)
	}
	return c
}

// check looks at all that a walk promises, whatever the file.
func check(t *testing.T, b []byte) {
	steps := 0
	for r, d := range open(t, b).Records() {
		if steps++; steps > 2*len(b)/recordHeader {
			t.Fatal("more steps than records can be")
		}
		if d != nil {
			if d.Err == nil || d.First > d.Last || (d.First == 0) != (d.Last == 0) || d.Count > 0 && d.Count > d.Last-d.First+1 {
				t.Fatalf("a damage that cannot be: %+v", d)
			}
			continue
		}
		if len(r.XML) > maxXML+4*chunkSize || !utf8.Valid(r.XML) {
			t.Fatalf("%d bytes of XML, valid UTF-8: %v", len(r.XML), utf8.Valid(r.XML))
		}
		if err := parse(r.XML); err != nil {
			t.Fatalf("%v in %q", err, r.XML)
		}
	}
}

// parse is an independent reader of XML. It knows fewer letters than Unicode has
// today, so names with others are not its matter.
func parse(b []byte) error {
	depth, roots := 0, 0
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		token, err := d.Token()
		if err == io.EOF {
			if depth != 0 || roots != 1 {
				return errRoot
			}
			return nil
		}
		if err != nil {
			if strings.Contains(err.Error(), "invalid XML name") && slices.ContainsFunc(b, func(c byte) bool { return c >= utf8.RuneSelf }) {
				return nil
			}
			return err
		}
		switch token.(type) {
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			depth++
		case xml.EndElement:
			depth--
		}
	}
}

func TestTheIndependentReaderSeesWhatIsWrong(t *testing.T) {
	for _, text := range []string{"", "<a>", "<a/><b/>", "<a b='<'/>", "<a>&x;</a>", "<a>\x01</a>"} {
		if err := parse([]byte(text)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
