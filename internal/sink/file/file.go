// Package file appends lines to a file and puts the file aside when it is large
// or old enough.
//
// The file is put aside by renaming it: agent.ndjson becomes
// agent-20261123T101112.345Z.ndjson, and agent-20261123T101112.345Z.ndjson.gz
// where compression is on. The time is that of the rotation in UTC, moved on
// where the clock stood still or went back, so that names sort in the order in
// which their lines were written and none is used twice. The oldest files beyond
// Keep are deleted; no file whose name is not exactly of this form is touched.
//
// # What holds
//
// A line is in one file, whole. A write that does not fit begins the next file;
// only a write larger than a whole file is divided, between lines, and a line
// larger than that has a file to itself. A write that fails is taken back by
// truncating the file. Where even that fails, or a crash has torn the last line,
// a newline is put after it before anything else, so that it costs no other line.
// Of a divided write that fails, the files before the failing one stay.
//
// Others may rename, truncate or delete the file at any time: before each write
// it is compared with what stands at the path, and opened anew if it is another
// one. On Windows it is opened so that others can (FILE_SHARE_DELETE), and closed
// before it is renamed.
//
// Rotation by time follows the clock, not the start of the process: every hour
// means at the full hour, every day at midnight UTC. The first write after that
// rotates; a file without lines stays.
//
// # What a crash loses
//
// The end of the process, by a kill too, loses no line whose Write returned nil:
// the system has it. A power cut loses what was only in the system's cache. That
// is moved to the disk at rotation, at Close, and by a Write when the last time
// is a second ago or more; nothing is moved between writes. So a cut costs at
// most the lines of the last second, or those of one earlier second that no
// later Write has followed.
//
// Compression and deletion run in one goroutine that Close ends and waits for.
// A compressed file appears under its name only when it is whole and synced; what
// was interrupted is cleared away and begun again by the next Open.
package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/rea-agent/rea/internal/durable"
)

// Options say where the lines go and when a file is put aside.
type Options struct {
	Path        string        // folders that are missing are made
	RotateBytes int64         // the size that a file should not exceed; 0 for any
	RotateEvery time.Duration // how often by the clock; 0 for never
	Keep        int           // how many files put aside are kept; 0 for all
	Gzip        bool          // whether files put aside are compressed

	// Trouble, if set, is told of what went wrong without the loss of a line:
	// a rotation, sync, compression or deletion, each of which is tried again.
	// It is called from any goroutine.
	Trouble func(error)
}

const (
	syncEvery     = time.Second
	retryRotation = 10 * time.Second
	fileMode      = 0o640
	folderMode    = 0o750
)

var errDone = errors.New("append to file: the sink is closed")

// A Sink appends lines to a file. Its methods are called by one goroutine at a
// time.
type Sink struct {
	o     Options
	names names
	tidy  *tidier
	write func(f *os.File, b []byte) (int, error) // (*os.File).Write, but in tests

	f      *os.File    // nil when it has to be opened
	info   os.FileInfo // which file f is
	period time.Time   // to which its lines belong
	synced time.Time
	dirty  bool // there were writes since

	last     time.Time // of the newest name given
	noRotate time.Time // until then, since it went wrong
	closed   bool
}

// Open opens the file for appending, makes it if there is none, and takes up
// what an earlier process left undone.
func Open(o Options) (*Sink, error) {
	path, err := resolve(o.Path)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", o.Path, err)
	}
	o.Path = path
	if o.Trouble == nil {
		o.Trouble = func(error) {}
	}
	s := &Sink{o: o, names: namesOf(path), write: (*os.File).Write}
	if _, err := s.open(time.Now()); err != nil {
		return nil, err
	}
	if err := s.takeUp(); err != nil {
		return nil, errors.Join(err, s.f.Close())
	}
	s.tidy = startTidier(o, s.names)
	return s, nil
}

// resolve follows symbolic links, so that rotation renames the file and not the
// link to it.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	return path, nil // nothing there yet
}

// takeUp finds the newest name in use, and clears away what a crash left.
func (s *Sink) takeUp() error {
	aside, err := s.names.list()
	if err != nil {
		return fmt.Errorf("list files put aside: %w", err)
	}
	for _, a := range aside {
		s.last = a.at
		if err := s.names.clear(a); err != nil {
			s.o.Trouble(fmt.Errorf("clear away what a crash left: %w", err))
		}
	}
	return nil
}

