package queue

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/durable"
)

var (
	simSeed      = flag.Uint64("sim.seed", 0, "first seed of the simulated histories; 0 draws one")
	simTrace     = flag.Bool("sim.trace", false, "print each step of the histories")
	simHistories = flag.Int("sim.histories", histories, "how many histories are simulated")
)

// TestHistories runs the queue through random histories of appends, reads,
// crashes (in recovery, too), full disks and failing calls, and checks the
// account: what was confirmed is delivered or declared dropped, no number has
// two contents, and no number is missing without a word.
func TestHistories(t *testing.T) {
	seed := *simSeed
	if seed == 0 {
		seed = rand.Uint64() >> 1
	}
	t.Logf("-sim.seed=%d -sim.histories=%d", seed, *simHistories)
	defer debug.SetGCPercent(debug.SetGCPercent(2000)) // a history is garbage all at once
	start, workers := time.Now(), min(runtime.GOMAXPROCS(0), *simHistories)
	totals, done := make([]world, workers), make([]int, workers)
	var failed atomic.Bool
	t.Run("workers", func(t *testing.T) {
		for k := range workers {
			t.Run(fmt.Sprint(k), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					for i := k; i < *simHistories && !failed.Load(); i += workers {
						w := newWorld(seed + uint64(i))
						if err := w.history(); err != nil {
							failed.Store(true)
							t.Fatalf("history -sim.seed=%d -sim.histories=1: %v", seed+uint64(i), err)
						}
						totals[k].count(w)
						done[k]++
					}
				})
			})
		}
	})
	total, histories := world{}, 0
	for k := range workers {
		total.add(&totals[k])
		histories += done[k]
	}
	t.Logf("%d histories from -sim.seed=%d in %v: %d crashes, %d records confirmed, %d refused, %d numbers received, %d declared lost",
		histories, seed, time.Since(start).Round(time.Millisecond), total.crashes, total.confirmed, total.refused, total.numbers, total.declared)
	// For the table of make torture. A fault of any kind has failed the test by now.
	// What was assigned is not the sum: a number may be declared and come after all.
	t.Logf(`row {"What":"simulated histories of a queue","Many":%d,"Received":%d,"Declared":%d,"Seconds":%.1f,"Seed":%d,"Note":"%d crashes, %d records confirmed, %d refused"}`,
		histories, total.numbers, total.declared, time.Since(start).Seconds(), seed, total.crashes, total.confirmed, total.refused)
}

// TestLiesAreFound plants bugs: the histories must find each.
func TestLiesAreFound(t *testing.T) {
	for _, lie := range []lie{noFileSync, noFolderSync, hiddenFailure} {
		t.Run(string(lie), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for seed := range uint64(2000) {
					w := newWorld(seed)
					w.disk.lie = lie
					if err := w.history(); err != nil {
						t.Logf("history %d: %v", seed, err)
						return
					}
				}
				t.Error("no history found it")
			})
		})
	}
}

// A world is a queue on a simulated disk, the writer and the receiver, and what
// they know.
type world struct {
	rng  *rand.Rand
	disk *simFolder
	o    Options
	q    *Queue

	stream   Stream
	next     uint64            // of the writer
	attempts map[uint64][]int  // number -> the records appended with it that may come back
	sure     map[uint64]int    // number -> the record that was confirmed
	skipped  map[uint64]bool   // numbers that the writer accounts for itself, unless it uses them again
	jumped   map[uint64]bool   // the same, with a record behind them that may come back
	received map[uint64]int    // number -> the record that the receiver got
	seen     map[uint64]bool   // handed out since the last start
	heard    map[uint64]string // number -> cause, as Losses said since the last start
	lost     map[uint64]string // the same, declared
	excused  map[uint64]bool   // in pages that went bad: they may be declared damaged
	spoils   bool              // pages go bad
	found    []Loss            // what the last start found lost, until it is told
	sent     []Record          // by record, from 1 on
	floor    uint64            // no number below may be given again
	joined   bool              // the cursor had no room to tell losses apart, once

	crashes, confirmed, refused, numbers, declared int
}

