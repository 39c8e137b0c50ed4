// Package deadletter keeps the lines that a server refused for their content,
// for people to look at.
//
// A letter is one such line with its place in its stream, and what the server
// said. Each is a file of its own, whose name says lane, stream and number: the
// same line put twice is one letter. The agent puts letters into its [Box];
// [List] and [Remove] work on the same folder from any other process, at any
// time and without a lock, since files appear and go whole.
//
// A box is bounded. When a letter does not fit the oldest go, and are counted.
//
// # On the disk
//
//	metrics-7f3a9d0c5b6e4f1a8c2d3e4f5a6b7c8d-0000000000000001204.letter
//
//	{"v":1,"time":"…","lane":"metrics","stream":"7f3a…","seq":1204,"status":422,"reason":"…","crc32c":305419896}
//	{"v":1,"time":"…","kind":"cpu",…}
//
// The second line is the line as it is, byte for byte, and crc32c is of it
// without its end. A letter that was damaged is told, and never handed out: it
// would be another event.
package deadletter

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/durable"
)

// The bounds of a box that names none.
const (
	DefaultBytes   = 16 << 20
	DefaultLetters = 1000
)

// A Letter is a line that was refused.
type Letter struct {
	Time   time.Time // when it was refused
	Lane   string    // the queue it was in: 1 to 32 of a-z 0-9 -
	Stream string    // 32 hexadecimal digits in lower case
	Seq    uint64    // from 1 to 2^63-1
	Status int       // that the server answered
	Reason string    // in the server's words; a long one is cut
	Line   []byte    // without its end; nil if the letter is damaged

	Damage error // why the file cannot be read; never in a letter that is put
}

// Options bound a box.
type Options struct {
	MaxBytes   int64 // of what the letters take up on the disk, in blocks of 4 KiB; 0 is DefaultBytes
	MaxLetters int   // 0 is DefaultLetters
}

// A Box is where an agent puts letters. One agent, one box. Its methods may be
// called from any goroutine.
type Box struct {
	dir string
	o   Options

	mu      sync.Mutex
	dropped uint64 // guarded by mu
}

// Stats tell how full a box is.
type Stats struct {
	Letters int
	Bytes   int64  // in blocks of 4 KiB: what MaxBytes bounds
	Dropped uint64 // letters that went to make room since Open
}

// Open opens the box in the folder dir, or makes it with permissions 0700, and
// removes what a kill left half written.
func Open(dir string, o Options) (*Box, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultBytes
	}
	if o.MaxLetters <= 0 {
		o.MaxLetters = DefaultLetters
	}
	if err := durable.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open dead letters: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open dead letters: %w", err)
	}
	for _, e := range entries {
		if halfWritten(e.Name()) {
			if err := durable.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("open dead letters: %w", err)
			}
		}
	}
	return &Box{dir: dir, o: o}, nil
}

// Put keeps l, and returns nil when it would survive a power cut. A letter of
// the same stream and number is replaced. Whatever must go to make room goes
// first, oldest first, so the bounds hold at every moment, but for the one
// letter that is being replaced.
//
// An error means that l is not kept: the disk failed, l is larger than the box,
// or it is not one line.
func (b *Box) Put(l Letter) error {
	data, err := encode(&l)
	if err != nil {
		return fmt.Errorf("put dead letter: %w", err)
	}
	if size := blocks(int64(len(data))); size > b.o.MaxBytes {
		return fmt.Errorf("put dead letter: %d bytes do not fit into %d", size, b.o.MaxBytes)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	newest, err := b.makeRoom(fileName(&l), blocks(int64(len(data))))
	if err != nil {
		return fmt.Errorf("put dead letter: %w", err)
	}
	path := filepath.Join(b.dir, fileName(&l))
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("put dead letter: %w", err)
	}
	// What is oldest is read off the files' times. A clock that was set back must
	// not make this one the oldest, so they only grow.
	at := time.Now()
	if after := newest.Add(time.Microsecond); at.Before(after) {
		at = after
	}
	_ = os.Chtimes(path, time.Time{}, at) // if this fails the letter is kept all the same
	return nil
}

