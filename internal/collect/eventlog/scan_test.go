package eventlog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/wire"
	"github.com/rea-agent/rea/internal/xpath"
)

var read = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// parsed returns the record in xml, as a parser reads it that has read others.
func parsed(xml string) *Record {
	var p Parser
	r := new(Record)
	p.Parse([]byte(`<Event a='&lt;'><EventData><Data Name='x'>1</Data><Data>&gt;</Data></EventData><UserData>`), r)
	p.Parse([]byte(xml), r)
	return r
}

// body returns what the line of r has under its kind, and its errors.
func body(t testing.TB, r *Record) (map[string]any, []any) {
	t.Helper()
	line := collecttest.Encode(t, r.Event(read))
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var ev map[string]any
	if err := d.Decode(&ev); err != nil {
		t.Fatalf("%v\n%s", err, line)
	}
	errs, _ := ev["errors"].([]any)
	return ev["eventlog"].(map[string]any), errs
}

// independent is what body should return, made with encoding/xml.
func independent(t testing.TB, text string) map[string]any {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	root, err := readElement(d, nil)
	if err != nil {
		t.Fatalf("encoding/xml: %v\n%s", err, text)
	}
	b := map[string]any{}
	for _, part := range root.children {
		switch part.name {
		case "System":
			for _, c := range part.children {
				c.system(b)
			}
		case "EventData":
			putText(b, "data_name", part.attr("Name"))
			data := &element{}
			var unnamed []any
			for _, c := range part.children {
				switch name := c.attr("Name"); {
				case c.name == "Binary":
					putText(b, "binary", c.text)
				case c.name == "Data" && name == "":
					unnamed = append(unnamed, c.value())
				case c.name == "Data":
					c.name = name
					c.attrs = withoutName(c.attrs)
					data.children = append(data.children, c)
				default:
					data.children = append(data.children, c)
				}
			}
			if len(data.children) > 0 {
				b["event_data"] = data.value()
			}
			if unnamed != nil {
				b["data"] = unnamed
			}
		case "UserData":
			if len(part.children) > 0 {
				part.attrs, part.text = nil, ""
				b["user_data"] = part.value()
			}
		default:
			t.Fatalf("an element %s", part.name)
		}
	}
	return b
}

// An element is an element as encoding/xml reads it.
type element struct {
	name, text string
	attrs      []xml.Attr
	children   []*element
}

func readElement(d *xml.Decoder, start *xml.StartElement) (*element, error) {
	for start == nil {
		tok, err := d.Token()
		if err != nil {
			return nil, err
		}
		if s, ok := tok.(xml.StartElement); ok {
			start = &s
		}
	}
	e := &element{name: start.Name.Local}
	for _, a := range start.Attr {
		if a.Name.Local != "xmlns" && a.Name.Space != "xmlns" {
			e.attrs = append(e.attrs, a)
		}
	}
	var runs []string
	run := ""
	for {
		tok, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.CharData:
			run += string(tok)
		case xml.StartElement:
			runs, run = append(runs, run), ""
			c, err := readElement(d, &tok)
			if err != nil {
				return nil, err
			}
			e.children = append(e.children, c)
		case xml.EndElement:
			for _, r := range append(runs, run) {
				if len(e.children) == 0 || strings.Trim(r, " \t\r\n") != "" {
					e.text += r
				}
			}
			return e, nil
		}
	}
}

func withoutName(attrs []xml.Attr) (rest []xml.Attr) {
	for _, a := range attrs {
		if a.Name.Local != "Name" {
			rest = append(rest, a)
		}
	}
	return rest
}

