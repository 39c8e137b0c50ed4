package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files instead of comparing with them")

var (
	stamp = Stamp{Node: "0190d1c0-0000-7000-8000-000000000001", Host: "lab-7", Stream: "7f3a00000000000000000000000000c1"}
	noon  = time.Date(2026, 11, 23, 12, 0, 0, 12345678, time.UTC)
)

// bodyFunc is a Body made of a function.
type bodyFunc func(e *Encoder)

func (f bodyFunc) Encode(e *Encoder) { f(e) }

// careful withholds commands, hashes accounts and shortens paths.
func careful(_ Kind, _ string, class Class, s string) (string, bool, string) {
	switch class {
	case Command:
		return "", false, ""
	case Account:
		return "sha:5a5a", true, ""
	case Path:
		return strings.TrimPrefix(s, "/home/ann"), true, ""
	}
	return s, true, ""
}

// everything calls each method of the Encoder that a Body may call.
var everything = bodyFunc(func(e *Encoder) {
	e.Int("int", -42)
	e.Uint("uint", math.MaxUint64)
	e.MaybeInt("known_int", Known[int64](0))
	e.MaybeInt("unknown_int", Maybe[int64]{})
	e.MaybeUint("known_uint", Known[uint64](7))
	e.MaybeUint("unknown_uint", Maybe[uint64]{})
	e.MaybeFloat("known_ratio", Known(0.123456), 4)
	e.MaybeFloat("unknown_ratio", Maybe[float64]{}, 4)
	e.Float("nan", math.NaN(), 2)
	e.Bool("bool", true)
	e.Time("since", noon.In(time.FixedZone("", 5*3600+1800)))
	e.Time("never", time.Time{})
	e.String("device", `\\?\Volume{1}`)
	e.String("none", "")
	e.Open("object")
	e.Sensitive("message", Text, "one\ttwo\x00\x7f\"\xff\" Ω \U0001f600")
	e.Sensitive("user", Account, "ann")
	e.Sensitive("nobody", Account, "")
	e.Open("inner")
	e.Sensitive("file", Path, "/home/ann/notes")
	e.Sensitive("program", Path, "/usr/bin/true")
	e.Close()
	e.Close()
	e.OpenList("list")
	for i := range 3 {
		e.OpenItem()
		e.Int("i", int64(i))
		e.Sensitive("command_line", Command, "true --password=x")
		e.OpenList("empty")
		e.CloseList()
		e.CloseItem()
	}
	e.CloseList()
	e.Open("nothing")
	e.Close()
	e.Strings("names", []string{"a", "", "c"})
	e.Strings("no_names", nil)
	e.Withheld("environment")
})

