// Package eventlog reads the Windows event log: what each channel says, in order,
// from where it was read to when the agent last ran.
//
// record.go and scan.go make an event of the XML that Windows renders, on any
// system. source.go follows the channels: it asks a system, which is Windows
// (eventlog_windows.go) or one that a test makes up, and holds on to what is
// promised: every record is handed over, or a gap event says how many are missing
// and why. docs/eventlog.md tells how.
package eventlog

import _ "embed"

// Schema is the JSON Schema of the body of an eventlog event.
//
//go:embed schema.json
var Schema string
