// Package enroll is how a machine becomes an agent and stays one: Enroll gets the
// first certificate for a join token, a Renewer the next ones for the one before.
// The server's side is internal/server/registrar; docs/certificates.md tells the
// protocol.
//
// Keys are made here and never leave the machine. A key and its certificate are in
// one file, which is exchanged in one step: whenever the machine stops, the file
// holds a pair that belongs together.
package enroll

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rea-agent/rea/internal/access"
	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/wire"
)

// The files of an enrolment.
const (
	PairFile = "agent.pem"  // the key and the certificate
	pending  = "enrolling-" // and the id of a token: the key, until there is a certificate
)

// What kept a machine from becoming an agent, or from staying one.
var (
	ErrUnreachable = errors.New("the server cannot be reached")
	ErrRefused     = errors.New("the server refuses")
	ErrBusy        = errors.New("the server cannot do it now")
	ErrServer      = errors.New("this is no address of a server: want https://host:port")
)

// Options say how to enrol.
type Options struct {
	Server  string // https://host:port of its [enroll] listen
	Token   string
	Dir     string // where the files go
	Key     string // the kind of key: identity.ECDSA
	Force   bool   // replace what is there
	Agent   string // the User-Agent
	Timeout time.Duration
}

// Enrolled is what came of it.
type Enrolled struct {
	Node     string    `json:"node"`
	Pair     string    `json:"pair"` // the file of the certificate and its key
	CA       string    `json:"ca"`   // the file of the authority
	NotAfter time.Time `json:"not_after"`
}

// Enroll makes this machine an agent. It sends the token only to a server that
// proved to be the token's.
//
// The key is on the disk before the token is spent for it. If the answer gets
// lost, or the machine stops, enrolling again in the same folder with the same
// token brings another one for the same key, as long as the token lives.
func Enroll(ctx context.Context, o Options) (*Enrolled, error) {
	token, err := identity.ParseToken(o.Token)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(o.Server)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("%q: %w", o.Server, ErrServer)
	}
	e := &Enrolled{Pair: filepath.Join(o.Dir, PairFile), CA: filepath.Join(o.Dir, identity.CAFile)}
	if err := e.vacant(o.Force); err != nil {
		return nil, err
	}
	key, err := pendingKey(o.Dir, token, o.Key)
	if err != nil {
		return nil, err
	}
	first := identity.NewFirstContact(token, u.Hostname())
	client := &http.Client{Timeout: o.Timeout, Transport: plainTransport(first), CheckRedirect: stay}
	defer client.CloseIdleConnections()
	answer, err := post(ctx, client, u.JoinPath(wire.EnrollPath).String(), o.Agent, token.String(), key)
	if err != nil {
		return nil, err
	}
	certs, node, err := identity.CheckIssued([]byte(answer.Certificates), key, time.Now())
	if err == nil {
		err = identity.Vouches(first.CA, certs, time.Now())
	}
	if err != nil {
		return nil, err
	}
	e.Node, e.NotAfter = node, certs[0].NotAfter
	if err := e.write(first.CA, key, certs, o.Force); err != nil {
		return nil, err
	}
	return e, removePending(o.Dir)
}

// vacant sees that nothing is overwritten. The same authority may be there: what
// an enrolment that was cut short leaves behind, or another one's of this machine,
// is looked at when the authority is known.
func (e *Enrolled) vacant(force bool) error {
	_, err := os.Lstat(e.Pair)
	switch {
	case err == nil && !force:
		return fmt.Errorf("this machine is enrolled already, %s: %w", e.Pair, fs.ErrExist)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for %s: %w", e.Pair, err)
	}
	return nil
}

// pendingKey returns the key that an enrolment with that token left in dir when it
// was cut short, or makes one and writes it there.
func pendingKey(dir string, token identity.Token, kind string) (crypto.Signer, error) {
	name := filepath.Join(dir, pending+token.Hash()[:12]+".key")
	key, err := identity.LoadKey("key of an enrolment", name)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = identity.NewKey(kind); err != nil {
		return nil, err
	}
	text, err := identity.EncodeKey(key)
	if err == nil {
		err = access.Mkdir(dir)
	}
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(name, text, 0o600)
}

// removePending removes the keys of enrolments that were cut short, and what a kill
// left of files that were being written.
func removePending(dir string) error {
	return sweep(dir, pending+"*", PairFile+".*.tmp", identity.CAFile+".*.tmp")
}

