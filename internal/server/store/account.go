package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"
)

// An Account is what became of every number of one stream:
//
//	Assigned = Received + Declared + Waiting + Undeclared
//
// so that Received + Declared = Assigned where nothing is missing.
type Account struct {
	Node   string `json:"node"`
	Host   string `json:"hostname"` // of the node, as it was last; empty where nothing came
	Stream string `json:"stream"`

	Assigned   uint64 `json:"assigned"`   // the highest number told of, kept or declared
	Received   uint64 `json:"received"`   // numbers that are kept
	Declared   uint64 `json:"declared"`   // those that are not, and a gap event says why
	Waiting    uint64 `json:"waiting"`    // those that are neither, above the highest kept: perhaps on their way
	Undeclared uint64 `json:"undeclared"` // those that are neither, below it

	Causes  map[string]uint64 `json:"causes,omitempty"`  // Declared, by the cause that was given first
	Missing []Range           `json:"missing,omitempty"` // the first few of Undeclared and Waiting

	DeclaredReceived uint64 `json:"declared_received"` // numbers that were declared lost and are kept all the same
	Repeats          uint64 `json:"repeats"`           // batches of which nothing was new
	Conflicts        uint64 `json:"conflicts"`         // batches refused for other content under kept numbers
	Clones           uint64 `json:"clones"`            // batches refused since another process had taken the stream over
}

// Balanced reports whether every number is received or declared.
func (a *Account) Balanced() bool { return a.Waiting == 0 && a.Undeclared == 0 }

// A Range is a run of numbers that are neither received nor declared.
type Range struct {
	First uint64    `json:"first"`
	Last  uint64    `json:"last"`
	Since time.Time `json:"since,omitzero"` // when the server learnt of it

	Waiting bool `json:"waiting"` // above the highest kept
}

// maxRanges bounds what is named of one stream.
const maxRanges = 5

// An Unnumbered is a loss of events that never had numbers.
type Unnumbered struct {
	Node   string `json:"node"`
	Cause  string `json:"cause"`
	Source string `json:"source"`
	Events uint64 `json:"events"`
}

// Accounts are the books at one moment.
type Accounts struct {
	Streams    []Account // by host, node and in the order in which they came
	Unnumbered []Unnumbered
}

// Total is the sum of all streams, without their names.
func (a *Accounts) Total() (t Account) {
	t.Causes = map[string]uint64{}
	for i := range a.Streams {
		s := &a.Streams[i]
		for _, f := range []struct{ to, from *uint64 }{
			{&t.Assigned, &s.Assigned}, {&t.Received, &s.Received}, {&t.Declared, &s.Declared}, {&t.Waiting, &s.Waiting}, {&t.Undeclared, &s.Undeclared},
			{&t.DeclaredReceived, &s.DeclaredReceived}, {&t.Repeats, &s.Repeats}, {&t.Conflicts, &s.Conflicts}, {&t.Clones, &s.Clones},
		} {
			*f.to = Sum(*f.to, *f.from)
		}
		for cause, n := range s.Causes {
			t.Causes[cause] = Sum(t.Causes[cause], n)
		}
	}
	return t
}

// Unbalanced returns of how many streams numbers are missing that nobody declared.
func (a *Accounts) Unbalanced() (n int) {
	for i := range a.Streams {
		if !a.Streams[i].Balanced() {
			n++
		}
	}
	return n
}

// books is a transaction that reads one state of the database.
func (r *Reader) books(ctx context.Context, read func(*sql.Tx) error) error {
	tx, err := r.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("read the books: %w", err)
	}
	defer tx.Rollback()
	if err := read(tx); err != nil {
		return fmt.Errorf("read the books: %w", err)
	}
	return nil
}

// Accounts returns the books of a host, by its name or its node; of all where it
// is empty.
func (r *Reader) Accounts(ctx context.Context, host string) (a Accounts, err error) {
	err = r.books(ctx, func(tx *sql.Tx) (err error) {
		if a.Streams, err = accounts(tx, host); err != nil {
			return err
		}
		a.Unnumbered, err = unnumbered(tx, host)
		return err
	})
	return a, err
}

// ofHost restricts rows to a host, whose tables are streams or has their columns.
const ofHost = "(?1 = '' OR s.node = ?1 OR coalesce(h.host = ?1, FALSE))"

// entry is a row of the ledger about a run of numbers.
type entry struct {
	span
	since time.Time
	cause string
}

