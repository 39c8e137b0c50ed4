package ledger

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/event"
)

const evidence = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"

func full(first, last uint64) event.Missing {
	return event.Missing{Cause: "queue_full", Stream: "a", First: first, Last: last, Count: last - first + 1}
}

// a book is a ledger on disk that can be opened again.
type book struct {
	*Ledger
	t    *testing.T
	path string
}

func newBook(t *testing.T) *book {
	t.Helper()
	b := &book{t: t, path: filepath.Join(t.TempDir(), "missing")}
	b.reopen(evidence, 1)
	return b
}

// reopen is what a crash and the next start do.
func (b *book) reopen(stream string, next uint64) {
	b.t.Helper()
	var err error
	if b.Ledger, err = Open(b.path, stream, next); err != nil {
		b.t.Fatal(err)
	}
}

func (b *book) add(m event.Missing) {
	b.t.Helper()
	if err := b.Add(m); err != nil {
		b.t.Fatal(err)
	}
}

// tell tells what is to be told in the gap event with that number, and returns it.
func (b *book) tell(number uint64) (list []event.Missing) {
	b.t.Helper()
	for _, e := range b.Take() {
		list = append(list, e.Missing)
		b.Told(e, evidence, number, number)
	}
	if err := b.Save(); err != nil {
		b.t.Fatal(err)
	}
	return list
}

func (b *book) wantToTell(want ...event.Missing) {
	b.t.Helper()
	if b.Pending() != (len(want) > 0) {
		b.t.Errorf("pending: %t, want %d losses", b.Pending(), len(want))
	}
	if d := cmp.Diff(want, b.tell(1_000_000)); d != "" {
		b.t.Error(d)
	}
}

// tellInOld tells in a stream that is not that of evidence any more.
func tellInOld(b *book) {
	e := b.Take()[0]
	if b.Told(e, "old", 7, 7) {
		b.t.Error("it counts as told")
	}
	b.Back(e)
}

func TestALossIsToldAgainUntilItsGapEventIsDelivered(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(b *book)
		want    []event.Missing
	}{
		"not told":                         {func(b *book) { b.add(full(20, 29)) }, []event.Missing{full(20, 29)}},
		"told":                             {func(*book) {}, nil},
		"told, and a crash":                {func(b *book) { b.reopen(evidence, 9) }, nil},
		"given up":                         {func(b *book) { b.Lost(3, 5) }, []event.Missing{full(1, 9)}},
		"given up, and a crash":            {func(b *book) { b.Lost(5, 7); _ = b.Save(); b.reopen(evidence, 9) }, []event.Missing{full(1, 9)}},
		"others given up":                  {func(b *book) { b.Lost(1, 4); b.Lost(6, 9) }, nil},
		"delivered":                        {func(b *book) { b.Delivered(5); b.Lost(5, 5) }, nil},
		"those before delivered":           {func(b *book) { b.Delivered(4); b.Lost(5, 5) }, []event.Missing{full(1, 9)}},
		"given up with what goes on":       {func(b *book) { b.add(full(10, 19)); b.Lost(5, 5) }, []event.Missing{full(1, 19)}},
		"taken along":                      {func(b *book) { b.Restream("f", 3); b.Lost(4, 9) }, nil},
		"taken along and given up":         {func(b *book) { b.Restream("f", 3); b.Lost(3, 3) }, []event.Missing{full(1, 9)}},
		"taken along and delivered":        {func(b *book) { b.Restream("f", 3); b.Delivered(3); b.Lost(1, 3) }, nil},
		"another stream, nothing in it":    {func(b *book) { b.Restream("f", 0) }, []event.Missing{full(1, 9)}},
		"another stream after a crash":     {func(b *book) { b.reopen("f", 4); b.Lost(2, 2) }, []event.Missing{full(1, 9)}},
		"an empty stream after a crash":    {func(b *book) { b.reopen("f", 1) }, []event.Missing{full(1, 9)}},
		"another node":                     {func(b *book) { b.Disown(); b.Lost(5, 5) }, []event.Missing{{Cause: "queue_full", Count: 9}}},
		"told of again by who remembered":  {func(b *book) { b.add(full(2, 9)) }, nil},
		"told of again and a little more":  {func(b *book) { b.Lost(5, 5); b.add(full(8, 12)) }, []event.Missing{full(1, 12)}},
		"of another cause beside it":       {func(b *book) { b.Lost(5, 5); m := full(10, 12); m.Cause = "damaged"; b.add(m) }, []event.Missing{full(1, 9), {Cause: "damaged", Stream: "a", First: 10, Last: 12, Count: 3}}},
		"told in a stream that has gone":   {func(b *book) { b.add(full(10, 12)); tellInOld(b) }, []event.Missing{full(10, 12)}},
		"could not be told":                {func(b *book) { b.add(full(10, 12)); b.Back(b.Take()[0]) }, []event.Missing{full(10, 12)}},
		"a crash while it was being told":  {func(b *book) { b.add(full(10, 12)); b.Take(); b.reopen(evidence, 9) }, []event.Missing{full(10, 12)}},
		"noted, and a crash before a save": {func(b *book) { b.Note(full(10, 12)); b.reopen(evidence, 9) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook(t)
			b.add(full(1, 9))
			b.tell(5)
			c.happens(b)
			b.wantToTell(c.want...)
		})
	}
}

