package e2e

import (
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/test/rig"
)

func TestEventsOfThisMachineReachTheServerOnce(t *testing.T) {
	b := newBench(t, fast)
	server, agent := b.server(), b.agent()
	kinds := func() map[string]int {
		n := map[string]int{}
		for _, e := range b.stored() {
			n[e.Kind]++
		}
		return n
	}
	b.Until("three of every kind are stored", func() bool {
		n := kinds()
		return n["agent"] > 0 && min(n["cpu"], n["memory"], n["disk"], n["network"], n["process"], n["host"]) >= 3
	})
	for path, want := range map[string]string{
		"/healthz": `"status":"ok"`,
		"/metrics": `rea_batches_sent_total{lane="metrics"}`,
	} {
		if page := rig.Page(b.status, path); !strings.Contains(strings.ReplaceAll(page, `": "`, `":"`), want) {
			t.Errorf("%s lacks %s:\n%s", path, want, page)
		}
	}
	hosts := rig.Each[map[string]any](t, b.Hosts())
	if name, _ := os.Hostname(); len(hosts) != 1 || hosts[0]["hostname"] != name {
		t.Errorf("hosts are %v, want one named %s", hosts, name)
	}
	agent.Stop(0)
	agent = b.agent() // delivers what the last one said when it stopped
	b.Until("the first agent's last event is stored", func() bool { return kinds()["agent"] >= 3 })
	agent.Stop(0)
	server.Stop(0)
	checkBooks(t, b.stored())
}

func TestKillsOfAgentAndServerLoseAndRepeatNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	b := newBench(t, fast)
	server, agent := b.server(), b.agent()
	for range 20 {
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
		if r.IntN(2) == 0 {
			agent.Kill()
			agent = b.agent()
		} else {
			server.Kill()
			server = b.server()
		}
	}
	b.Until("the queue is empty", func() bool {
		return strings.Contains(rig.Page(b.status, "/metrics"), "\nrea_queue_events{lane=\"evidence\"} 0\n")
	})
	agent.Stop(0)
	server.Stop(0)
	events := b.stored()
	if len(events) < 30 {
		t.Errorf("only %d events are stored", len(events))
	}
	checkBooks(t, events)
}

func TestAnAgentWithoutServerKeepsAndDeliversLater(t *testing.T) {
	b := newBench(t, fast)
	agent := b.agent()
	b.Until("the agent says that the server is away", func() bool { return strings.Contains(agent.Said(), "connection refused") })
	time.Sleep(time.Second)
	if n := strings.Count(agent.Said(), "connection refused"); n != 2 { // once a lane
		t.Errorf("a server that is away was said %d times:\n%s", n, agent.Said())
	}
	server := b.server()
	b.Until("what was kept is delivered", func() bool { return len(b.stored()) > 20 })
	agent.Stop(0)
	server.Stop(0)
	checkBooks(t, b.stored())
}

func TestAFullDiskCostsEventsAndSaysSo(t *testing.T) {
	b := newBench(t, fast)
	server := b.server()
	agent := b.agent("--networking.queue-min-free-bytes", "1TiB") // more than there is
	b.Until("the agent says that the disk is full", func() bool { return strings.Contains(agent.Said(), "disk_full") })
	b.Until("the metrics say so", func() bool {
		return strings.Contains(rig.Page(b.status, "/metrics"), `rea_events_dropped_total{reason="disk_full",stage="keep"}`)
	})
	if n := strings.Count(agent.Said(), "events are lost"); n > 4 {
		t.Errorf("said %d times:\n%s", n, agent.Said())
	}
	agent.Stop(0)
	agent = b.agent() // there is room again
	b.Until("events are delivered", func() bool { return len(b.stored()) > 20 })
	agent.Stop(0)
	server.Stop(0)
	checkBooks(t, b.stored())
}

func TestAWrongCertificateAuthorityIsExplained(t *testing.T) {
	b := newBench(t, fast)
	b.Certify("others")
	b.server()
	for flag, want := range map[string]string{
		"--tls.ca-file=others/ca.crt":                                          "not trusted here: name its CA certificate in [tls] ca_file",
		"--tls.client-cert=others/agent.crt --tls.client-key=others/agent.key": "the server does not trust this agent's certificate",
		"--tls.client-cert= --tls.client-key=":                                 "the server wants a client certificate",
	} {
		agent := b.agent(strings.Fields(flag)...)
		b.Until(flag+" is explained", func() bool { return strings.Contains(agent.Said(), want) })
		agent.Stop(0)
	}
	if n := len(b.stored()); n != 0 {
		t.Errorf("%d events of strangers are stored", n)
	}
}

func TestAReaderOfStdoutThatGoesAwayEndsTheAgent(t *testing.T) {
	b := newBench(t, "")
	cmd := exec.Command("sh", "-c", filepath.Join(bin, "rea-agent")+` --collectors.cpu.interval-ms 100 2>err; echo $? >code`)
	cmd.Dir = b.Dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	out.Close()
	_ = cmd.Wait()
	code, _ := os.ReadFile(b.Path("code"))
	said, _ := os.ReadFile(b.Path("err"))
	if string(code) != "74\n" || !strings.Contains(string(said), "the reader of standard output has gone") {
		t.Errorf("exit code %s\n%s", code, said)
	}
}

func TestTwoAgentsCannotShareAQueue(t *testing.T) {
	b := newBench(t, fast)
	agent := b.agent()
	b.Until("the first agent runs", func() bool { return rig.Answers(b.status) })
	_, stderr, code := b.Run("rea-agent", "--config", "agent.toml", "--status.enabled=false")
	if code != 69 || !strings.Contains(stderr, "queue") {
		t.Errorf("exit %d:\n%s", code, stderr)
	}
	agent.Stop(0)
}

func TestHealthFailsWhileEventsAreLost(t *testing.T) {
	b := newBench(t, "")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("SKIP a full standard output: %v", err)
	}
	defer full.Close()
	cmd := b.Command("rea-agent", "--config", "agent.toml", "--networking.enabled=false", "--logging.mode", "stdout")
	cmd.Stdout = full
	agent := rig.Start(t, cmd)
	b.Until("/healthz fails", func() bool {
		if !rig.Answers(b.status) {
			return false
		}
		resp, err := http.Get("http://" + b.status + "/healthz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	if page := rig.Page(b.status, "/healthz"); !strings.Contains(page, "no space left on device") {
		t.Errorf("/healthz does not say why:\n%s", page)
	}
	agent.Stop(0)
}

func TestTwoServersCannotShareAFolder(t *testing.T) {
	b := newBench(t, "")
	b.server()
	_, stderr, code := b.Run("rea-server", "--config", "server.toml", "--server.listen", "127.0.0.1:0")
	if code != 69 || !strings.Contains(stderr, "in use by another rea-server") {
		t.Errorf("exit %d:\n%s", code, stderr)
	}
}

func TestReadersMayComeBeforeTheServerIsReady(t *testing.T) {
	b := newBench(t, "")
	for range 10 {
		server := b.Start("rea-server", "--config", "server.toml")
		b.Until("the database is there", func() bool { _, err := os.Stat(b.Path("data/events.db")); return err == nil })
		b.Hosts()
		server.Kill()
		if err := os.RemoveAll(b.Path("data")); err != nil {
			t.Fatal(err)
		}
	}
}
