// Package ledger remembers which events are missing until the server knows.
//
// A loss is noted, and then told in a gap event. That lies in the queue of
// evidence like any other event, and if this overflows it is given up like any
// other. So a loss is forgotten only when the gap event that tells of it is
// delivered; if that is given up the loss is to be told again. The file of the
// ledger is written before a gap event is, so a crash at any moment leaves a loss
// in the file, told or not. At worst it is told twice.
package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/event"
)

// most bounds the losses that are remembered one by one. Losses of one cause join
// when their numbers touch, so there are more only if they alternate; then those
// of a cause join that do not touch: their count stays exact, the range covers
// numbers that are not missing.
const most = 64

// An Entry is a loss. It never changes; what becomes of it is another entry.
type Entry struct {
	event.Missing
	state state
	told  numbers // of evidence; the gap event that tells of it is among them
}

type state int

const (
	noted   state = iota // no gap event tells of it
	telling              // its gap event is being written
	told                 // its gap event is in the queue
)

type numbers struct{ First, Last uint64 }

// A Ledger is safe for use by many goroutines.
type Ledger struct {
	path string // empty: it is kept in memory, and what is told is done with

	some    atomic.Bool // there is an entry
	pending atomic.Bool // one of them is noted

	mu      sync.Mutex // held while the file is written
	stream  string     // of evidence
	entries []*Entry
	gone    []numbers // of evidence, given up while an entry is being told
	ends    []run     // of the streams, the last that was noted of first
	dirty   bool      // the file does not say so
}

// A run is numbers of a stream, all of them missing.
type run struct {
	stream string
	numbers
}

// mostEnds bounds the streams whose end is remembered: those of two lanes, and of
// what these were before a renewal.
const mostEnds = 4

// New returns a Ledger without a file, for an agent that sends nothing: what is
// told is done with.
func New() *Ledger { return new(Ledger) }

// Open returns the Ledger in the file at path, which need not be there yet, for
// an agent whose gap events go into the given stream, in which next is the first
// free number. If the file is damaged (durable.Load) the Ledger is empty, and err
// says why. If it cannot be read for a reason that may pass there is no Ledger: an
// empty one would replace it.
func Open(path, stream string, next uint64) (*Ledger, error) {
	l := &Ledger{path: path, stream: stream}
	err := durable.Load(path, l.decode)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return l, nil
	case errors.Is(err, durable.ErrDamaged):
		l.dirty = true // the next Save replaces it
		return l, fmt.Errorf("read what is missing: %w", err)
	case err != nil:
		return nil, fmt.Errorf("read what is missing: %w", err)
	}
	if l.stream != stream { // a crash came between that and the file
		l.Restream(stream, next-1)
	}
	l.mu.Lock()
	l.unlock()
	return l, nil
}

// Note notes a loss. It is in the file after the next Save.
func (l *Ledger) Note(m event.Missing) {
	l.mu.Lock()
	defer l.unlock()
	l.note(m)
}

// Add notes a loss in the file; when it fails the loss is not noted.
func (l *Ledger) Add(m event.Missing) error {
	l.mu.Lock()
	defer l.unlock()
	entries, ends := slices.Clone(l.entries), slices.Clone(l.ends)
	l.note(m)
	if err := l.save(); err != nil {
		l.entries, l.ends = entries, ends
		return err
	}
	return nil
}

// Hold notes a loss that cannot be written down, for whom tells of it at once: it
// is as those that Take returns, and given back by Drop too.
func (l *Ledger) Hold(m event.Missing) *Entry {
	l.mu.Lock()
	defer l.unlock()
	e := &Entry{Missing: m, state: telling}
	l.extend(&m)
	l.entries = append(l.entries, e)
	l.dirty = true
	l.squeeze()
	return e
}

// Drop forgets what Hold noted: whoever knew of it before goes on to remember it.
func (l *Ledger) Drop(e *Entry) {
	l.mu.Lock()
	defer l.unlock()
	i := slices.Index(l.entries, e)
	l.entries = slices.Delete(l.entries, i, i+1)
	l.dirty = true
	l.forgetGone()
}

// Ends returns the last run of numbers of a stream that was noted: all from first
// to last are missing. Without one it returns 0, 0.
func (l *Ledger) Ends(stream string) (first, last uint64) {
	l.mu.Lock()
	defer l.unlock()
	for _, r := range l.ends {
		if r.stream == stream {
			return r.First, r.Last
		}
	}
	return 0, 0
}

