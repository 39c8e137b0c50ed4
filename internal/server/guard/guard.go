// Package guard is what stands before the receiver: who may have a connection,
// how many of them, and how often they may ask.
//
// A client is an agent, by the node of its verified certificate; a certificate, by
// its number, where that names no agent; or an address where there is none, or
// none yet. What no honest agent does is an offence: so
// many of them in a while and the client is slowed, more and it is cut off, until
// it has been quiet for some minutes. Each step is said in the log, once and then
// now and then. docs/security.md tells what is an offence and what is not.
//
// Connections that ask for nothing give way to new ones: first those whose
// handshake or first request does not come, then idle ones. The honest are quick
// with the first, and come back from the second without noticing.
package guard

import (
	"container/list"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/trouble"
)

// Limits bound what clients may have.
type Limits struct {
	Connections int // at a time
	PerNode     int // connections of one agent
	Pending     int // connections without a request so far
	PerAddress  int // of these, of one address

	Pend     time.Duration // until the head of the first request is there
	Requests int           // a second, of one agent
	Bytes    int64         // a second, of one agent, decompressed

	SlowAt int // offences after which a client is slowed; 0 for never
	CutAt  int // and cut off; 0 for never
}

// A Guard watches the clients of one listener. Listener, Watch, Context and
// Handler go into an http.Server, all of them or it does not hold.
type Guard struct {
	limits Limits
	node   func(*x509.Certificate) (string, error)
	log    *slog.Logger
	set    *metric.Set

	mu      sync.Mutex
	open    map[*conn]bool     // guarded by mu
	pending list.List          // of *conn, the oldest first; guarded by mu
	idle    list.List          // guarded by mu
	clients map[string]*client // by node, or by address; guarded by mu
	swept   time.Time          // guarded by mu
	unsaid  []func()           // lines for the log; guarded by mu
}

// New returns a Guard. node names the agent of a verified certificate.
func New(l Limits, node func(*x509.Certificate) (string, error), set *metric.Set, log *slog.Logger) *Guard {
	g := &Guard{limits: l, node: node, log: log, set: set, open: map[*conn]bool{}, clients: map[string]*client{}}
	for _, reason := range []string{"cut", "total", "address", "pending", "late", "node"} {
		g.closed(reason)
	}
	for _, reason := range []string{"path", "rate_requests", "rate_bytes", "slowed", "cut", "no_head"} {
		g.refused(reason)
	}
	set.Func("rea_connections", "Open connections.", func() float64 { return float64(g.count(func() int { return len(g.open) })) })
	set.Func("rea_connections_pending", "Open connections without a request so far.", func() float64 { return float64(g.count(func() int { return g.pending.Len() })) })
	set.Func("rea_clients_slowed", "Clients that are slowed for what they did, those cut off included.", func() float64 { return float64(g.count(g.offendersLocked)) })
	return g
}

func (g *Guard) count(f func() int) int {
	g.mu.Lock()
	defer g.unlock()
	return f()
}

func (g *Guard) closed(reason string) *metric.Counter {
	return g.set.Counter("rea_connections_refused_total", "Connections that were refused or closed to make room, by reason.", "reason", reason)
}

func (g *Guard) refused(reason string) *metric.Counter {
	return g.set.Counter("rea_requests_refused_total", "Requests that were refused, by reason.", "reason", reason)
}

// sayLocked has a line written to the log when the mutex is free: whoever reads
// the log may be slow, and must not hold up everybody.
func (g *Guard) sayLocked(level slog.Level, text string, args ...any) {
	g.unsaid = append(g.unsaid, func() { g.log.Log(context.Background(), level, text, args...) })
}

// unlock frees the mutex and says what there is to say.
func (g *Guard) unlock() {
	lines := g.unsaid
	g.unsaid = nil
	g.mu.Unlock()
	for _, say := range lines {
		say()
	}
}

// A client is what is remembered of an agent or an address.
type client struct {
	name     string
	offences float64   // what is left of them
	at       time.Time // offences is of then
	seen     time.Time
	requests bucket
	bytes    bucket
	last     time.Time // request that was let in while it was slowed
	known    time.Time // of an address: when an agent came from there
	conns    []*conn   // that have asked for something; the oldest first
	trouble  trouble.Trouble
}

// What is remembered, and for how long. An honest agent that stumbles, once in six
// seconds for ever, is never slowed.
const (
	maxClients = 1 << 16
	sweepEvery = time.Minute
	silence    = 10 * time.Minute
	leak       = 1.0 / 6 // offences that are forgiven a second
	burst      = 4       // seconds of a rate that may come at once
	slowPace   = time.Second
	failed     = 0.05        // of an offence is a handshake that fails: an agent whose certificate has expired tries on, and is to learn why
	broken     = 0.5         // is a head that breaks off: networks do that too
	impatience = 0.1         // of an offence is a request that comes too soon while slowed; two lanes that wait as told are forgiven more
	denied     = 0.1         // is a request of who is not let in any more, and is told why; agents ask twice in half a minute, and when they start
	young      = time.Second // before this a connection does not give way
)

