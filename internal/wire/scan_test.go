package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"
)

const good = `{"v":1,"time":"2026-01-02T03:04:05.000000006Z","node":"0190d1c0-0000-7000-8000-000000000001",` +
	`"hostname":"lab-7","stream":"7f3a00000000000000000000000000c1","seq":1234,"kind":"cpu",` +
	`"cpu":{"utilization":0.117,"cores":[{"core":0,"utilization":0.2},{"core":1,"utilization":1e-3}]},"errors":["freq: nothing"]}` + "\n"

// with returns the good line with one part replaced.
func with(old, new string) string {
	if !strings.Contains(good, old) {
		panic("the good line has no " + old)
	}
	return strings.Replace(good, old, new, 1)
}

func scanAll(data string) (lines []Line, err error) {
	s := NewScanner(DefaultLimits)
	s.Reset([]byte(data))
	for s.Scan() {
		lines = append(lines, *s.Line())
	}
	return lines, s.Err()
}

func TestScanReadsTheEnvelope(t *testing.T) {
	lines, err := scanAll(good)
	if err != nil || len(lines) != 1 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	l := lines[0]
	got := fmt.Sprintf("%d %s %s %s %s %d %s %s", l.Version, l.Time.Format(time.RFC3339Nano), l.Node, l.Host, l.Stream, l.Seq, l.Kind, l.Body)
	want := `1 2026-01-02T03:04:05.000000006Z 0190d1c0-0000-7000-8000-000000000001 lab-7 7f3a00000000000000000000000000c1 1234 cpu ` +
		`{"utilization":0.117,"cores":[{"core":0,"utilization":0.2},{"core":1,"utilization":1e-3}]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if string(l.Raw) != good {
		t.Errorf("raw line %q", l.Raw)
	}
}

func TestScanAccepts(t *testing.T) {
	for name, line := range map[string]string{
		"white space":               with(`"v":1,`, " \t\"v\" : 1 , "),
		"a carriage return":         with("\n", "\r\n"),
		"an unknown member":         with(`"errors":`, `"later":{"a":[null,true,false,-0.5E+2]},"errors":`),
		"an empty body":             with(`{"utilization":0.117,"cores":[{"core":0,"utilization":0.2},{"core":1,"utilization":1e-3}]}`, `{}`),
		"the greatest number":       with(`1234`, `9223372036854775807`),
		"number zero":               with(`1234`, `0`),
		"no host name":              with(`lab-7`, ``),
		"a year before computers":   with(`2026-01-02`, `1601-01-01`),
		"a large float":             with(`0.117`, `1.7976931348623157e+308`),
		"escapes":                   with(`nothing`, `\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud800`),
		"names differing in case":   with(`"core":0`, `"core":0,"Core":0`),
		"a name in another object":  with(`"core":0`, `"v":0,"core":0`),
		"sixteen deep":              with(`["freq: nothing"]`, strings.Repeat("[", 15)+strings.Repeat("]", 15)),
		"256 members in one object": with(`"utilization":0.117,`, manyMembers(255)),
	} {
		if lines, err := scanAll(line); err != nil || len(lines) != 1 {
			t.Errorf("%s: %v\n%s", name, err, line)
		} else if !json.Valid([]byte(line)) {
			t.Errorf("%s: not JSON, the test is wrong: %s", name, line)
		}
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"m%d":%d,`, i, i)
	}
	return b.String()
}

