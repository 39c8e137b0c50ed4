// Package trust keeps the certificates of a running program in step with their
// files, and tells how that goes: in the log, in /metrics and in /healthz.
//
// A set that cannot be loaded whole, or is not valid now, is never put into use:
// the last good one stays, and why is said once while it goes on.
package trust

import (
	"context"
	"log/slog"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/status"
	"github.com/rea-agent/rea/internal/trouble"
)

// Options say what a Keeper keeps.
type Options struct {
	Use   string        // what this side's certificate is for, a label: client, server
	Every time.Duration // how often the files are looked at

	// Load loads a set, and returns also beside an error the files that it comes
	// from. It is called by one goroutine at a time.
	Load func() (*identity.Set, []string, error)

	// Patient takes a first set that is not valid now: there is no better one yet.
	Patient bool

	Changed func(*identity.Set) // called by Run with every other set that is put into use; may be nil
	Metrics *metric.Set
	Log     *slog.Logger
}

// A Keeper keeps a set of certificates.
type Keeper struct {
	o       Options
	live    *identity.Live[*identity.Set]
	loading trouble.Trouble
	time    trouble.Trouble

	using *identity.Set // what Changed was told of; used by Run alone
	told  time.Time     // of the last try that was told of; used by Run alone
}

// New loads the first set.
func New(o Options) (*Keeper, error) {
	k := &Keeper{o: o}
	first := o.Patient
	live, err := identity.NewLive(func() (*identity.Set, []string, error) {
		s, files, err := o.Load()
		if err == nil {
			if err = s.Check(time.Now()); err != nil && first {
				err = nil // Run says it
			}
		}
		first = false
		return s, files, err
	})
	if err != nil {
		return nil, err
	}
	k.live, k.using, k.told = live, live.Value(), live.State().Tried
	k.measure()
	return k, nil
}

// Set returns the set in use.
func (k *Keeper) Set() *identity.Set { return k.live.Value() }

// Reload makes Run load at once.
func (k *Keeper) Reload() { k.live.Reload() }

// Run follows the files until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	k.clock()
	return k.live.Run(ctx, k.o.Every, func() {
		k.tell()
		k.clock()
	})
}

// tell says what the last try came to, and hands on what it changed.
func (k *Keeper) tell() {
	state := k.live.State()
	if state.Tried.Equal(k.told) {
		return
	}
	k.told = state.Tried
	if state.Err != nil {
		if k.loading.Failed(state.Err.Error()) {
			k.o.Log.Error("what changed is not taken; the last good certificates stay in use", "error", state.Err.Error())
		}
		return
	}
	if times, lasted := k.loading.Worked(); times > 0 {
		k.o.Log.Info("what changed can be taken again", "failures", times, "after", lasted.Round(time.Millisecond).String())
	}
	set := k.live.Value()
	if set.Same(k.using) {
		return
	}
	k.using = set
	if k.o.Changed != nil {
		k.o.Changed(set)
	}
	own, cas := set.Expiry(time.Now())
	k.o.Log.Info("other certificates are in use", k.o.Use+"_until", day(own), "ca_until", day(cas))
}

// clock says when what is in use is not valid at this time.
func (k *Keeper) clock() {
	err := k.live.Value().Check(time.Now())
	switch {
	case err == nil:
		if times, lasted := k.time.Worked(); times > 0 {
			k.o.Log.Info("the certificates are valid again", "after", lasted.Round(time.Second).String())
		}
	case k.time.Failed(err.Error()):
		k.o.Log.Error("NOTHING CAN BE DELIVERED with these certificates until they are replaced; a restart is not needed", "error", err.Error())
	}
}

func day(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

// measure makes the metrics.
func (k *Keeper) measure() {
	const help = "When the certificate expires: of this side with what it sends along, or the next of the authorities. 0 where there is none."
	expiry := func(pick func(own, cas time.Time) time.Time) func() float64 {
		return func() float64 { return seconds(pick(k.live.Value().Expiry(time.Now()))) }
	}
	const name = "rea_tls_cert_expiry_timestamp_seconds"
	k.o.Metrics.Func(name, help, expiry(func(own, _ time.Time) time.Time { return own }), "cert", k.o.Use)
	k.o.Metrics.Func(name, help, expiry(func(_, cas time.Time) time.Time { return cas }), "cert", "ca")
	Measure(k.o.Metrics, k.live.State, "certificates")
}

// Measure makes the metrics of how a loading goes. what names it: certificates.
func Measure(set *metric.Set, state func() identity.LiveState, what string) {
	set.Func("rea_tls_reload_success", "Whether the last try to load was a success: 1 or 0. After a 0 the last good ones stay in use.", func() float64 {
		if state().Err != nil {
			return 0
		}
		return 1
	}, "what", what)
	set.Func("rea_tls_reload_timestamp_seconds", "When loading was last tried.", func() float64 { return seconds(state().Tried) }, "what", what)
	set.Func("rea_tls_loaded_timestamp_seconds", "When what is in use was loaded.", func() float64 { return seconds(state().Loaded) }, "what", what)
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// Report is for /healthz.
func (k *Keeper) Report() *status.Trust {
	state, now := k.live.State(), time.Now()
	set := k.live.Value()
	r := &status.Trust{State: status.OK, Expires: map[string]time.Time{}, Loaded: state.Loaded, Tried: state.Tried}
	own, cas := set.Expiry(now)
	for name, t := range map[string]time.Time{k.o.Use: own, "ca": cas} {
		if !t.IsZero() {
			r.Expires[name] = t
		}
	}
	if r.LastError = oneLine(set.Check(now), state.Err); r.LastError != "" {
		r.State = status.Degraded
	}
	return r
}

// oneLine joins what is wrong now with why nothing else was loaded.
func oneLine(errs ...error) string {
	text := ""
	for _, err := range errs {
		if err == nil || err.Error() == text {
			continue
		}
		if text != "" {
			text += "; "
		}
		text += err.Error()
	}
	return text
}
