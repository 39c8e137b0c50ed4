// Package host reads what the machine is: its operating system and kernel, its
// architecture, what it runs in (a virtual machine, a container), when it was
// started and for how long it has been up, and where its clock stands.
//
// Uptime, host name and the offset of the time zone are read each time; the
// rest hardly changes and is read again once an hour.
package host

import (
	"context"
	_ "embed"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
)

// Schema is the JSON Schema of the body of a host event.
//
//go:embed schema.json
var Schema string

// factsEvery is how long what hardly changes is taken for unchanged: an upgrade
// of the system is seen without a restart of the agent.
const factsEvery = time.Hour

// A Reading is the body of a host event. An empty text is not known.
type Reading struct {
	Name     string
	BootTime time.Time
	Uptime   event.Maybe[float64] // seconds
	Zone     string               // as the system names it
	Offset   event.Maybe[int64]   // seconds east of UTC
	Facts

	errors []string // what could not be read, as "field: reason"
}

// Facts are what hardly changes.
type Facts struct {
	OS             OS
	Kernel         Kernel
	Architecture   string // as OpenTelemetry names it
	Virtualization string // the hypervisor; empty where there is no sign of one
	Container      string // its manager; empty where there is no sign of one
	BootID         string
}

// OS is the operating system.
type OS struct {
	Type    string // linux or windows
	ID      string // of a Linux distribution
	Name    string
	Version string
	Build   string
	Release string // 23H2: what Windows calls its version
	Edition string // of Windows
}

// Kernel is the kernel that runs.
type Kernel struct{ Name, Release, Version string }

// A Collector reads the host; it is a collect.Reader.
type Collector struct {
	read   func(*Reading) error
	now    Reading
	boot   time.Time // as first told
	events [1]event.Event
}

// New returns a Collector for this machine.
func New() *Collector { return newCollector(newSource().read) }

func newCollector(read func(*Reading) error) *Collector { return &Collector{read: read} }

// Read emits one host event.
func (c *Collector) Read(ctx context.Context, emit collect.Emit) error {
	c.now = Reading{errors: c.now.errors[:0]}
	at := time.Now()
	if err := c.read(&c.now); err != nil {
		return err
	}
	c.now.BootTime = c.steady(c.now.BootTime)
	c.events[0] = event.Event{Time: at, Kind: event.Host, Body: &c.now, Errors: c.now.errors}
	return emit(ctx, c.events[:]...)
}

// steady returns the boot time as it was first told, unless the system moved it
// by more than a second: then its clock was set, and the old one was wrong.
func (c *Collector) steady(boot time.Time) time.Time {
	if boot.IsZero() || boot.Sub(c.boot).Abs() > time.Second {
		c.boot = boot
	}
	return c.boot
}

// fail notes that field could not be read.
func (r *Reading) fail(field string, err error) {
	r.errors = append(r.errors, field+": "+err.Error())
}

// Encode writes the members of a host event.
func (r *Reading) Encode(e *event.Encoder) {
	e.String("name", r.Name)
	e.Open("os")
	e.String("type", r.OS.Type)
	e.String("id", r.OS.ID)
	e.String("name", r.OS.Name)
	e.String("version", r.OS.Version)
	e.String("build", r.OS.Build)
	e.String("release", r.OS.Release)
	e.String("edition", r.OS.Edition)
	e.Close()
	e.Open("kernel")
	e.String("name", r.Kernel.Name)
	e.String("release", r.Kernel.Release)
	e.String("version", r.Kernel.Version)
	e.Close()
	e.String("architecture", r.Architecture)
	e.String("virtualization", r.Virtualization)
	e.String("container", r.Container)
	e.Time("boot_time", r.BootTime)
	e.String("boot_id", r.BootID)
	e.MaybeFloat("uptime_seconds", r.Uptime, 2)
	if r.Offset.Known {
		e.Open("time_zone")
		e.String("name", r.Zone)
		e.MaybeInt("offset_seconds", r.Offset)
		e.Close()
	}
}