// extend makes m the end of its stream, or a part of it.
func (l *Ledger) extend(m *event.Missing) {
	if m.First == 0 {
		return
	}
	end := run{m.Stream, numbers{m.First, m.Last}}
	i := slices.IndexFunc(l.ends, func(r run) bool { return r.stream == m.Stream })
	if i >= 0 {
		switch r := l.ends[i]; {
		case m.Last+1 < r.First:
			return
		case m.First <= r.Last+1:
			end.numbers = numbers{min(r.First, m.First), max(r.Last, m.Last)}
		}
		l.ends = slices.Delete(l.ends, i, i+1)
	}
	l.ends = slices.Insert(l.ends, 0, end)
	l.ends = l.ends[:min(len(l.ends), mostEnds)]
	l.dirty = true
}

func (l *Ledger) note(m event.Missing) {
	l.extend(&m)
	if slices.ContainsFunc(l.entries, func(e *Entry) bool { return e.covers(&m) }) {
		return // whoever remembers it told of it again
	}
	l.put(&Entry{Missing: m})
}

// put adds an entry that is noted, and joins it with what it touches. Those who
// wait for one group of lines tell of it in any order, so it may be what was
// missing between two others.
func (l *Ledger) put(e *Entry) {
	for i := 0; i < len(l.entries); i++ {
		if o := l.entries[i]; o.state == noted && o.touches(&e.Missing) {
			e = join(o, e)
			l.entries = slices.Delete(l.entries, i, i+1)
			i = -1
		}
	}
	l.entries = append(l.entries, e)
	l.dirty = true
	l.squeeze()
}

// squeeze joins two entries that do not touch where there are too many, if any two
// are alike: best two of which the same is known.
func (l *Ledger) squeeze() {
	if len(l.entries) <= most {
		return
	}
	for _, strict := range []bool{true, false} {
		for i, a := range l.entries {
			for j, b := range l.entries[:i] {
				if a.state != telling && b.state != telling && (a.state == b.state || !strict) && alike(&a.Missing, &b.Missing) {
					l.entries[j] = join(b, a)
					l.entries = slices.Delete(l.entries, i, i+1)
					return
				}
			}
		}
	}
}

// Take returns what is to be told now. Each entry is given back by a Told that
// returns true, or by Back.
func (l *Ledger) Take() (list []*Entry) {
	l.mu.Lock()
	defer l.unlock()
	for i, e := range l.entries {
		if e.state == noted {
			l.entries[i] = &Entry{Missing: e.Missing, state: telling}
			list = append(list, l.entries[i])
		}
	}
	return list
}

// Told notes that the gap event of e is safe, under one of the numbers from first
// to last of that stream. It returns false if that is not so any more.
func (l *Ledger) Told(e *Entry, stream string, first, last uint64) bool {
	l.mu.Lock()
	defer l.unlock()
	i := slices.Index(l.entries, e)
	switch {
	case l.path == "":
		l.entries = slices.Delete(l.entries, i, i+1)
	case stream != l.stream, // it has gone along into another one, nobody knows where to
		l.wentWith(first, last): // a queue that overflows was faster
		return false
	default:
		l.entries[i] = &Entry{e.Missing, told, numbers{first, last}}
	}
	l.dirty = true
	l.forgetGone()
	return true
}

// wentWith reports whether a number from first to last was given up since an entry
// was taken.
func (l *Ledger) wentWith(first, last uint64) bool {
	return slices.ContainsFunc(l.gone, func(n numbers) bool { return n.First <= last && first <= n.Last })
}

// forgetGone forgets what was given up once nobody is telling.
func (l *Ledger) forgetGone() {
	if !slices.ContainsFunc(l.entries, isTelling) {
		l.gone = nil
	}
}

// Back notes that no gap event tells of e.
func (l *Ledger) Back(e *Entry) {
	l.mu.Lock()
	defer l.unlock()
	l.back(slices.Index(l.entries, e))
	l.forgetGone()
}

// back makes entry i one that is to be told.
func (l *Ledger) back(i int) {
	e := l.entries[i]
	l.entries = slices.Delete(l.entries, i, i+1)
	l.put(&Entry{Missing: e.Missing})
}

// Lost notes that the events with the numbers from first to last of the stream of
// evidence are given up: what a gap event among them told is to be told again.
func (l *Ledger) Lost(first, last uint64) {
	l.mu.Lock()
	defer l.unlock()
	if n := len(l.gone); n > 0 && l.gone[n-1].Last+1 == first {
		l.gone[n-1].Last = last
	} else if slices.ContainsFunc(l.entries, isTelling) {
		l.gone = append(l.gone, numbers{first, last})
	}
	for i := 0; i < len(l.entries); i++ {
		if e := l.entries[i]; e.state == told && e.told.First <= last && first <= e.told.Last {
			l.back(i)
			i = -1
		}
	}
}

