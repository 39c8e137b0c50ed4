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
	"time"

	"github.com/rea-agent/rea/internal/wire"
)

// A put is a change on its way into the database.
type put struct {
	what string // for errors
	do   func(*sql.Tx) error
	done chan struct{} // closed when err is final
	err  error
}

// Put keeps what is new in b and returns the highest number that is kept of its
// stream. When it returns nil, all of b is on the disk, from now or before;
// when it returns ErrConflict, nothing of b was kept that was not kept before;
// when it returns ErrProven nothing was; after any other error the batch may or may
// not be kept, and Put may be repeated. What the gap events among the new lines declare goes into the
// ledger with them.
//
// b is borrowed until it is written, so ctx is heeded only before that.
func (s *Store) Put(ctx context.Context, b *Batch) (high uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.pack(b)
	err = s.write("keep batch "+b.ID, func(tx *sql.Tx) (err error) {
		high, err = s.keep(tx, b)
		return err
	})
	if err != nil && !errors.Is(err, ErrConflict) {
		return 0, err
	}
	return high, err
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

// write returns when do has been done durably, or with why not; an error of do may
// be an answer, and then what do wrote before it is kept.
//
// Callers that come while the disk is busy share one transaction: the first to
// get the token writes for all who wait.
func (s *Store) write(what string, do func(*sql.Tx) error) error {
	p := &put{what: what, do: do, done: make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, p)
	s.mu.Unlock()
	select {
	case s.writer <- struct{}{}:
		s.writeWaiting()
		<-p.done // by this call, or by who held the token before
	case <-p.done:
	}
	return p.err
}

// writeWaiting is for the holder of the token, and gives it back.
func (s *Store) writeWaiting() {
	defer func() { <-s.writer }()
	s.writeGroup(s.take())
}

func (s *Store) take() []*put {
	s.mu.Lock()
	defer s.mu.Unlock()
	group := s.waiting
	s.waiting = nil
	return group
}

// writeGroup makes a group of changes in one transaction and tells those who
// wait, even if a bug ends it: nobody waits for ever, and nobody is told that a
// batch is kept before the commit.
func (s *Store) writeGroup(group []*put) {
	if len(group) == 0 {
		return
	}
	err := errors.New("the transaction ended in a panic")
	defer func() {
		for _, p := range group {
			if err != nil {
				p.err = fmt.Errorf("%s: %w", p.what, err)
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
		p.err = p.do(tx)
		if p.err != nil && !answered(p.err) {
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

func (s span) count() uint64 { return s.last - s.first + 1 }

// stream is what the database knows of one.
type stream struct {
	id    int64
	high  uint64
	told  uint64 // the highest number that an event has, as the agent says
	holes []span // those that overlap the batch at hand
}

// keep adds what is new in b to the transaction.
func (s *Store) keep(tx *sql.Tx, b *Batch) (high uint64, err error) {
	if err := prove(tx, b.Node, b.Unproven); err != nil {
		return 0, err
	}
	st, err := findStream(tx, b.Node, b.Stream)
	if err != nil {
		return 0, err
	}
	if err := st.findHoles(tx, b); err != nil {
		return 0, err
	}
	news := missing(st, span{b.First, b.Last})
	if count, err := s.refuse(tx, st.id, b, news); err != nil {
		if !errors.Is(err, ErrConflict) {
			return 0, err
		}
		if failed := run(tx, "UPDATE streams SET "+count+" = "+count+" + 1 WHERE id = ?", st.id); failed != nil {
			return 0, failed
		}
		return st.high, err
	}
	if len(news) == 0 {
		if err := run(tx, "UPDATE streams SET repeats = repeats + 1 WHERE id = ?", st.id); err != nil {
			return 0, err
		}
		return st.high, st.advance(tx, st.high, b.told(), b.Received)
	}
	for _, n := range news {
		if err := s.insert(tx, st.id, b, n); err != nil {
			return 0, err
		}
	}
	if err := fillHoles(tx, st, b); err != nil {
		return 0, err
	}
	if err := st.advance(tx, b.Last, b.told(), b.Received); err != nil {
		return 0, err
	}
	if err := declareAll(tx, b.Node, b.Gaps, news); err != nil {
		return 0, err
	}
	return st.high, noteHost(tx, b, news)
}

// told is what b says of its stream. A process that another one superseded
// tells of numbers that are not those of the stream any more.
func (b *Batch) told() uint64 {
	if b.Superseded {
		return 0
	}
	return max(b.Assigned, b.Last)
}

// refuse returns ErrConflict if b must not be kept, and the column that counts
// why.
func (s *Store) refuse(tx *sql.Tx, id int64, b *Batch, news []span) (count string, err error) {
	if err := s.compare(tx, id, b, news); err != nil {
		return "conflicts", err
	}
	if b.Superseded && len(news) > 0 {
		return "clones", ErrSuperseded
	}
	return "", nil
}

// findStream returns a stream, which it adds where it is new.
func findStream(tx *sql.Tx, node, name string) (st stream, err error) {
	err = tx.QueryRow("SELECT id, high, told FROM streams WHERE node = ? AND stream = ?", node, name).Scan(&st.id, &st.high, &st.told)
	if errors.Is(err, sql.ErrNoRows) {
		var r sql.Result
		if r, err = tx.Exec("INSERT INTO streams (node, stream, high, repeats, conflicts) VALUES (?, ?, 0, 0, 0)", node, name); err == nil {
			st.id, err = r.LastInsertId()
		}
	}
	if err != nil {
		return st, fmt.Errorf("find stream: %w", err)
	}
	return st, nil
}

// advance notes the highest number kept and the highest assigned, if they rose.
func (st *stream) advance(tx *sql.Tx, high, told uint64, now time.Time) error {
	high, told = max(st.high, high), max(st.told, told)
	if high == st.high && told == st.told {
		return nil
	}
	rose := told > st.told
	st.high, st.told = high, told
	if !rose {
		return run(tx, "UPDATE streams SET high = ? WHERE id = ?", high, st.id)
	}
	return run(tx, "UPDATE streams SET high = ?, told = ?, told_at = ? WHERE id = ?", high, told, now.UnixMicro(), st.id)
}

// findHoles finds the holes that overlap b.
func (st *stream) findHoles(tx *sql.Tx, b *Batch) (err error) {
	if b.First > st.high {
		return nil
	}
	st.holes, err = overlapping(tx, "holes", st.id, span{b.First, b.Last})
	return err
}

// overlap selects the rows of a stream that overlap a run of numbers, from a
// table whose rows do not overlap each other: so the first of them is the last
// that begins before the run does, however many there are.
func overlap(columns, table string) string {
	return "SELECT " + columns + " FROM " + table + " WHERE stream = ?1 AND first <= ?3 AND last >= ?2" +
		" AND first >= coalesce((SELECT max(first) FROM " + table + " WHERE stream = ?1 AND first <= ?2), 0) ORDER BY first"
}

func overlapping(tx *sql.Tx, table string, id int64, of span) (found []span, err error) {
	rows, err := tx.Query(overlap("first, last", table), id, of.first, of.last)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var s span
		if err := rows.Scan(&s.first, &s.last); err != nil {
			return nil, fmt.Errorf("find %s: %w", table, err)
		}
		found = append(found, s)
	}
	return found, rows.Err()
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
	rows, err := tx.Query(overlap("first, last, sha256, (SELECT body FROM bodies WHERE bodies.id = batches.id)", "batches"), id, b.First, b.Last)
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
	var events, unproven uint64
	for _, n := range news {
		events += n.count()
	}
	if b.Unproven {
		unproven = events
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
	return run(tx, `INSERT INTO hosts (node, host, agent, kinds, events, first_seen, last_seen, last_event, unproven) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8)
		ON CONFLICT DO UPDATE SET host = ?2, agent = ?3, kinds = ?4, events = events + ?5, unproven = unproven + ?8, last_seen = max(last_seen, ?6), last_event = max(last_event, ?7)`,
		b.Node, host, b.Agent, list(slices.Sorted(maps.Keys(kinds))), events, b.Received.UnixMicro(), b.Latest.UnixMicro(), unproven)
}

func run(tx *sql.Tx, query string, args ...any) error {
	if _, err := tx.Exec(query, args...); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(strings.Fields(query)[:3], " "), err)
	}
	return nil
}
