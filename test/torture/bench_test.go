//go:build torture && linux

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/test/rig"
)

var (
	seedFlag = flag.Uint64("torture.seed", 0, "seed of everything that is drawn; 0 draws one")
	killFlag = flag.Int("torture.kills", 500, "cycles of kill -9")
	keepFlag = flag.String("torture.keep", "", "a folder in which what was run is kept, with what it said")
	cutFlag  = flag.Int("torture.cuts", 200, "power cuts")
)

// The roles in which this program runs itself.
const roleVariable = "TORTURE_ROLE"

// bin is the folder of the server under test.
var bin string

func TestMain(m *testing.M) {
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		if err := role(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(rig.Main(m, func(dir string) []*exec.Cmd {
		bin = dir
		return []*exec.Cmd{rig.Build(dir, "rea-server")}
	}))
}

var roles = map[string]func(args []string) error{"agent": beAgent, "writer": beWriter}

// dice returns what is drawn from in a test, and prints its seed.
func dice(t *testing.T) (seed uint64, r *rand.Rand) {
	t.Helper()
	seed = *seedFlag
	if seed == 0 {
		seed = rand.Uint64() >> 1
	}
	t.Logf("-run '^%s$' -torture.seed=%d", t.Name(), seed)
	return seed, rand.New(rand.NewPCG(seed, 1))
}

// skip says that a part cannot run here; where nothing may be skipped it fails.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("TORTURE_NOSKIP") == "1" {
		t.Fatalf("%s, and nothing may be skipped", why)
	}
	note(t, row{What: t.Name(), Note: "SKIPPED: " + why})
	t.Skipf("SKIP  %s: %s", t.Name(), why)
}

// note adds a row to the table of the run.
func note(t *testing.T, r row) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s%s", rowMark, text)
}

// A bench is a folder with certificates and configurations for a server and an
// agent that fit together, and the books on what they do.
type bench struct {
	rig.Folder
	seed   uint64
	rng    *rand.Rand
	began  time.Time
	books  *books
	faults []fault

	address  string   // of the server
	endpoint string   // where the agent finds it; a proxy may stand between
	status   string   // of the agent's page
	data     string   // folder of the server
	queue    string   // folder of the agent
	cursors  string   // folder of its sources
	wrap     []string // what runs the server

	server, agent *process
	ends          int // of agents; each may replay what its sources' cursors did not know
	unsaid        int // events of which an agent said that they are lost, and that it could not declare
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{
		Folder: rig.Folder{T: t, Bin: bin, Dir: folder(t)}, began: time.Now(), books: newBooks(),
		address: rig.FreeAddress(t), status: rig.FreeAddress(t), data: "data", queue: "queue",
	}
	b.endpoint, b.cursors = b.address, b.Dir
	b.seed, b.rng = dice(t)
	b.Certify("certs")
	for _, name := range []string{"log", "gauge"} {
		b.books.source(name, b.seed)
	}
	t.Cleanup(b.end)
	return b
}

