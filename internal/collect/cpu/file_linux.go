package cpu

import (
	"errors"
	"io"
	"os"
)

// A file is read again at every reading: through one descriptor, into one buffer.
// The runtime closes the descriptor when the collector is gone.
type file struct {
	path string
	open *os.File
	buf  []byte
}

// read returns what the file holds now; it is overwritten by the next read.
// After an error the file is opened anew.
func (f *file) read() ([]byte, error) {
	if f.open == nil {
		var err error
		if f.open, err = os.Open(f.path); err != nil {
			f.open = nil
			return nil, err
		}
	}
	for n := 0; ; {
		if n == len(f.buf) {
			f.buf = append(f.buf, make([]byte, max(512, n))...)
		}
		m, err := f.open.ReadAt(f.buf[n:], int64(n))
		n += m
		switch {
		case errors.Is(err, io.EOF):
			return f.buf[:n], nil
		case err != nil:
			_ = f.open.Close() // it was only read
			f.open = nil
			return nil, err
		}
	}
}
