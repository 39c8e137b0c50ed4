package evtx

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// render gives the text of one document.
func render(t *testing.T, n any) (string, error) {
	t.Helper()
	e := newChunk(1)
	e.record(1, n)
	for r, d := range open(t, logFile(2, e.bytes())).Records() {
		if d != nil {
			return "", d
		}
		wellFormed(t, r.XML)
		return string(r.XML), nil
	}
	t.Fatal("neither a record nor damage")
	return "", nil
}

func open(t testing.TB, b []byte) *File {
	t.Helper()
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func wellFormed(t testing.TB, b []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		if _, err := d.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatalf("%v in %s", err, b)
		}
	}
}

func TestARecordIsTheTextThatWindowsGives(t *testing.T) {
	e := newChunk(1)
	e.record(1, event(1, "first"))
	e.record(2, event(2, "")) // takes names and templates from the first
	var got []string
	for r, d := range open(t, logFile(3, e.bytes())).Records() {
		if d != nil {
			t.Fatal(d)
		}
		if want := time.Date(2017, 12, 25, 1, 47, 57, 552695700, time.UTC); !r.Written.Equal(want) {
			t.Errorf("written %v, want %v", r.Written, want)
		}
		got = append(got, string(r.XML))
	}
	const head = "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider Name='Test'/><EventRecordID>"
	want := []string{
		head + "1</EventRecordID><Correlation/></System><EventData><Data Name='text'>first</Data></EventData></Event>",
		head + "2</EventRecordID><Correlation/></System><EventData><Data Name='text'></Data></EventData></Event>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEveryTokenHasItsText(t *testing.T) {
	in := func(kids ...any) instance { return instance{of: &template{element{name: "a", kids: kids}}} }
	for _, test := range []struct {
		name string
		node any
		want string
	}{
		{"an element without a template", element{name: "a", kids: []any{"x"}}, "<a>x</a>"},
		{"an empty element", in(element{name: "b"}), "<a><b/></a>"},
		{"an element that has nothing in it", in(element{name: "b", kids: []any{}}), "<a><b/></a>"},
		{"a text in pieces", in("x", "y"), "<a>xy</a>"},
		{"characters with a meaning", in(`<&>"'`), "<a>&lt;&amp;&gt;&quot;&apos;</a>"},
		{"the same in an attribute", instance{of: &template{element{name: "a", attrs: []attr{{"b", []any{`<&>"'`}}}}}}, "<a b='&lt;&amp;&gt;&quot;&apos;'/>"},
		{"ends of lines and tabs", in("\r\n\t"), "<a>&#13;&#10;\t</a>"},
		{"control characters", in("x\x01\x1fy"), "<a>x��y</a>"},
		{"characters beyond ASCII", in("é€漢\U0001f600"), "<a>é€漢\U0001f600</a>"},
		{"half of a pair", in(raw{tokenText, kindString, 2, 0, 0x3d, 0xd8, 'x', 0}), "<a>�x</a>"},
		{"the other half, at the end", in(raw{tokenText, kindString, 1, 0, 0x00, 0xde}), "<a>�</a>"},
		{"what is no character", in(raw{tokenText, kindString, 1, 0, 0xfe, 0xff}, raw{tokenText, kindString, 1, 0, 0xff, 0xff}), "<a>��</a>"},
		{"a reference to a character", in(charRef(38)), "<a>&#38;</a>"},
		{"a reference to none", in(charRef(1)), "<a>�</a>"},
		{"a reference to an entity", in(entityRef("amp")), "<a>&amp;</a>"},
		{"a CDATA section", in(cdata("<x> & \n")), "<a><![CDATA[<x> & \n]]></a>"},
		{"a CDATA section that would end early", in(cdata("x]]>y")), "<a><![CDATA[x]]]]><![CDATA[>y]]></a>"},
		{"an instruction", in(instruction{"do", "it"}), "<a><?do it?></a>"},
		{"an instruction that would end early", in(instruction{"do", "it?>x"}), "<a><?do it? >x?></a>"},
		{"a template in a template", in(instance{of: &template{element{name: "b"}}}), "<a><b/></a>"},
		{"a value that is an element", instance{&template{element{name: "a", kids: []any{sub{0}}}}, []val{{kind: kindBinXML, node: element{name: "b"}}}}, "<a><b/></a>"},
		{"a value that is not there", in(sub{0}, optional{1}), "<a></a>"},
		{"an attribute without a value", instance{of: &template{element{name: "a", attrs: []attr{{"b", []any{""}}, {"c", []any{"x"}}}}}}, "<a c='x'/>"},
		{"a name with a prefix and other letters", in(element{name: "x:größe-1.2_"}), "<a><x:größe-1.2_/></a>"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := render(t, test.node)
			if err != nil || got != test.want {
				t.Errorf("got %s, %v, want %s", got, err, test.want)
			}
		})
	}
}

