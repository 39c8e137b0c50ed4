// Package trouble decides how often a failure that goes on is said: when it
// begins, when it becomes one that was not said lately, now and then while it
// lasts, and when it is over. A log that repeats one line a second hides all others.
package trouble

import (
	"sync"
	"time"
)

// Every is how often a failure that goes on is said again.
const Every = 5 * time.Minute

// A Trouble is one thing that can fail. The zero Trouble is ready and works. It
// is safe for concurrent use.
type Trouble struct {
	mu    sync.Mutex
	text  string // of the last failure
	began time.Time
	count uint64
	said  map[string]time.Time // when each text was said last
}

// maxSaid bounds the texts that are remembered: a failure may show itself in a
// few ways by turns, one whose text is new every time is said every time.
const maxSaid = 16

// Failed notes a failure and reports whether it is to be said.
func (t *Trouble) Failed(text string) bool {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == 0 {
		t.began = now
	}
	t.count++
	t.text = text
	if at, ok := t.said[text]; ok && now.Sub(at) < Every {
		return false
	}
	if t.said == nil || len(t.said) == maxSaid {
		t.said = map[string]time.Time{}
	}
	t.said[text] = now
	return true
}

// Worked notes that it works. If it had failed, it reports how often and for
// how long.
func (t *Trouble) Worked() (failures uint64, lasted time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == 0 {
		return 0, 0
	}
	failures, lasted = t.count, time.Since(t.began)
	t.text, t.count, t.said = "", 0, nil
	return failures, lasted
}

// Now returns the failure that is going on and how often it happened, or "" and 0.
func (t *Trouble) Now() (text string, failures uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text, t.count
}
