package queue

import (
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
)

// Faults that no random history comes to often enough: one written history each.

// A brittle folder fails the syncs of files, and their opening to write, while
// it is broken, and the sync of names while it is nameless.
type brittle struct {
	*simFolder
	broken, nameless bool
}

func (d *brittle) Sync() error {
	if d.nameless {
		return syscall.EIO
	}
	return d.simFolder.Sync()
}

type brittleFile struct {
	file
	d *brittle
}

func (d *brittle) Create(name string) (file, error) {
	f, err := d.simFolder.Create(name)
	return brittleFile{f, d}, err
}

func (d *brittle) Open(name string, write bool) (file, error) {
	if write && d.broken {
		return nil, syscall.EIO
	}
	f, err := d.simFolder.Open(name, write)
	return brittleFile{f, d}, err
}

func (f brittleFile) Sync() error {
	if f.d.broken {
		return syscall.EIO
	}
	return f.file.Sync()
}

// A write failed and could not be cut off, its number went to another record, and
// that one is dropped, because the segment before it is on its way.
func TestWhatAFailedWriteLeftDoesNotComeBackWhenItsSuccessorIsDropped(t *testing.T) {
	d := &brittle{simFolder: newSimFolder(rand.New(rand.NewPCG(1, 1)))}
	q, err := open(Options{Dir: "sim", MaxBytes: MinBytes, SegmentBytes: block}, d)
	if err != nil {
		t.Fatal(err)
	}
	add(t, q, 1, 1, 100)
	if got := peekAll(t, q, 1); !slices.Equal(got, []uint64{1}) {
		t.Fatal(got)
	}
	d.broken = true
	if err := q.Append(t.Context(), Record{2, 1, []byte("refused")}); err == nil {
		t.Fatal("a record was confirmed that could not be synced")
	}
	d.broken = false
	next := uint64(2)
	for len(q.lossy) == 0 {
		add(t, q, next, 1, 3000)
		next++
	}
	d.kill()
	q = openSim(t, d.simFolder)
	if got := drain(t, q); len(got) == 0 || got[0] != 1 || got[1] == 2 {
		t.Errorf("drained %v", got)
	}
	if l := q.Losses(); len(l) != 1 || l[0].First != 2 || l[0].Count == 0 {
		t.Errorf("losses %+v", l)
	}
}

// A folder that was put there just now, a copy from a killed machine, is in the
// cache alone.
func TestACopiedFolderIsOnTheDiskBeforeItIsRead(t *testing.T) {
	d := newSimFolder(rand.New(rand.NewPCG(1, 1)))
	for name, n := range smallQueue(t, true).names {
		n = &inode{cache: slices.Clone(n.cache), unsynced: []write{{0, slices.Clone(n.cache)}}}
		d.names[name] = n
		d.unsynced = append(d.unsynced, nameOp{name, n})
	}
	q := openSim(t, d)
	if got := peekAll(t, q, 1<<20); len(got) == 0 || q.Next() != damageRecords+1 {
		t.Fatalf("read %v, next %d", got, q.Next())
	}
	before := maps.Clone(d.names)
	d.unsynced = slices.DeleteFunc(d.unsynced, func(op nameOp) bool { return op.name != cursorName })
	d.cutPower()
	for name := range before {
		if name != cursorName && d.names[name] == nil {
			t.Errorf("%s was read, and is gone after a power cut", name)
		}
	}
}

// The end of the last segment cannot be read. What it held is passed over, and
// stays so after the start cut it off and the power failed.
func TestNumbersBehindAnUnreadablePageAreNotUsedAgain(t *testing.T) {
	d := newSimFolder(rand.New(rand.NewPCG(1, 1)))
	q := openSim(t, d)
	add(t, q, 1, 1, 5000)
	add(t, q, 2, 3, 100)
	d.kill()
	d.names[segmentName(1)].bad = map[int64]bool{1: true}
	for range 3 {
		q = openSim(t, d)
		if q.Next() < 5 {
			t.Fatalf("the next number is %d, but 4 was in use", q.Next())
		}
		d.cutPower()
	}
	q = openSim(t, d)
	drain(t, q)
	told := map[uint64]bool{}
	for _, l := range q.Losses() {
		for n := l.First; n <= l.Last; n++ {
			told[n] = true
		}
	}
	for n := uint64(2); n < q.Next(); n++ {
		if !told[n] {
			t.Errorf("number %d is missing without a word", n)
		}
	}
}

// Each call that reads fails as often as it may before it counts.
func TestAReadErrorThatGoesAwayCostsNothing(t *testing.T) {
	for _, killed := range []bool{false, true} {
		d := smallQueue(t, killed)
		d.flaky = 1
		q := openSim(t, d)
		var got []Record
		for failures := 0; len(got) == 0; failures++ {
			var err error
			if got, err = q.Peek(nil, 1<<20); err != nil && failures > 8*bearable {
				t.Fatal(err)
			}
		}
		if l := q.Losses(); got[0].First != damageAcked+1 || q.Next() != damageRecords+1 || l != nil {
			t.Errorf("read from %d, next %d, losses %+v", got[0].First, q.Next(), l)
		}
	}
}

