package durable

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Datasync returns when what was written to f, and the size needed to read it
// back, is on the disk. Times and permissions may still be on their way
// (fdatasync(2)).
func Datasync(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("sync %s: %w", f.Name(), err)
	}
	var failed error
	if err := conn.Control(func(fd uintptr) {
		for failed = unix.Fdatasync(int(fd)); errors.Is(failed, unix.EINTR); {
			failed = unix.Fdatasync(int(fd))
		}
	}); err != nil {
		failed = err
	}
	if failed != nil {
		return fmt.Errorf("sync %s: %w", f.Name(), failed)
	}
	return nil
}
