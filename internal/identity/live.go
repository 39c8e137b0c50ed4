package identity

import (
	"context"
	"crypto/sha256"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/durable"
)

// settle is how long files that keep changing are waited for, and how long
// after its last change a file is not told from another by its time.
const settle = 3 * time.Second

// A Live is something loaded from files that is loaded again when they change.
// The last good one stays in use until a new one is loaded whole. It is safe for
// concurrent use.
//
// Files are looked at again and again, not watched: that works the same on every
// system, on network file systems, through symbolic links that are exchanged,
// and for files that do not exist yet.
type Live[T any] struct {
	load func() (T, []string, error)
	now  chan struct{} // capacity 1: try without waiting for a change

	loading sync.Mutex // one try at a time; taken before mu
	seen    []glimpse  // the files as they were at the last look; guarded by loading
	moved   time.Time  // since when they differ from tried; guarded by loading
	tried   []glimpse  // as they were at the last try; guarded by loading

	mu    sync.Mutex
	value T
	state LiveState
}

// A LiveState is how the loading goes.
type LiveState struct {
	Loaded time.Time // when what is in use was loaded
	Tried  time.Time // when it was last tried
	Err    error     // why the last try failed
}

// NewLive loads for the first time. load returns, also beside an error, the files
// that decide about what it loads.
func NewLive[T any](load func() (T, []string, error)) (*Live[T], error) {
	l := &Live[T]{load: load, now: make(chan struct{}, 1)}
	return l, l.try()
}

// Value returns what is in use.
func (l *Live[T]) Value() T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value
}

// State returns how the loading goes.
func (l *Live[T]) State() LiveState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Reload makes Run try at once, whether files changed or not.
func (l *Live[T]) Reload() {
	select {
	case l.now <- struct{}{}:
	default:
	}
}

// Run looks at the files at that interval until ctx ends, and calls after behind
// every look. It loads when they changed and then stood still for one interval,
// since half of a list of authorities is a list as well; files that never stand
// still are loaded now and then. While loading fails it is tried at every look: a
// certificate may become valid, and a key readable.
func (l *Live[T]) Run(ctx context.Context, every time.Duration, after func()) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.now:
			_ = l.try() // State has it
		case <-tick.C:
			if l.due() {
				_ = l.try()
			}
		}
		after()
	}
}

// due looks at the files and reports whether to load.
func (l *Live[T]) due() bool {
	l.loading.Lock()
	defer l.loading.Unlock()
	still := !l.look()
	if same(l.seen, l.tried) {
		l.moved = time.Time{}
		return still && l.State().Err != nil
	}
	if l.moved.IsZero() {
		l.moved = time.Now()
	}
	return still || time.Since(l.moved) >= settle
}

// look looks at the files again, and reports whether they differ from the last time.
func (l *Live[T]) look() (changed bool) {
	before := slices.Clone(l.seen)
	for i := range l.seen {
		l.seen[i] = l.seen[i].again()
	}
	return !same(before, l.seen)
}

// try loads, and puts what was loaded into use.
func (l *Live[T]) try() error {
	l.loading.Lock()
	defer l.loading.Unlock()
	l.look() // before: what changes while it is being loaded is a change after it
	value, files, err := l.load()
	l.tried, l.moved = l.attend(files), time.Time{}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Tried, l.state.Err = time.Now(), err
	if err == nil {
		l.value, l.state.Loaded = value, l.state.Tried
	}
	return err
}

// attend makes files those that are looked at, and returns what was seen of them
// before they were loaded. That is nothing of new ones, which are loaded once more.
func (l *Live[T]) attend(files []string) (before []glimpse) {
	for _, f := range files {
		if f == "" {
			continue
		}
		g := glimpse{name: f}
		if i := slices.IndexFunc(l.seen, func(g glimpse) bool { return g.name == f }); i >= 0 {
			g = l.seen[i]
		}
		before = append(before, g)
	}
	l.seen = slices.Clone(before)
	l.look()
	return before
}

// A glimpse is what a file was when it was looked at.
type glimpse struct {
	name string
	size int64
	time time.Time
	mode os.FileMode
	file os.FileInfo       // tells which file has the name; nil where there is none
	sum  [sha256.Size]byte // of its content, or of why it could not be read
	old  bool              // its time tells it from any other content
}

// again looks at the file again. The content is read only where it is the same
// file, and its size, mode and time prove that it is what it was.
func (g glimpse) again() glimpse {
	n := glimpse{name: g.name}
	info, err := os.Stat(g.name)
	if err == nil {
		n.size, n.time, n.mode = info.Size(), info.ModTime(), info.Mode()
		n.file = info
		same := n.numbered() && g.file != nil && os.SameFile(g.file, info)
		if same && g.old && g.size == n.size && g.time.Equal(n.time) && g.mode == n.mode {
			return g
		}
		n.sum, err = sumOf(g.name, info)
	}
	if err != nil {
		n.sum = sha256.Sum256([]byte(err.Error()))
		return n
	}
	n.old = time.Since(n.time) > settle
	return n
}

// numbered reports whether the file can be told from others. Windows asks for the
// number of a file when it is first compared, by name: that must not be when
// another one has the name.
func (g glimpse) numbered() bool {
	also := g.file
	return os.SameFile(g.file, also)
}

func sumOf(name string, info os.FileInfo) (sum [sha256.Size]byte, err error) {
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return sum, nil // no loading takes it
	}
	data, err := durable.ReadFile(name)
	return sha256.Sum256(data), err
}

// same compares what can decide about a loading: not the time.
func same(a, b []glimpse) bool {
	return slices.EqualFunc(a, b, func(a, b glimpse) bool { return a.name == b.name && a.mode == b.mode && a.sum == b.sum })
}
