package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/rea-agent/rea/internal/durable"
)

// Beside a queue's folder, while it is renewed.
const (
	newSuffix  = ".new"  // the queue that takes over
	oldSuffix  = ".old"  // the one that it took over from
	swapSuffix = ".swap" // a lock: who has it moves the folders
)

// renamer is what Renew does to whole folders. Tests look at the disk before
// each call, which is what a kill leaves there.
type renamer interface {
	Exists(dir string) (bool, error)
	Rename(from, to string) error
	RemoveAll(dir string) error
	Sync(file string) error // the name of a file or folder
}

type osRenamer struct{}

func (osRenamer) Rename(from, to string) error { return os.Rename(from, to) }
func (osRenamer) RemoveAll(dir string) error   { return os.RemoveAll(dir) }
func (osRenamer) Sync(file string) error       { return durable.SyncDir(filepath.Dir(file)) }

func (osRenamer) Exists(dir string) (bool, error) {
	_, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Each calls f with every durable record that is not acknowledged, oldest
// first, and acknowledges none. Data can be read until f returns. Records that
// are damaged are skipped and become Losses, as in Peek, and again when Peek
// meets them. Nobody appends, peeks or acknowledges meanwhile.
func (q *Queue) Each(f func(Record) error) error {
	q.mu.Lock()
	pos, oldest, handed := q.pos, q.oldest, q.handed
	q.mu.Unlock()
	defer func() {
		q.reading.Lock()
		defer q.reading.Unlock()
		q.mu.Lock()
		defer q.mu.Unlock()
		q.pos, q.oldest, q.handed, q.flight = pos, oldest, handed, nil
	}()
	var records []Record
	for failures := 0; ; {
		var err error
		if records, err = q.Peek(records[:0], groupBytes); err != nil {
			if failures++; failures > maxStrikes {
				return err
			}
			continue // it tries again what it cannot read, and then gives it up
		}
		if failures = 0; len(records) == 0 {
			return nil
		}
		for _, r := range records {
			if err := f(r); err != nil {
				return err
			}
		}
		q.pastFlight()
	}
}

// pastFlight moves pos behind what Peek handed out.
func (q *Queue) pastFlight() {
	q.reading.Lock()
	defer q.reading.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.flight); n > 0 {
		q.land(q.flight[n-1].frame.last())
	}
}

// Renew begins a new stream: a queue with another id and numbers from 1 takes
// the place of q. What q has not delivered is taken along by move, which reads
// it by Each and appends it to fresh, renumbered and rewritten. Losses of q name
// the old stream, so move declares all that Losses returns, in fresh or
// elsewhere, and says so by Declared; Renew fails if any is left.
//
// The queue that Renew returns is the one to use from then on: the new one, or
// the old one beside an error. It is nil if neither could be opened. q itself
// must not be in use by another goroutine, nor be used afterwards unless it is
// what was returned. A kill at any instruction leaves one of the two whole, and
// the next Open finds it.
//
// While both exist fresh has the room that q leaves, and at least that of two
// segments: it drops its own oldest, and declares them.
func (q *Queue) Renew(move func(fresh *Queue) error) (*Queue, error) {
	renewed, err := q.renew(osRenamer{}, move)
	if err != nil {
		err = fmt.Errorf("renew queue %s: %w", q.path, err)
	}
	return renewed, err
}

func (q *Queue) renew(r renamer, move func(fresh *Queue) error) (_ *Queue, err error) {
	dir := q.path
	lock, err := durable.Lock(dir + swapSuffix)
	if err != nil {
		return q, err
	}
	defer lock.Close()
	if err := tidy(r, dir); err != nil {
		return q, err
	}
	saved := q.retell()
	err = q.moveTo(r, move)
	q.mu.Lock()
	q.told, q.losses = nil, saved // declared in a queue that may yet be undone
	q.mu.Unlock()
	if err != nil {
		signal(q.lossy)
		return q, err
	}
	if err = q.Close(); err == nil {
		err = swap(r, dir)
	}
	if tidied := tidy(r, dir); tidied != nil && err != nil { // an old folder that stays is the next Open's
		return nil, errors.Join(err, tidied)
	}
	renewed, failed := open(q.options, osFolder(dir))
	if failed == nil && renewed.stream != q.stream {
		return renewed, nil // to tidy was to go on where a call had failed
	}
	return renewed, errors.Join(err, failed)
}

