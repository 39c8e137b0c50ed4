//go:build !windows

package status

import "syscall"

// cpuSeconds reads getrusage(2), which is exact to the microsecond where
// /proc/self/stat counts hundredths.
func cpuSeconds() (float64, bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, true
}
