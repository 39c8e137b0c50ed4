// Package disk reads how full the mounted file systems are and what the disks
// under them do.
//
// A mount is listed once: file systems of the kernel alone (proc, cgroup and
// the like, see pseudo in mountinfo.go), those of no size, and those that
// another mount covers are left out, and of several mounts of one file system
// (bind mounts, btrfs subvolumes) the one with the shortest mountpoint stays.
//
// A file system whose server or disk is dead may never answer. So each mount is
// asked by a probe in a goroutine of its own, at most one at a time, and a
// reading waits for the probes that it started, not longer than
// Config.ProbeTimeout. A mount that did not answer is reported as such, in that
// reading and without any wait in the next ones, until its probe comes back.
//
// Names of mounts may tell of people (/home/ann, /media/ann/Holiday), so they
// are encoded as paths that the pipeline may redact, and no error repeats them:
// an error says mounts[3]. Of the mount options only those of the mount itself
// are written; those of the file system may hold accounts and passwords.
package disk

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
)

// Schema is the JSON Schema of a Reading.
//
//go:embed schema.json
var Schema string

// Config is what an operator may choose.
type Config struct {
	ProbeTimeout time.Duration // how long a reading waits for mounts; 0 is DefaultProbeTimeout
}

// DefaultProbeTimeout is long for a file system that works and short beside the
// time that a collector is given.
const DefaultProbeTimeout = 2 * time.Second

// Lists of more members than this go on in another event of the same time.
const maxMembers = 256

// A Reading is the body of a disk event.
type Reading struct {
	Mounts  []Mount
	Devices []Device
}

// Encode writes the members of the disk object.
func (r *Reading) Encode(e *event.Encoder) {
	if len(r.Mounts) > 0 {
		e.OpenList("mounts")
		for i := range r.Mounts {
			e.OpenItem()
			r.Mounts[i].encode(e)
			e.CloseItem()
		}
		e.CloseList()
	}
	if len(r.Devices) > 0 {
		e.OpenList("devices")
		for i := range r.Devices {
			e.OpenItem()
			r.Devices[i].encode(e)
			e.CloseItem()
		}
		e.CloseList()
	}
}

// A sample is what the system said: the volumes, whose slice is made anew when
// they changed, and the counters of devices at this moment.
type sample struct {
	volumes []volume
	stats   []stat
	errs    []string
}

// A Collector reads disks. It belongs to one goroutine at a time.
type Collector struct {
	timeout time.Duration
	read    func(now time.Time, s *sample) error
	kind    func(device string) string
	measure func(v *volume) (usage, error)

	sample  sample
	known   []volume // the volumes of the last reading, with their probes
	orphans []*probe // hanging probes of volumes that are gone
	timer   *time.Timer

	at            time.Time
	mounts        []Mount
	devices, last []Device // this reading's and the one's before
	readings      []Reading
	events        []event.Event
}

// New returns a Collector for this machine.
func New(cfg Config) *Collector {
	if cfg.ProbeTimeout <= 0 {
		cfg.ProbeTimeout = DefaultProbeTimeout
	}
	s := newSystem()
	return &Collector{timeout: cfg.ProbeTimeout, read: s.read, kind: s.kind, measure: measure}
}

// Read emits one disk event, or several of the same time if the lists are long.
func (c *Collector) Read(ctx context.Context, emit collect.Emit) error {
	now := time.Now()
	c.sample.stats, c.sample.errs = c.sample.stats[:0], c.sample.errs[:0]
	if err := c.read(now, &c.sample); err != nil {
		return err
	}
	c.adopt(c.sample.volumes)
	c.rate(now)
	c.ask(ctx, now)
	c.collect(now)
	if len(c.mounts)+len(c.devices) == 0 && len(c.sample.errs) > 0 {
		return errors.New(c.sample.errs[0])
	}
	return emit(ctx, c.split(now)...)
}

// rate shapes the counters of devices, with rates since the last reading.
func (c *Collector) rate(now time.Time) {
	c.last, c.devices = c.devices, c.last[:0]
	seconds := now.Sub(c.at).Seconds()
	c.at = now
	next := 0
	for i := range c.sample.stats {
		s := &c.sample.stats[i]
		c.devices = append(c.devices, Device{stat: *s})
		d := &c.devices[i]
		if j, ok := find(c.last, s.name, next); ok {
			next = j + 1
			d.Name, d.Kind = c.last[j].Name, c.last[j].Kind
			d.rate(&c.last[j], seconds)
			continue
		}
		d.Name = string(s.name)
		d.Kind = c.kind(d.Name)
	}
}

// find looks for a device by name from position next on, and then from the
// start: devices come in the same order at each reading, so the first look
// nearly always hits.
func find(list []Device, name []byte, next int) (int, bool) {
	for k := range list {
		if j := (next + k) % len(list); list[j].Name == string(name) {
			return j, true
		}
	}
	return 0, false
}

// split makes events of the reading, and puts each error into the event that
// it tells of.
func (c *Collector) split(now time.Time) []event.Event {
	n := max(1, chunks(len(c.mounts)), chunks(len(c.devices)))
	for len(c.readings) < n {
		c.readings = append(c.readings, Reading{})
		c.events = append(c.events, event.Event{})
	}
	for i := range n {
		r := &c.readings[i]
		r.Mounts, r.Devices = chunk(c.mounts, i), chunk(c.devices, i)
		errs := c.events[i].Errors[:0]
		if i == 0 {
			errs = append(errs, c.sample.errs...)
		}
		c.events[i] = event.Event{Time: now, Kind: event.Disk, Body: r, Errors: complain(errs, r.Mounts)}
	}
	return c.events[:n]
}

func chunks(n int) int { return (n + maxMembers - 1) / maxMembers }

func chunk[T any](list []T, i int) []T {
	return list[min(i*maxMembers, len(list)):min((i+1)*maxMembers, len(list))]
}

// An event lists the troubles of so many mounts and counts the others.
const maxErrors = 16

func complain(errs []string, mounts []Mount) []string {
	more := 0
	for i := range mounts {
		switch err := mounts[i].err; {
		case err == nil:
		case len(errs) >= maxErrors:
			more++
		default:
			errs = append(errs, fmt.Sprintf("mounts[%d]: %v", i, err))
		}
	}
	if more > 0 {
		errs = append(errs, fmt.Sprintf("mounts: %d more could not be read", more))
	}
	return errs
}
