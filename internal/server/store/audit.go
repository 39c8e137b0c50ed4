package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"

	"github.com/rea-agent/rea/internal/wire"
	"modernc.org/sqlite"
)

// An Audit is what a look at all that is kept found.
type Audit struct {
	Batches uint64   `json:"batches"` // looked at
	Events  uint64   `json:"events"`  // in them, as read; 0 where bodies were not
	Damaged uint64   `json:"damaged"` // places where something is not as it was kept
	Damage  []Damage `json:"damage,omitempty"`
}

// Damage is a place where the database is not as it was kept.
type Damage struct {
	Node   string `json:"node"`
	Stream string `json:"stream"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
	What   string `json:"what"`
}

// maxDamage bounds how much damage is named; all is counted.
const maxDamage = 20

func (a *Audit) add(b *keptBatch, format string, args ...any) {
	if a.Damaged++; len(a.Damage) < maxDamage {
		a.Damage = append(a.Damage, Damage{Node: b.node, Stream: b.stream, First: b.first, Last: b.last, What: fmt.Sprintf(format, args...)})
	}
}

// A keptBatch is a row of the table of batches.
type keptBatch struct {
	id           int64
	node, stream string
	span
}

// Audit looks whether the rows of a host's batches hold just the numbers that
// its Accounts say were received and, if bodies is set, whether every body can
// be read, has the lines that its row says and no other bytes than when it was
// kept. It tells progress, which may be nil, how many batches of how many it has
// read. Damage is no error: what can be read is looked at all the same.
func (r *Reader) Audit(ctx context.Context, host string, bodies bool, progress func(done, of uint64)) (a Audit, err error) {
	var list []keptBatch
	err = r.books(ctx, func(tx *sql.Tx) (err error) {
		if list, err = keptBatches(tx, host); err != nil {
			return err
		}
		books, err := accounts(tx, host)
		if err == nil {
			a.compare(books, list)
		}
		return err
	})
	a.Batches = uint64(len(list))
	if err != nil || !bodies {
		return a, err
	}
	for i := range list {
		if progress != nil {
			progress(uint64(i), a.Batches)
		}
		if err := r.auditBody(ctx, &a, &list[i]); err != nil {
			return a, err
		}
	}
	return a, nil
}

// keptBatches lists the batches of a host by stream and number: about a hundred
// bytes of memory for each.
func keptBatches(tx *sql.Tx, host string) (list []keptBatch, err error) {
	rows, err := tx.Query(`SELECT b.id, s.node, s.stream, b.first, b.last FROM batches b JOIN streams s ON s.id = b.stream
		LEFT JOIN hosts h ON h.node = s.node WHERE `+ofHost+" ORDER BY b.stream, b.first", host)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names := map[string]string{} // one copy of each
	for rows.Next() {
		var b keptBatch
		if err := rows.Scan(&b.id, &b.node, &b.stream, &b.first, &b.last); err != nil {
			return nil, err
		}
		for _, s := range []*string{&b.node, &b.stream} {
			if names[*s] == "" {
				names[*s] = *s
			}
			*s = names[*s]
		}
		list = append(list, b)
	}
	return list, rows.Err()
}

// compare finds rows that overlap, and streams whose rows are not what the books
// say.
func (a *Audit) compare(books []Account, list []keptBatch) {
	type key struct{ node, stream string }
	rows := map[key]uint64{}
	var before keptBatch
	for _, b := range list {
		k := key{b.node, b.stream}
		switch {
		case b.first > b.last:
			a.add(&b, "the row ends before it begins")
			continue
		case k == key{before.node, before.stream} && b.first <= before.last:
			a.add(&b, "the row has numbers of the one before it")
		}
		rows[k] = Sum(rows[k], b.count())
		before = b
	}
	for _, s := range books {
		if n := rows[key{s.Node, s.Stream}]; n != s.Received {
			a.add(&keptBatch{node: s.Node, stream: s.Stream, span: span{1, s.Assigned}}, "%d events are kept, but the books say %d", n, s.Received)
		}
	}
}

// auditBody reads one batch. Its error is one of reading at all.
func (r *Reader) auditBody(ctx context.Context, a *Audit, b *keptBatch) error {
	var sum, body []byte
	err := r.db.QueryRowContext(ctx, "SELECT sha256, body FROM batches LEFT JOIN bodies USING (id) WHERE id = ?", b.id).Scan(&sum, &body)
	var se *sqlite.Error
	switch {
	case errors.As(err, &se) && se.Code()&0xff == sqliteCorrupt:
		a.add(b, "the database cannot read it: %v", err)
		return nil
	case errors.Is(err, sql.ErrNoRows):
		a.add(b, "the row is gone")
		return nil
	case err != nil:
		return fmt.Errorf("read batch %d: %w", b.id, err)
	case body == nil:
		a.add(b, "it has no body")
		return nil
	}
	if r.lines, err = r.decode.Decode(r.lines[:0], body, maxBody); err != nil {
		a.add(b, "its body cannot be decoded: %v", err)
		return nil
	}
	if own := sha256.Sum256(r.lines); !bytes.Equal(own[:], sum) {
		a.add(b, "its lines are not those that were kept: their SHA-256 is %x, the row says %x", own, sum)
	}
	next := b.first
	r.scan.Reset(r.lines)
	for r.scan.Scan() {
		if l := r.scan.Line(); !b.has(l, next) {
			a.add(b, "line %d is number %d of stream %s of node %s, want %d", r.scan.Count(), l.Seq, l.Stream, l.Node, next)
			return nil
		}
		next++
	}
	switch err := r.scan.Err(); {
	case err != nil:
		a.add(b, "%v", err)
	case next != b.last+1:
		a.add(b, "its body ends before number %d", next)
	}
	a.Events += next - b.first
	return nil
}

// has reports whether l is the line of b that has the number next.
func (b *keptBatch) has(l *wire.Line, next uint64) bool {
	return l.Seq == next && next <= b.last && string(l.Stream) == b.stream && string(l.Node) == b.node
}
