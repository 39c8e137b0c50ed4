//go:build !windows

package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// NoFollow is the flag of os.OpenFile with which the last part of a path must not
// be a symbolic link (open(2), O_NOFOLLOW). Windows has none.
const NoFollow = syscall.O_NOFOLLOW

// SyncDir returns when the names in the folder are on the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

func rename(from, to string) error { return os.Rename(from, to) }

// Open opens the named file for reading. Others may rename or remove it meanwhile.
// A link is not followed.
func Open(name string) (*os.File, error) { return os.OpenFile(name, os.O_RDONLY|NoFollow, 0) }

// ReadFile reads the named file as os.ReadFile does. Others may replace it
// meanwhile: what is read is the old one or the new one.
func ReadFile(name string) ([]byte, error) { return os.ReadFile(name) }

// Patiently does something with a file that others may replace, which on Windows
// may fail for a moment.
func Patiently(do func() error) error { return do() }

// Remove removes the named file.
func Remove(name string) error { return os.Remove(name) }

// Lock takes the lock of the named file, which it makes where it is missing,
// and holds it until Close or the end of the process (flock(2)). It does not
// wait: the error is ErrLocked if another process has it. A link is not followed.
func Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|NoFollow, 0o600)
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		f, err = os.OpenFile(name, os.O_RDONLY|NoFollow, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	}
	return f, nil
}

// Free returns how many bytes an unprivileged process may still write to the
// file system of the folder (statfs(2), f_bavail).
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // Bsize has 32 bits on other systems
}

// IsFull says that err means no room: on the disk, or in a quota.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// IsOfTheMoment says that err, of opening or reading a file, is about who asks or
// when, and tells nothing of what the file holds: the same may be done later.
func IsOfTheMoment(err error) bool {
	for _, e := range [...]error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EACCES, syscall.EPERM, syscall.EROFS,
		syscall.EBUSY, syscall.EAGAIN, syscall.EINTR, syscall.ETXTBSY,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// IsReadOnly says that err means a file system that cannot be written.
func IsReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }
