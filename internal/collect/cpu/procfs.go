package cpu

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
)

// The kernel tells user space times in hundredths of a second, whatever it
// counts in itself: USER_HZ is 100 wherever Go runs (asm-generic/param.h).
const ticksPerSecond = 100

// parseStat fills r from /proc/stat: the times of all cores and of each, and
// the counters (proc_stat(5)).
func parseStat(b []byte, r *Reading) error {
	for len(b) > 0 {
		var line, key []byte
		line, b = procfs.Line(b)
		key, line = procfs.Field(line)
		switch {
		case string(key) == "cpu":
			parseTimes(line, &r.All.Time)
		case bytes.HasPrefix(key, []byte("cpu")):
			n, err := strconv.ParseInt(string(key[3:]), 10, 32)
			if err != nil || n < 0 {
				return fmt.Errorf("parse stat: %q is no core", key)
			}
			c := Core{Number: n}
			parseTimes(line, &c.Time)
			r.Cores = append(r.Cores, c)
		case string(key) == "ctxt":
			r.Switches.Total = parseCount(line)
		case string(key) == "intr":
			r.Interrupts.Total = parseCount(line) // the first number is the sum of the others
		case string(key) == "processes":
			r.Forks.Total = parseCount(line)
		}
	}
	if !r.All.Time[idle].Known {
		return errors.New("parse stat: no times of all cores")
	}
	return nil
}

// parseTimes reads the modes in their order. What follows steal are guest and
// guest_nice, which user and nice hold already.
func parseTimes(line []byte, t *Times) {
	for m := range modes {
		var field []byte
		field, line = procfs.Field(line)
		ticks, ok := procfs.Uint(field)
		if !ok {
			return
		}
		t[m] = event.Known(float64(ticks) / ticksPerSecond)
	}
}

func parseCount(line []byte) event.Maybe[uint64] {
	field, _ := procfs.Field(line)
	n, ok := procfs.Uint(field)
	return event.Maybe[uint64]{V: n, Known: ok}
}

// parseLoad reads /proc/loadavg (proc_loadavg(5)).
func parseLoad(b []byte) (load [3]float64, err error) {
	for i := range load {
		var field []byte
		field, b = procfs.Field(b)
		if load[i], err = strconv.ParseFloat(string(field), 64); err != nil || !(load[i] >= 0) {
			return load, errors.New("parse loadavg: three numbers expected")
		}
	}
	return load, nil
}

// A cpuinfo is what /proc/cpuinfo tells of one core.
type cpuinfo struct {
	number    int64
	frequency event.Maybe[float64] // hertz
	pkg, core event.Maybe[int64]   // ids of the package, and of the physical core in it
}

// parseCPUInfo reads one line of /proc/cpuinfo into the core that it belongs
// to. The names differ between architectures; these are of x86.
func parseCPUInfo(line []byte, cores []cpuinfo) []cpuinfo {
	key, value, _ := bytes.Cut(line, []byte(":"))
	key, value = bytes.TrimSpace(key), bytes.TrimSpace(value)
	if string(key) == "processor" {
		if n, err := strconv.ParseInt(string(value), 10, 32); err == nil && n >= 0 {
			cores = append(cores, cpuinfo{number: n})
		}
		return cores
	}
	if len(cores) == 0 {
		return cores
	}
	c := &cores[len(cores)-1]
	switch string(key) {
	case "cpu MHz":
		if mhz, err := strconv.ParseFloat(string(value), 64); err == nil && mhz > 0 {
			c.frequency = event.Known(mhz * 1e6)
		}
	case "physical id":
		c.pkg = parseID(value)
	case "core id":
		c.core = parseID(value)
	}
	return cores
}

func parseID(b []byte) event.Maybe[int64] {
	n, err := strconv.ParseInt(string(b), 10, 32)
	return event.Maybe[int64]{V: n, Known: err == nil}
}

// countPhysical counts the physical cores of which cpuinfo tells, if it does.
func countPhysical(cores []cpuinfo) event.Maybe[int64] {
	type place struct{ pkg, core int64 }
	seen := make(map[place]bool)
	for _, c := range cores {
		if !c.pkg.Known || !c.core.Known {
			return event.Maybe[int64]{}
		}
		seen[place{c.pkg.V, c.core.V}] = true
	}
	return event.Maybe[int64]{V: int64(len(seen)), Known: len(seen) > 0}
}

// first returns the first number of a list like "0,64" or "2-3", as /sys writes
// the threads that share a physical core.
func first(list []byte) (int64, bool) {
	list = bytes.TrimSpace(list)
	if i := bytes.IndexAny(list, ",-"); i >= 0 {
		list = list[:i]
	}
	n, err := strconv.ParseInt(string(list), 10, 32)
	return n, err == nil && n >= 0
}
