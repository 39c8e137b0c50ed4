package queue

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
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
