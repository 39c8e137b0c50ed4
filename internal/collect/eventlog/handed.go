package eventlog

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/rea-agent/rea/internal/event"
)

// Handed tells, of channels by their names in lower case, which record follows the
// last one that is known to have been handed over or declared missing. It is made
// of the events themselves, as they were kept: the positions on the disk may be
// some seconds older when the process was killed.
type Handed map[string]uint64

// Note takes in a line of NDJSON as the source's events become, later than those
// before it. Lines of others are passed over.
func (h Handed) Note(line []byte) {
	isRecord := bytes.Contains(line, []byte(`"kind":"`+string(event.EventLog)+`"`))
	if !isRecord && !bytes.Contains(line, []byte(`"source":"`+string(event.EventLog)+`"`)) {
		return
	}
	var ev struct {
		Kind     event.Kind
		EventLog struct {
			Channel  string
			RecordID uint64 `json:"record_id"`
			ReadFrom struct {
				Channel  string
				RecordID uint64 `json:"record_id"`
			} `json:"read_from"`
		}
		Gap struct {
			Source, Channel string
			LastRecord      uint64 `json:"last_record"`
		}
	}
	if json.Unmarshal(line, &ev) != nil {
		return
	}
	switch {
	case ev.Kind == event.EventLog && ev.EventLog.ReadFrom.Channel != "":
		h.put(ev.EventLog.ReadFrom.Channel, ev.EventLog.ReadFrom.RecordID)
	case ev.Kind == event.EventLog:
		h.put(ev.EventLog.Channel, ev.EventLog.RecordID)
	case ev.Kind == event.Gap && ev.Gap.Source == string(event.EventLog):
		h.put(ev.Gap.Channel, ev.Gap.LastRecord)
	}
}

func (h Handed) put(channel string, record uint64) {
	if channel != "" && record != 0 {
		h[strings.ToLower(channel)] = record + 1
	}
}
