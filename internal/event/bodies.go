package event

import (
	_ "embed"
	"time"
)

// The schemas of the kinds that REA itself speaks, and of the envelope.
//
//go:embed envelope.schema.json
var EnvelopeSchema string

// AgentSchema is the JSON Schema of Notice.
//
//go:embed agent.schema.json
var AgentSchema string

// GapSchema is the JSON Schema of Missing.
//
//go:embed gap.schema.json
var GapSchema string

// A Notice is the body of an agent event: REA telling of itself.
type Notice struct {
	Action     string        // what happened: start, stop, reload, reload_failed, source_up, source_down
	Source     string        // the source it happened to
	Reason     string        // why, in words
	Version    string        // of the agent, at start
	ConfigHash string        // of the configuration in force, at start and reload
	PID        int           // of the agent, at start
	Lasted     time.Duration // how long what now ended had lasted
}

// Encode writes the members of an agent event.
func (n *Notice) Encode(e *Encoder) {
	e.String("action", n.Action)
	e.String("source", n.Source)
	e.Sensitive("reason", Text, n.Reason)
	e.String("version", n.Version)
	e.String("config_hash", n.ConfigHash)
	if n.PID != 0 {
		e.Int("pid", int64(n.PID))
	}
	if n.Lasted != 0 {
		e.Float("lasted_seconds", n.Lasted.Seconds(), 3)
	}
}

// Missing is the body of a gap event: what was lost and why. First and Last are
// numbers of Stream; they are zero where the lost events never had numbers. Then
// a source that reads a log says which of its records they were, if it can.
type Missing struct {
	Source      string // the source whose events are missing; empty for a whole lane
	Cause       string // queue_full, disk_full, too_large, …
	Stream      string
	First, Last uint64
	Count       uint64
	Since       time.Time // the lost events lie between Since and Until
	Until       time.Time

	Channel                 string // the log of the source that they were in
	FirstRecord, LastRecord uint64 // the ids that they had there; zero where not known
	Bound                   string // what Count is where it is not exact: at_most, unknown
}

// Encode writes the members of a gap event.
func (m *Missing) Encode(e *Encoder) {
	e.String("source", m.Source)
	e.String("cause", m.Cause)
	e.Uint("count", m.Count)
	if m.First != 0 {
		e.String("stream", m.Stream)
		e.Uint("first", m.First)
		e.Uint("last", m.Last)
	}
	e.Time("since", m.Since)
	e.Time("until", m.Until)
	e.String("channel", m.Channel)
	if m.FirstRecord != 0 {
		e.Uint("first_record", m.FirstRecord)
		e.Uint("last_record", m.LastRecord)
	}
	e.String("bound", m.Bound)
}
