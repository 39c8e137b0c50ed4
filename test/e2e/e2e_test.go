package e2e

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	b.until("three of every kind are stored", func() bool {
		n := kinds()
		return n["agent"] > 0 && min(n["cpu"], n["memory"], n["disk"], n["network"], n["process"], n["host"]) >= 3
	}, agent, server)
	for path, want := range map[string]string{
		"/healthz": `"status":"ok"`,
		"/metrics": `rea_batches_sent_total{lane="metrics"}`,
	} {
		if page := b.get(path); !strings.Contains(strings.ReplaceAll(page, `": "`, `":"`), want) {
			t.Errorf("%s lacks %s:\n%s", path, want, page)
		}
	}
	var hosts []map[string]any
	for line := range strings.Lines(b.must("rea-server", "hosts", "--config", "server.toml", "--json")) {
		var h map[string]any
		if err := json.Unmarshal([]byte(line), &h); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		hosts = append(hosts, h)
	}
	if name, _ := os.Hostname(); len(hosts) != 1 || hosts[0]["hostname"] != name {
		t.Errorf("hosts are %v, want one named %s", hosts, name)
	}
	agent.stop(0)
	agent = b.agent() // delivers what the last one said when it stopped
	b.until("the first agent's last event is stored", func() bool { return kinds()["agent"] >= 3 }, agent, server)
	agent.stop(0)
	server.stop(0)
	checkBooks(t, b.stored())
}

func (b *bench) get(path string) string {
	b.t.Helper()
	resp, err := http.Get("http://" + b.status + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(page)
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
			agent.kill()
			agent = b.agent()
		} else {
			server.kill()
			server = b.server()
		}
	}
	b.until("the queue is empty", func() bool {
		return answers(b.status) && strings.Contains(b.get("/metrics"), "\nrea_queue_events{lane=\"evidence\"} 0\n")
	}, agent, server)
	agent.stop(0)
	server.stop(0)
	events := b.stored()
	if len(events) < 30 {
		t.Errorf("only %d events are stored", len(events))
	}
	checkBooks(t, events)
}

func TestAnAgentWithoutServerKeepsAndDeliversLater(t *testing.T) {
	b := newBench(t, fast)
	agent := b.agent()
	b.until("the agent says that the server is away", func() bool { return strings.Contains(agent.stderr.String(), "connection refused") }, agent)
	time.Sleep(time.Second)
	if n := strings.Count(agent.stderr.String(), "connection refused"); n != 2 { // once a lane
		t.Errorf("a server that is away was said %d times:\n%s", n, agent.stderr)
	}
	server := b.server()
	b.until("what was kept is delivered", func() bool { return len(b.stored()) > 20 }, agent, server)
	agent.stop(0)
	server.stop(0)
	checkBooks(t, b.stored())
}

func TestAFullDiskCostsEventsAndSaysSo(t *testing.T) {
	b := newBench(t, fast)
	server := b.server()
	agent := b.agent("--networking.queue-min-free-bytes", "1TiB") // more than there is
	b.until("the agent says that the disk is full", func() bool { return strings.Contains(agent.stderr.String(), "disk_full") }, agent)
	b.until("the metrics say so", func() bool {
		return answers(b.status) && strings.Contains(b.get("/metrics"), `rea_events_dropped_total{reason="disk_full",stage="keep"}`)
	}, agent)
	if n := strings.Count(agent.stderr.String(), "events are lost"); n > 4 {
		t.Errorf("said %d times:\n%s", n, agent.stderr)
	}
	agent.stop(0)
	agent = b.agent() // there is room again
	b.until("events are delivered", func() bool { return len(b.stored()) > 20 }, agent, server)
	agent.stop(0)
	server.stop(0)
	checkBooks(t, b.stored())
}

func TestAWrongCertificateAuthorityIsExplained(t *testing.T) {
	b := newBench(t, fast)
	b.must("rea-server", "certs", "--dns", "127.0.0.1", "--dir", b.path("others"))
	server := b.server()
	for flag, want := range map[string]string{
		"--tls.ca-file=others/ca.crt":                                          "not trusted here: name its CA certificate in [tls] ca_file",
		"--tls.client-cert=others/agent.crt --tls.client-key=others/agent.key": "the server does not trust this agent's certificate",
		"--tls.client-cert= --tls.client-key=":                                 "the server wants a client certificate",
	} {
		agent := b.agent(strings.Fields(flag)...)
		b.until(flag+" is explained", func() bool { return strings.Contains(agent.stderr.String(), want) }, agent, server)
		agent.stop(0)
	}
	if n := len(b.stored()); n != 0 {
		t.Errorf("%d events of strangers are stored", n)
	}
}

func TestAReaderOfStdoutThatGoesAwayEndsTheAgent(t *testing.T) {
	b := newBench(t, "")
	cmd := exec.Command("sh", "-c", filepath.Join(bin, "rea-agent")+` --collectors.cpu.interval-ms 100 2>err; echo $? >code`)
	cmd.Dir = b.dir
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
	code, _ := os.ReadFile(b.path("code"))
	said, _ := os.ReadFile(b.path("err"))
	if string(code) != "74\n" || !strings.Contains(string(said), "the reader of standard output has gone") {
		t.Errorf("exit code %s\n%s", code, said)
	}
}

func TestTwoAgentsCannotShareAQueue(t *testing.T) {
	b := newBench(t, fast)
	agent := b.agent()
	b.until("the first agent runs", func() bool { return answers(b.status) }, agent)
	_, stderr, code := b.run("rea-agent", "--config", "agent.toml", "--status.enabled=false")
	if code != 69 || !strings.Contains(stderr, "queue") {
		t.Errorf("exit %d:\n%s", code, stderr)
	}
	agent.stop(0)
}

func TestHealthFailsWhileEventsAreLost(t *testing.T) {
	b := newBench(t, "")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("SKIP a full standard output: %v", err)
	}
	defer full.Close()
	agent := b.command("rea-agent", "--config", "agent.toml", "--networking.enabled=false", "--logging.mode", "stdout")
	agent.Stdout = full
	agent.begin()
	b.until("/healthz fails", func() bool {
		if !answers(b.status) {
			return false
		}
		resp, err := http.Get("http://" + b.status + "/healthz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable
	}, agent)
	if page := b.get("/healthz"); !strings.Contains(page, "no space left on device") {
		t.Errorf("/healthz does not say why:\n%s", page)
	}
	agent.stop(0)
}

func TestTwoServersCannotShareAFolder(t *testing.T) {
	b := newBench(t, "")
	b.server()
	_, stderr, code := b.run("rea-server", "--config", "server.toml", "--server.listen", "127.0.0.1:0")
	if code != 69 || !strings.Contains(stderr, "in use by another rea-server") {
		t.Errorf("exit %d:\n%s", code, stderr)
	}
}

func TestReadersMayComeBeforeTheServerIsReady(t *testing.T) {
	b := newBench(t, "")
	for range 10 {
		server := b.start("rea-server", "--config", "server.toml")
		b.until("the database is there", func() bool { _, err := os.Stat(b.path("data/events.db")); return err == nil }, server)
		b.must("rea-server", "hosts", "--config", "server.toml", "--json")
		server.kill()
		if err := os.RemoveAll(b.path("data")); err != nil {
			t.Fatal(err)
		}
	}
}