func newWorld(seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 7))
	w := &world{
		rng: rng, disk: newSimFolder(rng),
		o:        Options{Dir: "sim", MaxBytes: MinBytes + rng.Int64N(64<<10), SegmentBytes: block << rng.IntN(2), Wait: rng.IntN(4) == 0},
		attempts: map[uint64][]int{}, sure: map[uint64]int{}, skipped: map[uint64]bool{}, jumped: map[uint64]bool{},
		received: map[uint64]int{}, seen: map[uint64]bool{}, heard: map[uint64]string{}, lost: map[uint64]string{},
		excused: map[uint64]bool{},
	}
	w.disk.bound = w.o.MaxBytes
	w.spoils = rng.IntN(4) == 0
	if rng.IntN(4) == 0 {
		w.o.MinFreeBytes = 32 << 10
	}
	return w
}

func (w *world) count(other *world) {
	other.numbers, other.declared = len(other.received), len(other.lost)
	w.add(other)
}

func (w *world) add(other *world) {
	w.crashes += other.crashes
	w.confirmed += other.confirmed
	w.refused += other.refused
	w.numbers += other.numbers
	w.declared += other.declared
}

func (w *world) history() error {
	if err := w.start(); err != nil {
		return err
	}
	big := w.rng.IntN(3) > 0 // records large enough to reach the bound
	for range 20 + w.rng.IntN(60) {
		if err := w.step(big); err != nil {
			return err
		}
		if w.disk.exceeded > 0 {
			return fmt.Errorf("the bound is exceeded by %d bytes", w.disk.exceeded)
		}
		if w.disk.dead {
			if err := w.crash(); err != nil {
				return err
			}
		}
	}
	return w.finish()
}

func (w *world) step(big bool) error {
	switch n := w.rng.IntN(100); {
	case n < 55:
		return w.append(big)
	case n < 75:
		return w.deliver()
	case n < 78:
		return w.takeLosses()
	case n < 80:
		w.declare()
	case n < 81:
		w.disk.flaky = []float64{0, 0.02, 0.3}[w.rng.IntN(3)]
		w.trace("flaky reads: %v", w.disk.flaky)
	case n < 82:
		if w.spoils {
			w.spoil()
		}
	case n < 84:
		w.disk.deadIn = 1 + w.rng.IntN(12)
		w.trace("death in %d calls", w.disk.deadIn)
	case n < 88:
		w.disk.fault = []float64{0, 0, 0.05, 0.3, 1}[w.rng.IntN(5)]
		w.trace("faults: %v", w.disk.fault)
	case n < 92:
		w.disk.capacity = w.disk.used() + []int64{0, 4 << 10, 40 << 10, unbounded}[w.rng.IntN(4)]
		w.trace("capacity %d, used %d", w.disk.capacity, w.disk.used())
	case n < 95:
		time.Sleep(fullPause)
	case n < 97:
		w.disk.dead = true
	default:
		if err := w.q.Close(); err != nil && w.healthy(err) {
			return err
		}
		return w.crash()
	}
	return nil
}

// append submits some records at once and waits for them.
func (w *world) append(big bool) error {
	type sent struct {
		p  *Pending
		r  Record
		id int
	}
	var all []sent
	for range 1 + w.rng.IntN(4) {
		if w.rng.IntN(30) == 0 {
			w.jumped[w.next] = true
			w.next++
		}
		size := w.rng.IntN(200)
		if big {
			size = w.rng.IntN(w.q.MaxRecord())
		}
		id := len(w.sent) + 1
		r := Record{w.next, 1 + uint32(w.rng.IntN(5)), payload(uint64(id)<<32|w.next, size)}
		w.sent = append(w.sent, r)
		all = append(all, sent{w.q.Submit(r), r, id})
		for n := r.First; n <= r.last(); n++ {
			w.attempts[n] = append(w.attempts[n], id)
			delete(w.skipped, n)
		}
		w.next = r.last() + 1
	}
	for i, s := range all {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		err := s.p.Wait(ctx)
		cancel()
		w.trace("append %d-%d (record %d, %d bytes): %v", s.r.First, s.r.last(), s.id, len(s.r.Data), err)
		switch {
		case w.disk.dead: // whatever it says, nobody hears it
		case err == nil:
			w.confirmed++
			for n := s.r.First; n <= s.r.last(); n++ {
				w.sure[n] = s.id
				w.attempts[n] = []int{s.id}
			}
		default:
			w.refused++
			for n := s.r.First; n <= s.r.last(); n++ {
				w.skipped[n] = true
				if i < len(all)-1 {
					w.jumped[n] = true
				}
			}
			if w.healthy(err) && !errors.Is(err, ErrFull) && !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("append on a good disk: %w", err)
			}
		}
	}
	if !w.disk.dead {
		w.next = w.q.Next()
	}
	return nil
}

