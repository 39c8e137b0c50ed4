package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/trouble"
	"github.com/rea-agent/rea/internal/trust"
)

// trustInterval is how often the files of certificates and the configuration are
// looked at.
const trustInterval = 2 * time.Second

// loadSet loads what the agent shows to the server and what it wants to see, and
// returns the node that its certificate names, or "" if there is none.
func loadSet(c *Config) (set *identity.Set, node string, err error) {
	t := &c.TLS
	set, err = identity.LoadClient(identity.Client{
		CAFile: t.CAFile, CertFile: t.ClientCert, KeyFile: t.ClientKey, Pins: t.SPKIPins, Verify: t.Verify,
	})
	if err != nil {
		return nil, "", &kind{err, ErrConfig}
	}
	if set.Leaf == nil {
		return set, "", nil
	}
	if node, err = identity.Node(set.Leaf); err != nil {
		return nil, "", &kind{fmt.Errorf("client certificate %s: %w", t.ClientCert, err), ErrConfig}
	}
	if id := c.Agent.NodeID; id != "auto" && id != node {
		return nil, "", &kind{fmt.Errorf("node_id is %q, but the client certificate %s names %q, and the server believes the certificate: set node_id = \"auto\"", id, t.ClientCert, node), ErrConfig}
	}
	return set, node, nil
}

// currentSet is loadSet for one connection, now.
func currentSet(c *Config) (*identity.Set, string, error) {
	set, node, err := loadSet(c)
	if err == nil {
		err = set.Check(time.Now())
	}
	if err != nil {
		return nil, "", &kind{err, ErrConfig}
	}
	return set, node, nil
}

// A follower loads the certificates that the configuration names, each time as it
// is then. It is called by one goroutine at a time.
type follower struct {
	agent *Agent
	first bool
	node  string   // of the first certificate
	files []string // that decided the last time
	later string   // keys that were said to need a restart
}

// trust opens the certificates. node is what they say that this agent is.
func (a *Agent) trust() (k *trust.Keeper, node string, err error) {
	f := &follower{agent: a, first: true}
	k, err = trust.New(trust.Options{
		Use: "client", Every: trustInterval, Load: f.load, Patient: true, Metrics: a.metrics, Log: a.o.Log,
		Changed: func(s *identity.Set) {
			a.output.transport.use(s.TLS)
			a.output.renewer.Look()
		},
	})
	return k, f.node, err
}

func (f *follower) load() (*identity.Set, []string, error) {
	c, file := f.agent.o.Config, ""
	if f.agent.o.Reload != nil {
		again, name, err := f.agent.o.Reload()
		if err != nil {
			return nil, f.files, fmt.Errorf("the configuration is not taken: %w", err)
		}
		c, file = again, name
	}
	f.files = []string{file, c.TLS.CAFile, c.TLS.ClientCert, c.TLS.ClientKey}
	set, node, err := loadSet(&c)
	switch {
	case err != nil:
		return nil, f.files, err
	case f.first:
		f.first, f.node = false, node
	case node == f.node:
	case node == "":
		return nil, f.files, errors.New("there is no client certificate any more: start the agent again to run without one")
	case f.node == "":
		return nil, f.files, fmt.Errorf("client certificate %s: this agent was started without one: start it again to show it", c.TLS.ClientCert)
	default:
		return nil, f.files, fmt.Errorf("client certificate %s names the node %q, this agent is %q: start it anew to give it another name", c.TLS.ClientCert, node, f.node)
	}
	f.postpone(&c)
	f.agent.warnUnverified(&c)
	if why := f.agent.confinedRenewal(&c.TLS); why != "" {
		f.agent.o.Log.Error("the certificate cannot be renewed", "reason", why)
	}
	f.agent.loaded.Store(&c.TLS)
	if out := f.agent.output; out != nil { // not the first time
		out.renewer.Look()
	}
	return set, f.files, nil
}

// postpone names the keys that are other now than when the agent started, and
// not about certificates: those cannot change while it runs.
func (f *follower) postpone(c *Config) {
	var names []string
	before := f.agent.o.Config.Keys()
	for i, k := range c.Keys() {
		if k.Value.Literal() != before[i].Value.Literal() && !strings.HasPrefix(k.Name, "tls.") {
			names = append(names, k.Name)
		}
	}
	if later := strings.Join(names, " "); later != f.later {
		f.later = later
		if later != "" {
			f.agent.o.Log.Warn("these keys changed, which takes effect when the agent starts again; only [tls] changes while it runs", "keys", names)
		}
	}
}

// follow follows certificates and configuration until ctx ends.
func (a *Agent) follow(ctx context.Context) {
	var reload func()
	var run func(context.Context) error
	if k := a.output.trust; k != nil {
		reload, run = k.Reload, k.Run
	} else {
		reload, run = a.reread()
	}
	var following sync.WaitGroup
	following.Go(func() { _ = run(ctx) })
	defer following.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.o.Hangup:
			reload()
		}
	}
}

// reread is for an agent that has no certificates, of which nothing changes while
// it runs: whoever changes its configuration all the same is told so.
func (a *Agent) reread() (reload func(), run func(context.Context) error) {
	f := &follower{agent: a}
	live, _ := identity.NewLive(func() (nothing struct{}, files []string, err error) { // State has the error
		if a.o.Reload == nil {
			return nothing, nil, nil
		}
		c, file, err := a.o.Reload()
		if err == nil {
			f.files = []string{file}
			f.postpone(&c)
		}
		return nothing, f.files, err
	})
	var loading trouble.Trouble
	return live.Reload, func(ctx context.Context) error {
		return live.Run(ctx, trustInterval, func() {
			if err := live.State().Err; err == nil {
				if times, _ := loading.Worked(); times > 0 {
					a.o.Log.Info("the configuration can be read again")
				}
			} else if loading.Failed(err.Error()) {
				a.o.Log.Error("the configuration is not taken; that of the start stays in use", "error", err.Error())
			}
		})
	}
}

// A transport has connections of its own for every set of certificates, so that
// no request goes over one that was made with an earlier set. Requests that are
// on their way are finished.
type transport struct {
	make func(*tls.Config) *http.Transport
	now  atomic.Pointer[http.Transport]
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.now.Load().RoundTrip(r)
}

// CloseIdleConnections is called by way of http.Client's.
func (t *transport) CloseIdleConnections() { t.now.Load().CloseIdleConnections() }

func (t *transport) use(c *tls.Config) {
	if old := t.now.Swap(t.make(c)); old != nil {
		old.CloseIdleConnections()
	}
}

// warnUnverified says loudly what a server that is not checked means.
func (a *Agent) warnUnverified(c *Config) {
	if !c.Networking.Enabled || c.TLS.Verify {
		return
	}
	host := c.Networking.Endpoint
	if u, err := url.Parse(c.Networking.Endpoint); err == nil {
		host = u.Host
	}
	a.o.Log.Warn("the server's certificate is NOT verified (tls.verify = false): whoever answers in its place gets the events", "server", host, "pins", len(c.TLS.SPKIPins))
}
