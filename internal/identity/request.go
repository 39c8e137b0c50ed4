package identity

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// This file is how an agent comes to a certificate: what it asks with, how it
// knows the server that it asks, and what it takes for an answer.

// NewRequest makes the request for a certificate for that key (PKCS #10). It says
// nothing but that who asks has the key: the server decides the rest.
func NewRequest(key crypto.Signer) (der []byte, err error) {
	return x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
}

// MaxRequest is more than the request of any key that is taken.
const MaxRequest = 8 << 10

// ParseRequest reads a request of a stranger, and sees that it is signed with its
// key and that the key is one that is taken.
func ParseRequest(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > MaxRequest {
		return nil, fmt.Errorf("the request for a certificate is longer than %d bytes", MaxRequest)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("the request for a certificate cannot be read: %w", err)
	}
	if err := strong(csr.PublicKey); err != nil { // first: the size of a key decides what checking costs
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request is not signed with its key: %w", err)
	}
	return csr, nil
}

// RequestSPKI is SPKI for a request.
func RequestSPKI(r *x509.CertificateRequest) string {
	sum := sha256.Sum256(r.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Trusts reports whether the certificate is one of those that may vouch for the
// other side.
func (s *Set) Trusts(ca *x509.Certificate) bool {
	return slices.ContainsFunc(s.cas.certs, ca.Equal)
}

// IssuedBy reports, as an error, whether what this side shows comes from that
// authority.
func (s *Set) IssuedBy(ca *x509.Certificate) error {
	if s.Leaf == nil || s.Leaf.CheckSignatureFrom(ca) != nil {
		return &FileError{s.own.what, s.own.file, "is not from the authority that agents enrol with", "issue one with rea-server pki issue server", nil}
	}
	return nil
}

// Welcome returns the configuration of a listener that strangers may talk to. It
// shows the same as s, and the authority's certificate with it, in which they find
// the key that their token names.
func (s *Set) Welcome(ca *x509.Certificate) *tls.Config {
	c := s.TLS.Clone()
	c.ClientAuth, c.ClientCAs = tls.NoClientCert, nil
	pair := c.Certificates[0]
	pair.Certificate = append(slices.Clone(pair.Certificate), ca.Raw)
	c.Certificates = []tls.Certificate{pair}
	return c
}

// ErrStranger says that a server is not the one that a token was made for.
var ErrStranger = errors.New("this is not the server that the token was made for: it has no certificate of the token's authority")

// A FirstContact is how an agent talks to a server of which it knows nothing but
// what the token says.
type FirstContact struct {
	TLS *tls.Config
	CA  *x509.Certificate // the authority; set by a handshake that is a success
}

// NewFirstContact returns one for a server that must be called name and come from
// the authority that the token names. Whatever else the server sends proves
// nothing: its certificate is verified with that authority as the only root.
func NewFirstContact(t Token, name string) *FirstContact {
	f := &FirstContact{TLS: base()}
	f.TLS.ServerName = name
	f.TLS.InsecureSkipVerify = true // VerifyConnection does it, once it has found the root
	f.TLS.VerifyConnection = func(s tls.ConnectionState) error { return f.verify(t, name, s.PeerCertificates) }
	return f
}

func (f *FirstContact) verify(t Token, name string, shown []*x509.Certificate) error {
	i := slices.IndexFunc(shown, func(c *x509.Certificate) bool {
		return c.IsCA && sha256.Sum256(c.RawSubjectPublicKeyInfo) == t.CA
	})
	if i < 0 {
		return ErrStranger
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(shown[i])
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	_, err := shown[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between})
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		return ErrStranger
	}
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: shown, Err: err}
	}
	f.CA = shown[i]
	return nil
}

// ErrIssued says that a certificate that a server issued cannot be used.
var ErrIssued = errors.New("the certificate from the server cannot be used")

// CheckIssued reads the certificates, PEM text, that a server issued for the key,
// the agent's own first, and sees that they can be used now. It returns the agent
// that they name.
func CheckIssued(text []byte, key crypto.Signer, now time.Time) (certs []*x509.Certificate, node string, err error) {
	certs, err = parseCertificates(text)
	if err != nil {
		return nil, "", err
	}
	leaf := certs[0]
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch node, err = Node(leaf); {
	case err != nil:
		return nil, "", fmt.Errorf("%w: %w", ErrIssued, err)
	case !ok || !public.Equal(key.Public()):
		return nil, "", fmt.Errorf("%w: it is for another key", ErrIssued)
	case leaf.IsCA || !mayBeUsed(leaf, x509.ExtKeyUsageClientAuth):
		return nil, "", fmt.Errorf("%w: it is not made for an agent", ErrIssued)
	case now.Before(leaf.NotBefore):
		return nil, "", fmt.Errorf("%w before %s, and the clock of this machine says %s: set it right", ErrIssued, leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(leaf.NotAfter):
		return nil, "", fmt.Errorf("%w after %s, and the clock of this machine says %s: set it right", ErrIssued, leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return certs, node, nil
}

// Vouches reports, as an error, whether an agent's certificates come from ca.
func Vouches(ca *x509.Certificate, certs []*x509.Certificate, now time.Time) error {
	s := &Set{roots: x509.NewCertPool()}
	s.roots.AddCert(ca)
	if err := s.Admits(certs, now); err != nil {
		return fmt.Errorf("%w: %w", ErrIssued, err)
	}
	return nil
}

// maxIssued bounds the certificates of an answer.
const maxIssued = 8

func parseCertificates(text []byte) (certs []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" || len(certs) == maxIssued {
			return nil, fmt.Errorf("%w: the answer holds more or other than a few certificates", ErrIssued)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: the answer holds none", ErrIssued)
	}
	return certs, nil
}

// EncodeCertificates writes certificates as PEM text.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var b []byte
	for _, c := range certs {
		b = append(b, certPEM(c)...)
	}
	return b
}

// EncodeKey writes a key as PEM text.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// EncodePair writes a key and its certificates as one PEM text. A file of it is
// exchanged in one step, so that the two always belong together, and can be named
// as the certificate and as the key.
func EncodePair(key crypto.Signer, certs []*x509.Certificate) ([]byte, error) {
	b, err := EncodeKey(key)
	return append(b, EncodeCertificates(certs...)...), err
}

// LoadKey loads a private key, or an error that is fs.ErrNotExist.
func LoadKey(what, name string) (crypto.Signer, error) { return loadSigner(what, name) }

// LoadCA loads the certificate of an authority without its key.
func LoadCA(name string) (*x509.Certificate, error) {
	const what = "certificate authority"
	certs, err := readCertificates(what, name)
	if err != nil {
		return nil, err
	}
	if !certs[0].IsCA {
		return nil, &FileError{what, name, "is not the certificate of an authority", "name the one that signs others", fs.ErrInvalid}
	}
	return certs[0], nil
}

// Holds reports whether a file of certificates has that one and no other.
func Holds(name string, ca *x509.Certificate) (bool, error) {
	certs, err := readCertificates("certificate authority", name)
	if err != nil {
		return false, err
	}
	return len(certs) == 1 && bytes.Equal(certs[0].Raw, ca.Raw), nil
}

// RenewAt returns when a certificate is to be renewed: when two thirds of its life
// are over, a twentieth of it earlier or later as draw, from 0 to 1, says, so that
// machines that were set up together do not come together. Its life does not begin
// where it is dated back to.
func RenewAt(c *x509.Certificate, draw float64) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	if life > backdate {
		life -= backdate
	}
	return c.NotAfter.Add(-life/3 + time.Duration((draw-0.5)*float64(life)/10))
}
