// Package e2e drives the built binaries as an operator would: real processes,
// real certificates, real kills.
package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var bin string // the folder of the binaries under test

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if runtime.GOOS == "windows" {
			fmt.Println("SKIP  test/e2e: its programs are built, stopped and killed as on Unix; test/windows has a life of its own")
			return 0
		}
		dir, err := os.MkdirTemp("", "rea-e2e")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		bin = dir
		build := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-o", dir, "../../cmd/rea-agent", "../../cmd/rea-server")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// A bench is a folder with certificates and configurations for a server and an
// agent that fit together.
type bench struct {
	t       *testing.T
	dir     string
	address string // of the server
	status  string // of the agent's status page
}

func newBench(t *testing.T, agent string) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), address: freeAddress(t), status: freeAddress(t)}
	b.must("rea-server", "certs", "--dns", "127.0.0.1", "--dir", b.path("certs"))
	b.write("server.toml", fmt.Sprintf(`
[server]
listen = %q
data_dir = "data"
[tls]
cert_file = "certs/server.crt"
key_file = "certs/server.key"
client_ca_file = "certs/ca.crt"
`, b.address))
	_, port, _ := net.SplitHostPort(b.status)
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
ca_file = "certs/ca.crt"
client_cert = "certs/agent.crt"
client_key = "certs/agent.key"
`, port, b.address)+agent)
	return b
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

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run runs a program to its end and returns what it printed and its exit code.
func (b *bench) run(name string, args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (b *bench) must(name string, args ...string) string {
	b.t.Helper()
	stdout, stderr, code := b.run(name, args...)
	if code != 0 {
		b.t.Fatalf("%s %s: exit %d\n%s%s", name, strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// A process is one of ours that runs.
type process struct {
	*exec.Cmd
	t      *testing.T
	stderr *buffer
}

// A buffer may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *bench) start(name string, args ...string) *process {
	b.t.Helper()
	p := b.command(name, args...)
	p.begin()
	return p
}

func (b *bench) command(name string, args ...string) *process {
	p := &process{exec.Command(filepath.Join(bin, name), args...), b.t, new(buffer)}
	p.Dir, p.Stderr = b.dir, p.stderr
	return p
}

func (p *process) begin() {
	p.t.Helper()
	if err := p.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(p.kill)
}

func (b *bench) server() *process {
	b.t.Helper()
	p := b.start("rea-server", "--config", "server.toml")
	b.until("the server listens", func() bool { return answers(b.address) }, p)
	return p
}

func (b *bench) agent(args ...string) *process {
	b.t.Helper()
	return b.start("rea-agent", append([]string{"--config", "agent.toml"}, args...)...)
}

func answers(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// until waits for something to become true; how long it takes does not matter
// unless it never happens.
func (b *bench) until(what string, ok func() bool, processes ...*process) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	for _, p := range processes {
		b.t.Logf("%s:\n%s", p.Path, p.stderr)
	}
	b.t.Fatalf("waited a minute, but not so: %s", what)
}

// kill ends the process as a crash would.
func (p *process) kill() {
	if p.ProcessState == nil {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
}

// stop asks the process to end and wants it to do so with code.
func (p *process) stop(code int) {
	p.t.Helper()
	_ = p.Process.Signal(syscall.SIGTERM)
	p.ends(code)
}

func (p *process) ends(code int) {
	p.t.Helper()
	_ = p.Wait()
	if got := p.ProcessState.ExitCode(); got != code {
		p.t.Errorf("%s ended with %d, want %d:\n%s", p.Path, got, code, p.stderr)
	}
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
	b.t.Helper()
	var events []envelope
	for line := range strings.Lines(b.must("rea-server", "events", "--config", "server.toml", "--json", "--limit", "0")) {
		var e envelope
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			b.t.Fatalf("%v\n%s", err, line)
		}
		events = append(events, e)
	}
	return events
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
