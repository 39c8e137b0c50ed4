package status

import (
	"math"
	"runtime"

	"github.com/rea-agent/rea/internal/metric"
)

// Self adds what this process costs the machine to set, and which build it is.
// What a system does not tell is left out; what could not be read is NaN.
func Self(set *metric.Set, version string) {
	set.Gauge("rea_build_info", "The build that runs; always 1.",
		"version", version, "goversion", runtime.Version(), "os", runtime.GOOS, "arch", runtime.GOARCH).Set(1)
	set.Func("rea_go_goroutines", "Goroutines.", func() float64 { return float64(runtime.NumGoroutine()) })
	set.CounterFunc("rea_process_cpu_seconds_total", "CPU time used by this process, user and system.", known(cpuSeconds))
	if _, ok := residentBytes(); ok {
		set.Func("rea_process_resident_memory_bytes", "Memory of this process that is in RAM.", known(residentBytes))
	}
}

// known makes NaN of what could not be read.
func known(read func() (float64, bool)) func() float64 {
	return func() float64 {
		if v, ok := read(); ok {
			return v
		}
		return math.NaN()
	}
}