// A queue that overflows may give a gap event up before whoever wrote it comes to
// say that it is safe.
func TestAGapEventThatIsGivenUpBeforeItCountsAsToldIsToldAgain(t *testing.T) {
	b := newBook(t)
	b.add(full(1, 5))
	list := b.Take()
	b.Lost(6, 8)
	b.Lost(9, 20)
	if b.Told(list[0], evidence, 20, 22) {
		t.Error("it counts as told")
	}
	b.Back(list[0])
	if got := b.tell(30); len(got) != 1 || got[0].First != 1 {
		t.Errorf("told again: %v", got)
	}
	// What was given up before is forgotten: the next one is told once.
	b.add(full(40, 41))
	if b.tell(20); b.Pending() {
		t.Error("a gap event that nobody gave up is told again")
	}
}

func TestWhatIsDeliveredIsForgottenOnTheDiskToo(t *testing.T) {
	b := newBook(t)
	b.add(full(1, 9))
	b.tell(5)
	b.Delivered(5)
	if err := b.Save(); err != nil || !b.Empty() {
		t.Errorf("%v, empty: %t", err, b.Empty())
	}
	b.reopen(evidence, 9)
	if !b.Empty() {
		t.Error("it is remembered after a start")
	}
}

func TestWithoutAFileWhatIsToldIsForgotten(t *testing.T) {
	l := New()
	l.Note(full(1, 9))
	for _, e := range l.Take() {
		l.Told(e, "any", 1, 1)
	}
	if err := l.Save(); err != nil || !l.Empty() || l.Pending() || l.Untold() != 0 {
		t.Errorf("%v, empty %t, pending %t, %d untold", err, l.Empty(), l.Pending(), l.Untold())
	}
}

func TestALossThatCannotBeWrittenDownIsNotNotedTwice(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "gone", "missing"), evidence, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := l.Add(event.Missing{Cause: "crash", Count: 2}); err == nil {
			t.Fatal("it was written into a folder that is not there")
		}
	}
	if n := l.Untold(); n != 0 {
		t.Errorf("%d events are noted, though the caller remembers them", n)
	}
}

// A loss whose file cannot be written is held until it is told, and told again if
// its gap event is given up.
func TestALossThatIsHeldIsToldAgainToo(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "gone", "missing"), evidence, 1)
	if err != nil {
		t.Fatal(err)
	}
	e := l.Hold(full(1, 5))
	if l.Pending() || l.Untold() != 5 {
		t.Errorf("pending %t, %d untold, while it is told", l.Pending(), l.Untold())
	}
	if !l.Told(e, evidence, 7, 8) || l.Untold() != 0 {
		t.Error("it does not count as told")
	}
	l.Lost(8, 8)
	if d := cmp.Diff([]event.Missing{full(1, 5)}, missing(l)); d != "" {
		t.Error(d)
	}
	l.Drop(l.Hold(full(20, 29)))
	if n := l.Untold(); n != 5 {
		t.Errorf("%d untold after one is dropped", n)
	}
}

