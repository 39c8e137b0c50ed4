//go:build !windows

package redact

import (
	"fmt"
	"io/fs"
)

// private refuses a key that others than its owner can read or change.
func private(name string, info fs.FileInfo) error {
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("hash key %s is open to others (mode %04o): chmod 600 %s", name, perm, name)
	}
	return nil
}
