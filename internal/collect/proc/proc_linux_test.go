package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
	"golang.org/x/sys/unix"
)

// A machine is a Linux machine that a test lays out.
type machine struct {
	t    testing.TB
	root string
}

// A fake is a process of it.
type fake struct {
	pid, parent  int
	name         string
	state        byte
	user, system int // ticks
	threads      int
	start        int // ticks
	virtual      int
	resident     int // pages
	shared       int // pages
	read, wrote  int
	open         int
	uid          int
	args         []string
	kernel       bool
	turns        string // schedstat
}

func newMachine(t testing.TB) *machine {
	m := &machine{t, t.TempDir()}
	m.write("proc/stat", "cpu  1 2 3 4\nbtime 900000000\nprocesses 70\n")
	m.write("sys/devices/system/cpu/online", "0-3\n")
	m.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000:Anna:/home/anna:/bin/sh\n")
	return m
}

// write changes a file in place, so that a descriptor of it sees the change.
func (m *machine) write(path, text string) {
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) remove(path string) {
	if err := os.RemoveAll(filepath.Join(m.root, path)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) run(ps ...fake) {
	for _, p := range ps {
		dir := fmt.Sprintf("proc/%d/", p.pid)
		flags := 4194560
		if p.kernel {
			flags = 2129984
		}
		if p.turns != "" {
			m.write(dir+"schedstat", p.turns+"\n")
		}
		m.write(dir+"stat", fmt.Sprintf("%d (%s) %c %d 1 1 0 -1 %d 5112 90 3 0 %d %d 8 9 20 0 %d 0 %d %d %d "+
			"18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 2 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
			p.pid, p.name, p.state, p.parent, flags, p.user, p.system, p.threads, p.start, p.virtual, p.resident))
		m.write(dir+"statm", fmt.Sprintf("%d %d %d 20 0 300 0\n", p.virtual/4096, p.resident, p.shared))
		m.write(dir+"io", fmt.Sprintf("rchar: 9\nwchar: 8\nsyscr: 7\nsyscw: 6\nread_bytes: %d\nwrite_bytes: %d\n", p.read, p.wrote))
		m.write(dir+"status", fmt.Sprintf("Name:\t%s\nUid:\t1\t%d\t1\t1\nGid:\t1\t1\t1\t1\n", p.name, p.uid))
		m.write(dir+"cmdline", strings.Join(p.args, "\x00")+"\x00")
		for i := range p.open {
			m.write(fmt.Sprintf("%sfd/%d", dir, i), "")
		}
	}
}

func (m *machine) collector(cfg Config) (*Collector, *linux) {
	s := newLinux(cfg, m.root)
	s.pageSize = 4096
	c := newCollector(cfg, s)
	m.t.Cleanup(func() { holdings{s, c.table.byPID}.close() })
	return c, s
}

var (
	systemd  = fake{pid: 1, name: "systemd", state: 'S', user: 300, system: 200, threads: 1, start: 1, virtual: 170 << 20, resident: 3000, shared: 2000, read: 9 << 20, wrote: 4096, open: 3, args: []string{"/sbin/init", "splash"}}
	kthreadd = fake{pid: 2, name: "kthreadd", state: 'S', threads: 1, start: 1, kernel: true, turns: "27351052 1038744 70"}
	kworker  = fake{pid: 9, parent: 2, name: "kworker/0:1H-kblockd", state: 'I', system: 40, threads: 1, start: 2, kernel: true, turns: "412345678 991823 1200"}
	database = fake{pid: 812, parent: 1, name: "db (main) 2", state: 'R', user: 4000, system: 1000, threads: 12, start: 1500, virtual: 8 << 30, resident: 90000, shared: 5000, read: 1 << 30, wrote: 1 << 20, open: 5, uid: 1000, args: []string{"db", "--data", "/srv/db"}}
	backup   = fake{pid: 900, parent: 1, name: "backup", state: 'D', system: 7, threads: 2, start: 99, virtual: 1 << 20, resident: 200, shared: 100, uid: 4711, args: []string{"backup"}}
	ended    = fake{pid: 901, parent: 812, name: "sh", state: 'Z', threads: 1, start: 1600}
)

func TestLinuxGolden(t *testing.T) {
	m := newMachine(t)
	m.run(systemd, kthreadd, kworker, database, backup, ended)
	synctest.Test(t, func(t *testing.T) {
		c, _ := m.collector(Config{TopN: 3, CommandLines: true, Users: true})
		lines := collecttest.Read(t, c)

		time.Sleep(2 * time.Second)
		busy, quiet := database, systemd
		busy.user += 300 // 3 s in 2 s: one core and a half
		busy.read, busy.wrote = busy.read+8192, 0
		quiet.system++
		m.run(busy, quiet, fake{pid: 950, parent: 812, name: "new", state: 'R', user: 20, threads: 1, start: 5000, resident: 10, shared: 3, uid: 1000})
		m.remove("proc/901")
		collecttest.Golden(t, "testdata/linux.golden", Schema, append(lines, collecttest.Read(t, c)...))
	})
}

func TestAFileThatCannotBeReadIsAnErrorAndAnAbsentField(t *testing.T) {
	m := newMachine(t)
	m.run(systemd, database)
	m.write("proc/812/statm", "garbage")
	m.write("proc/812/io", "")
	m.remove("proc/812/fd")
	m.write("proc/812/fd", "not a directory")
	m.write("proc/812/status", "Name:\tdb\n")
	m.write("proc/stat", "cpu 1 2 3\n")
	m.remove("sys")
	c, _ := m.collector(Config{TopN: 5, Users: true})
	lines := collecttest.Read(t, c)
	collecttest.Validate(t, Schema, lines)
	var ev struct{ Errors []string }
	if err := json.Unmarshal(lines, &ev); err != nil {
		t.Fatal(err)
	}
	said := strings.Join(ev.Errors, "\n")
	for _, field := range []string{"private_bytes: ", "read_bytes, write_bytes: ", "descriptors: ", "user: ", "start_time: ", "cpu_utilization: "} {
		if !strings.Contains(said, field) {
			t.Errorf("no error for %q in\n%s", field, said)
		}
	}
	p := member(bodies(t, lines)[0], "top_cpu", 812)
	for _, field := range []string{"private_bytes", "read_bytes", "write_bytes", "descriptors", "user", "start_time"} {
		if v, ok := p[field]; ok {
			t.Errorf("%s: %v", field, v)
		}
	}
	if p["resident_bytes"] == nil || p["cpu_time_seconds"] == nil {
		t.Errorf("lost with the rest: %v", p)
	}
}

func TestAProcessThatCannotBeReadIsCounted(t *testing.T) {
	m := newMachine(t)
	m.run(systemd, database)
	m.write("proc/812/stat", "812 (cut")
	c, _ := m.collector(Config{})
	lines := collecttest.Read(t, c)
	body := bodies(t, lines)[0]
	if body["count"] != 2.0 || body["by_state"].(map[string]any)["unknown"] != 1.0 {
		t.Errorf("%v", body)
	}
	if !strings.Contains(string(lines), "processes: stat is not as in proc_pid_stat(5) (processes: 1)") {
		t.Errorf("not said: %s", lines)
	}
}

func TestAProcessThatVanishedIsNoError(t *testing.T) {
	m := newMachine(t)
	m.run(systemd, database)
	m.remove("proc/812/stat") // listed, and gone when it is opened
	c, s := m.collector(Default())
	for range 2 {
		lines := collecttest.Read(t, c)
		if body := bodies(t, lines)[0]; body["count"] != 1.0 || strings.Contains(string(lines), "errors") {
			t.Errorf("%s", lines)
		}
		m.remove("proc/812/statm")
		m.remove("proc/1/statm") // and between the scan and the details
		s.unlist(c.table.byPID[1])
	}
}

func TestANewProgramHasItsOwnNameAndCommand(t *testing.T) {
	m := newMachine(t)
	m.run(database)
	c, _ := m.collector(Config{TopN: 1, CommandLines: true})
	collecttest.Read(t, c)
	next := database
	next.name, next.args = "vacuum", []string{"vacuum", "-v"}
	m.run(next)
	p := member(bodies(t, collecttest.Read(t, c))[0], "top_memory", 812)
	if p["name"] != "vacuum" || p["command_line"] != "vacuum -v" {
		t.Errorf("%v", p)
	}
}

func TestAThreadOfTheKernelIsReadAgainWhenItRan(t *testing.T) {
	const other = "412345999 991823 1201"
	thread := func(kernel bool, state byte, turns string) fake {
		f := kworker
		f.kernel, f.state, f.turns = kernel, state, turns
		return f
	}
	for name, c := range map[string]struct {
		before, after fake
		most          int // descriptors held
		want          string
	}{
		"it had no turn, so its line is not read": {thread(true, 'I', kworker.turns), thread(true, 'D', kworker.turns), 100, "idle"},
		"it had a turn":                                {thread(true, 'I', kworker.turns), thread(true, 'D', other), 100, "blocked"},
		"it had a turn and became a program":           {thread(true, 'I', kworker.turns), thread(false, 'R', other), 100, "running"},
		"a kernel that does not count turns":           {thread(true, 'I', "0 0 0"), thread(true, 'D', "0 0 0"), 100, "blocked"},
		"a kernel without schedstat":                   {thread(true, 'I', ""), thread(true, 'D', ""), 100, "blocked"},
		"no descriptor to spare":                       {thread(true, 'I', kworker.turns), thread(true, 'D', kworker.turns), 1, "blocked"},
		"a program, which is more than its first task": {thread(false, 'S', kworker.turns), thread(false, 'D', kworker.turns), 100, "blocked"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			col, s := m.collector(Config{})
			s.maxHeld = c.most
			m.run(c.before)
			for range 3 {
				collecttest.Read(t, col)
			}
			m.run(c.after)
			for range 2 {
				body := bodies(t, collecttest.Read(t, col))[0]
				if body["count"] != 1.0 || body["by_state"].(map[string]any)[c.want] != 1.0 {
					t.Errorf("%v, want one that is %s", body, c.want)
				}
			}
			holdings{s, col.table.byPID}.close()
			if s.held != 0 {
				t.Errorf("%d descriptors held after close", s.held)
			}
		})
	}
}

