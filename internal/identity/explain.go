package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"time"
)

// Explain says in a sentence what an error of a connection means where it is
// about TLS or certificates, and what to do. It returns "" for any other error.
func Explain(err error) string {
	var (
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		record  tls.RecordHeaderError
		remote  *net.OpError
	)
	switch {
	case err == nil:
	case errors.Is(err, ErrPin):
		return "the server has no pinned key: either it is not your server, or its key was changed and spki_pins was not"
	case errors.As(err, &unknown):
		return "the server's certificate is from an authority that is not trusted here: name its CA certificate in [tls] ca_file"
	case errors.As(err, &name):
		return "the server's certificate is for another name (" + strings.TrimPrefix(name.Error(), "x509: ") + "): use a name that it has, or issue one for this name"
	case errors.As(err, &invalid):
		return explainInvalid(invalid)
	case errors.As(err, &record):
		return "the server does not speak TLS on this port: check the address"
	case errors.As(err, &remote) && remote.Op == "remote error":
		return explainAlert(remote.Err.Error())
	}
	return ""
}

func explainInvalid(e x509.CertificateInvalidError) string {
	switch e.Reason {
	case x509.Expired:
		if e.Cert != nil && time.Now().Before(e.Cert.NotBefore) {
			return "the server's certificate is not valid before " + e.Cert.NotBefore.UTC().Format(time.RFC3339) + ": check the clocks"
		}
		return "the server's certificate, or its authority's, has expired: issue a new one, or check the clock of this machine"
	case x509.IncompatibleUsage:
		return "the server's certificate is not made for a server: issue one with the extended key usage serverAuth"
	}
	return "the server's certificate is not valid: " + e.Error()
}

// explainAlert explains what the other side sent before it hung up, by the
// texts of crypto/tls for the alerts of RFC 8446, section 6.2.
func explainAlert(alert string) string {
	switch strings.TrimPrefix(alert, "tls: ") {
	case "certificate required":
		return "the server wants a client certificate: set client_cert and client_key in [tls]"
	case "unknown certificate authority", "unknown certificate":
		return "the server does not trust this agent's certificate: it must come from the CA in the server's client_ca_file"
	case "bad certificate", "unsupported certificate":
		return "the server refuses this agent's certificate: it must come from the CA in the server's client_ca_file, be valid now, and have the extended key usage clientAuth"
	case "expired certificate":
		return "the server says that this agent's certificate has expired: issue a new one, or check the clocks"
	case "revoked certificate":
		return "the server says that this agent's certificate was revoked: enrol the agent again"
	case "access denied":
		return "the server does not let this agent in"
	case "protocol version not supported":
		return "the server does not speak TLS 1.3"
	case "no application protocol":
		return "the server does not speak HTTP/1.1"
	}
	return "the server ended the TLS handshake: " + alert
}
