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
	"io/fs"
	"os"
	"strings"
	"time"
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

// ClientTLS returns the configuration of an agent's connections.
func ClientTLS(c Client) (*tls.Config, error) {
	pins, err := parsePins(c.Pins)
	if err != nil {
		return nil, err
	}
	conf := base()
	conf.ServerName = c.ServerName
	conf.InsecureSkipVerify = !c.Verify
	if c.CAFile != "" {
		if conf.RootCAs, err = loadCAs("certificate authority", c.CAFile); err != nil {
			return nil, err
		}
	}
	if c.CertFile != "" || c.KeyFile != "" {
		pair, err := loadPair("client", c.CertFile, c.KeyFile, x509.ExtKeyUsageClientAuth)
		if err != nil {
			return nil, err
		}
		// Shown whatever authorities the server lists: if it is the wrong one,
		// the server's refusal says so, an empty answer would not.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	if len(pins) > 0 {
		// Not VerifyPeerCertificate: that is skipped on resumed sessions.
		conf.VerifyConnection = func(s tls.ConnectionState) error { return checkPins(pins, c.Verify, s) }
	}
	return conf, nil
}

// A Server says how a server proves who it is, and which agents it lets in.
type Server struct {
	CertFile, KeyFile string
	ClientCAFile      string // who may vouch for agents
}

// ServerTLS returns the configuration of the listener for agents.
func ServerTLS(s Server) (*tls.Config, error) {
	pair, err := loadPair("server", s.CertFile, s.KeyFile, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	cas, err := loadCAs("client certificate authority", s.ClientCAFile)
	if err != nil {
		return nil, err
	}
	conf := base()
	conf.Certificates = []tls.Certificate{*pair}
	conf.ClientCAs = cas
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	// A resumed session would outlive the withdrawal of its authority.
	conf.SessionTicketsDisabled = true
	return conf, nil
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
func loadPair(whose, certFile, keyFile string, use x509.ExtKeyUsage) (*tls.Certificate, error) {
	certs, err := readCertificates(whose+" certificate", certFile)
	if err != nil {
		return nil, err
	}
	leaf := certs[0]
	if err := checkLeaf(whose, certFile, leaf, use); err != nil {
		return nil, err
	}
	keyPEM, err := readKey(whose+" key", keyFile)
	if err != nil {
		return nil, err
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
		return nil, &FileError{whose + " key", keyFile, problem, "name the key that the certificate was made with", err}
	}
	pair.Leaf = leaf
	return &pair, nil
}

// checkLeaf finds what the other side would refuse, where the remedy is at hand.
func checkLeaf(whose, name string, c *x509.Certificate, use x509.ExtKeyUsage) error {
	fault := func(problem, remedy string) error {
		return &FileError{whose + " certificate", name, problem, remedy, nil}
	}
	now := time.Now()
	switch {
	case now.After(c.NotAfter):
		return fault("expired "+c.NotAfter.UTC().Format(time.DateOnly), "issue a new one")
	case now.Before(c.NotBefore):
		return fault("is not valid before "+c.NotBefore.UTC().Format(time.RFC3339), "check the clock of this machine, which says "+now.UTC().Format(time.RFC3339))
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

func loadCAs(what, name string) (*x509.CertPool, error) {
	certs, err := readCertificates(what, name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	last := certs[0].NotAfter
	for _, c := range certs {
		pool.AddCert(c)
		if c.NotAfter.After(last) {
			last = c.NotAfter
		}
	}
	if time.Now().After(last) {
		return nil, &FileError{what, name, "expired " + last.UTC().Format(time.DateOnly), "name the certificate of the authority that is in use", nil}
	}
	return pool, nil
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
	b, err := os.ReadFile(name)
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
	rest, err := readFile(what, name)
	if err == nil {
		err = guarded(what, name)
	}
	if err != nil {
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
	if err := private(what, name); err != nil {
		return nil, err
	}
	var other string
	for rest := b; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && other == "CERTIFICATE":
			return nil, &FileError{what, name, "is a certificate", "name its private key", nil}
		case block == nil:
			return nil, &FileError{what, name, "holds no private key as PEM", "convert it: openssl pkey -in FILE -out FILE.pem", nil}
		case block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, &FileError{what, name, "needs a passphrase", "take it off: openssl pkey -in FILE -out FILE.pem; the file's permissions guard the key", nil}
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return b, nil
		}
		other = block.Type
	}
}
