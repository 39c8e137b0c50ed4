package eventlog

import (
	"errors"
	"fmt"

	"github.com/rea-agent/rea/internal/event"
)

// place sees by its id where a record stands, puts a gap event before it if some
// are missing, and reports whether it is one to be handed over. On an error it is not
// known where it stands.
//
// The ids of a log have no holes. A filter lets only some through, so there a hole
// tells nothing; what is missing then is what the log itself has no more.
func (c *channel) place(id uint64, r *Record) (bool, error) {
	want, first := c.next, c.first
	c.first = false
	var anew bool
	if id != 0 && id < want && (first || !c.skipping) {
		var err error
		if anew, err = c.restarted(want); err != nil {
			return false, err
		}
	}
	switch {
	case first && c.lost && want == 0:
		c.unknown("bookmark_lost", r) // the file of positions was damaged
	case want == 0 || id == 0:
	case anew:
		c.unknown("log_cleared", r)
		want = 0
	case id < want && c.skipping:
		return false, nil
	case id > want:
		c.hole(want, id-1, first && c.adrift(), r)
	}
	if c.bound > 0 {
		c.gap(c.missing("unreadable", uint64(c.bound), r))
	}
	c.bound, c.skipping = 0, false
	if id != 0 {
		c.next = max(want, id+1)
	}
	return true, nil
}

// adrift reports whether no bookmark led to where the subscription began.
func (c *channel) adrift() bool { return c.lost || c.position.Bookmark == "" }

// restarted reports whether the ids of the log began anew, so that all of its
// records are others than those before want. Where that is what decides whether they
// are left out it has to be known, unless the account may never ask.
func (c *channel) restarted(want uint64) (bool, error) {
	info, err := c.s.system.info(c.name)
	if err != nil && c.skipping && c.adrift() && !errors.Is(err, errDenied) {
		return false, fmt.Errorf("look whether the log began anew: %w", err)
	}
	return err == nil && info.count > 0 && info.newest()+1 < want, nil
}

// hole tells what is missing of the records from first to last, before r.
func (c *channel) hole(first, last uint64, resumed bool, r *Record) {
	filtered := c.settings.XPath != ""
	if filtered && !resumed {
		return
	}
	info, err := c.s.system.info(c.name)
	if filtered {
		if err != nil || info.oldest <= first || info.oldest > last+1 {
			return
		}
		last = info.oldest - 1
	}
	cause := "log_wrapped"
	switch {
	case c.bound > 0:
		cause, c.bound = "unreadable", 0
	case clears(r) || err == nil && !info.full:
		cause = "log_cleared"
	}
	m := c.missing(cause, last-first+1, r)
	m.FirstRecord, m.LastRecord = first, last
	if filtered {
		m.Bound = "at_most"
	}
	c.gap(m)
}

// clears reports whether r is the record that a log begins with when somebody has
// cleared it.
func clears(r *Record) bool {
	return r.Provider == "Microsoft-Windows-Eventlog" && (r.EventID.V == 1102 || r.EventID.V == 104)
}

// unknown tells that nobody knows what is missing before r, if anything is.
func (c *channel) unknown(cause string, r *Record) {
	m := c.missing(cause, 1, r)
	m.Bound = "unknown"
	c.gap(m)
}

// missing makes the gap event of count records before r.
func (c *channel) missing(cause string, count uint64, r *Record) *event.Missing {
	return &event.Missing{Source: string(event.EventLog), Channel: c.name, Cause: cause, Count: count, Since: c.created, Until: r.Created}
}
