package ship

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

func TestAWriterThatStopsKeepsWhatItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = l.Writer.Run(ctx) })
		l.keep(t, 1) // the first goes at once
		wait, err := l.Keep([]byte("{\"seq\":2}\n"), 2, 1)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := wait(t.Context()); err != nil {
			t.Errorf("the last line: %v", err)
		}
		done.Wait()
		if n := l.queue.Next(); n != 3 {
			t.Errorf("next number is %d, want 3", n)
		}
		if _, err := l.Keep([]byte("{\"seq\":3}\n"), 3, 1); !errors.Is(err, errClosed) {
			t.Errorf("Keep after the end returned %v", err)
		}
	})
}

func TestAFullGroupDoesNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.run(t, time.Minute, func() {
			l.keep(t, 1)
			began := time.Now()
			big := []byte(`{"x":"` + strings.Repeat("y", wire.RecordBytes-20) + "\"}\n")
			for range 4 {
				if _, err := l.Keep(big, l.next, 1); err != nil {
					t.Error(err)
				}
				l.next++
			}
			if d := time.Since(began); d != 0 {
				t.Errorf("full groups waited %v", d)
			}
		})
		if len(l.kept) != 5 {
			t.Errorf("kept %d lines, want 5", len(l.kept))
		}
	})
}

func TestAGroupIsAsManyRecordsAsItsLinesNeed(t *testing.T) {
	for _, c := range []struct {
		name    string
		sizes   []int  // of lines that wait for the writer together
		refused []bool // by the queue, which takes no record over 128 KiB
		want    []queue.Record
	}{
		{"one", []int{60 << 10, 60 << 10}, []bool{false, false}, []queue.Record{{First: 1, Count: 2}}},
		{"two", []int{60 << 10, 60 << 10, 60 << 10}, []bool{false, false, false}, []queue.Record{{First: 1, Count: 2}, {First: 3, Count: 1}}},
		{"three", []int{70 << 10, 70 << 10, 70 << 10}, []bool{false, false, false}, []queue.Record{{First: 1, Count: 1}, {First: 2, Count: 1}, {First: 3, Count: 1}}},
		{"one of two", []int{60 << 10, 130_950, 60 << 10}, []bool{false, true, false}, []queue.Record{{First: 1, Count: 1}, {First: 3, Count: 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLane(t, false)
			var waits []func(context.Context) error
			for i, size := range c.sizes {
				wait, err := l.Keep(bytes.Repeat([]byte("y"), size), uint64(i)+1, 1)
				if err != nil {
					t.Fatal(err)
				}
				waits = append(waits, wait)
			}
			l.run(t, 0, func() {
				for i, wait := range waits {
					if err := wait(t.Context()); errors.Is(err, queue.ErrTooLarge) != c.refused[i] || err != nil && !c.refused[i] {
						t.Errorf("line %d: %v", i+1, err)
					}
				}
			})
			var got []queue.Record
			if err := l.queue.Each(func(r queue.Record) error {
				got = append(got, r)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(queue.Record{}, "Data")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Four sources hand over as much as they can at once, and wait until it is kept.
func BenchmarkWriter(b *testing.B) {
	q, err := queue.Open(queue.Options{Dir: b.TempDir(), MaxBytes: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	w := NewWriter(WriterOptions{Queue: q, Compressor: wire.NewDictionaryCompressor(), Linger: 20 * time.Millisecond})
	ctx, cancel := context.WithCancel(b.Context())
	var writer sync.WaitGroup
	writer.Go(func() { _ = w.Run(ctx) })
	defer writer.Wait()
	defer cancel()
	const count = 256
	lines := bytes.Repeat([]byte(`{"v":1,"kind":"cpu","cpu":{"utilization":0.25}}`+"\n"), 7*count) // as long as events are
	var mu sync.Mutex
	next, left := uint64(1), b.N
	keep := func() (wait func(context.Context) error, err error) {
		mu.Lock()
		defer mu.Unlock()
		if left--; left < 0 {
			return nil, nil
		}
		next += count
		return w.Keep(lines, next-count, count)
	}
	b.SetBytes(int64(len(lines)))
	b.ResetTimer()
	var sources sync.WaitGroup
	for range 4 {
		sources.Go(func() {
			for {
				wait, err := keep()
				if err == nil && wait == nil {
					return
				}
				if err == nil {
					err = wait(ctx)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	sources.Wait()
}

func TestRecordsFitIntoTheSmallestQueue(t *testing.T) {
	for name, compress := range map[string]bool{"zstd": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			q, err := queue.Open(queue.Options{Dir: t.TempDir(), MaxBytes: 256 << 10, SegmentBytes: 32 << 10})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			w := NewWriter(WriterOptions{Queue: q, Compressor: compressor(compress)})
			ctx, cancel := context.WithCancel(t.Context())
			var done sync.WaitGroup
			done.Go(func() { _ = w.Run(ctx) })
			defer done.Wait()
			defer cancel()
			noise := make([]byte, w.Most()/2)
			random := rand.NewChaCha8([32]byte{})
			_, _ = random.Read(noise)
			var waits []func(context.Context) error
			for n := range uint64(5) { // more than a record together, two of them exactly one
				wait, err := w.Keep(noise, n+1, 1)
				if err != nil {
					t.Fatal(err)
				}
				waits = append(waits, wait)
			}
			for _, wait := range waits {
				if err := wait(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestALineThatNoRecordHoldsSaysWhy(t *testing.T) {
	q, err := queue.Open(queue.Options{Dir: t.TempDir(), MaxBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	w := NewWriter(WriterOptions{Queue: q})
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = w.Run(ctx) })
	defer done.Wait()
	defer cancel()
	wait, err := w.Keep(make([]byte, 100<<10), 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	var cause interface{ Cause() string }
	if err := wait(t.Context()); !errors.As(err, &cause) || cause.Cause() != "too_large" {
		t.Errorf("Keep: %v", err)
	}
}

func TestWhoStopsWaitingStillLearnsThatItsLinesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = l.Writer.Run(ctx) })
		defer done.Wait()
		defer cancel()
		l.keep(t, 1) // the first goes at once
		wait, err := l.Keep([]byte("{\"seq\":2}\n"), 2, 1)
		if err != nil {
			t.Fatal(err)
		}
		source, stop := context.WithCancel(t.Context())
		stop()
		if err := wait(source); err != nil {
			t.Errorf("the source was told %v, and would hand the line over again", err)
		}
		if n := l.queue.Next(); n != 3 {
			t.Errorf("next number is %d, want 3", n)
		}
	})
}

func TestWhoStopsWaitingForADiskThatHangsIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true) // nobody runs the writer
		wait, err := l.Keep([]byte("{\"seq\":1}\n"), 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("wait returned %v", err)
		}
	})
}
