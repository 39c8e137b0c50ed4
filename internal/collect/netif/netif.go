// Package netif reads what goes through the network interfaces and what the
// kernel's protocols count: segments, retransmits, errors and drops of TCP, UDP,
// IP and ICMP, and how many sockets there are. These are the kernel's own
// totals; connections are never listed, since that costs more than everything
// else together.
//
// On Linux it is the network namespace of the agent that is read. Hardware
// addresses and IP addresses are left out: they tell of people, and the envelope
// names the machine already.
//
// The loopback interface is among the interfaces. On Windows two kinds of rows
// of the interface table are left out: filters, which repeat what the interface
// below them counts, and software interfaces (the WAN miniports, tunnels of no
// use) that never carried a byte.
package netif

import (
	"context"
	_ "embed"
	"errors"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
)

// Schema is the JSON Schema of a Reading.
//
//go:embed schema.json
var Schema string

// Lists of more members than this go on in another event of the same time.
const maxMembers = 256

// A Reading is the body of a network event. The counters of protocols stand in
// the first event of a time only.
type Reading struct {
	Interfaces []Interface
	protocols  *protocols
}

// Encode writes the members of the network object.
func (r *Reading) Encode(e *event.Encoder) {
	if len(r.Interfaces) > 0 {
		e.OpenList("interfaces")
		for i := range r.Interfaces {
			e.OpenItem()
			r.Interfaces[i].encode(e)
			e.CloseItem()
		}
		e.CloseList()
	}
	if r.protocols != nil {
		r.protocols.encode(e)
	}
}

// A link is what the system says of one interface.
type link struct {
	name              string
	state             string // as RFC 2863 names them, without spaces; empty if unknown
	kind              string // empty if unknown
	virtual           event.Maybe[bool]
	speed             event.Maybe[uint64] // bits per second
	mtu               event.Maybe[uint64]
	receive, transmit traffic
	multicast         event.Maybe[uint64] // packets received
}

// traffic is what went one way.
type traffic struct {
	bytes, packets, errors, dropped uint64
}

// A sample is what the system said at one moment.
type sample struct {
	links  []link
	values values
	errs   []string
}

// An Interface is a link, and its traffic per second since the last reading.
type Interface struct {
	link
	receiveRate, transmitRate rate
	multicastRate             event.Maybe[float64]
}

type rate struct {
	bytes, packets, errors, dropped event.Maybe[float64]
}

func (i *Interface) encode(e *event.Encoder) {
	e.String("name", i.name)
	e.String("type", i.kind)
	if i.virtual.Known {
		e.Bool("virtual", i.virtual.V)
	}
	e.String("state", i.state)
	e.MaybeUint("speed_bits_per_second", i.speed)
	e.MaybeUint("mtu_bytes", i.mtu)
	receiveNames.encode(e, &i.receive, &i.receiveRate)
	transmitNames.encode(e, &i.transmit, &i.transmitRate)
	e.MaybeUint("receive_multicast_packets", i.multicast)
	e.MaybeFloat("receive_multicast_packets_per_second", i.multicastRate, 2)
}

// names are spelled out so that encoding builds no strings.
type names struct {
	bytes, bytesRate, packets, packetsRate, errors, errorsRate, dropped, droppedRate string
}

var (
	receiveNames = names{
		"receive_bytes", "receive_bytes_per_second", "receive_packets", "receive_packets_per_second",
		"receive_errors", "receive_errors_per_second", "receive_dropped", "receive_dropped_per_second",
	}
	transmitNames = names{
		"transmit_bytes", "transmit_bytes_per_second", "transmit_packets", "transmit_packets_per_second",
		"transmit_errors", "transmit_errors_per_second", "transmit_dropped", "transmit_dropped_per_second",
	}
)

func (n *names) encode(e *event.Encoder, t *traffic, r *rate) {
	e.Uint(n.bytes, t.bytes)
	e.MaybeFloat(n.bytesRate, r.bytes, 2)
	e.Uint(n.packets, t.packets)
	e.MaybeFloat(n.packetsRate, r.packets, 2)
	e.Uint(n.errors, t.errors)
	e.MaybeFloat(n.errorsRate, r.errors, 2)
	e.Uint(n.dropped, t.dropped)
	e.MaybeFloat(n.droppedRate, r.dropped, 2)
}

// A Collector reads the network. It belongs to one goroutine at a time.
type Collector struct {
	read   func(now time.Time, s *sample) error
	sample sample

	at               time.Time
	interfaces, last []Interface // this reading's and the one's before
	protocols        protocols
	readings         []Reading
	events           []event.Event
}

// New returns a Collector for this machine.
func New() *Collector { return &Collector{read: newSystem().read} }

// Read emits one network event, or several of the same time if there are many
// interfaces.
func (c *Collector) Read(ctx context.Context, emit collect.Emit) error {
	now := time.Now()
	s := &c.sample
	s.links, s.values, s.errs = s.links[:0], values{}, s.errs[:0]
	if err := c.read(now, s); err != nil {
		return err
	}
	if len(s.links) == 0 && s.values == (values{}) && len(s.errs) > 0 {
		return errors.New(s.errs[0])
	}
	seconds := now.Sub(c.at).Seconds()
	c.at = now
	c.rate(seconds)
	c.protocols.next(&s.values, seconds)
	return emit(ctx, c.split(now)...)
}

// rate compares each interface with itself at the last reading. They come in
// the same order each time, so the first place looked at is nearly always right.
func (c *Collector) rate(seconds float64) {
	c.last, c.interfaces = c.interfaces, c.last[:0]
	next := 0
	for _, l := range c.sample.links {
		n := Interface{link: l}
		for k := range c.last {
			if j := (next + k) % len(c.last); c.last[j].name == l.name {
				n.rate(&c.last[j].link, seconds)
				next = j + 1
				break
			}
		}
		c.interfaces = append(c.interfaces, n)
	}
}

func (i *Interface) rate(before *link, seconds float64) {
	i.receiveRate = i.receive.since(&before.receive, seconds)
	i.transmitRate = i.transmit.since(&before.transmit, seconds)
	i.multicastRate = collect.Rate(i.multicast, before.multicast, seconds)
}

func (t *traffic) since(before *traffic, seconds float64) rate {
	return rate{
		bytes:   per(t.bytes, before.bytes, seconds),
		packets: per(t.packets, before.packets, seconds),
		errors:  per(t.errors, before.errors, seconds),
		dropped: per(t.dropped, before.dropped, seconds),
	}
}

func per(now, before uint64, seconds float64) event.Maybe[float64] {
	return collect.Rate(event.Known(now), event.Known(before), seconds)
}

func (c *Collector) split(now time.Time) []event.Event {
	n := max(1, (len(c.interfaces)+maxMembers-1)/maxMembers)
	for len(c.readings) < n {
		c.readings = append(c.readings, Reading{})
		c.events = append(c.events, event.Event{})
	}
	for i := range n {
		from, to := i*maxMembers, min((i+1)*maxMembers, len(c.interfaces))
		c.readings[i] = Reading{Interfaces: c.interfaces[from:to]}
		c.events[i] = event.Event{Time: now, Kind: event.Network, Body: &c.readings[i]}
	}
	c.readings[0].protocols = &c.protocols
	c.events[0].Errors = c.sample.errs
	return c.events[:n]
}
