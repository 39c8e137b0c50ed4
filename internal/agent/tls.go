package agent

import (
	"crypto/tls"
	"fmt"
	"net/url"

	"github.com/rea-agent/rea/internal/identity"
)

// clientTLS loads what the agent shows to the server and what it wants to see,
// and returns the node that its certificate names, or "" if there is none.
func clientTLS(c *Config) (conf *tls.Config, node string, err error) {
	t := &c.TLS
	conf, err = identity.ClientTLS(identity.Client{
		CAFile: t.CAFile, CertFile: t.ClientCert, KeyFile: t.ClientKey, Pins: t.SPKIPins, Verify: t.Verify,
	})
	if err != nil {
		return nil, "", &kind{err, ErrConfig}
	}
	if conf.GetClientCertificate == nil {
		return conf, "", nil
	}
	pair, err := conf.GetClientCertificate(nil)
	if err != nil {
		return nil, "", &kind{err, ErrConfig}
	}
	if node, err = identity.Node(pair.Leaf); err != nil {
		return nil, "", &kind{fmt.Errorf("client certificate %s: %w", t.ClientCert, err), ErrConfig}
	}
	if id := c.Agent.NodeID; id != "auto" && id != node {
		return nil, "", &kind{fmt.Errorf("node_id is %q, but the client certificate %s names %q, and the server believes the certificate: set node_id = \"auto\"", id, t.ClientCert, node), ErrConfig}
	}
	return conf, node, nil
}

// warnUnverified says loudly what a server that is not checked means.
func (a *Agent) warnUnverified() {
	n, t := &a.o.Config.Networking, &a.o.Config.TLS
	if !n.Enabled || t.Verify {
		return
	}
	host := n.Endpoint
	if u, err := url.Parse(n.Endpoint); err == nil {
		host = u.Host
	}
	a.o.Log.Warn("the server's certificate is NOT verified (tls.verify = false): whoever answers in its place gets the events", "server", host, "pins", len(t.SPKIPins))
}