func TestLineGolden(t *testing.T) {
	events := []Event{
		{Time: noon, Kind: Process, Body: everything, Errors: []string{"a: \"b\"", "c: d"}},
		{Time: noon, Observed: noon.Add(time.Hour), Kind: EventLog, Body: bodyFunc(func(*Encoder) {})},
		{Time: noon, Observed: noon, Kind: Gap},
	}
	e := NewEncoder(stamp, careful, 0)
	got := []byte("before\n")
	for i := range events {
		var err error
		if got, err = e.Append(got, &events[i], uint64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	const file = "testdata/lines.golden"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for line := range bytes.Lines(got[len("before\n"):]) {
		if !json.Valid(line) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

// decode returns the one line as encoding/json understands it.
func decode(t testing.TB, line []byte) map[string]any {
	t.Helper()
	if n := bytes.Count(line, []byte{'\n'}); n != 1 || line[len(line)-1] != '\n' {
		t.Fatalf("%d newlines in %q", n, line)
	}
	if !utf8.Valid(line) {
		t.Fatalf("not UTF-8: %q", line)
	}
	var m map[string]any
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	return m
}

func encode(t testing.TB, ev Event) map[string]any {
	t.Helper()
	line, err := NewEncoder(stamp, nil, 0).Append(nil, &ev, 1)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, line)
}

func TestTexts(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"plain":                        {"cpu0", "cpu0"},
		"quotes and backslashes":       {`"\`, `"\`},
		"control characters":           {"\x00\x1f\n\r\t\b\f\x7f", "\x00\x1f\n\r\t\b\f\x7f"},
		"multi-byte":                   {"Ωß中\U0001f600", "Ωß中\U0001f600"},
		"bad byte":                     {"a\xffb", "a\ufffdb"},
		"cut character":                {"a\xe4\xb8", "a\ufffd\ufffd"},
		"surrogate in UTF-8":           {"\xed\xa0\x80", "\ufffd\ufffd\ufffd"},
		"overlong":                     {"\xc0\xaf", "\ufffd\ufffd"},
		"line and paragraph separator": {"\u2028\u2029", "\u2028\u2029"},
	} {
		t.Run(name, func(t *testing.T) {
			ev := Event{Time: noon, Kind: Agent, Body: bodyFunc(func(e *Encoder) { e.String("s", c.in) })}
			if got := encode(t, ev)["agent"].(map[string]any)["s"]; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	late := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		in   time.Time
		want any
	}{
		"nanoseconds":                        {noon, "2026-11-23T12:00:00.012345678Z"},
		"whole second":                       {time.Unix(0, 0), "1970-01-01T00:00:00.000000000Z"},
		"before 1970":                        {time.Unix(-1, 1), "1969-12-31T23:59:59.000000001Z"},
		"another zone":                       {noon.In(time.FixedZone("", -3600)), "2026-11-23T12:00:00.012345678Z"},
		"first":                              {time.Time{}.Add(1), "0001-01-01T00:00:00.000000001Z"},
		"last":                               {late.Add(-1), "9999-12-31T23:59:59.999999999Z"},
		"last, told in a zone of year 10000": {late.Add(-1).In(time.FixedZone("", 3600)), "9999-12-31T23:59:59.999999999Z"},
		"zero":                               {time.Time{}, nil},
		"year 10000":                         {late, nil},
		"year 30828, FILETIME's last":        {time.Date(30828, 9, 14, 2, 48, 5, 0, time.UTC), nil},
		"year 0":                             {time.Time{}.Add(-1), nil},
		"negative year":                      {time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), nil},
		"out of every calendar":              {time.Unix(math.MaxInt64, 0), nil},
		"before every calendar":              {time.Unix(math.MinInt64, 0), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := encode(t, Event{Time: c.in, Kind: Host})
			if got["time"] != c.want {
				t.Errorf("got %v, want %v", got["time"], c.want)
			}
			got = encode(t, Event{Time: c.in, Observed: noon.Add(1), Kind: Host})
			observed := "2026-11-23T12:00:00.012345679Z"
			if c.want == nil { // then all that is known is when it was observed
				if got["time"] != observed || got["observed"] != nil {
					t.Errorf("time %v, observed %v", got["time"], got["observed"])
				}
			} else if got["time"] != c.want || got["observed"] != observed {
				t.Errorf("time %v, observed %v", got["time"], got["observed"])
			}
		})
	}
}

func TestTimesAgreeWithTheStandardLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	e := NewEncoder(stamp, nil, 0)
	last := time.Unix(0, 0)
	for range 20000 {
		if r.IntN(2) == 0 { // often the same second again
			last = time.Unix(r.Int64N(253402300800+62135596800)-62135596800, 0)
		}
		in := time.Unix(last.Unix(), r.Int64N(1e9))
		e.buf = append(e.buf[:0], '{')
		e.Time("t", in)
		want := `{"t":"` + in.UTC().Format("2006-01-02T15:04:05.000000000Z") + `"`
		if string(e.buf) != want {
			t.Fatalf("got %s, want %s", e.buf, want)
		}
	}
}

func TestDecimals(t *testing.T) {
	for _, c := range []struct {
		v      float64
		places int
		want   string
	}{
		{0, 4, "0"},
		{math.Copysign(0, -1), 4, "0"},
		{-0.00004, 4, "0"},
		{-0.00005, 4, "-0.0001"},
		{0.5, 0, "1"},
		{-0.5, 0, "-1"},
		{0.05, 1, "0.1"},
		{0.1, 4, "0.1"},
		{0.1000, 4, "0.1"},
		{0.1234567, 4, "0.1235"},
		{0.99996, 4, "1"},
		{-1.5, 2, "-1.5"},
		{-0.05, 2, "-0.05"},
		{1.000000001, 9, "1.000000001"},
		{100, 9, "100"},
		{1e15, 0, "1000000000000000"},
		{1 << 53, 0, "9.007199254740992e+15"},
		{-math.MaxFloat64, 9, "-1.7976931348623157e+308"},
		{math.SmallestNonzeroFloat64, 9, "0"},
	} {
		if got := string(appendDecimal(nil, c.v, c.places)); got != c.want {
			t.Errorf("appendDecimal(%v, %d) = %s, want %s", c.v, c.places, got, c.want)
		}
	}
}

func FuzzDecimal(f *testing.F) {
	f.Add(0.285, uint8(2))
	f.Add(-123456.789, uint8(9))
	f.Add(9007199254740991.0, uint8(0))
	f.Add(1e300, uint8(3))
	f.Fuzz(func(t *testing.T, v float64, places uint8) {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return
		}
		p := int(places % 10)
		got := appendDecimal(nil, v, p)
		if !json.Valid(got) || string(got) == "-0" {
			t.Fatalf("%v to %d places: %s", v, p, got)
		}
		back, err := strconv.ParseFloat(string(got), 64)
		if err != nil {
			t.Fatal(err)
		}
		// Half a unit of the last place, and what the float itself cannot hold.
		if tolerance := 0.5/pow10[p] + math.Abs(v)*1e-15; math.Abs(back-v) > tolerance*(1+1e-9) {
			t.Errorf("%v to %d places: %s", v, p, got)
		}
		if _, fraction, ok := strings.Cut(string(got), "."); ok && !strings.Contains(fraction, "e") && len(fraction) > p {
			t.Errorf("%v to %d places: %s", v, p, got)
		}
	})
}

func FuzzEscaped(f *testing.F) {
	f.Add("plain", 3)
	f.Add("\"\\\n\x00", 7)
	f.Add("Ω中\U0001f600\xff\xed\xa0\x80", 5)
	f.Add("", 0)
	f.Fuzz(func(t *testing.T, s string, room int) {
		all := appendQuoted(nil, s)
		var back string
		if err := json.Unmarshal(all, &back); err != nil {
			t.Fatalf("%v: %s", err, all)
		}
		if want := toValid(s); back != want {
			t.Fatalf("%q came back as %q, want %q", s, back, want)
		}
		room = max(0, room%(len(all)+2))
		part := appendEscaped([]byte(`"`), s, room)[1:]
		if len(part) > room || !bytes.HasPrefix(all[1:len(all)-1], part) {
			t.Fatalf("cut to %d: %q of %q", room, part, all)
		}
		if len(all)-2 <= room && len(part) != len(all)-2 {
			t.Fatalf("cut to %d without need: %q", room, part)
		}
		if !utf8.Valid(part) || !json.Valid(slices.Concat([]byte(`"`), part, []byte(`"`))) {
			t.Fatalf("cut to %d inside a character: %q", room, part)
		}
		if room-len(part) >= 6 && len(part) < len(all)-2 {
			t.Fatalf("cut to %d but %d used", room, len(part))
		}
	})
}

// toValid is what becomes of bytes that are not UTF-8: each one U+FFFD.
func toValid(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteRune(r)
	}
	return b.String()
}