// trace prints a step: run one history with it to see how it came to its end.
func (w *world) trace(format string, args ...any) {
	if *simTrace {
		fmt.Printf(format+"\n", args...)
	}
}

// healthy reports whether the disk gives no reason for err.
func (w *world) healthy(err error) bool {
	return w.disk.fault == 0 && w.disk.flaky == 0 && !w.disk.dead && !durable.IsFull(err)
}

// spoil makes a page of a file unreadable until it is written, and notes which
// numbers are in it.
func (w *world) spoil() {
	names := slices.Sorted(maps.Keys(w.disk.names))
	if len(names) == 0 {
		return
	}
	name := names[w.rng.IntN(len(names))]
	n := w.disk.names[name]
	if len(n.cache) == 0 || name == cursorName { // one slot torn and the other unreadable are two faults
		return
	}
	p := w.rng.Int64N((int64(len(n.cache)) + page - 1) / page)
	id, ok := segmentID(name)
	if p == 0 && (w.disk.haunted(name) || slices.ContainsFunc(w.q.segments, func(s *segment) bool { return s.id < id && !s.sealed })) {
		return // the base alone voids what a failed write left there: two faults, too
	}
	if n.bad == nil {
		n.bad = map[int64]bool{}
	}
	n.bad[p] = true
	w.trace("page %d of %s goes bad", p, name)
	salt, size := saltOf(w.stream, id), int64(len(n.cache))
	for off := int64(headerSize); ok && off < min((p+1)*page, size); off += frameAlign {
		f, ok := decodeFrame(n.cache[off:], salt, off, size)
		if !ok || off+f.size() <= p*page {
			continue
		}
		for n := f.first; n <= f.last(); n++ {
			w.excused[n] = true
		}
	}
}

// deliver takes a batch to the receiver, and mostly hears the answer.
func (w *world) deliver() error {
	records, err := w.q.Peek(nil, w.rng.IntN(20<<10))
	if err != nil {
		if w.healthy(err) && !w.spoils {
			return fmt.Errorf("peek on a good disk: %w", err)
		}
		return nil
	}
	if w.disk.dead || len(records) == 0 {
		return nil
	}
	for _, r := range records {
		if err := w.receive(r); err != nil {
			return err
		}
	}
	if w.rng.IntN(4) == 0 {
		return nil
	}
	r := records[w.rng.IntN(len(records))]
	ack := r.First + uint64(w.rng.IntN(int(r.Count)))
	w.trace("ack %d", ack)
	if err := w.q.Ack(ack); err != nil && w.healthy(err) {
		return fmt.Errorf("ack on a good disk: %w", err)
	}
	return nil
}

func (w *world) receive(r Record) error {
	for n := r.First; n <= r.last(); n++ {
		i := slices.IndexFunc(w.attempts[n], func(id int) bool {
			sent := w.sent[id-1]
			return sent.First == r.First && bytes.Equal(sent.Data, r.Data)
		})
		if i < 0 {
			return fmt.Errorf("number %d: received %.24q, appended were records %d", n, r.Data, w.attempts[n])
		}
		id := w.attempts[n][i]
		if before, ok := w.received[n]; ok && before != id {
			return fmt.Errorf("number %d was received as record %d and as %d", n, before, id)
		}
		if cause := w.lost[n]; cause == CauseDamaged && !w.excused[n] {
			return fmt.Errorf("number %d was declared damaged and received", n)
		}
		w.received[n], w.seen[n] = id, true
	}
	w.trace("received %d-%d", r.First, r.last())
	w.floor = max(w.floor, r.last()+1)
	return nil
}

