package ship

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/wire"
)

func TestABatchOverTheLimitIsSentInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tooLarge := answer{status: 413}
		l := newLane(t, true, tooLarge, tooLarge)
		l.run(t, time.Hour, func() {
			for range 8 {
				l.keep(t, 1)
			}
		})
		want := []string{"1-8 413", "1-4 413", "1-2 200", "3-4 200", "5-6 200", "7-8 200"}
		if d := cmp.Diff(want, l.seen); d != "" {
			t.Errorf("requests (-want +got):\n%s", d)
		}
	})
}

func TestABatchThatTakesTooLongIsSentInParts(t *testing.T) {
	for name, slow := range map[string]answer{
		"no answer in time":             {err: context.DeadlineExceeded},
		"the server gave up reading it": {status: 408, body: `{"error":"read body: i/o timeout"}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane(t, true)
				l.server.most = 2 // a line that carries no more in the time of a request
				l.server.slow = slow
				l.run(t, time.Hour, func() {
					for range 64 {
						l.keep(t, 1)
					}
				})
				if d := cmp.Diff(lines(1, 64), l.kept); d != "" {
					t.Errorf("kept (-want +got):\n%s", d)
				}
				if n := len(l.seen); n > 40 { // 32 of two lines each, and the tries before
					t.Errorf("%d requests:\n%s", n, strings.Join(l.seen, "\n"))
				}
				l.metric(t, `rea_batch_errors_total{lane="test",reason="timeout"} 5`)
			})
		})
	}
}

func TestBatchesGrowAgainAWhileAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true, answer{status: 413})
		ctx, cancel := context.WithCancel(t.Context())
		var writer sync.WaitGroup
		writer.Go(func() { _ = l.Writer.Run(ctx) })
		defer writer.Wait()
		defer cancel()
		deliver := func(records int) {
			for range records {
				l.keep(t, 1)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_ = l.Sender.Run(ctx)
		}
		deliver(8)
		time.Sleep(widenAfter)
		deliver(24)
		if d := cmp.Diff([]string{"1-8 413", "1-4 200", "5-8 200", "9-12 200", "13-20 200", "21-32 200"}, l.seen); d != "" {
			t.Errorf("requests (-want +got):\n%s", d)
		}
	})
}

func TestABatchEndsAtAHoleAndWhereTheEncodingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.run(t, time.Hour, func() {
			l.keep(t, 2)
			l.next += 3 // lost, and declared elsewhere
			l.keep(t, 2)
			l.Writer.o.Compressor = nil
			l.keep(t, 2)
		})
		if d := cmp.Diff([]string{"1-2 200", "6-7 200", "8-9 200"}, l.seen); d != "" {
			t.Errorf("requests (-want +got):\n%s", d)
		}
	})
}

// However well lines compress: a server that nobody configured takes the batch.
func TestABatchIsNoLargerThanAnyServerTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.run(t, time.Hour, func() {
			for range 30 {
				l.keep(t, 15_000) // some 200 KB, of which 20 KB are sent
			}
		})
		if len(l.kept) != 30*15_000 || l.largest > wire.BatchBytes || l.largest < wire.BatchBytes/2 {
			t.Errorf("%d lines were kept, the largest batch had %d bytes", len(l.kept), l.largest)
		}
	})
}

func TestRecordsGoOutAsTheyLieToWhoHasTheirDictionary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.run(t, time.Minute, func() { l.keep(t, 3) })
		if d := cmp.Diff(wire.Dictionaries()[len(wire.Dictionaries())-1:], l.needs); d != "" {
			t.Errorf("dictionaries (-want +got):\n%s", d)
		}
		if d := cmp.Diff(lines(1, 3), l.kept); d != "" {
			t.Error(d)
		}
	})
}

func TestAnOldServerGetsFramesWithoutADictionary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.old = func() bool { return true }
		l.run(t, time.Minute, func() {
			l.keep(t, 3)
			l.keep(t, 2)
		})
		if d := cmp.Diff([]string{"1-5 200"}, l.seen); d != "" || l.needs[0] != 0 {
			t.Errorf("dictionaries %v, seen (-want +got):\n%s", l.needs, d)
		}
		if d := cmp.Diff(lines(1, 5), l.kept); d != "" {
			t.Error(d)
		}
		if n := l.set.Counter("rea_records_recompressed_total", "", "lane", "test").Value(); n != 2 {
			t.Errorf("%d records compressed again, want 2", n)
		}
	})
}
