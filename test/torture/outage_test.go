//go:build torture && linux

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/identity"
)

// TestTheQueueOverflowsWhileTheServerIsAway loses several times what the queue
// holds: the gap events lie in the queue that overflows, too.
func TestTheQueueOverflowsWhileTheServerIsAway(t *testing.T) {
	t.Parallel()
	for name, kills := range map[string]int{"alone": 0, "and kills": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			small := quick{queueBytes: "1MiB"}
			b.startAgent(small)
			dropped := func(n float64) {
				b.until("events are dropped", func() bool {
					return figure(metrics(b.status), `rea_queue_dropped_events_total\{lane="evidence",reason="queue_full"\}`) > n
				})
			}
			dropped(5000) // three times what the lane holds
			for range kills {
				b.agent.kill()
				b.ends++
				b.startAgent(small)
				dropped(300)
			}
			b.startServer()
			b.sent(100)
			if r := b.settle("an outage overflows the queue "+name, 1+kills); r.declared == 0 {
				t.Error("nothing was lost: the queue did not overflow")
			}
		})
	}
}

// virtual is an agent in this process, in a bubble of time that is its own, with
// the queue of the bench. Nobody listens where it sends to. Tests with one do not
// run beside others: what those start inherits the lock of the queue for a moment.
func (b *bench) virtual(ctx context.Context, emit func(ctx context.Context, emit func(context.Context, ...event.Event) error) error) {
	c := agent.Default()
	c.Agent.NodeID = b.node()
	c.Collectors.CPU.Enabled, c.Collectors.Disk.Enabled, c.Collectors.Network.Enabled = false, false, false
	c.Collectors.Process.Enabled, c.Collectors.Memory.Enabled = false, false
	c.Collectors.Host.Interval = time.Hour
	c.Logging.Mode = "none"
	c.Networking.Enabled = true
	c.Networking.Endpoint = "https://" + b.address
	c.Networking.Backoff = config.Range{Min: 500 * time.Millisecond, Max: time.Minute}
	c.Networking.QueueDir = b.Path(b.queue)
	c.Networking.QueueMaxBytes, c.Networking.QueueMinFreeBytes = 64<<20, 0
	a, err := agent.New(agent.Options{
		Config: c, Version: "torture", Log: slog.New(slog.DiscardHandler), Stdout: os.Stdout, Sources: []agent.Source{{Name: "log", Run: emit}},
	})
	if err != nil {
		b.T.Error(err)
		return
	}
	if err := a.Run(ctx); err != nil {
		b.T.Error(err)
	}
}

// node returns who the agent is by its certificate.
func (b *bench) node() string {
	text, err := os.ReadFile(b.Path("certs/agent.crt"))
	if err != nil {
		b.T.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		b.T.Fatal(err)
	}
	node, err := identity.Node(cert)
	if err != nil {
		b.T.Fatal(err)
	}
	return node
}

// source emits items at an interval, and keeps the books on them.
func (b *bench) source(interval time.Duration) func(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
	return func(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
		r := &replayer{name: "log", kind: event.Journal, seed: b.seed, dir: b.cursors}
		next, err := r.load()
		for err == nil {
			if err = emit(ctx, r.events(next, mostItems)...); err != nil {
				break
			}
			next += mostItems
			b.books.acknowledged(r.name, next)
			r.save(ctx, next)
			pause(ctx, interval)
		}
		return err
	}
}

// TestTheServerIsAwayFor72Hours lets the agent run for three days of virtual time
// while nobody listens, and then delivers in real time.
func TestTheServerIsAwayFor72Hours(t *testing.T) {
	b := newBench(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 72*time.Hour)
		defer cancel()
		b.virtual(ctx, b.source(time.Minute))
	})
	if b.books.safe() < 72*60*mostItems*9/10 {
		t.Errorf("only %d items in 72 hours", b.books.safe())
	}
	b.ends++
	b.startServer()
	b.startAgent(quick{})
	b.settle("72 virtual hours without server", 72)
}

// TestTheClockJumpsByYears runs the agent at the date of this machine, in the year
// 2000, ten years ago, in ten years, in 2050, and at the date of this machine
// again, on one queue. What jumps is the clock of the machine between two runs,
// and the time that a run sees pass.
func TestTheClockJumpsByYears(t *testing.T) {
	b := newBench(t)
	b.startServer()
	b.startAgent(quick{})
	b.sent(60)
	b.agent.kill()
	b.server.stop()
	now := time.Now()
	dates := []time.Time{time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC), now.AddDate(-10, 0, 0), now.AddDate(10, 0, 0), time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)}
	synctest.Test(t, func(t *testing.T) { // where it is the year 2000
		for _, date := range dates {
			time.Sleep(time.Until(date))
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			b.virtual(ctx, b.source(time.Minute))
			cancel()
		}
	})
	b.startServer()
	b.restartAgent()
	b.ends += len(dates)
	b.settle("the clock jumps by 10 to 50 years", len(dates)+1)
}
