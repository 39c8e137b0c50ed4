package guard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/metric"
)

var roomy = Limits{
	Connections: 100, PerNode: 100, Pending: 100, PerAddress: 100, Pend: 10 * time.Second,
	Requests: 10, Bytes: 1000, SlowAt: 5, CutAt: 10,
}

// bench is a Guard that reads the node of a certificate from its subject.
type bench struct {
	*Guard
	set *metric.Set
	log strings.Builder
}

func newBench(change func(*Limits)) *bench {
	l := roomy
	if change != nil {
		change(&l)
	}
	b := &bench{set: new(metric.Set)}
	name := func(c *x509.Certificate) (string, error) {
		if c.Subject.CommonName == "" {
			return "", errors.New("it names no agent")
		}
		return c.Subject.CommonName, nil
	}
	b.Guard = New(l, name, b.set, slog.New(slog.NewTextHandler(&b.log, nil)))
	return b
}

// request is one of a node; with a number, of a certificate that names none; of an
// address without both.
func request(node string, serial int64) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/ingest", nil)
	r.RemoteAddr = "192.0.2.7:1"
	r.TLS = new(tls.ConnectionState)
	if node != "" || serial != 0 {
		cert := &x509.Certificate{SerialNumber: big.NewInt(serial)}
		cert.Subject.CommonName = node
		r.TLS.VerifiedChains = [][]*x509.Certificate{{cert}}
	}
	return r
}

// ask makes a request of a node, and returns the status and Retry-After.
func (b *bench) ask(node string) (status int, retry string) { return b.serve(request(node, 0)) }

func (b *bench) serve(r *http.Request) (status int, retry string) {
	w := httptest.NewRecorder()
	b.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })).ServeHTTP(w, r)
	return w.Code, w.Header().Get("Retry-After")
}

// offend makes n offences of a node.
func (b *bench) offend(node string, n int, reason string) {
	for range n {
		b.Refused(request(node, 0), reason)
	}
}

func TestWhoeverMisbehavesIsSlowedThenCutAndForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		b.offend("bad", 4, "head")
		if status, _ := b.ask("bad"); status != 200 {
			t.Errorf("after four offences: %d", status)
		}
		b.offend("bad", 1, "head")
		first, _ := b.ask("bad")
		second, retry := b.ask("bad")
		if first != 200 || second != 429 || retry != "1" {
			t.Errorf("slowed: %d, then %d, Retry-After %s", first, second, retry)
		}
		time.Sleep(time.Second)
		if status, _ := b.ask("bad"); status != 200 {
			t.Errorf("a second later: %d", status)
		}
		b.offend("bad", 20, "ratio")
		time.Sleep(10 * time.Second)
		if status, retry := b.ask("bad"); status != 429 || retry != "30" {
			t.Errorf("cut off: %d, Retry-After %s", status, retry)
		}
		if status, _ := b.ask("good"); status != 200 {
			t.Errorf("another one: %d", status)
		}
		time.Sleep(time.Minute)
		if status, _ := b.ask("bad"); status != 200 {
			t.Errorf("a minute later: %d", status)
		}
		time.Sleep(2 * time.Minute)
		for range 5 {
			if status, _ := b.ask("bad"); status != 200 {
				t.Errorf("forgiven: %d", status)
			}
		}
		for want, times := range map[string]int{"is slowed": 1, "is cut off": 1, "as any other again": 1, "client=bad": 3, "client=good": 0} {
			if n := strings.Count(b.log.String(), want); n != times {
				t.Errorf("%q was said %d times:\n%s", want, n, b.log.String())
			}
		}
	})
}

func TestWhoeverIsCutStaysSoForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		b.offend("bad", 10, "head") // and not one more
		time.Sleep(29 * time.Second)
		if status, _ := b.ask("bad"); status != 429 {
			t.Errorf("after 29 s: %d", status)
		}
		time.Sleep(2 * time.Second)
		if status, _ := b.ask("bad"); status != 200 {
			t.Errorf("after 31 s: %d", status)
		}
	})
}

