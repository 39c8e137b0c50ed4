// Package cpu reads what the processors do: how their time divides among the
// modes, in all and core by core, how often they were interrupted and switched,
// how long the queue for them is, and how many there are.
//
// Times are cumulative since boot; a share is what became of the time since the
// last reading, and a rate is what was counted in it. Neither is there at the
// first reading, nor when a counter went backwards (a core that was unplugged
// and came back starts anew). Guest time is a part of user and nice time, and is
// not counted a second time.
//
// On Linux everything comes from /proc/stat, /proc/loadavg, /proc/pressure/cpu
// and the folder of each core in /sys; on Windows from NtQuerySystemInformation.
package cpu

import (
	"context"
	_ "embed"
	"slices"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
)

// Schema is the JSON Schema of the body of a cpu event.
//
//go:embed schema.json
var Schema string

// coresPerEvent bounds a line: a core takes about 400 bytes of it.
const coresPerEvent = 64

// A Reading is the body of a cpu event.
type Reading struct {
	Logical  event.Maybe[int64] // cores that run programs now
	Physical event.Maybe[int64] // of which so many do not share their silicon
	All      Usage
	Cores    Cores

	Switches   collect.Counter // of contexts
	Interrupts collect.Counter
	Forks      collect.Counter

	Load     event.Maybe[[3]float64] // over 1, 5 and 15 minutes
	Pressure event.Maybe[Pressure]

	errors []string // what could not be read, as "field: reason"
}

// Usage is how time divides among the modes.
type Usage struct {
	Time   Times                // seconds since boot
	Shares Times                // of the time since the last reading
	Busy   event.Maybe[float64] // the share that was neither idle nor iowait
}

// Times holds a value for each mode that the system tells of.
type Times [modes]event.Maybe[float64]

// The modes. Windows calls softirq a deferred procedure call.
const (
	user = iota
	nice
	system
	idle
	iowait
	interrupt
	softirq
	steal
	modes
)

var modeNames = [modes]string{"user", "nice", "system", "idle", "iowait", "interrupt", "softirq", "steal"}

// Cores are some or all cores of a machine, ordered by group and number. They
// are a body of their own where one event cannot hold them all.
type Cores []Core

// A Core is one logical processor.
type Core struct {
	Group     event.Maybe[int64] // Windows numbers the cores of each group of 64
	Number    int64
	Frequency event.Maybe[float64] // hertz
	Usage
}

// Pressure is how long some task waited for a core although it could have run
// (Linux). That all tasks did has no meaning for the machine as a whole
// (Documentation/accounting/psi.rst).
type Pressure struct {
	procfs.Stall
	Share event.Maybe[float64] // of the time since the last reading
}

// A Collector reads the processors; it is a collect.Reader.
type Collector struct {
	read      func(*Reading) error
	now, last *Reading
	at        time.Time // of the last reading; zero before the first
	rest      []Cores   // what the first event of a reading has no room for
	events    []event.Event
}

// New returns a Collector for this machine.
func New() *Collector { return newCollector(newSource().read) }

func newCollector(read func(*Reading) error) *Collector {
	return &Collector{read: read, now: new(Reading), last: new(Reading)}
}

// Read emits one cpu event; a machine of more than 64 cores fills several of
// the same time, all but the first with nothing but cores.
func (c *Collector) Read(ctx context.Context, emit collect.Emit) error {
	c.now, c.last = c.last, c.now
	*c.now = Reading{Cores: c.now.Cores[:0], errors: c.now.errors[:0]}
	at := time.Now()
	if err := c.read(c.now); err != nil {
		c.at = time.Time{}
		return err
	}
	if !c.at.IsZero() {
		c.now.since(c.last, at.Sub(c.at))
	}
	c.at = at
	return emit(ctx, c.split(at)...)
}

// split makes of the reading as many events as its cores need.
func (c *Collector) split(at time.Time) []event.Event {
	c.rest, c.events = c.rest[:0], c.events[:0]
	for part := range slices.Chunk(c.now.Cores[min(coresPerEvent, len(c.now.Cores)):], coresPerEvent) {
		c.rest = append(c.rest, part)
	}
	c.events = append(c.events, event.Event{Time: at, Kind: event.CPU, Body: c.now, Errors: c.now.errors})
	for i := range c.rest {
		c.events = append(c.events, event.Event{Time: at, Kind: event.CPU, Body: &c.rest[i]})
	}
	return c.events
}