func TestProcessesAreListedWhenAPIDWasGivenOut(t *testing.T) {
	const alone, below = "Name:\tx\nNSpid:\t7\nThreads:\t1\n", "Name:\tx\nNSpid:\t700\t7\nThreads:\t1\n"
	for name, c := range map[string]struct {
		status, before, after string
		unread                bool
		wait                  time.Duration
		want                  float64
	}{
		"none was given out":                      {status: alone, before: "812", after: "812", want: 2},
		"one was given out":                       {status: alone, before: "812", after: "813", want: 3},
		"one was given out, but not here":         {status: alone, before: "812", after: "", want: 3},
		"the list is a minute old":                {status: alone, before: "812", after: "812", wait: relist, want: 3},
		"a process could not be read":             {status: alone, before: "812", after: "812", unread: true, want: 4},
		"in a container with the host's /proc":    {status: below, before: "812", after: "812", want: 3},
		"a /proc that does not show this process": {status: "", before: "812", after: "812", want: 3},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.run(systemd, database)
			if c.unread {
				m.write("proc/900/stat", "900 (cut")
			}
			if c.status != "" {
				m.write("proc/self/status", c.status)
			}
			m.write("proc/loadavg", "0.32 0.19 0.52 1/123 "+c.before+"\n")
			synctest.Test(t, func(t *testing.T) {
				col, _ := m.collector(Default())
				for range 3 {
					collecttest.Read(t, col)
				}
				m.write("proc/loadavg", "0.32 0.19 0.52 1/123 "+c.after+"\n")
				m.run(fake{pid: 950, name: "new", state: 'R', threads: 1, start: 5000})
				time.Sleep(c.wait)
				if body := bodies(t, collecttest.Read(t, col))[0]; body["count"] != c.want {
					t.Errorf("%v processes, want %v", body["count"], c.want)
				}
			})
		})
	}
}

