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
	"strings"
)

// agentOf returns the UUID of the agent that a URI names. The trust domain follows
// https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/ (section 2.1).
func agentOf(uri string) (uuid string, ok bool) {
	rest, ok := strings.CutPrefix(uri, "spiffe://")
	if !ok {
		return "", false
	}
	org, uuid, ok := strings.Cut(rest, "/agent/")
	return uuid, ok && isOrganisation(org) && isUUID(uuid)
}

// isOrganisation reports whether s can be the trust domain in the names of agents.
func isOrganisation(s string) bool {
	return s != "" && len(s) <= 255 && only(s, func(c byte) bool {
		return lower(c) || digit(c) || c == '.' || c == '_' || c == '-'
	})
}

// isUUID reports whether s is one in lower case (RFC 9562, section 4).
func isUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	return only(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:], func(c byte) bool { return digit(c) || 'a' <= c && c <= 'f' })
}

// only reports whether s is made of nothing else. Names are checked by hand: what
// a regular expression of them keeps would be a third of an agent's heap.
func only(s string, of func(c byte) bool) bool {
	for i := range len(s) {
		if !of(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) bool { return 'a' <= c && c <= 'z' }
func digit(c byte) bool { return '0' <= c && c <= '9' }

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
	uuid, ok := agentOf(ids[0].String())
	if !ok {
		return "", fmt.Errorf("the certificate names no agent: %q is not spiffe://ORG/agent/UUID", ids[0])
	}
	return uuid, nil
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
	if !isDNSName(s) {
		return "", nil, fmt.Errorf("%q %w", s, ErrName)
	}
	return strings.ToLower(s), nil, nil
}

// isDNSName reports whether s is a name of labels, the first of which may be a
// wildcard (RFC 5890, section 2.3.1, and what people use inside: underscores).
func isDNSName(s string) bool {
	for label := range strings.SplitSeq(strings.TrimPrefix(s, "*."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || !only(label, inLabel) {
			return false
		}
	}
	return len(s) <= 253
}

func inLabel(c byte) bool { return lower(c|0x20) || digit(c) || c == '-' || c == '_' }
