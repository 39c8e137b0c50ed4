package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/metric"
)

// mustOpen opens a queue that is closed with the test.
func mustOpen(t testing.TB, o Options) *Queue {
	t.Helper()
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 20
	}
	q, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// reopen closes q and opens its folder again.
func reopen(t testing.TB, q *Queue) *Queue {
	t.Helper()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, q.options)
}

// payload is what the tests append for a number, so that a wrong one is seen.
func payload(number uint64, size int) []byte {
	b := bytes.Repeat([]byte{byte(number), byte(number >> 8), 0, 0xEA, 0x5A, 0, 0, 7}, size/8+2)
	copy(b, fmt.Sprintf("<%d>", number))
	return b[:size]
}

func add(t testing.TB, q *Queue, first uint64, count uint32, size int) {
	t.Helper()
	if err := q.Append(t.Context(), Record{first, count, payload(first, size)}); err != nil {
		t.Fatal(err)
	}
}

// peekAll returns the first numbers of the records that Peek gives, and checks
// their data.
func peekAll(t testing.TB, q *Queue, max int) (firsts []uint64) {
	t.Helper()
	records, err := q.Peek(nil, max)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if want := payload(r.First, len(r.Data)); !bytes.Equal(r.Data, want) {
			t.Fatalf("record %d: data %.40q, want %.40q", r.First, r.Data, want)
		}
		firsts = append(firsts, r.First)
	}
	return firsts
}

// drain reads and acknowledges everything, and returns the first numbers.
func drain(t testing.TB, q *Queue) (firsts []uint64) {
	t.Helper()
	for {
		got, err := q.Peek(nil, 16<<10)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			return firsts
		}
		for _, r := range got {
			if want := payload(r.First, len(r.Data)); !bytes.Equal(r.Data, want) {
				t.Fatalf("record %d: data %.40q, want %.40q", r.First, r.Data, want)
			}
			firsts = append(firsts, r.First)
		}
		if err := q.Ack(got[len(got)-1].last()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordsComeBackInOrderUntilAcknowledged(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir()})
	if q.Next() != 1 {
		t.Fatalf("next is %d in a new queue", q.Next())
	}
	add(t, q, 1, 10, 100)
	add(t, q, 11, 1, 0)
	add(t, q, 20, 5, 70000) // a jump, and a record above the direct size
	if q.Next() != 25 {
		t.Fatalf("next is %d, want 25", q.Next())
	}
	for _, step := range []struct {
		ack  uint64
		want []uint64
	}{
		{0, []uint64{1, 11, 20}},
		{5, []uint64{1, 11, 20}}, // half a record is not a record
		{10, []uint64{11, 20}},
		{19, []uint64{20}},
		{24, nil},
		{3, nil}, // old news
	} {
		if err := q.Ack(step.ack); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if diff := cmp.Diff(step.want, peekAll(t, q, 1<<20)); diff != "" {
				t.Fatalf("after ack %d: %s", step.ack, diff)
			}
		}
	}
	if err := q.Ack(25); err == nil {
		t.Fatal("a number that was never given was acknowledged")
	}
	if l := q.Losses(); l != nil {
		t.Fatalf("losses: %v", l)
	}
}

func TestPeekGivesAboutMaxBytes(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir()})
	for n := range uint64(10) {
		add(t, q, n+1, 1, 1000)
	}
	for max, want := range map[int]int{0: 1, 1: 1, 1000: 1, 1999: 1, 2000: 2, 5500: 5, 1 << 20: 10} {
		if got := len(peekAll(t, q, max)); got != want && !(max > 1000 && got == want-1) {
			t.Errorf("Peek(%d) gave %d records, want %d", max, got, want)
		}
	}
}

func TestNothingIsForgottenOverRestarts(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir()})
	for i := range uint64(20) {
		add(t, q, 2*i+1, 2, 300)
		if i%3 == 2 {
			if err := q.Ack(i); err != nil {
				t.Fatal(err)
			}
		}
		q = reopen(t, q)
		if q.Next() != 2*i+3 {
			t.Fatalf("next is %d, want %d", q.Next(), 2*i+3)
		}
		if s := q.Stats(); s.State != "ok" || s.Events != s.Records*2 {
			t.Fatalf("stats: %+v", s)
		}
	}
	stream := q.Stream()
	if got := drain(t, q); len(got) != 12 || got[0] != 17 {
		t.Fatalf("drained %v", got)
	}
	q = reopen(t, q)
	if q.Next() != 41 || q.Stream() != stream || stream == (Stream{}) {
		t.Fatalf("next is %d after everything went, want 41", q.Next())
	}
	if s := q.Stats(); s.Records != 0 || s.Bytes != 0 || s.Events != 0 || !s.Oldest.IsZero() {
		t.Fatalf("stats of an empty queue: %+v", s)
	}
	if l := q.Losses(); l != nil {
		t.Fatalf("losses: %v", l)
	}
}

