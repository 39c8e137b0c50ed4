package guard

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Listener returns l with the bounds on connections.
func (g *Guard) Listener(l net.Listener) net.Listener { return &listener{l, g} }

type listener struct {
	net.Listener
	guard *Guard
}

// Accept returns the next connection that may stay, for now. Where all there can
// be are busy it waits a moment, and the others in the queue of the system.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c, reason := l.guard.admit(raw, time.Now())
		for waited := time.Duration(0); reason == "total" && c == nil && waited < patience; waited += patience / 50 {
			time.Sleep(patience / 50)
			c, reason = l.guard.admit(raw, time.Now())
		}
		if reason != "" {
			l.guard.closed(reason).Inc()
		}
		if c != nil {
			return c, nil
		}
		_ = raw.Close() // nothing was said on it
	}
}

// patience is how long one that is accepted waits for another one to end.
const patience = time.Second

// state is what a connection is about.
type state int

const (
	pending state = iota // no request so far
	idle                 // between two
	busy                 // with one
	late                 // closed since its first request did not come
	evicted              // closed for another one
)

// conn is an open connection, below TLS.
type conn struct {
	net.Conn
	guard   *Guard
	address string
	timer   *time.Timer // ends what is pending too long
	heard   atomic.Bool // something came

	// Guarded by the guard's mutex.
	state  state
	since  time.Time
	place  *list.Element // in pending or idle; nil in neither
	in     *list.List    // which of them
	name   string        // of the client; "" before the first request
	agent  bool          // that is an agent
	served bool          // the request that it is busy with got to the handler
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
	}
	return n, err
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	c.guard.forgetLocked(c)
	return err
}

// moveLocked puts c at the end of a list, or into none.
func (c *conn) moveLocked(to *list.List) {
	if c.place != nil {
		c.in.Remove(c.place)
		c.place = nil
	}
	if c.in = to; to != nil {
		c.place = to.PushBack(c)
	}
}

// admit lets a connection in, or returns nil. If there was no room it says why;
// another one may have been closed for it.
func (g *Guard) admit(raw net.Conn, now time.Time) (c *conn, reason string) {
	c = &conn{Conn: raw, guard: g, address: address(raw.RemoteAddr().String()), since: now}
	g.mu.Lock()
	reason, victim := g.roomLocked(c.address, now)
	if victim != nil {
		g.evictLocked(victim)
	}
	if victim != nil || reason == "" {
		g.open[c] = true
		c.moveLocked(&g.pending)
		c.timer = time.AfterFunc(g.limits.Pend, func() { g.late(c) })
	} else {
		c = nil
	}
	g.mu.Unlock()
	if victim != nil {
		_ = victim.Conn.Close()
	}
	return c, reason
}

// roomLocked looks whether there is room for a connection from an address. If
// not it says why, and which one may be closed for it, if one may.
func (g *Guard) roomLocked(from string, now time.Time) (reason string, victim *conn) {
	client := g.clients[from]
	perAddress := g.limits.PerAddress
	switch {
	case client == nil:
	case g.cutLocked(client, now):
		return "cut", nil
	case g.slowedLocked(client, now):
		perAddress = max(1, perAddress/8)
	}
	old := func(c *conn) bool { return now.Sub(c.since) >= young }
	same := func(c *conn) bool { return c.address == from }
	switch {
	case count(&g.pending, same) >= perAddress:
		return "address", find(&g.pending, func(c *conn) bool { return same(c) && old(c) })
	case g.pending.Len() >= g.limits.Pending:
		return "pending", find(&g.pending, old)
	case len(g.open) >= g.limits.Connections:
		if victim = find(&g.pending, old); victim == nil {
			victim = find(&g.idle, func(*conn) bool { return true })
		}
		return "total", victim
	}
	return "", nil
}

// find returns the oldest connection of a list that is ok.
func find(l *list.List, ok func(*conn) bool) *conn {
	for e := l.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); ok(c) {
			return c
		}
	}
	return nil
}

func count(l *list.List, ok func(*conn) bool) (n int) {
	for e := l.Front(); e != nil; e = e.Next() {
		if ok(e.Value.(*conn)) {
			n++
		}
	}
	return n
}

// evictLocked takes out a connection that is to be closed for another one.
func (g *Guard) evictLocked(c *conn) {
	c.state = evicted
	g.forgetLocked(c)
}

// forgetLocked takes a connection out of all lists. It may be out already.
func (g *Guard) forgetLocked(c *conn) {
	c.moveLocked(nil)
	delete(g.open, c)
	c.timer.Stop()
	if client := g.clients[c.name]; client != nil {
		client.conns = slices.DeleteFunc(client.conns, func(o *conn) bool { return o == c })
	}
}

