// Package server is the receiver of rea-server: it wires the listener with its
// certificates (identity, trust) to the checks of every request (ingest) and these
// to the database (store), and reads that database for the commands that show what
// arrived. It keeps a certificate authority for the commands that issue (pki).
//
// The whole configuration is in config.go; gate.go decides who is let in and may
// stay, reload.go what changes while the server runs.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/server/guard"
	"github.com/rea-agent/rea/internal/server/ingest"
	"github.com/rea-agent/rea/internal/server/store"
	"github.com/rea-agent/rea/internal/status"
	"github.com/rea-agent/rea/internal/wire"
)

// What kept a server from starting, or ended it.
var (
	ErrConfig  = errors.New("what the configuration names cannot be used")
	ErrAddress = errors.New("the address cannot be listened at")
	ErrData    = errors.New("the database cannot be used")
	ErrInUse   = errors.New("another server has the data folder")
)

// kind is an error that is also one of those above, without saying so.
type kind struct {
	error
	is error
}

func (k *kind) Is(target error) bool { return target == k.is }
func (k *kind) Unwrap() error        { return k.error }

// stopTime is how long requests that are on their way may take when the server
// stops. Agents come again with those that took longer.
const stopTime = 10 * time.Second

// What clients are told whose certificate is not good any more.
var (
	errExpired = errors.New("the agent's certificate has expired: issue a new one")
	errRevoked = errors.New("this agent was revoked")
)

// Options are what a server is made of.
type Options struct {
	Config  Config
	Version string
	Log     *slog.Logger

	// Reload reads the configuration again, and tells which file it is in, or
	// "". Only [tls] is taken of it. It may be nil.
	Reload func() (c Config, file string, err error)
	Hangup <-chan os.Signal // asks to reload at once; may be nil
}

// Run receives until ctx ends, finishes what is on its way, and closes the
// database.
func Run(ctx context.Context, o Options) (err error) {
	c, log, set, started := o.Config, o.Log, new(metric.Set), time.Now()
	g, err := o.gate(set)
	if err != nil {
		return &kind{err, ErrConfig}
	}
	l, err := net.Listen("tcp", c.Server.Listen)
	if err != nil {
		return &kind{fmt.Errorf("listen at %s: %w", c.Server.Listen, err), ErrAddress}
	}
	defer l.Close()
	db, err := store.Open(c.Server.DataDir)
	if errors.Is(err, durable.ErrLocked) {
		return &kind{err, ErrInUse}
	}
	if err != nil {
		return &kind{err, ErrData}
	}
	defer func() {
		if cerr := db.Close(); cerr != nil {
			err = errors.Join(err, &kind{fmt.Errorf("close database: %w", cerr), ErrData})
		}
	}()
	door := guard.New(bounds(&c.Limits), identity.Node, set, log)
	issuer, err := o.issuer(g, set, door)
	if err != nil {
		return err
	}
	defer issuer.close()
	page, err := listenStatus(&c.Status, set, o.Version, func() status.Report { return g.health(o.Version, started) }, log)
	if err != nil {
		return err
	}
	watch := ingest.Watch{Metrics: set, Refused: door.Refused, Took: door.Took}
	srv := httpServer(&c, g, door, ingest.New(keeper{db}, g.names(db.Proven), limits(&c.Limits), watch, log), issuer.renew(), log)
	beside, stop := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer stop()
	others.Go(func() { g.run(beside) })
	others.Go(func() { _ = g.certs.Run(beside) })
	others.Go(func() { g.follow(beside) })
	others.Go(func() { o.hangups(beside, g) })
	if page != nil {
		others.Go(func() {
			if err := page.Run(beside); err != nil {
				log.Error("status page", "error", err.Error())
			}
		})
	}
	others.Go(func() { issuer.run(beside) })
	log.Info("listening", "address", l.Addr().String(), "data_dir", c.Server.DataDir)
	return serve(ctx, srv, door.Listener(l), log)
}

func httpServer(c *Config, g *gate, door *guard.Guard, ingest, renew http.Handler, log *slog.Logger) *http.Server {
	srv := &http.Server{
		Handler:     door.Handler(g.handler(routes(ingest, renew, door), door.Refused)),
		TLSConfig:   g.tls(),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return g.context(door.Context(ctx, c), c) },
		ConnState: func(c net.Conn, s http.ConnState) {
			g.watch(c, s)
			door.Watch(c, s)
		},
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: min(c.Limits.ReadTimeout, c.Limits.HeaderTimeout),
		ReadTimeout:       c.Limits.ReadTimeout,
		WriteTimeout:      c.Limits.WriteTimeout,
		IdleTimeout:       c.Limits.IdleTimeout,
		MaxHeaderBytes:    int(c.Limits.MaxHeaderBytes),
		ErrorLog:          errorLog(log),
	}
	srv.Protocols.SetHTTP1(true)
	return srv
}

// serve runs srv until ctx ends or it fails.
func serve(ctx context.Context, srv *http.Server, l net.Listener, log *slog.Logger) error {
	failed := make(chan error, 1)
	go func() { failed <- srv.ServeTLS(l, "", "") }()
	select {
	case err := <-failed:
		return &kind{fmt.Errorf("serve: %w", err), ErrAddress}
	case <-ctx.Done():
	}
	log.Info("stopping")
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		log.Warn("requests were cut off; their agents come again", "error", err)
		if err := srv.Close(); err != nil {
			log.Debug("close connections", "error", err)
		}
	}
	<-failed //nolint:errcheck // it is http.ErrServerClosed
	log.Info("stopped")
	return nil
}

