//go:build !windows

package stdout

import (
	"errors"
	"syscall"
)

// isGone reports whether a write failed because nobody can read it any more.
func isGone(err error) bool { return errors.Is(err, syscall.EPIPE) }