// takeLosses notes what is declared. What a start found lost may have been handed
// out: before it, and the answer was lost with the process, or behind it, if a
// dropped segment came back while the loss was withheld.
func (w *world) takeLosses() error {
	woken := len(w.q.lossy) > 0
	if woken {
		<-w.q.Lossy()
	}
	losses := w.q.Losses()
	found := w.found
	if len(losses) > 0 {
		w.found = nil
	}
	if len(losses) > 0 && !woken {
		return fmt.Errorf("nobody was woken for %+v", losses)
	}
	for _, l := range losses {
		w.trace("loss %s %d-%d (%d), found at the start: %v", l.Cause, l.First, l.Last, l.Count, covers(found, l.First))
		run := l.Last - l.First + 1
		if l.First > l.Last || l.Count == 0 || l.Count > run {
			return fmt.Errorf("odd loss %+v", l)
		}
		may := run // be damaged
		for n := l.First; n <= l.Last; n++ {
			if w.spoils && len(w.attempts[n]) == 0 {
				w.excused[n] = true // passed over, and perhaps not durably
			}
			if w.sure[n] != 0 && !w.excused[n] {
				may-- // it was confirmed
			}
			if w.seen[n] && !covers(found, n) && !w.excused[n] {
				return fmt.Errorf("number %d was handed out and then declared lost: %+v", n, l)
			}
			if w.heard[n] = l.Cause; l.Count < run {
				w.heard[n] = "some of a run, " + l.Cause
			}
		}
		if l.Cause == CauseDamaged && l.Count > may && !w.joined { // else some may be told twice
			return fmt.Errorf("%d numbers of a run may be damaged, the others were confirmed: %+v", may, l)
		}
	}
	return nil
}

func covers(losses []Loss, n uint64) bool {
	return slices.ContainsFunc(losses, func(l Loss) bool { return l.First <= n && n <= l.Last })
}

// declare says that what was heard is in another durable account.
func (w *world) declare() {
	w.trace("declared: %d numbers", len(w.heard))
	w.q.Declared()
	maps.Copy(w.lost, w.heard)
	clear(w.heard)
}

// crash stops the process or the machine and starts again, perhaps only to stop
// in recovery.
func (w *world) crash() error {
	for {
		w.crashes++
		if w.rng.IntN(3) == 0 {
			w.trace("kill")
			w.disk.kill()
		} else {
			w.trace("power cut")
			w.disk.cutPower()
		}
		if w.rng.IntN(4) == 0 {
			w.disk.deadIn = 1 + w.rng.IntN(10)
		}
		err := w.start()
		if w.disk.dead {
			continue
		}
		return err
	}
}

func (w *world) start() error {
	q, err := open(w.o, w.disk)
	if w.disk.dead {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the queue does not open: %w", err)
	}
	w.q = q
	for n := range w.sure {
		w.floor = max(w.floor, n+1)
	}
	if w.floor > 1 && q.Stream() != w.stream {
		return errors.New("the stream has changed")
	}
	if q.Next() < w.floor {
		return fmt.Errorf("the next number is %d, but %d was in use", q.Next(), w.floor-1)
	}
	w.trace("started: next %d, acked %d, %+v", q.Next(), q.acked, q.Stats())
	w.stream = q.Stream()
	w.joined = w.joined || len(q.losses) >= markLosses
	clear(w.seen)
	clear(w.heard)
	w.found = slices.Clone(q.losses)
	w.next = q.Next()
	return w.takeLosses()
}

// finish repairs the disk, delivers all, and closes the account.
func (w *world) finish() error {
	w.disk.fault, w.disk.flaky, w.disk.deadIn, w.disk.capacity = 0, 0, 0, unbounded
	for patience := 100; ; {
		records, err := w.q.Peek(nil, 16<<10)
		if err != nil {
			if patience--; w.spoils && patience > 0 {
				continue // each bad page may cost some
			}
			return fmt.Errorf("peek at the end: %w", err)
		}
		if len(records) == 0 {
			break
		}
		for _, r := range records {
			if err := w.receive(r); err != nil {
				return err
			}
		}
		if err := w.q.Ack(records[len(records)-1].last()); err != nil {
			return fmt.Errorf("ack at the end: %w", err)
		}
	}
	if err := w.takeLosses(); err != nil {
		return err
	}
	w.declare()
	for n := uint64(1); n < w.q.Next(); n++ {
		if _, ok := w.received[n]; !ok && w.lost[n] == "" && (w.sure[n] != 0 || !w.skipped[n] && !w.jumped[n]) {
			return fmt.Errorf("number %d is missing without a word (next %d, confirmed as record %d)", n, w.q.Next(), w.sure[n])
		}
	}
	if s := w.q.Stats(); s.Records != 0 || s.Events != 0 || s.Bytes != 0 {
		return fmt.Errorf("the drained queue counts %+v", s)
	}
	return w.q.Close()
}