func TestWhoHasGoneIsDroppedWithoutAList(t *testing.T) {
	m := newMachine(t)
	m.run(systemd, database)
	m.write("proc/self/status", "Name:\tx\nNSpid:\t7\n")
	m.write("proc/loadavg", "0.32 0.19 0.52 1/123 812\n")
	c, s := m.collector(Default())
	s.maxHeld = 0 // a file that is removed can be read as long as it is open, unlike in /proc
	for range 3 {
		collecttest.Read(t, c)
	}
	m.remove("proc/812")
	if body := bodies(t, collecttest.Read(t, c))[0]; body["count"] != 1.0 || len(c.table.byPID) != 1 {
		t.Errorf("%v", body)
	}
}

// A pid that was given out again is not compared with who had it before.
func TestAThreadOfTheKernelThatHasGoneIsForgotten(t *testing.T) {
	m := newMachine(t)
	m.run(kthreadd, kworker)
	c, s := m.collector(Config{})
	for range 3 {
		collecttest.Read(t, c)
	}
	m.remove("proc/9")
	if body := bodies(t, collecttest.Read(t, c))[0]; body["count"] != 1.0 || s.held != 2 {
		t.Errorf("%v, %d descriptors held", body, s.held)
	}
	next := kworker
	next.start, next.state = 5000, 'D'
	m.run(next)
	if body := bodies(t, collecttest.Read(t, c))[0]; body["by_state"].(map[string]any)["blocked"] != 1.0 {
		t.Errorf("%v", body)
	}
}

