package disk

import (
	"math"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
)

// sector is the unit of /proc/diskstats whatever the device's own sectors are
// (linux/types.h: "Linux always considers sectors to be 512 bytes long").
const sector = 512

// parseDevice reads a line of /proc/diskstats (Documentation/admin-guide/iostats.rst):
// major, minor, name, then 11 numbers, 15 since Linux 4.18 (discards), 17 since
// 5.5 (flushes). ok is false for a line that has fewer.
func parseDevice(line []byte) (s stat, ok bool) {
	_, line = procfs.Field(line)
	_, line = procfs.Field(line)
	name, line := procfs.Field(line)
	var n [17]uint64
	got := 0
	for got < len(n) {
		var f []byte
		if f, line = procfs.Field(line); len(f) == 0 {
			break
		}
		v, valid := procfs.Uint(f)
		if !valid {
			return s, false
		}
		n[got] = v
		got++
	}
	if got < 11 {
		return s, false
	}
	s = stat{name: name, read: transfer(n[0:4]), write: transfer(n[4:8])}
	s.inFlight = event.Known(n[8])
	s.busy, s.weighted = milliseconds(n[9]), milliseconds(n[10])
	if got >= 15 {
		s.discard = transfer(n[11:15])
	}
	if got >= 17 {
		s.flush = work{operations: event.Known(n[15]), seconds: milliseconds(n[16])}
	}
	return s, true
}

// transfer takes operations, merged operations, sectors and milliseconds.
func transfer(n []uint64) work {
	return work{
		operations: event.Known(n[0]),
		merged:     event.Known(n[1]),
		bytes:      event.Maybe[uint64]{V: n[2] * sector, Known: n[2] <= math.MaxUint64/sector},
		seconds:    milliseconds(n[3]),
	}
}

func milliseconds(n uint64) event.Maybe[float64] { return event.Known(float64(n) / 1000) }
