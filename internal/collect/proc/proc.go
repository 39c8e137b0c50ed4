// Package proc tells of the processes of the machine: how many there are, what
// they do, and which use the most processor time and memory.
//
// A reading has two steps. The first looks at every process and must be cheap:
// on Linux one line of /proc/<pid>/stat each, on Windows one system call for
// all. It fills a table that remembers each process from one reading to the
// next. A process is its pid and its start time, so a pid that was given out
// again is a new process and has no rate. The second step asks the few listed
// processes for what is dearer: private memory, I/O, descriptors, on Windows the
// path of the program, and, only where the configuration wants it, user and
// command line. Linux tells the path only to those who might debug the process,
// which the agent gives up at its start.
//
// The lists hold at most Config.TopN processes. Those by CPU are ranked by the
// processor time since the reading before; a process not seen before, and at
// the first reading every process, by all it has used. Those by memory are
// ranked by resident memory. Ties go to the lower pid, so that the output is
// stable, and a process that used none of it is not listed.
//
// What belongs to other users can be out of sight. Linux with hidepid=2 or
// ptraceable (proc(5)) does not show foreign processes at all: they are not
// counted. With hidepid=1 they are counted and their state is unknown. I/O
// needs the rights of a debugger or CAP_SYS_PTRACE, and is absent without.
//
// On Linux two things are not done at each reading. The list of processes is not read again while no pid was
// given out, as /proc/loadavg tells, though each minute in any case. And the stat
// line of a thread of the kernel is not read again until schedstat tells that it
// had a turn on a processor. So one that waits for its first turn since is still
// told as sleeping or idle, and not yet as running; that lasts as long as the
// processors let it wait. Who has gone, and what a program does, is seen always.
//
// There the collector keeps files of processes open, up to 1024 and never
// more than a quarter of RLIMIT_NOFILE. That halves the cost of a reading, which
// then allocates nothing for a process, and takes 4 KiB of kernel memory each.
// They are closed when their process has gone, and all of them when the
// Collector has become unreachable. They are never in the way of a process: it
// ends, and its pid is given out again, as if they were not there.
package proc

import (
	"context"
	_ "embed"
	"runtime"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
)

// Schema is the JSON Schema of the body of a process event.
//
//go:embed schema.json
var Schema string

// MaxTopN is the longest list: two of them still fit in a line of 64 KiB.
const MaxTopN = 64

// Config says what a reading lists.
type Config struct {
	TopN         int  // processes in each list, at most MaxTopN; 0 for the counts alone
	CommandLines bool // read command lines
	Users        bool // read the names of users
}

// Default lists ten processes and reads nothing personal.
func Default() Config { return Config{TopN: 10} }

// A Collector reads the processes of the machine.
type Collector struct {
	sys     system
	table   table
	listed  []*process // what either list holds, each process once
	reading Reading
	last    time.Time // of the last whole reading
	errors  []string
}

// A system is what one operating system knows of its processes.
type system interface {
	// scan shows every process to t. An error ends the reading.
	scan(t *table) error
	// details fills in what only listed processes are asked for, and appends
	// to errs what could not be read.
	details(listed []*process, t *table, errs []string) []string
	// forget frees what is held for p, which is about to be dropped.
	forget(p *process)
	// states lists the states that it tells apart.
	states() []state
	// cpus counts the logical processors that are on line.
	cpus() (int, error)
	// close frees all that is held.
	close()
}

// New returns a Collector for this machine.
func New(cfg Config) *Collector { return newCollector(cfg, newSystem(cfg)) }

func newCollector(cfg Config, sys system) *Collector {
	n := min(max(cfg.TopN, 0), MaxTopN)
	c := &Collector{sys: sys, table: newTable()}
	c.reading = Reading{
		states:       sys.states(),
		lists:        n > 0,
		commandLines: cfg.CommandLines,
		users:        cfg.Users,
		topCPU:       newTop(n, byCPU),
		topMemory:    newTop(n, byMemory),
	}
	runtime.AddCleanup(c, holdings.close, holdings{sys, c.table.byPID})
	return c
}

// holdings are what has to be freed when nobody can read any more.
type holdings struct {
	sys   system
	byPID map[uint32]*process
}

func (h holdings) close() {
	for _, p := range h.byPID {
		h.sys.forget(p)
	}
	h.sys.close()
}

// Read emits one event that tells of all processes.
func (c *Collector) Read(ctx context.Context, emit collect.Emit) error {
	now := time.Now()
	c.table.begin(now)
	if err := c.sys.scan(&c.table); err != nil {
		c.reset()
		return err
	}
	c.errors = c.table.unread.report(c.errors[:0])
	c.reading.interval = 0
	if !c.last.IsZero() {
		c.reading.interval = now.Sub(c.last)
	}
	c.last = now
	c.rank()
	c.errors = c.sys.details(c.listed, &c.table, c.errors)
	c.countCPUs()
	return emit(ctx, event.Event{Time: now, Kind: event.Process, Body: &c.reading, Errors: c.errors})
}

