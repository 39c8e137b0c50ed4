//go:build torture && linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
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

// A process is one of ours that runs.
type process struct {
	t       *testing.T
	what    string
	cmd     *exec.Cmd
	log     string // what it said on standard error
	from    int64  // where that begins
	wrapped int    // how many programs run it
	done    chan struct{}
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

// start starts a process that says what is wrong in the file log, and has each
// line that it prints reported. Once done is closed all of them are.
func start(t *testing.T, what string, cmd *exec.Cmd, log string, report func(line string)) *process {
	t.Helper()
	p := &process{t: t, what: what, cmd: cmd, log: log, done: make(chan struct{})}
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		p.from = info.Size()
	}
	cmd.Stderr = f
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			report(lines.Text())
		}
		_ = cmd.Wait()
	}()
	return p
}

// said returns what the process said on standard error, or the end of it.
func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	const most = 16 << 10
	text = text[min(p.from, int64(len(text))):]
	return string(text[max(0, len(text)-most):])
}

// pid returns the id of the program: the last child, where others run it.
func (p *process) pid() int {
	pid := p.cmd.Process.Pid
	for range p.wrapped {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
		child, failed := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || failed != nil {
			return pid
		}
		pid = child
	}
	return pid
}

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends the process as a crash would; it must have run until then.
func (p *process) kill() {
	p.t.Helper()
	_ = p.cmd.Process.Kill()
	<-p.done
	if s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() {
		p.t.Fatalf("the %s ended by itself: %v\n%s", p.what, p.cmd.ProcessState, p.said())
	}
}

// end ends the process in any case.
func (p *process) end() {
	if !p.ended() {
		_ = syscall.Kill(p.pid(), syscall.SIGKILL)
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// patience is long: many parts run side by side.
const patience = 3 * time.Minute

// leave asks the process to end, and lets it complain.
func (p *process) leave() {
	p.t.Helper()
	pid := p.pid()
	_ = syscall.Kill(pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = syscall.Kill(pid, syscall.SIGQUIT)
		time.Sleep(time.Second)
		p.end()
		p.t.Fatalf("the %s does not end:\n%s", p.what, p.said())
	}
}

// stop asks the process to end, and wants it to do so in order, unless it had
// only just begun.
func (p *process) stop() {
	p.t.Helper()
	p.leave()
	s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	early := ok && s.Signaled() && s.Signal() == syscall.SIGTERM // before it listened to signals
	if !p.cmd.ProcessState.Success() && !early {
		p.t.Errorf("the %s ended with %v:\n%s", p.what, p.cmd.ProcessState, p.said())
	}
}

// freeze stops the process, and returns when none of its threads runs.
func (p *process) freeze() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if p.ended() {
			p.t.Fatalf("the %s ended by itself: %v\n%s", p.what, p.cmd.ProcessState, p.said())
		}
		if frozen(p.cmd.Process.Pid) {
			return
		}
	}
	p.t.Fatalf("the %s does not stop", p.what)
}

// frozen reports whether every thread of a process is stopped (proc(5), stat).
func frozen(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range stats {
		text, failed := os.ReadFile(name)
		_, state, ok := strings.Cut(string(text), ") ")
		if failed != nil || !ok || state[0] != 'T' {
			return false
		}
	}
	return err == nil && len(stats) > 0
}

func (p *process) thaw() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

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

// settle delivers what is left, ends both processes and closes the books. First
// more comes in each lane than a crash can take: numbers that the server was told
// of, and that were not on the disk, wait for the server until they are used again.
func (b *bench) settle(what string, many int) balance {
	b.t.Helper()
	b.sent(50)
	b.hush()
	b.drain()
	b.agent.stop()
	b.ends++
	b.empty(b.queue, func() { b.startAgent(quick{still: true}) })
	b.server.stop()
	return b.audit(what, many, b.queue)
}

// empty has agents without collectors deliver what lies in a queue. An agent that
// ends in order leaves an event that says so, therefore these are killed. What
// one of them had still to say at that moment is for the next.
func (b *bench) empty(queueDir string, start func()) {
	b.t.Helper()
	var left string
	for range 5 {
		start()
		b.until("the agent has said that it started", func() bool {
			return figure(metrics(b.status), `rea_events_emitted_total\{kind="agent"\}`) > 0
		})
		b.until("all that has a number is delivered", func() bool {
			page := metrics(b.status)
			return delivered(page) && figure(page, "rea_sender_lag_events") == 0
		})
		b.agent.kill()
		if left = b.left(queueDir); left == "" {
			return
		}
	}
	b.t.Errorf("the queue is never empty: %s", left)
}

// left says what lies in the queues of an agent that does not run.
func (b *bench) left(queueDir string) (left string) {
	b.t.Helper()
	for _, lane := range []string{"evidence", "metrics"} {
		in, err := queue.Inspect(filepath.Join(b.path(queueDir), lane))
		if err != nil {
			b.t.Fatal(err)
		}
		if in.Waiting.Events > 0 || len(in.Losses) > 0 {
			left += fmt.Sprintf("%s: %+v, losses %+v; ", lane, in.Waiting, in.Losses)
		}
	}
	return left
}