func TestUsersAreReadAgainWhenPasswdChanged(t *testing.T) {
	m := newMachine(t)
	u := passwd{path: filepath.Join(m.root, "etc/passwd")}
	want := func(want string) {
		t.Helper()
		if got, err := u.name(1000); got != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	want("anna")
	m.write("etc/passwd", "berta:x:1000:1000:::\n")
	if err := os.Chtimes(u.path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	want("berta")
	if got, err := u.name(5); got != "5" || err != nil {
		t.Errorf("a user without a name: %q, %v", got, err)
	}
}

func TestDescriptorsAreBoundedAndGivenBack(t *testing.T) {
	m := newMachine(t)
	for pid := range 50 {
		p := database
		p.pid = 100 + pid
		m.run(p)
	}
	for _, most := range []int{0, 7, 1000} {
		c, s := m.collector(Default())
		s.maxHeld = most
		for range 3 {
			lines := collecttest.Read(t, c)
			if body := bodies(t, lines)[0]; body["count"] != 50.0 || strings.Contains(string(lines), "errors") {
				t.Fatalf("%d held: %s", most, lines)
			}
			if s.held > most {
				t.Errorf("%d held, want at most %d", s.held, most)
			}
		}
		holdings{s, c.table.byPID}.close()
		if _, online := s.online.Descriptor(); s.held != 0 || s.proc.isOpen() || online {
			t.Errorf("after close: %d held, %+v", s.held, s)
		}
	}
}

func TestThoseListedNoMoreGiveTheirDescriptorsBack(t *testing.T) {
	m := newMachine(t)
	m.run(systemd, database)
	c, s := m.collector(Config{TopN: 1})
	for _, p := range []fake{database, systemd, database} {
		p.user, p.resident = p.user+100000, 1_000_000
		m.run(systemd, database, p)
		collecttest.Read(t, c)
		// Two stat files, and statm, io and fd of the one that is listed.
		if s.held > 2+2*3 {
			t.Errorf("%d held", s.held)
		}
	}
	m.remove("proc/812")
	collecttest.Read(t, c)
	if s.held != 1+3 {
		t.Errorf("%d held for one listed process", s.held)
	}
}

func TestWithoutProcThereIsAnErrorUntilItIsBack(t *testing.T) {
	m := newMachine(t)
	m.remove("proc")
	c, _ := m.collector(Default())
	emit := func(context.Context, ...event.Event) error { return nil }
	if err := c.Read(t.Context(), emit); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	m.run(systemd)
	if err := c.Read(t.Context(), emit); err != nil {
		t.Error(err)
	}
}

// childVariable makes the test binary the child of TestAChildIsFound.
const childVariable = "REA_TEST_PROC_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		beChild()
		return
	}
	os.Exit(m.Run())
}

