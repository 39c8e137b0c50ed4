package main

import (
	"os"
	"path/filepath"
)

// easeTimers lets the kernel wake this process up to four milliseconds late. The
// agent sleeps nearly always; while it works, the Go runtime's monitor thread
// wakes every 20 µs, and those wake-ups cost a quarter of all the processor time
// that the agent takes. Nothing here is in a hurry of a few milliseconds: the
// shortest wait that anybody asks for is five, for the company of another line.
//
// Threads that begin later inherit it (prctl(2), PR_SET_TIMERSLACK). Setting it
// for a thread that runs already wants CAP_SYS_NICE; a service without it sets
// TimerSlackNSec=4ms in its unit, and where neither is so nothing is lost but that
// quarter. Hence no error is told.
func easeTimers() {
	threads, _ := filepath.Glob("/proc/self/task/*")
	for _, t := range threads {
		_ = os.WriteFile(filepath.Join("/proc", filepath.Base(t), "timerslack_ns"), []byte("4000000"), 0)
	}
}