// A page that stays unreadable costs the records in it, and no others.
func TestAPageThatStaysUnreadableCostsWhatIsInIt(t *testing.T) {
	d := newSimFolder(rand.New(rand.NewPCG(1, 1)))
	q := openSim(t, d)
	for n := range uint64(7) {
		add(t, q, n+1, 1, 1000)
	}
	d.names[segmentName(1)].bad = map[int64]bool{1: true}
	var got []uint64
	failures := 0
	for q.Stats().Records > 0 {
		records, err := q.Peek(nil, 1<<20)
		if err != nil {
			if failures++; failures > bearable+1 {
				t.Fatal(err)
			}
			continue
		}
		for _, r := range records {
			got = append(got, r.First)
			if err := q.Ack(r.last()); err != nil {
				t.Fatal(err)
			}
		}
		if len(records) == 0 {
			break
		}
	}
	// Records are 1032 bytes each from 64 on: the fourth reaches into the page.
	if !slices.Equal(got, []uint64{1, 2, 3}) || failures != bearable+1 {
		t.Errorf("delivered %v after %d failures", got, failures)
	}
	if l := q.Losses(); len(l) == 0 || l[0].First != 4 || l[len(l)-1].Last != 7 {
		t.Errorf("losses %+v", l)
	}
}

// A record was written and not synced when the process was killed, and so was the
// next start, at each of its calls. What the one after it reads must be on the disk.
func TestAStartThatWasKilledDoesNotVouchForWhatItDidNotSync(t *testing.T) {
	for calls := 1; calls < 30; calls++ {
		for seed := range uint64(20) {
			d := newSimFolder(rand.New(rand.NewPCG(seed, 1)))
			q := openSim(t, d)
			add(t, q, 1, 1, 100)
			d.deadIn = 2 // at the sync
			if err := q.Append(t.Context(), Record{2, 1, payload(2, 2000)}); err == nil {
				t.Fatal("confirmed by a machine that has stopped")
			}
			d.kill()
			d.deadIn = calls
			open(q.options, d) // and stops
			d.kill()
			q = openSim(t, d)
			got := peekAll(t, q, 1<<20)
			d.cutPower()
			if next := openSim(t, d).Next(); next <= got[len(got)-1] {
				t.Fatalf("killed at call %d, seed %d: %v were read, and the next number is %d", calls, seed, got, next)
			}
		}
	}
}

// The disk holds much less than the bound. After the first time it is full the
// segments are small, so that the newest records are kept and not the last one.
func TestAFullDiskKeepsMoreThanTheLastSegment(t *testing.T) {
	d := newSimFolder(rand.New(rand.NewPCG(1, 1)))
	d.capacity = 128 << 10
	q, err := open(Options{Dir: "sim", MaxBytes: 1 << 30}, d)
	if err != nil {
		t.Fatal(err)
	}
	const records, size = 500, 2000
	for n := uint64(1); n <= records; n++ {
		add(t, q, n, 1, size)
		if kept := q.Stats().Records; n > 120 && kept < 32 {
			t.Fatalf("%d records are kept of %d", kept, n)
		}
	}
	got := drain(t, q)
	if got[len(got)-1] != records {
		t.Errorf("the last record is %d", got[len(got)-1])
	}
	if l := q.Losses(); len(l) != 1 || l[0].Count != records-uint64(len(got)) || l[0].Cause != CauseDiskFull {
		t.Errorf("losses %+v", l)
	}
}

// A removal that is not synced may be undone, so what was removed still counts.
func TestRoomIsFreeWhenTheRemovalIsOnTheDisk(t *testing.T) {
	d := &brittle{simFolder: newSimFolder(rand.New(rand.NewPCG(1, 1)))}
	q, err := open(Options{Dir: "sim", MaxBytes: MinBytes, SegmentBytes: block}, d)
	if err != nil {
		t.Fatal(err)
	}
	next := uint64(1)
	for len(q.lossy) == 0 {
		add(t, q, next, 1, 3000)
		next++
	}
	before := q.Stats().DiskBytes
	d.nameless = true
	for range 3 {
		if err := q.Append(t.Context(), Record{next, 1, payload(next, 3000)}); err == nil {
			t.Fatal("a record was taken into room that may not be there")
		}
		if got := q.Stats().DiskBytes; got < before {
			t.Errorf("%d bytes are counted, and %d may lie on the disk", got, before)
		}
	}
	d.nameless = false
	add(t, q, next, 1, 3000)
}

// The checksums of a segment are salted with its id: used again it would make
// what a removed file left on the disk valid.
func TestAnIdOfASegmentIsNotUsedAgain(t *testing.T) {
	d := newSimFolder(rand.New(rand.NewPCG(1, 1)))
	for want := uint64(1); want < 4; want++ {
		q := openSim(t, d)
		add(t, q, q.Next(), 1, 100)
		if d.names[segmentName(want)] == nil {
			t.Fatalf("segment %d is not there: %v", want, slices.Sorted(maps.Keys(d.names)))
		}
		drain(t, q)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		q = openSim(t, d) // removes what is done with
		add(t, q, q.Next(), 1, 100)
		drain(t, q)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		clearSegments(d)
		want++
	}
}

// clearSegments removes all segments, as delivery does in the end.
func clearSegments(d *simFolder) {
	for name := range d.names {
		if _, ok := segmentID(name); ok {
			delete(d.names, name)
		}
	}
}
