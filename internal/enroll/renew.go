package enroll

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/status"
	"github.com/rea-agent/rea/internal/trouble"
)

// The pauses between two tries to renew. However few there are of them in the life
// of a certificate, there are several in what is left of it.
const (
	leastPause = 5 * time.Second
	mostPause  = time.Hour
	triesLeft  = 8
)

// mostWait is how long is waited without looking at the clock, which a machine
// that slept has moved.
const mostWait = 5 * time.Minute

// mostRush is over how long machines are spread that come too late to renew:
// those of a site that was switched on in the morning.
const mostRush = time.Minute

// RenewerOptions are what a Renewer is made of.
type RenewerOptions struct {
	// Current returns the certificate in use, and the file that it was loaded from
	// with its key; "" where nothing is to be renewed. See Look.
	Current func() (leaf *x509.Certificate, file string)
	Written func() // the file holds another pair; it is to be loaded

	Client  *http.Client // shows the certificate in use
	URL     string       // of wire.RenewPath
	Agent   string       // the User-Agent
	Metrics *metric.Set
	Log     *slog.Logger
}

// A Renewer replaces an agent's certificate before it expires.
type Renewer struct {
	o       RenewerOptions
	look    chan struct{} // capacity 1
	trouble trouble.Trouble

	succeeded, failed *metric.Counter

	// Used by Run alone.
	of                *x509.Certificate // whose renewal is planned
	replaced, written *x509.Certificate // by the last renewal

	mu       sync.Mutex
	due      time.Time // the next try; zero where none is planned; guarded by mu
	failures uint64    // in a row; guarded by mu
	renewed  time.Time // the last time; guarded by mu
}

// NewRenewer returns a Renewer.
func NewRenewer(o RenewerOptions) *Renewer {
	const help = "Tries to renew the certificate of this agent."
	r := &Renewer{
		o: o, look: make(chan struct{}, 1),
		succeeded: o.Metrics.Counter("rea_tls_renewals_total", help, "result", "success"),
		failed:    o.Metrics.Counter("rea_tls_renewals_total", help, "result", "failure"),
	}
	o.Metrics.Func("rea_tls_renewal_due_timestamp_seconds", "When renewing the certificate is next tried. 0 where it is not.", func() float64 {
		if due, _, _ := r.state(); !due.IsZero() {
			return float64(due.Unix())
		}
		return 0
	})
	return r
}

// Look makes Run ask for what is current now.
func (r *Renewer) Look() {
	select {
	case r.look <- struct{}{}:
	default:
	}
}

// Run renews until ctx ends.
func (r *Renewer) Run(ctx context.Context) error {
	if _, file := r.o.Current(); file != "" {
		// What a kill left of a pair that was being written holds a key.
		if err := sweep(filepath.Dir(file), filepath.Base(file)+".*.tmp"); err != nil {
			r.o.Log.Warn("a key that is of no use is left behind", "error", err.Error())
		}
	}
	for ctx.Err() == nil {
		leaf, file := r.plan(time.Now())
		due, _, _ := r.state()
		if !due.IsZero() && !time.Now().Before(due) {
			r.try(ctx, leaf, file)
			continue
		}
		r.wait(ctx, due)
	}
	return nil
}

// wait waits until it is worth another look.
func (r *Renewer) wait(ctx context.Context, due time.Time) {
	var wake <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(min(time.Until(due), mostWait))
		defer t.Stop()
		wake = t.C
	}
	select {
	case <-ctx.Done():
	case <-r.look:
	case <-wake:
	}
}

// plan looks at what is current, and plans its renewal unless that is done. What
// was written stands for what it replaced until the program has loaded it.
func (r *Renewer) plan(now time.Time) (leaf *x509.Certificate, file string) {
	leaf, file = r.o.Current()
	if leaf != nil && r.replaced != nil && leaf.Equal(r.replaced) {
		leaf = r.written
	}
	if leaf == nil || file == "" {
		r.of = nil
		r.set(time.Time{}, 0)
		return nil, ""
	}
	if r.of != nil && leaf.Equal(r.of) {
		return leaf, file
	}
	r.of = leaf
	due := identity.RenewAt(leaf, rand.Float64())
	if due.Before(now) {
		due = now.Add(rand.N(max(1, min(mostRush, leaf.NotAfter.Sub(now)/10))))
	}
	r.set(due, 0)
	return leaf, file
}

