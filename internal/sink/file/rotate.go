package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/durable"
)

// due reports whether the file, of size bytes, is to be put aside before more
// bytes are appended to it.
func (s *Sink) due(now time.Time, size int64, more int) bool {
	if size == 0 || now.Before(s.noRotate) {
		return false
	}
	full := s.o.RotateBytes > 0 && size+int64(more) > s.o.RotateBytes
	return full || !s.period.Equal(s.periodOf(now))
}

func (s *Sink) periodOf(t time.Time) time.Time {
	if s.o.RotateEvery <= 0 {
		return time.Time{}
	}
	return t.Round(0).UTC().Truncate(s.o.RotateEvery)
}

// rotate puts the file aside. If that cannot be done, lines go on into the old
// file, and it is tried again later.
func (s *Sink) rotate(now time.Time) {
	err := s.letGo()
	if err != nil {
		s.o.Trouble(err)
	}
	at, err := s.names.free(now, s.last)
	if err == nil {
		err = os.Rename(s.o.Path, s.names.path(at))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.gone(): // somebody else was faster
	case err != nil:
		s.noRotate = now.Add(retryRotation)
		s.o.Trouble(fmt.Errorf("rotate %s: %w", s.o.Path, reason(err)))
	default:
		s.last = at
		if err := durable.SyncDir(s.names.folder); err != nil {
			s.o.Trouble(err)
		}
		s.tidy.wake()
	}
}

// gone reports whether there is nothing to put aside. It is looked for, since
// Windows says of a way that leads nowhere too that it does not exist: without
// that the same rotation would be tried for ever.
func (s *Sink) gone() bool {
	_, err := os.Lstat(s.o.Path)
	return errors.Is(err, fs.ErrNotExist)
}

// names are those of the files put aside: stem, time, ext and what stands for
// their state.
type names struct{ folder, stem, ext string }

const (
	layout     = "20060102T150405.000Z"
	compressed = ".gz"
	unfinished = ".gz.tmp"
)

func namesOf(path string) names {
	base := filepath.Base(path)
	ext := filepath.Ext(base)
	return names{filepath.Dir(path), strings.TrimSuffix(base, ext) + "-", ext}
}

func (n names) path(at time.Time) string {
	return filepath.Join(n.folder, n.stem+at.Format(layout)+n.ext)
}

// free returns a time for which no file stands, now or the first after last.
func (n names) free(now, last time.Time) (time.Time, error) {
	at := now.UTC().Truncate(time.Millisecond)
	if !at.After(last) {
		at = last.Add(time.Millisecond)
	}
	for {
		taken := false
		for _, state := range []string{"", compressed} {
			_, err := os.Lstat(n.path(at) + state)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return at, err
			}
			taken = taken || err == nil
		}
		if !taken {
			return at, nil
		}
		at = at.Add(time.Millisecond)
	}
}

// An aside is a file that was put aside, in the states in which it exists.
type aside struct {
	at                            time.Time
	plain, compressed, unfinished bool
}

// list returns what was put aside, the oldest first.
func (n names) list() ([]aside, error) {
	entries, err := os.ReadDir(n.folder)
	if err != nil {
		return nil, err
	}
	var list []aside
	for _, e := range entries {
		at, state, ok := n.parse(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		i, found := slices.BinarySearchFunc(list, at, func(a aside, at time.Time) int { return a.at.Compare(at) })
		if !found {
			list = slices.Insert(list, i, aside{at: at})
		}
		switch state {
		case "":
			list[i].plain = true
		case compressed:
			list[i].compressed = true
		case unfinished:
			list[i].unfinished = true
		}
	}
	return list, nil
}

// parse takes the name of a file apart if it is exactly one that path makes.
func (n names) parse(name string) (at time.Time, state string, ok bool) {
	rest, ok := strings.CutPrefix(name, n.stem)
	if !ok || len(rest) < len(layout) {
		return at, "", false
	}
	stamp, rest := rest[:len(layout)], rest[len(layout):]
	at, err := time.Parse(layout, stamp)
	if err != nil || at.Format(layout) != stamp {
		return at, "", false
	}
	state, ok = strings.CutPrefix(rest, n.ext)
	return at, state, ok && (state == "" || state == compressed || state == unfinished)
}

// clear removes what a crash left of compressing a: the unfinished file, or the
// plain one beside a compressed one, which is whole.
func (n names) clear(a aside) error {
	var errs [2]error
	if a.unfinished {
		errs[0] = remove(n.path(a.at) + unfinished)
	}
	if a.plain && a.compressed {
		errs[1] = remove(n.path(a.at))
	}
	return errors.Join(errs[:]...)
}

// remove removes a file, if it is there.
func remove(path string) error {
	if err := durable.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
