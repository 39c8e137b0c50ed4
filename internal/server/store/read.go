package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/wire"
)

// A Reader is a database opened for questions. It belongs to one goroutine at a
// time and never keeps the writer from writing.
type Reader struct {
	db     *sql.DB
	decode *wire.Decompressor
	scan   *wire.Scanner
	lines  []byte
}

// maxBody bounds what is read back: more than any batch that a server can be
// configured to accept.
const maxBody = 4 << 30

// OpenReader opens the database in the folder dir, which must be there; a
// server may be writing to it.
func OpenReader(dir string) (*Reader, error) {
	name := filepath.Join(dir, File)
	db, err := open(name, "ro")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no server has used this folder", err)
	}
	if err != nil {
		return nil, err
	}
	version, err := readVersion(db, name)
	if err == nil && version != len(migrations) {
		err = fmt.Errorf("%s has version %d, this program reads %d: start rea-server once, which brings it up to date", name, version, len(migrations))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	limits := wire.DefaultLimits // the lines were checked before they were kept
	limits.Line, limits.Depth, limits.Members = maxBody, wire.MostDepth, wire.MostMembers
	return &Reader{db: db, decode: wire.NewDecompressor(), scan: wire.NewScanner(limits)}, nil
}

// making is how long a server may take to make the tables of a new database.
const making = 5 * time.Second

// readVersion is checkVersion for a reader, which may come while a server is
// just making the database.
func readVersion(db *sql.DB, name string) (version int, err error) {
	for end := time.Now().Add(making); ; time.Sleep(20 * time.Millisecond) {
		version, err = checkVersion(db, name)
		if err != nil || version > 0 || time.Now().After(end) {
			return version, err
		}
	}
}

// Close closes the database.
func (r *Reader) Close() error { return r.db.Close() }

// A Host is what is known of one agent.
type Host struct {
	Node      string    `json:"node"`
	Host      string    `json:"hostname"` // the name that it had last
	Agent     string    `json:"agent"`
	Kinds     []string  `json:"kinds"`
	Events    uint64    `json:"events"`     // kept
	Unproven  uint64    `json:"unproven"`   // of these: came without a certificate, so that anybody can have sent them
	Declared  uint64    `json:"declared"`   // lost, as gap events say
	Missing   uint64    `json:"missing"`    // numbers below the highest kept that never came, and nobody says why
	Conflicts uint64    `json:"conflicts"`  // batches refused for other content under kept numbers
	Clones    uint64    `json:"clones"`     // batches refused since another process had taken the stream over
	FirstSeen time.Time `json:"first_seen"` // by the clock of the server
	LastSeen  time.Time `json:"last_seen"`
	LastEvent time.Time `json:"last_event"` // by the clock of the host
}

// Hosts returns all agents, by host name.
func (r *Reader) Hosts(ctx context.Context) (hosts []Host, err error) {
	var books []Account
	err = r.books(ctx, func(tx *sql.Tx) (err error) {
		if hosts, err = listHosts(tx); err != nil {
			return err
		}
		books, err = accounts(tx, "")
		return err
	})
	if err != nil {
		return nil, err
	}
	index := map[string]*Host{}
	for i := range hosts {
		index[hosts[i].Node] = &hosts[i]
	}
	for _, a := range books {
		if h := index[a.Node]; h != nil {
			h.Declared, h.Missing = Sum(h.Declared, a.Declared), Sum(h.Missing, a.Undeclared)
			h.Conflicts, h.Clones = h.Conflicts+a.Conflicts, h.Clones+a.Clones
		}
	}
	return hosts, nil
}

func listHosts(tx *sql.Tx) (hosts []Host, err error) {
	rows, err := tx.Query("SELECT node, host, agent, kinds, events, first_seen, last_seen, last_event, unproven FROM hosts ORDER BY host, node")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var h Host
		var kinds string
		var first, last, event int64
		if err := rows.Scan(&h.Node, &h.Host, &h.Agent, &kinds, &h.Events, &first, &last, &event, &h.Unproven); err != nil {
			return nil, err
		}
		h.Kinds, h.FirstSeen, h.LastSeen, h.LastEvent = unlist(kinds), at(first), at(last), at(event)
		hosts = append(hosts, h)
	}
	return hosts, rows.Err()
}

func at(micro int64) time.Time { return time.UnixMicro(micro).UTC() }

// A Position is a place in the order of arrival. The zero Position is before
// everything.
type Position int64

// A Filter says which events are wanted. What is zero does not restrict.
type Filter struct {
	After        Position
	Host         string // the name of a host, or a node
	Kinds        []string
	Since, Until time.Time // event times, both ends included
	Limit        int       // only so many, the last that arrived
}

