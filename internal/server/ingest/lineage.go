package ingest

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/trouble"
)

// lineages remembers which processes of agents used which stream, to tell an
// agent that was started again from two that live. One that was started again
// never comes back as the process that it was.
//
// It is in memory only: after a restart of the server two living agents show
// themselves again with the third request.
type lineages struct {
	mu    sync.Mutex
	list  map[string]*lineage // by node and stream; guarded by mu
	swept time.Time           // guarded by mu
}

// lineage is what is remembered of one stream.
type lineage struct {
	current string   // the process that came last as a new one
	past    []string // those before it, the latest first
	seen    time.Time
	trouble trouble.Trouble // of its conflicts
}

// The bounds of what is remembered. An agent shows itself once a minute.
const (
	maxPast     = 4
	maxLineages = 1 << 18 // some 100 MB
	silence     = 15 * time.Minute
	sweepEvery  = time.Minute
)

// superseded notes that instance used the stream, and reports whether another
// one has come since it was the current one. A request without an instance is a
// tool's, which replays what an agent made; it is none of the line.
func (l *lineages) superseded(lane, instance string, now time.Time) bool {
	if instance == "" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	is := l.findLocked(lane, now)
	switch {
	case instance == is.current:
		return false
	case slices.Contains(is.past, instance):
		return true
	}
	if is.current != "" {
		is.past = slices.Insert(is.past[:min(len(is.past), maxPast-1)], 0, is.current)
	}
	is.current = strings.Clone(instance) // and not the request's headers
	return false
}

// trouble returns that of the conflicts of a stream.
func (l *lineages) trouble(lane string, now time.Time) *trouble.Trouble {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &l.findLocked(lane, now).trouble
}

func (l *lineages) findLocked(lane string, now time.Time) *lineage {
	is := l.list[lane]
	if is == nil {
		l.sweepLocked(now)
		is = &lineage{}
		l.list[lane] = is
	}
	is.seen = now
	return is
}

// sweepLocked makes room for one: it forgets silent streams now and then, and
// any stream where there are too many.
func (l *lineages) sweepLocked(now time.Time) {
	if now.Sub(l.swept) >= sweepEvery {
		l.swept = now
		for lane, is := range l.list {
			if now.Sub(is.seen) > silence {
				delete(l.list, lane)
			}
		}
	}
	for lane := range l.list {
		if len(l.list) < maxLineages {
			break
		}
		delete(l.list, lane)
	}
}
