package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rea-agent/rea/test/rig"
)

// Collectors come and go by signal while events flow, a configuration with a mistake
// is among those that the agent is told to read, and now and then it is killed over
// that: nothing is lost, and what changed is told.
func TestTheConfigurationChangesUnderLoad(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	b := newBench(t, "")
	config := func(collectors string) {
		b.replace("agent.toml", b.agentConfig()+rig.AgentTLS("certs/ca.crt", "certs/agent.crt", "certs/agent.key")+"[agent]\nbatch_interval_ms = 100\n"+collectors)
	}
	some := func() string {
		var text strings.Builder
		for _, name := range []string{"cpu", "memory", "disk", "network", "process", "host"} {
			fmt.Fprintf(&text, "[collectors.%s]\nenabled = %t\ninterval_ms = %d\n", name, r.IntN(2) == 0, 100+r.IntN(200))
		}
		return text.String()
	}
	config(some())
	server, agent := b.server(), b.agent()
	told := func(action string) (times int) {
		for _, e := range b.stored() {
			if e.Agent.Action == action {
				times++
			}
		}
		return times
	}
	b.Until("the agent has started", func() bool { return told("start") == 1 })
	for i := range 30 {
		switch {
		case i%7 == 3:
			config("[collectors.cpu]\ninterval_ms = 1\n")
		default:
			config(some())
		}
		_ = agent.Process.Signal(syscall.SIGHUP)
		time.Sleep(time.Duration(r.IntN(150)) * time.Millisecond)
		if i%10 == 9 {
			agent.Kill()
			config(some())
			agent = b.agent()
			b.Until("the agent has started again", func() bool { return told("start") == 2+i/10 })
		}
	}
	config("[collectors.cpu]\ninterval_ms = 1\n")
	_ = agent.Process.Signal(syscall.SIGHUP)
	b.Until("a mistake is told", func() bool { return told("reload_failed") > 0 })
	before := told("reload")
	config("[collectors.cpu]\ninterval_ms = 60000\n")
	_ = agent.Process.Signal(syscall.SIGHUP)
	b.Until("a change is told", func() bool { return told("reload") > before })
	agent.Stop(0)
	agent = b.agent() // delivers what the last one said when it stopped
	b.Until("the last event is stored", func() bool { return told("stop") == 1 })
	agent.Stop(0)
	server.Stop(0)
	checkBooks(t, b.stored())
}

// Who reloads for a year must not run out of descriptors, and whatever takes the
// place of the file must not keep the agent from being told, or from ending.
func TestReloadsLeaveNothingOpen(t *testing.T) {
	b := bare(t)
	_, port, _ := net.SplitHostPort(b.status)
	config := func(interval int) {
		text := "[logging]\nmode = \"file\"\nfile_path = \"events.ndjson\"\n[status]\nenabled = true\nport = " + port + "\n"
		for _, name := range []string{"cpu", "memory", "disk", "network", "host"} {
			text += fmt.Sprintf("[collectors.%s]\ninterval_ms = %d\n", name, interval)
		}
		b.replace("agent.toml", text)
	}
	config(60_000)
	agent := b.agent()
	held := func() int {
		names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", agent.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	when := func() string { return figure(b.status, "rea_config_reload_timestamp_seconds") }
	reload := func() {
		b.T.Helper()
		before := when()
		_ = agent.Process.Signal(syscall.SIGHUP)
		b.Until("the configuration is read again", func() bool { return when() != before })
	}
	b.Until("the agent has started", func() bool { return when() != "" })
	reload()
	before := held()
	for i := range 60 { // of which each would leave more than a dozen
		config(60_001 + i)
		reload()
	}
	b.Until("what the sources before had open is closed", func() bool { return held() < before+100 })

	pipe := exec.Command("mkfifo", "-m", "600", b.Path("pipe")) // package syscall has it on some systems only
	if err := errors.Join(pipe.Run(), os.Rename(b.Path("pipe"), b.Path("agent.toml"))); err != nil {
		t.Fatal(err)
	}
	reload()
	if page := rig.Page(b.status, "/healthz"); !strings.Contains(page, "this is no file that can be read again") {
		t.Errorf("a pipe is taken: %s", page)
	}
	config(60_000)
	reload()
	if got := figure(b.status, "rea_config_reload_success"); got != "1" {
		t.Errorf("rea_config_reload_success is %s", got)
	}
	agent.Stop(0)
}
