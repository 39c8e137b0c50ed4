//go:build torture && linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/queue"
)

// Of the power cuts, a part hits the whole agent and a part the whole server; the
// rest hits a queue by itself, which does more in the same time.
func agentCuts() int  { return *cutFlag / 5 }
func serverCuts() int { return *cutFlag / 5 }
func queueCuts() int  { return *cutFlag - agentCuts() - serverCuts() }

// TestPowerCutsOfAQueue has a process append to a queue, read from it and
// acknowledge, cuts the power at random, and compares what the disk still has
// with what the process had been told.
func TestPowerCutsOfAQueue(t *testing.T) {
	began := time.Now()
	d := newDisk(t, 48)
	seed, rng := dice(t)
	w := &witness{kept: map[uint64]uint64{}, seen: map[uint64]uint64{}}
	for i := range queueCuts() {
		p := startWriter(t, filepath.Join(d.dir, "queue"), seed+uint64(i), w)
		time.Sleep(time.Duration(rng.Int64N(int64(100 * time.Millisecond))))
		d.cutPower(p)
		if err := w.check(t, filepath.Join(d.dir, "queue")); err != nil {
			t.Fatalf("after cut %d: %v", i, err)
		}
	}
	if w.confirmed < queueCuts() {
		t.Errorf("only %d records were confirmed", w.confirmed)
	}
	note(t, row{
		What: "power cuts of a queue", Many: queueCuts(), Seconds: time.Since(began).Seconds(), Seed: seed,
		Note: fmt.Sprintf("%d records confirmed, %d numbers given", w.confirmed, w.next-1),
	})
}

func startWriter(t *testing.T, dir string, seed uint64, w *witness) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, dir, strconv.FormatUint(seed, 10))
	cmd.Env = append(os.Environ(), roleVariable+"=writer")
	return start(t, "writer", cmd, filepath.Join(t.TempDir(), "writer.log"), w.hear)
}

func options(dir string) queue.Options {
	return queue.Options{Dir: dir, MaxBytes: 8 << 20, SegmentBytes: 256 << 10, Wait: true}
}

// beWriter appends to a queue from several goroutines while another one reads
// from it, and says on standard output what it was told.
func beWriter(args []string) error {
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	q, err := queue.Open(options(args[0]))
	if err != nil {
		return err
	}
	failed := make(chan error, 5)
	var numbering sync.Mutex
	for i := range uint64(4) {
		go func() { failed <- appendAll(q, &numbering, rand.New(rand.NewPCG(seed, i))) }()
	}
	go func() { failed <- readAll(q, rand.New(rand.NewPCG(seed, 9))) }()
	return <-failed
}

func appendAll(q *queue.Queue, numbering *sync.Mutex, rng *rand.Rand) error {
	for {
		if err := appendOne(q, numbering, rng); err != nil {
			return err
		}
	}
}

func appendOne(q *queue.Queue, numbering *sync.Mutex, rng *rand.Rand) error {
	numbering.Lock()
	r := queue.Record{First: q.Next(), Count: 1 + uint32(rng.IntN(20))}
	nonce := rng.Uint64()
	size := rng.IntN(4 << 10)
	if rng.IntN(20) == 0 {
		size *= 20
	}
	r.Data = content(r.First, r.Count, nonce, size)
	p := q.Submit(r)
	numbering.Unlock()
	if err := p.Wait(context.Background()); err != nil {
		return err
	}
	fmt.Printf("kept %d %d %d\n", r.First, r.Count, nonce)
	return nil
}