// A certificate that names no agent has a rate of its own, and so has an address
// that shows none: nobody else pays for them.
func TestWhoIsNoAgentHasARateToo(t *testing.T) {
	for name, who := range map[string]func() *http.Request{
		"serial 4d": func() *http.Request { return request("", 77) },
		"192.0.2.7": func() *http.Request { return request("", 0) },
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(nil)
			refused := 0
			for range 500 {
				if status, _ := b.serve(who()); status == 429 {
					refused++
				}
			}
			if refused < 400 || !strings.Contains(b.log.String(), "is cut off") || !strings.Contains(b.log.String(), name) {
				t.Errorf("%s: %d were refused\n%s", name, refused, b.log.String())
			}
			for _, r := range []*http.Request{request("agent", 0), request("", 78)} {
				if status, _ := b.serve(r); status != 200 {
					t.Errorf("beside %s: %d", name, status)
				}
			}
		})
	}
}

// Who was revoked asks now and then, also when it is started again and again, and
// is told why; one that does not stop is slowed and cut off as any other.
func TestWhoIsDeniedMayAskNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		for range 1000 {
			b.offend("revoked", 3, "denied") // two lanes and the renewal
			time.Sleep(5 * time.Second)
		}
		if b.log.Len() > 0 {
			t.Errorf("a revoked agent that is started every five seconds:\n%s", b.log.String())
		}
		b.offend("flood", 101, "denied")
		if status, _ := b.ask("flood"); status != 429 || !strings.Contains(b.log.String(), "is cut off") {
			t.Errorf("%d\n%s", status, b.log.String())
		}
	})
}

// What an agent bisects for, and what is not its fault, is never held against it.
func TestAnHonestAgentIsNotPunished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		for _, reason := range []string{
			"lines", "stream_busy", "node_busy", "in_flight", "memory", "body_slow", "zstd", "line_bytes", "depth", "members", "duplicate", "text", "number",
			"envelope", "json", "numbers", "announced", "variety", "gap", "gaps", "conflict", "store", "bug",
		} {
			b.offend("honest", 100, reason)
		}
		for range 100 { // asks of a server that does not let it in, on two lanes
			b.offend("honest", 2, "node")
			time.Sleep(15 * time.Second)
		}
		if status, _ := b.ask("honest"); status != 200 || b.log.Len() > 0 {
			t.Errorf("%d\n%s", status, b.log.String())
		}
	})
}

// Whoever goes on as before when it is slowed is cut off; whoever waits is not.
func TestWhoeverDoesNotWaitIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		for node, pause := range map[string]time.Duration{"deaf": 10 * time.Millisecond, "patient": 500 * time.Millisecond} { // on two lanes a second each
			b.offend(node, 8, "head")
			for range 200 {
				b.ask(node)
				time.Sleep(pause)
			}
		}
		for node, want := range map[string]bool{"deaf": true, "patient": false} {
			if got := strings.Contains(b.log.String(), `minutes" client=`+node); got != want {
				t.Errorf("%s was cut off: %v\n%s", node, got, b.log.String())
			}
		}
	})
}

func TestARateIsHeldAndTellsWhenToCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		served := 0
		for range 1000 { // an agent: it comes when it was told to
			status, retry := b.ask("eager")
			if status == 200 {
				served++
				continue
			}
			var seconds int
			fmt.Sscan(retry, &seconds)
			if seconds < 1 || seconds > 5 {
				t.Fatalf("Retry-After %q", retry)
			}
			time.Sleep(time.Duration(seconds) * time.Second)
		}
		if served < 800 || b.log.Len() > 0 {
			t.Errorf("served %d\n%s", served, b.log.String())
		}
		for range 1000 { // who does not is an offender
			b.ask("deaf")
		}
		if !strings.Contains(b.log.String(), "client=deaf") || strings.Contains(b.log.String(), "client=eager") {
			t.Errorf("log:\n%s", b.log.String())
		}
	})
}

func TestBytesAreADebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		b.Took(request("large", 0), 9000) // 4,000 are there
		if status, retry := b.ask("large"); status != 429 || retry != "6" {
			t.Errorf("%d, Retry-After %s", status, retry)
		}
		time.Sleep(6 * time.Second)
		if status, _ := b.ask("large"); status != 200 {
			t.Error(status)
		}
	})
}

func TestClientsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		for n := range maxClients + 10 {
			b.offend(fmt.Sprint("n", n), 1, "head")
		}
		if n := len(b.clients); n > maxClients {
			t.Errorf("%d are remembered", n)
		}
		time.Sleep(silence + time.Second)
		b.ask("one")
		if n := len(b.clients); n != 1 {
			t.Errorf("%d are remembered", n)
		}
	})
}