func TestAcknowledgedFromAfarAfterRestart(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir(), MaxBytes: 256 << 10})
	for i := range uint64(100) {
		add(t, q, i*3+1, 3, 900)
	}
	q = reopen(t, q)
	if err := q.Ack(200); err != nil { // the receiver says where the stream stands
		t.Fatal(err)
	}
	if s := q.Stats(); s.Records != 34 {
		t.Fatalf("%d records are left, want 34", s.Records)
	}
	q = reopen(t, q)
	if s := q.Stats(); s.Records != 34 {
		t.Fatalf("%d records are left, want 34", s.Records)
	}
	if got := drain(t, q); got[0] != 199 || len(got) != 34 {
		t.Fatalf("drained %v", got)
	}
}

func TestTheBoundHoldsAndTheOldestIsDeclaredLost(t *testing.T) {
	dir := t.TempDir()
	set := new(metric.Set)
	q := mustOpen(t, Options{Dir: dir, MaxBytes: 128 << 10, Metrics: set, Lane: "events"})
	lost, next := map[uint64]bool{}, uint64(1)
	for range 400 {
		add(t, q, next, 3, 1500)
		next += 3
		if got := diskUse(t, dir); got > 128<<10 {
			t.Fatalf("the folder takes up %d bytes", got)
		} else if s := q.Stats(); s.DiskBytes < got {
			t.Fatalf("the queue counts %d bytes, the folder has %d", s.DiskBytes, got)
		}
	}
	if s := q.Stats(); s.State != "full" {
		t.Errorf("state %q of a full queue", s.State)
	}
	losses := q.Losses()
	if len(losses) != 1 || losses[0].Cause != CauseQueueFull || losses[0].First != 1 || losses[0].Since.IsZero() {
		t.Fatalf("losses: %+v", losses)
	}
	for n := losses[0].First; n <= losses[0].Last; n++ {
		lost[n] = true
	}
	if uint64(len(lost)) != losses[0].Count {
		t.Fatalf("%d numbers in %+v", len(lost), losses[0])
	}
	got := drain(t, q)
	if got[0] != losses[0].Last+1 || uint64(len(got))*3+losses[0].Count != next-1 {
		t.Fatalf("got %d records from %d, lost %d of %d", len(got), got[0], losses[0].Count, next-1)
	}
	var text strings.Builder
	if _, err := set.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("rea_queue_dropped_events_total{lane=\"events\",reason=\"queue_full\"} %d\n", losses[0].Count)
	if !strings.Contains(text.String(), want) || !strings.Contains(text.String(), "rea_queue_events{lane=\"events\"} 0\n") {
		t.Errorf("want %s in:\n%s", want, text.String())
	}
}

// diskUse returns what lies in the folder, in blocks.
func diskUse(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := osFolder(dir).List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		n += blocks(e.size)
	}
	return n
}

func TestALossIsRememberedUntilItIsDeclared(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 10})
	for n := range uint64(100) {
		add(t, q, n+1, 1, 1500)
	}
	<-q.Lossy()
	before := q.Losses()
	q = reopen(t, q)
	<-q.Lossy()
	after := q.Losses()
	if len(before) != 1 || len(after) != 1 || before[0].First != after[0].First || before[0].Last != after[0].Last || after[0].Cause != CauseQueueFull {
		t.Fatalf("before the restart %+v, after it %+v", before, after)
	}
	drain(t, q)
	q = reopen(t, q)
	add(t, q, 101, 1, 10) // which declares nothing
	q = reopen(t, q)
	if l := q.Losses(); len(l) != 1 || l[0] != after[0] {
		t.Fatalf("delivered, but nobody declared the loss: %+v", l)
	}
	q.Declared()
	q = reopen(t, q)
	if l := q.Losses(); l != nil {
		t.Fatalf("delivered and declared: %+v", l)
	}
	select {
	case <-q.Lossy():
		t.Error("woken for no loss")
	default:
	}
}

func TestALossThatCameAfterTheOthersWereTakenIsNotDeclaredWithThem(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 10})
	next := uint64(1)
	lose := func() []Loss {
		for len(q.lossy) == 0 {
			add(t, q, next, 1, 1500)
			next++
		}
		<-q.Lossy()
		return q.Losses()
	}
	first := lose()
	for len(q.lossy) == 0 {
		add(t, q, next, 1, 1500)
		next++
	}
	q.Declared() // the first
	drain(t, q)
	q = reopen(t, q)
	second := q.Losses()
	if len(first) != 1 || len(second) != 1 || second[0].First != first[0].Last+1 {
		t.Fatalf("declared %+v, then told %+v", first, second)
	}
}

