package status

import "syscall"

// WSAEADDRINUSE and WSAEACCES
// (https://learn.microsoft.com/windows/win32/winsock/windows-sockets-error-codes-2).
const (
	inUse     = syscall.Errno(10048)
	forbidden = syscall.WSAEACCES
)
