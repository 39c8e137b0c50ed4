package stdout

import (
	"errors"
	"syscall"
)

// errNoData is ERROR_NO_DATA, "the pipe is being closed"
// (https://learn.microsoft.com/windows/win32/debug/system-error-codes--0-499-).
const errNoData = syscall.Errno(232)

// isGone reports whether a write failed because nobody can read it any more.
func isGone(err error) bool {
	return errors.Is(err, syscall.ERROR_BROKEN_PIPE) || errors.Is(err, errNoData)
}
