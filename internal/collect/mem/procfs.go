package mem

import (
	"bytes"
	"errors"
	"math"
	"strconv"

	"github.com/rea-agent/rea/internal/event"
)

// parseMeminfo fills r from /proc/meminfo (proc_meminfo(5)). Its kB are KiB.
func parseMeminfo(b []byte, r *Reading) error {
	for len(b) > 0 {
		var line []byte
		line, b = cut(b, '\n')
		key, value := cut(line, ':')
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
		line, b = cut(b, '\n')
		switch key, value := cut(line, ' '); string(key) {
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
	field, _ := cut(value, ' ')
	n, err := strconv.ParseUint(string(field), 10, 64)
	if err != nil || n > math.MaxUint64/unit {
		return event.Maybe[uint64]{}
	}
	return event.Known(n * unit)
}

// parsePressure reads a file of /proc/pressure: a line "some" and a line "full"
// (Documentation/accounting/psi.rst).
func parsePressure(b []byte) (p Pressure, err error) {
	for len(b) > 0 {
		var line []byte
		line, b = cut(b, '\n')
		key, rest := cut(line, ' ')
		switch string(key) {
		case "some":
			p.Some.V, err = parseStall(rest)
			p.Some.Known = err == nil
		case "full":
			p.Full.V, err = parseStall(rest)
			p.Full.Known = err == nil
		}
		if err != nil {
			return Pressure{}, err
		}
	}
	if !p.Some.Known {
		return Pressure{}, errors.New("parse pressure: no line of some")
	}
	return p, nil
}

func parseStall(line []byte) (Stall, error) {
	var v [4]float64 // percent of time, and at last microseconds
	for i, name := range [...]string{"avg10", "avg60", "avg300", "total"} {
		var field []byte
		field, line = cut(line, ' ')
		key, value := cut(field, '=')
		var err error
		if v[i], err = strconv.ParseFloat(string(value), 64); err != nil || string(key) != name || !(v[i] >= 0) {
			return Stall{}, errors.New("parse pressure: no " + name)
		}
	}
	return Stall{Avg10: v[0] / 1e2, Avg60: v[1] / 1e2, Avg300: v[2] / 1e2, Total: v[3] / 1e6}, nil
}

// cut returns what stands before the first sep, leading spaces left out, and
// what stands behind it.
func cut(b []byte, sep byte) (before, after []byte) {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	if i := bytes.IndexByte(b, sep); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}
