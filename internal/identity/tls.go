package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/durable"
)

// A Client says how an agent proves who it is, and whom it trusts.
type Client struct {
	CAFile   string // who may vouch for the server; empty for the system's list
	CertFile string // with KeyFile, or neither
	KeyFile  string

	// Pins are base64 SHA-256 digests of SubjectPublicKeyInfos, one of which a
	// verified chain must contain, on top of its verification.
	Pins []string

	// Verify false accepts any server, or with Pins any that has a pinned key.
	// Whether that may be is the caller's decision: see Loopback.
	Verify     bool
	ServerName string // what the server must be called; empty for the host that is dialled
}

// A Set is what one loading of certificates gave, all of which fits together.
type Set struct {
	TLS   *tls.Config       // for the handshakes to come; not to be changed
	Leaf  *x509.Certificate // what this side shows; nil where that is nothing
	Open  bool              // of a server: who shows no certificate gets through the handshake as well
	own   bundle            // Leaf and what is sent along; empty without Leaf
	cas   bundle            // whom this side trusts; empty for the system's list
	roots *x509.CertPool    // of a server: cas as a pool
	sum   hash.Hash         // of all that was loaded
}

// A bundle is the certificates of one file.
type bundle struct {
	what, file string
	certs      []*x509.Certificate
}

// ClientTLS returns the configuration of an agent's connections, if all that it
// is made of is valid now.
func ClientTLS(c Client) (*tls.Config, error) {
	s, err := LoadClient(c)
	if err == nil {
		err = s.Check(time.Now())
	}
	if err != nil {
		return nil, err
	}
	return s.TLS, nil
}