// audit reads the store and the queues of these folders, and closes the books.
// Nothing may run.
func (b *bench) audit(what string, many int, queues ...string) balance {
	b.t.Helper()
	b.readStore()
	for _, q := range queues {
		for _, lane := range []string{"evidence", "metrics"} {
			b.readQueue(filepath.Join(b.path(q), lane))
		}
	}
	r := b.books.close()
	r.faults = append(b.faults, r.faults...)
	announced := b.forgive(&r)
	b.say(r)
	if most := uint64(b.ends * 2 * mostItems); r.replayed > most {
		b.t.Errorf("%d items were replayed, %d ends of the agent explain %d", r.replayed, b.ends, most)
	}
	line := b.row(&r, what, many)
	if announced > 0 {
		line.Note = fmt.Sprintf("%d lost at the end of an agent whose disk refused to keep a gap event; its log says so", announced)
	} else {
		b.verify()
	}
	note(b.t, line)
	return r
}

// lastWords is what an agent says of what it could not declare before it ended.
var lastWords = regexp.MustCompile(`the agent ends before a gap event could say so" lost=(\d+)`)

// hearOut notes the last words of an agent that has ended.
func (b *bench) hearOut() {
	b.t.Helper()
	if m := lastWords.FindStringSubmatch(b.agent.said()); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			b.t.Fatal(err)
		}
		b.unsaid += n
	}
}

// forgive strikes what is missing without a gap event as far as an agent has
// announced it, and returns how many numbers that are. A disk that refuses
// everything until the agent ends leaves no other place to say it.
func (b *bench) forgive(r *balance) (numbers int) {
	numbers = r.count(undeclared)
	if numbers == 0 || numbers > b.unsaid {
		return 0
	}
	left := numbers
	r.faults = slices.DeleteFunc(r.faults, func(f fault) bool {
		if f.what == lost {
			left--
			return left >= 0
		}
		return f.what == undeclared
	})
	return numbers
}

// auditLoss is audit where something outside of the promise took events along: it
// wants no number twice, and that the server knows of a hole.
func (b *bench) auditLoss(what string, many int) {
	b.t.Helper()
	b.readStore()
	r := b.books.close()
	missing := r.count(lost) + r.count(undeclared)
	r.faults = slices.DeleteFunc(append(b.faults, r.faults...), func(f fault) bool { return f.what == lost || f.what == undeclared })
	b.say(r)
	line := b.row(&r, what, many)
	line.Note = fmt.Sprintf("%d items or numbers went with what was taken away", missing)
	note(b.t, line)
}

// say prints the first faults.
func (b *bench) say(r balance) {
	b.t.Helper()
	b.t.Logf("%d numbers assigned = %d received + %d declared missing (%d declared and received); %d items, %d replayed", r.assigned, r.received, r.declared, r.both, r.items, r.replayed)
	for i, f := range r.faults {
		if i == 20 {
			b.t.Errorf("and %d more faults", len(r.faults)-i)
			break
		}
		b.t.Errorf("%s: %s", f.what, f.text)
	}
	if r.items == 0 {
		b.t.Error("no item arrived: nothing was tried")
	}
}

func (b *bench) row(r *balance, what string, many int) row {
	return row{
		What: what, Many: many, Assigned: r.assigned, Received: r.received, Declared: r.declared, Replayed: r.replayed,
		Lost: r.count(lost), Repeated: r.count(repeated) + r.count(reused), Undeclared: r.count(undeclared), Wrong: r.count(wrong),
		Seconds: time.Since(b.began).Seconds(), Seed: b.seed,
	}
}

// readStore enters all that the server keeps.
func (b *bench) readStore() {
	b.t.Helper()
	cmd := exec.Command(server(b.t), "events", "--config", "server.toml", "--json", "--limit", "0")
	cmd.Dir = b.dir
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 2*wire.MaxLine)
	for lines.Scan() {
		b.faults = append(b.faults, b.books.stored(lines.Bytes())...)
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		b.t.Fatalf("read the store: %v\n%s", err, failure.String())
	}
}

// readQueue enters what still lies in a queue, and the last number it gave.
func (b *bench) readQueue(dir string) {
	b.t.Helper()
	q, err := queue.Open(queue.Options{Dir: dir, MaxBytes: 1 << 30})
	if err != nil {
		b.t.Fatal(err)
	}
	defer q.Close()
	decoder := wire.NewDecompressor()
	err = b.books.assign(q.Stream().String(), q.Next()-1)
	for err == nil {
		var records []queue.Record
		if records, err = q.Peek(nil, 1<<20); err != nil || len(records) == 0 {
			break
		}
		for _, r := range records {
			text := r.Data
			if wire.IsZstd(text) {
				if text, err = decoder.Decode(nil, r.Data, 64<<20); err != nil {
					b.t.Fatal(err)
				}
			}
			for l := range bytes.Lines(text) {
				b.faults = append(b.faults, b.books.kept(l)...)
			}
		}
		last := records[len(records)-1]
		err = q.Ack(last.First + uint64(last.Count) - 1)
	}
	if err != nil {
		b.t.Fatalf("read queue %s: %v", dir, err)
	}
}

// verify wants the server to come to the same result, if it can say.
func (b *bench) verify() {
	b.t.Helper()
	if out, _ := b.run("--help"); !strings.Contains(out, "verify") {
		b.t.Log("rea-server has no verify")
		return
	}
	if out, code := b.run("verify", "--config", "server.toml"); code != 0 {
		b.t.Errorf("rea-server verify: exit %d\n%s", code, out)
	}
}
