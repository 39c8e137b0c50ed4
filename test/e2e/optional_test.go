package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/rea-agent/rea/test/rig"
)

// edit replaces text in a file, in one step.
func (b *bench) edit(name, old, new string) {
	b.T.Helper()
	text, err := os.ReadFile(b.Path(name))
	if err != nil {
		b.T.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		b.T.Fatalf("%s has no %q", name, old)
	}
	b.replace(name, strings.Replace(string(text), old, new, 1))
}

// A seen is what rea-server hosts shows of an agent.
type seen struct {
	Node             string
	Events, Unproven uint64
}

func (b *bench) hosts() map[string]seen {
	b.T.Helper()
	all := map[string]seen{}
	for _, h := range rig.Each[seen](b.T, b.Hosts()) {
		all[h.Node] = h
	}
	return all
}

// An agent delivers without a certificate where the operator of the server lets it,
// for all to see. When it has one nobody delivers for it without; and when the
// operator changes their mind, who has none is out at once.
func TestAnAgentWithoutACertificateDeliversWhereItMay(t *testing.T) {
	const node, other = "0190d1c0-0000-7000-8000-0000000000a1", "lab-9"
	const pair = "client_cert = \"certs/agent.crt\"\nclient_key = \"certs/agent.key\"\n"
	r := newRotation(t)
	r.Must("rea-server", "pki", "init")
	r.Must("rea-server", "pki", "issue", "agent", "--node", node, "--out", "issued")
	r.copyIn("issued/agent.crt", "agent.crt")
	r.copyIn("issued/agent.key", "agent.key")
	ca, err := os.ReadFile(r.Path("pki/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	r.Write("agents.crt", string(ca))
	r.edit("server.toml", `client_ca_file = "certs/ca.crt"`, "client_ca_file = \"agents.crt\"\nclient_auth = \"optional\"")
	r.edit("agent.toml", pair, "")
	run := func(name string) *rig.Process {
		return r.bench.agent("--agent.node-id", name, "--networking.queue-dir", "queue-"+name)
	}

	r.server = r.bench.server()
	r.agent = run(node)
	r.Until("it delivers", func() bool { return r.hosts()[node].Events > 10 })
	if h := r.hosts()[node]; h.Unproven != h.Events {
		t.Errorf("%+v, all of it came without a certificate", h)
	}
	for p, text := range map[*rig.Process]string{r.server: "CLIENT CERTIFICATES ARE NOT REQUIRED", r.agent: "this agent shows NO CERTIFICATE"} {
		if n := strings.Count(p.Said(), text); n != 1 {
			t.Errorf("%q is said %d times:\n%s", text, n, p.Said())
		}
	}
	if text := rig.Page(r.serverStatus, "/healthz"); !strings.Contains(strings.ReplaceAll(text, `": "`, `":"`), `"client_auth":"optional"`) {
		t.Errorf("/healthz does not say it:\n%s", text)
	}
	if figure(r.serverStatus, "rea_tls_client_auth_optional") != "1" || figure(r.serverStatus, "rea_batches_unproven_total") == "0" {
		t.Error("/metrics does not say it")
	}
	r.agent.Stop(0)

	before := r.hosts()[node]
	r.edit("agent.toml", "[tls]\n", "[tls]\n"+pair)
	r.agent = run(node)
	r.Until("it delivers with its certificate", func() bool { return r.hosts()[node].Events > before.Events+10 })
	r.agent.Stop(0)
	if h := r.hosts()[node]; h.Unproven != before.Unproven {
		t.Errorf("%+v, was %+v", h, before)
	}

	r.edit("agent.toml", pair, "")
	for _, queue := range []string{"queue-" + node, "elsewhere"} { // the agent itself, and somebody in its name
		r.agent = r.bench.agent("--agent.node-id", node, "--networking.queue-dir", queue)
		r.Until("it is refused without", func() bool { return strings.Contains(r.agent.Said(), "this agent has shown one before") })
		r.agent.Stop(0)
	}
	kept := r.hosts()[node].Events

	r.agent = run(other)
	r.Until("another one delivers without", func() bool { return r.hosts()[other].Events > 10 })
	r.edit("server.toml", `client_auth = "optional"`, `client_auth = "require"`)
	r.Until("it is out", func() bool { return strings.Contains(r.agent.Said(), "the server wants a client certificate") })
	if !strings.Contains(r.server.Said(), "client certificates are required again") {
		t.Errorf("the server does not say it:\n%s", r.server.Said())
	}
	left := r.hosts()
	r.edit("server.toml", `client_auth = "require"`, `client_auth = "optional"`)
	r.Until("it is in again, with what it had kept", func() bool { return r.hosts()[other].Events > left[other].Events })
	r.agent.Stop(0)
	if n := r.hosts()[node].Events; n != kept {
		t.Errorf("%d events of the agent with a certificate are kept, %d were", n, kept)
	}
	r.server.Stop(0)
	checkBooks(t, r.stored())
}
