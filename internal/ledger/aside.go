package ledger

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/rea-agent/rea/internal/durable"
)

const (
	mostReads = 3 // of a file that the disk does not give back, as the queue does
	mostAside = 9 // files that are kept because they were damaged
)

// readAgain reads the file at path. An error of the disk may be gone the next time,
// so it tries some times.
func readAgain(path string, read func(string) ([]byte, error)) (text []byte, err error) {
	for range mostReads {
		text, err = read(path)
		if err == nil || errors.Is(err, fs.ErrNotExist) || durable.IsOfTheMoment(err) {
			return text, err
		}
	}
	return nil, err
}

// setAside gives the file at path another name. What was set aside before stays
// where it is while a name is free; then the one goes that was written longest ago.
func setAside(path string) error {
	var oldest string
	var written time.Time
	for i := range mostAside {
		name := path + ".damaged"
		if i > 0 {
			name += "." + strconv.Itoa(i+1)
		}
		info, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return os.Rename(path, name)
		}
		if err == nil && (oldest == "" || info.ModTime().Before(written)) {
			oldest, written = name, info.ModTime()
		}
	}
	if oldest == "" {
		oldest = path + ".damaged"
	}
	return os.Rename(path, oldest)
}
