package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rea-agent/rea/internal/wire"
)

// A put is a batch on its way into the database.
type put struct {
	batch *Batch
	done  chan struct{} // closed when high and err are final
	high  uint64
	err   error
}

// Put keeps what is new in b and returns the highest number that is kept of its
// stream. When it returns nil, all of b is on the disk, from now or before;
// when it returns ErrConflict, nothing of b was kept and never will be; after
// any other error the batch may or may not be kept, and Put may be repeated.
//
// Callers that come while the disk is busy share one transaction: the first to
// get the token writes for all who wait. ctx is heeded only before that, since
// the batch is borrowed until it is written.
func (s *Store) Put(ctx context.Context, b *Batch) (high uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.pack(b)
	p := &put{batch: b, done: make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, p)
	s.mu.Unlock()
	select {
	case s.writer <- struct{}{}:
		s.writeWaiting()
		<-p.done // by this call, or by who held the token before
	case <-p.done:
	}
	return p.high, p.err
}

// pack compresses what came plain.
func (s *Store) pack(b *Batch) {
	if len(b.Frames) > 0 {
		return
	}
	c := s.compress.Get().(*wire.Compressor)
	b.Frames = c.Append(nil, b.Lines)
	s.compress.Put(c)
}

// writeWaiting is for the holder of the token, and gives it back.
func (s *Store) writeWaiting() {
	defer func() { <-s.writer }()
	s.write(s.take())
}

func (s *Store) take() []*put {
	s.mu.Lock()
	defer s.mu.Unlock()
	group := s.waiting
	s.waiting = nil
	return group
}

// write keeps a group of batches in one transaction and tells those who wait,
// even if a bug ends it: nobody waits for ever, and nobody is told that a batch
// is kept before the commit.
func (s *Store) write(group []*put) {
	if len(group) == 0 {
		return
	}
	err := errors.New("the transaction ended in a panic")
	defer func() {
		for _, p := range group {
			if err != nil {
				p.high, p.err = 0, fmt.Errorf("keep batch %s: %w", p.batch.ID, err)
			}
			close(p.done)
		}
	}()
	if err = s.transaction(group); err != nil {
		// A commit that failed may leave the transaction open. The error says
		// that it did not, and there is nothing to do then.
		_, _ = s.db.Exec("ROLLBACK")
	}
}

