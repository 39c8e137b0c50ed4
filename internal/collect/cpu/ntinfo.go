package cpu

import (
	"encoding/binary"
	"errors"

	"github.com/rea-agent/rea/internal/event"
)

// Windows counts times in units of 100 ns.
const unitsPerSecond = 1e7

// Sizes of what Windows hands out, and places in it. The first two structures
// stand in winternl.h with reserved members; phnt's ntexapi.h names them.
const (
	processorSize   = 48 // SYSTEM_PROCESSOR_PERFORMANCE_INFORMATION
	performanceSize = 312
	switchesAt      = 296 // SYSTEM_PERFORMANCE_INFORMATION.ContextSwitches
	powerSize       = 24  // PROCESSOR_POWER_INFORMATION
)

// parseProcessors adds the cores of one group to r. Kernel time holds the idle
// time, and the time of interrupts and deferred procedure calls as well.
func parseProcessors(b []byte, group event.Maybe[int64], r *Reading) error {
	if len(b) == 0 || len(b)%processorSize != 0 {
		return errors.New("parse processor times: not a whole number of processors")
	}
	for n := int64(0); len(b) > 0; n, b = n+1, b[processorSize:] {
		at := func(i int) float64 { return float64(binary.LittleEndian.Uint64(b[i:])) }
		idling, kernel, inUser, dpc, intr := at(0), at(8), at(16), at(24), at(32)
		c := Core{Group: group, Number: n}
		c.Time[user] = seconds(inUser)
		c.Time[system] = seconds(max(0, kernel-idling-dpc-intr))
		c.Time[idle] = seconds(idling)
		c.Time[interrupt] = seconds(intr)
		c.Time[softirq] = seconds(dpc)
		r.Cores = append(r.Cores, c)
		// Each core counts in 32 bits. Where one wraps the sum goes back, and no rate is told.
		r.Interrupts.Total = event.Known(r.Interrupts.Total.V + uint64(binary.LittleEndian.Uint32(b[40:])))
	}
	return nil
}

func seconds(units float64) event.Maybe[float64] { return event.Known(units / unitsPerSecond) }

// sumCores makes the times of all cores from those of each.
func sumCores(r *Reading) {
	for _, c := range r.Cores {
		for m, t := range c.Time {
			r.All.Time[m] = event.Maybe[float64]{V: r.All.Time[m].V + t.V, Known: t.Known}
		}
	}
}

// systemTimes makes the times of all cores from GetSystemTimes, of which kernel
// holds idle too.
func systemTimes(idling, kernel, inUser uint64) (t Times) {
	t[user] = seconds(float64(inUser))
	t[system] = seconds(max(0, float64(kernel)-float64(idling)))
	t[idle] = seconds(float64(idling))
	return t
}

// parsePerformance reads the context switches out of SYSTEM_PERFORMANCE_INFORMATION.
func parsePerformance(b []byte) (event.Maybe[uint64], error) {
	if len(b) < performanceSize {
		return event.Maybe[uint64]{}, errors.New("parse performance information: too short")
	}
	return event.Known(uint64(binary.LittleEndian.Uint32(b[switchesAt:]))), nil
}

// countRecords counts the records of GetLogicalProcessorInformationEx, each of
// which begins with its kind and its size, 32 bits each.
func countRecords(b []byte) (event.Maybe[int64], error) {
	var n int64
	for ; len(b) > 0; n++ {
		if len(b) < 8 {
			return event.Maybe[int64]{}, errors.New("parse processor cores: truncated")
		}
		size := int64(binary.LittleEndian.Uint32(b[4:]))
		if size < 8 || size > int64(len(b)) {
			return event.Maybe[int64]{}, errors.New("parse processor cores: wrong size of a record")
		}
		b = b[size:]
	}
	return event.Maybe[int64]{V: n, Known: n > 0}, nil
}

// parsePower gives each core the frequency that PROCESSOR_POWER_INFORMATION
// calls its current one, in megahertz.
func parsePower(b []byte, cores Cores) {
	for ; len(b) >= powerSize; b = b[powerSize:] {
		number, mhz := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[8:])
		if int64(number) < int64(len(cores)) && mhz > 0 {
			cores[number].Frequency = event.Known(float64(mhz) * 1e6)
		}
	}
}
