package metric

import (
	"errors"
	"flag"
	"math"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files instead of comparing with them")

func text(t *testing.T, s *Set) string {
	t.Helper()
	var b strings.Builder
	n, err := s.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d of %d: %v", n, b.Len(), err)
	}
	return b.String()
}

func TestFormatGolden(t *testing.T) {
	var s Set
	s.Counter("rea_events_emitted_total", "Events emitted.", "kind", "memory").Add(7)
	s.Counter("rea_events_emitted_total", "Events emitted.", "kind", "cpu").Inc()
	s.Counter("rea_drops_total", "Lines\nlost, by \\stage.", "stage", "sink", "reason", "a \"b\"\\\n\xff").Add(1 << 60)
	s.Gauge("rea_queue_bytes", "Bytes queued.").Set(1.5)
	s.Gauge("rea_below", "Below zero.").Set(-2)
	s.Gauge("rea_big", "Too large to write out.").Set(1e300)
	s.Gauge("rea_nan", "Not known.").Set(math.NaN())
	s.Gauge("rea_inf", "Without end.", "sign", "+").Set(math.Inf(1))
	s.Gauge("rea_inf", "Without end.", "sign", "-").Set(math.Inf(-1))
	s.Func("rea_oldest_seconds", "Age of the oldest.", func() float64 { return 0.25 }, "lane", "metrics")
	s.CounterFunc("rea_cpu_seconds_total", "CPU time.", func() float64 { return 12.75 })
	const file = "testdata/format.golden"
	got := text(t, &s)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestOneSeriesForEachNameAndLabels(t *testing.T) {
	var s Set
	a := s.Counter("rea_x_total", "X.", "a", "1", "b", "2")
	if b := s.Counter("rea_x_total", "X.", "b", "2", "a", "1"); a != b {
		t.Error("the order of labels made a second counter")
	}
	if b := s.Counter("rea_x_total", "X.", "a", "1", "b", "3"); a == b {
		t.Error("other labels gave the same counter")
	}
	if g := s.Gauge("rea_y", "Y."); g != s.Gauge("rea_y", "Y.") {
		t.Error("a gauge was made twice")
	}
}

func TestFuncIsReplaced(t *testing.T) {
	var s Set
	s.Func("rea_x", "X.", func() float64 { return 1 })
	s.Func("rea_x", "X.", func() float64 { return 2 })
	if got := text(t, &s); !strings.HasSuffix(got, "\nrea_x 2\n") {
		t.Error(got)
	}
}

func TestFuncMayUseTheSet(t *testing.T) {
	var s Set
	s.Func("rea_x", "X.", func() float64 { s.Counter("rea_reads_total", "Reads.").Inc(); return 1 })
	text(t, &s)
	if got := text(t, &s); !strings.Contains(got, "\nrea_reads_total 1\n") {
		t.Error(got)
	}
}

func TestNilCountsNothing(t *testing.T) {
	var s *Set
	s.Counter("rea_x_total", "X.").Inc()
	s.Gauge("rea_y", "Y.").Set(1)
	s.Func("rea_z", "Z.", func() float64 { panic("read") })
	s.CounterFunc("rea_z_total", "Z.", func() float64 { panic("read") })
	if c, g := s.Counter("rea_x_total", "X.").Value(), s.Gauge("rea_y", "Y.").Value(); c != 0 || g != 0 {
		t.Errorf("counted %d and %v", c, g)
	}
	if got := text(t, s); got != "" {
		t.Error(got)
	}
}

func TestOneNameWithTwoMeaningsPanics(t *testing.T) {
	for name, second := range map[string]func(*Set){
		"gauge":        func(s *Set) { s.Gauge("rea_x_total", "X.") },
		"gauge func":   func(s *Set) { s.Func("rea_x_total", "X.", func() float64 { return 0 }) },
		"counter func": func(s *Set) { s.CounterFunc("rea_x_total", "X.", func() float64 { return 0 }) },
		"odd labels":   func(s *Set) { s.Counter("rea_x_total", "X.", "stage") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			var s Set
			s.Counter("rea_x_total", "X.")
			second(&s)
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	var s Set
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				s.Counter("rea_x_total", "X.", "worker", string(rune('a'+(i+j)%4))).Inc()
				s.Gauge("rea_y", "Y.").Set(float64(j))
				s.Func("rea_z", "Z.", func() float64 { return float64(i) })
				text(t, &s)
			}
		})
	}
	wg.Wait()
	var sum uint64
	for _, w := range []string{"a", "b", "c", "d"} {
		sum += s.Counter("rea_x_total", "X.", "worker", w).Value()
	}
	if sum != 1600 {
		t.Errorf("counted %d of 1600", sum)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 3, errors.New("gone") }

func TestWriteErrorIsReturned(t *testing.T) {
	var s Set
	s.Counter("rea_x_total", "X.")
	if n, err := s.WriteTo(brokenWriter{}); n != 3 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}

func BenchmarkCounter(b *testing.B) {
	c := new(Set).Counter("rea_x_total", "X.")
	b.ReportAllocs()
	for b.Loop() {
		c.Inc()
	}
}