// since computes what became of the time since the last reading.
func (r *Reading) since(last *Reading, d time.Duration) {
	r.All.since(&last.All)
	for i := range r.Cores {
		if before := last.Cores.find(&r.Cores[i], i); before != nil {
			r.Cores[i].since(&before.Usage)
		}
	}
	r.Switches.Since(last.Switches, d)
	r.Interrupts.Since(last.Interrupts, d)
	r.Forks.Since(last.Forks, d)
	r.Pressure.V.Share = collect.Share(stalled(r), stalled(last), d.Seconds())
}

// A mode may fall by so many seconds without having been reset: iowait does, by
// the kernel's own admission (proc_stat(5)), and on Windows system time is a
// difference of counters that were not read at one instant.
const slack = 1

// since divides the time since before among the modes.
func (u *Usage) since(before *Usage) {
	var spent [modes]float64
	var total float64
	for m, now := range u.Time {
		if now.Known != before.Time[m].Known {
			return
		}
		if now.V < before.Time[m].V-slack {
			return
		}
		spent[m] = max(0, now.V-before.Time[m].V)
		total += spent[m]
	}
	if total == 0 {
		return
	}
	for m, now := range u.Time {
		u.Shares[m] = event.Maybe[float64]{V: spent[m] / total, Known: now.Known}
	}
	u.Busy = event.Known(1 - (spent[idle]+spent[iowait])/total)
}

func stalled(r *Reading) event.Maybe[float64] {
	return event.Maybe[float64]{V: r.Pressure.V.Total, Known: r.Pressure.Known}
}

// find returns the core that is the same as of, which was at place i unless
// cores came or went.
func (c Cores) find(of *Core, i int) *Core {
	if i < len(c) && c[i].Group == of.Group && c[i].Number == of.Number {
		return &c[i]
	}
	for i := range c {
		if c[i].Group == of.Group && c[i].Number == of.Number {
			return &c[i]
		}
	}
	return nil
}

// fail notes that field could not be read.
func (r *Reading) fail(field string, err error) {
	r.errors = append(r.errors, field+": "+err.Error())
}

// Encode writes the members of a cpu event.
func (r *Reading) Encode(e *event.Encoder) {
	e.MaybeInt("logical_count", r.Logical)
	e.MaybeInt("physical_count", r.Physical)
	r.All.encode(e)
	r.Switches.Encode(e, "context_switches", "context_switches_per_second")
	r.Interrupts.Encode(e, "interrupts", "interrupts_per_second")
	r.Forks.Encode(e, "forks", "forks_per_second")
	if r.Load.Known {
		e.Float("load_average_1m", r.Load.V[0], 2)
		e.Float("load_average_5m", r.Load.V[1], 2)
		e.Float("load_average_15m", r.Load.V[2], 2)
	}
	if r.Pressure.Known {
		r.Pressure.V.encode(e)
	}
	r.Cores[:min(coresPerEvent, len(r.Cores))].Encode(e)
}

// Encode writes the member that lists the cores.
func (c Cores) Encode(e *event.Encoder) {
	if len(c) == 0 {
		return
	}
	e.OpenList("cores")
	for i := range c {
		e.OpenItem()
		e.MaybeInt("group", c[i].Group)
		e.Int("number", c[i].Number)
		e.MaybeFloat("frequency_hertz", c[i].Frequency, 0)
		c[i].encode(e)
		e.CloseItem()
	}
	e.CloseList()
}

func (u *Usage) encode(e *event.Encoder) {
	e.MaybeFloat("utilization", u.Busy, 4)
	u.Shares.encode(e, "time_ratio", 4)
	u.Time.encode(e, "time_seconds", 3)
}

func (t *Times) encode(e *event.Encoder, name string, places int) {
	if !t[idle].Known {
		return
	}
	e.Open(name)
	for m, v := range t {
		e.MaybeFloat(modeNames[m], v, places)
	}
	e.Close()
}

func (p *Pressure) encode(e *event.Encoder) {
	e.Open("pressure")
	e.Open("some")
	e.Float("avg10", p.Avg10, 4)
	e.Float("avg60", p.Avg60, 4)
	e.Float("avg300", p.Avg300, 4)
	e.MaybeFloat("ratio", p.Share, 4)
	e.Float("stalled_seconds", p.Total, 6)
	e.Close()
	e.Close()
}
