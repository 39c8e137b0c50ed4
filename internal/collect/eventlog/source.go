package eventlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/metric"
)

const (
	saveEvery    = 3 * time.Second  // after this a position that changed is written down
	resolveEvery = time.Minute      // patterns are looked up again
	pollLeast    = 5 * time.Second  // a channel that is silent is asked all the same …
	pollMost     = 10 * time.Second // … in case that a signal was lost
	lookEvery    = time.Minute      // a log is looked at
	lagAfter     = 10 * time.Second // a channel that is not read to its end for so long lags
)

// The parts of the source beside its channels.
const (
	partCursor   = "(positions)"
	partChannels = "(list of channels)"
)

// MaxRPS is the most that a channel may be allowed a second.
const MaxRPS = 100_000

// Config says what is read and how.
type Config struct {
	Channels []string // names, and patterns with * and ?
	Rules    []Rule   // for some of them; where two say something, the later counts
	RPS      int      // events a second, of each channel
	Drop     bool     // what is more; else it waits in the log
	Oldest   bool     // begin with the oldest record; else with what is new
	Message  bool     // ask for the words as well
	XML      bool     // keep the XML as well
	File     string   // where positions are kept; "" keeps them as long as the process
	Handed   Handed   // what the keeper has, which may be more than File says
	Metrics  *metric.Set
}

// settings returns what holds for a channel.
func (c *Config) settings(channel string) settings {
	s := settings{RPS: c.RPS, Drop: c.Drop, Oldest: c.Oldest, Message: c.Message, XML: c.XML}
	for _, r := range c.Rules {
		if matches(r.Channel, channel) {
			for _, apply := range r.apply {
				apply(&s)
			}
		}
	}
	if s.XPath == "*" {
		s.XPath = ""
	}
	return s
}

// A Source follows the channels of the event log; it is a collect.Source. Each
// channel has a goroutine and a state of its own, so that the trouble of one does
// not touch another.
type Source struct {
	cfg     Config
	open    func() (system, error)
	write   func(*cursors) // for tests: how positions are written
	system  system
	cursors *cursors // nil until they could be read
	watch   *collect.Watch

	mu      sync.Mutex
	states  map[string]bool // by channel: false if it does not work
	unsaved bool            // the positions could not be read or written
}

// New returns the source for this machine.
func New(cfg Config) *Source { return &Source{cfg: cfg, open: openSystem} }

// With returns a source with other settings that goes on where s was when its Run
// returned. File and Handed are those of s.
func (s *Source) With(cfg Config) *Source {
	next := New(cfg)
	next.open, next.write, next.cursors, next.unsaved = s.open, s.write, s.cursors, s.unsaved
	return next
}

// Run follows the channels until ctx ends. It is not called twice at once.
func (s *Source) Run(ctx context.Context, w *collect.Watch) (err error) {
	s.watch, s.states = w, map[string]bool{}
	if s.system, err = s.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.system.close()) }()
	if s.cursors == nil {
		if err := s.remember(ctx); err != nil {
			return err
		}
	}
	var readers sync.WaitGroup
	defer s.save(ctx)
	defer readers.Wait()
	return s.supervise(ctx, &readers)
}

// remember reads where the channels were left, and adds what the keeper knows of
// that. It is for the first time: later a log may have begun anew.
func (s *Source) remember(ctx context.Context) (err error) {
	if s.cursors, err = openCursors(s.cfg.File); s.cursors == nil {
		return err
	}
	if s.unsaved = err != nil; err != nil {
		s.watch.Part(ctx, partCursor, collect.Failing, err)
	}
	if s.write != nil {
		s.write(s.cursors)
	}
	s.cursors.advance(s.cfg.Handed)
	s.save(ctx)
	return nil
}

// supervise begins a reader for every channel and writes positions down. It wakes
// only when one changed, and to look for channels where there are patterns.
func (s *Source) supervise(ctx context.Context, readers *sync.WaitGroup) error {
	var save, resolve <-chan time.Time
	if slices.ContainsFunc(s.cfg.Channels, isPattern) {
		ticker := time.NewTicker(resolveEvery)
		defer ticker.Stop()
		resolve = ticker.C
	}
	running := map[string]bool{}
	var listed bool // the channels that there are were listed once: what comes later is new
	begin := func() {
		found, ok := s.resolve(ctx)
		for _, f := range found {
			if key := strings.ToLower(f.name); !running[key] {
				running[key] = true
				s.expect(f.name)
				c := s.channel(f.name, f.named, listed)
				readers.Go(func() { c.run(ctx) })
			}
		}
		if listed = listed || ok; listed {
			s.cursors.complete()
		}
	}
	begin()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.cursors.changed:
			if save == nil {
				save = time.After(saveEvery)
			}
		case <-save:
			save = nil
			s.save(ctx)
		case <-resolve:
			begin()
		}
	}
}

// A found channel is one to read: named as such, or meant by a pattern.
type found struct {
	name  string
	named bool
}

// resolve returns the channels to read, and whether that are all. One that is
// named without * and ? is among them even if it is not there.
func (s *Source) resolve(ctx context.Context) (list []found, ok bool) {
	var patterns []string
	for _, c := range s.cfg.Channels {
		if isPattern(c) {
			patterns = append(patterns, c)
		} else {
			list = append(list, found{c, true})
		}
	}
	if patterns == nil {
		return list, true
	}
	all, err := s.system.channels()
	if err != nil {
		s.watch.Part(ctx, partChannels, collect.Failing, fmt.Errorf("list the channels: %w", err))
		return list, false
	}
	s.watch.Part(ctx, partChannels, collect.OK, nil)
	for _, name := range all {
		if slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) }) {
			list = append(list, found{name, false})
		}
	}
	return list, true
}

// save writes the positions down.
func (s *Source) save(ctx context.Context) {
	err := s.cursors.save()
	s.mu.Lock()
	told := s.unsaved
	s.unsaved = err != nil
	s.mu.Unlock()
	switch {
	case err != nil:
		s.watch.Part(ctx, partCursor, collect.Failing, err)
	case told:
		s.watch.Part(ctx, partCursor, collect.OK, nil)
	}
}

// expect notes that a channel will tell how it fares.
func (s *Source) expect(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[channel] = true
}

// tell says how a channel fares. The source does not work when no channel does.
func (s *Source) tell(ctx context.Context, channel, state string, err error) {
	s.watch.Part(ctx, channel, state, err)
	s.mu.Lock()
	s.states[channel] = err == nil
	works := slices.Contains(slices.Collect(maps.Values(s.states)), true)
	s.mu.Unlock()
	switch {
	case err == nil:
		s.watch.Up(ctx)
	case !works:
		s.watch.Down(ctx, "error", fmt.Errorf("no channel can be read; %s: %w", channel, err))
	}
}
