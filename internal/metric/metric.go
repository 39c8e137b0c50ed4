// Package metric counts what REA does to itself and writes the figures in the
// Prometheus text format. There is no global registry: a Set is made by the
// agent or the server and handed down.
//
// Names and units follow https://prometheus.io/docs/practices/naming/; the
// format is https://prometheus.io/docs/instrumenting/exposition_formats/.
package metric

import (
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// A Counter only grows. The zero Counter is ready, and so is a nil one, which
// counts nothing. It is safe for concurrent use.
type Counter struct{ n atomic.Uint64 }

// Inc adds one.
func (c *Counter) Inc() { c.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) {
	if c != nil {
		c.n.Add(n)
	}
}

// Value returns what was counted so far.
func (c *Counter) Value() uint64 {
	if c == nil {
		return 0
	}
	return c.n.Load()
}

// A Gauge is a value that goes up and down. The zero Gauge is ready, and so is
// a nil one, which holds nothing. It is safe for concurrent use.
type Gauge struct{ bits atomic.Uint64 }

// Set makes v the value.
func (g *Gauge) Set(v float64) {
	if g != nil {
		g.bits.Store(math.Float64bits(v))
	}
}

// Value returns the value last set.
func (g *Gauge) Value() float64 {
	if g == nil {
		return 0
	}
	return math.Float64frombits(g.bits.Load())
}

// A Set holds metrics by name and labels. The zero Set is ready; a nil Set
// hands out metrics that count nothing. It is safe for concurrent use.
type Set struct {
	mu       sync.Mutex
	families []*family // sorted by name
}

type family struct {
	name, help, kind string
	series           []series // sorted by labels
}

type series struct {
	labels string // rendered: {a="b"} or empty
	metric any
	value  func() float64
}

// Counter returns the counter of that name and those labels (name, value, …),
// made at the first call. Its name ends in _total.
func (s *Set) Counter(name, help string, labels ...string) *Counter {
	m, _ := s.add(name, help, "counter", labels, func() (any, func() float64) {
		c := new(Counter)
		return c, func() float64 { return float64(c.Value()) }
	}).(*Counter)
	return m
}

// Gauge returns the gauge of that name and those labels, made at the first call.
func (s *Set) Gauge(name, help string, labels ...string) *Gauge {
	m, _ := s.add(name, help, "gauge", labels, func() (any, func() float64) {
		g := new(Gauge)
		return g, g.Value
	}).(*Gauge)
	return m
}

// Func makes a gauge that is read from f whenever the set is written. f must be
// safe to call from any goroutine and must not use the set.
func (s *Set) Func(name, help string, f func() float64, labels ...string) {
	s.add(name, help, "gauge", labels, func() (any, func() float64) { return f, f })
}

// CounterFunc is Func for a value that only grows.
func (s *Set) CounterFunc(name, help string, f func() float64, labels ...string) {
	s.add(name, help, "counter", labels, func() (any, func() float64) { return f, f })
}

func (s *Set) add(name, help, kind string, labels []string, make func() (any, func() float64)) any {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := slices.BinarySearchFunc(s.families, name, func(f *family, n string) int { return strings.Compare(f.name, n) })
	if !found {
		s.families = slices.Insert(s.families, i, &family{name: name, help: help, kind: kind})
	}
	f := s.families[i]
	if f.kind != kind {
		panic("metric " + name + " is a " + f.kind + " and a " + kind)
	}
	l := render(labels)
	i, found = slices.BinarySearchFunc(f.series, l, func(s series, l string) int { return strings.Compare(s.labels, l) })
	if !found {
		m, value := make()
		f.series = slices.Insert(f.series, i, series{l, m, value})
	}
	return f.series[i].metric
}

// WriteTo writes all metrics, sorted by name and labels.
func (s *Set) WriteTo(w io.Writer) (int64, error) {
	var b []byte
	s.mu.Lock()
	for _, f := range s.families {
		b = append(b, "# HELP "+f.name+" "+escape(f.help, false)+"\n# TYPE "+f.name+" "+f.kind+"\n"...)
		for _, s := range f.series {
			b = append(b, f.name+s.labels+" "...)
			b = appendValue(b, s.value())
			b = append(b, '\n')
		}
	}
	s.mu.Unlock()
	n, err := w.Write(b)
	return int64(n), err
}

func appendValue(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, "NaN"...)
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case math.IsInf(v, -1):
		return append(b, "-Inf"...)
	case v == math.Trunc(v) && math.Abs(v) < 1e15:
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

func render(labels []string) string {
	if len(labels) == 0 {
		return ""
	}
	var b strings.Builder
	for i := 0; i+1 < len(labels); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		b.WriteString(sep + labels[i] + `="` + escape(labels[i+1], true) + `"`)
	}
	return b.String() + "}"
}

func escape(s string, quotes bool) string {
	s = strings.ReplaceAll(s, `\`, `\\`)
	s = strings.ReplaceAll(s, "\n", `\n`)
	if quotes {
		s = strings.ReplaceAll(s, `"`, `\"`)
	}
	return s
}
