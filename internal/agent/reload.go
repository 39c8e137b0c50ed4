package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/redact"
	"github.com/rea-agent/rea/internal/status"
	"github.com/rea-agent/rea/internal/trouble"
	"github.com/rea-agent/rea/internal/trust"
)

// taking returns the configuration c with what of other can change while the agent
// runs. All else is about files, ports and connections that were opened and rights
// that were given up at its start.
func (c Config) taking(other *Config) Config {
	c.Collectors, c.Redact, c.TLS = other.Collectors, other.Redact, other.TLS
	c.Agent.RedactPII = other.Agent.RedactPII
	c.Logging.Level = other.Logging.Level
	return c
}

// Hash identifies the configuration: it changes with every key but those that hold
// secrets.
func (c *Config) Hash() string {
	h := sha256.New()
	for _, k := range c.Keys() {
		if !k.Secret {
			fmt.Fprintf(h, "%s = %s\n", k.Name, k.Value.Literal())
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// differences names the keys that have another value in b than in a.
func differences(a, b *Config) (names []string) {
	before := a.Keys()
	for i, k := range b.Keys() {
		if k.Value.Literal() != before[i].Value.Literal() {
			names = append(names, k.Name)
		}
	}
	return names
}

// A follower loads the certificates that the configuration names, each time as it
// is then, and has the agent follow what else may change. It is called by one
// goroutine at a time.
type follower struct {
	agent   *Agent
	ctx     context.Context // ends with the agent; nil before it runs
	loaded  bool            // once
	node    string          // of the first certificate
	files   []string        // that decided the last time
	inForce Config
	changed []string // what the last time changed
	later   string   // keys that were said to need a restart
	failed  string   // why the last time was told to have failed
}

// trust opens the certificates. node is what they say that this agent is.
func (a *Agent) trust() (k *trust.Keeper, node string, err error) {
	f := a.follower
	k, err = trust.New(trust.Options{
		Use: "client", Every: trustInterval, Load: f.load, Patient: true, Metrics: a.metrics, Log: a.o.Log,
		Changed: func(s *identity.Set) {
			a.output.transport.use(s.TLS)
			a.output.renewer.Look()
		},
	})
	return k, f.node, err
}

// load loads everything anew. What cannot be used changes nothing, and is told.
func (f *follower) load() (*identity.Set, []string, error) {
	set, err := f.try()
	if err != nil {
		err = f.confined(err)
	}
	f.tell(err)
	return set, f.files, err
}

// confined adds to an error what it comes from where the agent may not read a file
// any more because it confined itself.
func (f *follower) confined(err error) error {
	if len(f.agent.confined.needs) == 0 {
		return err
	}
	for _, file := range f.files {
		if file != "" && errors.Is(readable(file), fs.ErrPermission) {
			return fmt.Errorf("%w (the agent confined itself to the folders that it was given at its start: for a file elsewhere start it again)", err)
		}
	}
	return err
}

func (f *follower) try() (*identity.Set, error) {
	c, err := f.read()
	if err != nil {
		return nil, err
	}
	f.files = append(f.files, c.TLS.CAFile, c.TLS.ClientCert, c.TLS.ClientKey)
	set, node, err := loadSet(&c)
	if err == nil {
		err = f.same(node, &c)
	}
	if err == nil {
		err = f.take(&c)
	}
	if err != nil {
		return nil, err
	}
	if !f.loaded {
		f.loaded, f.node = true, node
	}
	f.agent.warnUnverified(&c)
	if why := f.agent.confinedRenewal(&c.TLS); why != "" {
		f.agent.o.Log.Error("the certificate cannot be renewed", "reason", why)
	}
	f.agent.loaded.Store(&c.TLS)
	if out := f.agent.output; out != nil { // not the first time
		out.renewer.Look()
	}
	return set, nil
}

// read reads the configuration as it is now.
func (f *follower) read() (Config, error) {
	if f.agent.o.Reload == nil {
		f.files = nil
		return f.agent.o.Config, nil
	}
	c, file, err := f.agent.o.Reload()
	if err != nil {
		return c, fmt.Errorf("the configuration is not taken: %w", err)
	}
	f.files = []string{file}
	if key := c.Redact.HashKeyFile; key != "" {
		f.files = append(f.files, key)
	}
	return c, nil
}

// same refuses a certificate that makes another of this agent.
func (f *follower) same(node string, c *Config) error {
	switch {
	case !f.loaded, node == f.node:
		return nil
	case node == "":
		return errors.New("there is no client certificate any more: start the agent again to run without one")
	case f.node == "":
		return fmt.Errorf("client certificate %s: this agent was started without one: start it again to show it", c.TLS.ClientCert)
	}
	return fmt.Errorf("client certificate %s names the node %q, this agent is %q: start it anew to give it another name", c.TLS.ClientCert, node, f.node)
}

// take has the agent do as c says, as far as it can while it runs.
func (f *follower) take(c *Config) error {
	if f.ctx == nil {
		return nil // New does
	}
	policy, err := Redaction(c)
	if err != nil {
		return fmt.Errorf("the configuration is not taken: %w", err)
	}
	before, next := f.inForce, f.inForce.taking(c)
	f.inForce = next
	f.postpone(differences(&next, c))
	f.changed = differences(&before, &next)
	if !policy.SameKey(f.agent.policy.Load()) && before.Redact.HashKeyFile == next.Redact.HashKeyFile {
		f.changed = append(f.changed, "what is in redact.hash_key_file")
	}
	f.agent.use(&before, &next, policy)
	return nil
}

// postpone names the keys that changed and cannot while the agent runs.
func (f *follower) postpone(names []string) {
	later := strings.Join(names, " ")
	if later != f.later && later != "" {
		f.agent.o.Log.Warn("these keys changed, which takes effect when the agent starts again", "keys", names)
	}
	f.later = later
}

// tell tells in the log and in an agent event what loading changed, or once why it
// failed, and that it works again.
func (f *follower) tell(err error) {
	changed, failed := f.changed, f.failed
	f.changed, f.failed = nil, ""
	if err != nil {
		f.failed = err.Error()
	}
	f.agent.reload.Store(&reloadState{err: f.failed, at: time.Now()})
	n := event.Notice{Action: "reload", ConfigHash: f.inForce.Hash()}
	switch {
	case f.ctx == nil, err != nil && f.failed == failed:
		return
	case err != nil:
		n.Action, n.Reason = "reload_failed", f.failed
	case changed != nil:
		f.agent.o.Log.Info("the configuration was taken", "changed", changed)
		n.Reason = "changed: " + strings.Join(changed, " ")
	case failed != "":
		n.Reason = "what could not be taken can be again"
	default:
		return
	}
	f.emit(&n)
}

// emit tells of itself within a time: what may keep events from being kept may be
// the want of the certificate that is being loaded.
func (f *follower) emit(n *event.Notice) {
	ctx, cancel := context.WithTimeout(f.ctx, lastWords)
	defer cancel()
	f.agent.tell(ctx, n)
}

// A reloadState is what the last time came to that the configuration was read.
type reloadState struct {
	err string
	at  time.Time
}

// lastReload returns what the last one came to, which before the first is the start.
func (a *Agent) lastReload() reloadState {
	if r := a.reload.Load(); r != nil {
		return *r
	}
	return reloadState{at: a.started}
}

// use changes the agent from one configuration to another, which has policy.
func (a *Agent) use(before, next *Config, policy *redact.Policy) {
	was := sources(before, a.policy.Load(), nil)
	a.policy.Store(policy) // before the sources, which may read more than was allowed
	a.setLevel(next)
	replaced := false
	for i, s := range sources(next, policy, a.followEventLog) {
		switch {
		case s.on && (!was[i].on || !reflect.DeepEqual(s.settings, was[i].settings)):
			a.runner.Replace(string(s.kind), s.open)
		case !s.on && was[i].on:
			a.runner.Replace(string(s.kind), nil)
		default:
			continue
		}
		replaced = true
	}
	if replaced {
		debug.FreeOSMemory() // what those before held, descriptors too
	}
}

// reportReload degrades the agent while what it is to follow cannot be taken; where
// there are certificates they tell it.
func (a *Agent) reportReload(worse func(status.State, string, ...any)) {
	if r := a.lastReload(); a.output.trust == nil && r.err != "" {
		worse(status.Degraded, "%s", r.err)
	}
}

// measureReload makes the metrics of following the configuration.
func (a *Agent) measureReload() {
	a.metrics.Func("rea_config_reload_success", "Whether the configuration, and the files that it names, could be taken the last time: 1 or 0. After a 0 that of before stays in force.", func() float64 {
		if a.lastReload().err != "" {
			return 0
		}
		return 1
	})
	a.metrics.Func("rea_config_reload_timestamp_seconds", "When the configuration was last read.", func() float64 {
		return float64(a.lastReload().at.UnixMilli()) / 1000
	})
}

// setLevel sets how much the agent tells of itself; the configuration has checked it.
func (a *Agent) setLevel(c *Config) {
	if a.o.Level != nil {
		_ = a.o.Level.UnmarshalText([]byte(c.Logging.Level))
	}
}

// follow follows certificates and configuration until ctx ends.
func (a *Agent) follow(ctx context.Context) {
	a.follower.ctx = ctx
	var reload func()
	var run func(context.Context) error
	if k := a.output.trust; k != nil {
		reload, run = k.Reload, k.Run
	} else {
		reload, run = a.reread()
	}
	following := make(chan struct{})
	go func() {
		defer close(following)
		_ = run(ctx)
	}()
	for {
		select {
		case <-following:
			return
		case <-a.o.Hangup:
			a.o.Log.Info("asked to read the configuration and its files again")
			reload()
		}
	}
}

// reread is for an agent that has no certificates: it follows its configuration.
func (a *Agent) reread() (reload func(), run func(context.Context) error) {
	f := a.follower
	live, _ := identity.NewLive(func() (nothing struct{}, files []string, err error) { // State has the error
		c, err := f.read()
		if err == nil {
			err = f.take(&c)
		}
		if err != nil {
			err = f.confined(err)
		}
		f.tell(err)
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
				a.o.Log.Error("the configuration is not taken; that of before stays in use", "error", err.Error())
			}
		})
	}
}
