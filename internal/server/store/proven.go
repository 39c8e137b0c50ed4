package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Proven reports whether an agent has shown a certificate, ever.
func (s *Store) Proven(ctx context.Context, node string) (bool, error) {
	var one int
	err := s.Reader.db.QueryRowContext(ctx, "SELECT 1 FROM proven WHERE node = ?", node).Scan(&one)
	return hasRow(err)
}

// prove notes that an agent has shown a certificate, or refuses, with ErrProven,
// what came without one for an agent that has.
func prove(tx *sql.Tx, node string, unproven bool) error {
	var one int
	known, err := hasRow(tx.QueryRow("SELECT 1 FROM proven WHERE node = ?", node).Scan(&one))
	switch {
	case err != nil:
		return err
	case known && unproven:
		return ErrProven
	case known || unproven:
		return nil
	}
	return run(tx, "INSERT INTO proven (node) VALUES (?)", node)
}

func hasRow(err error) (bool, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find who has a certificate: %w", err)
	}
	return true, nil
}

// answered reports whether an error of a change is an answer: what it wrote before
// is kept, and so is what others of its transaction write.
func answered(err error) bool { return errors.Is(err, ErrConflict) || errors.Is(err, ErrProven) }