func TestAddressesAreNetworksWhereOneCustomerHasManyOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:4000": "192.0.2.7", "[::ffff:192.0.2.7]:4000": "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:4000": "2001:db8:1:2::/64", "[fe80::1%eth0]:4000": "fe80::/64", "[::1]:9": "::/64", "pipe": "",
	} {
		if got := address(remote); got != want {
			t.Errorf("%s: %q, want %q", remote, got, want)
		}
	}
}

// wire is a connection that somebody made, from an address.
type wire struct {
	net.Conn
	from string
	once sync.Once
	shut chan struct{}
}

func newWire(from string) *wire { return &wire{from: from, shut: make(chan struct{})} }

func (w *wire) RemoteAddr() net.Addr         { return addr(w.from) }
func (w *wire) Close() error                 { w.once.Do(func() { close(w.shut) }); return nil }
func (w *wire) Read([]byte) (n int, e error) { return 1, nil }
func (w *wire) closed() bool {
	select {
	case <-w.shut:
		return true
	default:
		return false
	}
}

type addr string

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return string(a) + ":1" }

// queue is a listener of connections that are there already.
type queue struct {
	net.Listener
	wires []*wire
}

func (q *queue) Accept() (net.Conn, error) {
	if len(q.wires) == 0 {
		return nil, io.EOF
	}
	w := q.wires[0]
	q.wires = q.wires[1:]
	return w, nil
}

// come lets connections come, and returns what the server has of them.
func (b *bench) come(wires ...*wire) (got []net.Conn) {
	l := b.Listener(&queue{wires: wires})
	for {
		c, err := l.Accept()
		if errors.Is(err, io.EOF) {
			return got
		}
		got = append(got, c)
	}
}

func (b *bench) refusals(reason string) uint64 { return b.closed(reason).Value() }

func TestWhatIsPendingGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(func(l *Limits) { l.PerAddress, l.Pending = 2, 3 })
		a1, a2, a3, other := newWire("192.0.2.1"), newWire("192.0.2.1"), newWire("192.0.2.1"), newWire("192.0.2.2")
		if got := b.come(a1, a2, a3, other); len(got) != 3 || !a3.closed() || a1.closed() {
			t.Errorf("%d came in", len(got))
		}
		time.Sleep(2 * time.Second)
		a4, more := newWire("192.0.2.1"), newWire("192.0.2.3")
		if got := b.come(a4, more); len(got) != 2 || !a1.closed() || !a2.closed() || other.closed() {
			t.Errorf("%d came in later", len(got))
		}
		if b.refusals("address") != 2 || b.refusals("pending") != 1 {
			t.Errorf("%d and %d", b.refusals("address"), b.refusals("pending"))
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if !a4.closed() || !other.closed() || b.refusals("late") != 3 || len(b.open) != 0 {
			t.Errorf("%d came too late, %d are open", b.refusals("late"), len(b.open))
		}
	})
}

func TestIdleConnectionsGiveWayAndBusyOnesDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(func(l *Limits) { l.Connections = 2 })
		first, second := newWire("192.0.2.1"), newWire("192.0.2.2")
		got := b.come(first, second)
		for _, c := range got {
			b.Watch(c, http.StateActive)
		}
		third := newWire("192.0.2.3")
		if got := b.come(third); len(got) != 0 || !third.closed() || b.refusals("total") != 1 {
			t.Errorf("%d came in beside two that are busy", len(got))
		}
		b.Watch(got[1], http.StateIdle)
		if got := b.come(newWire("192.0.2.4")); len(got) != 1 || !second.closed() || first.closed() {
			t.Errorf("%d came in", len(got))
		}
		b.Watch(got[0], http.StateClosed)
	})
}

func TestTheOldestConnectionOfAnAgentGivesWay(t *testing.T) {
	b := newBench(func(l *Limits) { l.PerNode = 2 })
	wires := []*wire{newWire("192.0.2.1"), newWire("192.0.2.1"), newWire("192.0.2.1")}
	for i, c := range b.come(wires...) {
		b.mu.Lock()
		victim := b.introduceLocked(c.(*conn), "node", true, time.Now())
		b.mu.Unlock()
		if i < 2 && victim != nil || i == 2 && (victim == nil || victim.Conn != wires[0]) {
			t.Errorf("connection %d: %v gives way", i, victim)
		}
	}
	if n := len(b.clients["node"].conns); n != 2 {
		t.Errorf("%d are left", n)
	}
}

