package netif

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
	"golang.org/x/sys/unix"
)

// How old speed, MTU and type may become while the state of an interface stays
// the same. The state is read at each reading, the others when it changed, since
// a link is negotiated then: asking for the speed asks the driver, under a lock
// that configuring any interface takes.
const refresh = time.Minute

// So many descriptors are kept open for the states of interfaces. Those of
// further interfaces are opened at each reading.
const maxHeld = 64

// A system reads this machine, or the one that a test laid out under root.
type system struct {
	root      string
	dev       procfs.File
	scan      *scanner
	protocols []protocolFile
	ports     map[string]*port
	reading   uint64
	buf       []byte // what is being read; parsed before the next
}

type protocolFile struct {
	procfs.File
	name     string
	optional bool // absent where IPv6 is off
	parse    func(*values, []byte) (bad int)
}

// A port is what stays of an interface between readings.
type port struct {
	facts     link // without its traffic
	asked     time.Time
	operstate procfs.File
	reading   uint64
}

func newSystem() *system { return machine("") }

func machine(root string) *system {
	scan := newScanner()
	s := &system{root: root, dev: procfs.File{Path: root + "/proc/self/net/dev"}, scan: scan, ports: make(map[string]*port)}
	for _, p := range []protocolFile{
		{name: "snmp", parse: scan.table},
		{name: "netstat", parse: scan.table},
		{name: "snmp6", parse: scan.list, optional: true},
		{name: "sockstat", parse: scan.pairs},
		{name: "sockstat6", parse: scan.pairs, optional: true},
	} {
		p.Path = root + "/proc/self/net/" + p.name
		s.protocols = append(s.protocols, p)
	}
	return s
}

func (s *system) read(now time.Time, out *sample) error {
	if err := s.interfaces(now, out); err != nil {
		out.errs = append(out.errs, "interfaces: "+err.Error())
	}
	ipv6 := true
	for i := range s.protocols {
		p := &s.protocols[i]
		err := s.protocol(p, &out.values)
		switch {
		case p.optional && errors.Is(err, unix.ENOENT):
			ipv6 = false
		case err != nil:
			out.errs = append(out.errs, p.name+": "+err.Error())
		}
	}
	s.scan.finish(&out.values, ipv6)
	pages(&out.values)
	return nil
}

func (s *system) protocol(p *protocolFile, v *values) error {
	b, err := p.Read(&s.buf)
	if err != nil {
		return err
	}
	if bad := p.parse(v, b); bad > 0 {
		return fmt.Errorf("%d numbers are not as expected", bad)
	}
	return nil
}

// pages makes bytes of what sockstat counts in pages.
func pages(v *values) {
	for _, at := range [...]slot{socketsTCPMemory, socketsUDPMemory} {
		v[at].V *= uint64(os.Getpagesize())
	}
}

// interfaces reads the counters of all interfaces at once and adds what sysfs
// says of each.
func (s *system) interfaces(now time.Time, out *sample) error {
	b, err := s.dev.Read(&s.buf)
	if err != nil {
		return err
	}
	s.reading++
	_, b = procfs.Line(b) // two lines of headings
	_, b = procfs.Line(b)
	bad := 0
	for len(b) > 0 {
		var line []byte
		line, b = procfs.Line(b)
		name, l, ok := parseInterface(line)
		if !ok {
			bad++
			continue
		}
		l.name = s.port(name).facts.name
		out.links = append(out.links, l)
	}
	s.describe(now, out.links)
	s.forget(len(out.links))
	if bad > 0 {
		return fmt.Errorf("%d lines of dev are not as expected", bad)
	}
	return nil
}

func (s *system) port(name []byte) *port {
	p, ok := s.ports[string(name)]
	if !ok {
		p = &port{facts: link{name: string(name)}}
		p.operstate.Path = s.attribute(p.facts.name, "operstate")
		s.ports[p.facts.name] = p
	}
	p.reading = s.reading
	return p
}

// forget closes what was kept of interfaces that are gone.
func (s *system) forget(present int) {
	if len(s.ports) <= present {
		return
	}
	for name, p := range s.ports {
		if p.reading != s.reading {
			p.operstate.Close()
			delete(s.ports, name)
		}
	}
}

// describe fills in what sysfs says. A sysfs that is not there, or belongs to
// another network namespace, leaves it unknown.
func (s *system) describe(now time.Time, links []link) {
	for i := range links {
		l := &links[i]
		p := s.ports[l.name]
		state := stateOf(s.text(&p.operstate))
		if i >= maxHeld {
			p.operstate.Close()
		}
		if p.asked.IsZero() || state != p.facts.state || now.Sub(p.asked) >= refresh {
			p.asked, p.facts.state = now, state
			s.ask(&p.facts)
		}
		l.state, l.kind, l.virtual, l.speed, l.mtu = p.facts.state, p.facts.kind, p.facts.virtual, p.facts.speed, p.facts.mtu
	}
}

// text reads a small file of sysfs, empty where it cannot be read.
func (s *system) text(f *procfs.File) []byte {
	b, err := f.Read(&s.buf)
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(b)
}

func (s *system) attribute(name, attribute string) string {
	return s.root + "/sys/class/net/" + name + "/" + attribute
}

func (s *system) ask(l *link) {
	once := func(attribute string) []byte {
		f := procfs.File{Path: s.attribute(l.name, attribute)}
		defer f.Close()
		return s.text(&f)
	}
	has := func(attribute string) bool { return unix.Access(s.attribute(l.name, attribute), unix.F_OK) == nil }
	l.kind = kindOf(once("type"))
	if has("wireless") || has("phy80211") {
		l.kind = "wifi"
	}
	l.speed = speedOf(once("speed")) // EINVAL where the link is down or has no speed
	mtu, ok := procfs.Uint(once("mtu"))
	l.mtu = event.Maybe[uint64]{V: mtu, Known: ok}
	// Only what is made of a device has a link to it.
	l.virtual = event.Maybe[bool]{V: !has("device"), Known: l.kind != ""}
}
