package ship

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

func TestALineAtFaultIsFoundAndGivenUp(t *testing.T) {
	for name, bad := range map[string][]int{
		"the first": {1}, "in the middle": {300}, "the last": {1000}, "two neighbours": {511, 512}, "far apart": {2, 700},
	} {
		for encoding, compress := range map[string]bool{"zstd": true, "plain": false} {
			t.Run(name+" "+encoding, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLane(t, compress)
					l.refuse = map[string]int{}
					var want, refused []string
					for i, line := range lines(1, 1000) {
						if slices.Contains(bad, i+1) {
							l.refuse[line] = http.StatusUnprocessableEntity
							refused = append(refused, fmt.Sprintf("%d rejected %s", i+1, line))
						} else {
							want = append(want, line)
						}
					}
					l.run(t, time.Hour, func() {
						for range 4 {
							l.keep(t, 250)
						}
					})
					if d := cmp.Diff(want, l.server.kept); d != "" {
						t.Errorf("kept (-want +got):\n%s", d)
					}
					if d := cmp.Diff(refused, l.account.refused); d != "" {
						t.Errorf("given up (-want +got):\n%s", d)
					}
					refusals := 0
					for _, what := range l.seen {
						if strings.HasSuffix(what, " 422") {
							refusals++
						}
					}
					// log2(1000) is 10; a first line is asked thrice, since nothing else was accepted.
					if most := len(bad) * (10 + 2 + 2); len(l.seen) > most+3 {
						t.Errorf("%d requests, %d refused, want at most %d:\n%s", len(l.seen), refusals, most, strings.Join(l.seen, "\n"))
					}
					if s := l.queue.Stats(); s.Records != 0 {
						t.Errorf("queue still holds %+v", s)
					}
				})
			})
		}
	}
}

// The one that was asked has the dictionary and the one that gets the batch has
// it not, as while the servers behind one name are replaced.
func TestALineIsNotAtFaultForItsDictionary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.old = func() bool { return l.beats > 0 && len(l.needs) <= 2 }
		l.resumes = []answer{{status: http.StatusOK, body: "{}", header: http.Header{"Rea-Dictionaries": {"59905"}}}}
		l.narrow.most = 1 // and then 2, and 4
		l.run(t, time.Minute, func() {
			for range 5 {
				l.keep(t, 1)
			}
		})
		if d := cmp.Diff([]string{"1-1 400", "1-1 200", "2-3 200", "4-5 200"}, l.seen); d != "" {
			t.Errorf("seen (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]uint32{59905, 0, 0, 59905}, l.needs); d != "" {
			t.Errorf("dictionaries (-want +got):\n%s", d)
		}
		if len(l.account.refused) > 0 {
			t.Errorf("given up: %q", l.account.refused)
		}
	})
}

// A record that a later version made lies in the queue of this one.
func TestARecordThatNobodyCanReadDoesNotStopDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		frame := wire.NewDictionaryCompressor().Append(nil, []byte(strings.Join(lines(1, 2), "\n")+"\n"))
		frame = bytes.Replace(frame, []byte{0x01, 0xea}, []byte{0x5f, 0xea}, 1)
		if err := l.queue.Append(t.Context(), queue.Record{First: 1, Count: 2, Data: frame}); err != nil {
			t.Fatal(err)
		}
		l.next = 3
		l.run(t, time.Hour, func() { l.keep(t, 1) })
		if d := cmp.Diff(lines(3, 3), l.kept); d != "" {
			t.Errorf("kept (-want +got):\n%s", d)
		}
		if len(l.account.refused) != 1 || !strings.HasPrefix(l.account.refused[0], "1 rejected ") || !strings.HasSuffix(l.account.refused[0], string(frame)) {
			t.Errorf("given up: %q", l.account.refused)
		}
	})
}

func TestAServerThatRefusesEverythingIsNotBelievedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.refuse = map[string]int{}
		for _, line := range lines(1, 100) {
			l.refuse[line] = http.StatusBadRequest
		}
		l.run(t, 10*time.Minute, func() { l.keep(t, 100) })
		if n := len(l.account.refused); n == 0 || n > 20 {
			t.Errorf("%d lines are given up in ten minutes, want one a minute or so", n)
		}
		if len(l.seen) > 150 {
			t.Errorf("%d requests in ten minutes", len(l.seen))
		}
	})
}

func TestASingleLineThatIsTooLargeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.refuse = map[string]int{`{"seq":3}`: http.StatusRequestEntityTooLarge}
		l.run(t, time.Hour, func() { l.keep(t, 5) })
		if d := cmp.Diff([]string{`3 too_large {"seq":3}`}, l.account.refused); d != "" {
			t.Errorf("given up (-want +got):\n%s", d)
		}
		if d := cmp.Diff(append(lines(1, 2), lines(4, 5)...), l.server.kept); d != "" {
			t.Errorf("kept (-want +got):\n%s", d)
		}
	})
}

