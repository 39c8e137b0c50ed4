//go:build torture && linux

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag = flag.Uint64("torture.seed", 0, "seed of everything that is drawn; 0 draws one")
	killFlag = flag.Int("torture.kills", 500, "cycles of kill -9")
	keepFlag = flag.String("torture.keep", "", "a folder in which what was run is kept, with what it said")
	cutFlag  = flag.Int("torture.cuts", 200, "power cuts")
)

// The roles in which this program runs itself.
const roleVariable = "TORTURE_ROLE"

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleVariable)]
	if ok {
		if err := role(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

var roles = map[string]func(args []string) error{"agent": beAgent, "writer": beWriter}

// built is the folder of the server under test, once something needed it.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// server returns the path of rea-server as it is built for users.
func server(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "rea-torture"); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-o", built.dir, "../../cmd/rea-server")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "rea-server")
}

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
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	began  time.Time
	dir    string
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
	dir := t.TempDir()
	if *keepFlag != "" {
		var err error
		if dir, err = os.MkdirTemp(*keepFlag, strings.ReplaceAll(t.Name(), "/", "_")+"-"); err != nil {
			t.Fatal(err)
		}
	}
	address := freeAddress(t)
	b := &bench{
		t: t, began: time.Now(), dir: dir, books: newBooks(), address: address, endpoint: address, status: freeAddress(t),
		data: "data", queue: "queue", cursors: dir,
	}
	b.seed, b.rng = dice(t)
	b.must("certs", "--dns", "127.0.0.1", "--dir", b.path("certs"))
	for _, name := range []string{"log", "gauge"} {
		b.books.source(name, b.seed)
	}
	t.Cleanup(func() {
		for _, p := range []*process{b.agent, b.server} {
			if p != nil {
				p.end()
			}
		}
	})
	return b
}

func (b *bench) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(b.dir, name)
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// given are the addresses that freeAddress has returned.
var given sync.Map

// freeAddress returns an address on which nobody listens, outside the range from
// which the system gives ports to connections, and not twice: while a server is
// down nobody else gets its port.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(20_000)))
		if _, taken := given.LoadOrStore(address, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// startServer starts the server; it need not listen yet.
func (b *bench) startServer() {
	b.t.Helper()
	b.write("server.toml", fmt.Sprintf(`
[server]
listen = %q
data_dir = %q
[tls]
cert_file = "certs/server.crt"
key_file = "certs/server.key"
client_ca_file = "certs/ca.crt"
`, b.address, b.data))
	args := append(slices.Clone(b.wrap), server(b.t), "--config", "server.toml")
	b.server = b.start("server", exec.Command(args[0], args[1:]...))
	b.server.wrapped = min(len(b.wrap), 1)
}

// quick is how the agent is set: all at short intervals, room for all.
type quick struct {
	queueBytes, extra string
	still             bool     // no collector
	wrap              []string // what runs the agent
}

func (b *bench) startAgent(q quick) {
	b.t.Helper()
	b.agent = b.start("agent", b.agentCommand("agent.toml", b.status, b.queue, "", q))
	b.agent.wrapped = min(len(q.wrap), 1)
}

// agentCommand returns how an agent is run, with its configuration in that file.
func (b *bench) agentCommand(file, status, queueDir, prefix string, q quick) *exec.Cmd {
	b.t.Helper()
	_, port, _ := net.SplitHostPort(status)
	if q.queueBytes == "" {
		q.queueBytes = "64MiB"
	}
	b.write(file, fmt.Sprintf(`
[agent]
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
[logging]
mode = "none"
[status]
enabled = true
port = %s
[networking]
enabled = true
endpoint = "https://%s"
queue_dir = %q
queue_max_bytes = %q
queue_min_free_bytes = 0
backoff_ms = "5..50"
retry_budget = 10000
%s
[tls]
ca_file = "certs/ca.crt"
client_cert = "certs/agent.crt"
client_key = "certs/agent.key"
`, !q.still, port, b.endpoint, queueDir, q.queueBytes, q.extra))
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	args := append(q.wrap, self, file, strconv.FormatUint(b.seed, 10), prefix, b.cursors)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"=agent")
	return cmd
}

// start starts a process of the bench. What an agent reports goes into the books.
func (b *bench) start(what string, cmd *exec.Cmd) *process {
	b.t.Helper()
	cmd.Dir = b.dir
	return start(b.t, what, cmd, b.path(what+".log"), func(line string) {
		var name string
		var n uint64
		if _, err := fmt.Sscanf(line, "safe %s %d", &name, &n); err == nil {
			b.books.acknowledged(name, n)
		}
	})
}

// run runs a command of rea-server to its end.
func (b *bench) run(args ...string) (out string, code int) {
	b.t.Helper()
	cmd := exec.Command(server(b.t), args...)
	cmd.Dir = b.dir
	text, _ := cmd.CombinedOutput()
	return string(text), cmd.ProcessState.ExitCode()
}

func (b *bench) must(args ...string) {
	b.t.Helper()
	if out, code := b.run(args...); code != 0 {
		b.t.Fatalf("rea-server %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
}

// until waits for something to become true; how long it takes does not matter
// unless it never happens.
func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
		for _, p := range []*process{b.agent, b.server} {
			if p != nil && p.ended() {
				b.t.Fatalf("the %s ended while waiting until %s: %v\n%s", p.what, what, p.cmd.ProcessState, p.said())
			}
		}
	}
	for _, p := range []*process{b.agent, b.server} {
		if p != nil {
			b.t.Logf("%s:\n%s", p.what, p.said())
		}
	}
	b.t.Logf("metrics:\n%s", metrics(b.status))
	b.t.Fatalf("waited %v, but not so: %s", patience, what)
}

// metrics returns an agent's page, or nothing.
func metrics(address string) string {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

// drained reports whether the queues of an agent are empty.
func drained(status string) bool { return delivered(metrics(status)) }

func delivered(page string) bool {
	return strings.Contains(page, "\nrea_queue_events{lane=\"evidence\"} 0\n") && strings.Contains(page, "\nrea_queue_events{lane=\"metrics\"} 0\n")
}

// hush makes the sources emit no more, and says when they may again.
func (b *bench) hush() (again func()) {
	b.t.Helper()
	b.write("quiet", "")
	return func() {
		b.t.Helper()
		if err := os.Remove(b.path("quiet")); err != nil {
			b.t.Fatal(err)
		}
	}
}

// drain waits until all that the agent has is at the server.
func (b *bench) drain() {
	b.t.Helper()
	b.until("the queues are empty", func() bool { return drained(b.status) })
}
