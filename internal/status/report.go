package status

import "time"

// A State says how a part, or the whole, fares.
type State string

// The states of the whole. A part, such as a sender, may have others of its own.
const (
	OK       State = "ok"
	Degraded State = "degraded" // it works, but a part of it does not
	Failing  State = "failing"  // it does not do its work: /healthz answers 503
)

// A Report is what /healthz says. What is zero is not known, or did not happen
// yet, and is left out.
type Report struct {
	Status        State           `json:"status"`
	Reasons       []string        `json:"reasons,omitempty"` // why it is not ok
	Version       string          `json:"version"`
	Node          string          `json:"node,omitempty"` // of an agent
	UptimeSeconds float64         `json:"uptime_seconds"`
	Sources       map[string]Part `json:"sources,omitzero"` // of an agent
	Sinks         map[string]Part `json:"sinks,omitempty"`
	Sender        map[string]Part `json:"sender,omitempty"` // by lane; none without networking
	Queue         map[string]Lane `json:"queue,omitempty"`
	Confinement   *Confinement    `json:"confinement,omitempty"` // nil for a program that does not confine itself
	TLS           *Trust          `json:"tls,omitempty"`         // none without TLS
}

// A Trust is the certificates in use.
type Trust struct {
	State     State                `json:"state"`
	Expires   map[string]time.Time `json:"expires"`
	Loaded    time.Time            `json:"loaded"`
	Tried     time.Time            `json:"tried"`                // when they were last loaded, or that was tried
	LastError string               `json:"last_error,omitempty"` // they are not valid now, or others cannot be loaded
	Renewal   *Part                `json:"renewal,omitempty"`    // of an agent whose certificate is to be renewed

	// ClientAuth says, of a server, whether agents must show a certificate: require
	// or optional.
	ClientAuth string `json:"client_auth,omitempty"`
}

// A Confinement is what the process took from itself.
type Confinement struct {
	State string `json:"state"`
	ABI   int    `json:"landlock_abi"` // of the kernel; 0 for none
}

// How far a process is confined.
const (
	Confined      = "confined"    // to files and TCP ports
	ConfinedFiles = "files"       // to files alone: the kernel can do no more
	Unconfined    = "off"         // that was asked for, or it went wrong
	Unavailable   = "unavailable" // the kernel has no Landlock
)

// A Part is a source, a sink or the sender of a lane.
type Part struct {
	State       State     `json:"state"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_time,omitzero"`
	Failures    uint64    `json:"failures,omitempty"` // in a row
	NextTry     time.Time `json:"next_try,omitzero"`

	Parts map[string]Part `json:"parts,omitempty"` // of a source that tells of them: channels of a log

	// Of such a channel: how old the newest record is that was handed over, while
	// there are newer ones; how many these are; and of how many gap events told.
	LagSeconds     float64 `json:"lag_seconds,omitempty"`
	LagRecords     uint64  `json:"lag_records,omitempty"`
	MissingRecords uint64  `json:"missing_records,omitempty"`
}

// A Lane is one of the queues.
type Lane struct {
	Bytes         int64    `json:"bytes"`
	MaxBytes      int64    `json:"max_bytes,omitempty"`
	Events        uint64   `json:"events"`
	OldestSeconds *float64 `json:"oldest_seconds,omitempty"` // nil for an empty queue
	State         State    `json:"state"`
}