func TestRedaction(t *testing.T) {
	hide := map[Class]bool{}
	e := NewEncoder(stamp, func(_ Kind, _ string, c Class, s string) (string, bool, string) { return s, !hide[c], "" }, 0)
	ev := Event{Time: noon, Kind: Process, Body: everything}
	paths := func() any {
		line, err := e.Append(nil, &ev, 1)
		if err != nil {
			t.Fatal(err)
		}
		return decode(t, line)["redacted"]
	}
	for _, c := range []struct {
		hide Class
		want []any
	}{
		{0, []any{"process.environment"}},
		{Command, []any{"process.list.command_line", "process.environment"}},
		{Path, []any{"process.object.inner.file", "process.object.inner.program", "process.environment"}},
		{0, []any{"process.environment"}}, // nothing stays from the events before
	} {
		clear(hide)
		hide[c.hide] = true
		if d := cmp.Diff(any(c.want), paths()); d != "" {
			t.Errorf("class %d (-want +got):\n%s", c.hide, d)
		}
	}
}

func TestRedactedTextNeverStands(t *testing.T) {
	e := NewEncoder(stamp, careful, 600)
	ev := Event{Time: noon, Kind: Process, Body: bodyFunc(func(e *Encoder) {
		e.Sensitive("user", Account, "ann")
		e.Sensitive("command_line", Command, strings.Repeat("secret", 100))
		e.Sensitive("message", Text, strings.Repeat("word ", 200))
	})}
	line, err := e.Append(nil, &ev, 1)
	if err != nil {
		t.Fatal(err)
	}
	m := decode(t, line)
	if m["truncated"] != true || bytes.Contains(line, []byte("secret")) || bytes.Contains(line, []byte("ann")) {
		t.Errorf("%s", line)
	}
	if d := cmp.Diff(any([]any{"process.user", "process.command_line"}), m["redacted"]); d != "" {
		t.Errorf("a cut changed the redacted paths (-want +got):\n%s", d)
	}
}