// clientLocked returns the client of that name.
func (g *Guard) clientLocked(name string, now time.Time) *client {
	c := g.clients[name]
	if c == nil {
		g.sweepLocked(now)
		c = &client{name: name, at: now}
		c.requests.fill(now, float64(g.limits.Requests))
		c.bytes.fill(now, float64(g.limits.Bytes))
		g.clients[name] = c
	}
	c.seen = now
	return c
}

// sweepLocked makes room for one: it forgets silent clients now and then, and any
// without connections where there are too many.
func (g *Guard) sweepLocked(now time.Time) {
	if now.Sub(g.swept) < sweepEvery && len(g.clients) < maxClients {
		return
	}
	g.swept = now
	full := len(g.clients) >= maxClients
	for name, c := range g.clients {
		// Where there are too many an eighth goes at once: to look through all of them
		// for each that is new would be work for everybody.
		if len(c.conns) == 0 && (now.Sub(c.seen) > silence || full && len(g.clients) > maxClients*7/8) {
			delete(g.clients, name)
		}
	}
}

func (g *Guard) offendersLocked() (n int) {
	now := time.Now()
	for _, c := range g.clients {
		if g.slowedLocked(c, now) {
			n++
		}
	}
	return n
}

// leftLocked returns the offences that are not forgiven yet.
func (c *client) leftLocked(now time.Time) float64 {
	c.offences = max(0, c.offences-leak*now.Sub(c.at).Seconds())
	c.at = now
	return c.offences
}

func (g *Guard) slowedLocked(c *client, now time.Time) bool {
	return g.limits.SlowAt > 0 && c.leftLocked(now) >= float64(g.limits.SlowAt)
}

// cutLocked reports whether a client is cut off. An address is not, while agents
// come from there: they would pay for a neighbour.
func (g *Guard) cutLocked(c *client, now time.Time) bool {
	return g.limits.CutAt > 0 && c.leftLocked(now) >= float64(g.limits.CutAt) && now.Sub(c.known) > silence
}

// offendLocked notes an offence, or a part of one.
func (g *Guard) offendLocked(c *client, part float64, what string, now time.Time) {
	most, before := 1.5*float64(max(g.limits.SlowAt, g.limits.CutAt)), c.leftLocked(now)
	c.offences = min(before+part, most)
	if cut := float64(g.limits.CutAt); before < cut && c.offences >= cut {
		c.offences = most // so that it lasts
	}
	switch {
	case g.cutLocked(c, now):
		if c.trouble.Failed("cut") {
			g.sayLocked(slog.LevelWarn, "client is cut off for what it did; it may come back after some quiet minutes", "client", c.name, "last", what)
		}
	case g.slowedLocked(c, now):
		if c.trouble.Failed("slowed") {
			g.sayLocked(slog.LevelWarn, "client is slowed for what it did", "client", c.name, "last", what)
		}
	}
}

// offences are the reasons of refusals that are one, or a part of one: what an
// agent never does, or so seldom that it is forgiven. What it bisects for, what
// says that the server has no room, and what a bad network does is none.
var offences = map[string]float64{
	"path": 1, "method": 1, "content_type": 1, "encoding": 1, "no_length": 1, "body_bytes": 1, "head": 1, "certificate": 1,
	"window": 1, "decoded_bytes": 1, "ratio": 1, "node": 1, "renew": broken, "denied": denied, "unproven": denied,
}

// Refused is told of requests that others refused.
func (g *Guard) Refused(r *http.Request, reason string) {
	part := offences[reason]
	if part == 0 {
		return
	}
	name, _ := g.client(r)
	now := time.Now()
	g.mu.Lock()
	defer g.unlock()
	g.offendLocked(g.clientLocked(name, now), part, reason, now)
}

// Stray answers a request for something that is not there.
func (g *Guard) Stray(w http.ResponseWriter, r *http.Request, text string) {
	g.refused("path").Inc()
	g.Refused(r, "path")
	w.Header().Set("Content-Type", "application/json")
	if r.ContentLength < 0 {
		w.Header().Set("Connection", "close") // or the HTTP server would wait for a body that nobody wants
	}
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprintf(w, `{"last":0,"error":%q}`+"\n", text)
}