func (s *Store) transaction(group []*put) error {
	tx, err := s.db.Begin()
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() // nothing after Commit
	for _, p := range group {
		p.high, p.err = s.keep(tx, p.batch)
		if p.err != nil && !errors.Is(p.err, ErrConflict) {
			return p.err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// span is a run of numbers, both ends included.
type span struct{ first, last uint64 }

// stream is what the database knows of one.
type stream struct {
	id    int64
	high  uint64
	holes []span // those that overlap the batch at hand
}

// keep adds what is new in b to the transaction.
func (s *Store) keep(tx *sql.Tx, b *Batch) (high uint64, err error) {
	st, err := findStream(tx, b)
	if err != nil {
		return 0, err
	}
	news := missing(st, span{b.First, b.Last})
	if err := s.compare(tx, st.id, b, news); err != nil {
		if !errors.Is(err, ErrConflict) {
			return 0, err
		}
		if failed := run(tx, "UPDATE streams SET conflicts = conflicts + 1 WHERE id = ?", st.id); failed != nil {
			return 0, failed
		}
		return st.high, err
	}
	if len(news) == 0 {
		return st.high, run(tx, "UPDATE streams SET repeats = repeats + 1 WHERE id = ?", st.id)
	}
	for _, n := range news {
		if err := s.insert(tx, st.id, b, n); err != nil {
			return 0, err
		}
	}
	if err := fillHoles(tx, st, b); err != nil {
		return 0, err
	}
	if b.Last > st.high {
		st.high = b.Last
		if err := run(tx, "UPDATE streams SET high = ? WHERE id = ?", st.high, st.id); err != nil {
			return 0, err
		}
	}
	return st.high, noteHost(tx, b, news)
}

func findStream(tx *sql.Tx, b *Batch) (stream, error) {
	var st stream
	if err := run(tx, "INSERT INTO streams (node, stream, high, repeats, conflicts) VALUES (?, ?, 0, 0, 0) ON CONFLICT DO NOTHING", b.Node, b.Stream); err != nil {
		return st, err
	}
	if err := tx.QueryRow("SELECT id, high FROM streams WHERE node = ? AND stream = ?", b.Node, b.Stream).Scan(&st.id, &st.high); err != nil {
		return st, fmt.Errorf("find stream: %w", err)
	}
	if b.First > st.high {
		return st, nil
	}
	rows, err := tx.Query("SELECT first, last FROM holes WHERE stream = ? AND first <= ? AND last >= ? ORDER BY first", st.id, b.Last, b.First)
	if err != nil {
		return st, fmt.Errorf("find holes: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var h span
		if err := rows.Scan(&h.first, &h.last); err != nil {
			return st, fmt.Errorf("find holes: %w", err)
		}
		st.holes = append(st.holes, h)
	}
	return st, rows.Err()
}

// missing returns which numbers of want are not kept: those in holes, and those
// beyond the high-water mark.
func missing(st stream, want span) (news []span) {
	for _, h := range st.holes {
		news = append(news, span{max(h.first, want.first), min(h.last, want.last)})
	}
	if want.last > st.high {
		news = append(news, span{max(st.high+1, want.first), want.last})
	}
	return news
}

// compare returns ErrConflict if numbers of b that are kept have other content.
func (s *Store) compare(tx *sql.Tx, id int64, b *Batch, news []span) error {
	if len(news) == 1 && news[0] == (span{b.First, b.Last}) {
		return nil
	}
	rows, err := tx.Query("SELECT first, last, sha256, body FROM batches JOIN bodies USING (id) WHERE stream = ? AND first <= ? AND last >= ? ORDER BY first", id, b.Last, b.First)
	if err != nil {
		return fmt.Errorf("find repeated batch: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var kept span
		var sum, body []byte
		if err := rows.Scan(&kept.first, &kept.last, &sum, &body); err != nil {
			return fmt.Errorf("find repeated batch: %w", err)
		}
		if err := s.same(b, kept, sum, body); err != nil {
			return err
		}
	}
	return rows.Err()
}

// same compares b with one kept batch, where they overlap.
func (s *Store) same(b *Batch, kept span, sum, body []byte) error {
	equal := false
	if kept == (span{b.First, b.Last}) {
		own := sha256.Sum256(b.Lines)
		equal = bytes.Equal(own[:], sum)
	} else {
		lines, err := s.decode.Decode(nil, body, maxBody)
		if err != nil {
			return fmt.Errorf("read batch %d to %d: %w", kept.first, kept.last, err)
		}
		both := span{max(b.First, kept.first), min(b.Last, kept.last)}
		equal = bytes.Equal(cut(b.Lines, b.First, both), cut(lines, kept.first, both))
	}
	if !equal {
		return fmt.Errorf("%d to %d: %w", max(b.First, kept.first), min(b.Last, kept.last), ErrConflict)
	}
	return nil
}

// cut returns the lines numbered want, of lines that begin at number first.
func cut(lines []byte, first uint64, want span) []byte {
	start := 0
	for ; first < want.first; first++ {
		start += bytes.IndexByte(lines[start:], '\n') + 1
	}
	end := start
	for ; first <= want.last; first++ {
		end += bytes.IndexByte(lines[end:], '\n') + 1
	}
	return lines[start:end]
}

// insert adds the lines n of b as a batch.
func (s *Store) insert(tx *sql.Tx, id int64, b *Batch, n span) error {
	lines, body := b.Lines, b.Frames
	if n != (span{b.First, b.Last}) {
		lines = cut(b.Lines, b.First, n)
		rest := Batch{Lines: lines}
		s.pack(&rest)
		body = rest.Frames
	}
	sum := sha256.Sum256(lines)
	r, err := tx.Exec("INSERT INTO batches (stream, first, last, received, earliest, latest, kinds, hosts, batch, sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		id, n.first, n.last, b.Received.UnixMicro(), b.Earliest.UnixMicro(), b.Latest.UnixMicro(), list(b.Kinds), list(b.Hosts), b.ID, sum[:])
	if err != nil {
		return fmt.Errorf("insert batch: %w", err)
	}
	row, err := r.LastInsertId()
	if err != nil {
		return fmt.Errorf("insert batch: %w", err)
	}
	return run(tx, "INSERT INTO bodies (id, body) VALUES (?, ?)", row, body)
}

// fillHoles takes the numbers of b out of the holes of its stream, and makes a
// hole of those that b skipped.
func fillHoles(tx *sql.Tx, st stream, b *Batch) error {
	for _, h := range st.holes {
		var since int64
		if err := tx.QueryRow("DELETE FROM holes WHERE stream = ? AND first = ? RETURNING since", st.id, h.first).Scan(&since); err != nil {
			return fmt.Errorf("fill hole: %w", err)
		}
		for _, left := range []span{{h.first, b.First - 1}, {b.Last + 1, h.last}} {
			if left.first <= left.last {
				if err := addHole(tx, st.id, left, since); err != nil {
					return err
				}
			}
		}
	}
	if b.First > st.high+1 {
		return addHole(tx, st.id, span{st.high + 1, b.First - 1}, b.Received.UnixMicro())
	}
	return nil
}

func addHole(tx *sql.Tx, id int64, h span, since int64) error {
	return run(tx, "INSERT INTO holes (stream, first, last, since) VALUES (?, ?, ?, ?)", id, h.first, h.last, since)
}

func noteHost(tx *sql.Tx, b *Batch, news []span) error {
	var events uint64
	for _, n := range news {
		events += n.last - n.first + 1
	}
	kinds := map[string]bool{}
	var known string
	err := tx.QueryRow("SELECT kinds FROM hosts WHERE node = ?", b.Node).Scan(&known)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("find host: %w", err)
	}
	for _, k := range append(unlist(known), b.Kinds...) {
		kinds[k] = true
	}
	var host string
	if len(b.Hosts) > 0 {
		host = b.Hosts[len(b.Hosts)-1]
	}
	return run(tx, `INSERT INTO hosts (node, host, agent, kinds, events, first_seen, last_seen, last_event) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)
		ON CONFLICT DO UPDATE SET host = ?2, agent = ?3, kinds = ?4, events = events + ?5, last_seen = max(last_seen, ?6), last_event = max(last_event, ?7)`,
		b.Node, host, b.Agent, list(slices.Sorted(maps.Keys(kinds))), events, b.Received.UnixMicro(), b.Latest.UnixMicro())
}

func run(tx *sql.Tx, query string, args ...any) error {
	if _, err := tx.Exec(query, args...); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(strings.Fields(query)[:3], " "), err)
	}
	return nil
}
