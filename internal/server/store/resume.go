package store

import (
	"context"
	"database/sql"
	"time"
)

// A Resume is what an agent says of a stream of which it has nothing to send, or
// not yet.
type Resume struct {
	Node, Stream string
	Assigned     uint64 // the highest number that an event has; 0 before the first
	Superseded   bool   // as in Batch
	Unproven     bool   // likewise
	Received     time.Time
}

// seenEvery is how old the note of when a host was seen last may be.
const seenEvery = 10 * time.Second

// Resume notes how far a stream has come. It returns the highest number kept of
// it and the highest that was told of before. When it returns nil, r is noted
// durably. What says nothing new is not written, but for when the host was seen
// last, which is right within seenEvery. ErrProven is as in Put.
func (s *Store) Resume(ctx context.Context, r *Resume) (high, told uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	err = s.write("note stream "+r.Stream, func(tx *sql.Tx) error {
		if err := prove(tx, r.Node, r.Unproven); err != nil {
			return err
		}
		st, err := findStream(tx, r.Node, r.Stream)
		if err != nil {
			return err
		}
		high, told = st.high, max(st.told, st.high)
		if !r.Superseded {
			if err := st.advance(tx, 0, r.Assigned, r.Received); err != nil {
				return err
			}
		}
		return run(tx, "UPDATE hosts SET last_seen = ?1 WHERE node = ?2 AND last_seen <= ?3",
			r.Received.UnixMicro(), r.Node, r.Received.Add(-seenEvery).UnixMicro())
	})
	if err != nil {
		return 0, 0, err
	}
	return high, told, nil
}