func le(v any) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(err)
	}
	return b
}

var sid = []byte{1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0} // S-1-5-32-544

func TestEveryTypeOfValueHasItsText(t *testing.T) {
	guid := []byte{0x9b, 0xc6, 0x39, 0x11, 0x49, 0xb5, 0x51, 0x42, 0x8e, 0xd3, 0x27, 0x25, 0x0a, 0x1e, 0xde, 0xc8}
	for _, test := range []struct {
		name string
		kind byte
		data []byte
		want string
	}{
		{"null", kindNull, nil, ""},
		{"string", kindString, utf16le("a<é"), "a&lt;é"},
		{"string with zeros at its end", kindString, utf16le("a\x00b\x00\x00"), "a�b"},
		{"string of an odd size", kindString, []byte{'a', 0, 'b'}, "a"},
		{"ANSI string", kindANSI, []byte("a&\x80\x81\xe9\x00"), "a&amp;€�é"},
		{"int8", kindInt8, le(int8(-128)), "-128"},
		{"uint8", kindUint8, le(uint8(255)), "255"},
		{"int16", kindInt16, le(int16(-32768)), "-32768"},
		{"uint16", kindUint16, le(uint16(65535)), "65535"},
		{"int32", kindInt32, le(int32(math.MinInt32)), "-2147483648"},
		{"uint32", kindUint32, le(uint32(math.MaxUint32)), "4294967295"},
		{"int64", kindInt64, le(int64(math.MinInt64)), "-9223372036854775808"},
		{"uint64", kindUint64, le(uint64(math.MaxUint64)), "18446744073709551615"},
		{"real32", kindReal32, le(float32(0.1)), "0.1"},
		{"real64", kindReal64, le(-1234.5), "-1234.5"},
		{"real64, small", kindReal64, le(1e-9), "1e-09"},
		{"real64, none", kindReal64, le(math.NaN()), "-1.#IND"},
		{"real64, without end", kindReal64, le(math.Inf(1)), "1.#INF"},
		{"real64, without end below 0", kindReal64, le(math.Inf(-1)), "-1.#INF"},
		{"bool of 4 bytes", kindBool, le(uint32(1)), "true"},
		{"bool of 1 byte", kindBool, le(uint8(0)), "false"},
		{"binary", kindBinary, []byte{0xde, 0xad, 0x00}, "dead00"},
		{"GUID", kindGUID, guid, "{1139c69b-b549-4251-8ed3-27250a1edec8}"},
		{"size of 32 bits", kindSize, le(uint32(255)), "0xff"},
		{"size of 64 bits", kindSize, le(uint64(math.MaxUint64)), "0xffffffffffffffff"},
		{"FILETIME", kindFiletime, le(uint64(131_586_400_775_526_957)), "2017-12-25T01:47:57.552695700Z"},
		{"FILETIME 0", kindFiletime, le(uint64(0)), "1601-01-01T00:00:00.000000000Z"},
		{"FILETIME of long ago to come", kindFiletime, le(uint64(math.MaxUint64)), "60056-05-28T05:36:10.955161500Z"},
		{"SYSTEMTIME", kindSystime, le([8]uint16{2019, 3, 3, 20, 6, 57, 49, 7}), "2019-03-20T06:57:49.007Z"},
		{"SID", kindSID, sid, "S-1-5-32-544"},
		{"SID of a large authority", kindSID, []byte{1, 0, 0, 1, 0, 0, 0, 5}, "S-1-0x000100000005"},
		{"hexint32", kindHex32, le(uint32(0x3e7)), "0x3e7"},
		{"hexint64", kindHex64, le(uint64(0x8020000000000000)), "0x8020000000000000"},
		{"handle", kindHandle, le(uint32(16)), "0x10"},
		{"XML", kindXML, utf16le("<b/>"), "&lt;b/&gt;"},
		{"a number without bytes", kindUint32, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			one := &template{element{name: "a", attrs: []attr{{"b", []any{optional{0}}}}, kids: []any{sub{0}}}}
			got, err := render(t, instance{one, []val{{kind: test.kind, data: test.data}}})
			want := "<a b='" + test.want + "'>" + test.want + "</a>"
			if test.want == "" {
				want = "<a></a>"
			}
			if err != nil || got != want {
				t.Errorf("got %s, %v, want %s", got, err, want)
			}
		})
	}
}