// Events calls each with the events that f wants, in the order of arrival, and
// returns the position after which later ones will stand. The line is borrowed.
// An error of each ends the search and is returned as it is.
func (r *Reader) Events(ctx context.Context, f Filter, each func(*wire.Line) error) (Position, error) {
	var end Position
	if err := r.db.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM batches").Scan(&end); err != nil {
		return 0, fmt.Errorf("find events: %w", err)
	}
	skip := 0
	if f.Limit > 0 {
		var err error
		if f.After, skip, err = r.last(ctx, f, end); err != nil {
			return 0, err
		}
	}
	for after := f.After; ; {
		ids, err := r.page(ctx, f, after, end, "ASC")
		if err != nil || len(ids) == 0 {
			return end, err
		}
		for _, id := range ids {
			err := r.batch(ctx, id, f, func(l *wire.Line) error {
				if skip > 0 {
					skip--
					return nil
				}
				return each(l)
			})
			if err != nil {
				return 0, err
			}
		}
		after = ids[len(ids)-1]
	}
}

// last returns where the last f.Limit events begin: after which position, and
// how many of those that follow are too many.
func (r *Reader) last(ctx context.Context, f Filter, end Position) (after Position, skip int, err error) {
	count := 0
	for before := end; ; {
		ids, err := r.page(ctx, f, f.After, before, "DESC")
		if err != nil || len(ids) == 0 {
			return f.After, 0, err
		}
		for _, id := range ids {
			if err := r.batch(ctx, id, f, func(*wire.Line) error { count++; return nil }); err != nil {
				return 0, 0, err
			}
			if count >= f.Limit {
				return id - 1, count - f.Limit, nil
			}
		}
		before = ids[len(ids)-1] - 1
	}
}

// page returns some of the batches after one position and up to another that
// may hold what f wants. No transaction stays open between pages, so the writer
// can tidy its log while a long answer is read.
func (r *Reader) page(ctx context.Context, f Filter, after, end Position, order string) ([]Position, error) {
	where, args := []string{"b.id > ?", "b.id <= ?"}, []any{after, end}
	add := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	if !f.Since.IsZero() {
		add("b.latest >= ?", f.Since.UnixMicro())
	}
	if !f.Until.IsZero() {
		add("b.earliest <= ?", f.Until.UnixMicro())
	}
	if f.Host != "" {
		add("(s.node = ? OR instr(b.hosts, ?))", f.Host, list([]string{f.Host}))
	}
	if len(f.Kinds) > 0 {
		var any []any
		for _, k := range f.Kinds {
			any = append(any, list([]string{k}))
		}
		add("("+strings.Repeat("instr(b.kinds, ?) OR ", len(any)-1)+"instr(b.kinds, ?))", any...)
	}
	rows, err := r.db.QueryContext(ctx, "SELECT b.id FROM batches b JOIN streams s ON s.id = b.stream WHERE "+
		strings.Join(where, " AND ")+" ORDER BY b.id "+order+" LIMIT 256", args...)
	if err != nil {
		return nil, fmt.Errorf("find events: %w", err)
	}
	defer rows.Close()
	var ids []Position
	for rows.Next() {
		var id Position
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("find events: %w", err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find events: %w", err)
	}
	return ids, nil
}

// batch calls each with the lines of one batch that f wants.
func (r *Reader) batch(ctx context.Context, id Position, f Filter, each func(*wire.Line) error) error {
	var body []byte
	err := r.db.QueryRowContext(ctx, "SELECT body FROM bodies WHERE id = ?", id).Scan(&body)
	if err != nil {
		return fmt.Errorf("read batch %d: %w", id, err)
	}
	if r.lines, err = r.decode.Decode(r.lines[:0], body, maxBody); err != nil {
		return fmt.Errorf("read batch %d: %w", id, err)
	}
	r.scan.Reset(r.lines)
	for r.scan.Scan() {
		if l := r.scan.Line(); f.wants(l) {
			if err := each(l); err != nil {
				return err
			}
		}
	}
	if err := r.scan.Err(); err != nil {
		return fmt.Errorf("read batch %d: %w", id, err)
	}
	return nil
}

func (f *Filter) wants(l *wire.Line) bool {
	return (f.Since.IsZero() || !l.Time.Before(f.Since)) &&
		(f.Until.IsZero() || !l.Time.After(f.Until)) &&
		(f.Host == "" || f.Host == string(l.Host) || f.Host == string(l.Node)) &&
		(len(f.Kinds) == 0 || slices.Contains(f.Kinds, string(l.Kind)))
}

// Version returns a number that changes when somebody else has written to the
// database. Asking costs next to nothing, so it is how to wait for new events.
func (r *Reader) Version(ctx context.Context) (version int64, err error) {
	if err := r.db.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("look for changes: %w", err)
	}
	return version, nil
}

// list renders texts so that one of them can be looked for with its delimiters.
func list(texts []string) string { return "\n" + strings.Join(texts, "\n") + "\n" }

func unlist(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' })
}