func accounts(tx *sql.Tx, host string) ([]Account, error) {
	const where = " l JOIN streams s ON s.id = l.stream LEFT JOIN hosts h ON h.node = s.node WHERE " + ofHost + " ORDER BY l.stream, first"
	holes, err := entries(tx, "SELECT l.stream, first, last, since, '' FROM holes"+where, host)
	if err != nil {
		return nil, err
	}
	declared, err := entries(tx, "SELECT l.stream, first, last, since, cause FROM declared"+where, host)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(`SELECT s.id, s.node, coalesce(h.host, ''), s.stream, high, told, told_at, repeats, conflicts, clones
		FROM streams s LEFT JOIN hosts h ON h.node = s.node WHERE `+ofHost+" ORDER BY h.host, s.node, s.id", host)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Account
	for rows.Next() {
		var a Account
		var id, toldAt int64
		var high, told uint64
		if err := rows.Scan(&id, &a.Node, &a.Host, &a.Stream, &high, &told, &toldAt, &a.Repeats, &a.Conflicts, &a.Clones); err != nil {
			return nil, err
		}
		a.balance(high, told, toldAt, holes[id], declared[id])
		list = append(list, a)
	}
	return list, rows.Err()
}

func entries(tx *sql.Tx, query, host string) (map[int64][]entry, error) {
	rows, err := tx.Query(query, host)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[int64][]entry{}
	for rows.Next() {
		var id, since int64
		var e entry
		if err := rows.Scan(&id, &e.first, &e.last, &since, &e.cause); err != nil {
			return nil, err
		}
		e.since = at(since)
		found[id] = append(found[id], e)
	}
	return found, rows.Err()
}

// balance does the arithmetic. Holes and declared are each in order and do not
// overlap among themselves; no sum here is more than the numbers of a stream.
func (a *Account) balance(high, told uint64, toldAt int64, holes, declared []entry) {
	a.Assigned, a.Received = max(high, told), high
	var lost uint64 // declared, received or not
	for _, d := range declared {
		lost += d.count()
		a.Assigned = max(a.Assigned, d.last)
	}
	rest := a.subtract(holes, declared)
	for _, h := range holes {
		a.Received -= h.count()
	}
	a.Undeclared = a.name(rest, false)
	if a.Assigned > high {
		end := entry{span: span{high + 1, a.Assigned}}
		if toldAt != 0 {
			end.since = at(toldAt)
		}
		a.Waiting = a.name(a.subtract([]entry{end}, declared), true)
	}
	a.DeclaredReceived = lost - a.Declared
}

// subtract takes what is declared out of what is missing, counts it by cause and
// returns the rest.
func (a *Account) subtract(missing, declared []entry) (rest []entry) {
	for _, m := range missing {
		for len(declared) > 0 && declared[0].last < m.first {
			declared = declared[1:]
		}
		var covers []span
		for _, d := range declared {
			if d.first > m.last {
				break
			}
			both := span{max(d.first, m.first), min(d.last, m.last)}
			covers = append(covers, both)
			a.Declared += both.count()
			if a.Causes == nil {
				a.Causes = map[string]uint64{}
			}
			a.Causes[d.cause] += both.count()
		}
		for _, s := range without(m.span, covers) {
			rest = append(rest, entry{span: s, since: m.since})
		}
	}
	return rest
}

// name counts what is neither received nor declared and names the first of it.
func (a *Account) name(rest []entry, waiting bool) (count uint64) {
	for _, e := range rest {
		count += e.count()
		if len(a.Missing) < maxRanges {
			a.Missing = append(a.Missing, Range{First: e.first, Last: e.last, Since: e.since, Waiting: waiting})
		}
	}
	return count
}

func unnumbered(tx *sql.Tx, host string) ([]Unnumbered, error) {
	rows, err := tx.Query("SELECT s.node, cause, source, s.events FROM unnumbered s LEFT JOIN hosts h ON h.node = s.node WHERE "+ofHost+" ORDER BY h.host, s.node, cause, source", host)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Unnumbered
	for rows.Next() {
		var u Unnumbered
		if err := rows.Scan(&u.Node, &u.Cause, &u.Source, &u.Events); err != nil {
			return nil, err
		}
		list = append(list, u)
	}
	return list, rows.Err()
}

// Sum adds two counts and stops at the greatest number: an agent may claim any
// range, and many of them together more than there are numbers. A sum that
// stops there does so in every order, so an equation between sums still holds.
func Sum(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