// An address is slowed for handshakes that fail, and cut off only where no agent
// comes from.
func TestAnAddressIsNotCutWhileAgentsComeFromThere(t *testing.T) {
	for known, want := range map[bool]int{false: 0, true: 1} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(nil)
			for range 400 {
				w := newWire("192.0.2.1")
				for _, c := range b.come(w) {
					c.Read(nil)
					c.Close()
					b.Watch(c, http.StateClosed)
				}
			}
			if known {
				b.clients["192.0.2.1"].known = time.Now()
			}
			if got := b.come(newWire("192.0.2.1")); len(got) != want {
				t.Errorf("known %v: %d came in", known, len(got))
			}
			if got := b.come(newWire("192.0.2.2")); len(got) != 1 {
				t.Errorf("another address: %d came in", len(got))
			}
			if !strings.Contains(b.log.String(), "client=192.0.2.1 last=handshake") {
				t.Errorf("log:\n%s", b.log.String())
			}
			for c := range b.open {
				c.Close()
			}
		})
	}
}

// Neighbours are spared for the sake of agents, not of one that is cut off itself.
func TestAnAgentThatIsCutMakesNoAddressKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		b.offend("bad", 10, "head")
		tries := 0
		for range 30 {
			for _, c := range b.come(newWire("192.0.2.1")) {
				tries++
				b.Watch(c, http.StateActive)
				b.mu.Lock()
				b.introduceLocked(c.(*conn), "bad", true, time.Now())
				b.unlock()
				b.mu.Lock()
				c.(*conn).served = true
				b.mu.Unlock()
				c.Close()
				b.Watch(c, http.StateClosed)
			}
		}
		if tries != roomy.CutAt {
			t.Errorf("%d connections were let in", tries)
		}
	})
}

// An agent whose certificate is not good any more goes on trying, two lanes every
// few seconds; cut off it would not learn why.
func TestAnAgentThatIsNotLetInIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		for range 2000 {
			for _, c := range b.come(newWire("192.0.2.1"), newWire("192.0.2.1")) {
				c.Read(nil)
				c.Close()
				b.Watch(c, http.StateClosed)
			}
			time.Sleep(time.Second)
		}
		if b.log.Len() > 0 || b.refusals("cut")+b.refusals("address") > 0 {
			t.Errorf("log:\n%s", b.log.String())
		}
	})
}

func TestWhoLooksWhetherThePortIsOpenIsNoOffender(t *testing.T) {
	b := newBench(nil)
	for range 100 {
		for _, c := range b.come(newWire("192.0.2.1")) {
			c.Close()
			b.Watch(c, http.StateClosed)
		}
	}
	if n := len(b.clients); n != 0 || b.log.Len() > 0 {
		t.Errorf("%d clients\n%s", n, b.log.String())
	}
}

// A head that the HTTP server could not read never gets to the handler.
func TestHeadsThatCannotBeReadAreOffences(t *testing.T) {
	b := newBench(nil)
	for range 8 {
		for _, c := range b.come(newWire("192.0.2.1")) {
			b.Watch(c, http.StateActive)
			c.Close()
			b.Watch(c, http.StateClosed)
		}
	}
	for range 6 { // and these do
		for _, c := range b.come(newWire("192.0.2.2")) {
			b.Watch(c, http.StateActive)
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			b.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r.WithContext(b.Context(context.Background(), c)))
			c.Close()
			b.Watch(c, http.StateClosed)
		}
	}
	if b.refused("no_head").Value() != 8 || b.clients["192.0.2.1"].offences < 3.5 || b.clients["192.0.2.2"] != nil {
		t.Errorf("%d heads, %v", b.refused("no_head").Value(), b.clients)
	}
}

func TestAnAddressWhereAnAgentIsServedIsOneOfAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(roomy, nil, new(metric.Set), slog.New(slog.DiscardHandler))
		c := &conn{address: "192.0.2.1", name: "agent", agent: true}
		g.clientLocked(c.name, time.Now())
		time.Sleep(time.Hour) // on a connection that was made long ago
		g.served(c)
		if known := g.clients[c.address].known; time.Since(known) > 0 {
			t.Errorf("known since %v", known)
		}
	})
}

func TestAFullTableIsNotLookedThroughForEveryNewClient(t *testing.T) {
	g := New(roomy, nil, new(metric.Set), slog.New(slog.DiscardHandler))
	now := time.Now()
	for i := range maxClients + 1 {
		g.clientLocked(strconv.Itoa(i), now)
	}
	if n := len(g.clients); n > maxClients*7/8+1 {
		t.Errorf("%d are remembered after there were too many", n)
	}
}
