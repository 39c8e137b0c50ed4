//go:build !windows

package identity

import (
	"fmt"
	"os"
)

// private refuses a key file that others than its owner can read or change.
func private(what, name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return &FileError{what, name, "cannot be examined", err.Error(), err}
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return &FileError{what, name, fmt.Sprintf("is open to others (mode %04o)", perm), "chmod 600 " + name, nil}
	}
	return nil
}