// routes serves nothing but what agents need; renew is nil where nothing is renewed.
func routes(ingest, renew http.Handler, door *guard.Guard) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == wire.IngestPath || r.URL.Path == wire.ResumePath:
			ingest.ServeHTTP(w, r)
		case r.URL.Path == wire.RenewPath && renew != nil:
			renew.ServeHTTP(w, r)
		default:
			door.Stray(w, r, "there is only "+wire.IngestPath+" and "+wire.ResumePath)
		}
	})
}

// limits gives all requests together the memory of eight of the largest, but
// not less than 256 MiB.
func limits(c *LimitsSection) ingest.Limits {
	return ingest.Limits{
		Body: int(c.MaxBodyBytes), Decoded: int(c.MaxDecodedBytes), Ratio: c.MaxRatio, Window: int(c.MaxWindowBytes),
		Line: int(c.MaxLineBytes), Depth: c.MaxDepth, Members: c.MaxMembers, Lines: c.MaxLinesPerBatch,
		InFlight: c.MaxInFlight, Memory: int(c.MaxMemoryBytes), BodyRate: int(c.MinBodyRate), BodyTime: c.ReadTimeout,
	}
}

func bounds(c *LimitsSection) guard.Limits {
	return guard.Limits{
		Connections: c.MaxConnections, PerNode: c.MaxConnectionsPerAgent, Pending: c.MaxPending, PerAddress: c.MaxPendingPerAddress, Pend: c.HandshakeTimeout,
		Requests: c.MaxRequestsPerSecond, Bytes: c.MaxBytesPerSecond, SlowAt: c.SlowAfter, CutAt: c.CutAfter,
	}
}

// keeper lets ingest put into the store: neither knows the other.
type keeper struct{ db *store.Store }

func (k keeper) Put(ctx context.Context, b *ingest.Batch) (uint64, error) {
	high, err := k.db.Put(ctx, &store.Batch{
		Node: b.Node, Stream: b.Stream, First: b.First, Last: b.Last, ID: b.ID, Agent: b.Agent,
		Received: b.Received, Earliest: b.Earliest, Latest: b.Latest, Hosts: b.Hosts, Kinds: b.Kinds,
		Lines: b.Lines, Frames: b.Frames, Assigned: b.Assigned, Superseded: b.Superseded, Unproven: b.Unproven, Gaps: b.Gaps,
	})
	switch {
	case errors.Is(err, store.ErrSuperseded):
		err = ingest.ErrSuperseded
	case errors.Is(err, store.ErrProven):
		err = ingest.ErrProven
	case errors.Is(err, store.ErrConflict):
		err = fmt.Errorf("%w (%w)", ingest.ErrConflict, err)
	}
	return high, err
}

func (k keeper) Resume(ctx context.Context, r *ingest.Resume) (high, assigned uint64, err error) {
	high, assigned, err = k.db.Resume(ctx, &store.Resume{
		Node: r.Node, Stream: r.Stream, Assigned: r.Assigned, Superseded: r.Superseded, Unproven: r.Unproven, Received: r.Received,
	})
	if errors.Is(err, store.ErrProven) {
		err = ingest.ErrProven
	}
	return high, assigned, err
}

// names says who sends. proven tells who has shown a certificate.
func (g *gate) names(proven func(context.Context, string) (bool, error)) ingest.Names {
	return ingest.Names{
		Certified: identity.Node, Address: guard.Address,
		Claimed: func(ctx context.Context, node string) error { return g.claimed(ctx, node, proven) },
	}
}

// A Line is one stored event, a Filter says which are wanted, and a Host is what
// is known of an agent. Accounts are the books of all streams, an Account those of
// one, Unnumbered is a loss that is in none of them, and an Audit is what reading
// all that is stored found.
type (
	Line     = wire.Line
	Filter   = store.Filter
	Host     = store.Host
	Accounts = store.Accounts
	Account  = store.Account
	Audit    = store.Audit

	Unnumbered = store.Unnumbered
)

// A Reader asks what a server stored, while it runs or not.
type Reader struct{ *store.Reader }

// OpenReader opens the data folder of a server.
func OpenReader(dir string) (*Reader, error) {
	r, err := store.OpenReader(dir)
	if err != nil {
		return nil, &kind{err, ErrData}
	}
	return &Reader{r}, nil
}

// pollTime is how often Follow looks for changes.
const pollTime = 200 * time.Millisecond

// Follow calls each with the events that f wants and then with those that
// arrive, until ctx ends or each returns an error.
func (r *Reader) Follow(ctx context.Context, f Filter, each func(*Line) error) error {
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for {
		before, err := r.Version(ctx) // first, so that no change falls between
		if err == nil {
			f.After, err = r.Events(ctx, f, each)
			f.Limit = 0 // was about what is there already
		}
		for now := before; err == nil && now == before; {
			select {
			case <-tick.C:
				now, err = r.Version(ctx)
			case <-ctx.Done():
				return nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
	}
}

// Settled returns the books of a host (see Accounts) as soon as they balance, or
// else as they are when the time is over: agents may still be delivering. Of a
// host of which nothing has come there are no books to balance.
func (r *Reader) Settled(ctx context.Context, host string, wait time.Duration) (Accounts, error) {
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	over := time.After(wait)
	for {
		a, err := r.Accounts(ctx, host)
		if err != nil || a.Unbalanced() == 0 && (host == "" || len(a.Streams) > 0) {
			return a, err
		}
		select {
		case <-over:
			return a, nil
		case <-ctx.Done():
			return a, ctx.Err()
		case <-tick.C:
		}
	}
}

// Certificates are what MakeCertificates made.
type Certificates = identity.Certificates

// ErrName says that a server cannot be called by one of the names.
var ErrName = identity.ErrName

// MakeCertificates makes all certificates of a local set-up in the folder dir.
func MakeCertificates(dir string, names []string) (*Certificates, error) {
	return identity.Generate(dir, names)
}