func TestAnArrayRepeatsItsElement(t *testing.T) {
	for _, test := range []struct {
		name string
		kind byte
		data []byte
		want []string
	}{
		{"strings", kindString, utf16le("x\x00\x00yz\x00"), []string{"x", "", "yz"}},
		{"strings, the last without its end", kindString, utf16le("x\x00yz"), []string{"x", "yz"}},
		{"no strings", kindString, nil, []string{""}},
		{"ANSI strings", kindANSI, []byte("x\x00y\x00"), []string{"x", "y"}},
		{"int8", kindInt8, []byte{1, 0xff}, []string{"1", "-1"}},
		{"uint8", kindUint8, []byte{97, 99}, []string{"97", "99"}},
		{"int16", kindInt16, le([2]int16{1, -1}), []string{"1", "-1"}},
		{"uint16", kindUint16, le([2]uint16{1, 2}), []string{"1", "2"}},
		{"int32", kindInt32, le([2]int32{1, -1}), []string{"1", "-1"}},
		{"uint32", kindUint32, le([1]uint32{7}), []string{"7"}},
		{"int64", kindInt64, le([2]int64{1, -1}), []string{"1", "-1"}},
		{"uint64", kindUint64, le([2]uint64{1, 2}), []string{"1", "2"}},
		{"real32", kindReal32, le([2]float32{0.5, 2}), []string{"0.5", "2"}},
		{"real64", kindReal64, le([2]float64{0.5, 2}), []string{"0.5", "2"}},
		{"bool", kindBool, le([2]uint32{1, 0}), []string{"true", "false"}},
		{"GUID", kindGUID, make([]byte, 32), slices.Repeat([]string{"{00000000-0000-0000-0000-000000000000}"}, 2)},
		{"size", kindSize, le([2]uint64{1, 2}), []string{"0x1", "0x2"}},
		{"size of 32 bits", kindSize, le([3]uint32{1, 2, 3}), []string{"0x1", "0x2", "0x3"}},
		{"FILETIME", kindFiletime, le([2]uint64{0, 10}), []string{"1601-01-01T00:00:00.000000000Z", "1601-01-01T00:00:00.000001000Z"}},
		{"SYSTEMTIME", kindSystime, le([8]uint16{2019, 3, 3, 20, 6, 57, 49, 7}), []string{"2019-03-20T06:57:49.007Z"}},
		{"SID", kindSID, append(slices.Clone(sid), 1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0), []string{"S-1-5-32-544", "S-1-5-18"}},
		{"hexint32", kindHex32, le([2]uint32{1, 255}), []string{"0x1", "0xff"}},
		{"hexint64", kindHex64, le([2]uint64{1, 255}), []string{"0x1", "0xff"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			around := &template{element{name: "a", kids: []any{
				element{name: "b", attrs: []attr{{"n", []any{sub{1}}}}, kids: []any{sub{0}}}, element{name: "c"},
			}}}
			got, err := render(t, instance{around, []val{
				{kind: kindArray | test.kind, data: test.data}, {kind: kindUint8, data: []byte{9}},
			}})
			want := "<a><b n='9'>" + strings.Join(test.want, "</b><b n='9'>") + "</b><c/></a>"
			if err != nil || got != want {
				t.Errorf("got %s, %v, want %s", got, err, want)
			}
		})
	}
}

func TestALongArrayIsReadWhole(t *testing.T) {
	around := &template{element{name: "a", kids: []any{element{name: "b", attrs: []attr{{"n", []any{sub{0}}}}, kids: []any{sub{0}}}}}}
	var text []string
	for i := range 1000 {
		text = append(text, fmt.Sprint(i))
	}
	got, err := render(t, instance{around, []val{{kind: kindArray | kindString, data: utf16le(strings.Join(text, "\x00"))}}})
	if err != nil || !strings.HasPrefix(got, "<a><b n='0'>0</b><b n='1'>1</b>") || !strings.HasSuffix(got, "<b n='999'>999</b></a>") || strings.Count(got, "<b ") != 1000 {
		t.Errorf("got %.100s, %v", got, err)
	}
}

