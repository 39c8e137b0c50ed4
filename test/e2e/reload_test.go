package e2e

import (
	"fmt"
	"math/rand/v2"
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
