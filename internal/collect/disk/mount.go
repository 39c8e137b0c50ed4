package disk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rea-agent/rea/internal/event"
)

// A volume is a mounted file system as the system lists it.
type volume struct {
	id         uint64 // of the mount, where the system has one
	path       string // what is asked
	device     string
	mountpoint string
	fsType     string // may come with the usage
	options    string // so may these
	remote     bool
	probe      *probe
}

// usage is what a file system answers.
type usage struct {
	total, free, available uint64 // bytes; a total of 0 is no file system to list
	inodes, inodesFree     event.Maybe[uint64]
	fsType, options        string // where the volume did not know them
}

// A probe asks one volume. Only its Collector touches it, but while it is in
// flight volume, usage and err belong to its goroutine. That ends when the file
// system answers; nothing can end it before, and nobody waits for it longer than
// one time-out.
type probe struct {
	volume   volume
	usage    usage
	err      error
	inFlight bool
	since    time.Time
	done     chan struct{} // holds one: a late answer never waits for a reader
}

func (p *probe) run(measure func(*volume) (usage, error)) {
	p.usage, p.err = measure(&p.volume)
	p.done <- struct{}{}
}

// States of a mount.
const (
	stateOK      = "ok"
	stateTimeout = "timeout"
	stateError   = "error"
)

// A Mount is one mounted file system.
type Mount struct {
	volume *volume
	usage  usage
	state  string
	err    error
}

func (m *Mount) encode(e *event.Encoder) {
	v, u := m.volume, &m.usage
	e.Sensitive("device", event.Path, v.device)
	e.Sensitive("mountpoint", event.Path, v.mountpoint)
	e.String("type", v.fsType+u.fsType)
	e.String("options", v.options+u.options)
	e.Bool("remote", v.remote)
	e.String("state", m.state)
	if m.state != stateOK {
		return
	}
	e.Uint("total_bytes", u.total)
	e.Uint("free_bytes", u.free)
	e.Uint("available_bytes", u.available)
	if u.free <= u.total {
		used := u.total - u.free
		e.Uint("used_bytes", used)
		e.Float("utilization", float64(used)/(float64(used)+float64(u.available)), 4)
	}
	e.MaybeUint("inodes_total", u.inodes)
	e.MaybeUint("inodes_free", u.inodesFree)
	if u.inodes.Known && u.inodesFree.Known && u.inodesFree.V <= u.inodes.V {
		e.Uint("inodes_used", u.inodes.V-u.inodesFree.V)
	}
}

// adopt makes list the known volumes: one that was known keeps its probe, and
// the probe of one that is gone is kept until it comes back.
func (c *Collector) adopt(list []volume) {
	if len(list) == len(c.known) && (len(list) == 0 || &list[0] == &c.known[0]) {
		return // the table did not change
	}
	old := make(map[volume]*probe, len(c.known))
	for _, v := range c.known {
		p := v.probe
		v.probe = nil
		old[v] = p
	}
	for i := range list {
		v := &list[i]
		p, ok := old[*v]
		if !ok {
			p = &probe{volume: *v, done: make(chan struct{}, 1)}
		}
		delete(old, *v)
		v.probe = p
	}
	for _, p := range old {
		if p.inFlight {
			c.orphans = append(c.orphans, p)
		}
	}
	c.known = list
}

// With so many probes hanging no other is started. Each holds a thread, and
// mounts that are mounted, hang and are detached over and over would otherwise
// leave ever more of them behind.
const maxHanging = 256

var errCrowded = errors.New("not asked: too many others hang")

// ask starts a probe for every volume that has none in flight, and waits for
// these until time is up or ctx ends.
//
// None is asked on the goroutine of the reading itself, not even the file
// systems that answer from memory: the way to a mountpoint may lead through a
// dead one, and some only seem local (xfs in Linux 5.14 to 5.18 waited in
// statfs for the disk, overlay asks its upper layer, vfat may count its whole
// table). A goroutine costs about one microsecond more than the bare call.
func (c *Collector) ask(ctx context.Context, now time.Time) {
	hanging := c.reap()
	for i := range c.known {
		if p := c.known[i].probe; !p.inFlight && hanging < maxHanging {
			p.inFlight, p.since = true, now
			go p.run(c.measure)
		}
	}
	c.startTimer()
	defer c.timer.Stop()
	for i := range c.known {
		p := c.known[i].probe
		if !p.inFlight || !p.since.Equal(now) {
			continue
		}
		select {
		case <-p.done:
			p.inFlight = false
		case <-c.timer.C:
			c.reap()
			return
		case <-ctx.Done():
			c.reap()
			return
		}
	}
}

func (c *Collector) startTimer() {
	if c.timer == nil {
		c.timer = time.NewTimer(c.timeout)
		return
	}
	c.timer.Reset(c.timeout)
}

// reap takes in the answers that came, and returns how many are outstanding.
func (c *Collector) reap() (hanging int) {
	for i := range c.known {
		if c.known[i].probe.outstanding() {
			hanging++
		}
	}
	left := c.orphans[:0]
	for _, p := range c.orphans {
		if p.outstanding() {
			left = append(left, p)
		}
	}
	clear(c.orphans[len(left):])
	c.orphans = left
	return hanging + len(left)
}

func (p *probe) outstanding() bool {
	select {
	case <-p.done:
		p.inFlight = false
	default:
	}
	return p.inFlight
}

// collect makes mounts of the known volumes and their probes.
func (c *Collector) collect(now time.Time) {
	c.mounts = c.mounts[:0]
	for i := range c.known {
		v := &c.known[i]
		m := Mount{volume: v, state: stateOK}
		switch p := v.probe; {
		case p.inFlight:
			m.state, m.err = stateTimeout, fmt.Errorf("no answer for %v", time.Since(p.since).Round(time.Millisecond))
		case !p.since.Equal(now):
			m.state, m.err = stateTimeout, errCrowded
		case p.err != nil:
			m.state, m.err = stateError, p.err
		case p.usage.total == 0:
			continue
		default:
			m.usage = p.usage
		}
		c.mounts = append(c.mounts, m)
	}
}
