package agent

import (
	"fmt"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/ship"
	"github.com/rea-agent/rea/internal/status"
)

// listen takes the status port, if the page is on.
func (a *Agent) listen() (*status.Server, error) {
	c := &a.o.Config.Status
	if !c.Enabled {
		return nil, nil
	}
	s := status.New(c.Port, a.metrics, a.health)
	if err := s.Listen(); err != nil {
		return nil, &kind{err, ErrBusy}
	}
	status.Self(a.metrics, a.o.Version)
	a.o.Log.Info("status page", "url", s.URL())
	return s, nil
}

// health reports how the agent fares. It works as long as events are collected
// and kept: a server that is away degrades it, since the queue holds what it
// does not get; a queue that loses events, or no source that works, fails it.
func (a *Agent) health() status.Report {
	r := status.Report{
		Status: status.OK, Version: a.o.Version, Node: a.node, UptimeSeconds: time.Since(a.started).Seconds(),
		Sources: map[string]status.Part{}, Sender: map[string]status.Part{}, Queue: map[string]status.Lane{},
	}
	worse := func(s status.State, format string, args ...any) {
		if r.Status != status.Failing {
			r.Status = s
		}
		r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...))
	}
	a.reportSources(&r, worse)
	a.reportLocal(&r, worse)
	if k := a.output.trust; k != nil {
		if r.TLS = k.Report(); r.TLS.State != status.OK {
			worse(status.Degraded, "%s", r.TLS.LastError)
		}
		if r.TLS.Renewal = a.output.renewer.Report(); r.TLS.Renewal != nil && r.TLS.Renewal.State != status.OK {
			worse(status.Degraded, "the certificate is not renewed: %s", r.TLS.Renewal.LastError)
		}
	}
	a.reportReload(worse)
	a.reportConfinement(&r, worse)
	for _, l := range a.output.lanes {
		s := l.sender.State()
		r.Sender[l.name] = status.Part{State: status.State(s.State), LastSuccess: s.LastSuccess, LastError: s.LastError, Failures: s.Failures}
		if s.State == ship.Failing {
			worse(status.Degraded, "%s are not delivered, but kept: %s", l.name, s.LastError)
		}
		q := l.queue.Load().Stats()
		lane := status.Lane{Bytes: q.Bytes, MaxBytes: q.MaxBytes, Events: q.Events, State: status.State(q.State)}
		if !q.Oldest.IsZero() {
			age := time.Since(q.Oldest).Seconds()
			lane.OldestSeconds = &age
		}
		r.Queue[l.name] = lane
		if q.State != "ok" {
			worse(status.Failing, "the queue of %s loses events: %s", l.name, q.State)
		}
	}
	return r
}

func (a *Agent) reportSources(r *status.Report, worse func(status.State, string, ...any)) {
	bad := 0
	for _, s := range a.runner.States() {
		part := status.Part{State: status.State(s.State), LastSuccess: s.LastSuccess, LastError: s.LastError, Failures: s.Failures}
		for _, p := range s.Parts {
			if part.Parts == nil {
				part.Parts = map[string]status.Part{}
			}
			part.Parts[p.Name] = status.Part{
				State: status.State(p.State), LastError: p.Error,
				LagSeconds: p.Backlog.Lag.Seconds(), LagRecords: p.Backlog.Records, MissingRecords: p.Backlog.Missing,
			}
			if p.Error != "" {
				worse(status.Degraded, "source %s/%s: %s", s.Name, p.Name, p.Error)
			}
		}
		r.Sources[s.Name] = part
		if s.State == collect.Failing || s.State == collect.Unsupported {
			bad++
			worse(status.Degraded, "source %s: %s", s.Name, s.LastError)
		}
	}
	if bad > 0 && bad == len(r.Sources) {
		worse(status.Failing, "no source works")
	}
}

// reportLocal reports stdout or the file: failing where events are kept there,
// degraded where it only gets copies.
func (a *Agent) reportLocal(r *status.Report, worse func(status.State, string, ...any)) {
	l := a.output.local
	if l == nil {
		return
	}
	part := l.report()
	r.Sinks = map[string]status.Part{l.name: part}
	switch {
	case part.State == status.OK:
	case l.vital:
		worse(status.Failing, "events are lost: %s", part.LastError)
	default:
		worse(status.Degraded, "%s loses its copies of events: %s", l.name, part.LastError)
	}
}