// Write appends n whole lines. An error says that they were dropped.
func (s *Sink) Write(lines []byte, n int) error {
	if s.closed {
		return errDone
	}
	now := time.Now()
	for len(lines) > 0 {
		size, err := s.current(now)
		if err != nil {
			return err
		}
		if s.due(now, size, len(lines)) {
			s.rotate(now)
			continue
		}
		part := len(lines)
		if size == 0 && s.o.RotateBytes > 0 {
			part = fit(lines, s.o.RotateBytes)
		}
		if err := s.append(lines[:part], size); err != nil {
			return err
		}
		lines = lines[part:]
	}
	if s.dirty && now.Sub(s.synced) >= syncEvery {
		if err := s.sync(now); err != nil {
			s.o.Trouble(err)
		}
	}
	return nil
}

// append writes part at the end of the file, which is at size, or nothing.
func (s *Sink) append(part []byte, size int64) error {
	s.dirty = true
	n, err := s.write(s.f, part)
	if err == nil {
		return nil
	}
	if n > 0 {
		err = errors.Join(err, s.f.Truncate(size))
	}
	// Opening it anew looks for a torn line.
	return fmt.Errorf("append to %s: %w", s.o.Path, errors.Join(err, s.letGo()))
}

// current makes sure that the open file is the one at the path, and returns its
// size.
func (s *Sink) current(now time.Time) (size int64, err error) {
	if s.f == nil {
		return s.open(now)
	}
	there, err := os.Stat(s.o.Path)
	if err == nil && os.SameFile(there, s.info) {
		if size, err = s.f.Seek(0, io.SeekEnd); err == nil {
			return size, nil
		}
	}
	if err := s.letGo(); err != nil {
		s.o.Trouble(err)
	}
	return s.open(now)
}

// letGo syncs and closes the file; the next write opens it again.
func (s *Sink) letGo() error {
	err := errors.Join(s.sync(time.Now()), s.f.Close())
	s.f = nil
	return err
}

func (s *Sink) open(now time.Time) (size int64, err error) {
	f, err := openShared(s.o.Path)
	if err != nil {
		return 0, err
	}
	if s.info, err = f.Stat(); err == nil {
		size, err = endLine(f, s.info.Size())
	}
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	s.f, s.dirty, s.synced = f, size != s.info.Size(), now
	s.period = s.periodOf(now)
	if size > 0 {
		s.period = s.periodOf(s.info.ModTime())
	}
	return size, nil
}

// openShared opens the file at path so that it can be read, appended to and, on
// Windows too, renamed and deleted by others: files opened through an os.Root
// have FILE_SHARE_DELETE, those of os.OpenFile have not.
func openShared(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: not a regular file but %s", path, kindOf(info))
	}
	folder := filepath.Dir(path)
	if err := durable.Mkdir(folder, folderMode); err != nil {
		return nil, fmt.Errorf("make the folder of %s: %w", path, err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, reason(err))
	}
	defer root.Close()
	flag := os.O_RDWR | os.O_CREATE
	if runtime.GOOS != "windows" { // there, a file opened for appending cannot be truncated
		flag |= os.O_APPEND
	}
	f, err := root.OpenFile(filepath.Base(path), flag, fileMode)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, reason(err))
	}
	return f, nil
}

func kindOf(info os.FileInfo) string {
	if info.IsDir() {
		return "a folder"
	}
	return "a pipe, socket or device"
}

// endLine ends the last line of a file of size bytes if a crash left it without
// its newline.
func endLine(f *os.File, size int64) (int64, error) {
	if size == 0 {
		return 0, nil
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil {
		return size, err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil || last[0] == '\n' {
		return size, err
	}
	n, err := f.Write([]byte{'\n'})
	return size + int64(n), err
}

func (s *Sink) sync(now time.Time) error {
	if !s.dirty {
		return nil
	}
	s.dirty, s.synced = false, now
	return durable.Datasync(s.f)
}

// Close syncs and closes the file, and ends and awaits compression.
func (s *Sink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.f != nil {
		err = s.letGo()
	}
	s.tidy.close()
	return err
}

// fit returns the length of the whole lines at the start that fit into room, or
// that of the first line where none fits.
func fit(lines []byte, room int64) int {
	if int64(len(lines)) <= room {
		return len(lines)
	}
	if i := bytes.LastIndexByte(lines[:room], '\n'); i >= 0 {
		return i + 1
	}
	if i := bytes.IndexByte(lines, '\n'); i >= 0 {
		return i + 1
	}
	return len(lines)
}

// reason strips err of the names of files that it carries.
func reason(err error) error {
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
