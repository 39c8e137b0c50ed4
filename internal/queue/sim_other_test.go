//go:build !windows

package queue

import "syscall"

// What the system says of a full disk and of one that cannot be written.
var (
	errFull     error = syscall.ENOSPC
	errReadOnly error = syscall.EROFS
)
