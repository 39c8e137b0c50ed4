package status

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// cpuSeconds asks GetProcessTimes, which counts in units of 100 ns.
func cpuSeconds() (float64, bool) {
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(windows.CurrentProcess(), &created, &exited, &kernel, &user); err != nil {
		return 0, false
	}
	units := func(t windows.Filetime) uint64 { return uint64(t.HighDateTime)<<32 | uint64(t.LowDateTime) }
	return float64(units(kernel)+units(user)) / 1e7, true
}

// memoryCounters is PROCESS_MEMORY_COUNTERS
// (https://learn.microsoft.com/windows/win32/api/psapi/ns-psapi-process_memory_counters).
type memoryCounters struct {
	size                       uint32
	pageFaultCount             uint32
	peakWorkingSetSize         uintptr
	workingSetSize             uintptr
	quotaPeakPagedPoolUsage    uintptr
	quotaPagedPoolUsage        uintptr
	quotaPeakNonPagedPoolUsage uintptr
	quotaNonPagedPoolUsage     uintptr
	pagefileUsage              uintptr
	peakPagefileUsage          uintptr
}

var getProcessMemoryInfo = windows.NewLazySystemDLL("kernel32.dll").NewProc("K32GetProcessMemoryInfo")

// residentBytes asks GetProcessMemoryInfo for the working set.
func residentBytes() (float64, bool) {
	if getProcessMemoryInfo.Find() != nil {
		return 0, false
	}
	var m memoryCounters
	m.size = uint32(unsafe.Sizeof(m))
	// Rule 4 of package unsafe: the pointer is converted in the call itself, so
	// m stays where it is until the call returns.
	ok, _, _ := getProcessMemoryInfo.Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m))
	return float64(m.workingSetSize), ok != 0
}
