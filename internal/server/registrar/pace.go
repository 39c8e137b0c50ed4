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

	mu    sync.Mutex
	debts map[string]time.Time // when a name will have its whole burst again; guarded by mu
}

// maxDebts bounds the names that are remembered. When more come, those are
// forgotten that owe nothing; if all owe, who is new waits.
const maxDebts = 10_000

func newPace(burst int, every time.Duration) *pace {
	return &pace{burst: burst, every: every, debts: map[string]time.Time{}}
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
	if wait <= 0 && !known && len(p.debts) >= maxDebts && !p.forgetLocked(now) {
		wait = p.every
	}
	if wait > 0 {
		return &refusal{status: http.StatusTooManyRequests, told: "too many requests", why: errors.New("it asks too often"), after: wait}
	}
	p.debts[name] = full
	return nil
}

func (p *pace) forgetLocked(now time.Time) bool {
	for name, full := range p.debts {
		if !full.After(now) {
			delete(p.debts, name)
		}
	}
	return len(p.debts) < maxDebts
}
