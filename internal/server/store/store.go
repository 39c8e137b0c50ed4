// Package store keeps what agents deliver, each event once, and answers
// questions about it.
//
// A [Store] is the one writer: Put returns when its batch is on the disk. A
// [Reader] asks, also from another process while the server runs. Both work on
// one SQLite database in the data folder, in WAL mode with synchronous=FULL.
//
// The bytes of a batch are kept as they came, zstd frames of NDJSON, as a blob
// beside a row that says which numbers, times, kinds and hosts are inside. So
// keeping costs little, and questions decompress only the batches that may
// hold an answer.
//
// What was kept of a stream is known exactly: every number from 1 to its
// high-water mark but for its holes. Put changes batches, mark and holes in one
// transaction, so that a repeat is recognised without looking at data and a
// late delivery fills its hole.
package store

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/wire"
	"modernc.org/sqlite" // pure Go, so that the binary needs no C library
)

// File is the name of the database in the data folder.
const File = "events.db"

// ErrConflict says that numbers of a batch are kept with other content: two
// agents use one stream (a machine was cloned), or one of them lies.
var ErrConflict = errors.New("the numbers are kept with other content")

// ErrSuperseded is the ErrConflict of a batch that is new and comes from a
// process after which another one came.
var ErrSuperseded = fmt.Errorf("another process has taken the stream over: %w", conflict{})

// ErrProven says that a batch or a Resume came without a certificate, for an agent
// that has shown one.
var ErrProven = errors.New("this agent has delivered with a certificate")

// conflict is an ErrConflict without its words.
type conflict struct{}

func (conflict) Error() string        { return "two agents use it" }
func (conflict) Is(target error) bool { return target == ErrConflict }

// A Batch is a run of lines of one stream. Its lines are First to Last, each
// once and in order; whoever calls Put has checked that.
type Batch struct {
	Node, Stream string
	First, Last  uint64
	ID           string // for logs
	Agent        string // what the agent says it is: "rea-agent/1.2.3"
	Received     time.Time
	Earliest     time.Time // event times
	Latest       time.Time
	Hosts        []string // each once
	Kinds        []string // each once
	Lines        []byte   // NDJSON
	Frames       []byte   // the same as zstd frames; empty if it came plain

	Assigned   uint64     // the highest number of the stream that an event has
	Superseded bool       // another process has sent of the stream since this one began
	Unproven   bool       // no certificate says that it is of Node
	Gaps       []wire.Gap // what the gap events among Lines declare, in their order
}

// A Store is a database opened for writing. Its methods may be called by
// several goroutines.
type Store struct {
	*Reader
	db   *sql.DB
	lock io.Closer // one server, one folder

	writer chan struct{} // who holds its one token may write

	mu      sync.Mutex
	waiting []*put // guarded by mu

	compress sync.Pool          // of *wire.Compressor
	decode   *wire.Decompressor // belongs to the holder of writer
}

// Open opens the database in the folder dir, both of which it makes where they
// are missing.
func Open(dir string) (*Store, error) {
	name := filepath.Join(dir, File)
	if err := create(dir, name); err != nil {
		return nil, err
	}
	lock, err := durable.Lock(filepath.Join(dir, "lock"))
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("data folder %s is in use by another rea-server: stop that one, or name another folder: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", dir, err)
	}
	s, err := openLocked(dir, name)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	return s, nil
}

func openLocked(dir, name string) (*Store, error) {
	db, err := open(name, "rwc", "_txlock=immediate", pragma("journal_mode", "WAL"), pragma("synchronous", "FULL"),
		pragma("foreign_keys", "ON"), pragma("journal_size_limit", "67108864"))
	if err != nil {
		return nil, err
	}
	if err := migrate(db, name); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	r, err := OpenReader(dir)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Store{
		Reader: r, db: db, writer: make(chan struct{}, 1), decode: wire.NewDecompressor(),
		compress: sync.Pool{New: func() any { return wire.NewCompressor() }},
	}, nil
}

// Close closes the database. Nobody may be in Put any more.
func (s *Store) Close() error {
	return errors.Join(s.Reader.Close(), s.db.Close(), s.lock.Close())
}

// create makes the folder and an empty file for its owner only: SQLite gives
// the files beside it the same mode.
func create(dir, name string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|durable.NoFollow, 0o600)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	return f.Close()
}

// pragma renders a setting that modernc.org/sqlite makes on every connection.
func pragma(name, value string) string { return "_pragma=" + name + "(" + value + ")" }

// open opens one connection to the named file.
func open(name, mode string, params ...string) (*sql.DB, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	path := filepath.ToSlash(abs)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/… (https://sqlite.org/uri.html, section 3.1)
	}
	params = append([]string{"mode=" + mode, pragma("busy_timeout", "10000")}, params...)
	dsn := "file://" + (&url.URL{Path: path}).EscapedPath() + "?" + strings.Join(params, "&")
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", name, err)
	}
	db.SetMaxOpenConns(1)
	if err := db.Ping(); err != nil {
		return nil, errors.Join(openError(name, err), db.Close())
	}
	return db, nil
}

// The result codes (https://sqlite.org/rescode.html) that have a remedy here.
const (
	sqliteCorrupt  = 11
	sqliteCantOpen = 14
	sqliteNotADB   = 26
)

// openError says what a database that cannot be opened is.
func openError(name string, err error) error {
	var se *sqlite.Error
	if errors.As(err, &se) {
		switch se.Code() & 0xff {
		case sqliteNotADB:
			return fmt.Errorf("%s is not a database: move it away, or name another data folder: %w", name, err)
		case sqliteCorrupt:
			return fmt.Errorf("%s is damaged: restore it from a copy, or save what is left with sqlite3 %s .recover: %w", name, name, err)
		case sqliteCantOpen:
			f, ferr := os.Open(name) // SQLite does not say why
			if ferr != nil {
				return fmt.Errorf("open database: %w", ferr)
			}
			_ = f.Close()
		}
	}
	return fmt.Errorf("open database %s: %w", name, err)
}
