package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/server/ingest"
	"github.com/rea-agent/rea/internal/trouble"
	"github.com/rea-agent/rea/internal/trust"
	"github.com/rea-agent/rea/internal/wire"
)

// gateInterval is how often the files of certificates are looked at, and
// connections that may not stay are looked for.
const gateInterval = time.Second

// A gate decides who is let in, and who may stay: handshakes are made with the
// certificates as they are now, and a connection is closed when its certificate
// expires, its authority is withdrawn, or the denylist has it. Who is on the
// denylist still gets through a handshake, and to each request the answer why.
type gate struct {
	certs *trust.Keeper
	deny  *identity.Live[*identity.Denylist]
	log   *slog.Logger
	said  *complaints
	list  trouble.Trouble // of loading deny

	closed, denied *metric.Counter

	mu      sync.Mutex
	tenants map[net.Conn]*tenant // by the connection below TLS; guarded by mu
}

// A tenant is an open connection.
type tenant struct {
	set   *identity.Set       // by which it was let in, or looked at last; nil before the handshake
	asked bool                // it has made a request, so the handshake is over
	cert  []*x509.Certificate // that it has shown; none where it need not
	leave time.Time           // it is being told why it may not stay, and closed with the answer, at latest now
}

// farewell is how long an answer that says why a connection is closed may take.
const farewell = time.Second

func newGate(certs *trust.Keeper, deny *identity.Live[*identity.Denylist], set *metric.Set, log *slog.Logger) *gate {
	trust.Measure(set, deny.State, "denylist")
	set.Func("rea_tls_client_auth_optional", "Whether clients may deliver without a certificate: 1 or 0.", func() float64 {
		if certs.Set().Open {
			return 1
		}
		return 0
	})
	set.Func("rea_tls_denylist_entries", "Entries of the denylist in use.", func() float64 { return float64(len(deny.Value().All())) })
	return &gate{
		certs: certs, deny: deny, log: log, said: newComplaints(log), tenants: map[net.Conn]*tenant{},
		closed: set.Counter("rea_connections_evicted_total", "Connections that were closed since their certificate is not good any more."),
		denied: set.Counter("rea_requests_denied_total", "Requests that were refused since the certificate is on the denylist or has expired."),
	}
}

// tls returns the configuration of the listener: each handshake has that of its
// moment. Everything else here is what that has as well, for readers of it.
func (g *gate) tls() *tls.Config {
	c := g.certs.Set().TLS.Clone()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		set := g.certs.Set()
		g.mu.Lock()
		defer g.mu.Unlock()
		if t := g.tenants[hello.Conn]; t != nil {
			t.set = set
		}
		return set.TLS, nil
	}
	return c
}

// watch is told by the HTTP server of its connections.
func (g *gate) watch(c net.Conn, state http.ConnState) {
	conn, ok := c.(*tls.Conn)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch state {
	case http.StateNew:
		g.tenants[conn.NetConn()] = new(tenant)
	case http.StateActive:
		if t := g.tenants[conn.NetConn()]; t != nil && !t.asked {
			t.asked, t.cert = true, conn.ConnectionState().PeerCertificates
		}
	case http.StateClosed, http.StateHijacked:
		delete(g.tenants, conn.NetConn())
	}
}

// run follows the certificates and looks for connections that may not stay, until
// ctx ends.
func (g *gate) run(ctx context.Context) {
	tick := time.NewTicker(gateInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			g.evict(time.Now())
		}
	}
}

// evict closes the connections that may not stay. Nobody waits while it looks at
// what they have shown.
func (g *gate) evict(now time.Time) {
	set := g.certs.Set()
	for raw, t := range g.served() {
		if why := g.stay(t, set, now); why != nil {
			if !g.leaving(raw) {
				g.close(raw, t, why)
			}
			continue
		}
		g.mu.Lock()
		if there := g.tenants[raw]; there != nil && there.set == t.set {
			there.set = set
		}
		g.mu.Unlock()
	}
}

// served returns the connections that have asked for something.
func (g *gate) served() map[net.Conn]tenant {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make(map[net.Conn]tenant, len(g.tenants))
	for raw, t := range g.tenants {
		if t.asked {
			list[raw] = *t
		}
	}
	return list
}

func (g *gate) leaving(raw net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tenants[raw]
	return t != nil && time.Now().Before(t.leave)
}

