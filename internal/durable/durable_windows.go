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
	return briefly(func() error { return os.Remove(name) }, windows.ERROR_SHARING_VIOLATION)
}

// rename replaces to. What stands there cannot be replaced while anybody has it
// open, and the answer is that access is denied.
func rename(from, to string) error {
	return briefly(func() error { return os.Rename(from, to) }, windows.ERROR_SHARING_VIOLATION, windows.ERROR_ACCESS_DENIED)
}

// Open opens the named file for reading. Others may rename or remove it meanwhile,
// which os.Open does not allow them.
func Open(name string) (f *os.File, err error) {
	err = briefly(func() (err error) {
		f, err = open(name)
		return err
	}, windows.ERROR_SHARING_VIOLATION)
	return f, err
}

func open(name string) (*os.File, error) {
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(path, windows.GENERIC_READ, share, nil, windows.OPEN_EXISTING, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(h), name), nil
}

// ReadFile reads the named file as os.ReadFile does, but others may replace it
// meanwhile: they are not kept from that, and that they do it is no error.
func ReadFile(name string) (data []byte, err error) {
	err = Patiently(func() error {
		f, err := open(name)
		if err != nil {
			return err
		}
		data, err = io.ReadAll(f)
		return errors.Join(err, f.Close())
	})
	return data, err
}

// Patiently does something with a file that others may replace, and again for about
// a second while the error is one of the moment. A name whose file is being deleted
// or replaced cannot be opened until that is done, and the answer is that access is
// denied or that somebody has it.
func Patiently(do func() error) error { return again(time.Second, do, IsOfTheMoment) }

// briefly does something to a file, and again for a tenth of a second while it
// fails in one of the ways in which somebody who has the file open makes it fail:
// scanners and indexers open a file for moments after it was written.
func briefly(do func() error, others ...error) error {
	return again(150*time.Millisecond, do, func(err error) bool {
		return slices.ContainsFunc(others, func(e error) bool { return errors.Is(err, e) })
	})
}

func again(most time.Duration, do func() error, passes func(error) bool) error {
	const longest = 80 * time.Millisecond
	end := time.Now().Add(most)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, longest) {
		err := do()
		if err == nil || !passes(err) || !time.Now().Before(end) {
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

// IsOfTheMoment says that err, of opening or reading a file, is about who asks or
// when, and tells nothing of what the file holds: a scanner has it open or a part of
// it locked, handles are short.
func IsOfTheMoment(err error) bool {
	for _, e := range [...]error{
		windows.ERROR_SHARING_VIOLATION, windows.ERROR_LOCK_VIOLATION, windows.ERROR_ACCESS_DENIED, windows.ERROR_DELETE_PENDING,
		windows.ERROR_WRITE_PROTECT,
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
