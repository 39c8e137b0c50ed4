// Package metric counts what REA does to itself and writes the figures in the
// Prometheus text format. There is no global registry: a Set is made by the
// agent or the server and handed down. A metric stays for the life of its Set.
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
	series           []*series // sorted by labels
}

type series struct {
	labels string // rendered: {a="b"} or empty
	metric any    // *Counter, *Gauge or func() float64
}

// Counter returns the counter of that name and those labels (name, value, …),
// made at the first call. Its name ends in _total.
func (s *Set) Counter(name, help string, labels ...string) *Counter {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.seriesLocked(name, help, "counter", labels)
	if m.metric == nil {
		m.metric = new(Counter)
	}
	return m.metric.(*Counter)
}

// Gauge returns the gauge of that name and those labels, made at the first call.
func (s *Set) Gauge(name, help string, labels ...string) *Gauge {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.seriesLocked(name, help, "gauge", labels)
	if m.metric == nil {
		m.metric = new(Gauge)
	}
	return m.metric.(*Gauge)
}

// Func makes a gauge that is read from f whenever the set is written. A later
// call replaces f, as when the part that it reads was built anew. f must be safe
// to call from any goroutine.
func (s *Set) Func(name, help string, f func() float64, labels ...string) {
	s.setFunc(name, help, "gauge", f, labels)
}

// CounterFunc is Func for a value that only grows.
func (s *Set) CounterFunc(name, help string, f func() float64, labels ...string) {
	s.setFunc(name, help, "counter", f, labels)
}

func (s *Set) setFunc(name, help, kind string, f func() float64, labels []string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.seriesLocked(name, help, kind, labels)
	if _, ok := m.metric.(func() float64); m.metric != nil && !ok {
		panic("metric " + name + " is counted and read from a function")
	}
	m.metric = f
}

// seriesLocked returns the series of that name and those labels, made if there
// is none. One name with two meanings is a bug, and panics.
func (s *Set) seriesLocked(name, help, kind string, labels []string) *series {
	i, found := slices.BinarySearchFunc(s.families, name, func(f *family, n string) int { return strings.Compare(f.name, n) })
	if !found {
		s.families = slices.Insert(s.families, i, &family{name: name, help: help, kind: kind})
	}
	f := s.families[i]
	if f.kind != kind {
		panic("metric " + name + " is a " + f.kind + " and a " + kind)
	}
	l := render(labels)
	i, found = slices.BinarySearchFunc(f.series, l, func(s *series, l string) int { return strings.Compare(s.labels, l) })
	if !found {
		f.series = slices.Insert(f.series, i, &series{labels: l})
	}
	return f.series[i]
}

// WriteTo writes all metrics, sorted by name and labels.
func (s *Set) WriteTo(w io.Writer) (int64, error) {
	var b []byte
	for _, f := range s.snapshot() {
		b = append(b, "# HELP "+f.name+" "+escape(f.help, false)+"\n# TYPE "+f.name+" "+f.kind+"\n"...)
		for _, m := range f.series {
			b = append(b, f.name+m.labels+" "...)
			b = appendValue(b, m.value())
			b = append(b, '\n')
		}
	}
	n, err := w.Write(b)
	return int64(n), err
}

// snapshot copies what there is, so that no function of others is called with
// the mutex held: it may hold a lock under which somebody asks for a Counter.
func (s *Set) snapshot() []family {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]family, len(s.families))
	for i, f := range s.families {
		all[i] = *f
		all[i].series = make([]*series, len(f.series))
		for j, m := range f.series {
			all[i].series[j] = &series{m.labels, m.metric}
		}
	}
	return all
}

func (s *series) value() float64 {
	switch m := s.metric.(type) {
	case *Counter:
		return float64(m.Value())
	case *Gauge:
		return m.Value()
	case func() float64:
		return m()
	}
	return math.NaN()
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

// render writes labels sorted by name, so that their order at the call makes no
// second series.
func render(labels []string) string {
	if len(labels)%2 != 0 {
		panic("metric label " + labels[len(labels)-1] + " has no value")
	}
	pairs := make([]string, 0, len(labels)/2)
	for i := 0; i < len(labels); i += 2 {
		pairs = append(pairs, labels[i]+`="`+escape(labels[i+1], true)+`"`)
	}
	if len(pairs) == 0 {
		return ""
	}
	slices.Sort(pairs)
	return "{" + strings.Join(pairs, ",") + "}"
}

// escape makes s fit for a help text or, with quotes, for the value of a label.
func escape(s string, quotes bool) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	s = strings.ReplaceAll(s, `\`, `\\`)
	s = strings.ReplaceAll(s, "\n", `\n`)
	if quotes {
		s = strings.ReplaceAll(s, `"`, `\"`)
	}
	return s
}
