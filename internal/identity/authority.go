package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The kinds of keys that are made here. Both are fit for FIPS 140.
const (
	ECDSA   = "ecdsa" // P-256
	Ed25519 = "ed25519"
)

// NewKey makes a key of that kind.
func NewKey(kind string) (crypto.Signer, error) {
	switch kind {
	case ECDSA:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("%w: there is no key of the kind %q: choose %s or %s", ErrAsked, kind, ECDSA, Ed25519)
}

// ErrAsked says that a certificate cannot be as it was asked for.
var ErrAsked = errors.New("it cannot be made")

// NewNode returns a random name for an agent, a UUID.
func NewNode() string { return newUUID() }

// ErrNode says that an agent cannot be called by a text.
var ErrNode = errors.New("is no UUID in lower case, as agents are named")

// An Authority signs the certificates of agents and servers. What stands in them
// is decided here, never by who asks.
type Authority struct {
	Cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes an authority for the organisation org, the trust domain in
// the names of its agents.
func NewAuthority(org, kind string, life time.Duration) (*Authority, error) {
	if !isOrganisation(org) {
		return nil, fmt.Errorf("%w: %q cannot be an organisation, which is 1 to 255 of a-z 0-9 . _ -", ErrAsked, org)
	}
	key, err := NewKey(kind)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	name := subject("REA CA " + now.UTC().Format(time.DateOnly))
	name.Organization = []string{org}
	t := &x509.Certificate{
		SerialNumber: newSerial(), Subject: name, NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := create(t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Authority{cert, key}, nil
}

func create(t, by *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, by, public, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// LoadAuthority loads an authority from the first certificate of a file and its
// key, and sees that it can sign now.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	const what = "certificate authority"
	certs, err := readCertificates(what, certFile)
	if err != nil {
		return nil, err
	}
	cert, now := certs[0], time.Now()
	switch {
	case !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, &FileError{what, certFile, "is not the certificate of an authority", "name the one that signs others", nil}
	case now.After(cert.NotAfter):
		return nil, &FileError{what, certFile, "expired " + cert.NotAfter.UTC().Format(time.DateOnly), "make another one in another folder, and let both be trusted for a while", ErrTime}
	case now.Before(cert.NotBefore):
		return nil, &FileError{what, certFile, "is not valid before " + cert.NotBefore.UTC().Format(time.RFC3339), "check the clock of this machine", ErrTime}
	case len(cert.Subject.Organization) == 0 || !isOrganisation(cert.Subject.Organization[0]):
		return nil, &FileError{what, certFile, "names no organisation that agents could belong to", "use one that was made by rea-server pki init", nil}
	}
	key, err := loadSigner("key of the certificate authority", keyFile)
	if err != nil {
		return nil, err
	}
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return nil, &FileError{"key of the certificate authority", keyFile, "does not belong to the certificate " + certFile, "name the key that it was made with", nil}
	}
	return &Authority{cert, key}, nil
}

func loadSigner(what, name string) (crypto.Signer, error) {
	text, err := readKey(what, name)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil || strings.HasSuffix(block.Type, "PRIVATE KEY") {
			key, err := parseKey(block)
			if err != nil {
				return nil, &FileError{what, name, "is damaged", "copy it again from where it was made", err}
			}
			return key, nil
		}
	}
}

func parseKey(block *pem.Block) (crypto.Signer, error) {
	if block == nil {
		return nil, errors.New("no private key")
	}
	if block.Type == "EC PRIVATE KEY" {
		return x509.ParseECPrivateKey(block.Bytes)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key cannot sign")
	}
	return signer, nil
}

// Org returns the organisation that the authority's agents belong to.
func (a *Authority) Org() string { return a.Cert.Subject.Organization[0] }

// Sign makes the certificate of the agent node for the key of csr. Of the request
// nothing but the key is taken, once it proved that whoever asks has it. A
// certificate never outlives the authority.
func (a *Authority) Sign(csr *x509.CertificateRequest, node string, life time.Duration) (*x509.Certificate, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request is not signed with its key: %w", err)
	}
	return a.SignAgent(csr.PublicKey, node, life)
}

// SignAgent is Sign for a key that was made by the caller.
func (a *Authority) SignAgent(public crypto.PublicKey, node string, life time.Duration) (*x509.Certificate, error) {
	t := a.leaf("REA agent", x509.ExtKeyUsageClientAuth, life)
	t.URIs = []*url.URL{{Scheme: "spiffe", Host: a.Org(), Path: "/agent/" + node}}
	if got, err := Node(t); err != nil || got != node {
		return nil, fmt.Errorf("%q %w", node, ErrNode)
	}
	return a.sign(t, public)
}

// SignServer makes the certificate of a server that is called by names, DNS names
// and IP addresses.
func (a *Authority) SignServer(public crypto.PublicKey, names []string, life time.Duration) (*x509.Certificate, error) {
	t := a.leaf("REA server", x509.ExtKeyUsageServerAuth, life)
	for _, n := range names {
		dns, ip, err := parseName(n)
		switch {
		case err != nil:
			return nil, err
		case ip != nil && !slices.ContainsFunc(t.IPAddresses, ip.Equal):
			t.IPAddresses = append(t.IPAddresses, ip)
		case ip == nil && !slices.Contains(t.DNSNames, dns):
			t.DNSNames = append(t.DNSNames, dns)
		}
	}
	if len(t.DNSNames)+len(t.IPAddresses) == 0 {
		return nil, fmt.Errorf("a server has at least one name: \"\" %w", ErrName)
	}
	return a.sign(t, public)
}

func (a *Authority) leaf(name string, use x509.ExtKeyUsage, life time.Duration) *x509.Certificate {
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: newSerial(), Subject: subject(name), NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use},
	}
	t.Subject.Organization = []string{a.Org()}
	if t.NotBefore.Before(a.Cert.NotBefore) {
		t.NotBefore = a.Cert.NotBefore
	}
	if t.NotAfter.After(a.Cert.NotAfter) {
		t.NotAfter = a.Cert.NotAfter
	}
	return t
}

