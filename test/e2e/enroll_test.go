package e2e

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// enrolledNode is the agent that the token is bound to.
const enrolledNode = "0190d1c0-0000-7000-8000-0000000000ee"

// An enrolment is a bench without certificates: an authority, and a server at
// which a machine can become an agent.
type enrolment struct {
	*rotation
	welcome string // where machines enrol
}

func newEnrolment(t *testing.T, life time.Duration) *enrolment {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), address: freeAddress(t), status: freeAddress(t)}
	e := &enrolment{rotation: &rotation{bench: b, serverStatus: freeAddress(t)}, welcome: freeAddress(t)}
	_, serverPort, _ := net.SplitHostPort(e.serverStatus)
	_, agentPort, _ := net.SplitHostPort(e.status)
	b.must("rea-server", "pki", "init", "--org", "example.org")
	b.must("rea-server", "pki", "issue", "server", "--dns", "127.0.0.1")
	b.write("server.toml", fmt.Sprintf(`
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
life_ms = %d
[status]
enabled = true
port = %s
`, e.address, e.welcome, life.Milliseconds(), serverPort))
	b.write("agent.toml", fmt.Sprintf(`
[logging]
mode = "none"
[status]
enabled = true
port = %s
[networking]
enabled = true
endpoint = "https://%s"
queue_dir = "queue"
queue_max_bytes = "16MiB"
backoff_ms = "20..200"
retry_budget = 10000
[tls]
ca_file = "identity/ca.crt"
client_cert = "identity/agent.pem"
client_key = "identity/agent.pem"
renew = true
`, agentPort, e.address)+fast)
	return e
}

func (e *enrolment) token(name string) string {
	e.t.Helper()
	return strings.TrimSpace(e.must("rea-server", "enroll", "token", "--config", "server.toml", "--name", name))
}

func (e *enrolment) enrol(token, dir string) (stderr string, code int) {
	e.t.Helper()
	_, stderr, code = e.run("rea-agent", "enroll", "--server", "https://"+e.welcome, "--token", token, "--dir", dir)
	return stderr, code
}

// certificate reads the first certificate of a file.
func (e *enrolment) certificate(name string) *x509.Certificate {
	e.t.Helper()
	text, err := os.ReadFile(e.path(name))
	if err != nil {
		e.t.Fatal(err)
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			e.t.Fatalf("%s holds no certificate", name)
		}
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				e.t.Fatal(err)
			}
			return c
		}
	}
}

// said returns when a process first logged a message about an agent after a time.
func said(p *process, node string, after time.Time, messages ...string) (at time.Time, ok bool) {
	lines := bufio.NewScanner(strings.NewReader(p.stderr.String()))
	for lines.Scan() {
		var l struct {
			Time             time.Time
			Msg, Certificate string
		}
		if json.Unmarshal(lines.Bytes(), &l) != nil || l.Certificate != node || l.Time.Before(after) {
			continue
		}
		for _, m := range messages {
			if strings.HasPrefix(l.Msg, m) {
				return l.Time, true
			}
		}
	}
	return at, false
}

// The whole life of an agent, with both programs: a token, a certificate, events,
// another certificate before the first one ends, and no way back in when it is
// revoked. What it collected after that is in its queue: nothing is lost.
func TestAnAgentEnrolsDeliversRenewsIsRevokedAndIsCutOff(t *testing.T) {
	const life = 30 * time.Second
	e := newEnrolment(t, life)
	e.server = e.bench.server()
	e.until("machines can enrol", func() bool { return answers(e.welcome) }, e.server)

	token := e.token(enrolledNode)
	if stderr, code := e.enrol(token, "identity"); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if stderr, code := e.enrol(token, "thief"); code != 77 || !strings.Contains(stderr, "the token is not valid") {
		t.Errorf("the token was used twice: exit %d: %s", code, stderr)
	}
	first := e.certificate("identity/agent.pem")

	e.agent = e.bench.agent()
	e.sent(2)
	e.until("the certificate is renewed", func() bool {
		n, _ := strconv.Atoi(figure(e.status, `rea_tls_renewals_total{result="success"}`))
		return n >= 1
	}, e.agent, e.server)
	e.until("the first certificate is over", func() bool { return time.Now().After(first.NotAfter.Add(time.Second)) }, e.agent)
	e.sent(3)
	if now := e.certificate("identity/agent.pem"); now.SerialNumber.Cmp(first.SerialNumber) == 0 || string(now.RawSubjectPublicKeyInfo) == string(first.RawSubjectPublicKeyInfo) {
		t.Error("the certificate or its key is still the first one")
	}
	for _, line := range []string{"not delivered", "not taken", "lost"} {
		if strings.Contains(e.agent.stderr.String(), line) {
			t.Errorf("the agent says %q:\n%s", line, e.agent.stderr)
		}
	}

	e.must("rea-server", "pki", "revoke", enrolledNode, "--reason", "laptop stolen")
	revoked := time.Now()
	var cut time.Time
	e.until("the agent is cut off", func() (ok bool) {
		cut, ok = said(e.server, enrolledNode, revoked.Add(-10*time.Second), "connection closed", "request refused")
		return ok
	}, e.server)
	if d := cut.Sub(revoked); d > 5*time.Second {
		t.Errorf("cut off after %v, want 5s at most", d)
	}
	e.until("the agent knows why", func() bool { return strings.Contains(page(e.status, "/healthz"), "laptop stolen") }, e.agent, e.server)
	kept := len(e.stored())
	queued := func() int { n, _ := strconv.Atoi(figure(e.status, `rea_queue_events{lane="metrics"}`)); return n }
	before := queued()
	e.until("what it collects stays in its queue", func() bool { return queued() > before+20 }, e.agent)
	if n := len(e.stored()); n != kept {
		t.Errorf("%d events got in after it was revoked", n-kept)
	}
	if stderr, code := e.enrol(e.token(enrolledNode), "again"); code != 77 {
		t.Errorf("a token for who is revoked: exit %d: %s", code, stderr)
	}

	e.agent.stop(0)
	events := e.stored()
	e.server.stop(0)
	checkBooks(t, together(events, e.exported()))
	t.Logf("cut off %v after it was revoked; %d events stored", cut.Sub(revoked).Round(time.Millisecond), len(events))
}

