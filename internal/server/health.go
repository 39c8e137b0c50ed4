package server

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/status"
)

// listenStatus takes the port of the status page, if it is on.
func listenStatus(c *StatusSection, set *metric.Set, version string, report func() status.Report, log *slog.Logger) (*status.Server, error) {
	if !c.Enabled {
		return nil, nil
	}
	s := status.New(c.Port, set, report)
	if err := s.Listen(); err != nil {
		return nil, &kind{err, ErrAddress}
	}
	status.Self(set, version)
	log.Info("status page", "url", s.URL())
	return s, nil
}

// health reports how the server fares. Without certificates that are valid now it
// lets nobody in, and so fails.
func (g *gate) health(version string, started time.Time) status.Report {
	r := status.Report{Status: status.OK, Version: version, UptimeSeconds: time.Since(started).Seconds(), TLS: g.certs.Report()}
	r.TLS.ClientAuth = "require"
	if g.certs.Set().Open {
		r.TLS.ClientAuth = optional
	}
	if r.TLS.State != status.OK {
		r.Status, r.Reasons = status.Degraded, []string{r.TLS.LastError}
	}
	if err := g.deny.State().Err; err != nil {
		r.Status, r.Reasons = status.Degraded, append(r.Reasons, fmt.Sprintf("the denylist is not taken: %v", err))
	}
	if err := g.certs.Set().Check(time.Now()); err != nil {
		r.Status, r.Reasons = status.Failing, append(r.Reasons, fmt.Sprintf("no agent is let in: %v", err))
	}
	return r
}
