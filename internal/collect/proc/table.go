package proc

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/rea-agent/rea/internal/event"
)

// A state is what a process does, in the words that both systems share.
type state uint8

const (
	running  state = iota // on a processor, or ready to be
	sleeping              // waiting
	blocked               // waiting where no signal reaches it: "disk sleep"
	stopped               // by a signal, a debugger, or suspended
	zombie                // ended, and not yet waited for
	idle                  // a kernel thread without work
	unknown               // not readable, or a word of a newer system
	states
)

var stateNames = [states]string{"running", "sleeping", "blocked", "stopped", "zombie", "idle", "unknown"}

// windowsStates are those that Windows tells apart, as linuxStates are Linux's: the
// count of another one is absent, not zero. unknown is written where there are
// such processes.
var windowsStates = []state{running, sleeping, stopped}

// facts are what a scan tells of each process.
type facts struct {
	parent   uint32
	start    uint64        // when it began, in the count of its system
	cpu      time.Duration // user and system time of its life
	threads  uint64
	resident uint64 // bytes
	virtual  uint64 // bytes
	state    state
	kernel   bool // a thread of the kernel, which has no memory and no threads of its own
}

// A process is one line of the table. What is not a fact of every scan is
// filled in for listed processes only, on Windows for all.
type process struct {
	pid uint32
	facts
	name string
	born time.Time // zero if not known

	private     event.Maybe[uint64] // resident and shared with nobody, bytes
	committed   event.Maybe[uint64]
	descriptors event.Maybe[uint64]
	handles     event.Maybe[uint64]
	read        counter
	written     counter
	executable  string
	user        string
	command     string

	spent  time.Duration // processor time since the reading before; of its life if it is new
	rated  bool          // spent is since the reading before
	seen   uint64        // the reading that saw it last; 0 for none
	listed uint64        // the reading that listed it last
	held   held          // what its system holds for it
}

// A counter is a count since the process began, and how much of it is of the
// time since the reading before.
type counter struct {
	total   event.Maybe[uint64]
	grown   event.Maybe[uint64]
	reading uint64 // that told total
}

// set takes the count of a reading. A count that went backwards was reset, and
// one that the reading before did not take has grown over an unknown time.
func (c *counter) set(v, reading uint64) {
	c.grown = event.Maybe[uint64]{}
	if c.total.Known && c.reading+1 == reading && v >= c.total.V {
		c.grown = event.Known(v - c.total.V)
	}
	c.total, c.reading = event.Known(v), reading
}

// A table remembers processes from one reading to the next.
type table struct {
	byPID   map[uint32]*process
	reading uint64    // counts from 1, so that 0 is never a reading
	now     time.Time // when the reading began
	unread  tally     // processes that are there but could not be read
}

func newTable() table {
	return table{byPID: make(map[uint32]*process), unread: tally{field: "processes"}}
}

func (t *table) begin(now time.Time) {
	t.reading++
	t.now = now
	t.unread = tally{field: t.unread.field}
}

// at returns the process with that pid, or a new line of the table, which is
// dropped again unless see follows.
func (t *table) at(pid uint32) *process {
	p := t.byPID[pid]
	if p == nil {
		p = &process{pid: pid}
		t.byPID[pid] = p
	}
	return p
}

// isNew reports whether a process that began at start is another one than the
// table knew by p's pid.
func (p *process) isNew(start uint64) bool { return p.seen == 0 || p.start != start }

// see takes what the scan tells of p and reports whether it is a new process,
// of which all but pid, facts and held is then blank.
func (t *table) see(p *process, f *facts) (fresh bool) {
	fresh = p.isNew(f.start)
	if fresh {
		*p = process{pid: p.pid, held: p.held, spent: f.cpu}
	} else {
		p.rated = f.cpu >= p.cpu
		p.spent = max(f.cpu-p.cpu, 0)
	}
	p.facts, p.seen = *f, t.reading
	return fresh
}

// totals are the counts over all processes.
type totals struct {
	processes uint64
	threads   uint64
	byState   [states]uint64
}

func (t *totals) add(p *process) {
	t.processes++
	t.threads += p.threads
	t.byState[p.state]++
}

func (t *totals) addUnread(n int) {
	t.processes += uint64(n)
	t.byState[unknown] += uint64(n)
}

// A top keeps the first n of the processes offered to it, in order.
type top struct {
	list  []*process
	n     int
	order func(a, b *process) int
}

func newTop(n int, order func(a, b *process) int) top {
	return top{list: make([]*process, 0, n), n: n, order: order}
}

func byCPU(a, b *process) int {
	return cmp.Or(cmp.Compare(b.spent, a.spent), cmp.Compare(a.pid, b.pid))
}

func byMemory(a, b *process) int {
	return cmp.Or(cmp.Compare(b.resident, a.resident), cmp.Compare(a.pid, b.pid))
}

// offer inserts p where it belongs. Most processes are turned away by one
// comparison with the last, which is why the list needs no heap.
func (t *top) offer(p *process) {
	i := len(t.list)
	switch {
	case i < t.n:
		t.list = append(t.list, p)
	case i == 0 || t.order(p, t.list[i-1]) > 0:
		return
	default:
		i--
	}
	for ; i > 0 && t.order(p, t.list[i-1]) < 0; i-- {
		t.list[i] = t.list[i-1]
	}
	t.list[i] = p
}

// A tally counts what could not be read of one field, so that a thousand
// processes of other users are one line of errors.
type tally struct {
	field string
	n     int
	first error
}

func (t *tally) add(err error) {
	if t.n == 0 {
		t.first = err
	}
	t.n++
}

// note adds err unless it says that the process has gone meanwhile.
func (t *tally) note(err error) {
	if err != nil && !gone(err) {
		t.add(err)
	}
}

// gone reports whether err says that a process is not there any more.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// report appends the line to errs, if there is one.
func (t *tally) report(errs []string) []string {
	if t.n == 0 {
		return errs
	}
	return append(errs, fmt.Sprintf("%s: %v (processes: %d)", t.field, t.first, t.n))
}
