package queue

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

func mustInspect(t testing.TB, dir reader) (*Inspection, *Findings) {
	t.Helper()
	in, err := inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := in.Verify()
	if err != nil {
		t.Fatal(err)
	}
	return in, v
}

// exported returns the first numbers of the records that an inspection reads,
// after a look at their data, and the damage in between.
func exported(t testing.TB, in *Inspection, all bool) (firsts []uint64, damage []error) {
	t.Helper()
	for r, err := range in.Records(all) {
		if err != nil {
			damage = append(damage, err)
			continue
		}
		if want := payload(r.First, len(r.Data)); !bytes.Equal(r.Data, want) {
			t.Fatalf("record %d: data %.40q, want %.40q", r.First, r.Data, want)
		}
		firsts = append(firsts, r.First)
	}
	return firsts, damage
}

func numbers(first, last uint64) (n []uint64) {
	for i := first; i <= last; i++ {
		n = append(n, i)
	}
	return n
}

func TestAnInspectionTellsWhatTheQueueTells(t *testing.T) {
	o := Options{Dir: t.TempDir(), MaxBytes: MinBytes}
	q := mustOpen(t, o)
	next, ack := uint64(1), uint64(0)
	append := func(n int, count uint32, size int) func() {
		return func() {
			for range n {
				add(t, q, next, count, size)
				next += uint64(count)
			}
		}
	}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"nothing yet", func() {}},
		{"a few records", append(5, 3, 100)},
		{"some are delivered", func() { ack = 6 }},
		{"segments are full", append(40, 1, 900)},
		{"some segments are delivered", func() { ack = 30 }},
		{"a new start", func() { q = reopen(t, q) }},
		{"a segment behind it", append(3, 2, 50)},
		{"a jump", func() { next += 10 }},
		{"a record behind it", append(1, 5, 10)},
		{"the bound is reached", append(200, 1, 900)},
		{"all is delivered", func() { ack = next - 1 }},
		{"a new start of an empty queue", func() { q = reopen(t, q) }},
	} {
		step.do()
		if err := q.Ack(ack); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		in, v := mustInspect(t, shared(o.Dir))
		s := q.Stats()
		if len(v.Damage) > 0 || v.Tail > 0 || len(in.Foreign) > 0 {
			t.Errorf("%s: damage %v, tail %d, foreign %v", step.what, v.Damage, v.Tail, in.Foreign)
		}
		want := Waiting{s.Records, s.Events, s.Bytes, s.Oldest}
		if diff := cmp.Diff(want, in.Waiting); diff != "" {
			t.Errorf("%s: %s", step.what, diff)
		}
		if in.Next > q.Next() || in.Acked > ack && in.Acked > in.Dropped || next > 1 && in.Stream != q.Stream() {
			t.Errorf("%s: acked %d, next %d of %d, dropped %d, stream %s", step.what, in.Acked, in.Next, q.Next(), in.Dropped, in.Stream)
		}
		if all, _ := exported(t, in, true); uint64(len(all)) != v.Records {
			t.Errorf("%s: %d records are exported, %d verified", step.what, len(all), v.Records)
		}
		if left, _ := exported(t, in, false); uint64(len(left)) != s.Records {
			t.Errorf("%s: %d records are exported, %d wait", step.what, len(left), s.Records)
		}
	}
}