func TestArraysOfOneElementAreReadInStep(t *testing.T) {
	around := &template{element{name: "a", kids: []any{element{name: "b", attrs: []attr{{"n", []any{sub{0}}}}, kids: []any{sub{1}}}}}}
	got, err := render(t, instance{around, []val{
		{kind: kindArray | kindString, data: utf16le("x\x00y\x00z\x00")}, {kind: kindArray | kindUint8, data: []byte{1, 2}},
	}})
	if want := "<a><b n='x'>1</b><b n='y'>2</b><b n='z'></b></a>"; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestWhatIsOptionalGoesWithItsValue(t *testing.T) {
	both := &template{element{name: "a", kids: []any{
		element{name: "b", needs: 1, attrs: []attr{{"n", []any{sub{1}}}}, kids: []any{optional{0}}},
		element{name: "c", attrs: []attr{{"n", []any{optional{0}}}}},
	}}}
	for _, test := range []struct {
		name  string
		value val
		want  string
	}{
		{"there", val{kind: kindUint8, data: []byte{7}}, "<a><b n='9'>7</b><c n='7'/></a>"},
		{"null", val{kind: kindNull}, "<a><c/></a>"},
		{"empty but not null", val{kind: kindString}, "<a><b n='9'></b><c/></a>"},
	} {
		got, err := render(t, instance{both, []val{test.value, {kind: kindUint8, data: []byte{9}}}})
		if err != nil || got != test.want {
			t.Errorf("%s: got %s, %v, want %s", test.name, got, err, test.want)
		}
	}
}

func TestWhatIsNotBinXMLIsDamage(t *testing.T) {
	in := func(kids ...any) instance { return instance{of: &template{element{name: "a", kids: kids}}} }
	one := func(kind byte, data ...byte) instance {
		return instance{&template{element{name: "a", kids: []any{sub{0}}}}, []val{{kind: kind, data: data}}}
	}
	for _, test := range []struct {
		name string
		node any
		want error
	}{
		{"no element", nil, errRoot},
		{"a text without an element", "x", errToken},
		{"a token that does not exist", in(raw{0x1f}), errToken},
		{"an attribute in content", in(raw{tokenAttribute}), errToken},
		{"an end of file in an element", in(raw{tokenEOF}), errToken},
		{"a name with a space", in(element{name: "x y"}), errName},
		{"a name that is empty", in(element{name: ""}), errName},
		{"a name that begins with a digit", in(element{name: "1x"}), errName},
		{"a name with two colons", in(element{name: "a:b:c"}), errName},
		{"a name that is a tag", in(element{name: "b><c"}), errName},
		{"an entity that nobody declared", in(entityRef("nbsp")), errName},
		{"an instruction that is the XML declaration", in(instruction{"XML", "version='9'"}), errName},
		{"an instruction without a name", in(raw{tokenPITarget, 0, 0, 0, 0}), errName},
		{"an instruction without data", in(instruction{target: "do", data: "it"}, raw{tokenPIData}), errToken},
		{"an element in an attribute", instance{of: &template{element{name: "a", attrs: []attr{{"b", []any{element{name: "c"}}}}}}}, errToken},
		{"two roots", instance{of: &template{pair{element{name: "a"}, element{name: "b"}}}}, errRoot},
		{"a text that is no string", in(raw{tokenText, kindUint8, 1, 0, 0, 0}), errValue},
		{"a text longer than the record", in(raw{tokenText, kindString, 0xff, 0xff}), errShort},
		{"a name outside of the chunk", in(raw{tokenEntityRef, 0xff, 0xff, 0, 0}), errShort},
		{"a template outside of the chunk", raw{tokenTemplate, 1, 0, 0, 0, 0, 0xf8, 0xff, 0, 0}, errShort},
		{"more values than bytes", in(raw{tokenTemplate, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0}), errShort},
		{"an element larger than what it stands in", in(raw{tokenElement, 0xff, 0xff, 0xff, 0, 0, 0}), errShort},
		{"a number of 3 bytes", one(kindUint32, 1, 2, 3), errValue},
		{"a GUID of 15 bytes", one(kindGUID, make([]byte, 15)...), errValue},
		{"a time of 7 bytes", one(kindSystime, make([]byte, 7)...), errValue},
		{"a SID that is cut", one(kindSID, sid[:12]...), errValue},
		{"a real number of 2 bytes", one(kindReal32, 1, 2), errValue},
		{"a type that does not exist", one(0x1f, 1), errValue},
		{"an array with half an item", one(kindArray|kindUint32, 1, 2, 3, 4, 5), errValue},
		{"an array of binary values", one(kindArray|kindBinary, 1), errValue},
		{"an array of SIDs that is cut", one(kindArray|kindSID, sid[:7]...), errValue},
		{"BinXml in an attribute", instance{&template{element{name: "a", attrs: []attr{{"b", []any{sub{0}}}}}}, []val{{kind: kindBinXML, node: element{name: "c"}}}}, errValue},
		{"a root that is repeated", instance{&template{element{name: "a", kids: []any{sub{0}}}}, []val{{kind: kindArray | kindUint8, data: []byte{1, 2}}}}, errRoot},
		{"a root that is left out", instance{&template{element{name: "a", needs: 1, kids: []any{}}}, []val{{kind: kindNull}}}, errRoot},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := render(t, test.node); !errors.Is(err, test.want) {
				t.Errorf("got %s, %v, want %v", got, err, test.want)
			}
		})
	}
}

