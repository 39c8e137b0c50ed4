package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// issued is a bench whose certificates are of an authority of its own.
func issued(t *testing.T, key string) (r *rotation, node string) {
	t.Helper()
	r = newRotation(t)
	r.Must("rea-server", "pki", "init", "--org", "example.org", "--key", key)
	r.Must("rea-server", "pki", "issue", "server", "--dns", "127.0.0.1", "--key", key)
	var made struct{ Node string }
	if err := json.Unmarshal([]byte(r.Must("rea-server", "pki", "issue", "agent", "--key", key, "--out", "agent", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"server/server.crt", "server/server.key", "agent/agent.crt", "agent/agent.key", "pki/ca.crt"} {
		r.copyIn(file, filepath.Base(file))
	}
	text, err := os.ReadFile(r.Path("server.toml"))
	if err != nil {
		t.Fatal(err)
	}
	r.Write("server.toml", strings.Replace(string(text), "[tls]\n", "[tls]\ndenylist_file = \"pki/revoked.jsonl\"\n", 1))
	r.server = r.bench.server()
	r.agent = r.bench.agent()
	r.Until("events are stored", func() bool { return len(r.stored()) > 10 })
	return r, made.Node
}

// copyIn exchanges a file of the folder certs.
func (r *rotation) copyIn(from, name string) {
	r.T.Helper()
	text, err := os.ReadFile(r.Path(from))
	if err != nil {
		r.T.Fatal(err)
	}
	r.replace("certs/"+name, string(text))
}

func TestAnAgentOfTheAuthorityDeliversIsRenewedAndCutOff(t *testing.T) {
	r, node := issued(t, "ecdsa")
	r.Must("rea-server", "pki", "issue", "agent", "--node", node, "--out", "renewed")
	r.copyIn("renewed/agent.key", "agent.key")
	r.copyIn("renewed/agent.crt", "agent.crt")
	r.Until("the agent uses the new certificate", func() bool { return strings.Contains(r.agent.Said(), "other certificates are in use") })
	r.sent(2)
	for _, e := range r.stored() {
		if e.Node != node {
			t.Fatalf("an event of %s is stored", e.Node)
		}
	}
	r.Must("rea-server", "pki", "revoke", node, "--reason", "laptop stolen")
	r.Until("the agent is told", func() bool {
		return strings.Contains(r.agent.Said(), "this agent was revoked (laptop stolen)")
	})
	kept := len(r.stored())
	r.Until("what it collects stays in its queue", func() bool { n, _ := strconv.Atoi(figure(r.status, `rea_queue_events{lane="metrics"}`)); return n > 1 })
	if n := len(r.stored()); n != kept {
		t.Errorf("%d events were stored after that", n-kept)
	}
	if figure(r.serverStatus, "rea_requests_denied_total") == "0" && figure(r.serverStatus, "rea_connections_evicted_total") == "0" {
		t.Error("the server's metrics do not tell of it")
	}
	r.replace("pki/revoked.jsonl", "# taken back\n")
	r.Until("the server has taken it back", func() bool { return figure(r.serverStatus, "rea_tls_denylist_entries") == "0" })
	r.agent.Stop(0)
	r.agent = r.bench.agent() // the one before asks only now and then
	r.verify()
	r.agent.Kill()
	r.server.Stop(0)
	checkBooks(t, r.stored())
}

func TestWithFIPS140EverythingWorks(t *testing.T) {
	for _, key := range []string{"ecdsa", "ed25519"} {
		t.Run(key, func(t *testing.T) {
			t.Setenv("GODEBUG", "fips140=on")
			r, _ := issued(t, key)
			if err := r.handshake(tls.X25519); err == nil {
				t.Error("the server agreed on X25519 alone, so FIPS 140 is not on")
			}
			if err := r.handshake(tls.X25519MLKEM768); err != nil {
				t.Errorf("hybrid key exchange: %v", err)
			}
			r.agent.Stop(0)
			r.agent = r.bench.agent()
			r.verify()
			r.agent.Kill()
			r.server.Stop(0)
			checkBooks(t, r.stored())
		})
	}
}

// handshake connects as an agent that knows one key exchange. This process has
// not FIPS 140 on, as that is decided when a process starts.
func (r *rotation) handshake(curve tls.CurveID) error {
	ca, err := os.ReadFile(r.Path("certs/ca.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(r.Path("certs/agent.crt"), r.Path("certs/agent.key"))
	if err != nil {
		return err
	}
	c, err := tls.Dial("tcp", r.address, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, CurvePreferences: []tls.CurveID{curve}})
	if err != nil {
		return err
	}
	defer c.Close()
	if got := c.ConnectionState().CurveID; got != curve {
		return fmt.Errorf("agreed on %v", got)
	}
	return nil
}
