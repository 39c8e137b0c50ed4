//go:build !windows

package status

import "syscall"

const (
	inUse     = syscall.EADDRINUSE
	forbidden = syscall.EACCES
)
