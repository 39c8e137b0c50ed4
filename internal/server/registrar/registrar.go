// Package registrar gives agents their certificates: the first one to a machine
// that shows a join token (Enroll), and the next one to an agent that shows the
// one it has (Renew). docs/certificates.md tells the protocol.
//
// Strangers reach Enroll. All that they can do there is bounded: the size of what
// they send, how often an address may ask, how many are answered at a time. Who is
// refused is told nothing of why, and the log everything.
package registrar

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/server/pki"
	"github.com/rea-agent/rea/internal/trouble"
	"github.com/rea-agent/rea/internal/wire"
)

// Options are what a Registrar is made of.
type Options struct {
	Dir  string        // the folder of the authority; opened for each certificate, so that it can be exchanged
	Life time.Duration // of certificates

	// Admits reports, as an error, why the server would not let in what the
	// authority signs.
	Admits func(ca *x509.Certificate) error
	// Denied reports, as an error, that an agent or a key is denied.
	Denied func(spki, node string) error
	// Refused is told of each request of an agent that is refused for what it is.
	Refused func(*http.Request)
	// Said reports whether to say in the log what an agent was refused: it may ask as
	// often as it likes.
	Said func(reason string) bool

	Metrics *metric.Set
	Log     *slog.Logger
}

// A Registrar is safe for concurrent use.
type Registrar struct {
	o                 Options
	trouble, nonsense trouble.Trouble // of the authority; that was asked for
	strangers, agents *pace
	busy              chan struct{}

	enrolled, renewed, refused *metric.Counter
}

// How often one may ask: strangers by address, behind which there can be a whole
// site, agents by name. An agent has no use for more than a few certificates in
// the life of one.
const (
	strangerBurst = 60
	strangerEvery = time.Second
	agentBurst    = 10
	agentPerLife  = 4
)

// maxBusy is how many requests are worked on at a time.
const maxBusy = 8

// New returns a Registrar, if the authority can be used.
func New(o Options) (*Registrar, error) {
	f, err := pki.Open(o.Dir)
	if err == nil {
		err = o.Admits(f.Authority.Cert)
	}
	if err != nil {
		return nil, err
	}
	const help = "Requests of machines for a certificate, by what became of them."
	return &Registrar{
		o: o, busy: make(chan struct{}, maxBusy),
		strangers: newPace(strangerBurst, strangerEvery, maxStrangers), agents: newPace(agentBurst, o.Life/agentPerLife, maxAgents),
		enrolled: o.Metrics.Counter("rea_enrolments_total", help, "result", "enrolled"),
		renewed:  o.Metrics.Counter("rea_enrolments_total", help, "result", "renewed"),
		refused:  o.Metrics.Counter("rea_enrolments_total", help, "result", "refused"),
	}, nil
}

// CA returns the certificate of the authority as it is now.
func (g *Registrar) CA() (*x509.Certificate, error) {
	f, err := pki.Open(g.o.Dir)
	if err != nil {
		return nil, err
	}
	return f.Authority.Cert, nil
}

// A refusal is what who asks is told, and why, which only the log is.
type refusal struct {
	status int
	told   string
	why    error
	after  time.Duration // to come again
}

func (r *refusal) Error() string { return r.why.Error() }

// toldToken is the same for every token that is not taken.
const toldToken = "the token is not valid: it is unknown, expired, used or revoked; ask for another one"

// Enroll serves wire.EnrollPath to strangers.
func (g *Registrar) Enroll() http.Handler {
	return g.handler(wire.EnrollPath, g.stranger, g.enroll)
}

func (g *Registrar) stranger(r *http.Request) error { return g.strangers.take(address(r), time.Now()) }

