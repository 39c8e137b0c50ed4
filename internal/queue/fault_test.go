package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Faults that no random history comes to often enough: one written history each.

// A brittle folder fails the syncs of files, and their opening to write, while
// it is broken, the sync of names while it is nameless, what is written to
// segments while it is sealed, and the syncs of files, of which then a part is on
// the disk, while it is failing.
type brittle struct {
	*simFolder
	broken, nameless, sealed, failing bool
}

func (d *brittle) Sync() error {
	if d.nameless {
		return syscall.EIO
	}
	return d.simFolder.Sync()
}

type brittleFile struct {
	file
	d    *brittle
	name string
}

func (d *brittle) Create(name string) (file, error) {
	f, err := d.simFolder.Create(name)
	return brittleFile{f, d, name}, err
}

func (d *brittle) Open(name string, write bool) (file, error) {
	if write && d.broken {
		return nil, syscall.EIO
	}
	f, err := d.simFolder.Open(name, write)
	return brittleFile{f, d, name}, err
}

func (f brittleFile) WriteAt(b []byte, off int64) (int, error) {
	if f.d.sealed && f.name != cursorName {
		return 0, syscall.EIO
	}
	return f.file.WriteAt(b, off)
}

func (f brittleFile) Sync() error {
	if f.d.broken {
		return syscall.EIO
	}
	if f.d.failing {
		f.d.landSome(f.file.(*simFile).n)
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

// A write failed, its numbers went to other records, and a power cut undid the
// removal of what it left: that is void, because the next segment begins with the
// same number. A page of it is unreadable, too. It does not come back when the next
// segment has been dropped.
func TestWhatIsVoidDoesNotComeBackBecauseAPageOfItIsUnreadable(t *testing.T) {
	for bad := range int64(2) {
		t.Run(fmt.Sprint("page ", bad), func(t *testing.T) {
			d := &brittle{simFolder: newSimFolder(rand.New(rand.NewPCG(1, 1)))}
			q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
			if err != nil {
				t.Fatal(err)
			}
			if err := q.cursor.settle(q.mark()); err != nil {
				t.Fatal(err)
			}
			d.broken = true
			for n, size := range []int{100, 5000, 100} { // in one write, of two pages
				p := q.Submit(Record{uint64(n) + 1, 1, make([]byte, size)})
				defer func() {
					if err := p.Wait(t.Context()); err == nil {
						t.Error("a record was confirmed that could not be synced")
					}
				}()
			}
			if err := q.commitNext(); err == nil {
				t.Fatal("it could be synced")
			}
			d.broken = false
			void := d.names[segmentName(2)] // of the second try
			add(t, q, 1, 3, 3000)
			void.disk, void.unsynced, d.unsynced = slices.Clone(void.cache), nil, nil
			d.cutPower()
			void.bad = map[int64]bool{bad: true}

			q = openSim(t, d.simFolder)
			for next := q.Next(); len(q.lossy) == 0; next++ {
				add(t, q, next, 1, 3000)
			}
			d.kill()
			q = openSim(t, d.simFolder)
			if got := drain(t, q); len(got) == 0 || got[0] <= 3 {
				t.Errorf("drained %v: the numbers up to 3 were dropped, and those of other records before", got)
			}
			if l := q.Losses(); len(l) != 1 || l[0].First != 1 || l[0].Cause != CauseQueueFull {
				t.Errorf("losses %+v", l)
			}
		})
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

// The same where a segment got no record, since its first write failed.
func TestAnIdOfASegmentThatCouldNotBeWrittenIsNotUsedAgain(t *testing.T) {
	for seed := range uint64(20) {
		d := &brittle{simFolder: newSimFolder(rand.New(rand.NewPCG(seed, 1)))}
		q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
		if err != nil {
			t.Fatal(err)
		}
		add(t, q, 1, 1, 100)
		drain(t, q)
		if err := q.roll(); err != nil {
			t.Fatal(err)
		}
		d.sealed = true
		if err := q.Append(t.Context(), Record{2, 1, payload(2, 100)}); err == nil {
			t.Fatal("appended")
		}
		wantNewIds(t, d.simFolder, q.fresh)
	}
}

// The same where the process was killed before it wrote a record.
func TestAnIdOfAnEmptySegmentIsNotUsedAgain(t *testing.T) {
	for seed := range uint64(20) {
		d := newSimFolder(rand.New(rand.NewPCG(seed, 1)))
		q := openSim(t, d)
		add(t, q, 1, 1, 100)
		drain(t, q)
		if err := q.roll(); err != nil {
			t.Fatal(err)
		}
		if err := q.begin(block); err != nil {
			t.Fatal(err)
		}
		wantNewIds(t, d, q.fresh)
	}
}

// wantNewIds wants a queue that is killed, started, and loses its power to go on
// with the ids of segments.
func wantNewIds(t *testing.T, d *simFolder, fresh uint64) {
	t.Helper()
	d.kill()
	openSim(t, d)
	d.cutPower()
	if got := openSim(t, d).fresh; got < fresh {
		t.Fatalf("the next segment has id %d, and %d was in use", got, fresh-1)
	}
}

// The sync of the first cursor failed, and its process was killed. For the next
// one it is in the cache, and another sync would do nothing.
func TestTheFirstCursorIsWrittenAgainIfASyncOfItFailed(t *testing.T) {
	for seed := range uint64(20) {
		d := &brittle{simFolder: newSimFolder(rand.New(rand.NewPCG(seed, 1))), failing: true}
		q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Append(t.Context(), Record{1, 1, payload(1, 100)}); err == nil {
			t.Fatal("appended without a cursor")
		}
		d.kill()
		q = openSim(t, d.simFolder)
		add(t, q, 1, 1, 100)
		d.cutPower()
		c := cursor{dir: d.simFolder}
		if m, found, err := c.load(); err != nil || !found || m.stream != q.Stream() {
			t.Fatalf("seed %d: the cursor is not on the disk: %v, %v", seed, found, err)
		}
	}
}

// A process was killed while it wrote over a slot of the cursor: in the cache the
// slot is torn, and on the disk it is still the newest.
func TestWhatATornSlotHidesDoesNotComeBack(t *testing.T) {
	for seed := range uint64(20) {
		d := newSimFolder(rand.New(rand.NewPCG(seed, 1)))
		q := openSim(t, d)
		add(t, q, 1, 3, 100)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		c := cursor{dir: d}
		m, _, err := c.load()
		if err != nil {
			t.Fatal(err)
		}
		m.next, m.losses = 9, []Loss{{Cause: CauseDamaged, First: 4, Last: 8, Count: 5}}
		slot, n := m.append(nil, c.generation+1), d.names[cursorName]
		n.disk = put(slices.Clone(n.disk), slot, (1-c.slot)*slotGap)
		n.cache = put(slices.Clone(n.disk), make([]byte, slotSize/2), (1-c.slot)*slotGap)

		q = openSim(t, d)
		add(t, q, 4, 2, 100)
		d.cutPower()
		q = openSim(t, d)
		if losses := q.Losses(); len(losses) > 0 || q.Next() != 6 {
			t.Fatalf("seed %d: next %d, lost %+v, of numbers that are there", seed, q.Next(), losses)
		}
	}
}

// Two records were refused after each other, with the same number, and their
// process was killed; the next one finds the second, cannot make it durable, and
// hands it out. Then the power fails.
func TestANumberThatWasHandedOutDoesNotComeBackAsAnotherRecord(t *testing.T) {
	handed := 0
	for seed := range uint64(200) {
		d := &brittle{simFolder: newSimFolder(rand.New(rand.NewPCG(seed, 1)))}
		q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
		if err != nil {
			t.Fatal(err)
		}
		add(t, q, 1, 1, 100)
		if err := q.Ack(1); err != nil {
			t.Fatal(err)
		}
		d.failing = true
		for _, size := range []int{200, 300} {
			if err := q.Append(t.Context(), Record{2, 1, payload(2, size)}); err == nil {
				t.Fatal("appended without a sync")
			}
		}
		d.failing, d.sealed = false, true
		d.kill()
		if q, err = open(q.options, d); err != nil {
			t.Fatal(err)
		}
		size := lengthOf(q, 2)
		d.sealed = false
		d.cutPower()
		again := lengthOf(openSim(t, d.simFolder), 2)
		if size > 0 && again > 0 && size != again {
			t.Errorf("seed %d: number 2 was handed out with %d bytes and with %d", seed, size, again)
		}
		if size > 0 {
			handed++
		}
	}
	if handed == 0 {
		t.Error("it was never handed out")
	}
}

// lengthOf returns how large the first record is that is handed out, which has a
// number; 0 where there is none.
func lengthOf(q *Queue, number uint64) int {
	records, err := q.Peek(nil, 1)
	if err != nil || len(records) == 0 || records[0].First != number {
		return 0
	}
	return len(records[0].Data)
}

// clearSegments removes all segments, as delivery does in the end.
func clearSegments(d *simFolder) {
	for name := range d.names {
		if _, ok := segmentID(name); ok {
			delete(d.names, name)
		}
	}
}

// shortened returns a folder whose queue was closed with the records 1 and 2,
// and has lost the end of its segment since: the cursor alone knows of 2, and of
// its slots only the newer one.
func shortened(t *testing.T, seed uint64) *brittle {
	t.Helper()
	d := &brittle{simFolder: newSimFolder(rand.New(rand.NewPCG(seed, 1)))}
	q := openSim(t, d.simFolder)
	add(t, q, 1, 1, 100)
	end := q.active.end
	add(t, q, 2, 1, 100)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	n := d.names[segmentName(1)]
	n.cache, n.disk, n.unsynced = n.cache[:end:end], slices.Clone(n.cache[:end]), nil
	return d
}

// A start finds from the newer slot that a number is lost, and tells it. Then a
// write tears that slot and the power fails.
func TestANumberThatAStartToldLostIsNotGivenAgain(t *testing.T) {
	for seed := range uint64(50) {
		d := shortened(t, seed)
		q := openSim(t, d.simFolder)
		if l := q.Losses(); len(l) != 1 || l[0].First != 2 || l[0].Last != 2 {
			t.Fatalf("losses %+v", l)
		}
		q.Declared()
		d.fault = 1
		if err := q.Ack(1); err == nil {
			t.Fatal("a broken disk took the cursor")
		}
		d.fault = 0
		d.cutPower()
		if next := openSim(t, d.simFolder).Next(); next != 3 {
			t.Fatalf("seed %d: number 2 was declared lost, and the next number is %d", seed, next)
		}
	}
}

// A disk that refuses the cursor keeps the losses back, and no record. They are
// told when the next number is durable: in the cursor, or as the base of a
// segment that holds a record.
func TestALossIsToldWhenItsNumbersCannotBeGivenAgain(t *testing.T) {
	for name, repaired := range map[string]func(t *testing.T, q *Queue){
		"by a read":    func(t *testing.T, q *Queue) { peekAll(t, q, 1) },
		"by an append": func(t *testing.T, q *Queue) { add(t, q, 3, 1, 100) },
	} {
		t.Run(name, func(t *testing.T) {
			d := shortened(t, 1)
			settled := openSim(t, d.simFolder) // which seals the segment
			if err := settled.Close(); err != nil {
				t.Fatal(err)
			}
			d.broken = true
			q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
			if err != nil {
				t.Fatal(err)
			}
			if got := peekAll(t, q, 1); !slices.Equal(got, []uint64{1}) || len(q.lossy) > 0 || q.Losses() != nil {
				t.Fatalf("read %v; or a loss was told that the disk does not know", got)
			}
			d.broken = false
			repaired(t, q)
			if len(q.lossy) == 0 {
				t.Error("nobody was woken")
			}
			if l := q.Losses(); len(l) != 1 || l[0].First != 2 || l[0].Last != 2 {
				t.Fatalf("losses %+v", l)
			}
			q.Declared()
			d.cutPower()
			if next := openSim(t, d.simFolder).Next(); next < 3 {
				t.Errorf("number 2 was declared lost, and the next number is %d", next)
			}
		})
	}
}

// A page with records that are acknowledged cannot be read, so a start
// counts fewer records in the segment than the cursor says lie before the rest.
// Then that rest is dropped.
func TestWhatIsDroppedBehindAnUnreadablePageIsDeclared(t *testing.T) {
	d := newSimFolder(rand.New(rand.NewPCG(1, 1)))
	start := func() *Queue {
		q, err := open(Options{Dir: "sim", MaxBytes: 2 * MinBytes}, d)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	q := start()
	for n := range uint64(10) { // the headers of 5 to 8 lie in the second page
		add(t, q, n+1, 1, 1000)
	}
	peekAll(t, q, 1<<20)
	if err := q.Ack(8); err != nil {
		t.Fatal(err)
	}
	d.kill()
	d.names[segmentName(1)].bad = map[int64]bool{1: true}
	q = start()
	if s := q.Stats(); s.Records != 2 || s.Events != 2 {
		t.Errorf("records are left, and the queue counts %+v", s)
	}
	for next := q.Next(); len(q.lossy) == 0 && next < 100; next++ {
		add(t, q, next, 1, 3000)
	}
	if l := q.Losses(); len(l) != 1 || l[0].First != 9 || l[0].Count != l[0].Last-8 {
		t.Errorf("records 9 and 10 were dropped, and the losses are %+v", l)
	}
}

// A process cut a segment and was killed before that was on the disk, and the
// next start may not seal it: what was cut off may come back, and takes up room.
func TestASegmentThatAStartCannotSealCountsInFull(t *testing.T) {
	d := &brittle{simFolder: newSimFolder(rand.New(rand.NewPCG(1, 1)))}
	q := openSim(t, d.simFolder)
	add(t, q, 1, 1, 5000)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = openSim(t, d.simFolder)
	add(t, q, 2, 1, 100)
	d.kill()
	d.names[segmentName(1)].bad = map[int64]bool{1: true} // with the footer
	d.broken = true
	q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := q.Stats().DiskBytes, blocks(cursorSize)+2*q.options.SegmentBytes; got != want {
		t.Errorf("%d bytes are counted, and %d may lie on the disk", got, want)
	}
}

// A crossing folder fails the syncs of segments, and lets the removal of one and
// the next write of the cursor meet: each of them waits for the other a moment.
type crossing struct {
	folder
	of                 string // the segment
	broken             bool   // now they fail
	removing, cursored chan struct{}
	dropped            func() bool
}

func (d *crossing) Create(name string) (file, error) { return d.wrap(name)(d.folder.Create(name)) }

func (d *crossing) Open(name string, write bool) (file, error) {
	return d.wrap(name)(d.folder.Open(name, write))
}

func (d *crossing) wrap(name string) func(file, error) (file, error) {
	return func(f file, err error) (file, error) { return crossingFile{f, d, name}, err }
}

func (d *crossing) Remove(name string) error {
	if name == d.of {
		d.of = ""
		close(d.removing)
		select {
		case <-d.cursored:
		case <-time.After(200 * time.Millisecond): // as it should be
		}
	}
	return d.folder.Remove(name)
}

type crossingFile struct {
	file
	d    *crossing
	name string
}

func (f crossingFile) Sync() error {
	if f.d.broken && f.name != cursorName {
		return syscall.EIO
	}
	select {
	case <-f.d.removing:
		select {
		case <-f.d.cursored:
		default:
			close(f.d.cursored)
			for range 200 {
				if f.d.dropped() {
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
	default:
	}
	return f.file.Sync()
}

// An acknowledgement came while a segment went whose first write had failed: both
// removed it, and the queue panicked.
func TestAnAcknowledgementMayMeetAFailedWrite(t *testing.T) {
	d := &crossing{folder: osFolder(t.TempDir()), of: segmentName(2), removing: make(chan struct{}), cursored: make(chan struct{})}
	q, err := open(Options{Dir: "crossing", MaxBytes: MinBytes}, d)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	d.dropped = func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return len(q.segments) < 2
	}
	add(t, q, 1, 1, 100)
	if got := peekAll(t, q, 1); !slices.Equal(got, []uint64{1}) {
		t.Fatal(got)
	}
	d.broken = true
	acknowledged := make(chan error)
	go func() {
		<-d.removing
		acknowledged <- q.Ack(1)
	}()
	if err := q.Append(t.Context(), Record{2, 1, []byte("refused")}); err == nil {
		t.Error("a record was confirmed that could not be synced")
	}
	if err := <-acknowledged; err != nil {
		t.Error(err)
	}
	if s := q.Stats(); s.Records != 0 || s.Bytes < 0 {
		t.Errorf("%+v", s)
	}
}

// A shy folder does not open to read the segments, or the file that is named, and
// says why.
type shy struct {
	*simFolder
	why   error
	file  string
	times int // that it fails; 0 is always
}

func (d *shy) Open(name string, write bool) (file, error) {
	if d.why != nil && !write && (name == d.file || d.file == "" && name != cursorName) {
		why := d.why
		if d.times--; d.times == 0 {
			d.why = nil
		}
		return nil, why
	}
	return d.simFolder.Open(name, write)
}

// A file that cannot be opened for want of descriptors, or because a scanner has
// it, is as it was: nothing of it is given up, however often it is tried. One
// that is gone, or that the disk does not give back, is given up.
func TestOnlyWhatIsGoneIsGivenUp(t *testing.T) {
	moment := ofTheMoment()
	for _, c := range []struct {
		why  error
		lost bool
	}{
		{moment[0], false}, {moment[1], false}, {moment[2], false},
		{fs.ErrNotExist, true}, {syscall.EIO, true},
	} {
		t.Run(c.why.Error(), func(t *testing.T) {
			d := &shy{simFolder: newSimFolder(rand.New(rand.NewPCG(1, 1)))}
			q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
			if err != nil {
				t.Fatal(err)
			}
			add(t, q, 1, 1, 100)
			d.why = c.why
			failed := 0
			for range 3 * maxStrikes {
				if _, err := q.Peek(nil, 1); err != nil {
					failed++
				}
			}
			d.why = nil
			records, err := q.Peek(nil, 1)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(records) == 0; got != c.lost {
				t.Errorf("after %d errors %d records are left", failed, len(records))
			}
			if losses := q.Losses(); (len(losses) == 1) != c.lost || len(losses) > 1 {
				t.Errorf("declared: %+v", losses)
			}
		})
	}
}

// Without a cursor the newest segment says which queue it is. That it could not be
// opened for a moment does not make another queue of it, to which nothing belongs.
func TestAQueueIsNotAnotherOneBecauseItsSegmentCouldNotBeOpened(t *testing.T) {
	for _, why := range ofTheMoment() {
		t.Run(why.Error(), func(t *testing.T) {
			d := &shy{simFolder: newSimFolder(rand.New(rand.NewPCG(1, 1))), file: segmentName(1)}
			q := openSim(t, d.simFolder)
			add(t, q, 1, 1, 100)
			d.kill()
			delete(d.names, cursorName)
			d.why, d.times = fmt.Errorf("open %s: %w", d.file, why), 1
			q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
			if err != nil {
				q = openSim(t, d.simFolder)
			}
			if got := drain(t, q); !slices.Equal(got, []uint64{1}) {
				t.Errorf("opened with %v, drained %v", err, got)
			}
		})
	}
}

// ofTheMoment returns errors of opening a file that may pass.
func ofTheMoment() []error {
	if runtime.GOOS == "windows" { // too many open files, access denied, sharing violation
		return []error{syscall.Errno(4), syscall.Errno(5), syscall.Errno(32)}
	}
	return []error{syscall.EMFILE, syscall.ENFILE, syscall.EACCES}
}

// A start that cannot open a file for such a reason does not begin without it, and
// says which and why. The next one finds all.
func TestAStartGivesUpNothingThatItMayNotOpen(t *testing.T) {
	for _, file := range []string{cursorName, segmentName(1), segmentName(2)} {
		for _, why := range ofTheMoment() {
			t.Run(fmt.Sprint(file, why), func(t *testing.T) {
				d := &shy{simFolder: newSimFolder(rand.New(rand.NewPCG(1, 1))), file: file}
				for n := range uint64(2) {
					q := openSim(t, d.simFolder)
					add(t, q, n+1, 1, 100)
					if err := q.Close(); err != nil {
						t.Fatal(err)
					}
				}
				d.why = fmt.Errorf("open %s: %w", file, why)
				if _, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d); !errors.Is(err, why) || !strings.Contains(err.Error(), file) {
					t.Fatalf("opened: %v", err)
				}
				q := openSim(t, d.simFolder)
				if got := drain(t, q); !slices.Equal(got, []uint64{1, 2}) {
					t.Errorf("drained %v", got)
				}
			})
		}
	}
}

// Undeclared losses that were joined name numbers that lie in the queue. When these
// are dropped as well, and a kill comes before the cursor can say so, they are not
// taken for some that were counted before.
func TestWhatIsDroppedAmongJoinedLossesIsDeclared(t *testing.T) {
	d := newSimFolder(rand.New(rand.NewPCG(1, 1)))
	q, err := open(Options{Dir: "sim", MaxBytes: MinBytes, SegmentBytes: block}, d)
	if err != nil {
		t.Fatal(err)
	}
	drop := func(n int) {
		for ; n > 0; n-- {
			for len(q.lossy) == 0 {
				add(t, q, q.Next(), 1, 3000)
			}
			<-q.lossy
		}
	}
	add(t, q, 1, 1, 3000)
	var pinned uint64 // on its way while those behind it are dropped
	for n := range markLosses + 2 {
		pinned = peekAll(t, q, 1)[0]
		drop(2 + max(0, markLosses-n))
		if n < markLosses+1 {
			if err := q.Ack(pinned); err != nil {
				t.Fatal(err)
			}
		}
	}
	restart := func() {
		d.kill()
		q = openSim(t, d)
		<-q.lossy
	}
	restart()
	if !slices.ContainsFunc(q.losses, func(l Loss) bool { return l.First < pinned && pinned < l.Last }) {
		t.Fatalf("number %d is not among the joined losses %+v: this test shows nothing", pinned, q.losses)
	}
	drop(1)
	restart()
	arrived, declared := uint64(markLosses+1+len(drain(t, q))), uint64(0)
	for _, l := range q.Losses() {
		declared += l.Count
	}
	if arrived+declared < q.Next()-1 {
		t.Errorf("of %d numbers %d arrived and %d are declared", q.Next()-1, arrived, declared)
	}
}

func TestJoinedLossesTellOfWhatTheyCertainlyCount(t *testing.T) {
	others := make([]Loss, markLosses-2)
	for i := range others {
		n := uint64(10*i + 1)
		others[i] = Loss{Cause: CauseDiskFull, First: n, Last: n + 1, Count: 2}
	}
	between := Loss{Cause: CauseQueueFull, First: 182, Last: 186, Count: 5}
	for name, c := range map[string]struct {
		acked  uint64
		counts uint64 // of the numbers from 176 to 190
		want   []hole
	}{
		"all that is missing":   {175, 10, nil},
		"less":                  {175, 9, []hole{{176, 182}, {187, 191}}},
		"all, delivered or not": {178, 10, nil},
		"perhaps what came before what is missing": {178, 9, []hole{{179, 182}, {187, 191}}},
	} {
		t.Run(name, func(t *testing.T) {
			told := append(slices.Clone(others), Loss{Cause: CauseDamaged, First: 176, Last: 190, Count: c.counts}, between)
			got := untold([]hole{{c.acked + 1, 191}, {300, 300}}, told, c.acked)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// A busy folder does not give back what lies in the file that is named, and says why.
type busyFolder struct {
	*simFolder
	why  error
	file string
}

type busyFile struct {
	file
	d    *busyFolder
	name string
}

func (d *busyFolder) Open(name string, write bool) (file, error) {
	f, err := d.simFolder.Open(name, write)
	return busyFile{f, d, name}, err
}

func (f busyFile) ReadAt(b []byte, off int64) (int, error) {
	if f.d.why != nil && f.name == f.d.file {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: f.d.why}
	}
	return f.file.ReadAt(b, off)
}

// What cannot be read because memory is short, or because somebody has locked it, is
// as it was: neither a start nor a reader gives it up.
func TestNothingIsGivenUpThatCannotBeReadAtTheMoment(t *testing.T) {
	moment := []error{syscall.ENOMEM, syscall.EAGAIN}
	if runtime.GOOS == "windows" { // not enough memory, locked, no resources
		moment = []error{syscall.Errno(8), syscall.Errno(33), syscall.Errno(1450)}
	}
	for _, name := range []string{cursorName, segmentName(1), segmentName(2)} {
		for _, why := range moment {
			t.Run(fmt.Sprint(name, why), func(t *testing.T) {
				d := &busyFolder{simFolder: newSimFolder(rand.New(rand.NewPCG(1, 1))), file: name}
				q := openSim(t, d.simFolder)
				add(t, q, 1, 1, 100)
				if err := q.Close(); err != nil {
					t.Fatal(err)
				}
				q = openSim(t, d.simFolder)
				add(t, q, 2, 1, 100)
				d.kill()
				d.why = why
				_, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
				if !errors.Is(err, why) || !strings.Contains(err.Error(), name) {
					t.Errorf("got %v", err)
				}
				d.why = nil
				q = openSim(t, d.simFolder)
				if got := drain(t, q); !slices.Equal(got, []uint64{1, 2}) {
					t.Errorf("drained %v", got)
				}
				if l := q.Losses(); len(l) > 0 {
					t.Errorf("losses %+v", l)
				}
			})
		}
	}
}

func TestAReaderWaitsForWhatCannotBeReadAtTheMoment(t *testing.T) {
	d := &busyFolder{simFolder: newSimFolder(rand.New(rand.NewPCG(1, 1))), file: segmentName(1)}
	q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
	if err != nil {
		t.Fatal(err)
	}
	add(t, q, 1, 1, 100)
	for _, d.why = range ofTheMoment() {
		for range 3 * maxStrikes {
			if _, err := q.Peek(nil, 1); !errors.Is(err, d.why) || q.Stats().State != "io_error" {
				t.Fatalf("got %v, the state is %s", err, q.Stats().State)
			}
		}
	}
	d.why = nil
	if got := drain(t, q); !slices.Equal(got, []uint64{1}) {
		t.Errorf("drained %v, losses %+v", got, q.Losses())
	}
}

// A holding folder does not remove the file that is named.
type holding struct {
	*simFolder
	file string
}

func (d *holding) Remove(name string) error {
	if name == d.file {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.EBUSY}
	}
	return d.simFolder.Remove(name)
}

// On Windows nobody can remove a file that somebody has open. That keeps its own
// room, and not that of all that is delivered behind it.
func TestAFileThatIsHeldKeepsNoOtherFromBeingRemoved(t *testing.T) {
	d := &holding{newSimFolder(rand.New(rand.NewPCG(1, 1))), segmentName(2)}
	q, err := open(Options{Dir: "sim", MaxBytes: MinBytes}, d)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(100) {
		add(t, q, n+1, 1, 3000)
		if got := drain(t, q); !slices.Equal(got, []uint64{n + 1}) {
			t.Fatalf("drained %v", got)
		}
	}
	if l := q.Losses(); len(l) > 0 || len(q.segments) > 3 {
		t.Errorf("losses %+v, %d segments", l, len(q.segments))
	}
	d.file = ""
	add(t, q, 101, 1, 3000)
	add(t, q, 102, 1, 6000)
	drain(t, q)
	if d.names[segmentName(2)] != nil || len(q.segments) > 2 {
		t.Errorf("%d segments, the one that was held is there: %v", len(q.segments), d.names[segmentName(2)] != nil)
	}
}
