package queue

import (
	"io/fs"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
)

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