func (r *Renewer) set(due time.Time, failures uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.due, r.failures = due, failures
}

func (r *Renewer) state() (due time.Time, failures uint64, renewed time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.due, r.failures, r.renewed
}

// try renews once, and plans the next try if it fails.
func (r *Renewer) try(ctx context.Context, leaf *x509.Certificate, file string) {
	fresh, err := r.renew(ctx, leaf, file)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		r.replaced, r.written = leaf, fresh
		if current, _ := r.o.Current(); current != nil {
			r.replaced = current
		}
		r.mu.Lock()
		r.renewed = time.Now()
		r.mu.Unlock()
		r.set(time.Now().Add(leastPause), 0) // until it is planned: whatever happens, this does not spin
		r.succeeded.Inc()
		_, _ = r.trouble.Worked()
		r.o.Log.Info("the certificate is renewed", "serial", identity.Serial(fresh), "until", fresh.NotAfter.UTC().Format(time.RFC3339))
		r.o.Written()
		return
	}
	r.failed.Inc()
	_, failures, _ := r.state()
	next := time.Now().Add(pause(failures, time.Until(leaf.NotAfter), err))
	r.set(next, failures+1)
	if r.trouble.Failed(err.Error()) {
		r.o.Log.Error("the certificate is not renewed", "error", err.Error(), "expires", leaf.NotAfter.UTC().Format(time.RFC3339), "next_try", next.UTC().Format(time.RFC3339))
	}
}

// pause draws how long to wait after so many failures before this one, with left
// of the life of the certificate.
func pause(failures uint64, left time.Duration, err error) time.Duration {
	bound := leastPause << min(failures, 16)
	if left > 0 {
		bound = min(bound, max(time.Second, left/triesLeft))
	}
	bound = min(bound, mostPause)
	var b *busy
	if errors.As(err, &b) {
		bound = max(bound, 2*b.after) // half of it is waited at least
	}
	return bound/2 + rand.N(bound/2)
}

// renew gets a certificate for a new key, and replaces the file by both. The old
// pair stays valid: nothing is lost if the machine stops on the way.
func (r *Renewer) renew(ctx context.Context, leaf *x509.Certificate, file string) (*x509.Certificate, error) {
	kind := identity.ECDSA
	if _, ok := leaf.PublicKey.(ed25519.PublicKey); ok {
		kind = identity.Ed25519
	}
	key, err := identity.NewKey(kind)
	if err != nil {
		return nil, err
	}
	answer, err := post(ctx, r.o.Client, r.o.URL, r.o.Agent, "", key)
	if err != nil {
		return nil, err
	}
	certs, node, err := identity.CheckIssued([]byte(answer.Certificates), key, time.Now())
	if err != nil {
		return nil, err
	}
	switch was, err := identity.Node(leaf); {
	case err != nil || was != node:
		return nil, fmt.Errorf("%w: it names the agent %s, this is %s", identity.ErrIssued, node, was)
	case !certs[0].NotAfter.After(leaf.NotAfter):
		return nil, fmt.Errorf("%w: it ends %s, no later than the one there is: does the authority?", identity.ErrIssued, certs[0].NotAfter.UTC().Format(time.RFC3339))
	}
	text, err := identity.EncodePair(key, certs)
	if err != nil {
		return nil, err
	}
	return certs[0], durable.WriteFile(file, text, 0o600)
}

// Report is for /healthz; nil where nothing is to be renewed.
func (r *Renewer) Report() *status.Part {
	due, failures, renewed := r.state()
	if due.IsZero() {
		return nil
	}
	p := &status.Part{State: status.OK, LastSuccess: renewed, NextTry: due}
	if failures > 0 {
		p.State, p.Failures = status.Degraded, failures
		p.LastError, _ = r.trouble.Now()
	}
	return p
}
