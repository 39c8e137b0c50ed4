package redact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

const (
	leastKey = 32
	mostKey  = 4 << 10
)

// ReadKey reads the key of the hashes: what is in the file, without the ends of
// lines at its end, at least 32 bytes. Whether others can read the file is for the
// caller to judge, as of any other key. The errors say what to do.
func ReadKey(name string) ([]byte, error) {
	f, err := os.Open(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("hash key %s is not there: make one with: (umask 077; openssl rand -hex 32 > %s)", name, name)
	case err != nil:
		return nil, fmt.Errorf("hash key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("hash key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("hash key %s is no file: name the file that holds the key", name)
	}
	key, err := io.ReadAll(io.LimitReader(f, mostKey+1))
	if err != nil {
		return nil, fmt.Errorf("hash key: %w", err)
	}
	key = bytes.TrimRight(key, "\r\n")
	switch {
	case len(key) < leastKey:
		return nil, fmt.Errorf("hash key %s has %d bytes, and a key needs %d: make one with: openssl rand -hex 32", name, len(key), leastKey)
	case len(key) > mostKey:
		return nil, fmt.Errorf("hash key %s has more than %d bytes: name the file that holds the key", name, mostKey)
	case bytes.Count(key, key[:1]) == len(key):
		return nil, fmt.Errorf("hash key %s is one byte again and again, which everybody can guess: make one with: openssl rand -hex 32", name)
	}
	return key, nil
}
