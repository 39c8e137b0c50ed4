package pipeline

import (
	"slices"
	"sync"

	"github.com/rea-agent/rea/internal/event"
)

// maxGaps bounds the losses that wait to be declared. Losses of one cause merge
// when their numbers touch, so there are more only if many lanes and causes
// alternate; then the last of a cause grows to cover what lies between.
const maxGaps = 64

// gaps holds the losses that are not declared yet.
type gaps struct {
	mu   sync.Mutex
	list []event.Missing
}

// add notes a loss.
func (g *gaps) add(m event.Missing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Those who waited for one group of lines tell of it in any order, so m may
	// be what was missing between two losses that stand here already.
	for i := 0; i < len(g.list); i++ {
		if joins(&g.list[i], &m) {
			join(&m, &g.list[i])
			g.list = slices.Delete(g.list, i, i+1)
			i = -1
		}
	}
	if len(g.list) < maxGaps || !g.squeeze(m) {
		g.list = append(g.list, m)
	}
}

// squeeze joins m to a loss that it does not touch, if there is one like it: the
// count stays exact, the range covers numbers that are not missing.
func (g *gaps) squeeze(m event.Missing) bool {
	for i := range g.list {
		if l := &g.list[i]; l.Source == m.Source && l.Cause == m.Cause && l.Stream == m.Stream {
			join(l, &m)
			return true
		}
	}
	return false
}

func (g *gaps) pending() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.list) > 0
}

// count returns how many events the losses are together.
func (g *gaps) count() (n uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.list {
		n += g.list[i].Count
	}
	return n
}

func (g *gaps) take() []event.Missing {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.list
	g.list = nil
	return list
}

// joins reports whether b is more of a.
func joins(a, b *event.Missing) bool {
	if a.Source != b.Source || a.Cause != b.Cause || a.Stream != b.Stream {
		return false
	}
	return a.First == 0 && b.First == 0 || b.First == a.Last+1 || a.First == b.Last+1
}

func join(a, b *event.Missing) {
	if b.First != 0 {
		a.First, a.Last = min(a.First, b.First), max(a.Last, b.Last)
	}
	a.Count += b.Count
	if b.Since.Before(a.Since) {
		a.Since = b.Since
	}
	if b.Until.After(a.Until) {
		a.Until = b.Until
	}
}
