package queue

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

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