func TestAGapEventThatIsRefusedDoesNotChaseItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		gap := func(seq uint64) string { return fmt.Sprintf(`{"seq":%d,"kind":"gap","gap":{}}`, seq) }
		l.refuse = map[string]int{}
		for seq := range uint64(1000) {
			l.refuse[gap(seq)] = http.StatusUnprocessableEntity
		}
		ctx, cancel := context.WithCancel(t.Context())
		var writer sync.WaitGroup
		writer.Go(func() { _ = l.Writer.Run(ctx) })
		defer writer.Wait()
		defer cancel()
		l.keep(t, 1)
		_, _ = l.Keep([]byte(gap(2)+"\n"), 2, 1)
		time.Sleep(time.Minute)
		l.account.bury = func() { // as the agent does
			l.next++
			_, _ = l.Keep([]byte(gap(l.next)+"\n"), l.next, 1)
		}
		l.next = 2
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		_ = l.Sender.Run(ctx)
		if n := len(l.account.refused); n < 2 || n > 41 {
			t.Errorf("%d gap events chased each other in ten minutes", n)
		}
	})
}

func TestAConflictBeginsANewStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.refuse = map[string]int{}
		for _, line := range lines(7, 10) {
			l.refuse[line] = http.StatusConflict
		}
		l.account.renew = func() (*queue.Queue, error) {
			clear(l.refuse)
			return l.queue, nil
		}
		l.run(t, time.Hour, func() { l.keep(t, 10) })
		if l.account.renewed != 1 || l.Sender.acked != 10 {
			t.Errorf("%d new streams, acknowledged up to %d:\n%s", l.account.renewed, l.Sender.acked, strings.Join(l.seen, "\n"))
		}
		if d := cmp.Diff(lines(1, 10), l.server.kept); d != "" {
			t.Errorf("kept (-want +got):\n%s", d)
		}
	})
}

func TestAServerThatRefusesEveryStreamDoesNotGetNewOnesForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.refuse = map[string]int{}
		for _, line := range lines(1, 10) {
			l.refuse[line] = http.StatusConflict
		}
		l.account.renew = func() (*queue.Queue, error) { return l.queue, nil }
		l.run(t, time.Hour, func() { l.keep(t, 10) })
		if l.account.renewed != 1 {
			t.Errorf("%d new streams", l.account.renewed)
		}
		if n := len(l.seen); n > 300 {
			t.Errorf("%d requests in an hour", n)
		}
	})
}

func TestAnAgentBehindItsOwnPastBeginsANewStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.server.high = 5 // of which this process, which begins with 1, knows nothing
		l.account.renew = func() (*queue.Queue, error) {
			l.server.high = 0 // of the new stream
			return l.queue, nil
		}
		l.run(t, time.Hour, func() { l.keep(t, 3) })
		if l.account.renewed != 1 {
			t.Errorf("%d new streams, want 1", l.account.renewed)
		}
	})
}

// A server that claims to keep numbers of every stream is not given new ones until
// the queue is full of their gap events. What is not delivered is kept.
func TestAServerThatKnowsEveryStreamDoesNotGetNewOnesForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		for range 20 {
			l.resumes = append(l.resumes, answer{status: http.StatusOK, body: `{"last":9223372036854775807}`})
		}
		l.account.renew = func() (*queue.Queue, error) { return l.queue, nil }
		l.run(t, time.Hour, func() { l.keep(t, 3) })
		if l.account.renewed != 1 {
			t.Errorf("%d new streams, want 1", l.account.renewed)
		}
		if d := cmp.Diff(lines(1, 3), l.server.kept); d != "" {
			t.Errorf("kept once the server spoke sense (-want +got):\n%s", d)
		}
	})
}

func TestWhatACrashTookIsDeclared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.server.assigned = 4 // told by the process before, which had none of it on the disk
		l.run(t, time.Hour, func() { l.keep(t, 9) })
		if l.account.crashed != 4 {
			t.Errorf("%d events are declared, want 4", l.account.crashed)
		}
	})
}

func TestWhatCannotBeDeclaredYetDoesNotStopDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.server.assigned, l.account.full = 4, 3
		l.run(t, time.Minute, func() { l.keep(t, 9) })
		if d := cmp.Diff(lines(1, 9), l.server.kept); d != "" || l.account.crashed != 0 {
			t.Errorf("kept (-want +got), %d declared:\n%s", l.account.crashed, d)
		}
		l.run(t, time.Hour, func() {})
		if l.account.crashed != 4 {
			t.Errorf("%d events are declared in the end, want 4", l.account.crashed)
		}
	})
}