func (e *element) attr(name string) string {
	for _, a := range e.attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// value is the text of an element that has nothing else, or an object.
func (e *element) value() any {
	if len(e.attrs) == 0 && len(e.children) == 0 {
		return e.text
	}
	o := map[string]any{}
	put := func(name string, v any) {
		switch before := o[name].(type) {
		case nil:
			o[name] = v
		case []any:
			o[name] = append(before, v)
		default:
			o[name] = []any{before, v}
		}
	}
	for _, a := range e.attrs {
		put(a.Name.Local, a.Value)
	}
	for _, c := range e.children {
		put(c.name, c.value())
	}
	if e.text != "" {
		o["#text"] = e.text
	}
	return o
}

func putText(b map[string]any, name, text string) {
	if text != "" {
		b[name] = text
	}
}

func putNumber(b map[string]any, name, text string) {
	if text != "" {
		b[name] = json.Number(text)
	}
}

func (e *element) system(b map[string]any) {
	switch e.name {
	case "Provider":
		putText(b, "provider", e.attr("Name"))
		putText(b, "provider_guid", e.attr("Guid"))
		putText(b, "source_name", e.attr("EventSourceName"))
	case "EventID":
		putNumber(b, "event_id", e.text)
		putNumber(b, "qualifiers", e.attr("Qualifiers"))
	case "EventRecordID":
		putNumber(b, "record_id", e.text)
	case "Version", "Level", "Task", "Opcode":
		putNumber(b, strings.ToLower(e.name), e.text)
	case "Keywords", "Channel", "Computer":
		putText(b, strings.ToLower(e.name), e.text)
	case "Correlation":
		putText(b, "activity_id", e.attr("ActivityID"))
		putText(b, "related_activity_id", e.attr("RelatedActivityID"))
	case "Execution":
		putNumber(b, "process_id", e.attr("ProcessID"))
		putNumber(b, "thread_id", e.attr("ThreadID"))
	case "Security":
		putText(b, "user_id", e.attr("UserID"))
	}
}

// sample returns the events of real machines that lie beside the repository.
func sample(t testing.TB) []string {
	t.Helper()
	const name = "../../../../shared/data/windows-events.xml.gz"
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("samples: %s is not here", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	return lines(t, z)
}

func lines(t testing.TB, from io.Reader) (list []string) {
	t.Helper()
	s := bufio.NewScanner(from)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		list = append(list, s.Text())
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	return list
}

// synthetic returns the project's own events, which have every form that is known.
func synthetic(t testing.TB) []string {
	t.Helper()
	f, err := os.Open("testdata/events.xml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return lines(t, f)
}

func TestTheScannerAgreesWithAnIndependentParse(t *testing.T) {
	compare := func(t *testing.T, events []string) {
		var p Parser
		r := new(Record)
		for i, text := range events {
			p.Parse([]byte(text), r)
			got, errs := body(t, r)
			if d := cmp.Diff(independent(t, text), got); d != "" || errs != nil {
				t.Fatalf("event %d (-encoding/xml +scanner), errors %v:\n%s\n%s", i+1, errs, d, text)
			}
			if want := independentTime(t, text); !r.Created.Equal(want) {
				t.Fatalf("event %d: time is %v, want %v", i+1, r.Created, want)
			}
		}
		t.Logf("%d events agree", len(events))
	}
	t.Run("synthetic", func(t *testing.T) { compare(t, synthetic(t)) })
	t.Run("real", func(t *testing.T) { compare(t, sample(t)) })
}

func independentTime(t *testing.T, text string) time.Time {
	t.Helper()
	var ev struct {
		System struct {
			TimeCreated struct {
				SystemTime time.Time `xml:",attr"`
			}
		}
	}
	if err := xml.Unmarshal([]byte(text), &ev); err != nil {
		t.Fatal(err)
	}
	return ev.System.TimeCreated.SystemTime
}

func TestEveryEventIsALineThatTheServerTakes(t *testing.T) {
	taken := func(t *testing.T, events []string) {
		var p Parser
		r := new(Record)
		var all []byte
		for _, text := range events {
			p.Parse([]byte(text), r)
			all = append(all, collecttest.Encode(t, r.Event(read))...)
		}
		s := wire.NewScanner(wire.DefaultLimits)
		n := 0
		for s.Reset(all); s.Scan(); n++ {
		}
		if s.Err() != nil || n != len(events) {
			t.Errorf("%d of %d lines are taken: %v", n, len(events), s.Err())
		}
		collecttest.Validate(t, Schema, all)
	}
	t.Run("synthetic", func(t *testing.T) { taken(t, synthetic(t)) })
	t.Run("real", func(t *testing.T) { taken(t, sample(t)) })
}

// event1 returns an event with that behind its System.
func event1(data string) string {
	return `<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider Name='P'/><EventID>7</EventID></System>` + data + `</Event>`
}

func TestScanner(t *testing.T) {
	system := func(more string) string { return `{"provider":"P","event_id":7` + more + `}` }
	for name, c := range map[string]struct{ xml, want string }{
		"data by name":                        {event1(`<EventData><Data Name='a'>1</Data><Data Name='b'>2</Data></EventData>`), system(`,"event_data":{"a":"1","b":"2"}`)},
		"empty data is there":                 {event1(`<EventData><Data Name='a'/><Data Name='b'></Data></EventData>`), system(`,"event_data":{"a":"","b":""}`)},
		"a name that is there thrice":         {event1(`<EventData><Data Name='a'>1</Data><Data Name='b'>x</Data><Data Name='a'>2</Data><Data Name='a'>3</Data></EventData>`), system(`,"event_data":{"a":["1","2","3"],"b":"x"}`)},
		"data without names keep their order": {event1(`<EventData><Data>2</Data><Data Name='a'>x</Data><Data>1</Data><Data/></EventData>`), system(`,"event_data":{"a":"x"},"data":["2","1",""]`)},
		"an empty name is none":               {event1(`<EventData><Data Name=''>1</Data></EventData>`), system(`,"data":["1"]`)},
		"binary":                              {event1(`<EventData><Binary>00ff</Binary></EventData>`), system(`,"binary":"00ff"`)},
		"references":                          {event1(`<EventData><Data Name='&lt;&quot;'>&lt;a&gt; &amp;amp; &apos;&quot;&#13;&#x41;&#128512;</Data></EventData>`), system(`,"event_data":{"<_":"<a> &amp; '\"\rA😀"}`)},
		"what is no reference stays":          {event1(`<EventData><Data Name='a'>&nbsp; a&b &#xzz; &; &#0; &#xd800;</Data></EventData>`), system(`,"event_data":{"a":"&nbsp; a&b &#xzz; &; ` + "\\u0000" + ` ` + "\ufffd" + `"}`)},
		"blanks are kept in texts":            {event1(`<EventData><Data Name='a'> x </Data><Data Name='b'> </Data></EventData>`), system(`,"event_data":{"a":" x ","b":" "}`)},
		"blanks are dropped between elements": {event1("\r\n\t<UserData>\r\n<A>\r\n\t<B>1</B>\r\n</A>\r\n</UserData>\r\n"), system(`,"user_data":{"A":{"B":"1"}}`)},
		"CDATA, comments and instructions":    {event1(`<EventData><Data Name='a'>1<![CDATA[<&amp;]]><!-- 9 -->&lt;<?x 9?>2</Data></EventData>`), system(`,"event_data":{"a":"1<&amp;<2"}`)},
		"user data is nested":                 {event1(`<UserData><x:A xmlns:x='u' xmlns='v'><x:B c='1'>t</x:B><B/><B><C>2</C></B></x:A></UserData>`), system(`,"user_data":{"A":{"B":[{"c":"1","#text":"t"},"",{"C":"2"}]}}`)},
		"text around elements":                {event1(`<UserData><A>x<B>1</B> <B>2</B>&lt;y</A></UserData>`), system(`,"user_data":{"A":{"#text":"x<y","B":["1","2"]}}`)},
		"what is not known":                   {event1(`<ProcessingErrorData><ErrorCode>15005</ErrorCode></ProcessingErrorData>`), system(`,"other":{"ProcessingErrorData":{"ErrorCode":"15005"}}`)},
		"data that is not Data":               {event1(`<EventData Name='T'><ComplexData Name='n'>1</ComplexData></EventData>`), system(`,"data_name":"T","event_data":{"ComplexData":{"Name":"n","#text":"1"}}`)},
		"quotes of both kinds":                {event1(`<EventData><Data Name="it's">1</Data><Data Name = 'b' >2</Data ></EventData>`), system(`,"event_data":{"it's":"1","b":"2"}`)},
		"a prolog":                            {"\ufeff<?xml version='1.0'?>\n<!-- c -->" + event1("") + "\n\x00", system("")},
		"numbers in hexadecimal":              {`<Event><System><Task>0x10</Task><EventRecordID>18446744073709551615</EventRecordID></System></Event>`, `{"task":16,"record_id":18446744073709551615}`},
		"words of a forwarding machine": {event1(`<RenderingInfo Culture='en-US'><Message>It works.</Message><Level>Information</Level><Task></Task><Opcode>Info</Opcode><Channel/><Provider>PP</Provider><Keywords><Keyword>Audit Success</Keyword><Keyword>B</Keyword></Keywords></RenderingInfo>`),
			system(`,"message":"It works.","rendering":{"culture":"en-US","level":"Information","opcode":"Info","provider":"PP","keywords":["Audit Success","B"]}`)},
	} {
		t.Run(name, func(t *testing.T) {
			got, errs := body(t, parsed(c.xml))
			var want map[string]any
			d := json.NewDecoder(strings.NewReader(c.want))
			d.UseNumber()
			if err := d.Decode(&want); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" || errs != nil {
				t.Errorf("errors %v (-want +got):\n%s", errs, d)
			}
		})
	}
}

func TestBadXMLIsKeptAsItIsWithAnError(t *testing.T) {
	good := event1(`<EventData><Data Name='a'>1</Data></EventData>`)
	many := func(n int, one string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, one, i)
		}
		return b.String()
	}
	for name, c := range map[string]struct{ xml, want string }{
		"nothing":                       {"", "in the middle"},
		"no XML":                        {"An error occurred.", "text where an element should begin"},
		"another element":               {"<Log/>", `begins with "Log"`},
		"two events":                    {good + good, "behind the event"},
		"the wrong end":                 {strings.Replace(good, "</Data>", "</Date>", 1), "Data is ended by Date"},
		"an end that does not end":      {strings.Replace(good, "</Data>", "</Data x>", 1), "does not end"},
		"an attribute without quotes":   {strings.Replace(good, "'a'", "a", 1), "without quotes"},
		"an attribute without a value":  {strings.Replace(good, "='a'", "", 1), "without a value"},
		"an entity declared":            {strings.Replace(good, ">1<", "><!ENTITY x 'y'><", 1), "a declaration"},
		"a quote in a name":             {strings.Replace(good, "<Data", `<Da"ta`, 1), "in a name"},
		"an element in a number":        {`<Event><System><Level><x/></Level></System></Event>`, "an element within Level"},
		"a number that is none":         {`<Event><System><Level>high</Level></System></Event>`, "level: "},
		"a time that is none":           {`<Event><System><TimeCreated SystemTime='2026-13-01T00:00:00Z'/></System></Event>`, "time: "},
		"a day that is none":            {`<Event><System><TimeCreated SystemTime='2026-02-30T00:00:00Z'/></System></Event>`, "time: "},
		"a name that is too long":       {event1(`<EventData><Data Name='` + strings.Repeat("n", maxName+1) + `'/></EventData>`), "a name of more"},
		"more names than a line may":    {event1(`<EventData>` + many(maxMembers+1, "<Data Name='n%d'/>") + `</EventData>`), "more than 250 members"},
		"more attributes than that":     {event1(`<UserData><A ` + many(maxMembers+2, " n%d=''") + `/></UserData>`), "more than 250 attributes"},
		"more elements than memory":     {event1(`<EventData>` + many(maxNodes, "<Data>%d</Data>") + `</EventData>`), "more than 4096 elements"},
		"nested deeper than a line may": {event1(`<UserData>` + strings.Repeat("<A>", 14) + strings.Repeat("</A>", 14) + `</UserData>`), "nested more than 13"},
		"lists nested as deep":          {event1(`<UserData>` + strings.Repeat("<A/><A>", 8) + strings.Repeat("</A>", 8) + `</UserData>`), "nested more than 13"},
		"nested without end":            {event1(`<UserData>` + strings.Repeat("<A>", 1e6)), "nested more than 32"},
	} {
		t.Run(name, func(t *testing.T) {
			r := parsed(c.xml)
			got, errs := body(t, r)
			if len(errs) != 1 || !strings.Contains(errs[0].(string), c.want) {
				t.Fatalf("errors %q, want %q", errs, c.want)
			}
			kept, _ := got["xml"].(string)
			if strings.HasPrefix(errs[0].(string), "xml: ") && kept != c.xml {
				t.Errorf("kept %.200q of %.200q", kept, c.xml)
			}
			mustBeTaken(t, r)
		})
	}
	for i := range len(good) {
		r := parsed(good[:i])
		if got, errs := body(t, r); i > 0 && got["xml"] != good[:i] || len(errs) == 0 {
			t.Fatalf("cut at %d: errors %v", i, errs)
		}
	}
}