// Delivered forgets what was told in events up to the number last of the stream
// of evidence: the server has them, but for those that Lost was called for.
func (l *Ledger) Delivered(last uint64) {
	l.mu.Lock()
	defer l.unlock()
	n := len(l.entries)
	l.entries = slices.DeleteFunc(l.entries, func(e *Entry) bool { return e.state == told && e.told.Last <= last })
	l.dirty = l.dirty || len(l.entries) < n
}

// Restream notes that the stream of evidence is another one, in which what was
// not delivered has the numbers from 1 to last.
func (l *Ledger) Restream(stream string, last uint64) {
	l.mu.Lock()
	defer l.unlock()
	l.stream, l.gone, l.dirty = stream, nil, true // the numbers are others now
	for i, e := range l.entries {
		if e.state == told {
			l.entries[i] = &Entry{e.Missing, told, numbers{1, last}}
		}
	}
	if last == 0 { // nothing went along
		for i := slices.IndexFunc(l.entries, isTold); i >= 0; i = slices.IndexFunc(l.entries, isTold) {
			l.back(i)
		}
	}
}

func isTold(e *Entry) bool    { return e.state == told }
func isTelling(e *Entry) bool { return e.state == telling }

// Disown takes the numbers from all losses: they are of streams of another node,
// for which this one cannot speak.
func (l *Ledger) Disown() {
	l.mu.Lock()
	defer l.unlock()
	for i, e := range l.entries {
		own := *e
		own.Stream, own.First, own.Last = "", 0, 0
		l.entries[i] = &own
		l.dirty = true
	}
	l.dirty = l.dirty || len(l.ends) > 0
	l.ends = nil
}

// Pending reports whether there is something to tell. It does not wait.
func (l *Ledger) Pending() bool { return l.pending.Load() }

// Empty reports whether nothing is missing that the server does not know. It
// does not wait.
func (l *Ledger) Empty() bool { return !l.some.Load() }

func (l *Ledger) unlock() {
	l.some.Store(len(l.entries) > 0)
	l.pending.Store(slices.ContainsFunc(l.entries, func(e *Entry) bool { return e.state == noted }))
	l.mu.Unlock()
}

// Untold returns how many events are missing of which no gap event tells yet.
func (l *Ledger) Untold() (n uint64) {
	l.mu.Lock()
	defer l.unlock()
	for _, e := range l.entries {
		if e.state != told {
			n += e.Count
		}
	}
	return n
}

// Lasts reports whether what is saved outlives the process.
func (l *Ledger) Lasts() bool { return l.path != "" }

// Save writes the file, if it does not say all that is known.
func (l *Ledger) Save() error {
	l.mu.Lock()
	defer l.unlock()
	return l.save()
}

func (l *Ledger) save() error {
	if !l.dirty {
		return nil
	}
	if l.path != "" {
		text, err := l.encode()
		if err == nil {
			err = durable.WriteFile(l.path, text, 0o600)
		}
		if err != nil {
			return fmt.Errorf("remember what is missing: %w", err)
		}
	}
	l.dirty = false
	return nil
}

// alike reports whether two losses differ in their numbers only.
func alike(a, b *event.Missing) bool {
	return a.Source == b.Source && a.Cause == b.Cause && a.Stream == b.Stream
}

// touches reports whether m is more of e.
func (e *Entry) touches(m *event.Missing) bool {
	if !alike(&e.Missing, m) {
		return false
	}
	return e.First == 0 && m.First == 0 || e.First != 0 && m.First != 0 && m.First <= e.Last+1 && e.First <= m.Last+1
}

// covers reports whether e says all that m does. What e names and does not count may
// be lost only now; its first and its last number were.
func (e *Entry) covers(m *event.Missing) bool {
	if !alike(&e.Missing, m) || m.First == 0 || e.First == 0 || m.First < e.First || e.Last < m.Last || e.Count < m.Count {
		return false
	}
	return e.Count > e.Last-e.First || m.First == e.First || m.Last == e.Last
}

// join returns an entry that says what both say.
func join(a, b *Entry) *Entry {
	j := *a
	if j.First != 0 {
		j.First, j.Last = min(a.First, b.First), max(a.Last, b.Last)
	}
	j.Count += min(b.Count, math.MaxUint64-j.Count)
	if j.First != 0 {
		j.Count = min(j.Count, j.Last-j.First+1) // where they overlap
	}
	if b.Since.Before(j.Since) {
		j.Since = b.Since
	}
	if b.Until.After(j.Until) {
		j.Until = b.Until
	}
	if a.state == told && b.state == told {
		j.told = numbers{min(a.told.First, b.told.First), max(a.told.Last, b.told.Last)}
	} else {
		j.state, j.told = noted, numbers{}
	}
	return &j
}