// A disk that refuses the ledger for days lets gap events through: what they tell
// of is bounded as well.
func TestLossesThatCannotBeWrittenDownStayFew(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "gone", "missing"), evidence, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(1000) {
		l.Told(l.Hold(full(10*i+1, 10*i+2)), evidence, i+1, i+1)
	}
	if n := len(l.entries); n > most+1 {
		t.Errorf("%d are kept apart", n)
	}
	l.Lost(1, 1000)
	var count uint64
	for _, m := range missing(l) {
		count += m.Count
	}
	if count != 2000 {
		t.Errorf("%d events are told again, want 2000", count)
	}
}

// The file of a version that did not remember ends tells of them as far as it
// remembers losses.
func TestAnEarlierVersionOfTheFileTellsTheEndsOfStreams(t *testing.T) {
	b := newBook(t)
	line := `{"stream":"` + evidence + `","missing":[{"cause":"queue_full","stream":"a","first":1,"last":3,"count":3},` +
		`{"cause":"read_only","stream":"a","first":7,"last":9,"count":3},{"cause":"crash","count":2}]}`
	if err := os.WriteFile(b.path, seal([]byte(line)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.reopen(evidence, 1)
	if first, last := b.Ends("a"); first != 7 || last != 9 {
		t.Errorf("%d to %d", first, last)
	}
}

// The numbers at the end of a stream that were declared missing are remembered
// when the loss itself is forgotten, else they would be given again.
func TestTheEndOfAStreamIsRemembered(t *testing.T) {
	of := func(stream string, first, last uint64) event.Missing {
		m := full(first, last)
		m.Stream = stream
		return m
	}
	for name, c := range map[string]struct {
		noted       []event.Missing
		first, last uint64
	}{
		"nothing":         {nil, 0, 0},
		"without numbers": {[]event.Missing{{Cause: "crash", Count: 3}}, 0, 0},
		"one":             {[]event.Missing{full(5, 9)}, 5, 9},
		"more of it":      {[]event.Missing{full(5, 9), full(10, 12)}, 5, 12},
		"a later one":     {[]event.Missing{full(5, 9), full(11, 12)}, 11, 12},
		"an older one":    {[]event.Missing{full(5, 9), full(1, 3)}, 5, 9},
		"in any order":    {[]event.Missing{full(9, 9), full(5, 8)}, 5, 9},
		"again":           {[]event.Missing{full(5, 9), full(5, 9)}, 5, 9},
		"other streams":   {[]event.Missing{full(5, 9), of("b", 50, 60), of("c", 1, 2), of("d", 1, 2)}, 5, 9},
		"many streams":    {[]event.Missing{full(5, 9), of("b", 50, 60), of("c", 1, 2), of("d", 1, 2), of("e", 1, 2)}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook(t)
			for _, m := range c.noted {
				b.add(m)
			}
			b.tell(100)
			b.Delivered(100)
			if err := b.Save(); err != nil {
				t.Fatal(err)
			}
			b.reopen(evidence, 101)
			if first, last := b.Ends("a"); !b.Empty() || first != c.first || last != c.last {
				t.Errorf("%d to %d", first, last)
			}
			b.Disown()
			if _, last := b.Ends("a"); last != 0 {
				t.Error("remembered of another node")
			}
		})
	}
}

func TestLossesStayFewAndTheirCountExact(t *testing.T) {
	b := newBook(t)
	for i := range uint64(1000) {
		b.Note(full(10*i+1, 10*i+2))
		b.Note(event.Missing{Cause: "too_large", Source: "cpu", Count: 1})
		if i%100 == 0 {
			b.tell(i + 1)
		}
	}
	b.Lost(1, 1_000_000)
	var crowd, large uint64
	list := b.tell(1001)
	for _, m := range list {
		switch m.Cause {
		case "queue_full":
			crowd += m.Count
		case "too_large":
			large += m.Count
		}
	}
	if len(list) > most || crowd != 2000 || large != 1000 {
		t.Errorf("%d losses, %d full, %d too large", len(list), crowd, large)
	}
}

// What joined losses name and do not count may be lost later.
func TestALossAmongJoinedOnesIsCounted(t *testing.T) {
	joined := full(10, 60)
	joined.Count = 20
	more := joined
	more.Count = 25
	for name, c := range map[string]struct {
		told bool
		m    event.Missing
		want []event.Missing
	}{
		"before they are told":          {false, full(30, 34), []event.Missing{more}},
		"after":                         {true, full(30, 34), []event.Missing{full(30, 34)}},
		"who remembered tells of them":  {false, joined, []event.Missing{joined}},
		"or again":                      {true, joined, nil},
		"or of the first":               {false, full(10, 14), []event.Missing{joined}},
		"or of the last, that was told": {true, full(59, 60), nil},
		"and of more":                   {true, more, []event.Missing{more}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook(t)
			b.add(joined)
			if c.told {
				b.tell(5)
			}
			b.add(c.m)
			b.wantToTell(c.want...)
		})
	}
}

