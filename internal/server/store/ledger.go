package store

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/rea-agent/rea/internal/wire"
)

// declareAll enters the gaps that stand in the lines news into the ledger. Lines
// that were kept before had theirs entered then.
func declareAll(tx *sql.Tx, node string, gaps []wire.Gap, news []span) error {
	for i := range gaps {
		for _, n := range news {
			if g := &gaps[i]; n.first <= g.Seq && g.Seq <= n.last {
				if err := declare(tx, node, g); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// declare enters one gap of node. Its stream may be one that nothing has come of
// yet. Of its numbers those count that no gap declared before.
func declare(tx *sql.Tx, node string, g *wire.Gap) error {
	if g.First == 0 {
		return run(tx, `INSERT INTO unnumbered (node, cause, source, events) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT DO UPDATE SET events = events + min(?4, ?5 - events)`, node, g.Cause, g.Source, g.Count, int64(math.MaxInt64))
	}
	st, err := findStream(tx, node, g.Stream)
	if err != nil {
		return err
	}
	want := span{g.First, g.Last}
	known, err := overlapping(tx, "declared", st.id, want)
	if err != nil {
		return err
	}
	for _, s := range without(want, known) {
		if err := run(tx, "INSERT INTO declared (stream, first, last, cause, source, since, until) VALUES (?, ?, ?, ?, ?, ?, ?)",
			st.id, s.first, s.last, g.Cause, g.Source, micro(g.Since), micro(g.Until)); err != nil {
			return err
		}
	}
	return nil
}

// without returns what of s is in none of the others, which are in order and
// overlap s but not each other.
func without(s span, others []span) (rest []span) {
	for _, o := range others {
		if s.first < o.first {
			rest = append(rest, span{s.first, o.first - 1})
		}
		if o.last >= s.last {
			return rest
		}
		s.first = o.last + 1
	}
	return append(rest, s)
}

// micro renders a time that may not be known.
func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// declareStored makes the ledger of a database that had none, of the gap events
// that it keeps. A version without a ledger did not look at them: one that cannot
// be counted with declares nothing, nor does one in a damaged batch, which Audit
// names. Neither keeps a server from starting.
func declareStored(tx *sql.Tx) error {
	limits := wire.DefaultLimits
	limits.Line, limits.Depth, limits.Members = maxBody, wire.MostDepth, wire.MostMembers
	decode, scan := wire.NewDecompressor(), wire.NewScanner(limits)
	for after := int64(0); ; {
		var node string
		var body []byte
		err := tx.QueryRow(`SELECT b.id, s.node, o.body FROM batches b JOIN streams s ON s.id = b.stream JOIN bodies o ON o.id = b.id
			WHERE b.id > ? AND instr(b.kinds, ?) ORDER BY b.id LIMIT 1`, after, list([]string{"gap"})).Scan(&after, &node, &body)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find gap events: %w", err)
		}
		lines, _ := decode.Decode(nil, body, maxBody)
		for scan.Reset(lines); scan.Scan(); {
			g, ok := gapOf(scan.Line())
			if !ok {
				continue
			}
			if err := declare(tx, node, &g); err != nil {
				return err
			}
		}
	}
}

// gapOf returns what a line declares, if it does.
func gapOf(l *wire.Line) (wire.Gap, bool) {
	if string(l.Kind) != "gap" {
		return wire.Gap{}, false
	}
	g, err := wire.ParseGap(l)
	return g, err == nil
}
