package e2e

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/test/rig"
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
	b := bare(t)
	e := &enrolment{rotation: &rotation{bench: b, serverStatus: rig.FreeAddress(t)}, welcome: rig.FreeAddress(t)}
	b.Found()
	b.Write("server.toml", rig.IssuingConfig(b.address, e.welcome)+fmt.Sprintf("life_ms = %d\n", life.Milliseconds())+e.statusConfig())
	b.Write("agent.toml", b.agentConfig()+rig.AgentTLS("identity/ca.crt", "identity/agent.pem", "identity/agent.pem")+"renew = true\n"+fast)
	return e
}

func (e *enrolment) token(name string) string {
	e.T.Helper()
	return strings.TrimSpace(e.Must("rea-server", "enroll", "token", "--config", "server.toml", "--name", name))
}

func (e *enrolment) enrol(token, dir string) (stderr string, code int) {
	e.T.Helper()
	_, stderr, code = e.Run("rea-agent", "enroll", "--server", "https://"+e.welcome, "--token", token, "--dir", dir)
	return stderr, code
}

// certificate reads the first certificate of a file.
func (e *enrolment) certificate(name string) *x509.Certificate {
	e.T.Helper()
	text, err := os.ReadFile(e.Path(name))
	if err != nil {
		e.T.Fatal(err)
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			e.T.Fatalf("%s holds no certificate", name)
		}
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				e.T.Fatal(err)
			}
			return c
		}
	}
}

// said returns when a process first logged a message about an agent after a time.
func said(p *rig.Process, node string, after time.Time, messages ...string) (at time.Time, ok bool) {
	lines := bufio.NewScanner(strings.NewReader(p.Said()))
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
	e.Until("machines can enrol", func() bool { return rig.Answers(e.welcome) })

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
	e.Until("the certificate is renewed", func() bool {
		n, _ := strconv.Atoi(figure(e.status, `rea_tls_renewals_total{result="success"}`))
		return n >= 1
	})
	e.Until("the first certificate is over", func() bool { return time.Now().After(first.NotAfter.Add(time.Second)) })
	e.sent(3)
	if now := e.certificate("identity/agent.pem"); now.SerialNumber.Cmp(first.SerialNumber) == 0 || string(now.RawSubjectPublicKeyInfo) == string(first.RawSubjectPublicKeyInfo) {
		t.Error("the certificate or its key is still the first one")
	}
	for _, line := range []string{"not delivered", "not taken", "lost"} {
		if strings.Contains(e.agent.Said(), line) {
			t.Errorf("the agent says %q:\n%s", line, e.agent.Said())
		}
	}

	e.Must("rea-server", "pki", "revoke", enrolledNode, "--reason", "laptop stolen")
	revoked := time.Now()
	var cut time.Time
	e.Until("the agent is cut off", func() (ok bool) {
		cut, ok = said(e.server, enrolledNode, revoked.Add(-10*time.Second), "connection closed", "request refused")
		return ok
	})
	if d := cut.Sub(revoked); d > 5*time.Second {
		t.Errorf("cut off after %v, want 5s at most", d)
	}
	e.Until("the agent knows why", func() bool { return strings.Contains(rig.Page(e.status, "/healthz"), "laptop stolen") })
	kept := len(e.stored())
	queued := func() int { n, _ := strconv.Atoi(figure(e.status, `rea_queue_events{lane="metrics"}`)); return n }
	before := queued()
	e.Until("what it collects stays in its queue", func() bool { return queued() > before+20 })
	if n := len(e.stored()); n != kept {
		t.Errorf("%d events got in after it was revoked", n-kept)
	}
	if stderr, code := e.enrol(e.token(enrolledNode), "again"); code != 77 {
		t.Errorf("a token for who is revoked: exit %d: %s", code, stderr)
	}

	e.agent.Stop(0)
	events := e.stored()
	e.server.Stop(0)
	checkBooks(t, together(events, e.exported()))
	t.Logf("cut off %v after it was revoked; %d events stored", cut.Sub(revoked).Round(time.Millisecond), len(events))
}

// exported returns what is in the queue of the agent.
func (e *enrolment) exported() []envelope {
	e.T.Helper()
	return rig.Each[envelope](e.T, e.Must("rea-agent", "queue", "export", "--config", "agent.toml"))
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
	e.Until("machines can enrol", func() bool { return rig.Answers(e.welcome) })
	began := time.Now()
	if stderr, code := e.enrol(e.token("lab-7"), "unharmed"); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	whole, killed := time.Since(began), 0
	for i := range 25 {
		token, dir := e.token("lab-7"), fmt.Sprint("machine", i)
		p := e.Start("rea-agent", "enroll", "--server", "https://"+e.welcome, "--token", token, "--dir", dir)
		time.Sleep(whole * time.Duration(i) / 25)
		p.Kill()
		if !p.ProcessState.Success() {
			killed++
		}
		if _, err := os.Stat(e.Path(filepath.Join(dir, "agent.pem"))); err != nil {
			if stderr, code := e.enrol(token, dir); code != 0 {
				t.Fatalf("killed after %d/25 of %v, then exit %d: %s", i, whole, code, stderr)
			}
		}
		e.certificate(filepath.Join(dir, "agent.pem"))
		e.certificate(filepath.Join(dir, "ca.crt"))
	}
	t.Logf("%d of 25 were killed on the way", killed)
	e.server.Stop(0)
}

// The commands of the page, with a server that runs from the second block on.
func TestTheCommandsOfThePageAboutEnrolmentWork(t *testing.T) {
	b := bare(t)
	welcome := rig.FreeAddress(t)
	for _, dir := range []string{"etc", "var"} {
		if err := os.Mkdir(b.Path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("../../docs/certificates.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```bash\n")[1:]
	var server *rig.Process
	for i, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		cmd := exec.Command("sh", "-eux", "-c", code)
		cmd.Dir = b.Dir
		cmd.Env = append(os.Environ(), "ETC="+b.Path("etc"), "VAR="+b.Path("var"), "SERVER=https://"+welcome, "PATH="+bin+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("block %d: %v\n%s", i+1, err, out)
		}
		if server == nil {
			server = b.Start("rea-server", "--config", "etc/server.toml", "--server.listen", b.address, "--enroll.listen", welcome)
			b.Until("machines can enrol", func() bool { return rig.Answers(welcome) })
		}
	}
	if len(blocks) != 3 {
		t.Errorf("the page has %d blocks, want 3", len(blocks))
	}
	agent := b.Start("rea-agent", "--config", "etc/agent.toml", "--networking.endpoint", "https://"+b.address, "--logging.mode", "none")
	b.Write("server.toml", "[server]\ndata_dir = \"var/data\"\n")
	b.Until("the agent delivers", func() bool { return len(b.stored()) > 0 })
	agent.Stop(0)
	server.Stop(0)
}
