package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

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