// dismiss notes that the connection of a request is closed with its answer.
func (g *gate) dismiss(r *http.Request) {
	conn, ok := r.Context().Value(connection{}).(*tls.Conn)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.tenants[conn.NetConn()]; t != nil && t.leave.IsZero() {
		t.leave = time.Now().Add(farewell)
	}
}

// A connection is the key under which the context of a request has its own.
type connection struct{}

func (g *gate) context(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connection{}, c)
}

func (g *gate) close(raw net.Conn, t tenant, why error) {
	_ = raw.Close() // not that of TLS, which could wait for the client
	who := about(t.cert)
	if g.said.said(who + why.Error()) {
		g.log.Warn("connection closed: its certificate is not good any more", "client", raw.RemoteAddr().String(), "reason", why.Error(), "certificate", who)
	}
	g.closed.Inc()
	g.mu.Lock()
	delete(g.tenants, raw)
	g.mu.Unlock()
}

// stay reports, as an error, why a connection may not stay.
func (g *gate) stay(t tenant, set *identity.Set, now time.Time) error {
	if err := g.refuse(t.cert, now); err != nil {
		return err
	}
	if t.set == nil || t.set == set || t.set.Same(set) {
		return nil
	}
	if len(t.cert) == 0 && set.Open {
		return nil
	}
	return set.Admits(t.cert, now)
}

// refuse reports, as an error, why who showed these certificates is not served.
func (g *gate) refuse(cert []*x509.Certificate, now time.Time) error {
	if len(cert) == 0 {
		return nil // that is for ingest to say
	}
	if now.After(cert[0].NotAfter) {
		return errExpired
	}
	return revoked(g.deny.Value().Denies(cert))
}

// revoked is the error of a denial.
func revoked(d *identity.Denial) error {
	switch {
	case d == nil:
		return nil
	case d.Reason != "":
		return fmt.Errorf("%w (%s)", errRevoked, d.Reason)
	}
	return errRevoked
}

// claimed returns nil where a client without a certificate may deliver as the node
// that it names: where the operator wants it so, and for nobody who has another way
// to prove who it is, or was told to stay away. proven tells who has shown a
// certificate.
func (g *gate) claimed(ctx context.Context, node string, proven func(context.Context, string) (bool, error)) error {
	if !g.certs.Set().Open {
		return fmt.Errorf("%w: this server wants one of every client", ingest.ErrNotAllowed)
	}
	node = strings.ToLower(node) // as certificates have it: nor does anybody pass for an agent by capitals
	if why := revoked(g.deny.Value().DeniesIssued("", "", node)); why != nil {
		return fmt.Errorf("%w: %w", ingest.ErrNotAllowed, why)
	}
	known, err := proven(ctx, node)
	if err == nil && known {
		err = fmt.Errorf("%w: this agent has shown one before", ingest.ErrNotAllowed)
	}
	return err
}

// follow keeps the denylist in step with its file until ctx ends.
func (g *gate) follow(ctx context.Context) {
	_ = g.deny.Run(ctx, gateInterval, func() {
		switch err := g.deny.State().Err; {
		case err == nil:
			if times, lasted := g.list.Worked(); times > 0 {
				g.log.Info("the denylist can be loaded again", "failures", times, "after", lasted.Round(time.Millisecond).String())
			}
		case g.list.Failed(err.Error()):
			g.log.Error("the denylist is not taken; the last good one stays in use", "error", err.Error())
		}
	})
}

// about names who has shown these certificates, for the log.
func about(shown []*x509.Certificate) string {
	if len(shown) == 0 {
		return "none"
	}
	if node, err := identity.Node(shown[0]); err == nil {
		return node
	}
	return "serial " + identity.Serial(shown[0])
}

// handler refuses requests of who is not served, before anything else of them is
// looked at, and tells refused of each.
func (g *gate) handler(next http.Handler, refused func(r *http.Request, reason string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			if err := g.refuse(r.TLS.PeerCertificates, time.Now()); err != nil {
				refused(r, "denied")
				g.answer(w, r, err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (g *gate) answer(w http.ResponseWriter, r *http.Request, err error) {
	g.denied.Inc()
	g.dismiss(r)
	who := about(r.TLS.PeerCertificates)
	if g.said.said(who + err.Error()) {
		g.log.Warn("request refused", "status", http.StatusForbidden, "reason", err.Error(), "certificate", who, "client", r.RemoteAddr)
	}
	body, _ := json.Marshal(wire.Answer{Error: err.Error()}) // a struct of numbers and a string
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusForbidden)
	_, _ = w.Write(append(body, '\n')) // who is gone has been refused as well
}
