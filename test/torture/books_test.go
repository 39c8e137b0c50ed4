//go:build torture && linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"sync"
)

// A books keeps the account of the promise: which numbers an agent assigned,
// which of them the store holds, which a gap event declares missing, and which
// items a source handed over and was told to be safe. It compares contents, not
// counts: every number has the hash of its line, every item is computed anew from
// its seed.
type books struct {
	seed    maphash.Seed
	streams map[string]*ledger

	mu      sync.Mutex // the reports come while processes run
	sources map[string]*account
}

// A ledger is the numbers of one stream; index 0 is not used.
type ledger struct {
	lines    []uint64 // the hash of the line with that number, 0 where none was received
	declared []bool
	assigned uint64 // the highest number that is known to be assigned
	counted  uint64 // events that gap events declare missing, by their count
}

// An account is the items of one source.
type account struct {
	seed  uint64
	safe  uint64 // items before this were acknowledged by Emit
	times []uint32
}

func newBooks() *books {
	return &books{seed: maphash.MakeSeed(), streams: map[string]*ledger{}, sources: map[string]*account{}}
}

// source makes the source of that name known.
func (b *books) source(name string, seed uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sources[name] = &account{seed: seed}
}

// acknowledged notes that Emit returned for all items of a source before n.
func (b *books) acknowledged(name string, n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.sources[name]; a != nil {
		a.safe = max(a.safe, n)
	}
}

// safe returns how many items were acknowledged by Emit, of all sources.
func (b *books) safe() (n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.sources {
		n += a.safe
	}
	return n
}

func (b *books) stream(id string) *ledger {
	l := b.streams[id]
	if l == nil {
		l = new(ledger)
		b.streams[id] = l
	}
	return l
}

// mostNumbers bounds what the books believe a number to be.
const mostNumbers = 1 << 28

func (l *ledger) grow(n uint64) error {
	if n == 0 || n > mostNumbers {
		return fmt.Errorf("number %d cannot be", n)
	}
	for uint64(len(l.lines)) <= n {
		l.lines, l.declared = append(l.lines, 0), append(l.declared, false)
	}
	l.assigned = max(l.assigned, n)
	return nil
}

// assign notes that the numbers of a stream up to n were assigned.
func (b *books) assign(stream string, n uint64) error {
	if n == 0 {
		return nil
	}
	return b.stream(stream).grow(n)
}

// A line is what the books want to know of an event.
type line struct {
	Stream, Kind string
	Seq          uint64
	Journal, CPU *item
	Gap          *struct {
		Stream, Cause      string
		First, Last, Count uint64
	}
}

// A fault is one thing that the promise forbids.
type fault struct{ what, text string }

// Kinds of faults, as the columns of the table.
const (
	lost       = "lost"
	repeated   = "repeated"
	reused     = "reused"
	undeclared = "undeclared"
	wrong      = "wrong"
)

// stored enters a line that the store holds: each number may come once.
func (b *books) stored(text []byte) []fault { return b.enter(text, false) }

// kept enters a line that still lies in a queue. It may be stored as well, if the
// answer of the server was lost, but then it must be the same.
func (b *books) kept(text []byte) []fault { return b.enter(text, true) }

func (b *books) enter(text []byte, queued bool) (faults []fault) {
	text = bytes.TrimSuffix(text, []byte("\n"))
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return []fault{{wrong, fmt.Sprintf("%v: %.200s", err, text)}}
	}
	s := b.stream(l.Stream)
	if err := s.grow(l.Seq); err != nil {
		return []fault{{wrong, fmt.Sprintf("stream %s: %v", l.Stream, err)}}
	}
	hash := maphash.Bytes(b.seed, text) | 1
	switch before := s.lines[l.Seq]; {
	case before == 0:
	case before != hash:
		return []fault{{reused, fmt.Sprintf("stream %s number %d has two contents; one is %.200s", l.Stream, l.Seq, text)}}
	case queued:
		return nil
	default:
		return []fault{{repeated, fmt.Sprintf("stream %s number %d is stored twice", l.Stream, l.Seq)}}
	}
	s.lines[l.Seq] = hash
	if l.Gap != nil {
		faults = b.declare(&l)
	}
	for _, it := range []*item{l.Journal, l.CPU} {
		if it != nil && it.Source != "" {
			faults = append(faults, b.arrived(it)...)
		}
	}
	return faults
}

