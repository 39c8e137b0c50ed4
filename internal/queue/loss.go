package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"time"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/metric"
)

// Causes of a Loss.
const (
	CauseQueueFull = "queue_full" // dropped to stay within MaxBytes
	CauseDiskFull  = "disk_full"  // dropped because the disk had no room
	CauseDamaged   = "damaged"    // the disk gave something else back, or nothing
)

// A Loss is a run of numbers that will never be delivered. Count is how many
// there were: numbers in the run that the writer jumped over are not in it.
type Loss struct {
	Cause              string
	First, Last, Count uint64
	Since, Until       time.Time // append times of the first and the last, as far as known
}

const maxLosses = 256

// drops counts what was lost by cause.
type drops struct{ full, disk, damaged *metric.Counter }

func newDrops(set *metric.Set, lane string) drops {
	counter := func(reason string) *metric.Counter {
		return set.Counter("rea_queue_dropped_events_total", "Events that were in the queue and are lost.", "lane", lane, "reason", reason)
	}
	return drops{counter(CauseQueueFull), counter(CauseDiskFull), counter(CauseDamaged)}
}

// Losses returns the losses that it has not returned before, oldest first,
// adjacent ones merged. The caller declares them, as gap events, and says so by
// Declared when these are durable, in this queue or in another. Until then the
// queue remembers them over crashes and restarts, and returns them again after
// the next Open. So a loss may be declared twice, and never not at all.
//
// What Open found lost is told when no crash can give its numbers again: if the
// disk refused to remember the next number, after a Peek or an Append for which
// it did not.
func (q *Queue) Losses() []Loss {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.withheld {
		return nil
	}
	l := q.losses
	q.losses = nil
	for _, l := range l {
		q.told = merge(q.told, l, maxLosses)
	}
	return l
}

// Declared says that all that Losses has returned is declared, durably. The
// cursor forgets it when it is next written: a crash before that repeats it.
// One goroutine calls Losses and Declared.
func (q *Queue) Declared() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told = nil
}

// Settled returns a number up to which every event was acknowledged or is among
// the losses that were returned: 0 while there is something to return.
func (q *Queue) Settled() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.withheld || len(q.losses) > 0 {
		return 0
	}
	return q.acked
}

// Lossy returns a channel of capacity 1 that receives when Losses has something
// to return, also after Open.
func (q *Queue) Lossy() <-chan struct{} { return q.lossy }

// undeclaredLocked returns the losses that are not declared, as few as the
// cursor has room for.
func (q *Queue) undeclaredLocked() (losses []Loss) {
	for _, l := range slices.Concat(q.told, q.losses) {
		losses = merge(losses, l, markLosses)
	}
	return losses
}

// merge adds l to the losses: to the last of them if they are adjacent, and in the
// place of those that it tells anew. More than limit, which is at least the number
// of causes, there will not be: two of one cause become one then. Its count stays
// exact, and its run has other numbers, too.
func merge(losses []Loss, l Loss, limit int) []Loss {
	losses = slices.DeleteFunc(losses, l.tells)
	if n := len(losses); n > 0 && losses[n-1].Cause == l.Cause && losses[n-1].Last+1 == l.First {
		losses[n-1].join(l)
		return losses
	}
	losses = append(losses, l)
	if len(losses) > limit {
		losses = joinNearest(losses)
	}
	return losses
}

// tells reports whether l says all that other does: that each number in a run is
// lost, which has that of other in it.
func (l *Loss) tells(other Loss) bool {
	return l.Count > l.Last-l.First && l.Cause == other.Cause && l.First <= other.First && other.Last <= l.Last
}

// joinNearest makes one of the two losses of one cause that make the shortest run.
func joinNearest(losses []Loss) []Loss {
	into, from, shortest := 0, 0, uint64(math.MaxUint64)
	before := map[string]int{} // the last one of a cause
	for i, l := range losses {
		if k, ok := before[l.Cause]; ok {
			if run := max(l.Last, losses[k].Last) - min(l.First, losses[k].First); run < shortest {
				into, from, shortest = k, i, run
			}
		}
		before[l.Cause] = i
	}
	losses[into].join(losses[from])
	return slices.Delete(losses, from, from+1)
}

// join adds another of the same cause. One that is told again may overlap.
func (l *Loss) join(other Loss) {
	l.First, l.Last = min(l.First, other.First), max(l.Last, other.Last)
	l.Count = min(l.Count+other.Count, l.Last-l.First+1)
	if l.Since.IsZero() || !other.Since.IsZero() && other.Since.Before(l.Since) {
		l.Since = other.Since
	}
	if other.Until.After(l.Until) {
		l.Until = other.Until
	}
}

// loseLocked records a loss.
func (q *Queue) loseLocked(l Loss) {
	if l.Count == 0 {
		return
	}
	switch l.Cause {
	case CauseQueueFull:
		q.drops.full.Add(l.Count)
	case CauseDiskFull:
		q.drops.disk.Add(l.Count)
	default:
		q.drops.damaged.Add(l.Count)
	}
	q.losses = merge(q.losses, l, maxLosses)
	if !q.withheld {
		signal(q.lossy)
	}
}

// tellLocked lets go of the losses that were withheld: the next number is
// durable.
func (q *Queue) tellLocked() {
	if q.withheld {
		q.withheld = false
		signal(q.lossy)
	}
}

func (q *Queue) withholds() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.withheld
}