// quickly runs f in a bubble, where the pause before a second look at a damaged
// cursor takes no time.
func quickly(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	for name, killed := range map[string]bool{"closed": false, "killed": true} {
		quickly(t, name, func(t *testing.T) {
			d := smallQueue(t, killed)
			in, v := mustInspect(t, d)
			if len(v.Damage) > 0 || v.Tail > 0 || v.Records != damageRecords {
				t.Fatalf("a whole queue: %+v", v)
			}
			newest := in.Segments[len(in.Segments)-1].Name
			for name, n := range d.names {
				for bit := 0; bit < len(n.cache)*8; bit += bitStride {
					b := slices.Clone(n.cache)
					b[bit/8] ^= 1 << (bit % 8)
					in, v := mustInspect(t, d.with(name, b))
					exported(t, in, true) // none is wrong
					// The end of the newest segment cannot be told from a torn write.
					end := int64(0)
					if name == newest {
						end = v.Tail
					}
					if len(v.Damage) == 0 && (end == 0 || int64(bit/8) < int64(len(b))-end) {
						t.Fatalf("%s bit %d, byte %d of %d: nothing is found, tail %d", name, bit, bit/8, len(b), v.Tail)
					}
					if v.Records+1 < damageRecords {
						t.Fatalf("%s bit %d: %d records hold", name, bit, v.Records)
					}
					for _, d := range v.Damage {
						if at := int64(bit / 8); d.File != name || at < d.Offset || at >= d.Offset+max(d.Bytes, 1) {
							t.Fatalf("%s byte %d: found %v", name, at, d)
						}
					}
				}
			}
		})
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	quickly(t, "closed", everyTruncationIsFound)
}

func everyTruncationIsFound(t *testing.T) {
	d := smallQueue(t, false)
	in, whole := mustInspect(t, d)
	newest := in.Segments[len(in.Segments)-1]
	for name, n := range d.names {
		for size := range len(n.cache) {
			if name == newest.Name && int64(size) == newest.end {
				continue // as after a kill
			}
			in, v := mustInspect(t, d.with(name, slices.Clone(n.cache[:size])))
			if len(v.Damage) == 0 && v.Tail == 0 {
				t.Fatalf("%s cut to %d of %d: nothing is found", name, size, len(n.cache))
			}
			told := map[uint64]bool{}
			for _, d := range v.Damage {
				for n := d.First; n > 0 && n <= d.Last; n++ {
					told[n] = true
				}
			}
			firsts, _ := exported(t, in, true)
			for n := uint64(damageAcked + 1); n <= damageRecords; n++ {
				if told[n] == slices.Contains(firsts, n) {
					t.Fatalf("%s cut to %d of %d: number %d is there: %v, told as damaged: %v, %v", name, size, len(d.names[name].cache), n, !told[n], told[n], v.Damage)
				}
			}
			if name == cursorName && v.Records != whole.Records {
				t.Fatalf("cursor cut to %d: %d records hold", size, v.Records)
			}
		}
	}
}

func TestAMissingFileIsFound(t *testing.T) {
	d := smallQueue(t, false)
	in, _ := mustInspect(t, d)
	first, second := in.Segments[0], in.Segments[1]
	for _, c := range []struct {
		file string
		want Damage
	}{
		{cursorName, Damage{File: cursorName, What: "is missing"}},
		{first.Name, Damage{What: "no segment holds them", First: damageAcked + 1, Last: first.Last}},
		{second.Name, Damage{What: "no segment holds them", First: second.Base, Last: second.Last}},
	} {
		without := d.with(c.file, nil)
		delete(without.names, c.file)
		_, v := mustInspect(t, without)
		if diff := cmp.Diff([]*Damage{&c.want}, v.Damage); diff != "" {
			t.Errorf("without %s: %s", c.file, diff)
		}
	}
}

func TestForeignFilesAreToldAndNoDamage(t *testing.T) {
	d := smallQueue(t, false)
	h := header{id: 9, stream: Stream{1}, base: 1}.append(nil)
	c := d.with(segmentName(9), h).with("notes.txt", []byte("hello"))
	in, v := mustInspect(t, c)
	want := []Foreign{
		{"notes.txt", "no file of a queue", 5},
		{segmentName(9), "segment 0000000000000009 of queue 01000000000000000000000000000000", headerSize},
	}
	if diff := cmp.Diff(want, in.Foreign); diff != "" {
		t.Error(diff)
	}
	if len(v.Damage) > 0 || v.Records != damageRecords {
		t.Errorf("%+v", v)
	}
	// One in the place of a segment is damage: its numbers are gone.
	_, v = mustInspect(t, d.with(segmentName(1), h))
	if len(v.Damage) != 1 || v.Damage[0].First != damageAcked+1 {
		t.Errorf("%v", v.Damage)
	}
}

func TestDamageStandsInThePlaceOfItsRecord(t *testing.T) {
	d := smallQueue(t, false)
	in, _ := mustInspect(t, d)
	name := in.Segments[0].Name
	b := slices.Clone(d.names[name].cache)
	b[bytes.Index(b, []byte("<6>"))] ^= 1
	in, v := mustInspect(t, d.with(name, b))
	firsts, damage := exported(t, in, false)
	if diff := cmp.Diff(slices.Concat(numbers(4, 5), numbers(7, damageRecords)), firsts); diff != "" {
		t.Error(diff)
	}
	found := (*Damage)(nil)
	if len(damage) != 1 || !errors.As(damage[0], &found) || found.First != 6 || found.Last != 6 || !strings.Contains(found.Error(), name) {
		t.Errorf("damage: %v", damage)
	}
	if len(v.Damage) != 1 || v.Damage[0].Offset != found.Offset {
		t.Errorf("verify: %v, export: %v", v.Damage, found)
	}
	for r := range in.Records(true) {
		if r.First != 1 {
			t.Errorf("all begin with %d", r.First)
		}
		break // a reader may leave
	}
}

func TestATornEndAfterAKillIsNoDamage(t *testing.T) {
	d := smallQueue(t, true)
	in, _ := mustInspect(t, d)
	newest := in.Segments[len(in.Segments)-1]
	whole := d.names[newest.Name].cache
	var torn []byte
	torn = frame{damageRecords + 1, 1, 100, 1, 7}.append(torn, newest.salt, newest.Size)
	for _, end := range [][]byte{torn, torn[:9], append(slices.Clone(torn), make([]byte, 104)...), make([]byte, 5000)} {
		in, v := mustInspect(t, d.with(newest.Name, slices.Concat(whole, end)))
		if len(v.Damage) > 0 || v.Tail != int64(len(end)) || v.Records != damageRecords {
			t.Errorf("%d bytes behind it: %v, tail %d, %d records", len(end), v.Damage, v.Tail, v.Records)
		}
		if firsts, damage := exported(t, in, true); len(firsts) != damageRecords || damage != nil {
			t.Errorf("exported %d, %v", firsts, damage)
		}
	}
}

// TestAKillAtAnyCallLeavesNoDamage looks at what queues leave that die at a call
// of the file system.
func TestAKillAtAnyCallLeavesNoDamage(t *testing.T) {
	for seed := range uint64(histories / 3) {
		rng := rand.New(rand.NewPCG(seed, 1))
		d := newSimFolder(rng)
		for range 6 {
			d.deadIn = 1 + rng.IntN(60)
			live(t, d)
			d.kill()
			in, v := mustInspect(t, d)
			for _, d := range v.Damage {
				if d.File != cursorName || d.First > 0 { // the simulated kill tears a slot, which a real one cannot
					t.Fatalf("seed %d: %v", seed, v.Damage)
				}
			}
			if _, damage := exported(t, in, true); damage != nil {
				t.Fatalf("seed %d: %v", seed, damage)
			}
		}
	}
}

// live is a queue that takes and gives until its machine stops.
func live(t *testing.T, d *simFolder) {
	q, err := open(Options{Dir: "sim", MaxBytes: MinBytes, SegmentBytes: block}, d)
	for err == nil {
		n := q.Next()
		if err = q.Append(t.Context(), Record{n, 1, payload(n, d.rng.IntN(2000))}); err == nil && d.rng.IntN(3) == 0 {
			var got []Record
			if got, err = q.Peek(nil, 4000); err == nil {
				err = q.Ack(got[len(got)-1].last())
			}
		}
	}
	if !errors.Is(err, errDead) && !d.dead {
		t.Fatal(err)
	}
}

func TestAnInspectionBesideARunningQueueFindsNoDamage(t *testing.T) {
	o := Options{Dir: t.TempDir(), MaxBytes: MinBytes, SegmentBytes: block}
	looked, done, stop := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		defer close(done)
		for run := range 4 {
			if !busy(t, o, run%2 == 0, looked, stop) {
				return
			}
		}
	})
	defer running.Wait()
	defer close(stop)
	for {
		in, v := mustInspect(t, shared(o.Dir))
		for _, d := range v.Damage {
			t.Fatalf("damage: %v (acked %d, dropped %d, promised %d, segments %+v)", d, in.Acked, in.Dropped, in.promised, in.Segments)
		}
		if firsts, damage := exported(t, in, false); damage != nil || !slices.IsSorted(firsts) {
			t.Fatalf("exported %d, %v", firsts, damage)
		}
		select {
		case looked <- struct{}{}:
		case <-done:
			if in, _ := mustInspect(t, shared(o.Dir)); in.Next != 4*400+1 {
				t.Errorf("the next number is %d", in.Next)
			}
			return
		default:
		}
	}
}

