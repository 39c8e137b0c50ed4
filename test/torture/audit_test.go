//go:build torture && linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

// settle delivers what is left, ends both processes and closes the books. First
// more comes in each lane than a crash can take: numbers that the server was told
// of, and that were not on the disk, wait for the server until they are used again.
func (b *bench) settle(what string, many int) balance {
	b.T.Helper()
	b.sent(50)
	b.hush()
	b.drain()
	b.agent.stop()
	b.ends++
	b.empty(b.queue, func() { b.startAgent(quick{still: true}) })
	b.server.stop()
	return b.audit(what, many, b.queue)
}

// empty has agents without collectors deliver what lies in a queue. An agent that
// ends in order leaves an event that says so, therefore these are killed. What
// one of them had still to say at that moment is for the next.
func (b *bench) empty(queueDir string, start func()) {
	b.T.Helper()
	var left string
	for range 5 {
		start()
		b.until("the agent has said that it started", func() bool {
			return figure(metrics(b.status), `rea_events_emitted_total\{kind="agent"\}`) > 0
		})
		b.until("all that has a number is delivered", func() bool {
			page := metrics(b.status)
			return delivered(page) && figure(page, "rea_sender_lag_events") == 0
		})
		b.agent.kill()
		if left = b.left(queueDir); left == "" {
			return
		}
	}
	b.T.Errorf("the queue is never empty: %s", left)
}

// left says what lies in the queues of an agent that does not run.
func (b *bench) left(queueDir string) (left string) {
	b.T.Helper()
	for _, lane := range []string{"evidence", "metrics"} {
		in, err := queue.Inspect(filepath.Join(b.Path(queueDir), lane))
		if err != nil {
			b.T.Fatal(err)
		}
		if in.Waiting.Events > 0 || len(in.Losses) > 0 {
			left += fmt.Sprintf("%s: %+v, losses %+v; ", lane, in.Waiting, in.Losses)
		}
	}
	return left
}

// audit reads the store and the queues of these folders, and closes the books.
// Nothing may run.
func (b *bench) audit(what string, many int, queues ...string) balance {
	b.T.Helper()
	b.readStore()
	for _, q := range queues {
		for _, lane := range []string{"evidence", "metrics"} {
			b.readQueue(filepath.Join(b.Path(q), lane))
		}
	}
	r := b.books.close()
	r.faults = append(b.faults, r.faults...)
	announced := b.forgive(&r)
	b.say(r)
	if most := uint64(b.ends * 2 * mostItems); r.replayed > most {
		b.T.Errorf("%d items were replayed, %d ends of the agent explain %d", r.replayed, b.ends, most)
	}
	line := b.row(&r, what, many)
	if announced > 0 {
		line.Note = fmt.Sprintf("%d lost at the end of an agent whose disk refused to keep a gap event; its log says so", announced)
	} else {
		b.verify()
	}
	note(b.T, line)
	return r
}

// lastWords is what an agent says of what it could not declare before it ended.
var lastWords = regexp.MustCompile(`the agent ends before a gap event could say so" lost=(\d+)`)

// hearOut notes the last words of an agent that has ended.
func (b *bench) hearOut() {
	b.T.Helper()
	if m := lastWords.FindStringSubmatch(b.agent.said()); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			b.T.Fatal(err)
		}
		b.unsaid += n
	}
}

// forgive strikes what is missing without a gap event as far as an agent has
// announced it, and returns how many numbers that are. A disk that refuses
// everything until the agent ends leaves no other place to say it.
func (b *bench) forgive(r *balance) (numbers int) {
	numbers = r.count(undeclared)
	if numbers == 0 || numbers > b.unsaid {
		return 0
	}
	left := numbers
	r.faults = slices.DeleteFunc(r.faults, func(f fault) bool {
		if f.what == lost {
			left--
			return left >= 0
		}
		return f.what == undeclared
	})
	return numbers
}

// auditLoss is audit where something outside of the promise took events along: it
// wants no number twice, and that the server knows of a hole.
func (b *bench) auditLoss(what string, many int) {
	b.T.Helper()
	b.readStore()
	r := b.books.close()
	missing := r.count(lost) + r.count(undeclared)
	r.faults = slices.DeleteFunc(append(b.faults, r.faults...), func(f fault) bool { return f.what == lost || f.what == undeclared })
	b.say(r)
	line := b.row(&r, what, many)
	line.Note = fmt.Sprintf("%d items or numbers went with what was taken away", missing)
	note(b.T, line)
}

// say prints the first faults.
func (b *bench) say(r balance) {
	b.T.Helper()
	b.T.Logf("%d numbers assigned = %d received + %d declared missing (%d declared and received); %d items, %d replayed", r.assigned, r.received, r.declared, r.both, r.items, r.replayed)
	for i, f := range r.faults {
		if i == 20 {
			b.T.Errorf("and %d more faults", len(r.faults)-i)
			break
		}
		b.T.Errorf("%s: %s", f.what, f.text)
	}
	if r.items == 0 {
		b.T.Error("no item arrived: nothing was tried")
	}
}

func (b *bench) row(r *balance, what string, many int) row {
	return row{
		What: what, Many: many, Assigned: r.assigned, Received: r.received, Declared: r.declared, Replayed: r.replayed,
		Lost: r.count(lost), Repeated: r.count(repeated) + r.count(reused), Undeclared: r.count(undeclared), Wrong: r.count(wrong),
		Seconds: time.Since(b.began).Seconds(), Seed: b.seed,
	}
}

// readStore enters all that the server keeps, a line at a time: after a night it is much.
func (b *bench) readStore() {
	b.T.Helper()
	cmd := b.Command("rea-server", "events", "--config", "server.toml", "--json", "--limit", "0")
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.T.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 2*wire.MaxLine)
	for lines.Scan() {
		b.faults = append(b.faults, b.books.stored(lines.Bytes())...)
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		b.T.Fatalf("read the store: %v\n%s", err, failure.String())
	}
}

// readQueue enters what still lies in a queue, and the last number it gave.
func (b *bench) readQueue(dir string) {
	b.T.Helper()
	q, err := queue.Open(queue.Options{Dir: dir, MaxBytes: 1 << 30})
	if err != nil {
		b.T.Fatal(err)
	}
	defer q.Close()
	decoder := wire.NewDecompressor()
	err = b.books.assign(q.Stream().String(), q.Next()-1)
	for err == nil {
		var records []queue.Record
		if records, err = q.Peek(nil, 1<<20); err != nil || len(records) == 0 {
			break
		}
		for _, r := range records {
			text := r.Data
			if wire.IsZstd(text) {
				if text, err = decoder.Decode(nil, r.Data, 64<<20); err != nil {
					b.T.Fatal(err)
				}
			}
			for l := range bytes.Lines(text) {
				b.faults = append(b.faults, b.books.kept(l)...)
			}
		}
		last := records[len(records)-1]
		err = q.Ack(last.First + uint64(last.Count) - 1)
	}
	if err != nil {
		b.T.Fatalf("read queue %s: %v", dir, err)
	}
}

// verify wants the server to come to the same result.
func (b *bench) verify() {
	b.T.Helper()
	if stdout, stderr, code := b.Run("rea-server", "verify", "--config", "server.toml"); code != 0 {
		b.T.Errorf("rea-server verify: exit %d\n%s%s", code, stdout, stderr)
	}
}
