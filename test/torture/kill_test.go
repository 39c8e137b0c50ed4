//go:build torture && linux

package main

import (
	"testing"
	"time"
)

// TestKills kills agent and server at random moments, one or both, running,
// frozen or starting, and sometimes ends them in order.
func TestKills(t *testing.T) {
	b := newBench(t)
	b.startServer()
	b.startAgent(quick{})
	for i := range *killFlag {
		time.Sleep(time.Duration(b.rng.Int64N(int64(200 * time.Millisecond))))
		b.strike()
		if t.Failed() {
			t.Fatalf("in cycle %d", i)
		}
	}
	b.wantAll(b.settle("kill -9 of agent and server", *killFlag), *killFlag)
}

// wantAll wants nothing missing, not even declared, and an item a cycle at least:
// else little was tried.
func (b *bench) wantAll(r balance, cycles int) {
	b.T.Helper()
	if r.declared > 0 {
		b.T.Errorf("%d numbers are declared missing, and only processes ended", r.declared)
	}
	if r.items < uint64(cycles) {
		b.T.Errorf("only %d items arrived in %d cycles", r.items, cycles)
	}
}

// strike ends something in one way and starts it again.
func (b *bench) strike() {
	b.T.Helper()
	again := []func(){b.restartAgent, b.restartServer}
	victims := []*process{b.agent, b.server}
	switch n := b.rng.IntN(100); {
	case n < 38:
		b.agent.kill()
		again[0]()
	case n < 76:
		b.server.kill()
		again[1]()
	case n < 84:
		first := b.rng.IntN(2)
		victims[first].kill()
		victims[1-first].kill()
		again[first]()
		again[1-first]()
	case n < 92:
		i := b.rng.IntN(2)
		victims[i].freeze()
		time.Sleep(time.Duration(b.rng.Int64N(int64(100 * time.Millisecond))))
		if b.rng.IntN(2) == 0 {
			victims[i].thaw()
			return
		}
		victims[i].kill()
		again[i]()
	case n < 96:
		b.agent.stop()
		again[0]()
	default:
		b.server.stop()
		again[1]()
	}
}

func (b *bench) restartAgent() {
	b.T.Helper()
	b.ends++
	b.startAgent(quick{})
}

func (b *bench) restartServer() {
	b.T.Helper()
	b.startServer()
}
