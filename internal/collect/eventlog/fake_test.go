package eventlog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A fakeLog is one channel of a fakeSystem.
type fakeLog struct {
	name     string
	records  []fakeRecord // oldest first; their ids have no holes
	next     uint64       // id
	capacity int          // 0: it does not wrap
	disabled bool
	failing  map[string][]error // by call: what the next calls return; nil lets one through
	denied   bool
	absent   bool
}

type fakeRecord struct {
	id  uint64
	xml string
}

// A fakeSystem is Windows as far as the source sees it, in memory, with logs that
// tests write to, clear and break.
type fakeSystem struct {
	mu    sync.Mutex
	logs  map[string]*fakeLog
	subs  map[*fakeSub]bool
	steps int
	calls map[string]int
	die   int    // the step at which the process ends; 0: never
	kill  func() // that
	dead  bool
	open  int // handles
	most  int // bytes that one call of next can return; 0: any number
	order []string

	unlisted bool // the channels cannot be listed

	late    time.Duration // how long the one who waits for an event takes to reset it
	drained func()        // called once, when a fetch has found no more
}

var errDead = errors.New("the process has ended")

func newFake(names ...string) *fakeSystem {
	f := &fakeSystem{logs: map[string]*fakeLog{}, subs: map[*fakeSub]bool{}, calls: map[string]int{}}
	for _, n := range names {
		f.make(n)
	}
	return f
}

// make makes a channel that was not there.
func (f *fakeSystem) make(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logs[strings.ToLower(name)] = &fakeLog{name: name, next: 1, failing: map[string][]error{}}
	f.order = append(f.order, name)
}

func (f *fakeSystem) log(name string) *fakeLog { return f.logs[strings.ToLower(name)] }

// step counts a call, at which the process may end, and returns what was planned
// for it.
func (f *fakeSystem) step(call, channel string) (*fakeLog, error) {
	f.steps++
	f.calls[call]++
	if f.die > 0 && f.steps >= f.die {
		if !f.dead {
			f.dead = true
			f.kill()
		}
		return nil, errDead
	}
	l := f.log(channel)
	switch {
	case l == nil || l.absent:
		return nil, errNoChannel
	case l.denied:
		return nil, errDenied
	}
	if list := l.failing[call]; len(list) > 0 {
		l.failing[call] = list[1:]
		if list[0] != nil {
			return nil, list[0]
		}
	}
	return l, nil
}

func (f *fakeSystem) fail(channel, call string, errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log(channel).failing[call] = errs
}

// made returns how many calls there were.
func (f *fakeSystem) made() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.steps
}

// allow sets how many bytes one call of next can return.
func (f *fakeSystem) allow(bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.most = bytes
}

// write appends n records to a log; those that it has no room for go.
func (f *fakeSystem) write(channel string, n int) {
	for range n {
		f.add(channel, "")
	}
}

// add appends a record that holds data, and returns its id.
func (f *fakeSystem) add(channel, data string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.log(channel)
	id := l.next
	l.records = append(l.records, fakeRecord{id, recordXML(l.name, "P", 7, id, data)})
	l.next++
	if l.capacity > 0 && len(l.records) > l.capacity {
		l.records = l.records[len(l.records)-l.capacity:]
		f.stale(l)
	}
	f.wake(l.name)
	return id
}

func recordXML(channel, provider string, event int, id uint64, data string) string {
	return fmt.Sprintf(`<Event><System><Provider Name='%s'/><EventID>%d</EventID><TimeCreated SystemTime='%s'/><EventRecordID>%d</EventRecordID><Channel>%s</Channel></System><EventData>%s</EventData></Event>`,
		provider, event, time.Now().UTC().Format(time.RFC3339Nano), id, channel, data)
}

// clear empties a log, which then begins with a record that says so.
func (f *fakeSystem) clear(channel string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.log(channel)
	l.records = []fakeRecord{{l.next, recordXML(l.name, "Microsoft-Windows-Eventlog", 1102, l.next, "")}}
	l.next++
	f.stale(l)
	f.wake(l.name)
}

// remake makes a log anew, with ids from 1.
func (f *fakeSystem) remake(channel string, n int) {
	f.mu.Lock()
	l := f.log(channel)
	l.records, l.next = nil, 1
	f.stale(l)
	f.mu.Unlock()
	f.write(channel, n)
}

// stale breaks the subscriptions whose position is gone.
func (f *fakeSystem) stale(l *fakeLog) {
	for s := range f.subs {
		if s.log == l && (len(l.records) == 0 || s.at+1 < l.records[0].id || s.at >= l.next) {
			s.stale = true
		}
	}
}

func (f *fakeSystem) wake(channel string) {
	for s := range f.subs {
		if s.log.name == channel {
			s.wake()
		}
	}
}

func (f *fakeSystem) channels() ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unlisted {
		return nil, errServer
	}
	return slices.Clone(f.order), nil
}

