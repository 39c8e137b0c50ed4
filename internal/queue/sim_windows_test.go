package queue

import "golang.org/x/sys/windows"

// What Windows says of a full disk and of one that cannot be written.
var (
	errFull     error = windows.ERROR_DISK_FULL
	errReadOnly error = windows.ERROR_WRITE_PROTECT
)