func TestWhatIsOnItsWayIsNotDropped(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 10})
	add(t, q, 1, 1, 1500)
	if got := peekAll(t, q, 1<<20); len(got) != 1 {
		t.Fatal(got)
	}
	for n := range uint64(100) {
		add(t, q, n+2, 1, 1500)
	}
	losses := q.Losses()
	if len(losses) != 1 || losses[0].First <= 1 {
		t.Fatalf("losses: %+v", losses)
	}
	if err := q.Ack(1); err != nil {
		t.Fatal(err)
	}
	got := drain(t, q)
	if uint64(len(got))+losses[0].Count != 100 {
		t.Fatalf("%d delivered behind the first, %d lost, of 100", len(got), losses[0].Count)
	}
}

func TestAWriterThatMayWaitsForRoom(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 10, Wait: true})
	ctx, cancel := context.WithCancel(t.Context())
	n := uint64(1)
	for q.Stats().DiskBytes+block <= 64<<10 {
		add(t, q, n, 1, 3000)
		n++
	}
	cancel()
	for err := error(nil); ; n++ {
		if err = q.Append(ctx, Record{n, 1, payload(n, 3000)}); err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			break
		}
	}
	done := make(chan error)
	go func() { done <- q.Append(t.Context(), Record{n, 1, payload(n, 3000)}) }()
	got := drain(t, q)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got = append(got, drain(t, q)...)
	if uint64(len(got)) != n || q.Losses() != nil {
		t.Fatalf("%d of %d delivered", len(got), n)
	}
}

