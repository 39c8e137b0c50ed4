package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// renumber moves everything to fresh, numbered from 1, with the data as they
// are, and declares what was lost.
func renumber(t *testing.T, old *Queue, seen func()) func(*Queue) error {
	return func(fresh *Queue) error {
		err := old.Each(func(r Record) error {
			r.First = fresh.Next()
			seen()
			return fresh.Append(t.Context(), r)
		})
		seen()
		old.Losses()
		old.Declared()
		return err
	}
}

// contents drains a queue and returns what the records were appended as.
func contents(t *testing.T, q *Queue) (data []string) {
	t.Helper()
	for {
		got, err := q.Peek(nil, 16<<10)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			return data
		}
		for _, r := range got {
			name, _, _ := strings.Cut(string(r.Data), ">")
			data = append(data, name)
		}
		if err := q.Ack(got[len(got)-1].last()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARenewedQueueIsANewStreamWithWhatWasNotDelivered(t *testing.T) {
	q := mustOpen(t, Options{Dir: filepath.Join(t.TempDir(), "queue")})
	for n := range uint64(20) {
		add(t, q, n*3+1, 3, 5000)
	}
	if err := q.Ack(18); err != nil {
		t.Fatal(err)
	}
	before := q.Stream()
	renewed, err := q.Renew(renumber(t, q, func() {}))
	if err != nil {
		t.Fatal(err)
	}
	defer renewed.Close()
	if renewed.Stream() == before || renewed.Next() != 14*3+1 || renewed.Stats().Events != 14*3 {
		t.Errorf("stream %s after %s, next %d, %+v", renewed.Stream(), before, renewed.Next(), renewed.Stats())
	}
	var want []string
	for n := range 14 {
		want = append(want, fmt.Sprintf("<%d", (n+6)*3+1))
	}
	if diff := cmp.Diff(want, contents(t, renewed)); diff != "" {
		t.Error(diff)
	}
	if left, _ := filepath.Glob(q.path + ".*"); len(left) != 1 || filepath.Ext(left[0]) != swapSuffix {
		t.Errorf("left over: %v", left)
	}
}

func TestARenewedQueueThatWasEmptyKeepsItsStream(t *testing.T) {
	q := mustOpen(t, Options{Dir: filepath.Join(t.TempDir(), "queue")})
	var stream Stream
	renewed, err := q.Renew(func(fresh *Queue) error { stream = fresh.Stream(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer renewed.Close()
	if renewed.Stream() != stream || stream == q.Stream() {
		t.Errorf("stream %s, then %s, before %s", stream, renewed.Stream(), q.Stream())
	}
}

func TestAMoveThatFailsLeavesTheQueueAsItWas(t *testing.T) {
	for name, refuse := range map[string]bool{"error": true, "undeclared losses": false} {
		t.Run(name, func(t *testing.T) {
			q := mustOpen(t, Options{Dir: filepath.Join(t.TempDir(), "queue"), MaxBytes: MinBytes})
			for n := range uint64(40) {
				add(t, q, n+1, 1, 3000)
			}
			before, events := q.Losses(), q.Stats().Events
			same, err := q.Renew(func(fresh *Queue) error {
				err := q.Each(func(r Record) error { r.First = fresh.Next(); return fresh.Append(t.Context(), r) })
				if refuse {
					q.Losses()
					q.Declared()
					err = errors.Join(err, errors.New("no"))
				}
				return err
			})
			if err == nil || same != q {
				t.Fatalf("renewed: %v", err)
			}
			if diff := cmp.Diff(before, q.Losses()); diff != "" {
				t.Error(diff)
			}
			if left, _ := filepath.Glob(q.path + newSuffix); left != nil {
				t.Errorf("left over: %v", left)
			}
			if got := contents(t, q); uint64(len(got)) != events || q.Next() != 41 {
				t.Errorf("%d of %d records, next %d", len(got), events, q.Next())
			}
		})
	}
}

func TestWhatAFullQueueCannotTakeAlongIsDeclared(t *testing.T) {
	q := mustOpen(t, Options{Dir: filepath.Join(t.TempDir(), "queue"), MaxBytes: 512 << 10})
	next := uint64(1)
	for len(q.lossy) == 0 {
		add(t, q, next, 2, q.MaxRecord()/2)
		next += 2
	}
	undelivered, most := q.Stats().Events, int64(0)
	renewed, err := q.Renew(renumber(t, q, func() {
		dirs, _ := filepath.Glob(q.path + "*")
		sum := int64(0)
		for _, d := range dirs {
			if d != q.path+swapSuffix {
				sum += diskUse(t, d)
			}
		}
		most = max(most, sum)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer renewed.Close()
	if limit := int64(512<<10)*5/4 + 2*block; most > limit {
		t.Errorf("both took up %d bytes, more than %d", most, limit)
	}
	kept := 2 * uint64(len(contents(t, renewed)))
	losses := renewed.Losses()
	if len(losses) != 1 || kept == 0 || losses[0].First != 1 || kept+losses[0].Count != undelivered {
		t.Errorf("%d of %d numbers kept, lost %+v", kept, undelivered, losses)
	}
}

func TestDamageIsDeclaredOnTheWay(t *testing.T) {
	q := mustOpen(t, Options{Dir: filepath.Join(t.TempDir(), "queue")})
	for n := range uint64(10) {
		add(t, q, n+1, 1, 100)
	}
	f, err := os.OpenFile(filepath.Join(q.path, segmentName(1)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := int64(headerSize) + 3*frame{length: 100}.size() + frameSize
	if _, err := f.WriteAt([]byte("damage"), at); err != nil {
		t.Fatal(err)
	}
	var firsts []uint64
	for range 2 {
		firsts = nil
		if err := q.Each(func(r Record) error { firsts = append(firsts, r.First); return nil }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]uint64{1, 2, 3, 5, 6, 7, 8, 9, 10}, firsts); diff != "" {
			t.Error(diff)
		}
		if l := q.Losses(); len(l) != 1 || l[0].First != 4 || l[0].Count != 1 || l[0].Cause != CauseDamaged {
			t.Errorf("losses %+v", l)
		}
	}
	if got := drain(t, q); len(got) != 9 {
		t.Errorf("drained %v", got)
	}
}

// A watched disk is copied before and after each call, and between the files
// that a removal removes: each copy is what a kill leaves there.
type watched struct {
	osRenamer
	look func()
}

func (w watched) Rename(from, to string) error {
	w.look()
	defer w.look()
	return w.osRenamer.Rename(from, to)
}

func (w watched) RemoveAll(dir string) error {
	w.look()
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
		w.look()
	}
	return w.osRenamer.RemoveAll(dir)
}

func TestAKillWhileRenewingLeavesOneQueueWhole(t *testing.T) {
	root := t.TempDir()
	live, copies := filepath.Join(root, "live"), 0
	look := func() {
		copies++
		if err := os.CopyFS(filepath.Join(root, fmt.Sprint(copies)), os.DirFS(live)); err != nil {
			t.Fatal(err)
		}
	}
	q := mustOpen(t, Options{Dir: filepath.Join(live, "queue")})
	for n := range uint64(30) {
		add(t, q, n+1, 1, 9000)
	}
	if err := q.Ack(3); err != nil {
		t.Fatal(err)
	}
	q.mu.Lock() // a loss that the cursor remembers
	q.loseLocked(Loss{Cause: CauseDamaged, First: 2, Last: 2, Count: 1})
	q.mu.Unlock()
	if err := q.Ack(4); err != nil {
		t.Fatal(err)
	}
	old := q.Stream()
	renewed, err := q.renew(watched{look: look}, renumber(t, q, look))
	if err != nil {
		t.Fatal(err)
	}
	fresh := renewed.Stream()
	if err := renewed.Close(); err != nil {
		t.Fatal(err)
	}
	look()
	olds := 0
	for first, last := 1, copies; first <= last; first++ {
		from := filepath.Join(root, fmt.Sprint(first), "queue")
		// A second kill, while the next start tidies up.
		live = filepath.Dir(from)
		if err := settleSwap(watched{look: look}, from); err != nil {
			t.Fatal(err)
		}
	}
	for i := range copies {
		q, err := Open(Options{Dir: filepath.Join(root, fmt.Sprint(i+1), "queue"), MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		losses := 0
		switch q.Stream() {
		case old:
			olds++
			losses = 1
		case fresh:
		default:
			t.Fatalf("copy %d: stream %s", i+1, q.Stream())
		}
		if l := q.Losses(); len(l) != losses {
			t.Errorf("copy %d: losses %+v", i+1, l)
		}
		var want []string
		for n := 5; n <= 30; n++ {
			want = append(want, fmt.Sprintf("<%d", n))
		}
		if diff := cmp.Diff(want, contents(t, q)); diff != "" {
			t.Fatalf("copy %d, stream %s: %s", i+1, q.Stream(), diff)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		left, _ := filepath.Glob(q.path + ".*")
		for _, name := range left {
			if filepath.Ext(name) != swapSuffix {
				t.Errorf("copy %d: %s is left over", i+1, name)
			}
		}
	}
	t.Logf("%d kills: %d times the old queue, %d times the new one", copies, olds, copies-olds)
}

// A failing disk reports an error for the call that left counts down to, which
// it has done all the same, or not.
type failing struct {
	osRenamer
	left *int
	done bool
}

func (f failing) try() error {
	if *f.left--; *f.left == 0 {
		return errors.New("refused")
	}
	return nil
}

func (f failing) Rename(from, to string) error {
	err := f.try()
	if err != nil && !f.done {
		return err
	}
	return errors.Join(err, f.osRenamer.Rename(from, to))
}

func (f failing) RemoveAll(dir string) error {
	if err := f.try(); err != nil {
		return err
	}
	return f.osRenamer.RemoveAll(dir)
}

func (f failing) Sync(name string) error { return errors.Join(f.try(), f.osRenamer.Sync(name)) }

func TestACallThatFailsWhileRenewingLosesNothing(t *testing.T) {
	for n := range 20 {
		q := mustOpen(t, Options{Dir: filepath.Join(t.TempDir(), "queue")})
		for n := range uint64(10) {
			add(t, q, n+1, 1, 900)
		}
		left := n/2 + 1
		renewed, err := q.renew(failing{left: &left, done: n%2 == 0}, renumber(t, q, func() {}))
		if renewed == nil {
			if renewed, err = Open(q.options); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil && renewed.Stream() != q.Stream() {
			t.Errorf("call %d failed, and the new queue took over: %v", n/2+1, err)
		}
		if got := contents(t, renewed); len(got) != 10 {
			t.Errorf("call %d failed: %v: %v", n/2+1, err, got)
		}
		if err := renewed.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNobodyOpensAQueueThatIsBeingRenewed(t *testing.T) {
	q := mustOpen(t, Options{Dir: filepath.Join(t.TempDir(), "queue")})
	add(t, q, 1, 1, 10)
	renewed, err := q.Renew(func(fresh *Queue) error {
		if second, err := Open(q.options); err == nil {
			second.Close()
			return errors.New("a second agent opened it")
		}
		return renumber(t, q, func() {})(fresh)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, renewed); len(got) != 1 {
		t.Error(got)
	}
	if err := renewed.Close(); err != nil {
		t.Error(err)
	}
}
