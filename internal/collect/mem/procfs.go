package mem

import (
	"bytes"
	"errors"
	"math"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
)

// parseMeminfo fills r from /proc/meminfo (proc_meminfo(5)). Its kB are KiB.
func parseMeminfo(b []byte, r *Reading) error {
	for len(b) > 0 {
		var line []byte
		line, b = procfs.Line(b)
		key, value, _ := bytes.Cut(line, []byte(":"))
		if to := r.meminfo(key); to != nil {
			*to = parseScaled(value, 1024)
		}
	}
	if !r.Total.Known {
		return errors.New("parse meminfo: no MemTotal")
	}
	return nil
}

// meminfo returns where a line of /proc/meminfo goes, or nil.
func (r *Reading) meminfo(key []byte) *Bytes {
	switch string(key) {
	case "MemTotal":
		return &r.Total
	case "MemAvailable":
		return &r.Available
	case "MemFree":
		return &r.Free
	case "Cached":
		return &r.Cached
	case "Buffers":
		return &r.Buffers
	case "Shmem":
		return &r.Shared
	case "Slab":
		return &r.Slab
	case "SReclaimable":
		return &r.SlabReclaimable
	case "Active":
		return &r.Active
	case "Inactive":
		return &r.Inactive
	case "Committed_AS":
		return &r.Committed
	case "CommitLimit":
		return &r.CommitLimit
	case "SwapTotal":
		return &r.SwapTotal
	case "SwapFree":
		return &r.SwapFree
	}
	return nil
}

// parseVmstat fills the counters of r from /proc/vmstat, which counts swapping
// in pages of pageSize bytes.
func parseVmstat(b []byte, pageSize uint64, r *Reading) error {
	for len(b) > 0 {
		var line []byte
		line, b = procfs.Line(b)
		switch key, value := procfs.Field(line); string(key) {
		case "pswpin":
			r.SwapIn.Total = parseScaled(value, pageSize)
		case "pswpout":
			r.SwapOut.Total = parseScaled(value, pageSize)
		case "pgfault":
			r.PageFaults.Total = parseScaled(value, 1)
		case "pgmajfault":
			r.MajorPageFaults.Total = parseScaled(value, 1)
		}
	}
	if !r.PageFaults.Total.Known {
		return errors.New("parse vmstat: no pgfault")
	}
	return nil
}

// parseScaled reads the number that value begins with, times unit.
func parseScaled(value []byte, unit uint64) event.Maybe[uint64] {
	field, _ := procfs.Field(value)
	n, ok := procfs.Uint(field)
	if !ok || n > math.MaxUint64/unit {
		return event.Maybe[uint64]{}
	}
	return event.Known(n * unit)
}
