package queue

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// benchQueue opens a queue on the disk of the test's folder. The folder must
// not be in memory, or the syncs cost nothing: set TMPDIR.
func benchQueue(b *testing.B) *Queue {
	return mustOpen(b, Options{Dir: b.TempDir(), MaxBytes: 1 << 30})
}

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ writers, size int }{{1, 1 << 10}, {16, 1 << 10}, {1, 256 << 10}, {4, 256 << 10}, {1, 1 << 20}} {
		b.Run(fmt.Sprintf("writers=%d/size=%d", c.writers, c.size), func(b *testing.B) {
			q, data := benchQueue(b), payload(1, c.size)
			var left atomic.Int64
			left.Store(int64(b.N))
			var mu sync.Mutex
			next := q.Next()
			b.ReportAllocs()
			b.SetBytes(int64(c.size))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range c.writers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						mu.Lock()
						p := q.Submit(Record{next, 1, data})
						next++
						mu.Unlock()
						if err := p.Wait(b.Context()); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const size = 16 << 10
	q := benchQueue(b)
	for n := range uint64(4096) {
		p := q.Submit(Record{n + 1, 1, payload(n+1, size)})
		if n%64 == 63 {
			if err := p.Wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	q = reopen(b, q)
	var records []Record
	b.ReportAllocs()
	b.SetBytes(1 << 20)
	for b.Loop() {
		var err error
		if records, err = q.Peek(records[:0], 1<<20); err != nil || len(records) == 0 {
			b.Fatal(len(records), err)
		}
	}
}

// BenchmarkOpen opens a queue and closes it, empty and with a backlog.
func BenchmarkOpen(b *testing.B) {
	for _, backlog := range []int{0, 1, 64} {
		b.Run(fmt.Sprintf("MiB=%d", backlog), func(b *testing.B) {
			q := benchQueue(b)
			for n := range uint64(backlog) {
				add(b, q, n+1, 1, 1<<20)
			}
			var opening time.Duration
			b.ReportAllocs()
			for b.Loop() {
				if err := q.Close(); err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				var err error
				if q, err = Open(q.options); err != nil {
					b.Fatal(err)
				}
				opening += time.Since(start)
			}
			b.ReportMetric(float64(opening.Microseconds())/float64(b.N), "µs/open")
			if err := q.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkFull fills a queue of 1 GiB once, then opens it, says what memory it
// holds, and drains it.
func BenchmarkFull(b *testing.B) {
	const size = 256 << 10
	q := benchQueue(b)
	data := payload(1, size)
	for n := q.Next(); len(q.lossy) == 0; n += 4 {
		var group [4]*Pending
		for i := range group {
			group[i] = q.Submit(Record{n + uint64(i), 1, data})
		}
		for _, p := range group {
			if err := p.Wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := q.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			var err error
			if q, err = Open(q.options); err != nil {
				b.Fatal(err)
			}
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapInuse)/(1<<20), "MiB-heap")
		b.ReportMetric(float64(q.Stats().DiskBytes)/(1<<20), "MiB-disk")
	})
	b.Run("each", func(b *testing.B) {
		b.SetBytes(q.Stats().Bytes)
		for b.Loop() {
			if err := q.Each(func(Record) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	rate := 0.0
	b.Run("drain", func(b *testing.B) { // the first time: it is empty after that
		var records []Record
		drained, start := 0, time.Now()
		for {
			var err error
			if records, err = q.Peek(records[:0], 1<<20); err != nil {
				b.Fatal(err)
			}
			if len(records) == 0 {
				break
			}
			drained += len(records) * size
			if err := q.Ack(records[len(records)-1].last()); err != nil {
				b.Fatal(err)
			}
		}
		if drained > 0 {
			rate = float64(drained) / 1e6 / time.Since(start).Seconds()
		}
		b.ReportMetric(rate, "MB/s-drained")
	})
	if err := q.Close(); err != nil {
		b.Fatal(err)
	}
}