func (g *Registrar) enroll(r *http.Request, q *wire.EnrollRequest, csr *x509.CertificateRequest) (*wire.Enrolled, error) {
	token, err := identity.ParseToken(q.Token)
	if err != nil {
		return nil, &refusal{status: http.StatusForbidden, told: toldToken, why: err}
	}
	f, err := g.open()
	if err != nil {
		return nil, err
	}
	if identity.NewToken(f.Authority.Cert).CA != token.CA {
		return nil, &refusal{status: http.StatusForbidden, told: toldToken, why: errors.New("the token was made for another authority")}
	}
	spki := identity.RequestSPKI(csr)
	t, err := pki.Spend(g.o.Dir, token, spki, time.Now())
	switch {
	case errors.Is(err, pki.ErrNoToken), errors.Is(err, pki.ErrTokenExpired), errors.Is(err, pki.ErrTokenUsed), errors.Is(err, pki.ErrTokenRevoked):
		if t.ID != "" {
			err = fmt.Errorf("%w (token %s for %q)", err, t.ID, t.Name)
		}
		return nil, &refusal{status: http.StatusForbidden, told: toldToken, why: err}
	case err != nil:
		return nil, g.broken(err)
	}
	if err := g.o.Denied(spki, t.Node); err != nil {
		return nil, &refusal{status: http.StatusForbidden, told: toldToken, why: fmt.Errorf("%w (token %s for %q)", err, t.ID, t.Name)}
	}
	answer, serial, err := g.sign(f, csr, t.Node)
	if err == nil {
		g.enrolled.Inc()
		g.o.Log.Info("enrolled", "agent", t.Node, "name", t.Name, "token", t.ID, "serial", serial, "client", r.RemoteAddr)
	}
	return answer, err
}

// Renew serves wire.RenewPath to agents, whose certificates are verified and not
// denied.
func (g *Registrar) Renew() http.Handler {
	return g.handler(wire.RenewPath, g.agent, g.renew)
}

func (g *Registrar) agent(r *http.Request) error {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return &refusal{status: http.StatusUnauthorized, told: "a verified client certificate is needed", why: errors.New("no client certificate")}
	}
	node, err := identity.Node(r.TLS.PeerCertificates[0])
	if err != nil {
		return &refusal{status: http.StatusForbidden, told: err.Error(), why: err}
	}
	return g.agents.take(node, time.Now())
}

func (g *Registrar) renew(r *http.Request, _ *wire.EnrollRequest, csr *x509.CertificateRequest) (*wire.Enrolled, error) {
	shown := r.TLS.PeerCertificates[0]
	node, err := identity.Node(shown)
	if err == nil {
		err = g.o.Denied(identity.RequestSPKI(csr), node)
	}
	if err != nil {
		return nil, &refusal{status: http.StatusForbidden, told: err.Error(), why: err}
	}
	f, err := g.open()
	if err != nil {
		return nil, err
	}
	answer, serial, err := g.sign(f, csr, node)
	if err == nil {
		g.renewed.Inc()
		g.o.Log.Info("renewed", "agent", node, "serial", serial, "before", identity.Serial(shown))
	}
	return answer, err
}

// open opens the authority, if the server lets in what it signs.
func (g *Registrar) open() (*pki.Folder, error) {
	f, err := pki.Open(g.o.Dir)
	if err == nil {
		err = g.o.Admits(f.Authority.Cert)
	}
	if err != nil {
		return nil, g.broken(err)
	}
	return f, nil
}

func (g *Registrar) sign(f *pki.Folder, csr *x509.CertificateRequest, node string) (*wire.Enrolled, string, error) {
	cert, err := f.Sign(csr, node, g.o.Life)
	if err != nil {
		return nil, "", g.broken(err)
	}
	if n, lasted := g.trouble.Worked(); n > 0 {
		g.o.Log.Info("certificates can be issued again", "failures", n, "after", lasted.Round(time.Second).String())
	}
	return &wire.Enrolled{
		Certificates: string(identity.EncodeCertificates(cert)), CA: string(identity.EncodeCertificates(f.Authority.Cert)),
	}, identity.Serial(cert), nil
}

// broken is about this side: who asks does nothing wrong, and comes again.
func (g *Registrar) broken(err error) error {
	if g.trouble.Failed(err.Error()) {
		g.o.Log.Error("NO CERTIFICATE CAN BE ISSUED", "error", err.Error())
	}
	return &refusal{status: http.StatusServiceUnavailable, told: "the server cannot issue certificates now; its log says why", why: err, after: 10 * time.Second}
}

// A server of requests of which who asks is admitted and what they ask is read.
type server func(*http.Request, *wire.EnrollRequest, *x509.CertificateRequest) (*wire.Enrolled, error)

