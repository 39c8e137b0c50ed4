package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/trust"
)

// gate opens the certificates. Unlike an agent, a server does not start with such
// as are not valid now: it has nothing to do without them.
func (o *Options) gate(set *metric.Set) (*gate, error) {
	f := &follower{o: o}
	var g *gate
	certs, err := trust.New(trust.Options{
		Use: "server", Every: gateInterval, Load: f.load, Metrics: set, Log: o.Log,
		Changed: func(*identity.Set) { g.evict(time.Now()) },
	})
	if err != nil {
		return nil, err
	}
	deny, err := identity.NewLive((&denier{o: o, named: o.Config.TLS.DenylistFile}).load)
	if err != nil {
		return nil, err
	}
	g = newGate(certs, deny, set, o.Log)
	return g, nil
}

// hangups reloads where that is asked for, until ctx ends.
func (o *Options) hangups(ctx context.Context, g *gate) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.Hangup:
			g.certs.Reload()
			g.deny.Reload()
		}
	}
}

// A follower loads the certificates that the configuration names, each time as it
// is then. It is called by one goroutine at a time.
type follower struct {
	o     *Options
	files []string // that decided the last time
	later string   // keys that were said to need a restart
	open  bool     // that certificates are not required, as it was said last
}

func (f *follower) load() (*identity.Set, []string, error) {
	c, file := f.o.Config, ""
	if f.o.Reload != nil {
		again, name, err := f.o.Reload()
		if err != nil {
			return nil, f.files, fmt.Errorf("the configuration is not taken: %w", err)
		}
		c, file = again, name
	}
	t := &c.TLS
	f.files = []string{file, t.CertFile, t.KeyFile, t.ClientCAFile}
	set, err := identity.LoadServer(identity.Server{CertFile: t.CertFile, KeyFile: t.KeyFile, ClientCAFile: t.ClientCAFile, Optional: t.ClientAuth == optional})
	if err != nil {
		return nil, f.files, err
	}
	f.postpone(&c)
	f.tellOpen(set.Open)
	return set, f.files, nil
}

// optional is the client_auth of a server that takes events without certificates.
const optional = "optional"

// tellOpen says loudly what it means that nobody has to prove who it is.
func (f *follower) tellOpen(open bool) {
	switch {
	case open && !f.open:
		f.o.Log.Warn("CLIENT CERTIFICATES ARE NOT REQUIRED (tls.client_auth = \"optional\"): whoever reaches this server can deliver in the name of any agent that has never shown one")
	case !open && f.open:
		f.o.Log.Info("client certificates are required again; connections without one are closed")
	}
	f.open = open
}

// A denier loads the denylist that the configuration names as it is then; an empty
// one where it names none. It is called by one goroutine at a time.
type denier struct {
	o           *Options
	file, named string // of the configuration, and of the denylist
}

// load goes on with the file that was named where the configuration cannot be
// read: that must not keep a revocation from being obeyed. follower says it.
func (d *denier) load() (*identity.Denylist, []string, error) {
	if d.o.Reload == nil {
		d.named = d.o.Config.TLS.DenylistFile
	} else if c, file, err := d.o.Reload(); err == nil {
		d.file, d.named = file, c.TLS.DenylistFile
	}
	files := []string{d.file, d.named}
	if d.named == "" {
		return new(identity.Denylist), files, nil
	}
	list, err := identity.LoadDenylist(d.named)
	return list, files, err
}

// postpone names the keys that are other now than when the server started, and
// not about certificates: those cannot change while it runs.
func (f *follower) postpone(c *Config) {
	var names []string
	before := f.o.Config.Keys()
	for i, k := range c.Keys() {
		if k.Value.Literal() != before[i].Value.Literal() && !strings.HasPrefix(k.Name, "tls.") {
			names = append(names, k.Name)
		}
	}
	if later := strings.Join(names, " "); later != f.later {
		f.later = later
		if later != "" {
			f.o.Log.Warn("these keys changed, which takes effect when the server starts again; only [tls] changes while it runs", "keys", names)
		}
	}
}