func TestErrorsAreRedactedAsTexts(t *testing.T) {
	hide := func(kind Kind, field string, class Class, s string) (string, bool, string) {
		if kind != Process || field != "errors" || class != Text {
			t.Errorf("asked for %s.%s of class %d", kind, field, class)
		}
		return strings.ReplaceAll(s, "hunter2", "-"), true, "password,jwt"
	}
	line, err := NewEncoder(stamp, hide, 0).Append(nil, &Event{Time: noon, Kind: Process, Errors: []string{"a: hunter2", "b: hunter2"}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	m := decode(t, line)
	if d := cmp.Diff([]any{[]any{"a: -", "b: -"}, []any{"errors:password,jwt"}}, []any{m["errors"], m["redacted"]}); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestWhatIsToldOfRedactionsIsBounded(t *testing.T) {
	hide := func(Kind, string, Class, string) (string, bool, string) { return "", false, "" }
	e := NewEncoder(stamp, hide, 0)
	for event := range 100 {
		line, err := e.Append(nil, &Event{Time: noon, Kind: EventLog, Body: bodyFunc(func(e *Encoder) {
			for i := range 40 {
				e.Sensitive(fmt.Sprintf("name%d_%d", event, i), Account, "ann")
			}
		})}, 1)
		if err != nil {
			t.Fatal(err)
		}
		list := decode(t, line)["redacted"].([]any)
		if len(list) != 33 || list[32] != "…" || list[31] != fmt.Sprintf("eventlog.name%d_31", event) {
			t.Fatalf("event %d tells of %d redactions: %v", event, len(list), list)
		}
	}
}

func TestCut(t *testing.T) {
	ev := Event{Time: noon, Kind: Agent, Body: bodyFunc(func(e *Encoder) {
		e.String("short", "abc")
		e.String("long", strings.Repeat("x", 300))
		e.String("longer", strings.Repeat("y", 400))
	})}
	full, err := NewEncoder(stamp, nil, 0).Append(nil, &ev, 1)
	if err != nil {
		t.Fatal(err)
	}
	const note = len(`,"truncated":true`)
	lengths := func(max int) (short, long, longer int) {
		line, err := NewEncoder(stamp, nil, max).Append([]byte("kept"), &ev, 1)
		if err != nil {
			t.Fatalf("max %d: %v", max, err)
		}
		line = line[len("kept"):]
		if len(line) > max {
			t.Errorf("max %d: line of %d bytes", max, len(line))
		}
		m := decode(t, line)
		if cut := max < len(full); (m["truncated"] == true) != cut {
			t.Errorf("max %d: truncated is %v", max, m["truncated"])
		}
		b := m["agent"].(map[string]any)
		return len(b["short"].(string)), len(b["long"].(string)), len(b["longer"].(string))
	}
	for name, c := range map[string]struct{ max, short, long, longer int }{
		"fits exactly":             {len(full), 3, 300, 400},
		"one byte over":            {len(full) - 1, 3, 300, 400 - note - 1},
		"longest meets the second": {len(full) - 100 + note, 3, 300, 300},
		"both lose alike":          {len(full) - 200 + note, 3, 250, 250},
		"short one goes too":       {len(full) - 700 + note, 1, 1, 1},
		"nothing is left":          {len(full) - 703 + note, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if a, b, l := lengths(c.max); a != c.short || b != c.long || l != c.longer {
				t.Errorf("texts of %d, %d, %d bytes, want %d, %d, %d", a, b, l, c.short, c.long, c.longer)
			}
		})
	}
	got, err := NewEncoder(stamp, nil, len(full)-704+note).Append([]byte("kept"), &ev, 1)
	if !errors.Is(err, ErrTooLarge) || string(got) != "kept" {
		t.Errorf("one byte less than no text at all: %v, %q", err, got)
	}
}

// randomBody writes the same random members at every call.
type randomBody struct {
	seed  uint64
	texts int // longest text
}

func (b randomBody) Encode(e *Encoder) {
	r := rand.New(rand.NewPCG(b.seed, 1))
	b.members(e, r, 0)
}

func (b randomBody) members(e *Encoder, r *rand.Rand, depth int) {
	for i := range r.IntN(6) {
		name := "m" + strconv.Itoa(i)
		switch n := r.IntN(9); {
		case n < 3:
			e.String(name, b.text(r))
		case n == 3:
			e.Sensitive(name, Class(1+r.IntN(4)), b.text(r))
		case n == 4:
			e.Float(name, math.Float64frombits(r.Uint64()), r.IntN(10))
		case n == 5:
			e.Strings(name, []string{b.text(r), b.text(r)})
		case n == 6:
			e.Time(name, time.Unix(int64(r.Uint64()), 0))
		case n == 7 && depth < 4:
			e.Open(name)
			b.members(e, r, depth+1)
			e.Close()
		case n == 8 && depth < 4:
			e.OpenList(name)
			for range r.IntN(3) {
				e.OpenItem()
				b.members(e, r, depth+1)
				e.CloseItem()
			}
			e.CloseList()
		default:
			e.Int(name, int64(r.Uint64()))
		}
	}
}

func (b randomBody) text(r *rand.Rand) string {
	alphabet := []string{"a", "b", " ", `"`, `\`, "\n", "\x01", "\x7f", "é", "中", "\U0001f600", "\xff", "\xe4\xb8"}
	var s strings.Builder
	for range r.IntN(b.texts + 1) {
		s.WriteString(alphabet[r.IntN(len(alphabet))])
	}
	return s.String()
}

func checkCut(t *testing.T, seed uint64, texts, limit int) (cut, refused bool) {
	t.Helper()
	ev := Event{Time: noon, Kind: EventLog, Body: randomBody{seed, texts}, Errors: []string{"x: y"}}
	full, err := NewEncoder(stamp, careful, 0).Append(nil, &ev, seed)
	if err != nil {
		t.Fatal(err)
	}
	decode(t, full)
	prefix := []byte("kept")
	got, err := NewEncoder(stamp, careful, limit).Append(prefix, &ev, seed)
	if !bytes.HasPrefix(got, prefix) {
		t.Fatalf("seed %d: what stood before is gone: %q", seed, got)
	}
	line := got[len(prefix):]
	switch {
	case len(full) <= limit:
		if err != nil || !bytes.Equal(line, full) {
			t.Fatalf("seed %d: a line within %d was changed (%v)", seed, limit, err)
		}
		return false, false
	case err != nil:
		if !errors.Is(err, ErrTooLarge) || len(line) > 0 {
			t.Fatalf("seed %d: %v, %q", seed, err, line)
		}
		return false, true
	}
	m := decode(t, line)
	if len(line) > limit || m["truncated"] != true {
		t.Fatalf("seed %d: %d bytes for %d, truncated %v", seed, len(line), limit, m["truncated"])
	}
	return true, false
}

func TestCutIsAlwaysALine(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	var cuts, refusals int
	for seed := range uint64(5000) {
		cut, refused := checkCut(t, seed, 1+r.IntN(80), 100+r.IntN(800))
		if cut {
			cuts++
		}
		if refused {
			refusals++
		}
	}
	if cuts < 500 || refusals < 500 {
		t.Errorf("only %d cuts and %d refusals were tried", cuts, refusals)
	}
}

func FuzzCut(f *testing.F) {
	f.Add(uint64(1), uint16(40), uint16(300))
	f.Add(uint64(9), uint16(400), uint16(1000))
	f.Fuzz(func(t *testing.T, seed uint64, texts, limit uint16) {
		checkCut(t, seed, int(texts%2000), 1+int(limit))
	})
}

// reading is a body like a collector's: some 350 bytes with its envelope.
type reading struct{ n uint64 }

func (r *reading) Encode(e *Encoder) {
	r.n++
	e.Uint("pid", 4242)
	e.String("name", "postgres")
	e.Float("utilization", 0.1234, 4)
	e.Uint("resident_bytes", 123456789+r.n)
	e.Uint("threads", 17)
	e.Sensitive("program", Path, "/usr/bin/postgres")
	e.Sensitive("command_line", Command, "postgres -D /var/lib")
}

func TestAppendDoesNotAllocate(t *testing.T) {
	e := NewEncoder(stamp, careful, 16<<10)
	ev := &Event{Time: noon, Observed: noon.Add(1), Kind: Process, Body: new(reading)}
	buf := make([]byte, 0, 4096)
	full, err := e.Append(buf, ev, 1234567)
	if err != nil {
		t.Fatal(err)
	}
	short := NewEncoder(stamp, careful, len(full)-1) // cuts every line
	when := noon
	allocs := testing.AllocsPerRun(1000, func() {
		when = when.Add(700 * time.Millisecond)
		ev.Time, ev.Observed = when, when.Add(time.Second)
		for _, e := range []*Encoder{e, short} {
			b, err := e.Append(buf, ev, 1234567)
			if err != nil || &b[0] != &buf[:1][0] {
				t.Fatalf("%v", err)
			}
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if line, _ := short.Append(nil, ev, 1234567); decode(t, line)["truncated"] != true {
		t.Errorf("the short one was not cut: %s", line)
	}
}

// A device is measured: nearly all of it is numbers.
type device struct{ read, written uint64 }

func (d *device) Encode(e *Encoder) {
	e.String("name", "sda")
	e.Float("utilization", float64(d.read%10000)/10000, 4)
	e.Uint("read_bytes", d.read)
	e.Float("read_bytes_per_second", float64(d.read%1000000)/10, 2)
	e.Uint("write_bytes", d.written)
	e.Float("write_bytes_per_second", float64(d.written%100000)/10, 2)
}

func BenchmarkNumbers(b *testing.B) {
	e := NewEncoder(stamp, careful, 16<<10)
	d := &device{1 << 38, 1 << 34}
	ev := &Event{Time: noon, Kind: Disk, Body: d}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d.read, d.written = d.read+123457, d.written+7919
		if _, err := e.Append(buf, ev, uint64(i)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	e := NewEncoder(stamp, careful, 16<<10)
	ev := &Event{Kind: Process, Body: new(reading)}
	buf := make([]byte, 0, 4096)
	var n int
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		ev.Time = noon.Add(time.Duration(i) * time.Microsecond)
		line, err := e.Append(buf, ev, uint64(i))
		if err != nil {
			b.Fatal(err)
		}
		n = len(line)
	}
	b.ReportMetric(float64(n), "B/event")
}

// foreign is a body of somebody else's record.
var foreign = bodyFunc(func(e *Encoder) {
	e.Open("data")
	e.Foreign("Name of theirs", "Name of theirs", Text, "")
	e.Foreign("#text", "User", Account, "ann")
	e.Foreign("Program", "Program", Command, "true --password=x")
	e.OpenList("Users")
	e.Item("Users", Account, "ann")
	e.Item("Users", Account, "bob")
	e.CloseList()
	e.OpenList("Programs")
	e.Item("Programs", Command, "a")
	e.Item("Programs", Command, "b")
	e.CloseList()
	e.Close()
	if clean, keep := e.Clean("User", Account, "ann"); keep {
		e.String("clean", clean)
	}
})

func TestWordsOfOthersStandUnderTheirNames(t *testing.T) {
	ev := Event{Time: noon, Kind: EventLog, Body: foreign}
	for name, c := range map[string]struct {
		r    Redactor
		want string
	}{
		"as they are": {nil, `"eventlog":{"data":{"Name of theirs":"","#text":"ann","Program":"true --password=x","Users":["ann","bob"],"Programs":["a","b"]},"clean":"ann"}}`},
		"redacted": {careful, `"eventlog":{"data":{"Name of theirs":"","#text":"sha:5a5a","Users":["sha:5a5a","sha:5a5a"],"Programs":[]},"clean":"sha:5a5a"},` +
			`"redacted":["eventlog.data.#text","eventlog.data.Program","eventlog.data.Users","eventlog.data.Programs"]}`},
	} {
		e := NewEncoder(stamp, c.r, 0)
		for range 2 { // the second time paths are known
			line, err := e.Append(nil, &ev, 1)
			if err != nil {
				t.Fatal(err)
			}
			if _, got, _ := strings.Cut(string(line), `"kind":"eventlog",`); got != c.want+"\n" {
				t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
			}
		}
	}
}

func TestSecretsInAListAreTold(t *testing.T) {
	leak := func(_ Kind, _ string, _ Class, s string) (string, bool, string) { return "-", true, "password" }
	e := NewEncoder(stamp, leak, 0)
	ev := Event{Time: noon, Kind: EventLog, Errors: []string{"x"}, Body: bodyFunc(func(e *Encoder) {
		e.OpenList("data")
		e.Item("data", Text, "one")
		e.Item("data", Text, "two")
		e.CloseList()
		e.Sensitive("datum", Text, "three")
	})}
	for range 2 {
		line, err := e.Append(nil, &ev, 1)
		if err != nil {
			t.Fatal(err)
		}
		if want := `"errors":["-"],"redacted":["eventlog.data:password","eventlog.datum:password","errors:password"]}`; !strings.HasSuffix(string(line), want+"\n") {
			t.Errorf("%s", line)
		}
	}
}

func TestAGapOfALogNamesItsRecords(t *testing.T) {
	e := NewEncoder(stamp, nil, 0)
	ev := Event{Time: noon, Kind: Gap, Body: &Missing{Source: "eventlog", Cause: "log_cleared", Count: 5, Channel: "Security", FirstRecord: 11, LastRecord: 15, Bound: "at_most"}}
	line, err := e.Append(nil, &ev, 1)
	if want := `"gap":{"source":"eventlog","cause":"log_cleared","count":5,"channel":"Security","first_record":11,"last_record":15,"bound":"at_most"}}`; err != nil || !strings.Contains(string(line), want) {
		t.Errorf("%s, %v", line, err)
	}
}
