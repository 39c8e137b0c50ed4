package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/server/guard"
	"github.com/rea-agent/rea/internal/server/pki"
	"github.com/rea-agent/rea/internal/server/registrar"
)

// The limits of the listener for strangers: an honest one sends two kilobytes, at
// once, and needs no more than one request.
const (
	enrollHeader      = 4 << 10
	enrollTime        = 10 * time.Second
	enrollConnections = 64
)

// An issuer gives agents certificates. A nil one gives none.
type issuer struct {
	registrar *registrar.Registrar
	gate      *gate
	listener  net.Listener // nil where no machine can enrol
	log       *slog.Logger
}

// issuer opens the authority and takes the port, as far as the configuration says.
func (o *Options) issuer(g *gate, set *metric.Set, door *guard.Guard) (*issuer, error) {
	c := &o.Config.Enroll
	if c.PKIDir == "" {
		return nil, nil
	}
	r, err := registrar.New(registrar.Options{
		Dir: c.PKIDir, Life: c.Life, Admits: g.trusts, Denied: g.denies, Metrics: set, Log: o.Log,
		Refused: func(r *http.Request) { door.Refused(r, "renew") }, Said: g.said.said,
	})
	if err != nil {
		return nil, &kind{err, ErrConfig}
	}
	i := &issuer{registrar: r, gate: g, log: o.Log}
	if c.Listen == "" {
		return i, nil
	}
	if _, err := i.welcome(); err != nil {
		return nil, &kind{err, ErrConfig}
	}
	if i.listener, err = net.Listen("tcp", c.Listen); err != nil {
		return nil, &kind{fmt.Errorf("listen at %s: %w", c.Listen, err), ErrAddress}
	}
	return i, nil
}

// trusts reports, as an error, that what an authority signs is not let in.
func (g *gate) trusts(ca *x509.Certificate) error {
	if !g.certs.Set().Trusts(ca) {
		return errors.New("the authority in pki_dir is not among those in client_ca_file, so that nobody with a certificate from it would be let in: add its ca.crt there")
	}
	return nil
}

// denies reports, as an error, that an agent or a key is denied.
func (g *gate) denies(spki, node string) error {
	if d := g.deny.Value().DeniesIssued("", spki, node); d != nil {
		return errRevoked
	}
	return nil
}

// renew serves agents, or is nil.
func (i *issuer) renew() http.Handler {
	if i == nil {
		return nil
	}
	return i.registrar.Renew()
}

// close frees the port where run did not begin.
func (i *issuer) close() {
	if i != nil && i.listener != nil {
		_ = i.listener.Close()
	}
}

// welcome is the configuration of the next handshake with a stranger.
func (i *issuer) welcome() (*tls.Config, error) {
	ca, err := i.registrar.CA()
	if err != nil {
		return nil, err
	}
	set := i.gate.certs.Set()
	if err := set.IssuedBy(ca); err != nil {
		return nil, err
	}
	return set.Welcome(ca), nil
}

// run serves machines that want to become agents, until ctx ends.
func (i *issuer) run(ctx context.Context) {
	if i == nil || i.listener == nil {
		return
	}
	srv := i.server()
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if srv.Shutdown(end) != nil {
			_ = srv.Close()
		}
	})
	i.log.Info("machines can enrol", "address", i.listener.Addr().String())
	err := srv.ServeTLS(limitConnections(i.listener, enrollConnections), "", "")
	if !stop() {
		<-stopped
	}
	if !errors.Is(err, http.ErrServerClosed) {
		i.log.Error("no machine can enrol any more", "error", err.Error())
	}
}

func (i *issuer) server() *http.Server {
	srv := &http.Server{
		Handler: i.registrar.Enroll(),
		TLSConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return i.welcome() },
		},
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: enrollTime / 2,
		ReadTimeout:       enrollTime,
		WriteTimeout:      2 * enrollTime, // another process may have the authority's folder
		MaxHeaderBytes:    enrollHeader,
		ErrorLog:          errorLog(i.log),
	}
	srv.Protocols.SetHTTP1(true)
	srv.SetKeepAlivesEnabled(false)
	return srv
}

// The tokens of an authority are in its folder, and need no server.
type (
	JoinToken = pki.JoinToken
	Token     = identity.Token
)

// The errors of tokens that are about what is asked.
var (
	ErrTokenName = pki.ErrTokenName
	ErrNoToken   = pki.ErrNoToken
)

// TokenLife is the longest that a token can live.
const TokenLife = pki.TokenLife

// NewToken makes a token with which one machine can become an agent.
func NewToken(dir, name string, life time.Duration) (JoinToken, Token, error) {
	return pki.NewToken(dir, name, life)
}

// ListTokens returns the tokens of the authority in the folder dir.
func ListTokens(dir string) ([]JoinToken, error) { return pki.ListTokens(dir) }

// RevokeToken makes a token useless.
func RevokeToken(dir, id string) (JoinToken, error) { return pki.RevokeToken(dir, id) }