func TestLossesNotedInAnyOrderAreOne(t *testing.T) {
	b := newBook(t)
	for _, n := range []uint64{3, 1, 5, 6, 2, 4} {
		b.Note(full(n, n))
	}
	b.wantToTell(full(1, 6))
}

func TestADamagedFileIsSetAside(t *testing.T) {
	b := newBook(t)
	b.add(full(1, 9))
	good, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, bad := range []string{string(good[:i]), string(good[:i]) + string(good[i]^1) + string(good[i+1:])} {
			if err := os.WriteFile(b.path, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(b.path, evidence, 1)
			if err == nil {
				if d := cmp.Diff([]event.Missing{full(1, 9)}, missing(l)); d != "" {
					t.Errorf("%q is taken for good: %s", bad, d)
				}
				continue
			}
			if !strings.Contains(err.Error(), "damaged") || !l.Empty() {
				t.Fatalf("%q: %v, empty %t", bad, err, l.Empty())
			}
			if kept, err := os.ReadFile(b.path + ".damaged"); err != nil || string(kept) != bad {
				t.Fatalf("%q is not set aside: %v", bad, err)
			}
			if err := l.Save(); err != nil { // else it is damaged for the next process, too
				t.Fatal(err)
			}
			if err := os.Remove(b.path + ".damaged"); err != nil { // else the next one gets another name
				t.Fatal(err)
			}
		}
	}
	b.reopen(evidence, 1)
	b.add(full(1, 2))
	b.wantToTell(full(1, 2))
}

func missing(l *Ledger) (list []event.Missing) {
	for _, e := range l.Take() {
		list = append(list, e.Missing)
	}
	return list
}

func FuzzDecode(f *testing.F) {
	text, err := (&Ledger{stream: evidence, ends: []run{{"a", numbers{1, 9}}}, entries: []*Entry{
		{Missing: event.Missing{Cause: "damaged", Stream: "a", First: 1, Last: 9, Count: 9, Since: time.Unix(1, 0)}, state: told, told: numbers{5, 6}},
		{Missing: event.Missing{Cause: "too_large", Source: "cpu", Count: 3}},
	}}).encode()
	if err != nil {
		f.Fatal(err)
	}
	_, second, _ := strings.Cut(string(text), "\n")
	f.Add(strings.TrimSuffix(second, "\n"))
	f.Fuzz(func(t *testing.T, line string) {
		text := seal([]byte(line))
		var l, same Ledger
		if l.decode(text) != nil {
			return
		}
		again, err := l.encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := same.decode(again); err != nil || same.stream != l.stream || len(same.entries) != len(l.entries) || !slices.Equal(same.ends, l.ends) {
			t.Errorf("%q becomes %q: %v", text, again, err)
		}
	})
}
