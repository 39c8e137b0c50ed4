package store

import (
	"database/sql"
	"fmt"
)

// applicationID marks a database as one of rea-server: "REAs" in ASCII
// (https://sqlite.org/pragma.html#pragma_application_id).
const applicationID = 0x52454173

// migrations bring a database from one version to the next; their number is the
// version that this program writes. One that was released is never changed.
var migrations = []migration{{statements: `
CREATE TABLE streams (
	id        INTEGER PRIMARY KEY,
	node      TEXT NOT NULL,
	stream    TEXT NOT NULL,
	high      INTEGER NOT NULL, -- the highest number kept
	repeats   INTEGER NOT NULL, -- batches of which nothing was new
	conflicts INTEGER NOT NULL, -- batches refused for other content
	UNIQUE (node, stream)
) STRICT;

CREATE TABLE holes ( -- numbers below high that are not kept
	stream INTEGER NOT NULL REFERENCES streams,
	first  INTEGER NOT NULL,
	last   INTEGER NOT NULL,
	since  INTEGER NOT NULL, -- as all times: microseconds since 1970
	PRIMARY KEY (stream, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE batches (
	id       INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of arrival, never used again
	stream   INTEGER NOT NULL REFERENCES streams,
	first    INTEGER NOT NULL,
	last     INTEGER NOT NULL,
	received INTEGER NOT NULL,
	earliest INTEGER NOT NULL, -- no event is earlier
	latest   INTEGER NOT NULL, -- none is later
	kinds    TEXT NOT NULL,    -- newline, and a newline after each
	hosts    TEXT NOT NULL,    -- likewise
	batch    TEXT NOT NULL,    -- the name of the delivery in the logs
	sha256   BLOB NOT NULL,    -- of the lines
	UNIQUE (stream, first)
) STRICT;
CREATE INDEX batches_by_time ON batches (latest);

CREATE TABLE bodies ( -- beside batches, so that searching these reads no bodies
	id   INTEGER PRIMARY KEY REFERENCES batches,
	body BLOB NOT NULL -- zstd frames of the lines
) STRICT;

CREATE TABLE hosts (
	node       TEXT PRIMARY KEY,
	host       TEXT NOT NULL,    -- the name that it had last
	agent      TEXT NOT NULL,
	kinds      TEXT NOT NULL,    -- ever seen; as in batches
	events     INTEGER NOT NULL,
	first_seen INTEGER NOT NULL,
	last_seen  INTEGER NOT NULL,
	last_event INTEGER NOT NULL  -- by the clock of the host
) STRICT, WITHOUT ROWID;
`}, {statements: `
ALTER TABLE streams ADD COLUMN told INTEGER NOT NULL DEFAULT 0;    -- the highest number assigned, as the agent says
ALTER TABLE streams ADD COLUMN told_at INTEGER NOT NULL DEFAULT 0; -- when that rose; 0: not known
ALTER TABLE streams ADD COLUMN clones INTEGER NOT NULL DEFAULT 0;  -- batches refused since another process has taken over
UPDATE streams SET told = high;

CREATE TABLE declared ( -- numbers that gap events say are lost, kept or not; none stands in two rows: the first gap counts
	stream INTEGER NOT NULL REFERENCES streams,
	first  INTEGER NOT NULL,
	last   INTEGER NOT NULL,
	cause  TEXT NOT NULL,
	source TEXT NOT NULL,    -- empty: not known
	since  INTEGER NOT NULL, -- the lost events lie between since and until; 0: not known
	until  INTEGER NOT NULL,
	PRIMARY KEY (stream, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE unnumbered ( -- lost events that never had numbers
	node   TEXT NOT NULL,
	cause  TEXT NOT NULL,
	source TEXT NOT NULL,
	events INTEGER NOT NULL,
	PRIMARY KEY (node, cause, source)
) STRICT, WITHOUT ROWID;
`, more: declareStored}, {statements: `
CREATE TABLE proven ( -- agents that have shown a certificate: nobody delivers for them without one
	node TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO proven SELECT DISTINCT node FROM streams; -- nobody could deliver without

ALTER TABLE hosts ADD COLUMN unproven INTEGER NOT NULL DEFAULT 0; -- of events: those that came without a certificate
`}}

// A migration is a step from one version to the next: statements, and what takes
// more than that.
type migration struct {
	statements string
	more       func(*sql.Tx) error
}

func (m migration) run(tx *sql.Tx) error {
	if _, err := tx.Exec(m.statements); err != nil || m.more == nil {
		return err
	}
	return m.more(tx)
}

// migrate makes the tables of a new database and brings an old one up to date.
func migrate(db *sql.DB, name string) error {
	version, err := checkVersion(db, name)
	if err != nil || version == len(migrations) {
		return err
	}
	tx, err := db.Begin()
	if err != nil {
		return fmt.Errorf("migrate %s: %w", name, err)
	}
	defer tx.Rollback()
	if version, err = checkVersion(tx, name); err != nil { // another process may have been first
		return err
	}
	for ; version < len(migrations); version++ {
		if err := migrations[version].run(tx); err != nil {
			return fmt.Errorf("migrate %s to version %d: %w", name, version+1, err)
		}
	}
	if _, err := tx.Exec(fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, version)); err != nil {
		return fmt.Errorf("mark %s as version %d: %w", name, version, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("migrate %s: %w", name, err)
	}
	return nil
}

type querier interface {
	QueryRow(query string, args ...any) *sql.Row
}

// checkVersion returns the version of the database, 0 for an empty one, and
// refuses one of another program or of a newer rea-server.
func checkVersion(q querier, name string) (int, error) {
	var id, version, tables int
	if err := q.QueryRow("SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id, pragma_user_version").
		Scan(&id, &version, &tables); err != nil {
		return 0, openError(name, err)
	}
	switch {
	case id == 0 && version == 0 && tables == 0:
		return 0, nil
	case id != applicationID:
		return 0, fmt.Errorf("%s is a database of another program: move it away, or name another data folder", name)
	case version > len(migrations):
		return 0, fmt.Errorf("%s was written by a newer rea-server (version %d, this one knows %d): update rea-server", name, version, len(migrations))
	}
	return version, nil
}