func TestWhatCameBeforeTheErrorIsThere(t *testing.T) {
	got, _ := body(t, parsed(strings.TrimSuffix(event1(`<EventData><Data Name='a'>1</Data>`), "</Event>")))
	if got["provider"] != "P" || cmp.Diff(map[string]any{"a": "1"}, got["event_data"]) != "" {
		t.Errorf("%v", got)
	}
}

func TestBytesThatAreNotUTF8LoseNothing(t *testing.T) {
	got, errs := body(t, parsed(event1("<EventData><Data Name='a\xff'>1\xc3</Data><Data Name='a\xfe'>2</Data></EventData>")))
	if d := cmp.Diff(map[string]any{"a\ufffd": []any{"1\ufffd", "2"}}, got["event_data"]); d != "" || errs != nil {
		t.Errorf("errors %v: %s", errs, d)
	}
}

// mustBeTaken sees that a server takes the line of r.
func mustBeTaken(t testing.TB, r *Record) {
	t.Helper()
	ev := r.Event(read)
	e := event.NewEncoder(collecttest.Stamp, nil, wire.MaxLine)
	line, err := e.Append(nil, &ev, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := wire.NewScanner(wire.DefaultLimits)
	s.Reset(line)
	if !s.Scan() {
		t.Fatalf("the server refuses it: %v\n%.2000s", s.Err(), line)
	}
}

func TestTimesAreThoseOfTheStandardLibrary(t *testing.T) {
	for _, s := range []string{
		"2018-08-05T10:34:37.552695700Z", "2018-08-05T10:34:37Z", "2018-08-05T10:34:37.5Z", "2016-02-29T23:59:59.999999999Z", "1601-01-01T00:00:00.0000000Z",
		"2018-08-05T10:34:37.552695700+02:00", "2017-02-29T00:00:00Z", "2018-08-05T24:00:00Z", "2018-08-05T10:34:60Z", "2018-08-05T10:34:37.Z", "2018-08-05 10:34:37Z",
		"2018-0x-05T10:34:37Z", "2018-13-05T10:34:37Z", "2018-00-05T10:34:37Z", "", "Z", "2018-08-05T10:34:37.5526957001Z", "0000-01-01T00:00:00Z", "30828-09-14T02:48:05.477580700Z",
	} {
		want, wantErr := time.Parse(time.RFC3339Nano, s)
		got, err := instant(s)
		if !got.Equal(want) || (err == nil) != (wantErr == nil) {
			t.Errorf("%q: %v, %v; want %v, %v", s, got, err, want, wantErr)
		}
	}
}

func TestGolden(t *testing.T) {
	var all []byte
	for i, text := range synthetic(t) {
		p := Parser{KeepXML: i == 0}
		r := new(Record)
		p.Parse([]byte(text), r)
		all = append(all, collecttest.Encode(t, r.Event(read))...)
	}
	collecttest.Golden(t, "testdata/windows.golden", Schema, all)
}

func TestTheScannerAllocatesItsTextsOnly(t *testing.T) {
	var p Parser
	r := new(Record)
	plain := []byte(event1(`<EventData><Data Name='a'>1</Data></EventData>`))
	special := []byte(event1(`<EventData><Data Name='a'>&lt;</Data></EventData><UserData><A b='1'><C/></A></UserData>`))
	e := event.NewEncoder(collecttest.Stamp, nil, 1<<20)
	var buf []byte
	for _, c := range []struct {
		name string
		most float64
		f    func()
	}{
		{"a plain event", 1, func() { p.Parse(plain, r) }},
		{"one with references", 2, func() { p.Parse(special, r) }},
		{"encoding it", 0, func() { ev := r.Event(read); buf, _ = e.Append(buf[:0], &ev, 1) }},
	} {
		if n := testing.AllocsPerRun(100, c.f); n > c.most {
			t.Errorf("%s: %v allocations, want %v at most", c.name, n, c.most)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range synthetic(f) {
		f.Add([]byte(s))
	}
	for _, s := range []string{
		event1(`<EventData><Data Name='a'>1</Data><Data Name="a">&#60;</Data><Data>&amp;</Data></EventData>`),
		event1(`<UserData><x:A xmlns:x='u'><B c='1'>t<![CDATA[x]]></B><B/></x:A></UserData>`),
		event1(`<UserData>` + strings.Repeat("<A/><A>", 7) + strings.Repeat("</A>", 7) + `</UserData>`),
		event1(`<RenderingInfo Culture='x'><Message>m</Message><Keywords><Keyword>k</Keyword></Keywords></RenderingInfo>`),
	} {
		f.Add([]byte(s))
	}
	var p Parser
	var tree xpath.Tree
	r := new(Record)
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		_ = p.Outline(text, &tree) // what can be read of it
		p.Parse(text, r)
		if !bytes.Equal(before, text) {
			t.Fatal("the XML was written to")
		}
		mustBeTaken(t, r)
		if _, errs := body(t, r); r.broken != slices.ContainsFunc(errs, func(e any) bool { return strings.HasPrefix(e.(string), "xml: ") }) {
			t.Fatalf("broken is %v, errors are %q", r.broken, errs)
		}
	})
}
