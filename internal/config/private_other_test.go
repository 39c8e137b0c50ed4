//go:build !linux

package config

import (
	"os"
	"runtime"
	"testing"
)

// unprivileged runs f without the right to read every file.
func unprivileged(t *testing.T, f func()) {
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("SKIP a file that may not be read: this user may read everything")
	}
	f()
}
