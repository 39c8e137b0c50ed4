package queue

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rea-agent/rea/internal/durable"
)

// A folder is all that the queue knows of the file system. Tests put one behind
// it that loses what was not synced.
type folder interface {
	Lock() (io.Closer, error)
	List() ([]entry, error)
	Create(name string) (file, error) // for reading and writing; fails if the name exists
	Open(name string, write bool) (file, error)
	Remove(name string) error
	Sync() error          // the names, not the files
	Free() (int64, error) // bytes
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error // what was written
	Size() (int64, error)
}

// An entry is a name in the folder.
type entry struct {
	name  string
	size  int64
	other bool // than a file: to open it may not end, and to remove it may not work
}

const lockName = "lock"

// osFolder is the folder of that name.
type osFolder string

func (d osFolder) Lock() (io.Closer, error) { return durable.Lock(d.path(lockName)) }

func (d osFolder) List() ([]entry, error) {
	names, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, n := range names {
		info, err := n.Info()
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", d, err)
		}
		entries = append(entries, entry{n.Name(), info.Size(), info.Mode().Type()&^fs.ModeIrregular != 0})
	}
	return entries, nil
}

func (d osFolder) Create(name string) (file, error) {
	return openFile(d.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (d osFolder) Open(name string, write bool) (file, error) {
	if write {
		return openFile(d.path(name), os.O_RDWR)
	}
	return openFile(d.path(name), os.O_RDONLY)
}

func (d osFolder) Remove(name string) error { return durable.Remove(d.path(name)) }
func (d osFolder) Sync() error              { return durable.SyncDir(string(d)) }
func (d osFolder) Free() (int64, error)     { return durable.Free(string(d)) }
func (d osFolder) path(name string) string  { return filepath.Join(string(d), name) }

type osFile struct{ *os.File }

func openFile(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag|durable.NoFollow, 0o600)
	if err != nil {
		return nil, err // not f: a nil *os.File is not a nil file
	}
	return osFile{f}, nil
}

func (f osFile) Sync() error { return durable.Datasync(f.File) }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