// evict drops the oldest segment that may go. The caller holds the lead.
func (q *Queue) evict(cause string) error {
	q.reading.Lock()
	defer q.reading.Unlock()
	if q.hasGhosts() { // there may be room already
		return full(q.syncFolder())
	}
	if err := q.assure(); err != nil {
		return full(err)
	}
	s, err := q.victim(cause)
	if err != nil {
		return err
	}
	if err := q.cursor.settle(q.mark()); err != nil { // next and dropped survive what goes
		return full(err)
	}
	if err := q.remove(s); err != nil {
		return full(err)
	}
	q.mu.Lock()
	q.loseLocked(q.unreadOfLocked(s, cause))
	q.dropLocked(s)
	q.mu.Unlock()
	return full(q.syncFolder())
}

// full says that err kept the queue from making room.
func full(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrFull, err)
}

// victim chooses what to drop: the oldest segment, but none that holds records
// on their way to the receiver, which would be declared lost and then arrive.
func (q *Queue) victim(cause string) (*segment, error) {
	q.mu.Lock()
	i := slices.IndexFunc(q.segments, func(s *segment) bool { return s != q.active && !q.handedLocked(s) })
	wait := i >= 0 && q.options.Wait && q.unreadOfLocked(q.segments[i], cause).Count > 0
	roll := i < 0 && q.active != nil && !q.handedLocked(q.active) && q.active.records > 0 && !q.options.Wait
	q.mu.Unlock()
	switch {
	case wait, i < 0 && q.options.Wait:
		return nil, errNoRoomYet
	case roll:
		if err := q.roll(); err != nil {
			return nil, err
		}
		return q.victim(cause)
	case i < 0:
		return nil, fmt.Errorf("%w: %s and nothing more can be dropped", ErrFull, cause)
	}
	s := q.segments[i]
	if i > 0 && !q.segments[i-1].sealed {
		// Its own end must not depend on the base of the one that goes.
		if err := q.settle(q.segments[i-1]); err != nil {
			return nil, full(err)
		}
	}
	q.mu.Lock()
	q.dropped = max(q.dropped, s.last)
	q.mu.Unlock()
	return s, nil
}

// handedLocked reports whether records of s are on their way to the receiver.
func (q *Queue) handedLocked(s *segment) bool {
	return s.records > 0 && s.base <= q.handed && s.last > q.acked
}

// remove removes the file of a segment. The caller holds reading.
func (q *Queue) remove(s *segment) error {
	if q.inID == s.id { // Windows removes no open file
		if err := q.closeIn(); err != nil {
			return err
		}
	}
	if err := q.dir.Remove(s.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove segment: %w", err)
	}
	return nil
}

// syncFolder makes removals durable. Until then what was removed may come back,
// and takes up room: it is a ghost.
func (q *Queue) syncFolder() error {
	q.mu.Lock()
	ghosts := q.ghosts
	q.ghosts = 0
	q.mu.Unlock()
	err := q.dir.Sync()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		q.ghosts += ghosts
		return fmt.Errorf("sync folder: %w", err)
	}
	q.used -= ghosts
	return nil
}

func (q *Queue) hasGhosts() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ghosts > 0
}

// unreadOfLocked returns what is lost with s: its records from pos on. Damage
// before pos may have been counted as more than the scan of a start found: then
// the count is of all numbers in the run, since what is lost must not be silent.
func (q *Queue) unreadOfLocked(s *segment, cause string) Loss {
	l := Loss{cause, s.base, s.last, s.events, unix(s.oldest), unix(s.newest)}
	switch p := q.pos; {
	case p.segment == nil || s.id < p.segment.id:
		l.Count = 0
	case s == p.segment:
		l.First = max(l.First, p.last+1, q.acked+1)
		switch {
		case p.offset >= s.end:
			l.Count = 0
		case p.events < s.events:
			l.Count -= p.events
		default:
			l.Count = math.MaxUint64
		}
		l.Since = unix(max(s.oldest, q.oldest))
	}
	l.Count = min(l.Count, l.Last+1-min(l.First, l.Last+1))
	return l
}

// dropLocked takes a segment whose file was removed from the list. Its room is
// free after syncFolder.
func (q *Queue) dropLocked(s *segment) {
	q.ghosts += blocks(s.size)
	i := slices.Index(q.segments, s)
	q.segments = slices.Delete(q.segments, i, i+1)
	if q.pos.segment == s {
		q.seekLocked(i)
	}
}

// seekLocked moves pos to the start of segment i.
func (q *Queue) seekLocked(i int) {
	last := q.pos.last
	q.pos = position{last: last}
	if i < len(q.segments) {
		s := q.segments[i]
		q.pos = position{segment: s, offset: headerSize, last: max(last, s.base-1)}
		q.oldest = s.oldest
	}
}

// resizeLocked accounts for a change of a segment's size.
func (q *Queue) resizeLocked(s *segment, size int64) {
	q.used += blocks(size) - blocks(s.size)
	s.size = size
}

// failLocked keeps an error for Stats.
func (q *Queue) failLocked(err error) {
	q.trouble = err
	switch {
	case durable.IsFull(err), q.ceiling > 0 && errors.Is(err, ErrFull):
		q.state = "disk_full"
	case durable.IsReadOnly(err):
		q.state = "read_only"
	case errors.Is(err, ErrFull):
		q.state = "full"
	default:
		q.state = "io_error"
	}
}

// blocks returns what a file of that size takes up.
func blocks(size int64) int64 { return (size + block - 1) / block * block }