// busy opens a queue, appends, and delivers or lets the bound remove the oldest.
// It does not run away from who looks at it.
func busy(t *testing.T, o Options, deliver bool, looked, stop chan struct{}) bool {
	q, err := Open(o)
	if err != nil {
		t.Error(err)
		return false
	}
	for i := range 400 {
		n := q.Next()
		if err := q.Append(t.Context(), Record{n, 1, payload(n, 40+i*7%1500)}); err != nil {
			t.Error(err)
		}
		if deliver && i%2 == 0 {
			got, err := q.Peek(nil, 4000)
			if err == nil && len(got) > 0 {
				err = q.Ack(got[len(got)-1].last())
			}
			if err != nil {
				t.Error(err)
			}
		}
		if i%20 == 0 {
			select {
			case <-looked:
			case <-stop:
				return q.Close() != nil // the test has failed
			}
		}
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	return !t.Failed()
}

// half is a folder in which the nth read of a place finds it half written.
type half struct {
	*simFolder
	name string
	at   int64
	nth  *int
}

type halfFile struct {
	file
	half
}

func (h half) Open(name string, write bool) (file, error) {
	f, err := h.simFolder.Open(name, write)
	if err != nil || name != h.name {
		return f, err
	}
	return halfFile{f, h}, nil
}

func (f halfFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(b, off)
	if i := f.at - off; i >= 0 && i < int64(n) {
		if *f.nth--; *f.nth == 0 {
			clear(b[i:n])
		}
	}
	return n, err
}

func TestWhatIsBeingWrittenIsLookedAtAgain(t *testing.T) {
	d := smallQueue(t, true)
	in, _ := mustInspect(t, d)
	s := in.Segments[1]
	b := d.names[s.Name].cache
	for what, at := range map[string]int{"data": bytes.Index(b, []byte("<12>")) + 2, "a header": bytes.Index(b, []byte("<12>")) - frameSize + 3} {
		nth := 1
		in, err := inspect(d) // its own reads are not of interest here
		if err != nil {
			t.Fatal(err)
		}
		in.dir = half{d, s.Name, int64(at), &nth}
		v, err := in.Verify()
		if err != nil || len(v.Damage) > 0 || v.Tail > 0 || v.Records != damageRecords || nth > 0 {
			t.Errorf("%s: %v, %+v, %d reads too few", what, err, v, nth)
		}
	}
}

func TestASlotThatIsBeingWrittenIsLookedAtAgain(t *testing.T) {
	for nth := range 2 { // before the segments are read, and after
		left := nth + 1
		in, v := mustInspect(t, half{smallQueue(t, false), cursorName, 100, &left})
		if len(v.Damage) > 0 || in.Acked != damageAcked || in.promised != damageRecords+1 || left > 0 {
			t.Errorf("read %d: acked %d, promised %d, %v, %d reads too few", nth+1, in.Acked, in.promised, v.Damage, left)
		}
	}
}

func TestAFolderThatCannotBeReadIsSaid(t *testing.T) {
	if _, err := Inspect(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	dir := t.TempDir()
	in, v := mustInspect(t, shared(dir))
	if len(in.Segments) > 0 || in.Waiting != (Waiting{}) || len(v.Damage) > 0 || in.Next != 1 {
		t.Errorf("an empty folder: %+v, %+v", in, v)
	}
	if err := os.Mkdir(filepath.Join(dir, segmentName(1)), 0o700); err != nil {
		t.Fatal(err)
	}
	if in, err := Inspect(dir); err != nil || len(in.Segments) > 0 {
		t.Errorf("a folder of the name of a segment: %+v, %v", in, err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("an inspection wrote something: %v, %v", names, err)
	}
}