// nested is a template whose one value is BinXml that uses the value twice, and so
// on: 2 to the power of n elements from a few bytes.
func nested(n int) instance {
	if n == 0 {
		return instance{of: &template{element{name: "x"}}}
	}
	twice := &template{element{name: "b", kids: []any{sub{0}, sub{0}}}}
	return instance{twice, []val{{kind: kindBinXML, node: nested(n - 1)}}}
}

func TestAHostileRecordStaysWithinItsBounds(t *testing.T) {
	deep := element{name: "a"}
	for range maxDepth {
		deep = element{name: "a", kids: []any{deep}}
	}
	const body = chunkHeader + recordHeader + 4 + 10 // where the first template of a record lies
	itself := append(raw{tokenTemplate, 1, 0, 0, 0, 0}, le([2]uint32{body, 0})...)
	for _, test := range []struct {
		name string
		node any
		want error
	}{
		{"deep elements", deep, errDepth},
		{"a template in itself", instance{of: &template{element{name: "a", kids: []any{itself}}}}, errDepth},
		{"values that double", nested(18), errTooBig},
		{"a large value again and again", instance{
			&template{element{name: "a", kids: slices.Repeat([]any{sub{0}}, 500)}},
			[]val{{kind: kindString, data: utf16le(strings.Repeat("'", 10_000))}},
		}, errTooBig},
		{"zeros again and again, that make no text", instance{
			&template{element{name: "a", kids: slices.Repeat([]any{sub{0}}, 5000)}},
			[]val{{kind: kindString, data: make([]byte, 30_000)}},
		}, errTooBig},
		{"arrays that are looked through in turn", instance{
			&template{element{name: "a", kids: []any{element{name: "b", kids: []any{sub{0}, sub{1}}}}}},
			[]val{{kind: kindArray | kindString, data: make([]byte, 20_000)}, {kind: kindArray | kindString, data: make([]byte, 20_000)}},
		}, errTooBig},
		{"a loop of templates in content", instance{of: &template{element{name: "a", kids: []any{element{name: "b", kids: []any{itself}}}}}}, errDepth},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := render(t, test.node); !errors.Is(err, test.want) {
				t.Errorf("got %.200s, %v, want %v", got, err, test.want)
			}
		})
	}
}

func TestAChunkOfHostileRecordsIsCutShort(t *testing.T) {
	text := instance{of: &template{element{name: "b", kids: []any{strings.Repeat("x", 10_000)}}}}
	ten := instance{of: &template{element{name: "a", kids: slices.Repeat([]any{text}, 10)}}}
	e := newChunk(1)
	for id := uint64(1); len(e.b) < chunkSize-30_000; id++ {
		e.record(id, ten)
	}
	total, cut := 0, uint64(0)
	for r, d := range open(t, logFile(0, e.bytes())).Records() {
		if total += len(r.XML); d == nil {
			continue
		}
		if !errors.Is(d, errTooBig) {
			t.Fatal(d)
		}
		cut += d.Count
	}
	if cut == 0 || total == 0 || total > chunkFuel {
		t.Errorf("%d bytes of XML, and %d of %d records cut", total, cut, e.records)
	}
}