// beChild uses memory, says so, and waits to be told to end.
func beChild() {
	big := make([]byte, 64<<20)
	for i := range big {
		big[i] = byte(i)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(big)
}

func TestAChildIsFoundAsTheKernelTellsOfIt(t *testing.T) {
	before := time.Now()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"=1")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stdin.Close()
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	after := time.Now()

	c := New(Config{TopN: MaxTopN, CommandLines: true, Users: true})
	p := member(bodies(t, collecttest.Read(t, c))[0], "top_memory", float64(child.Process.Pid))
	if p == nil {
		t.Fatal("a process of 64 MiB is not listed")
	}
	if p["parent_pid"] != float64(os.Getpid()) || !strings.HasPrefix(filepath.Base(os.Args[0]), p["name"].(string)) {
		t.Errorf("parent %v, name %v", p["parent_pid"], p["name"])
	}
	if p["command_line"] != os.Args[0] {
		t.Errorf("command line %v, want %v", p["command_line"], os.Args[0])
	}
	// btime is cut to a second, so a start may seem that much too early.
	start, err := time.Parse(time.RFC3339Nano, p["start_time"].(string))
	if err != nil || start.Before(before.Add(-1100*time.Millisecond)) || start.After(after.Add(100*time.Millisecond)) {
		t.Errorf("start %v, want %v to %v, %v", start, before, after, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	near := func(field, key string, tolerance float64) {
		t.Helper()
		_, rest, _ := strings.Cut(string(status), "\n"+key+":")
		var want float64
		if _, err := fmt.Sscan(rest, &want); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(strings.TrimLeft(rest, " \t0123456789"), "kB") {
			want *= 1024
		}
		if got, ok := p[field].(float64); !ok || math.Abs(got-want) > tolerance {
			t.Errorf("%s: %v, want %.0f (%s)", field, p[field], want, key)
		}
	}
	near("resident_bytes", "VmRSS", 4<<20)
	near("private_bytes", "RssAnon", 4<<20)
	near("virtual_bytes", "VmSize", 128<<20)
	near("threads", "Threads", 4)
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", child.Process.Pid))
	if err != nil || p["descriptors"] != float64(len(open)) {
		t.Errorf("descriptors %v, want %d, %v", p["descriptors"], len(open), err)
	}
	if _, ok := p["read_bytes"]; !ok {
		t.Error("I/O of a child of mine is absent")
	}
}

func TestAProcessThatEndedIsDroppedFromThisMachine(t *testing.T) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"=1")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	c := New(Default())
	collecttest.Read(t, c)
	pid := uint32(child.Process.Pid)
	p := c.table.byPID[pid]
	if p == nil {
		t.Fatal("a child is not seen")
	}
	if err := errors.Join(stdin.Close(), child.Wait()); err != nil {
		t.Fatal(err)
	}
	if p.held.stat.isOpen() {
		if _, err := unix.Pread(p.held.stat.fd(), make([]byte, 10), 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("the descriptor of a process that ended: %v", err)
		}
	}
	// The short way, if nobody else began a process meanwhile.
	s := c.sys.(*linux)
	s.newest, s.listedAt = s.newestPID(), time.Now()
	collecttest.Read(t, c)
	if c.table.byPID[pid] == p || p.held.stat.isOpen() {
		t.Errorf("kept: %+v", p)
	}
}

func TestAReadingAllocatesNothingPerProcessOnceItKnowsThem(t *testing.T) {
	m := newMachine(t)
	for i := range 100 {
		p := database
		p.pid = 100 + i
		m.run(p)
	}
	c, _ := m.collector(Config{TopN: 10, CommandLines: true, Users: true})
	ctx := t.Context()
	emit := func(context.Context, ...event.Event) error { return nil }
	read := func() {
		if err := c.Read(ctx, emit); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if n := testing.AllocsPerRun(20, read); n > 1 {
		t.Errorf("%v allocations a reading, want one: the list of events", n)
	}
}

// benchmarkRead takes readings and encodes them, as the agent does.
func benchmarkRead(b *testing.B, c *Collector) {
	e := event.NewEncoder(collecttest.Stamp, nil, 0)
	var line []byte
	emit := func(_ context.Context, events ...event.Event) (err error) {
		line, err = e.Append(line[:0], &events[0], 1)
		return err
	}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Read(ctx, emit); err != nil {
			b.Fatal(err)
		}
	}
	n := c.reading.total.processes
	b.ReportMetric(float64(n), "processes")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n), "µs/process")
}

func BenchmarkRead(b *testing.B) { benchmarkRead(b, New(Default())) }

func BenchmarkReadCountsOnly(b *testing.B) { benchmarkRead(b, New(Config{})) }

func BenchmarkReadWithoutHeldDescriptors(b *testing.B) {
	c := New(Default())
	c.sys.(*linux).maxHeld = 0
	benchmarkRead(b, c)
}

func BenchmarkRead600(b *testing.B) {
	m := newMachine(b)
	for i := range 600 {
		p := database
		p.pid, p.resident = 100+i, 1000+i
		m.run(p)
	}
	c, _ := m.collector(Default())
	benchmarkRead(b, c)
}
