// Package trouble decides how often a failure that goes on is said: when it
// begins, when it becomes another one, now and then while it lasts, and when it
// is over. A log that repeats one line a second hides all others.
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
	text  string
	began time.Time
	next  time.Time
	count uint64
}

// Failed notes a failure and reports whether it is to be said.
func (t *Trouble) Failed(text string) bool {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == 0 {
		t.began = now
	}
	t.count++
	if text == t.text && now.Before(t.next) {
		return false
	}
	t.text, t.next = text, now.Add(Every)
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
	t.text, t.count = "", 0
	return failures, lasted
}

// Now returns the failure that is going on and how often it happened, or "" and 0.
func (t *Trouble) Now() (text string, failures uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text, t.count
}