func sweep(dir string, patterns ...string) error {
	var errs []error
	for _, pattern := range patterns {
		names, _ := fs.Glob(os.DirFS(dir), pattern) // fails for patterns that are none
		for _, name := range names {
			errs = append(errs, durable.Remove(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}

// write writes the authority, and the key with its certificate in one step: the
// machine is an agent when that stands.
func (e *Enrolled) write(ca *x509.Certificate, key crypto.Signer, certs []*x509.Certificate, force bool) error {
	text, err := identity.EncodePair(key, certs)
	if err != nil {
		return err
	}
	before, err := durable.ReadFile(e.CA)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		before = nil
	case err != nil:
		return err
	case !force:
		if same, err := identity.Holds(e.CA, ca); err != nil || !same {
			return errors.Join(fmt.Errorf("another authority is in %s: %w", e.CA, fs.ErrExist), err)
		}
	}
	for _, f := range e.files(before, identity.EncodeCertificates(ca), text) {
		if err := durable.WriteFile(f.name, f.text, f.mode); err != nil {
			if f.name == e.Pair && before != nil {
				err = errors.Join(err, durable.WriteFile(e.CA, before, 0o644))
			}
			return err
		}
	}
	return nil
}

type file struct {
	name string
	text []byte
	mode fs.FileMode
}

// files are what is written, in that order. An authority that is replaced is
// trusted until the pair is there: whenever the machine stops, it is the agent that
// it was or the new one, and trusts the server of that one.
func (e *Enrolled) files(before, ca, pair []byte) []file {
	now := file{e.Pair, pair, 0o600}
	switch {
	case before == nil:
		return []file{{e.CA, ca, 0o644}, now}
	case bytes.Equal(before, ca):
		return []file{now}
	}
	both := bytes.Join([][]byte{before, ca}, []byte("\n"))
	return []file{{e.CA, both, 0o644}, now, {e.CA, ca, 0o644}}
}

func plainTransport(first *identity.FirstContact) *http.Transport {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: first.TLS, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	return t
}

// stay follows no redirection: a token goes where it was said to go.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// post asks for a certificate for the key.
func post(ctx context.Context, client *http.Client, to, agent, token string, key crypto.Signer) (*wire.Enrolled, error) {
	csr, err := identity.NewRequest(key)
	if err != nil {
		return nil, fmt.Errorf("make the request for a certificate: %w", err)
	}
	body, err := json.Marshal(wire.EnrollRequest{Token: token, CSR: csr})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", agent)
	resp, err := client.Do(req)
	if err != nil {
		return nil, unreachable(err)
	}
	defer resp.Body.Close()
	return judge(resp)
}

// unreachable says why there was no answer.
func unreachable(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // who reads it knows the address
	}
	if errors.Is(err, identity.ErrStranger) {
		return identity.ErrStranger
	}
	if text := identity.Explain(err); text != "" {
		return fmt.Errorf("%w: %s", ErrUnreachable, text)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// A busy is ErrBusy with the time after which to come again.
type busy struct {
	error
	after time.Duration
}

func (b *busy) Is(target error) bool { return target == ErrBusy }

func judge(resp *http.Response) (*wire.Enrolled, error) {
	answer := new(wire.Enrolled)
	raw, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxEnroll))
	if err == nil {
		err = json.Unmarshal(raw, answer)
	}
	switch status := resp.StatusCode; {
	case status == http.StatusOK && err != nil:
		return nil, fmt.Errorf("%w: the answer 200 is not of a REA server: %w", identity.ErrIssued, err)
	case status == http.StatusOK:
		return answer, nil
	case status == http.StatusTooManyRequests || status >= http.StatusInternalServerError:
		after, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31)
		if err != nil {
			after = 0 // it says nothing, or nothing that can be
		}
		return nil, &busy{fmt.Errorf("%w: %s: %s", ErrBusy, resp.Status, answer.Error), min(time.Duration(after)*time.Second, mostPause)}
	case status == http.StatusNotFound:
		return nil, fmt.Errorf("%w: it issues no certificates at this address: %s", ErrRefused, answer.Error)
	}
	return nil, fmt.Errorf("%w: %s", ErrRefused, said(resp.Status, answer.Error))
}

func said(status, text string) string {
	if text == "" {
		return "it answered " + status
	}
	return text
}
