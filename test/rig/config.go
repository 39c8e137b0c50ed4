package rig

import (
	"fmt"
	"net"
	"path/filepath"
)

// Certify makes certificates for a server on this machine and an agent, and the
// authority of both, in a folder for them.
func (f Folder) Certify(certs string) {
	f.T.Helper()
	f.Must("rea-server", "certs", "--dns", "127.0.0.1", "--dir", f.Path(certs))
}

// Found founds an authority that issues certificates, and gives the server its own.
func (f Folder) Found() {
	f.T.Helper()
	f.Must("rea-server", "pki", "init", "--org", "example.org")
	f.Must("rea-server", "pki", "issue", "server", "--dns", "127.0.0.1")
}

// ServerConfig configures a server that listens there, keeps what it gets in the
// folder data, and has what Certify made. More tables may follow it.
func ServerConfig(listen, data, certs string) string {
	return fmt.Sprintf(`
[server]
listen = %q
data_dir = %q
[tls]
cert_file = %q
key_file = %q
client_ca_file = %q
`, listen, data, filepath.Join(certs, "server.crt"), filepath.Join(certs, "server.key"), filepath.Join(certs, "ca.crt"))
}

// IssuingConfig configures a server at which machines can enrol, with what Found
// made. It ends in the table enroll.
func IssuingConfig(listen, enroll string) string {
	return fmt.Sprintf(`
[server]
listen = %q
data_dir = "data"
[tls]
cert_file = "server/server.crt"
key_file = "server/server.key"
client_ca_file = "pki/ca.crt"
denylist_file = "pki/revoked.jsonl"
[enroll]
listen = %q
pki_dir = "pki"
`, listen, enroll)
}

// AgentConfig configures an agent that shows how it is at the address status, and
// delivers to an endpoint, again and again. It ends in the table networking.
func AgentConfig(status, endpoint, queue string) string {
	_, port, _ := net.SplitHostPort(status)
	return fmt.Sprintf(`
[logging]
mode = "none"
[status]
enabled = true
port = %s
[networking]
enabled = true
endpoint = "https://%s"
queue_dir = %q
retry_budget = 10000
`, port, endpoint, queue)
}

// AgentTLS is the table of an agent's certificates.
func AgentTLS(ca, cert, key string) string {
	return fmt.Sprintf(`[tls]
ca_file = %q
client_cert = %q
client_key = %q
`, ca, cert, key)
}