// Took is told how large the body of a request was.
func (g *Guard) Took(r *http.Request, bytes int) {
	name, _ := g.client(r)
	now := time.Now()
	g.mu.Lock()
	defer g.unlock()
	g.clientLocked(name, now).bytes.take(now, float64(g.limits.Bytes), float64(bytes))
}

// A verdict is why a request is not looked at; the zero verdict lets it in.
type verdict struct {
	reason, text string
	retry        time.Duration
}

// judge decides whether a request of a client is looked at.
func (g *Guard) judge(name string) verdict {
	now := time.Now()
	g.mu.Lock()
	defer g.unlock()
	c := g.clientLocked(name, now)
	switch {
	case g.cutLocked(c, now):
		return verdict{"cut", "this client did what agents do not: it is cut off for some minutes", 30 * time.Second}
	case g.slowedLocked(c, now):
		if wait := slowPace - now.Sub(c.last); wait > 0 {
			g.offendLocked(c, impatience, "slowed", now)
			return verdict{"slowed", "this client did what agents do not: one request a second", slowPace}
		}
		c.last = now
	case c.offences < float64(g.limits.SlowAt)/2: // not as soon as it is served, or the next offence begins anew
		if times, lasted := c.trouble.Worked(); times > 0 {
			g.sayLocked(slog.LevelInfo, "client is served as any other again", "client", c.name, "after", lasted.Round(time.Second).String())
		}
	}
	if wait := c.bytes.wait(now, float64(g.limits.Bytes)); wait > 0 {
		return verdict{"rate_bytes", "more bytes a second than a client may send", wait}
	}
	rate := float64(g.limits.Requests)
	wait := c.requests.wait(now, rate)
	c.requests.take(now, rate, 1)
	if wait > 0 {
		if c.requests.tokens < -burst*rate { // it does not wait when told to
			c.requests.tokens = -burst * rate
			g.offendLocked(c, 1, "rate_requests", now)
		}
		return verdict{"rate_requests", "more requests a second than a client may make", wait}
	}
	return verdict{}
}

// Handler lets next see the requests that may be made.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(key{}).(*conn); ok {
			g.served(c)
		}
		name, _ := g.client(r)
		if v := g.judge(name); v.reason != "" {
			g.refused(v.reason).Inc()
			answer(w, r, v)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// client names who made a request, and reports whether that is an agent.
func (g *Guard) client(r *http.Request) (name string, agent bool) {
	if r.TLS != nil {
		if name, agent = g.certified(r.TLS); name != "" {
			return name, agent
		}
	}
	return Address(r), false
}

// Address names the client of a request by where it comes from.
func Address(r *http.Request) string { return address(r.RemoteAddr) }

// certified names the client of a connection by its verified certificate, or "". One
// that names no agent is a client all the same: neither its address nor a rate for
// everybody is to pay for it.
func (g *Guard) certified(s *tls.ConnectionState) (name string, agent bool) {
	if len(s.VerifiedChains) == 0 {
		return "", false
	}
	cert := s.VerifiedChains[0][0]
	if node, err := g.node(cert); err == nil {
		return node, true
	}
	return "serial " + cert.SerialNumber.Text(16), false
}

// answer refuses for a while. An agent keeps what it has, so it loses nothing.
func answer(w http.ResponseWriter, r *http.Request, v verdict) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", strconv.Itoa(int((v.retry+time.Second-1)/time.Second)))
	if v.reason == "cut" || r.ContentLength < 0 {
		w.Header().Set("Connection", "close")
	}
	w.WriteHeader(http.StatusTooManyRequests)
	fmt.Fprintf(w, `{"last":0,"error":%q}`+"\n", v.text)
}

// address names who is at the other end of a connection: an IPv4 address, or the
// network that one customer has of IPv6.
func address(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		host, _, _ := net.SplitHostPort(remote)
		return host
	}
	ip := at.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	if p, err := ip.WithZone("").Prefix(64); err == nil {
		return p.String()
	}
	return ip.String()
}

// A bucket fills with a rate and holds burst seconds of it. What is taken may be
// more than is there: the debt is waited for.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) fill(now time.Time, rate float64) { b.tokens, b.at = burst*rate, now }

func (b *bucket) flow(now time.Time, rate float64) {
	b.tokens = min(burst*rate, b.tokens+rate*now.Sub(b.at).Seconds())
	b.at = now
}

func (b *bucket) take(now time.Time, rate, n float64) {
	b.flow(now, rate)
	b.tokens -= n
}

// wait returns when there is something again, at least a second; 0 if there is.
func (b *bucket) wait(now time.Time, rate float64) time.Duration {
	if b.flow(now, rate); b.tokens > 0 {
		return 0
	}
	return max(time.Second, time.Duration((1-b.tokens)/rate*float64(time.Second)))
}