func (f *fakeSystem) end(channel string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.step("end", channel)
	if err != nil || len(l.records) == 0 {
		return "", err
	}
	return bookmarkAt(l.name, l.records[len(l.records)-1].id), nil
}

func bookmarkAt(channel string, id uint64) string {
	return fmt.Sprintf(`<BookmarkList><Bookmark Channel='%s' RecordId='%d' IsCurrent='true'/></BookmarkList>`, channel, id)
}

func (f *fakeSystem) info(channel string) (logInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.step("info", channel)
	if err != nil {
		return logInfo{}, err
	}
	i := logInfo{count: uint64(len(l.records)), enabled: !l.disabled, full: l.capacity > 0 && len(l.records) == l.capacity}
	if i.count > 0 {
		i.oldest = l.records[0].id
	}
	return i, nil
}

func (f *fakeSystem) subscribe(channel, query, bookmark string) (subscription, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, err := f.step("subscribe", channel)
	if err != nil {
		return nil, err
	}
	s := &fakeSub{f: f, log: l, query: query, signal: make(chan struct{}, 1), given: bookmark, changed: sync.NewCond(&f.mu)}
	if bookmark != "" {
		s.at = recordOf(bookmark)
		if !slices.ContainsFunc(l.records, func(r fakeRecord) bool { return r.id == s.at }) {
			return nil, errNotFound
		}
	} else if len(l.records) > 0 {
		s.at = l.records[0].id - 1
	} else {
		s.at = l.next - 1
	}
	f.subs[s] = true
	f.open++
	s.wake()
	go s.watch()
	return s, nil
}

func (f *fakeSystem) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return nil
}

// A fakeSub is a subscription. Its query lets through records that hold it.
type fakeSub struct {
	f       *fakeSystem
	log     *fakeLog
	query   string
	at      uint64 // the last record that was fetched
	stale   bool
	signal  chan struct{}
	fetched []fakeRecord
	given   string
	marked  uint64

	event   bool       // is set, until it is reset
	changed *sync.Cond // event was set, or the subscription closed
}

func (s *fakeSub) ready() <-chan struct{} { return s.signal }

// wake sets the event. f.mu is held.
func (s *fakeSub) wake() {
	s.event = true
	s.changed.Signal()
}

// watch waits for the event, as a thread does on Windows.
func (s *fakeSub) watch() {
	for {
		s.f.mu.Lock()
		for !s.event && s.f.subs[s] {
			s.changed.Wait()
		}
		open, late := s.f.subs[s], s.f.late
		s.f.mu.Unlock()
		if !open {
			return
		}
		pass(func() {
			time.Sleep(late)
			s.f.mu.Lock()
			defer s.f.mu.Unlock()
			s.event = false
		}, s.signal)
	}
}

func (s *fakeSub) next(most int) (int, error) {
	n, err := s.fetch(most)
	if errors.Is(err, errNoMore) {
		s.f.mu.Lock()
		drained := s.f.drained
		s.f.drained = nil
		s.f.mu.Unlock()
		if drained != nil {
			drained()
		}
	}
	return n, err
}

func (s *fakeSub) fetch(most int) (int, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if _, err := s.f.step("next", s.log.name); err != nil {
		return 0, err
	}
	if s.stale {
		return 0, errStale
	}
	s.fetched = s.fetched[:0]
	bytes := 0
	for _, r := range s.log.records {
		if r.id > s.at && strings.Contains(r.xml, s.query) && len(s.fetched) < most {
			s.fetched = append(s.fetched, r)
			bytes += len(r.xml)
		}
	}
	if len(s.fetched) == 0 {
		return 0, errNoMore
	}
	s.at = s.fetched[len(s.fetched)-1].id
	if s.f.most > 0 && bytes > s.f.most { // as on Windows, it has moved on
		return 0, errBound
	}
	return len(s.fetched), nil
}

func (s *fakeSub) xml(i int) ([]byte, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if _, err := s.f.step("xml", s.log.name); err != nil {
		return nil, err
	}
	return []byte(s.fetched[i].xml), nil
}

func (s *fakeSub) message(i int, _ string) (string, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if _, err := s.f.step("message", s.log.name); err != nil {
		return "", err
	}
	return fmt.Sprintf("This is record %d.", s.fetched[i].id), nil
}

func (s *fakeSub) mark(i int) error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if _, err := s.f.step("mark", s.log.name); err != nil {
		return err
	}
	s.marked = s.fetched[i].id
	return nil
}

func (s *fakeSub) bookmark() (string, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if _, err := s.f.step("bookmark", s.log.name); err != nil {
		return "", err
	}
	if s.marked == 0 {
		return s.given, nil
	}
	return bookmarkAt(s.log.name, s.marked), nil
}

func (s *fakeSub) close() error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if !s.f.subs[s] {
		return errHandle
	}
	delete(s.f.subs, s)
	s.f.open--
	s.changed.Signal()
	return nil
}
