package procfs

import (
	"errors"
	"io/fs"
	"runtime"

	"golang.org/x/sys/unix"
)

// A File is kept open and read again from its start. It is a bare descriptor:
// an os.File would be watched by the runtime's poller, and a poll of the mount
// table takes away the news of a change that somebody else polls for. Like one it is
// closed when nobody can reach it any more. An open File must not be copied.
type File struct {
	Path    string
	fd      int
	open    bool
	cleanup runtime.Cleanup
}

// Read returns all that the file holds now, in *buf, which grows as needed. It
// opens the file the first time and after an error. What a descriptor from
// before belongs to may be gone while another took its name, so an error of such
// a one is no answer yet: the file is opened anew at once.
func (f *File) Read(buf *[]byte) ([]byte, error) {
	if f.open {
		b, err := f.read(buf)
		if err == nil {
			return b, nil
		}
		f.Close()
	}
	fd, err := unix.Open(f.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.Path, Err: err}
	}
	f.fd, f.open = fd, true
	f.cleanup = runtime.AddCleanup(f, letGo, fd)
	b, err := f.read(buf)
	if err != nil {
		f.Close()
	}
	return b, err
}

// read asks for at least a page at a time, the least that the kernel prepares
// (fs/seq_file.c), until there is no more.
func (f *File) read(buf *[]byte) ([]byte, error) {
	const page = 4096
	for n := 0; ; {
		if len(*buf)-n < page {
			*buf = append(*buf, make([]byte, max(2*page, len(*buf)))...)
		}
		m, err := unix.Pread(f.fd, (*buf)[n:], int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: f.Path, Err: err}
		case m == 0:
			return (*buf)[:n], nil
		default:
			n += m
		}
	}
}

// Close lets go of the descriptor; the next Read opens the file anew.
func (f *File) Close() {
	if f.open {
		f.cleanup.Stop()
		letGo(f.fd)
		f.open = false
	}
}

func letGo(fd int) { _ = unix.Close(fd) } // it was only read, so nothing can be lost

// Descriptor returns the descriptor for as long as the file is open.
func (f *File) Descriptor() (fd int, open bool) { return f.fd, f.open }

// A PressureFile is one file of /proc/pressure.
type PressureFile struct {
	File
	none bool // the kernel has none, for as long as it runs
}

// Read returns the pressure; ok is false where there is none to tell, which is
// no error where the kernel was built (ENOENT) or booted (EOPNOTSUPP) without.
func (f *PressureFile) Read(buf *[]byte) (p Pressure, ok bool, err error) {
	if f.none {
		return Pressure{}, false, nil
	}
	b, err := f.File.Read(buf)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		f.none = true
		return Pressure{}, false, nil
	}
	if err == nil {
		p, err = ParsePressure(b)
	}
	return p, err == nil, err
}
