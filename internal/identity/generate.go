package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/access"
)

// The files of a local set-up.
const (
	CAFile     = "ca.crt"
	CAKey      = "ca.key"
	ServerFile = "server.crt"
	ServerKey  = "server.key"
	AgentFile  = "agent.crt"
	AgentKey   = "agent.key"
)

// life is the longest that common verifiers accept of a certificate made for a
// server (https://support.apple.com/103769: 825 days).
const life = 825 * 24 * time.Hour

// backdate forgives clocks that are behind.
const backdate = time.Hour

// Certificates are what Generate made.
type Certificates struct {
	Dir      string
	Files    []string // names in Dir: a certificate, its key, the next …
	Names    []string // what the server may be called
	Node     string   // the agent
	NotAfter time.Time
}

// Generate makes a certificate authority, a server's certificate for names
// (DNS names, IP addresses, and always localhost) and one of an agent, each
// with its key, in the folder dir. Only the owner can read the keys. It never
// overwrites: if one of the files is there, or one cannot be written, none is
// left behind.
func Generate(dir string, names []string) (*Certificates, error) {
	now := time.Now()
	m := &maker{from: now.Add(-backdate), to: now.Add(life - backdate)}
	c := &Certificates{Dir: dir, Node: newUUID(), NotAfter: m.to}
	dns, ips, err := serverNames(names)
	if err != nil {
		return nil, err
	}
	c.Names = append(slices.Clone(dns), ipTexts(ips)...)

	ca := m.make(CAFile, CAKey, &x509.Certificate{
		Subject: subject("REA local CA"), IsCA: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil)
	m.make(ServerFile, ServerKey, &x509.Certificate{
		Subject: subject("REA server"), DNSNames: dns, IPAddresses: ips,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca)
	m.make(AgentFile, AgentKey, &x509.Certificate{
		Subject: subject("REA agent"), URIs: []*url.URL{{Scheme: "spiffe", Host: "rea", Path: "/agent/" + c.Node}},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca)
	if m.err != nil {
		return nil, m.err
	}
	if err := writeAll(dir, m.files); err != nil {
		return nil, err
	}
	for _, f := range m.files {
		c.Files = append(c.Files, f.name)
	}
	return c, nil
}

// serverNames adds what the server is always called to names.
func serverNames(names []string) (dns []string, ips []net.IP, err error) {
	for _, n := range append(slices.Clone(names), "localhost", "127.0.0.1", "::1") {
		name, ip, err := parseName(n)
		switch {
		case err != nil:
			return nil, nil, err
		case ip != nil && !slices.ContainsFunc(ips, ip.Equal):
			ips = append(ips, ip)
		case ip == nil && !slices.Contains(dns, name):
			dns = append(dns, name)
		}
	}
	return dns, ips, nil
}

func ipTexts(ips []net.IP) (texts []string) {
	for _, ip := range ips {
		texts = append(texts, ip.String())
	}
	return texts
}

func subject(name string) pkix.Name {
	return pkix.Name{Organization: []string{"REA"}, CommonName: name}
}

// maker makes certificates of one validity and keeps the first error.
type maker struct {
	from, to time.Time
	files    []file
	err      error
}

type file struct {
	name string
	data []byte
	perm fs.FileMode
}

// issuer is a certificate that can sign others.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// make makes a key and the certificate t of it, signed by ca; by itself if ca is nil.
func (m *maker) make(certFile, keyFile string, t *x509.Certificate, ca *issuer) *issuer {
	if m.err != nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.err = fmt.Errorf("make key: %w", err)
		return nil
	}
	t.SerialNumber = newSerial()
	t.NotBefore, t.NotAfter, t.BasicConstraintsValid = m.from, m.to, true
	if ca == nil {
		ca = &issuer{t, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, key.Public(), ca.key)
	if err != nil {
		m.err = fmt.Errorf("make certificate %s: %w", certFile, err)
		return nil
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		m.err = fmt.Errorf("make key %s: %w", keyFile, err)
		return nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		m.err = fmt.Errorf("make certificate %s: %w", certFile, err)
		return nil
	}
	m.files = append(m.files,
		file{certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644},
		file{keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600})
	return &issuer{cert, key}
}

// newSerial returns 128 random bits: positive and, as RFC 5280 (section
// 4.1.2.2) wants, not zero.
func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails: https://pkg.go.dev/crypto/rand#Read
	b[0] |= 1
	return new(big.Int).SetBytes(b[:])
}

// newUUID returns a random UUID, version 4 (RFC 9562, section 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// writeAll writes all files or none.
func writeAll(dir string, files []file) (err error) {
	if err := access.Mkdir(dir); err != nil {
		return fmt.Errorf("make folder for certificates: %w", err)
	}
	if err := refuseExisting(dir, files); err != nil {
		return err
	}
	var written []string
	defer func() {
		if err != nil {
			for _, name := range written {
				err = errors.Join(err, os.Remove(name))
			}
		}
	}()
	for _, f := range files {
		name := filepath.Join(dir, f.name)
		created, err := writeNew(name, f.data, f.perm)
		if created {
			written = append(written, name)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

func refuseExisting(dir string, files []file) error {
	var there []string
	for _, f := range files {
		_, err := os.Lstat(filepath.Join(dir, f.name))
		switch {
		case err == nil:
			there = append(there, f.name)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("look for %s: %w", f.name, err)
		}
	}
	if len(there) > 0 {
		return fmt.Errorf("nothing is overwritten in %s, %s: %w", dir, strings.Join(there, ", "), fs.ErrExist)
	}
	return nil
}

// writeNew writes a file that was not there before, and reports whether it made it.
func writeNew(name string, data []byte, perm fs.FileMode) (created bool, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return false, err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return true, errors.Join(err, f.Close())
}
