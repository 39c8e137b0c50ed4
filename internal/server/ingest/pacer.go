package ingest

import (
	"sync"
	"time"
)

// A pacer says to agents that are refused for load when to come again, so that a
// fleet comes back as fast as it can be served and no faster.
//
// It counts how many were told to come and have not yet, and how many requests
// are served a second while there is too much load. Their quotient is how long
// it will take to serve all those who wait, and an agent is told a random moment
// in the first part of that time (eager). So more come at first than can be
// served; they draw again, and capacity is not idle while somebody waits, even
// where the rate was measured too low.
//
// It reads no clock and no dice of its own: it is a function of what it is told.
type pacer struct {
	random func() float64 // 0 ≤ x < 1

	mu      sync.Mutex
	began   time.Time    // of the present load; guarded by mu
	last    time.Time    // refusal; guarded by mu
	rate    float64      // requests a second, as measured before began; guarded by mu
	served  float64      // since began; guarded by mu
	due     [horizon]int // agents told to come, by second modulo horizon; guarded by mu
	waiting int          // of due; guarded by mu
	now     int64        // the second that due begins at; guarded by mu
}

const (
	maxLater = 300 * time.Second
	horizon  = 512 // seconds; more than maxLater
	eager    = 0.5 // of the time to serve all who wait

	firstRate = 100.0                  // requests a second, believed until some were measured
	prior     = 250 * time.Millisecond // of measuring, that the belief counts as
	leastRate = 1.0                    // so that a few agents are not sent away for long by a server that cannot serve
	calm      = 5 * time.Second        // without a refusal: the load is over
	recent    = 20 * time.Second       // of measuring; then what was measured counts as the half of that
)

func newPacer(random func() float64) *pacer { return &pacer{random: random, rate: firstRate} }

// done notes that a request was served.
func (p *pacer) done(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.last) < calm {
		p.served++
	}
}

// later notes that an agent is refused and returns when it may come again, at
// least a second and at most maxLater later.
func (p *pacer) later(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.measureLocked(now)
	p.forgetLocked(now)
	p.waiting++
	window := time.Duration(min(eager*float64(p.waiting)/p.rateLocked(now), maxLater.Seconds()) * float64(time.Second))
	after := min(max(time.Second, time.Duration(p.random()*float64(window))), maxLater)
	after = (after + time.Second - 1).Truncate(time.Second) // the header has no less
	p.due[(p.now+int64(after/time.Second))%horizon]++
	return after
}

// measureLocked begins to measure anew where a load begins, and lets what was
// measured long ago count less.
func (p *pacer) measureLocked(now time.Time) {
	switch {
	case now.Sub(p.last) >= calm:
		p.began, p.served = now, 0
	case now.Sub(p.began) >= recent:
		p.rate = p.rateLocked(now)
		p.began, p.served = now.Add(-recent/2), p.rate*(recent/2).Seconds()
	}
	p.last = now
}

// rateLocked is how many requests a second are served.
func (p *pacer) rateLocked(now time.Time) float64 {
	return max(leastRate, (p.served+p.rate*prior.Seconds())/(now.Sub(p.began)+prior).Seconds())
}

// forgetLocked takes out those whose time has come.
func (p *pacer) forgetLocked(now time.Time) {
	second := now.Unix()
	if second-p.now >= horizon || second < p.now { // or the clock was set back
		p.due, p.waiting, p.now = [horizon]int{}, 0, second
	}
	for ; p.now < second; p.now++ {
		p.waiting -= p.due[p.now%horizon]
		p.due[p.now%horizon] = 0
	}
}