// declare notes what a gap event says.
func (b *books) declare(l *line) []fault {
	g := l.Gap
	if g.Stream == "" || g.First == 0 {
		return nil // events that never had numbers
	}
	s := b.stream(g.Stream)
	if g.Last < g.First || g.Count > g.Last-g.First+1 {
		return []fault{{wrong, fmt.Sprintf("odd gap event: %+v", *g)}}
	}
	if err := s.grow(g.Last); err != nil {
		return []fault{{wrong, fmt.Sprintf("gap event: %v", err)}}
	}
	s.counted += g.Count
	for n := g.First; n <= g.Last; n++ {
		s.declared[n] = true
	}
	return nil
}

// arrived counts an item and compares it with what its source handed over.
func (b *books) arrived(it *item) []fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.sources[it.Source]
	if a == nil {
		return nil // of an agent that is not of interest here
	}
	if it.Number > mostNumbers || *it != newItem(it.Source, a.seed, it.Number) {
		return []fault{{wrong, fmt.Sprintf("item %d of %s is not as it was handed over: %.200q", it.Number, it.Source, it.Text)}}
	}
	for uint64(len(a.times)) <= it.Number {
		a.times = append(a.times, 0)
	}
	a.times[it.Number]++
	return nil
}

// A balance is the books at the end.
type balance struct {
	assigned, received, declared uint64 // numbers; declared ones that did not arrive
	both                         uint64 // declared, and arrived after all
	items, replayed              uint64 // items that arrived, and times more than once
	faults                       []fault
}

// close does the arithmetic: in every stream received and declared make what was
// assigned, and every item that was acknowledged has arrived, but for as many as
// are declared missing. Replays are items that came under another number, since
// a process ended between the acknowledgement and its source's cursor.
func (b *books) close() balance {
	var r balance
	for id, s := range b.streams {
		var missing uint64
		for n := uint64(1); n <= s.assigned; n++ {
			received := s.lines[n] != 0
			switch {
			case received && s.declared[n]:
				r.both++
				r.received++
			case received:
				r.received++
			case s.declared[n]:
				missing++
			default:
				r.faults = append(r.faults, fault{undeclared, fmt.Sprintf("stream %s number %d of %d is missing without a word", id, n, s.assigned)})
			}
		}
		if missing > s.counted {
			r.faults = append(r.faults, fault{undeclared, fmt.Sprintf("stream %s lacks %d numbers in gaps of %d", id, missing, s.counted)})
		}
		r.assigned += s.assigned
		r.declared += missing
	}
	b.closeItems(&r)
	return r
}

func (b *books) closeItems(r *balance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var gone []fault
	for name, a := range b.sources {
		for n := range max(a.safe, uint64(len(a.times))) {
			var times uint32
			if n < uint64(len(a.times)) {
				times = a.times[n]
			}
			switch {
			case times > 0:
				r.items++
				r.replayed += uint64(times - 1)
			case n < a.safe:
				gone = append(gone, fault{lost, fmt.Sprintf("item %d of %s was acknowledged up to %d and did not arrive", n, name, a.safe)})
			}
		}
	}
	if uint64(len(gone)) > r.declared {
		r.faults = append(r.faults, gone[r.declared:]...)
	}
}

// count returns how many faults are of one kind.
func (r *balance) count(what string) (n int) {
	for _, f := range r.faults {
		if f.what == what {
			n++
		}
	}
	return n
}
