//go:build unix

// Package durabletest has what tests need to see files that cannot be opened now,
// and can be a moment later.
package durabletest

import (
	"syscall"
	"testing"
)

// WithoutDescriptors calls f in a process that has no descriptors to spare: what
// opens a file fails with EMFILE. Nothing else may run beside it.
func WithoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	set := func(limit syscall.Rlimit) {
		t.Helper()
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	set(none)
	defer set(limit)
	f()
}
