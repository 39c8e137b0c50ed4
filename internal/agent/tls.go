package agent

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/rea-agent/rea/internal/identity"
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