func TestScanRefuses(t *testing.T) {
	for name, c := range map[string]struct{ line, want string }{
		"an empty line":               {"\n", "line 1: column 1: want an object"},
		"a list":                      {"[]\n", "want an object"},
		"no newline":                  {strings.TrimSuffix(good, "\n"), "does not end with a newline"},
		"half a line":                 {good[:80] + "\n", "no end"},
		"more than an object":         {with("\n", "{}\n"), "nothing after"},
		"a byte order mark":           {"\ufeff" + good, "want an object"},
		"a long line":                 {strings.Repeat(" ", 1<<20) + good, "longer than 1048576"},
		"a name twice":                {with(`"errors":`, `"v":1,"errors":`), "there twice"},
		"a name twice, deep":          {with(`"core":1,`, `"core":1,"core":1,`), "there twice"},
		"a name with an escape":       {with(`"core":1`, `"cor\u0065":1`), "escape"},
		"too many members":            {with(`"utilization":0.117,`, manyMembers(256)), "more than 256 members"},
		"seventeen deep":              {with(`["freq: nothing"]`, strings.Repeat("[", 16)+strings.Repeat("]", 16)), "more than 16 deep"},
		"a control character":         {with("nothing", "a\tb"), "control character"},
		"bytes that are not UTF-8":    {with("nothing", "a\xffb"), "not UTF-8"},
		"an overlong encoding":        {with("nothing", "\xc0\xaf"), "not UTF-8"},
		"a surrogate in UTF-8":        {with("nothing", "\xed\xa0\x80"), "not UTF-8"},
		"an unknown escape":           {with("nothing", `\x41`), "escape"},
		"half an escape":              {with("nothing", `\u12`), "escape"},
		"an escape at the end":        {with(`ing"]}`, `\`), "escape"},
		"a comma too many":            {with(`]},"errors"`, `],},"errors"`), "name of a member"},
		"a comma too few":             {with(`,"errors"`, ` "errors"`), "want ','"},
		"a comma in a list":           {with(`},{"core":1`, `},,{"core":1`), "want a value"},
		"no colon":                    {with(`"core":1`, `"core" 1`), "want ':'"},
		"a leading zero":              {with(`0.117`, `00.117`), "want ',' or '}'"},
		"a plus sign":                 {with(`0.117`, `+1`), "want a value"},
		"a lone minus":                {with(`0.117`, `-`), "want a digit"},
		"no digits after the point":   {with(`0.117`, `1.`), "want a digit"},
		"no digits in the exponent":   {with(`0.117`, `1e`), "want a digit"},
		"not a number":                {with(`0.117`, `NaN`), "want a value"},
		"a number beyond float64":     {with(`0.117`, `1e999`), "beyond 64-bit"},
		"a number of many digits":     {with(`0.117`, strings.Repeat("1", 41)), "longer than 40"},
		"a broken word":               {with(`0.117`, `nul`), "want a value"},
		"no time":                     {with(`"time":"2026-01-02T03:04:05.000000006Z",`, ""), `has no "time"`},
		"no sequence number":          {with(`"seq":1234,`, ""), `has no "seq"`},
		"no kind":                     {with(`"kind":"cpu",`, ""), `has no "kind"`},
		"no body":                     {with(`"cpu":{`, `"cpus":{`), "no object under its kind"},
		"a body that is no object":    {with(`"kind":"cpu"`, `"kind":"errors"`), "no object under its kind"},
		"a local time":                {with(`006Z`, `006+01:00`), "RFC 3339 in UTC"},
		"a time that is a number":     {with(`"2026-01-02T03:04:05.000000006Z"`, `5`), "RFC 3339 in UTC"},
		"the 30th of February":        {with(`2026-01-02`, `2026-02-30`), "RFC 3339 in UTC"},
		"a sequence number as text":   {with(`1234`, `"1234"`), "whole number"},
		"a broken sequence number":    {with(`1234`, `1234.0`), "whole number"},
		"a negative sequence number":  {with(`1234`, `-1`), "whole number"},
		"a sequence number too large": {with(`1234`, `9223372036854775808`), "whole number"},
		"twenty digits":               {with(`1234`, `18446744073709551616`), "whole number"},
		"a short stream":              {with(`7f3a`, ``), "wrong form"},
		"a node that is a path":       {with(`0190d1c0`, `../../etc`), "wrong form"},
		"a kind in capitals":          {with(`"kind":"cpu"`, `"kind":"CPU"`), "wrong form"},
		"a host that is a list":       {with(`"lab-7"`, `["lab-7"]`), "wrong form"},
		"a host without end":          {with(`"lab-7"`, strings.Repeat("h", 2000)), "wrong form"},
		"a NUL":                       {with(`0.117`, "\x00"), "want a value"},
	} {
		lines, err := scanAll(c.line)
		if err == nil || len(lines) != 0 {
			t.Errorf("%s: accepted %s", name, c.line)
			continue
		}
		var le *LineError
		if !errors.As(err, &le) || le.Line != 1 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %q, want %q", name, err, c.want)
		}
	}
}

func TestScanNamesTheLineAtFault(t *testing.T) {
	lines, err := scanAll(good + good + "{}\n" + good)
	if len(lines) != 2 || err == nil || !strings.HasPrefix(err.Error(), "line 3: ") {
		t.Errorf("%d lines, %v", len(lines), err)
	}
}

func TestNumbersAreHeldToWhatAFloatHolds(t *testing.T) {
	for _, n := range []string{
		"0e0", "0e999999", "-0.000e-5", "1e308", "-1.7976931348623157e308", "17976931348623157E+292", "0.00017976931348623157e312", "1e0000000000000000000000000000000000308",
		"1e-400", "123456789012345678901234567890e278", "1.79769313486231571e308", "2e308", "1e309", "1e999", "0.1e310", "-99e307", "100000e304", "1e99999999999999999999999999",
	} {
		_, err := strconv.ParseFloat(n, 64)
		_, got := scanAll(with("0.117", n))
		if borderline := n == "1.79769313486231571e308"; (err == nil) != (got == nil) && !borderline {
			t.Errorf("%s: %v, strconv says %v", n, got, err)
		}
	}
}

func TestAFaultNamesTheRule(t *testing.T) {
	for line, want := range map[string]Rule{
		with("0.117", strings.Repeat("[", 16)+strings.Repeat("]", 16)):   RuleDepth,
		with("0.117", "{"+strings.TrimSuffix(manyMembers(257), ",")+"}"): RuleMembers,
		with(`"v":1,`, `"v":1,"v":1,`):                                   RuleDuplicate,
		with("lab-7", "lab\xff"):                                         RuleText,
		with("0.117", "1e999"):                                           RuleNumber,
		with("0.117", strings.Repeat("1", 41)):                           RuleNumber,
		with(`"seq":1234,`, ""):                                          RuleEnvelope,
		with("0.117", `"`+strings.Repeat("x", 1<<20)+`"`):                RuleLine,
		"hello\n": RuleJSON,
	} {
		var le *LineError
		if _, err := scanAll(line); !errors.As(err, &le) || le.Rule != want {
			t.Errorf("%.200s: %v, want the rule %s", line, err, want)
		}
	}
}

func TestScanUnescapesTheHost(t *testing.T) {
	lines, err := scanAll(with("lab-7", `a\"b\u00e9\ud83d\ude00\ud800x\n`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(lines[0].Host), "a\"bé😀\ufffdx\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestScanAllocatesNothing(t *testing.T) {
	data := bytes.Repeat([]byte(good), 20)
	s := NewScanner(DefaultLimits)
	if n := testing.AllocsPerRun(20, func() {
		s.Reset(data)
		for s.Scan() {
		}
	}); n != 0 || s.Err() != nil {
		t.Errorf("%v allocations, %v", n, s.Err())
	}
}

// FuzzScan holds what the scanner accepts against encoding/json, which must
// accept it too, and read the same.
func FuzzScan(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(good + good))
	f.Add([]byte(with("lab-7", `a\"b\u00e9\ud83d\ude00\ud800x\n`)))
	f.Add([]byte(with(`"errors":`, `"later":{"a":[null,true,false,-0.5E+2]},"errors":`)))
	f.Add([]byte(with(`"v":1,`, " \t\"v\" : 1 , ")))
	f.Add([]byte(with(`"cor`, `"cor\u0065`)))
	f.Add([]byte("{\"a\":\"\xed\xa0\x80\"}\n[[[[\n"))
	s := NewScanner(DefaultLimits)
	f.Fuzz(func(t *testing.T, data []byte) {
		var raw []byte
		s.Reset(data)
		for s.Scan() {
			raw = append(raw, s.Line().Raw...)
			checkAgainstJSON(t, s.Line())
		}
		if s.Err() == nil && !bytes.Equal(raw, data) {
			t.Errorf("lines do not add up to the data %q", data)
		}
	})
}

func checkAgainstJSON(t *testing.T, l *Line) {
	var v struct {
		V                        uint64
		Time                     time.Time
		Node, Host, Stream, Kind string
		Seq                      uint64
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(l.Raw, &all); err != nil {
		t.Fatalf("encoding/json: %v\n%q", err, l.Raw)
	}
	for _, name := range []string{"v", "time", "node", "hostname", "stream", "kind", "seq"} { // names exactly, not folded
		var dst any = map[string]any{"v": &v.V, "time": &v.Time, "node": &v.Node, "hostname": &v.Host, "stream": &v.Stream, "kind": &v.Kind, "seq": &v.Seq}[name]
		if err := json.Unmarshal(all[name], dst); err != nil {
			t.Fatalf("encoding/json: %s: %v\n%q", name, err, l.Raw)
		}
	}
	if v.V != l.Version || !v.Time.Equal(l.Time) || v.Node != string(l.Node) || v.Host != string(l.Host) ||
		v.Stream != string(l.Stream) || v.Kind != string(l.Kind) || v.Seq != l.Seq || !bytes.Equal(all[v.Kind], l.Body) {
		t.Fatalf("encoding/json reads %+v from %q", v, l.Raw)
	}
	var anything any
	if err := json.Unmarshal(l.Raw, &anything); err != nil { // numbers as float64
		t.Fatalf("encoding/json: %v\n%q", err, l.Raw)
	}
	noNameTwice(t, json.NewDecoder(bytes.NewReader(l.Raw)), 0)
}

// noNameTwice walks one value.
func noNameTwice(t *testing.T, d *json.Decoder, depth int) {
	token := func() json.Token {
		tok, err := d.Token()
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return tok
	}
	switch token() {
	case json.Delim('{'):
		names := map[string]bool{}
		for d.More() {
			name := token().(string)
			if names[name] || len(names) == DefaultLimits.Members {
				t.Fatalf("%q is there twice, or too many members", name)
			}
			names[name] = true
			noNameTwice(t, d, depth+1)
		}
		token()
	case json.Delim('['):
		for d.More() {
			noNameTwice(t, d, depth+1)
		}
		token()
	default:
		depth--
	}
	if depth+1 > DefaultLimits.Depth {
		t.Fatalf("nested %d deep", depth+1)
	}
}

func BenchmarkScan(b *testing.B) {
	for name, data := range map[string][]byte{
		"cpu":     bytes.Repeat([]byte(good), 1000),
		"process": bytes.Repeat([]byte(with(`{"core":1`, strings.Repeat(`{"pid":4711,"name":"postgres","start_time":"2026-01-02T03:04:05.000000006Z","cpu_ratio":0.0213,"resident_bytes":38273024,"threads":7},`, 20)+`{"core":1`)), 200),
		"hostile": []byte("{" + strings.Repeat(`"a":{`+strings.TrimSuffix(manyMembers(256), ",")+"},", 1) + "\n"),
		"names":   hostileNames(),
		"numbers": hostile("1e308"),
		"text":    hostile(`"\u0041é"`),
		"deep":    hostile(strings.Repeat("[", 13) + strings.Repeat("]", 13)),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			s := NewScanner(DefaultLimits)
			for b.Loop() {
				s.Reset(data)
				for s.Scan() {
				}
			}
		})
	}
}

// hostile is a line of as many such values as a line can have.
func hostile(value string) []byte {
	return []byte(with("0.117", "["+strings.Repeat(value+",", (1<<20-1000)/(len(value)+1))+"0]"))
}

// hostileNames is a line of as many short names as a line can have.
func hostileNames() []byte {
	var b strings.Builder
	b.WriteString(`{"x":[`)
	for b.Len() < 1<<20-4000 {
		b.WriteString("{" + strings.TrimSuffix(manyMembers(256), ",") + "},")
	}
	return []byte(b.String() + "0]}\n")
}
