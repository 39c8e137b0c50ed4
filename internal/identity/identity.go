// Package identity says who is who: certificates name agents and servers, and
// everything that decides about TLS is here.
//
// An agent is the UUID in the URI of its certificate's subject alternative
// names, spiffe://ORG/agent/UUID; nothing that it writes in a request can make
// it another one (Node). Both sides speak TLS 1.3 and HTTP/1.1, and the server
// wants a certificate of the client, unless its operator says otherwise
// (LoadClient, LoadServer). A Live keeps what was
// loaded in step with its files; a Denylist says who is not let in although an
// authority vouches for them. Generate makes the certificates of a local set-up,
// an Authority those of any other.
//
// What is wrong with a file is told as a FileError, what is wrong with a
// connection by Explain: what it is, and what to do.
package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// agentName is what a URI must be to name an agent. The trust domain follows
// https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/ (section 2.1).
var agentName = regexp.MustCompile(`^spiffe://[a-z0-9._-]{1,255}/agent/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$`)

// Node returns the UUID of the agent that cert names. The certificate must
// already be verified. It has exactly one URI of the scheme spiffe, whatever
// its organisation; URIs of other schemes mean nothing here.
func Node(cert *x509.Certificate) (string, error) {
	var ids []*url.URL
	for _, u := range cert.URIs {
		if strings.EqualFold(u.Scheme, "spiffe") {
			ids = append(ids, u)
		}
	}
	switch len(ids) {
	case 0:
		return "", errors.New("the certificate names no agent: it has no URI spiffe://ORG/agent/UUID")
	case 1:
	default:
		return "", fmt.Errorf("the certificate has %d spiffe URIs, want one", len(ids))
	}
	m := agentName.FindStringSubmatch(ids[0].String())
	if m == nil {
		return "", fmt.Errorf("the certificate names no agent: %q is not spiffe://ORG/agent/UUID", ids[0])
	}
	return m[1], nil
}

// Loopback reports whether host, without a port, can only be this machine. A
// connection that leaves the machine needs its server verified.
func Loopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// A FileError says what is wrong with a file, and what to do about it.
type FileError struct {
	What    string // what the file is for: "client certificate"
	File    string
	Problem string // follows the file's name: "expired 2026-01-02"
	Remedy  string
	Err     error // may be nil
}

func (e *FileError) Error() string {
	return e.What + " " + e.File + " " + e.Problem + ": " + e.Remedy
}

func (e *FileError) Unwrap() error { return e.Err }

// ErrName says that a server cannot be called by a text.
var ErrName = errors.New("is no DNS name and no IP address")

// parseName tells a DNS name from an IP address, for a server's certificate.
func parseName(s string) (dns string, ip net.IP, err error) {
	if ip := net.ParseIP(strings.Trim(s, "[]")); ip != nil {
		return "", ip, nil
	}
	if !dnsName.MatchString(s) || len(s) > 253 {
		return "", nil, fmt.Errorf("%q %w", s, ErrName)
	}
	return strings.ToLower(s), nil, nil
}

// dnsName is a name of labels, the first of which may be a wildcard (RFC 5890,
// section 2.3.1, and what people use inside: underscores).
var dnsName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)