// makeRoom removes the oldest letters until one of that name and size fits. It
// returns the time of the newest.
func (b *Box) makeRoom(name string, size int64) (newest time.Time, err error) {
	files, err := scan(b.dir)
	if err != nil {
		return time.Time{}, err
	}
	if len(files) > 0 {
		newest = files[len(files)-1].time
	}
	files = slices.DeleteFunc(files, func(f letterFile) bool { return f.name == name })
	used := size
	for _, f := range files {
		used += f.size
	}
	for len(files) >= b.o.MaxLetters || used > b.o.MaxBytes {
		err := durable.Remove(filepath.Join(b.dir, files[0].name))
		switch {
		case err == nil:
			b.dropped++
		case !errors.Is(err, fs.ErrNotExist): // somebody else removed it
			return newest, err
		}
		used -= files[0].size
		files = files[1:]
	}
	return newest, nil
}

// Stats returns how full the box is. It looks into the folder: others remove
// letters too.
func (b *Box) Stats() (Stats, error) {
	files, err := scan(b.dir)
	if err != nil {
		return Stats{}, fmt.Errorf("count dead letters: %w", err)
	}
	s := Stats{Letters: len(files)}
	for _, f := range files {
		s.Bytes += f.size
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Dropped = b.dropped
	return s, nil
}

// List returns the letters in the folder dir, oldest first. A damaged one has
// Damage, and of the rest only what its name says. A folder that is not there
// has no letters. An error means that the folder cannot be read.
func List(dir string) ([]Letter, error) {
	files, err := scan(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	var letters []Letter
	for _, f := range files {
		l, err := read(filepath.Join(dir, f.name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // removed since
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("list dead letters: %w", err)
		case err == nil && fileName(&l) != f.name:
			err = errors.New("the letter is of another name")
		}
		if err != nil {
			l = f.letter
			l.Time, l.Damage = f.time, err
		}
		letters = append(letters, l)
	}
	return letters, nil
}

// Remove removes a letter of List, durably. It is no error if it is gone already.
func Remove(dir string, l Letter) error {
	if err := l.check(); err != nil {
		return fmt.Errorf("remove dead letter: %w", err)
	}
	err := durable.Remove(filepath.Join(dir, fileName(&l)))
	if err == nil {
		err = durable.SyncDir(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove dead letter: %w", err)
	}
	return nil
}

// read reads one file, and no more of it than a letter can be.
func read(path string) (Letter, error) {
	f, err := durable.Open(path)
	if err != nil {
		return Letter{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Letter{}, err
	}
	if len(data) > maxFile {
		return Letter{}, fmt.Errorf("the file is longer than %d bytes, which no letter is", maxFile)
	}
	return decode(data)
}

// A letterFile is a file with the name of a letter.
type letterFile struct {
	name   string
	letter Letter // as far as the name tells
	size   int64  // in blocks
	time   time.Time
}

// scan lists the letters' files, oldest first. It reads none of them. What has
// another name, or is no file, is left alone.
func scan(dir string) ([]letterFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []letterFile
	for _, e := range entries {
		l, ok := parseName(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		files = append(files, letterFile{e.Name(), l, blocks(info.Size()), info.ModTime()})
	}
	slices.SortStableFunc(files, func(a, b letterFile) int { return a.time.Compare(b.time) })
	return files, nil
}

const suffix = ".letter"

func fileName(l *Letter) string {
	return fmt.Sprintf("%s-%s-%019d%s", l.Lane, l.Stream, l.Seq, suffix)
}

// parseName reads a name of fileName.
func parseName(name string) (l Letter, ok bool) {
	rest, ok := strings.CutSuffix(name, suffix)
	i := strings.LastIndexByte(rest, '-')
	j := strings.LastIndexByte(rest[:max(i, 0)], '-')
	if !ok || j < 0 {
		return Letter{}, false
	}
	l.Lane, l.Stream = rest[:j], rest[j+1:i]
	seq, err := strconv.ParseUint(rest[i+1:], 10, 63)
	l.Seq = seq
	return l, err == nil && l.checkPlace() == nil && fileName(&l) == name
}

// halfWritten reports whether durable.WriteFile was killed before it gave the
// file its name.
func halfWritten(name string) bool {
	i := strings.Index(name, suffix+".")
	if i < 0 || !strings.HasSuffix(name, ".tmp") {
		return false
	}
	_, ok := parseName(name[:i+len(suffix)])
	return ok
}

// blocks returns what a file of that size takes up.
func blocks(size int64) int64 {
	const block = 4096
	return (size + block - 1) / block * block
}
