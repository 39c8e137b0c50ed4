package disk

import (
	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
)

// A stat is what the system counts for one device.
type stat struct {
	name                        []byte // lasts as long as the sample
	read, write, discard, flush work
	inFlight                    event.Maybe[uint64]
	busy, weighted              event.Maybe[float64] // seconds
	idle, clock                 event.Maybe[float64] // seconds
}

// work is one of the things that a device does: how often, how much, how long.
type work struct {
	operations, bytes, merged event.Maybe[uint64]
	seconds                   event.Maybe[float64]
}

// A Device is a disk or a part of one, its counters and what they did since the
// last reading.
type Device struct {
	Name string
	Kind string // disk, partition, or empty where that is not known
	stat
	readRate, writeRate, discardRate, flushRate rate
	utilization, queue                          event.Maybe[float64]
}

// rate is what happened to work since the last reading, per second, and how
// long one operation took on average.
type rate struct {
	operations, bytes, merged, latency event.Maybe[float64]
}

// rate compares the device with itself some seconds before.
func (d *Device) rate(before *Device, seconds float64) {
	d.readRate = d.read.since(&before.read, seconds)
	d.writeRate = d.write.since(&before.write, seconds)
	d.discardRate = d.discard.since(&before.discard, seconds)
	d.flushRate = d.flush.since(&before.flush, seconds)
	d.queue = collect.Rate(d.weighted, before.weighted, seconds)
	d.utilization = collect.Share(d.busy, before.busy, seconds)
	if passed := collect.Rate(d.clock, before.clock, 1); passed.Known {
		if idle := collect.Share(d.idle, before.idle, passed.V); idle.Known {
			d.utilization = event.Known(1 - idle.V)
		}
	}
}

func (w *work) since(before *work, seconds float64) rate {
	r := rate{
		operations: collect.Rate(w.operations, before.operations, seconds),
		bytes:      collect.Rate(w.bytes, before.bytes, seconds),
		merged:     collect.Rate(w.merged, before.merged, seconds),
	}
	if n := collect.Rate(w.operations, before.operations, 1); n.Known {
		r.latency = collect.Rate(w.seconds, before.seconds, n.V)
	}
	return r
}

func (d *Device) encode(e *event.Encoder) {
	e.String("device", d.Name)
	e.String("type", d.Kind)
	readNames.encode(e, &d.read, &d.readRate)
	writeNames.encode(e, &d.write, &d.writeRate)
	discardNames.encode(e, &d.discard, &d.discardRate)
	flushNames.encode(e, &d.flush, &d.flushRate)
	e.MaybeUint("in_flight", d.inFlight)
	e.MaybeFloat("io_time_seconds", d.busy, 3)
	e.MaybeFloat("weighted_io_time_seconds", d.weighted, 3)
	e.MaybeFloat("idle_time_seconds", d.idle, 3)
	e.MaybeFloat("utilization", d.utilization, 4)
	e.MaybeFloat("queue_length", d.queue, 4)
}

// names are the members that tell of one kind of work. They are spelled out so
// that encoding builds no strings.
type names struct {
	operations, operationsRate, bytes, bytesRate, merged, mergedRate, seconds, latency string
}

var (
	readNames = names{
		"read_operations", "read_operations_per_second", "read_bytes", "read_bytes_per_second",
		"read_merged", "read_merged_per_second", "read_time_seconds", "read_latency_seconds",
	}
	writeNames = names{
		"write_operations", "write_operations_per_second", "write_bytes", "write_bytes_per_second",
		"write_merged", "write_merged_per_second", "write_time_seconds", "write_latency_seconds",
	}
	discardNames = names{
		"discard_operations", "discard_operations_per_second", "discard_bytes", "discard_bytes_per_second",
		"discard_merged", "discard_merged_per_second", "discard_time_seconds", "discard_latency_seconds",
	}
	flushNames = names{
		operations: "flush_operations", operationsRate: "flush_operations_per_second",
		seconds: "flush_time_seconds", latency: "flush_latency_seconds",
	}
)

func (n *names) encode(e *event.Encoder, w *work, r *rate) {
	e.MaybeUint(n.operations, w.operations)
	e.MaybeFloat(n.operationsRate, r.operations, 2)
	e.MaybeUint(n.bytes, w.bytes)
	e.MaybeFloat(n.bytesRate, r.bytes, 2)
	e.MaybeUint(n.merged, w.merged)
	e.MaybeFloat(n.mergedRate, r.merged, 2)
	e.MaybeFloat(n.seconds, w.seconds, 3)
	e.MaybeFloat(n.latency, r.latency, 6)
}