// folder returns one for what a test runs, which may be kept.
func folder(t *testing.T) string {
	t.Helper()
	if *keepFlag == "" {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(*keepFlag, strings.ReplaceAll(t.Name(), "/", "_")+"-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// end ends what still runs. Where the test failed it shows how it went.
func (b *bench) end() {
	if b.T.Failed() {
		b.T.Logf("metrics:\n%s", metrics(b.status))
	}
	for _, p := range []*process{b.agent, b.server} {
		if p == nil {
			continue
		}
		p.end()
		if b.T.Failed() {
			b.T.Logf("%s:\n%s", p.what, p.said())
		}
	}
}

// startServer starts the server; it need not listen yet.
func (b *bench) startServer() {
	b.T.Helper()
	b.Write("server.toml", rig.ServerConfig(b.address, b.data, "certs"))
	b.server = b.start("server", by(b.wrap, b.Command("rea-server", "--config", "server.toml")))
	b.server.wrapped = min(len(b.wrap), 1)
}

// by has another program run a command, if there is one.
func by(wrap []string, cmd *exec.Cmd) *exec.Cmd {
	if len(wrap) == 0 {
		return cmd
	}
	return exec.Command(wrap[0], append(slices.Clone(wrap[1:]), cmd.Args...)...)
}

// quick is how the agent is set: all at short intervals, room for all.
type quick struct {
	queueBytes, extra string
	still             bool     // no collector
	wrap              []string // what runs the agent
}

func (b *bench) startAgent(q quick) {
	b.T.Helper()
	b.agent = b.start("agent", b.agentCommand("agent.toml", b.status, b.queue, "", q))
	b.agent.wrapped = min(len(q.wrap), 1)
}

// agentCommand returns how an agent is run, with its configuration in that file.
func (b *bench) agentCommand(file, status, queueDir, prefix string, q quick) *exec.Cmd {
	b.T.Helper()
	if q.queueBytes == "" {
		q.queueBytes = "64MiB"
	}
	b.Write(file, rig.AgentConfig(status, b.endpoint, queueDir)+fmt.Sprintf(`queue_max_bytes = %q
queue_min_free_bytes = 0
backoff_ms = "5..50"
%s
`, q.queueBytes, q.extra)+rig.AgentTLS("certs/ca.crt", "certs/agent.crt", "certs/agent.key")+fmt.Sprintf(`[agent]
node_id = "auto"
batch_interval_ms = 100
[collectors.cpu]
enabled = false
[collectors.memory]
enabled = %t
interval_ms = 200
[collectors.disk]
enabled = false
[collectors.network]
enabled = false
[collectors.process]
enabled = false
[collectors.host]
enabled = false
`, !q.still))
	self, err := os.Executable()
	if err != nil {
		b.T.Fatal(err)
	}
	cmd := by(q.wrap, exec.Command(self, file, strconv.FormatUint(b.seed, 10), prefix, b.cursors))
	cmd.Env = append(os.Environ(), roleVariable+"=agent")
	return cmd
}

// start starts a process of the bench. What an agent reports goes into the books.
func (b *bench) start(what string, cmd *exec.Cmd) *process {
	b.T.Helper()
	cmd.Dir = b.Dir
	return start(b.T, what, cmd, b.Path(what+".log"), func(line string) {
		var name string
		var n uint64
		if _, err := fmt.Sscanf(line, "safe %s %d", &name, &n); err == nil {
			b.books.acknowledged(name, n)
		}
	})
}

// until waits for something to become true while agent and server run.
func (b *bench) until(what string, ok func() bool) {
	b.T.Helper()
	b.Until(what, func() bool {
		if ok() {
			return true
		}
		for _, p := range []*process{b.agent, b.server} {
			if p != nil && p.ended() {
				b.T.Fatalf("the %s ended while waiting until %s: %v", p.what, what, p.cmd.ProcessState)
			}
		}
		return false
	})
}

// metrics returns an agent's page, or nothing.
func metrics(address string) string { return rig.Page(address, "/metrics") }

// drained reports whether the queues of an agent are empty.
func drained(status string) bool { return delivered(metrics(status)) }

func delivered(page string) bool {
	return strings.Contains(page, "\nrea_queue_events{lane=\"evidence\"} 0\n") && strings.Contains(page, "\nrea_queue_events{lane=\"metrics\"} 0\n")
}

// hush makes the sources emit no more, and says when they may again.
func (b *bench) hush() (again func()) {
	b.T.Helper()
	b.Write("quiet", "")
	return func() {
		b.T.Helper()
		if err := os.Remove(b.Path("quiet")); err != nil {
			b.T.Fatal(err)
		}
	}
}

// drain waits until all that the agent has is at the server.
func (b *bench) drain() {
	b.T.Helper()
	b.until("the queues are empty", func() bool { return drained(b.status) })
}
