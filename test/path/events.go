package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/collect/cpu"
	"github.com/rea-agent/rea/internal/collect/disk"
	"github.com/rea-agent/rea/internal/collect/host"
	"github.com/rea-agent/rea/internal/collect/mem"
	"github.com/rea-agent/rea/internal/collect/netif"
	"github.com/rea-agent/rea/internal/collect/proc"
	"github.com/rea-agent/rea/internal/event"
)

// A measurement has what collectors write of one device: counters that grow and
// the rates at which they do, and a share.
type measurement struct {
	device             string
	received, sent     uint64
	receiving, sending float64
	share              float64
}

// Encode writes the members of a measurement.
func (m *measurement) Encode(e *event.Encoder) {
	e.String("name", m.device)
	e.Float("utilization", m.share, 4)
	e.Uint("read_bytes", m.received)
	e.Float("read_bytes_per_second", m.receiving, 2)
	e.Uint("write_bytes", m.sent)
	e.Float("write_bytes_per_second", m.sending, 2)
}

// next is the reading ten seconds later.
func (m *measurement) next(r *rand.Rand) {
	in, out := r.Uint64N(1<<20), r.Uint64N(1<<16)
	m.received, m.sent = m.received+in, m.sent+out
	m.receiving, m.sending = float64(in)/10, float64(out)/10
	m.share = min(max(m.share+(r.Float64()-0.5)/10, 0), 1)
}

// feed hands j.events over, by four sources at once, each reading its devices
// again and again. The events are the same in every run, but for their times.
func feed(ctx context.Context, j job, emit collect.Emit) error {
	kinds := []event.Kind{event.CPU, event.Memory, event.Disk, event.Network}
	errs := make(chan error, len(kinds))
	var sources sync.WaitGroup
	for i, k := range kinds {
		n := j.events / uint64(len(kinds))
		if i == 0 {
			n += j.events % uint64(len(kinds))
		}
		sources.Go(func() { errs <- source(ctx, k, rand.New(rand.NewPCG(1, uint64(i))), n, j.call, emit) })
	}
	sources.Wait()
	for range kinds {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func source(ctx context.Context, k event.Kind, r *rand.Rand, n uint64, call int, emit collect.Emit) error {
	bodies, events := make([]measurement, call), make([]event.Event, call)
	for i := range bodies {
		bodies[i] = measurement{device: string(k) + string(rune('a'+i%26)), received: r.Uint64N(1 << 40), sent: r.Uint64N(1 << 36)}
	}
	for n > 0 {
		now := time.Now()
		for i := range bodies {
			bodies[i].next(r)
			events[i] = event.Event{Time: now, Kind: k, Body: &bodies[i]}
		}
		batch := events[:min(n, uint64(call))]
		if err := emit(ctx, batch...); err != nil {
			return err
		}
		n -= uint64(len(batch))
	}
	return nil
}

// collect reads the collectors of this machine for so long, as the agent does by
// default.
func (l *lane) collect(ctx context.Context, d time.Duration) error {
	ctx, end := context.WithTimeout(ctx, d-time.Second) // not into the next reading
	defer end()
	r := collect.NewRunner(l.pipeline.Emit, l.log, l.set)
	for _, c := range []struct {
		kind   event.Kind
		reader collect.Reader
		every  time.Duration
	}{
		{event.CPU, cpu.New(), 10 * time.Second},
		{event.Memory, mem.New(), 10 * time.Second},
		{event.Disk, disk.New(disk.Config{}), 30 * time.Second},
		{event.Network, netif.New(), 10 * time.Second},
		{event.Process, proc.New(proc.Config{TopN: 10}), 10 * time.Second},
		{event.Host, host.New(), 5 * time.Minute},
	} {
		r.Add(string(c.kind), collect.Poll(c.reader, c.every, 5*time.Second))
	}
	_ = r.Run(ctx) // ends with its context
	return nil
}
