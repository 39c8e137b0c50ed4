// Package e2e drives the built binaries as an operator would: real processes,
// real certificates, real kills.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/rea-agent/rea/test/rig"
)

var bin string // the folder of the binaries under test

func TestMain(m *testing.M) {
	if runtime.GOOS == "windows" {
		fmt.Println("SKIP  test/e2e: its programs are built, stopped and killed as on Unix; test/windows has a life of its own")
		os.Exit(0)
	}
	os.Exit(rig.Main(m, func(dir string) []*exec.Cmd {
		bin = dir
		return []*exec.Cmd{rig.Build(dir, "rea-agent", "rea-server")}
	}))
}

// A bench is a folder with certificates and configurations for a server and an
// agent that fit together.
type bench struct {
	rig.Folder
	address string // of the server
	status  string // of the agent's status page
}

// bare returns a bench without certificates and configurations.
func bare(t *testing.T) *bench {
	t.Helper()
	return &bench{rig.Folder{T: t, Bin: bin, Dir: t.TempDir()}, rig.FreeAddress(t), rig.FreeAddress(t)}
}

func newBench(t *testing.T, agent string) *bench {
	t.Helper()
	b := bare(t)
	b.Certify("certs")
	b.Write("server.toml", rig.ServerConfig(b.address, "data", "certs"))
	b.Write("agent.toml", b.agentConfig()+rig.AgentTLS("certs/ca.crt", "certs/agent.crt", "certs/agent.key")+agent)
	return b
}

func (b *bench) agentConfig() string {
	return rig.AgentConfig(b.status, b.address, "queue") + `queue_max_bytes = "16MiB"
backoff_ms = "20..200"
`
}

// fast reads every collector five times a second.
const fast = `
[agent]
batch_interval_ms = 100
[collectors.cpu]
interval_ms = 200
[collectors.memory]
interval_ms = 200
[collectors.disk]
interval_ms = 200
[collectors.network]
interval_ms = 200
[collectors.process]
interval_ms = 200
[collectors.host]
interval_ms = 200
`

func (b *bench) server() *rig.Process {
	b.T.Helper()
	p := b.Start("rea-server", "--config", "server.toml")
	b.Until("the server listens", func() bool { return rig.Answers(b.address) })
	return p
}

func (b *bench) agent(args ...string) *rig.Process {
	b.T.Helper()
	return b.Start("rea-agent", append([]string{"--config", "agent.toml"}, args...)...)
}

// An envelope is what every event has.
type envelope struct {
	Time, Node, Hostname, Stream, Kind string

	Seq   uint64
	Agent struct{ Action string }
	Gap   struct {
		Stream, Cause      string
		First, Last, Count uint64
	}
}

// stored returns what the server keeps.
func (b *bench) stored() []envelope {
	b.T.Helper()
	return rig.Each[envelope](b.T, b.Events())
}

// checkBooks does the arithmetic of the promise: in every stream each number
// from 1 to the highest is there once, or declared missing in a gap.
func checkBooks(t *testing.T, events []envelope) {
	t.Helper()
	type number struct {
		stream string
		seq    uint64
	}
	times, declared, highest := map[number]int{}, map[number]bool{}, map[string]uint64{}
	for _, e := range events {
		times[number{e.Stream, e.Seq}]++
		highest[e.Stream] = max(highest[e.Stream], e.Seq)
		for seq := e.Gap.First; e.Gap.First > 0 && seq <= e.Gap.Last; seq++ {
			declared[number{e.Gap.Stream, seq}] = true
			highest[e.Gap.Stream] = max(highest[e.Gap.Stream], seq)
		}
	}
	for stream, top := range highest {
		for seq := uint64(1); seq <= top; seq++ {
			n := number{stream, seq}
			switch {
			case times[n] > 1:
				t.Errorf("event %s %d is stored %d times", stream, seq, times[n])
			case times[n] == 0 && !declared[n]:
				t.Errorf("event %s %d is missing and nobody says so", stream, seq)
			}
		}
	}
}