// handler answers with what serve returns, for POST at one path.
func (g *Registrar) handler(path string, admit func(*http.Request) error, serve server) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, wire.MaxEnroll)
		answer, err := g.answer(r, path, admit, serve)
		if err == nil {
			write(w, http.StatusOK, answer)
			return
		}
		no := &refusal{status: http.StatusBadRequest, told: err.Error(), why: err}
		errors.As(err, &no)
		g.refused.Inc()
		if path == wire.RenewPath {
			g.refuseAgent(r, no)
		} else {
			g.refuseStranger(r, no)
		}
		if no.after > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((no.after+time.Second-1)/time.Second)))
		}
		w.Header().Set("Connection", "close") // what it may still send is not read
		write(w, no.status, &wire.Enrolled{Error: no.told})
	})
}

func (g *Registrar) answer(r *http.Request, path string, admit func(*http.Request) error, serve server) (*wire.Enrolled, error) {
	switch {
	case r.URL.Path != path:
		return nil, &refusal{status: http.StatusNotFound, told: "there is only " + path, why: errors.New("another path")}
	case r.Method != http.MethodPost:
		return nil, &refusal{status: http.StatusMethodNotAllowed, told: "want POST", why: errors.New("another method")}
	}
	if err := admit(r); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body) // before it takes a place, which slow ones would hold
	if err != nil {
		status := http.StatusBadRequest
		if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
			status = http.StatusRequestEntityTooLarge
		}
		return nil, &refusal{status: status, told: fmt.Sprintf("want at most %d bytes", wire.MaxEnroll), why: err}
	}
	select {
	case g.busy <- struct{}{}:
		defer func() { <-g.busy }()
	default:
		return nil, &refusal{status: http.StatusServiceUnavailable, told: "too many ask at a time", why: errors.New("too many ask at a time"), after: time.Second}
	}
	q, csr, err := read(body)
	if err != nil {
		return nil, err
	}
	return serve(r, q, csr)
}

// refuseStranger says what a stranger was refused. Tokens that are refused are all
// told of; anybody can ask for nonsense as often as they like.
func (g *Registrar) refuseStranger(r *http.Request, no *refusal) {
	if no.status == http.StatusForbidden || g.nonsense.Failed(no.why.Error()) {
		g.o.Log.Warn("no certificate is issued", "status", no.status, "reason", no.why.Error(), "client", r.RemoteAddr)
	}
}

// refuseAgent says what an agent was refused, once while that goes on.
func (g *Registrar) refuseAgent(r *http.Request, no *refusal) {
	who := ""
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		shown := r.TLS.PeerCertificates[0]
		node, err := identity.Node(shown)
		if err == nil && no.status >= http.StatusInternalServerError { // no fault of the agent
			g.agents.giveBack(node)
		}
		if who = node; err != nil {
			who = "serial " + identity.Serial(shown)
		}
	}
	if no.status < http.StatusInternalServerError && no.status != http.StatusTooManyRequests { // nor is it one to be told to wait
		g.o.Refused(r)
	}
	if g.o.Said(who + no.why.Error()) {
		g.o.Log.Warn("no certificate is issued", "status", no.status, "reason", no.why.Error(), "certificate", who, "client", r.RemoteAddr)
	}
}

func write(w http.ResponseWriter, status int, answer *wire.Enrolled) {
	body, _ := json.Marshal(answer) // a struct of strings
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // an agent that is gone asks again
}

// read reads a request: one object, nothing after it, nothing that is not known.
func read(body []byte) (*wire.EnrollRequest, *x509.CertificateRequest, error) {
	q := new(wire.EnrollRequest)
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(q)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("want one object")
		}
	}
	if err != nil {
		return nil, nil, &refusal{status: http.StatusBadRequest, told: "the request is not an object with token and csr", why: fmt.Errorf("read the request: %w", err)}
	}
	csr, err := identity.ParseRequest(q.CSR)
	return q, csr, err
}

// address is what a stranger's pace is kept by: an IPv4 address, or the network
// that one machine has all of in IPv6.
func address(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	ip := at.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	net, _ := ip.WithZone("").Prefix(64) // an IPv6 address has 128 bits
	return net.String()
}
