package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// ErrDamaged says that what is in a file is not what was written there.
var ErrDamaged = errors.New("damaged")

const (
	mostReads = 3 // of a file that the disk does not give back: an error may be gone the next time
	mostAside = 9 // files that are kept because they were damaged
)

// Load gives decode what is in the file at path, which WriteFile wrote. If decode
// fails, or the disk does not give the file back at several tries, it is set aside
// for who looks into that, as path.damaged or path.damaged.2 to .9, and the error is
// ErrDamaged: the caller may begin anew. Until WriteFile replaces it, it is found at
// path, too, so that who is killed before that finds it damaged again, and not
// absent; where it can have no second name it goes. Any other error is about opening it
// (fs.ErrNotExist, IsOfTheMoment), and the file is as good as it was: who began anew
// would replace it.
func Load(path string, decode func([]byte) error) error { return load(path, decode, ReadFile) }

func load(path string, decode func([]byte) error, read func(string) ([]byte, error)) error {
	for tries := 1; ; tries++ {
		text, err := read(path)
		switch {
		case err == nil:
			if err = decode(text); err == nil {
				return nil
			}
		case errors.Is(err, fs.ErrNotExist), IsOfTheMoment(err):
			return err
		case tries < mostReads:
			continue
		}
		return fmt.Errorf("%s is %w: %w", path, ErrDamaged, errors.Join(err, setAside(path)))
	}
}

// setAside gives the file at path another name, unless it has one already. What was
// set aside before stays where it is while a name is free; then the one goes that was
// written longest ago.
func setAside(path string) error {
	damaged, err := os.Lstat(path)
	if err != nil {
		return err
	}
	var oldest string
	var written time.Time
	for i := range mostAside {
		name := path + ".damaged"
		if i > 0 {
			name += "." + strconv.Itoa(i+1)
		}
		info, err := os.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return link(path, name)
		case err == nil && os.SameFile(info, damaged):
			return nil
		case err == nil && (oldest == "" || info.ModTime().Before(written)):
			oldest, written = name, info.ModTime()
		}
	}
	if oldest == "" {
		oldest = path + ".damaged"
	}
	if err := os.Remove(oldest); err != nil {
		return os.Rename(path, oldest)
	}
	return link(path, oldest)
}

// link gives the file at path a second name, which is free, or else that instead of
// its own.
func link(path, name string) error {
	if os.Link(path, name) == nil {
		return nil
	}
	return os.Rename(path, name)
}
