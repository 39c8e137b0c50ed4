package procfs

import (
	"bytes"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLineCutsTheFirst(t *testing.T) {
	for text, want := range map[string][2]string{
		"":         {"", ""},
		"a":        {"a", ""},
		"a b\n":    {"a b", ""},
		"a\nb\nc":  {"a", "b\nc"},
		"\n\nlast": {"", "\nlast"},
	} {
		if line, rest := Line([]byte(text)); string(line) != want[0] || string(rest) != want[1] {
			t.Errorf("%q: %q, %q", text, line, rest)
		}
	}
}

func TestFieldCutsTheNextWordOfALine(t *testing.T) {
	for text, want := range map[string][2]string{
		"":              {"", ""},
		" \t ":          {"", ""},
		"cpu  1 2":      {"cpu", "  1 2"},
		" \t12\tkB":     {"12", "\tkB"},
		"last\nof line": {"last", "\nof line"},
		"\nnext":        {"", "\nnext"},
	} {
		if word, rest := Field([]byte(text)); string(word) != want[0] || string(rest) != want[1] {
			t.Errorf("%q: %q, %q", text, word, rest)
		}
	}
}

func TestUintStopsAtTheLargest(t *testing.T) {
	if n, ok := Uint([]byte("18446744073709551615")); n != math.MaxUint64 || !ok {
		t.Errorf("%d, %v", n, ok)
	}
	for _, b := range []string{"", "18446744073709551616", "99999999999999999999", "1 ", "+1", "-1", "1_0", "x"} {
		if n, ok := Uint([]byte(b)); ok || n != 0 {
			t.Errorf("%q: %d, %v", b, n, ok)
		}
	}
}

func TestBootTime(t *testing.T) {
	got, err := BootTime([]byte("cpu  1 2 3\nintr 5 0 0\nctxt 9\nbtime 900000000\nprocesses 7\n"))
	if err != nil || !got.Equal(time.Unix(900000000, 0)) {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "cpu 1\n", "\nbtime x\n", "\nbtime -5\n", "\nbtime \n9", "\nbtime 18446744073709551615\n"} {
		if got, err := BootTime([]byte(text)); err == nil || !got.IsZero() {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

const (
	some = "some avg10=12.50 avg60=1.00 avg300=0.25 total=2500000\n"
	full = "full avg10=0.00 avg60=0.50 avg300=100.00 total=7\n"
)

func TestParsePressure(t *testing.T) {
	someStall := Stall{Avg10: 0.125, Avg60: 0.01, Avg300: 0.0025, Total: 2.5}
	fullStall := Stall{Avg60: 0.005, Avg300: 1, Total: 7e-6}
	for text, want := range map[string]Pressure{
		some:                  {Some: someStall},
		some + full:           {Some: someStall, Full: fullStall, HasFull: true},
		full + some:           {Some: someStall, Full: fullStall, HasFull: true},
		some + "half avg10=1": {Some: someStall},
	} {
		got, err := ParsePressure([]byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", text, d)
		}
	}
}

func TestParsePressureRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                   "",
		"all tasks only":            full,
		"what is cut":               "some avg10=0.00 avg60=0.00",
		"what is cut in full":       some + "full avg10=",
		"another order":             "some avg60=0.00 avg10=0.00 avg300=0.00 total=0\n",
		"less than nothing":         "some avg10=-1.00 avg60=0.00 avg300=0.00 total=0\n",
		"a number that is none":     "some avg10=NaN avg60=0.00 avg300=0.00 total=0\n",
		"a bad line after a whole":  some + "some avg10=x\n",
		"a bad line before a whole": "full avg10=x\n" + some,
	} {
		if p, err := ParsePressure([]byte(text)); err == nil || p != (Pressure{}) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestParsingDoesNotAllocate(t *testing.T) {
	stat, pressure := []byte("cpu  1 2 3\nbtime 900000000\n"), []byte(some+full)
	if n := testing.AllocsPerRun(100, func() {
		_, err := BootTime(stat)
		_, err2 := ParsePressure(pressure)
		if err != nil || err2 != nil {
			t.Fatal("does not parse")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzWords(f *testing.F) {
	f.Add([]byte("cpu  10 20\t30 x\ncpu0 1\n\n"))
	f.Add([]byte("18446744073709551616 18446744073709551615 007"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			line, rest := Line(b)
			if len(rest) >= len(b) || bytes.IndexByte(line, '\n') >= 0 {
				t.Fatalf("%q and %q of %q", line, rest, b)
			}
			b = rest
			for word, more := Field(line); len(word) > 0; word, more = Field(more) {
				if bytes.ContainsAny(word, " \t\n") || len(word)+len(more) > len(line) {
					t.Fatalf("%q and %q of %q", word, more, line)
				}
				want, err := strconv.ParseUint(string(word), 10, 64)
				if got, ok := Uint(word); ok != (err == nil) || ok && got != want {
					t.Errorf("%q: %d, %v; want %d, %v", word, got, ok, want, err)
				}
			}
		}
	})
}

func FuzzFiles(f *testing.F) {
	f.Add([]byte(some + full))
	f.Add([]byte("cpu 1\nbtime 946598400\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePressure(b)
		for _, s := range []Stall{p.Some, p.Full} {
			if !(s.Avg10 >= 0 && s.Avg60 >= 0 && s.Avg300 >= 0 && s.Total >= 0) || err != nil && s != (Stall{}) {
				t.Errorf("%+v, %v of %q", p, err, b)
			}
		}
		if boot, err := BootTime(b); err == nil && (boot.UTC().Year() < 1970 || boot.UTC().Year() > 9999) {
			t.Errorf("boot time %v of %q", boot, b)
		}
	})
}

func BenchmarkParsePressure(b *testing.B) {
	text := []byte(some + full)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParsePressure(text); err != nil {
			b.Fatal(err)
		}
	}
}
