// Package mem reads how much memory there is, what it holds and how hard it is
// to come by: main memory, swap space, what programs were promised (commit),
// paging, and the kernel's pressure of memory and of disks, which tell together
// how much time went into waiting for pages.
//
// Used memory is total less available: what programs could not get without
// swapping. Cache that the system would give back is not in it, so used, cached
// and free do not add up to total.
//
// On Linux everything comes from /proc/meminfo, /proc/vmstat and /proc/pressure,
// on Windows from GlobalMemoryStatusEx, GetPerformanceInfo and
// NtQuerySystemInformation.
package mem

import (
	"context"
	_ "embed"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
)

// Schema is the JSON Schema of the body of a memory event.
//
//go:embed schema.json
var Schema string

// Bytes is an amount of memory that may not be known.
type Bytes = event.Maybe[uint64]

// A Reading is the body of a memory event.
type Reading struct {
	Total, Available, Used, Free  Bytes
	Cached, Buffers, Shared       Bytes
	Slab, SlabReclaimable         Bytes
	Active, Inactive              Bytes
	KernelPaged, KernelNonpaged   Bytes // the pools of the Windows kernel
	Committed, CommitLimit        Bytes
	SwapTotal, SwapUsed, SwapFree Bytes
	Utilization, SwapUtilization  event.Maybe[float64]
	SwapIn, SwapOut               collect.Counter // bytes
	PageFaults, MajorPageFaults   collect.Counter
	Pressure, DiskPressure        Pressure

	errors []string // what could not be read, as "field: reason"
}

// Pressure is how long tasks waited for something (Linux,
// Documentation/accounting/psi.rst).
type Pressure struct {
	Some event.Maybe[Stall] // at least one task waited
	Full event.Maybe[Stall] // all that were not idle waited
}

// A Stall is one line of pressure.
type Stall struct {
	procfs.Stall
	Share event.Maybe[float64] // of the time since the last reading
}

// A Collector reads memory; it is a collect.Reader.
type Collector struct {
	read      func(*Reading) error
	now, last *Reading
	at        time.Time // of the last reading; zero before the first
	events    [1]event.Event
}

// New returns a Collector for this machine.
func New() *Collector { return newCollector(newSource().read) }

func newCollector(read func(*Reading) error) *Collector {
	return &Collector{read: read, now: new(Reading), last: new(Reading)}
}

// Read emits one memory event.
func (c *Collector) Read(ctx context.Context, emit collect.Emit) error {
	c.now, c.last = c.last, c.now
	*c.now = Reading{errors: c.now.errors[:0]}
	at := time.Now()
	if err := c.read(c.now); err != nil {
		c.at = time.Time{}
		return err
	}
	c.now.derive()
	if !c.at.IsZero() {
		c.now.since(c.last, at.Sub(c.at))
	}
	c.at = at
	c.events[0] = event.Event{Time: at, Kind: event.Memory, Body: c.now, Errors: c.now.errors}
	return emit(ctx, c.events[:]...)
}

// derive computes what follows from one reading alone.
func (r *Reading) derive() {
	r.Used, r.Utilization = used(r.Total, r.Available)
	r.SwapUsed, r.SwapUtilization = used(r.SwapTotal, r.SwapFree)
}

// used returns what is not left, and its share of the total if there is any.
func used(total, left Bytes) (bytes Bytes, share event.Maybe[float64]) {
	if !total.Known || !left.Known || left.V > total.V {
		return bytes, share
	}
	bytes = event.Known(total.V - left.V)
	if total.V > 0 {
		share = event.Known(float64(bytes.V) / float64(total.V))
	}
	return bytes, share
}

// since computes what happened since the last reading.
func (r *Reading) since(last *Reading, d time.Duration) {
	r.SwapIn.Since(last.SwapIn, d)
	r.SwapOut.Since(last.SwapOut, d)
	r.PageFaults.Since(last.PageFaults, d)
	r.MajorPageFaults.Since(last.MajorPageFaults, d)
	r.Pressure.since(last.Pressure, d)
	r.DiskPressure.since(last.DiskPressure, d)
}

func (p *Pressure) since(last Pressure, d time.Duration) {
	p.Some.V.Share = collect.Share(stalled(p.Some), stalled(last.Some), d.Seconds())
	p.Full.V.Share = collect.Share(stalled(p.Full), stalled(last.Full), d.Seconds())
}

func stalled(s event.Maybe[Stall]) event.Maybe[float64] {
	return event.Maybe[float64]{V: s.V.Total, Known: s.Known}
}

// fail notes that field could not be read.
func (r *Reading) fail(field string, err error) {
	r.errors = append(r.errors, field+": "+err.Error())
}

// Encode writes the members of a memory event.
func (r *Reading) Encode(e *event.Encoder) {
	e.MaybeUint("total_bytes", r.Total)
	e.MaybeUint("available_bytes", r.Available)
	e.MaybeUint("used_bytes", r.Used)
	e.MaybeFloat("utilization", r.Utilization, 4)
	e.MaybeUint("free_bytes", r.Free)
	e.MaybeUint("cached_bytes", r.Cached)
	e.MaybeUint("buffers_bytes", r.Buffers)
	e.MaybeUint("shared_bytes", r.Shared)
	e.MaybeUint("slab_bytes", r.Slab)
	e.MaybeUint("slab_reclaimable_bytes", r.SlabReclaimable)
	e.MaybeUint("active_bytes", r.Active)
	e.MaybeUint("inactive_bytes", r.Inactive)
	e.MaybeUint("kernel_paged_bytes", r.KernelPaged)
	e.MaybeUint("kernel_nonpaged_bytes", r.KernelNonpaged)
	e.MaybeUint("committed_bytes", r.Committed)
	e.MaybeUint("commit_limit_bytes", r.CommitLimit)
	e.MaybeUint("swap_total_bytes", r.SwapTotal)
	e.MaybeUint("swap_used_bytes", r.SwapUsed)
	e.MaybeUint("swap_free_bytes", r.SwapFree)
	e.MaybeFloat("swap_utilization", r.SwapUtilization, 4)
	r.SwapIn.Encode(e, "swap_in_bytes", "swap_in_bytes_per_second")
	r.SwapOut.Encode(e, "swap_out_bytes", "swap_out_bytes_per_second")
	r.PageFaults.Encode(e, "page_faults", "page_faults_per_second")
	r.MajorPageFaults.Encode(e, "major_page_faults", "major_page_faults_per_second")
	r.Pressure.encode(e, "pressure")
	r.DiskPressure.encode(e, "disk_pressure")
}

func (p *Pressure) encode(e *event.Encoder, name string) {
	if !p.Some.Known && !p.Full.Known {
		return
	}
	e.Open(name)
	encode(e, "some", p.Some)
	encode(e, "full", p.Full)
	e.Close()
}

func encode(e *event.Encoder, name string, s event.Maybe[Stall]) {
	if !s.Known {
		return
	}
	e.Open(name)
	e.Float("avg10", s.V.Avg10, 4)
	e.Float("avg60", s.V.Avg60, 4)
	e.Float("avg300", s.V.Avg300, 4)
	e.MaybeFloat("ratio", s.V.Share, 4)
	e.Float("stalled_seconds", s.V.Total, 6)
	e.Close()
}