// LoadClient loads what an agent's connections are made of. It takes what is not
// valid yet or any more: see Check.
func LoadClient(c Client) (*Set, error) {
	pins, err := parsePins(c.Pins)
	if err != nil {
		return nil, err
	}
	s := newSet(fmt.Sprint(c.Verify, c.ServerName, pins))
	s.TLS.ServerName = c.ServerName
	s.TLS.InsecureSkipVerify = !c.Verify
	if c.CAFile != "" {
		if err := s.trust("certificate authority", c.CAFile); err != nil {
			return nil, err
		}
		s.TLS.RootCAs = s.roots
	}
	if c.CertFile != "" || c.KeyFile != "" {
		pair, err := s.show("client", c.CertFile, c.KeyFile, x509.ExtKeyUsageClientAuth)
		if err != nil {
			return nil, err
		}
		// Shown whatever authorities the server lists: if it is the wrong one,
		// the server's refusal says so, an empty answer would not.
		s.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	if len(pins) > 0 {
		// Not VerifyPeerCertificate: that is skipped on resumed sessions.
		s.TLS.VerifyConnection = func(state tls.ConnectionState) error { return checkPins(pins, c.Verify, state) }
	}
	return s, nil
}

// A Server says how a server proves who it is, and which agents it lets in.
type Server struct {
	CertFile, KeyFile string
	ClientCAFile      string // who may vouch for agents

	// Optional lets agents show no certificate. One that is shown must be right all
	// the same: what is wrong with it is never passed over.
	Optional bool
}

// ServerTLS returns the configuration of the listener for agents, if all that it
// is made of is valid now.
func ServerTLS(c Server) (*tls.Config, error) {
	s, err := LoadServer(c)
	if err == nil {
		err = s.Check(time.Now())
	}
	if err != nil {
		return nil, err
	}
	return s.TLS, nil
}

// LoadServer loads what the listener for agents is made of. It takes what is not
// valid yet or any more: see Check.
func LoadServer(c Server) (*Set, error) {
	s := newSet(fmt.Sprint(c.Optional))
	pair, err := s.show("server", c.CertFile, c.KeyFile, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	if err := s.trust("client certificate authority", c.ClientCAFile); err != nil {
		return nil, err
	}
	s.TLS.Certificates = []tls.Certificate{*pair}
	s.TLS.ClientCAs = s.roots
	s.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	if s.Open = c.Optional; s.Open {
		s.TLS.ClientAuth = tls.VerifyClientCertIfGiven
	}
	// A resumed session would outlive the withdrawal of its authority.
	s.TLS.SessionTicketsDisabled = true
	return s, nil
}

func newSet(settings string) *Set {
	s := &Set{TLS: base(), sum: sha256.New()}
	fmt.Fprintf(s.sum, "%s\n", settings)
	return s
}

// trust makes the certificates of a file those that may vouch for the other side.
func (s *Set) trust(what, name string) (err error) {
	s.cas = bundle{what: what, file: name}
	if s.cas.certs, err = readCertificates(what, name); err != nil {
		return err
	}
	s.roots = x509.NewCertPool()
	for _, c := range s.cas.certs {
		s.roots.AddCert(c)
		s.sum.Write(c.Raw)
	}
	return nil
}

// show makes a certificate and its key what this side shows; whose is "client"
// or "server".
func (s *Set) show(whose, certFile, keyFile string, use x509.ExtKeyUsage) (*tls.Certificate, error) {
	pair, certs, err := loadPair(whose, certFile, keyFile, use)
	if err != nil {
		return nil, err
	}
	s.Leaf, s.own = pair.Leaf, bundle{whose + " certificate", certFile, certs}
	for _, c := range certs {
		s.sum.Write(c.Raw) // the key is that of the first
	}
	return pair, nil
}

// Same reports whether two sets lead to the same handshakes.
func (s *Set) Same(t *Set) bool { return bytes.Equal(s.sum.Sum(nil), t.sum.Sum(nil)) }

// ErrTime says that a certificate is not valid at this time.
var ErrTime = errors.New("a certificate is not valid at this time")

// Check finds what of s is not valid at a time: its own certificate, or all of
// the authorities. Its error is ErrTime and a FileError.
func (s *Set) Check(now time.Time) error {
	if s.Leaf != nil {
		switch {
		case now.After(s.Leaf.NotAfter):
			return &FileError{s.own.what, s.own.file, "expired " + s.Leaf.NotAfter.UTC().Format(time.DateOnly), "issue a new one", ErrTime}
		case now.Before(s.Leaf.NotBefore):
			return &FileError{s.own.what, s.own.file, "is not valid before " + s.Leaf.NotBefore.UTC().Format(time.RFC3339),
				"check the clock of this machine, which says " + now.UTC().Format(time.RFC3339), ErrTime}
		}
	}
	if end := s.cas.expiry(now); now.After(end) && !end.IsZero() {
		return &FileError{s.cas.what, s.cas.file, "expired " + end.UTC().Format(time.DateOnly), "name the certificate of the authority that is in use", ErrTime}
	}
	return nil
}

// Expiry returns when what this side shows ends to be valid, with what is sent
// along, and when the next of the authorities does. Zero is never: there is none.
func (s *Set) Expiry(now time.Time) (own, cas time.Time) {
	for _, c := range s.own.certs {
		if own.IsZero() || c.NotAfter.Before(own) {
			own = c.NotAfter
		}
	}
	return own, s.cas.expiry(now)
}

// expiry returns when the next certificate of b expires or, where all have
// expired, when the last did.
func (b *bundle) expiry(now time.Time) time.Time {
	var next, last time.Time
	for _, c := range b.certs {
		if c.NotAfter.After(last) {
			last = c.NotAfter
		}
		if !now.After(c.NotAfter) && (next.IsZero() || c.NotAfter.Before(next)) {
			next = c.NotAfter
		}
	}
	if next.IsZero() {
		return last
	}
	return next
}

// Admits reports, as an error, whether a server with this set would let in at a
// time who showed these certificates, the leaf first. It is for connections that
// were let in by an earlier set.
func (s *Set) Admits(shown []*x509.Certificate, now time.Time) error {
	if len(shown) == 0 {
		return errors.New("no certificate was shown")
	}
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	_, err := shown[0].Verify(x509.VerifyOptions{
		Roots: s.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

func base() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
}

// ErrPin says that the server has none of the pinned keys.
var ErrPin = errors.New("no certificate of the server has a pinned key")

type pin [sha256.Size]byte

func parsePins(texts []string) ([]pin, error) {
	var pins []pin
	for _, text := range texts {
		b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(text, "sha256/"))
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("pin %q is not the base64 of a SHA-256 digest (44 characters)", text)
		}
		pins = append(pins, pin(b))
	}
	return pins, nil
}

// checkPins looks for a pinned key where the handshake proved something: in
// verified chains or, where nothing was verified, in the leaf, whose key the
// server holds. Any other certificate that a server sends proves nothing.
func checkPins(pins []pin, verified bool, s tls.ConnectionState) error {
	chains := s.VerifiedChains
	if !verified {
		chains = [][]*x509.Certificate{s.PeerCertificates[:1]}
	}
	for _, chain := range chains {
		for _, cert := range chain {
			sum := pin(sha256.Sum256(cert.RawSubjectPublicKeyInfo))
			for _, p := range pins {
				if p == sum {
					return nil
				}
			}
		}
	}
	return ErrPin
}

// loadPair reads a certificate, with the intermediate ones that follow it, and
// its key; whose is "client" or "server".
func loadPair(whose, certFile, keyFile string, use x509.ExtKeyUsage) (*tls.Certificate, []*x509.Certificate, error) {
	text, err := readFile(whose+" certificate", certFile)
	if err != nil {
		return nil, nil, err
	}
	certs, err := certificatesIn(text, whose+" certificate", certFile)
	if err != nil {
		return nil, nil, err
	}
	leaf := certs[0]
	if err := checkLeaf(whose, certFile, leaf, use); err != nil {
		return nil, nil, err
	}
	keyPEM := text // where both are in one file, of one reading: it may be replaced now
	if keyFile != certFile {
		keyPEM, err = readFile(whose+" key", keyFile)
	}
	if err == nil {
		err = checkKey(keyPEM, whose+" key", keyFile)
	}
	if err != nil {
		return nil, nil, err
	}
	var certPEM []byte
	for _, c := range certs {
		certPEM = append(certPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		problem := "cannot be used with " + certFile + " (" + strings.TrimPrefix(err.Error(), "tls: ") + ")"
		if strings.Contains(err.Error(), "does not match") {
			problem = "does not belong to the certificate " + certFile
		}
		return nil, nil, &FileError{whose + " key", keyFile, problem, "name the key that the certificate was made with", err}
	}
	pair.Leaf = leaf
	return &pair, certs, nil
}

// checkLeaf finds what the other side would refuse whatever the time, where the
// remedy is at hand.
func checkLeaf(whose, name string, c *x509.Certificate, use x509.ExtKeyUsage) error {
	fault := func(problem, remedy string) error {
		return &FileError{whose + " certificate", name, problem, remedy, nil}
	}
	switch {
	case c.IsCA:
		return fault("is the certificate of an authority", "name the one that it issued for the "+whose)
	case !mayBeUsed(c, use):
		return fault("is not made for a "+whose, "issue one with the extended key usage "+whose+"Auth")
	}
	return nil
}

func mayBeUsed(c *x509.Certificate, use x509.ExtKeyUsage) bool {
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	for _, u := range c.ExtKeyUsage {
		if u == use || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

// maxFile is more than any list of certificates needs.
const maxFile = 4 << 20

func readFile(what, name string) ([]byte, error) {
	if name == "" {
		return nil, &FileError{what, "file", "is not named", "name it in [tls] of the configuration", fs.ErrNotExist}
	}
	info, err := os.Stat(name)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxFile) {
		return nil, &FileError{what, name, "is no file of PEM text", "name the right file", nil}
	}
	b, err := durable.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &FileError{what, name, "does not exist", "correct the path, or make a local set-up with rea-server certs", err}
	case errors.Is(err, fs.ErrPermission):
		return nil, &FileError{what, name, "may not be read", "make it readable for the account that this program runs as", err}
	case err != nil:
		return nil, &FileError{what, name, "cannot be read", err.Error(), err}
	case len(bytes.TrimSpace(b)) == 0:
		return nil, &FileError{what, name, "is empty", "copy it again from where it was made", nil}
	}
	return b, nil
}

func readCertificates(what, name string) ([]*x509.Certificate, error) {
	text, err := readFile(what, name)
	if err != nil {
		return nil, err
	}
	return certificatesIn(text, what, name)
}

// certificatesIn reads the text of the file name, which nobody else can change.
func certificatesIn(rest []byte, what, name string) ([]*x509.Certificate, error) {
	if err := guarded(what, name); err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	var other string
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			other = block.Type
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &FileError{what, name, "holds a damaged certificate", "copy it again from where it was made", err}
		}
		certs = append(certs, c)
	}
	switch {
	case len(certs) > 0:
		return certs, nil
	case strings.HasSuffix(other, "PRIVATE KEY"):
		return nil, &FileError{what, name, "is a private key", "name the certificate (.crt, .pem), not its key", nil}
	case other != "":
		return nil, &FileError{what, name, "holds a PEM block " + other, "want CERTIFICATE", nil}
	}
	return nil, &FileError{what, name, "is no PEM text", "convert it: openssl x509 -inform der -in FILE -out FILE.pem", nil}
}

func readKey(what, name string) ([]byte, error) {
	b, err := readFile(what, name)
	if err != nil {
		return nil, err
	}
	return b, checkKey(b, what, name)
}

// checkKey sees that the text of the file name has a key that can be used, and
// that nobody else can read it.
func checkKey(text []byte, what, name string) error {
	if err := private(what, name); err != nil {
		return err
	}
	var other string
	for rest := text; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && other == "CERTIFICATE":
			return &FileError{what, name, "is a certificate", "name its private key", nil}
		case block == nil:
			return &FileError{what, name, "holds no private key as PEM", "convert it: openssl pkey -in FILE -out FILE.pem", nil}
		case block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return &FileError{what, name, "needs a passphrase", "take it off: openssl pkey -in FILE -out FILE.pem; the file's permissions guard the key", nil}
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil
		}
		other = block.Type
	}
}