// reset forgets everything: after half a scan, rates would be over intervals of
// different lengths.
func (c *Collector) reset() {
	for _, p := range c.table.byPID {
		c.sys.forget(p)
	}
	clear(c.table.byPID)
	c.last = time.Time{}
}

// rank drops the processes that the scan did not see, counts the others and
// fills the lists.
func (c *Collector) rank() {
	r := &c.reading
	r.total, r.topCPU.list, r.topMemory.list = totals{}, r.topCPU.list[:0], r.topMemory.list[:0]
	for pid, p := range c.table.byPID {
		if p.seen != c.table.reading {
			c.sys.forget(p)
			delete(c.table.byPID, pid)
			continue
		}
		r.total.add(p)
		if p.spent > 0 {
			r.topCPU.offer(p)
		}
		if p.resident > 0 {
			r.topMemory.offer(p)
		}
	}
	r.total.addUnread(c.table.unread.n)
	c.listed = c.listed[:0]
	for _, list := range [...][]*process{r.topCPU.list, r.topMemory.list} {
		for _, p := range list {
			if p.listed != c.table.reading {
				p.listed = c.table.reading
				c.listed = append(c.listed, p)
			}
		}
	}
}

func (c *Collector) countCPUs() {
	if len(c.listed) == 0 {
		return
	}
	n, err := c.sys.cpus()
	if err != nil {
		c.errors = append(c.errors, "cpu_utilization: "+err.Error())
	}
	c.reading.cpus = n
}

// A Reading is the body of a process event.
type Reading struct {
	total        totals
	states       []state
	interval     time.Duration // since the reading before; 0 if there was none
	cpus         int           // 0 if not known
	lists        bool
	commandLines bool
	users        bool
	topCPU       top
	topMemory    top
}

// Encode writes the counts, and the lists where they are wanted.
func (r *Reading) Encode(e *event.Encoder) {
	e.Uint("count", r.total.processes)
	e.Uint("threads", r.total.threads)
	e.Open("by_state")
	for _, s := range r.states {
		e.Uint(stateNames[s], r.total.byState[s])
	}
	if n := r.total.byState[unknown]; n > 0 {
		e.Uint(stateNames[unknown], n)
	}
	e.Close()
	if r.lists {
		r.encodeList(e, "top_cpu", r.topCPU.list)
		r.encodeList(e, "top_memory", r.topMemory.list)
	}
}

func (r *Reading) encodeList(e *event.Encoder, name string, list []*process) {
	e.OpenList(name)
	for _, p := range list {
		e.OpenItem()
		r.encodeProcess(e, p)
		e.CloseItem()
	}
	if len(list) > 0 && !r.commandLines {
		e.Withheld("command_line")
	}
	if len(list) > 0 && !r.users {
		e.Withheld("user")
	}
	e.CloseList()
}

func (r *Reading) encodeProcess(e *event.Encoder, p *process) {
	e.Uint("pid", uint64(p.pid))
	e.Uint("parent_pid", uint64(p.parent))
	e.String("name", p.name)
	e.Sensitive("executable", event.Path, p.executable)
	e.Sensitive("user", event.Account, p.user)
	e.Sensitive("command_line", event.Command, p.command)
	e.Time("start_time", p.born)
	e.Float("cpu_time_seconds", p.cpu.Seconds(), 3)
	if p.rated && r.interval > 0 {
		cores := float64(p.spent) / float64(r.interval)
		e.Float("cpu_utilization_core", cores, 4)
		if r.cpus > 0 {
			e.Float("cpu_utilization", cores/float64(r.cpus), 4)
		}
	}
	e.Uint("threads", p.threads)
	e.Uint("resident_bytes", p.resident)
	e.MaybeUint("private_bytes", p.private)
	e.MaybeUint("committed_bytes", p.committed)
	e.Uint("virtual_bytes", p.virtual)
	e.MaybeUint("descriptors", p.descriptors)
	e.MaybeUint("handles", p.handles)
	r.encodeCounter(e, "read_bytes", "read_bytes_per_second", &p.read)
	r.encodeCounter(e, "write_bytes", "write_bytes_per_second", &p.written)
}

func (r *Reading) encodeCounter(e *event.Encoder, name, rate string, c *counter) {
	e.MaybeUint(name, c.total)
	if c.grown.Known && r.interval > 0 {
		e.Float(rate, float64(c.grown.V)/r.interval.Seconds(), 2)
	}
}