// exported returns what is in the queue of the agent.
func (e *enrolment) exported() (events []envelope) {
	e.t.Helper()
	for line := range strings.Lines(e.must("rea-agent", "queue", "export", "--config", "agent.toml")) {
		var v envelope
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			e.t.Fatalf("%v\n%s", err, line)
		}
		events = append(events, v)
	}
	return events
}

// together adds those of more that are not in events: a batch whose answer was cut
// off is stored, and in the queue as well.
func together(events, more []envelope) []envelope {
	type number struct {
		stream string
		seq    uint64
	}
	have := map[number]bool{}
	for _, v := range events {
		have[number{v.Stream, v.Seq}] = true
	}
	for _, v := range more {
		if !have[number{v.Stream, v.Seq}] {
			events = append(events, v)
		}
	}
	return events
}

// A kill at any moment of an enrolment leaves a machine that is an agent, or can
// become one with the same token.
func TestAnEnrolmentThatIsKilledCanBeRunAgain(t *testing.T) {
	e := newEnrolment(t, time.Hour)
	e.server = e.bench.server()
	e.until("machines can enrol", func() bool { return answers(e.welcome) }, e.server)
	began := time.Now()
	if stderr, code := e.enrol(e.token("lab-7"), "unharmed"); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	whole, killed := time.Since(began), 0
	for i := range 25 {
		token, dir := e.token("lab-7"), fmt.Sprint("machine", i)
		p := e.command("rea-agent", "enroll", "--server", "https://"+e.welcome, "--token", token, "--dir", dir)
		p.begin()
		time.Sleep(whole * time.Duration(i) / 25)
		p.kill()
		if !p.ProcessState.Success() {
			killed++
		}
		if _, err := os.Stat(e.path(filepath.Join(dir, "agent.pem"))); err != nil {
			if stderr, code := e.enrol(token, dir); code != 0 {
				t.Fatalf("killed after %d/25 of %v, then exit %d: %s", i, whole, code, stderr)
			}
		}
		e.certificate(filepath.Join(dir, "agent.pem"))
		e.certificate(filepath.Join(dir, "ca.crt"))
	}
	t.Logf("%d of 25 were killed on the way", killed)
	e.server.stop(0)
}

// The commands of the page, with a server that runs from the second block on.
func TestTheCommandsOfThePageAboutEnrolmentWork(t *testing.T) {
	b := &bench{t: t, dir: t.TempDir(), address: freeAddress(t), status: freeAddress(t)}
	welcome := freeAddress(t)
	for _, dir := range []string{"etc", "var"} {
		if err := os.Mkdir(b.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("../../docs/certificates.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```bash\n")[1:]
	var server *process
	for i, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		cmd := exec.Command("sh", "-eux", "-c", code)
		cmd.Dir = b.dir
		cmd.Env = append(os.Environ(), "ETC="+b.path("etc"), "VAR="+b.path("var"), "SERVER=https://"+welcome, "PATH="+bin+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("block %d: %v\n%s", i+1, err, out)
		}
		if server == nil {
			server = b.start("rea-server", "--config", "etc/server.toml", "--server.listen", b.address, "--enroll.listen", welcome)
			b.until("machines can enrol", func() bool { return answers(welcome) }, server)
		}
	}
	if len(blocks) != 3 {
		t.Errorf("the page has %d blocks, want 3", len(blocks))
	}
	agent := b.start("rea-agent", "--config", "etc/agent.toml", "--networking.endpoint", "https://"+b.address, "--logging.mode", "none")
	b.write("server.toml", "[server]\ndata_dir = \"var/data\"\n")
	b.until("the agent delivers", func() bool { return len(b.stored()) > 0 }, agent, server)
	agent.stop(0)
	server.stop(0)
}
