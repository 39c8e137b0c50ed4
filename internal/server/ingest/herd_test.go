package ingest

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A herd is a fleet of agents that lost their server and come back, in virtual
// time: what happens next is always what is earliest.
type herd struct {
	rand  *rand.Rand
	pace  *pacer
	queue tries

	service  time.Duration // that one request takes of the server
	refusal  time.Duration // that one refused takes
	inFlight int           // requests at a time, as Limits.InFlight

	now     time.Time
	free    time.Time   // when the server will have done what it has
	leaving []time.Time // when each request that is on its way will be done
	back    []time.Duration
	refused int
}

// A try is an agent that comes at a time.
type try struct{ at time.Time }

type tries []try

func (t tries) Len() int           { return len(t) }
func (t tries) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t tries) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *tries) Push(x any)        { *t = append(*t, x.(try)) }
func (t *tries) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}

// jitter is a random part of d.
func (h *herd) jitter(d time.Duration) time.Duration {
	return time.Duration(h.rand.Float64() * float64(d))
}

// run lets agents come back from the moment at which the server is there again,
// each first within the longest pause of its own, and then by the server's word.
func (h *herd) run(agents int, longest time.Duration) {
	began := time.Unix(1_700_000_000, 0)
	h.free = began
	for range agents {
		heap.Push(&h.queue, try{began.Add(h.jitter(longest))})
	}
	for len(h.queue) > 0 {
		h.now = heap.Pop(&h.queue).(try).at
		for len(h.leaving) > 0 && !h.leaving[0].After(h.now) {
			h.pace.done(h.leaving[0])
			h.leaving = h.leaving[1:]
		}
		if len(h.leaving) < h.inFlight {
			h.serve(h.service)
			h.leaving = append(h.leaving, h.free)
			h.back = append(h.back, h.free.Sub(began))
			continue
		}
		h.refused++
		h.serve(h.refusal)
		after := h.pace.later(h.now)
		heap.Push(&h.queue, try{h.now.Add(after + h.jitter(after/10) + h.jitter(time.Second))})
	}
	slices.Sort(h.back)
}

func (h *herd) serve(takes time.Duration) {
	if h.free.Before(h.now) {
		h.free = h.now
	}
	h.free = h.free.Add(takes)
}

func (h *herd) quantile(q float64) time.Duration {
	return h.back[min(len(h.back)-1, int(q*float64(len(h.back))))].Round(10 * time.Millisecond)
}

// A fleet comes back about as fast as the server can serve it: the last of
// 100,000 agents cannot be there before 100 s at 1,000 requests a second.
func TestHerdComesBackAsFastAsItCanBeServed(t *testing.T) {
	for _, c := range []struct {
		name     string
		agents   int
		service  time.Duration
		inFlight int
		p99, max time.Duration
	}{
		{"100,000 agents at 1,000 requests a second", 100_000, time.Millisecond, 64, 120 * time.Second, 140 * time.Second},
		{"a server that takes more at a time", 100_000, time.Millisecond, 1000, 120 * time.Second, 140 * time.Second},
		{"a fast server", 100_000, 100 * time.Microsecond, 64, 20 * time.Second, 30 * time.Second},
		{"a small fleet of a slow server", 1000, 20 * time.Millisecond, 8, 30 * time.Second, 40 * time.Second},
		{"a few agents", 50, time.Millisecond, 8, 10 * time.Second, 10 * time.Second},
	} {
		seed, start := uint64(1), time.Now()
		dice := rand.New(rand.NewPCG(seed, 0))
		h := &herd{rand: dice, pace: newPacer(dice.Float64), service: c.service, refusal: c.service / 50, inFlight: c.inFlight}
		h.run(c.agents, 5*time.Second)
		t.Logf("%s: seed %d: back after p50 %v, p99 %v, max %v; each refused %.1f times", c.name, seed,
			h.quantile(0.5), h.quantile(0.99), h.quantile(1), float64(h.refused)/float64(c.agents))
		// For the table of make torture.
		t.Logf(`row {"What":"herd: %s","Many":%d,"Seconds":%.1f,"Seed":%d,"Note":"back after p50 %v, p99 %v, max %v"}`, c.name, c.agents,
			time.Since(start).Seconds(), seed, h.quantile(0.5), h.quantile(0.99), h.quantile(1))
		if len(h.back) != c.agents || h.quantile(0.99) > c.p99 || h.quantile(1) > c.max {
			t.Errorf("%s: %d are back, p99 %v, max %v, want %v, %v", c.name, len(h.back), h.quantile(0.99), h.quantile(1), c.p99, c.max)
		}
	}
}
