package eventlog

import (
	"sync"
	"time"

	"golang.org/x/sys/windows"
)

// waitMost is how many events one thread waits for, beside the one that wakes it:
// WaitForMultipleObjects takes 64.
const waitMost = 63

// waiters wait for the events of subscriptions, many of them in one thread: a
// machine has hundreds of channels, and a thread for each would be a burden.
type waiters struct {
	mu     sync.Mutex
	groups []*waitGroup
}

// A waiter hands the signal of one event on to a channel.
type waiter struct {
	group  *waitGroup
	event  windows.Handle
	signal chan<- struct{}
	gone   chan struct{} // closed when nobody waits for event any more
}

// A waitGroup is one thread that waits.
type waitGroup struct {
	wake windows.Handle // set when members or ending changed
	done chan struct{}

	mu      sync.Mutex
	members []*waiter
	leaving []*waiter
	ending  bool
}

// add has signal told when event is set. It is reset before that, so that what
// comes after sets it again. Without a waiter (no event can be made) the channel is
// read at its polls.
func (w *waiters) add(event windows.Handle, signal chan<- struct{}) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := &waiter{event: event, signal: signal, gone: make(chan struct{})}
	for _, g := range w.groups {
		if g.join(m) {
			return m
		}
	}
	wake, err := windows.CreateEvent(nil, 0, 0, nil)
	if err != nil {
		return nil
	}
	g := &waitGroup{wake: wake, done: make(chan struct{})}
	g.join(m)
	w.groups = append(w.groups, g)
	go g.run()
	return m
}

// end ends all waiting.
func (w *waiters) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.groups {
		g.mu.Lock()
		g.ending = true
		g.mu.Unlock()
		_ = windows.SetEvent(g.wake) // it is ours, and open
		<-g.done
		_ = windows.CloseHandle(g.wake)
	}
	w.groups = nil
}

func (g *waitGroup) join(m *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.members) == waitMost {
		return false
	}
	m.group = g
	g.members = append(g.members, m)
	_ = windows.SetEvent(g.wake)
	return true
}

// remove returns when nobody waits for the event any more, so that it can be closed.
func (m *waiter) remove() {
	g := m.group
	g.mu.Lock()
	for i, o := range g.members {
		if o == m {
			g.members = append(g.members[:i:i], g.members[i+1:]...)
			g.leaving = append(g.leaving, m)
			break
		}
	}
	g.mu.Unlock()
	_ = windows.SetEvent(g.wake)
	<-m.gone
}

// run waits until end.
func (g *waitGroup) run() {
	defer close(g.done)
	var handles []windows.Handle
	for {
		members, ending := g.take()
		if ending {
			return
		}
		handles = append(handles[:0], g.wake)
		for _, m := range members {
			handles = append(handles, m.event)
		}
		n, err := windows.WaitForMultipleObjects(handles, false, windows.INFINITE)
		if err != nil || n >= uint32(len(handles)) {
			time.Sleep(time.Second) // the channels are read at their polls meanwhile
			continue
		}
		for i := max(int(n), 1); i < len(handles); i++ { // the first that is set does not keep the others waiting
			if set, err := windows.WaitForSingleObject(handles[i], 0); err == nil && set == windows.WAIT_OBJECT_0 {
				members[i-1].tell()
			}
		}
	}
}

// take returns those to wait for, and lets go those that leave.
func (g *waitGroup) take() (members []*waiter, ending bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.leaving {
		close(m.gone)
	}
	g.leaving = nil
	if g.ending {
		for _, m := range g.members {
			close(m.gone)
		}
		g.members = nil
	}
	return append([]*waiter(nil), g.members...), g.ending
}

func (m *waiter) tell() {
	pass(func() { _ = windows.ResetEvent(m.event) }, m.signal) // it is ours, and open
}