// late closes a connection that has not asked for anything.
func (g *Guard) late(c *conn) {
	g.mu.Lock()
	still := c.state == pending && g.open[c]
	if still {
		c.state = late
		g.forgetLocked(c)
	}
	g.mu.Unlock()
	if still {
		g.closed("late").Inc()
		_ = c.Conn.Close()
	}
}

// key finds the connection in the context of a request.
type key struct{}

// Context is the http.Server's ConnContext.
func (g *Guard) Context(ctx context.Context, over net.Conn) context.Context {
	if c := below(over); c != nil {
		return context.WithValue(ctx, key{}, c)
	}
	return ctx
}

func below(over net.Conn) *conn {
	if t, ok := over.(*tls.Conn); ok {
		over = t.NetConn()
	}
	c, _ := over.(*conn)
	return c
}

// served notes that a request could be read. Where an agent is served agents are,
// also if it made its connection long ago.
func (g *Guard) served(c *conn) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	c.served = true
	if client := g.clients[c.name]; client != nil && c.agent && !g.slowedLocked(client, now) {
		g.clientLocked(c.address, now).known = now
	}
}

// Watch is the http.Server's ConnState. Active is a connection from when the head
// of a request is there, or cannot be read.
func (g *Guard) Watch(over net.Conn, s http.ConnState) {
	c := below(over)
	if c == nil {
		return
	}
	switch s {
	case http.StateActive:
		g.active(c, over)
	case http.StateIdle:
		g.mu.Lock()
		defer g.mu.Unlock()
		if c.state == busy {
			c.state, c.since = idle, time.Now()
			c.moveLocked(&g.idle)
		}
	case http.StateClosed:
		g.ended(c, over)
	}
}

// active notes that a connection has a request. The first one tells whose it is:
// by then the handshake is over and so the certificate proven.
func (g *Guard) active(c *conn, over net.Conn) {
	name, agent := "", false
	t, isTLS := over.(*tls.Conn)
	if isTLS && c.name == "" {
		s := t.ConnectionState()
		if name, agent = g.certified(&s); name == "" && s.HandshakeComplete {
			name = c.address
		}
	}
	now := time.Now()
	g.mu.Lock()
	if !g.open[c] {
		g.mu.Unlock()
		return
	}
	c.timer.Stop()
	c.moveLocked(nil)
	c.state, c.since, c.served = busy, now, false
	var victim *conn
	if name != "" {
		victim = g.introduceLocked(c, name, agent, now)
	}
	g.unlock()
	if victim != nil {
		g.closed("node").Inc()
		_ = victim.Conn.Close()
	}
}

// introduceLocked notes whose a connection is, and returns the oldest one of the
// same client if there are too many: it may be one that the network has forgotten.
// Behind an address without certificates there can be a whole site.
func (g *Guard) introduceLocked(c *conn, name string, agent bool, now time.Time) (victim *conn) {
	c.name, c.agent = name, agent
	client := g.clientLocked(name, now)
	client.conns = append(client.conns, c) // first: who has connections is not forgotten
	from := g.clientLocked(c.address, now)
	switch {
	case g.cutLocked(client, now) && client != from:
		g.offendLocked(from, 1, "cut", now) // one that comes again and again makes handshakes
	case agent && !g.slowedLocked(client, now):
		from.known = now
	}
	most := g.limits.PerNode
	if client == from {
		most = max(most, g.limits.PerAddress)
	}
	if len(client.conns) <= most {
		return nil
	}
	victim = client.conns[0]
	g.evictLocked(victim)
	return victim
}

// ended looks at how a connection ended: without a handshake, though something was
// said or long waited for, or with a request whose head nobody could read. Whoever
// looks whether the port is open says nothing. Agents may make a connection that
// they then do not need, but not often.
func (g *Guard) ended(c *conn, over net.Conn) {
	shook, name := false, ""
	if t, ok := over.(*tls.Conn); ok {
		s := t.ConnectionState() // nobody is at it any more
		if shook = s.HandshakeComplete; shook {
			if name, _ = g.certified(&s); name == "" {
				name = c.address
			}
		}
	}
	now := time.Now()
	g.mu.Lock()
	defer g.unlock()
	switch {
	case c.state == pending && c.heard.Load() && !shook, c.state == late && !shook:
		g.offendLocked(g.clientLocked(c.address, now), failed, "handshake", now)
	case (c.state == pending || c.state == late) && name != "":
		g.offendLocked(g.clientLocked(name, now), impatience, "idle", now)
	case c.state == busy && !c.served:
		who := c.name
		if who == "" {
			who = c.address
		}
		g.refused("no_head").Inc()
		g.offendLocked(g.clientLocked(who, now), broken, "no_head", now)
	}
	g.forgetLocked(c)
}