func TestManyWriters(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir(), MaxBytes: 8 << 20})
	const writers, each = 16, 50
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := q.Next()
	for range writers {
		wg.Go(func() {
			for range each {
				mu.Lock()
				p := q.Submit(Record{next, 2, payload(next, 200)})
				next += 2
				mu.Unlock()
				if err := p.Wait(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := uint64(1)
	for seen < writers*each*2 {
		<-q.Ready()
		for _, first := range drain(t, q) {
			if first != seen {
				t.Fatalf("got %d, want %d", first, seen)
			}
			seen += 2
		}
	}
	wg.Wait()
}

func TestRefusals(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "queue")
	q := mustOpen(t, Options{Dir: dir})
	add(t, q, 1, 5, 10)
	add(t, q, 6, 1, 0)
	for name, r := range map[string]Record{
		"used numbers": {6, 1, nil}, "no numbers": {7, 0, nil}, "number 0": {0, 1, nil}, "too high": {1 << 63, 1, nil},
	} {
		if err := q.Append(t.Context(), r); err == nil {
			t.Errorf("%s were accepted", name)
		}
	}
	err := q.Append(t.Context(), Record{7, 1, make([]byte, q.MaxRecord()+1)})
	if !errors.Is(err, ErrTooLarge) || !errors.Is(err, ErrFull) {
		t.Errorf("too large: %v", err)
	}
	if err := q.Append(t.Context(), Record{7, 1, make([]byte, q.MaxRecord())}); err != nil {
		t.Errorf("the largest record: %v", err)
	}
	if _, err := Open(Options{Dir: dir, MaxBytes: MinBytes - 1}); err == nil {
		t.Error("a bound that holds nothing was accepted")
	}
	if _, err := Open(Options{Dir: dir, MaxBytes: MinBytes}); !errors.Is(err, durable.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second agent: %v", err)
	}
	q = reopen(t, q)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if err := q.Append(t.Context(), Record{7, 1, nil}); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if _, err := q.Peek(nil, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("peek after close: %v", err)
	}
}

func TestTheFolderIsForItsOwnerAlone(t *testing.T) {
	if os.PathSeparator == '\\' {
		t.Skip("Windows has no such bits; the folder's DACL is the installer's")
	}
	dir := filepath.Join(t.TempDir(), "queue")
	q := mustOpen(t, Options{Dir: dir})
	add(t, q, 1, 1, 1)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder %v %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s %v %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestFilesOfOthersAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	other := mustOpen(t, Options{Dir: t.TempDir()})
	add(t, other, 1, 7, 500)
	foreign, err := os.ReadFile(filepath.Join(other.path, segmentName(1)))
	if err != nil {
		t.Fatal(err)
	}
	q := mustOpen(t, Options{Dir: dir})
	add(t, q, 1, 1, 100)
	for name, data := range map[string][]byte{"0000000000000007.seg": foreign, "notes.txt": []byte("mine")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	q = reopen(t, q)
	if s := q.Stats(); s.DiskBytes != diskUse(t, dir) || !strings.Contains(s.LastError, other.Stream().String()) {
		t.Errorf("stats %+v, disk use %d", s, diskUse(t, dir))
	}
	add(t, q, 2, 1, 100)
	if diff := cmp.Diff([]uint64{1, 2}, drain(t, q)); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"0000000000000007.seg", "notes.txt"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestOldestIsTheAppendTimeOfTheFirstUnacknowledged(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir()})
	start := time.Now().Truncate(time.Second)
	add(t, q, 1, 1, 10)
	add(t, q, 2, 1, 10)
	for range 3 {
		if o := q.Stats().Oldest; o.Before(start) || o.After(time.Now()) {
			t.Fatalf("oldest is %v", o)
		}
		if err := q.Ack(1); err != nil {
			t.Fatal(err)
		}
		q = reopen(t, q)
	}
}

// TestWritersReadersAndDropsTogether is for the race detector, and for the sum.
func TestWritersReadersAndDropsTogether(t *testing.T) {
	q := mustOpen(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 10, Metrics: new(metric.Set)})
	const writers, each = 4, 60
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := q.Next()
	for range writers {
		wg.Go(func() {
			for range each {
				mu.Lock()
				p := q.Submit(Record{next, 3, payload(next, 1500)})
				next += 3
				mu.Unlock()
				if err := p.Wait(t.Context()); err != nil {
					t.Error(err)
				}
				q.Stats()
			}
		})
	}
	written := make(chan struct{})
	go func() { wg.Wait(); close(written) }()
	account := uint64(0)
	for done := false; !done; {
		select {
		case <-q.Ready():
			records, err := q.Peek(nil, 4000)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				account += uint64(r.Count)
				if err := q.Ack(r.last()); err != nil {
					t.Fatal(err)
				}
			}
		case <-written:
			done = true
		}
	}
	account += 3 * uint64(len(drain(t, q)))
	for _, l := range q.Losses() {
		account += l.Count
	}
	if account != writers*each*3 {
		t.Errorf("%d numbers delivered or declared, of %d", account, writers*each*3)
	}
}

func TestALossThatIsToldAgainIsNotCountedBeyondItsRange(t *testing.T) {
	told := merge(nil, Loss{Cause: CauseDamaged, First: 1, Last: 4, Count: 4}, 1)
	told = merge(told, Loss{Cause: CauseDamaged, First: 3, Last: 6, Count: 4}, 1)
	if len(told) != 1 || told[0].First != 1 || told[0].Last != 6 || told[0].Count != 6 {
		t.Errorf("merged to %+v", told)
	}
}

// Numbers that were jumped over are told with those around them when a start cannot
// know better: that run takes the place of what was told before, of its cause alone.
func TestARunThatIsToldAnewTakesThePlaceOfItsParts(t *testing.T) {
	full := func(first, last, count uint64) Loss {
		return Loss{Cause: CauseQueueFull, First: first, Last: last, Count: count}
	}
	damaged := Loss{Cause: CauseDamaged, First: 8, Last: 9, Count: 2}
	var told []Loss
	for _, l := range []Loss{full(1, 3, 3), full(6, 59, 52), damaged, full(70, 75, 6), full(6, 59, 54)} {
		told = merge(told, l, markLosses)
	}
	if want := []Loss{full(1, 3, 3), damaged, full(70, 75, 6), full(6, 59, 54)}; !slices.Equal(told, want) {
		t.Errorf("told %+v", told)
	}
}

// However many losses there are, the numbers are counted to the cause that they had.
func TestLossesThatAreMergedKeepTheirCauses(t *testing.T) {
	var told []Loss
	lost, kept := map[string]uint64{}, map[string]uint64{}
	for n := uint64(1); n <= 1000; n += 10 {
		cause := causes[1+n/10*7%13%3]
		lost[cause] += n%7 + 1
		told = merge(told, Loss{Cause: cause, First: n, Last: n + n%7, Count: n%7 + 1, Since: unix(uint32(n)), Until: unix(uint32(n + 5))}, markLosses)
	}
	for _, l := range told {
		kept[l.Cause] += l.Count
		if l.Since != unix(uint32(l.First)) || l.Until != unix(uint32(l.Last/10*10+6)) {
			t.Errorf("the times of others: %+v", l)
		}
	}
	if !maps.Equal(lost, kept) || len(told) != markLosses {
		t.Errorf("lost %v, kept %v in %d runs", lost, kept, len(told))
	}
}
