package mem

import (
	"encoding/binary"
	"errors"

	"github.com/rea-agent/rea/internal/event"
)

// What NtQuerySystemInformation hands out, by the names of phnt's ntexapi.h.
const (
	performanceSize = 312
	pageFaultsAt    = 60 // SYSTEM_PERFORMANCE_INFORMATION.PageFaultCount
	pagefileSize    = 32 // SYSTEM_PAGEFILE_INFORMATION of a 64-bit system, its name apart
)

// A performance is PERFORMANCE_INFORMATION (psapi.h): pages, and their size.
type performance struct {
	commitTotal, commitLimit, systemCache, kernelPaged, kernelNonpaged uint64
	pageSize                                                           uint64
}

func (p performance) fill(r *Reading) {
	r.Committed = event.Known(p.commitTotal * p.pageSize)
	r.CommitLimit = event.Known(p.commitLimit * p.pageSize)
	r.Cached = event.Known(p.systemCache * p.pageSize)
	r.KernelPaged = event.Known(p.kernelPaged * p.pageSize)
	r.KernelNonpaged = event.Known(p.kernelNonpaged * p.pageSize)
}

// parsePageFaults reads the faults, counted in 32 bits, out of
// SYSTEM_PERFORMANCE_INFORMATION.
func parsePageFaults(b []byte) (event.Maybe[uint64], error) {
	if len(b) < performanceSize {
		return event.Maybe[uint64]{}, errors.New("parse performance information: too short")
	}
	return event.Known(uint64(binary.LittleEndian.Uint32(b[pageFaultsAt:]))), nil
}

// parsePagefiles sums up the page files: a chain of SYSTEM_PAGEFILE_INFORMATION,
// each with the distance to the next, its size and the pages in use. No bytes
// are a machine without page files.
func parsePagefiles(b []byte, pageSize uint64) (total, free Bytes, err error) {
	var size, inUse uint64
	for len(b) > 0 {
		if len(b) < pagefileSize {
			return total, free, errors.New("parse page files: truncated")
		}
		next := binary.LittleEndian.Uint32(b)
		size += uint64(binary.LittleEndian.Uint32(b[4:]))
		inUse += uint64(binary.LittleEndian.Uint32(b[8:]))
		if next == 0 {
			break
		}
		if next < pagefileSize || int64(next) > int64(len(b)) {
			return total, free, errors.New("parse page files: wrong distance to the next")
		}
		b = b[next:]
	}
	if inUse > size {
		return total, free, errors.New("parse page files: more in use than there is")
	}
	return event.Known(size * pageSize), event.Known((size - inUse) * pageSize), nil
}