func (a *Authority) sign(t *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	if time.Now().After(a.Cert.NotAfter) {
		return nil, fmt.Errorf("the authority expired %s: %w", a.Cert.NotAfter.UTC().Format(time.DateOnly), ErrTime)
	}
	if err := strong(public); err != nil {
		return nil, err
	}
	return create(t, a.Cert, public, a.key)
}

// strong refuses keys that TLS 1.3 here could not use, or that are too short.
func strong(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if k.N.BitLen() >= 2048 && k.N.BitLen() <= 8192 {
			return nil
		}
	}
	return errors.New("the key is not one of ECDSA P-256, P-384, P-521, Ed25519, or RSA from 2048 to 8192 bits")
}

// Names returns what a server with this certificate may be called.
func Names(c *x509.Certificate) []string {
	return append(slices.Clone(c.DNSNames), ipTexts(c.IPAddresses)...)
}

// Save writes the authority as CAFile and CAKey into the folder dir, the
// key for its owner only. It never overwrites.
func (a *Authority) Save(dir string) error {
	files, err := pairFiles(CAFile, CAKey, a.Cert, a.key)
	if err != nil {
		return err
	}
	return writeAll(dir, files)
}

// SavePair writes a certificate with its key, and that of its authority as
// CAFile, into the folder dir; what is AgentFile or ServerFile. It never overwrites.
func (a *Authority) SavePair(dir, what string, cert *x509.Certificate, key crypto.Signer) ([]string, error) {
	keyFile := strings.TrimSuffix(what, filepath.Ext(what)) + ".key"
	files, err := pairFiles(what, keyFile, cert, key)
	if err != nil {
		return nil, err
	}
	files = append(files, file{CAFile, certPEM(a.Cert), 0o644})
	return []string{what, keyFile, CAFile}, writeAll(dir, files)
}

// Vacant reports, as an error, that one of the files of a certificate and its key
// is in the folder already.
func Vacant(dir, what string) error {
	keyFile := strings.TrimSuffix(what, filepath.Ext(what)) + ".key"
	return refuseExisting(dir, []file{{name: what}, {name: keyFile}, {name: CAFile}})
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func pairFiles(certFile, keyFile string, cert *x509.Certificate, key crypto.Signer) ([]file, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return []file{
		{certFile, certPEM(cert), fs.FileMode(0o644)},
		{keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600},
	}, nil
}
