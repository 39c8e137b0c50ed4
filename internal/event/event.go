// Package event says what an event is and writes it down: one JSON object on
// one line, the same bytes for the terminal, the file, the queue and the wire.
//
// A collector fills a Body and hands over an Event. The pipeline stamps it with
// node, host, stream and seq and calls Encoder.Append, which asks the Body to
// write itself. While writing, the Encoder applies what the pipeline decided:
// redaction by the class of each text, and the cut that keeps a line within its
// limit. Nothing here allocates in the steady state.
//
// docs/events.md lists every field; the schemas that it is made of stand beside
// the code that writes the fields.
package event

import "time"

// Version is the schema version that every event carries as "v".
const Version = 1

// A Kind names what an event tells of, and the key under which its body stands.
type Kind string

// The kinds of events. Measurements are the first six; the others are
// evidence, which has a queue of its own so that measurements never evict it.
const (
	CPU      Kind = "cpu"
	Memory   Kind = "memory"
	Disk     Kind = "disk"
	Network  Kind = "network"
	Process  Kind = "process"
	Host     Kind = "host"
	EventLog Kind = "eventlog"
	Journal  Kind = "journal"
	Agent    Kind = "agent"
	Gap      Kind = "gap"
)

// Kinds lists every kind, in the order in which the documentation tells of them.
var Kinds = [...]Kind{CPU, Memory, Disk, Network, Process, Host, EventLog, Journal, Agent, Gap}

// Evidence reports whether an event of kind k tells of something that happened
// once, and so cannot be measured again.
func (k Kind) Evidence() bool {
	switch k {
	case CPU, Memory, Disk, Network, Process, Host:
		return false
	}
	return true
}

// An Event is what a collector hands over. The receiver of an Event borrows it,
// Body and Errors included, until the call returns: a collector may reuse them
// for its next reading.
type Event struct {
	Time     time.Time // when it happened
	Observed time.Time // when REA read it; zero where that is the same
	Kind     Kind
	Body     Body
	Errors   []string // what could not be read, as "field: reason"
}

// A Body is what an event says. Encode writes the members of the object that
// stands under the event's kind. It may be called more than once for one event
// and must write the same each time.
type Body interface {
	Encode(e *Encoder)
}

// Maybe is a value that may not have been readable. What is not known is left
// out of the event, never written as zero.
type Maybe[T any] struct {
	V     T
	Known bool
}

// Known returns a Maybe that holds v.
func Known[T any](v T) Maybe[T] { return Maybe[T]{V: v, Known: true} }
