package registrar

import (
	"errors"
	"net/http"
	"sync"
	"time"
)

// A pace lets each name do something so often: a burst, and then one every so
// often.
type pace struct {
	burst int
	every time.Duration
	most  int // names that are remembered

	mu    sync.Mutex
	debts map[string]time.Time // when a name will have its whole burst again; guarded by mu
}

// The names that are remembered are bounded. When more come, those are forgotten
// that owe nothing; if all owe, who is new waits a little. Strangers can have any
// number of addresses; an agent is proven by its certificate, and a fleet renews
// for days.
const (
	maxStrangers = 10_000
	maxAgents    = 1 << 20
	roomPause    = time.Minute
)

func newPace(burst int, every time.Duration, most int) *pace {
	return &pace{burst: burst, every: every, most: most, debts: map[string]time.Time{}}
}

// take takes one from the burst of a name. Its error is a refusal with the time
// after which there will be another one.
func (p *pace) take(name string, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	full, known := p.debts[name]
	if full.Before(now) {
		full = now
	}
	full = full.Add(p.every)
	wait := full.Sub(now) - time.Duration(p.burst)*p.every
	if wait <= 0 && !known && len(p.debts) >= p.most && !p.forgetLocked(now) {
		wait = min(p.every, roomPause)
	}
	if wait > 0 {
		return &refusal{status: http.StatusTooManyRequests, told: "too many requests", why: errors.New("it asks too often"), after: wait}
	}
	p.debts[name] = full
	return nil
}

// giveBack undoes a take: what was asked for could not be given.
func (p *pace) giveBack(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if full, ok := p.debts[name]; ok {
		p.debts[name] = full.Add(-p.every)
	}
}

func (p *pace) forgetLocked(now time.Time) bool {
	for name, full := range p.debts {
		if !full.After(now) {
			delete(p.debts, name)
		}
	}
	return len(p.debts) < p.most
}
