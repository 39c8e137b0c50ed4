//go:build !linux

package durable

import "os"

// Datasync returns when what was written to f is on the disk: FlushFileBuffers
// on Windows, F_FULLFSYNC on macOS.
func Datasync(f *os.File) error { return f.Sync() }