// content is what a record says of itself, and what follows from that.
func content(first uint64, count uint32, nonce uint64, size int) []byte {
	b := fmt.Appendf(nil, "%d %d %d %d\n", first, count, nonce, size)
	r := rand.New(rand.NewPCG(first, nonce))
	for range size {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

// nonceOf returns the nonce of a record whose content is whole.
func nonceOf(r queue.Record) (nonce uint64, err error) {
	var first uint64
	var count uint32
	var size int
	if _, err := fmt.Sscanf(string(r.Data), "%d %d %d %d\n", &first, &count, &nonce, &size); err != nil {
		return 0, fmt.Errorf("record %d: %w", r.First, err)
	}
	if first != r.First || count != r.Count || size > 1<<20 || string(content(first, count, nonce, size)) != string(r.Data) {
		return 0, fmt.Errorf("record %d holds something else: %.100q", r.First, r.Data)
	}
	return nonce, nil
}

// readAll reads what becomes readable, and acknowledges a part of it.
func readAll(q *queue.Queue, rng *rand.Rand) error {
	for {
		records, err := q.Peek(nil, rng.IntN(128<<10))
		if err != nil {
			return err
		}
		if len(records) == 0 {
			<-q.Ready()
			continue
		}
		for _, r := range records {
			nonce, err := nonceOf(r)
			if err != nil {
				return err
			}
			fmt.Printf("seen %d %d %d\n", r.First, r.Count, nonce)
		}
		r := records[rng.IntN(len(records))]
		last := r.First + uint64(r.Count) - 1
		fmt.Printf("done %d 0 0\n", last) // before: it may be frozen right behind
		if err := q.Ack(last); err != nil {
			return err
		}
		time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
	}
}

// A witness knows what a writer said.
type witness struct {
	stream    string
	next      uint64            // as the disk had it last
	done      uint64            // acknowledged up to here
	kept      map[uint64]uint64 // number → nonce of the record that was confirmed
	seen      map[uint64]uint64 // the same of records that were handed out
	confirmed int
}

func (w *witness) hear(line string) {
	var what string
	var first, count, nonce uint64
	if n, _ := fmt.Sscanf(line, "%s %d %d %d", &what, &first, &count, &nonce); n != 4 {
		return
	}
	if what == "done" {
		w.done = max(w.done, first)
		return
	}
	told := w.kept
	if what == "seen" {
		told = w.seen
	} else {
		w.confirmed++
	}
	for n := first; n < first+count; n++ {
		told[n] = nonce
	}
}

// check opens a copy of the queue, so that the next writer recovers by itself,
// and compares.
func (w *witness) check(t *testing.T, dir string) error {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "queue")
	defer os.RemoveAll(copied)
	if _, err := os.Stat(dir); err != nil {
		if len(w.kept)+len(w.seen) > 0 {
			return err
		}
		return nil // the cut came before the folder
	}
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		return err
	}
	q, err := queue.Open(options(copied))
	if err != nil {
		return err
	}
	defer q.Close()
	if len(w.kept)+len(w.seen) > 0 {
		if w.stream != "" && q.Stream().String() != w.stream {
			return errors.New("the stream has changed")
		}
		w.stream = q.Stream().String()
	}
	found, err := w.found(q)
	if err != nil {
		return err
	}
	w.next = q.Next()
	for number := range w.kept {
		if number >= w.next {
			return fmt.Errorf("number %d was confirmed, and the next free one is %d", number, w.next)
		}
	}
	for number := range w.seen {
		if number >= w.next {
			return fmt.Errorf("number %d was handed out, and the next free one is %d", number, w.next)
		}
	}
	for number := w.done + 1; number < w.next; number++ {
		if !found[number] {
			last := number
			for last+1 < w.next && !found[last+1] {
				last++
			}
			return fmt.Errorf("numbers %d to %d are missing (next %d, acknowledged %d, nonce when confirmed %d, queue %+v)", number, last, w.next, w.done, w.kept[number], q.Stats())
		}
	}
	for _, told := range []map[uint64]uint64{w.kept, w.seen} { // of no use any more
		for number := range told {
			if number+10_000 < w.done {
				delete(told, number)
			}
		}
	}
	return nil
}

// found returns the numbers that the queue still has or declares lost. Nothing
// that was confirmed may be declared.
func (w *witness) found(q *queue.Queue) (map[uint64]bool, error) {
	found := map[uint64]bool{}
	for _, l := range q.Losses() {
		for n := l.First; n <= l.Last; n++ {
			if w.kept[n] != 0 && n > w.done {
				return nil, fmt.Errorf("number %d was confirmed, and is declared lost: %+v", n, l)
			}
			found[n] = true
		}
	}
	for {
		records, err := q.Peek(nil, 1<<20)
		if err != nil || len(records) == 0 {
			return found, err
		}
		for _, r := range records {
			nonce, err := nonceOf(r)
			if err != nil {
				return nil, err
			}
			for n := r.First; n < r.First+uint64(r.Count); n++ {
				for _, told := range []map[uint64]uint64{w.kept, w.seen} {
					if before, ok := told[n]; ok && before != nonce {
						return nil, fmt.Errorf("number %d was record %d and is record %d", n, before, nonce)
					}
				}
				found[n] = true
			}
		}
		last := records[len(records)-1]
		if err := q.Ack(last.First + uint64(last.Count) - 1); err != nil {
			return nil, err
		}
	}
}

// TestPowerCutsOfTheAgent cuts the power of the disk with the agent's queue and
// its sources' cursors.
func TestPowerCutsOfTheAgent(t *testing.T) {
	d := newDisk(t, 96)
	b := newBench(t)
	b.queue, b.cursors = filepath.Join(d.dir, "queue"), d.dir
	b.startServer()
	b.startAgent(quick{})
	for range agentCuts() {
		time.Sleep(time.Duration(b.rng.Int64N(int64(250 * time.Millisecond))))
		d.cutPower(b.agent)
		b.restartAgent()
	}
	b.wantAll(b.settle("power cuts of the agent", agentCuts()), agentCuts())
}

// TestPowerCutsOfTheServer cuts the power of the disk with the server's store.
func TestPowerCutsOfTheServer(t *testing.T) {
	d := newDisk(t, 96)
	b := newBench(t)
	b.data = filepath.Join(d.dir, "data")
	b.startServer()
	b.startAgent(quick{})
	for range serverCuts() {
		time.Sleep(time.Duration(b.rng.Int64N(int64(250 * time.Millisecond))))
		d.cutPower(b.server)
		b.restartServer()
	}
	b.wantAll(b.settle("power cuts of the server", serverCuts()), serverCuts())
}