// Reopen opens the folder of a queue that is closed, with the same options: what lies
// there may have another stream since.
func (q *Queue) Reopen() (*Queue, error) { return Open(q.options) }

// retell makes Losses return again all that is not declared, and returns it.
func (q *Queue) retell() []Loss {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.losses, q.told = slices.Concat(q.told, q.losses), nil
	return slices.Clone(q.losses)
}

// moveTo fills the folder of the queue that takes over, durably, or removes it.
func (q *Queue) moveTo(r renamer, move func(fresh *Queue) error) error {
	dir := q.path + newSuffix
	fresh, err := q.openFresh(dir)
	if err != nil {
		return errors.Join(err, discard(r, dir))
	}
	err = move(fresh)
	if err == nil {
		if left := q.retell(); len(left) > 0 {
			err = fmt.Errorf("%d losses from number %d of stream %s on are not declared", len(left), left[0].First, q.stream)
		}
	}
	if err == nil { // even if nothing was moved: the stream has an id
		err = errors.Join(fresh.ensureCursor(), fresh.syncFolder())
	}
	if err = errors.Join(err, fresh.Close()); err != nil {
		return errors.Join(err, discard(r, dir))
	}
	return nil
}

// openFresh opens the queue that takes over. Its segments are as large as those
// of q, so that every record fits.
func (q *Queue) openFresh(dir string) (*Queue, error) {
	if err := durable.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	o := q.options
	o.Dir, o.Metrics, o.Wait = dir, nil, false
	o.MaxBytes = max(MinBytes, o.MaxBytes-q.Stats().DiskBytes, 2*o.SegmentBytes+blocks(cursorSize))
	fresh, err := start(o, osFolder(dir))
	if err == nil {
		fresh.drops = q.drops
	}
	return fresh, err
}

// swap puts the new folder in the place of the old one. Each step is on the disk
// before the next.
func swap(r renamer, dir string) error {
	if err := r.Rename(dir, dir+oldSuffix); err != nil {
		return err
	}
	if err := r.Sync(dir); err != nil {
		return err
	}
	return takeOver(r, dir)
}

func takeOver(r renamer, dir string) error {
	if err := r.Rename(dir+newSuffix, dir); err != nil {
		return err
	}
	return r.Sync(dir)
}

func discard(r renamer, dir string) error {
	if err := r.RemoveAll(dir); err != nil {
		return err
	}
	return r.Sync(dir)
}

// tidy completes a swap that began, and removes what one left.
//
//	dir      .new     .old
//	there    there             move was not finished: remove .new
//	         there    there    the new one is whole: it takes over
//	there             there    it has taken over: remove .old
//	                  there    .new did not survive: back to the old one
//	         there             the old one is lost: take what there is
//	there    there    there    not of our making: an error
func tidy(r renamer, dir string) error {
	here, err := r.Exists(dir)
	if err != nil {
		return err
	}
	fresh, err := r.Exists(dir + newSuffix)
	if err != nil {
		return err
	}
	old, err := r.Exists(dir + oldSuffix)
	if err != nil {
		return err
	}
	switch {
	case here && fresh && old:
		return fmt.Errorf("folders %s, %s and %s all exist", dir, dir+newSuffix, dir+oldSuffix)
	case here && fresh:
		return discard(r, dir+newSuffix)
	case fresh:
		if err := takeOver(r, dir); err != nil {
			return err
		}
	case old && !here:
		if err := r.Rename(dir+oldSuffix, dir); err != nil {
			return err
		}
		return r.Sync(dir)
	}
	if !old {
		return nil
	}
	return discard(r, dir+oldSuffix)
}

// settleSwap is tidy for Open: it leaves alone who is renewing the queue. What
// cannot be tidied stays, unless there is no queue without it.
func settleSwap(r renamer, dir string) error {
	fresh, err := r.Exists(dir + newSuffix)
	if err != nil {
		return err
	}
	old, err := r.Exists(dir + oldSuffix)
	if err != nil || !fresh && !old {
		return err
	}
	lock, err := durable.Lock(dir + swapSuffix)
	if err != nil {
		return err
	}
	defer lock.Close()
	err = tidy(r, dir)
	if here, failed := r.Exists(dir); failed == nil && here {
		return nil
	}
	return err
}
