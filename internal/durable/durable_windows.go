package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/windows"
)

// NoFollow does nothing: Windows has no such flag that os.OpenFile would take.
const NoFollow = 0

// SyncDir does nothing: NTFS writes a change of names to its journal by itself,
// and Windows has no call to flush a folder.
func SyncDir(string) error { return nil }

// Remove removes the named file.
func Remove(name string) error {
	return patiently(func() error { return os.Remove(name) }, windows.ERROR_SHARING_VIOLATION)
}

// rename replaces to. What stands there cannot be replaced while anybody has it
// open, and the answer is that access is denied.
func rename(from, to string) error {
	return patiently(func() error { return os.Rename(from, to) }, windows.ERROR_SHARING_VIOLATION, windows.ERROR_ACCESS_DENIED)
}

// Open opens the named file for reading. Others may rename or remove it meanwhile,
// which os.Open does not allow them.
func Open(name string) (f *os.File, err error) {
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	var h windows.Handle
	err = patiently(func() (err error) {
		h, err = windows.CreateFile(path, windows.GENERIC_READ, share, nil, windows.OPEN_EXISTING, windows.FILE_ATTRIBUTE_NORMAL, 0)
		return err
	}, windows.ERROR_SHARING_VIOLATION)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(h), name), nil
}

// patiently does something to a file, and again for a tenth of a second while it
// fails in one of the ways in which somebody who has the file open makes it fail:
// scanners and indexers open a file for moments after it was written.
func patiently(do func() error, others ...error) error {
	for wait := 5 * time.Millisecond; ; wait *= 2 {
		err := do()
		his := func(e error) bool { return errors.Is(err, e) }
		if wait > 80*time.Millisecond || !slices.ContainsFunc(others, his) {
			return err
		}
		time.Sleep(wait)
	}
}

// Lock takes the lock of the named file, which it makes where it is missing,
// and holds it until Close or the end of the process (LockFileEx). It does not
// wait: the error is ErrLocked if another process has it.
func Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	const exclusive = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	if err := windows.LockFileEx(windows.Handle(f.Fd()), exclusive, 0, 1, 0, new(windows.Overlapped)); err != nil {
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	}
	return f, nil
}

// Free returns how many bytes this process may still write to the volume of the
// folder (GetDiskFreeSpaceEx).
func Free(dir string) (int64, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, nil, nil); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(free), nil
}

// IsFull says that err means no room: on the disk, or in a quota.
func IsFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// IsOfTheMoment says that err, of opening a file, is about who asks or when, and
// tells nothing of what the file holds: a scanner has it open, handles are short.
func IsOfTheMoment(err error) bool {
	for _, e := range [...]error{
		windows.ERROR_SHARING_VIOLATION, windows.ERROR_LOCK_VIOLATION, windows.ERROR_ACCESS_DENIED, windows.ERROR_WRITE_PROTECT,
		windows.ERROR_TOO_MANY_OPEN_FILES, windows.ERROR_NOT_ENOUGH_MEMORY, windows.ERROR_OUTOFMEMORY,
		windows.ERROR_NO_SYSTEM_RESOURCES, windows.ERROR_NOT_READY, windows.ERROR_BUSY,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// IsReadOnly says that err means a volume that cannot be written.
func IsReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }
