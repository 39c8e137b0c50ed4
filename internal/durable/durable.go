// Package durable holds the few steps by which a file survives a power cut, and
// which each system spells differently.
//
// Data that was written is in the system's cache; [Datasync] moves it to the
// disk. A new, renamed or removed name is an entry in its folder; [SyncDir]
// moves the entry. [WriteFile] does both in the right order to replace a small
// file: a reader, and a machine that lost power, finds the old content or the
// new, never a part. [ReadFile] is for files that somebody replaces so. [Lock] keeps
// a second process out of a folder.
//
// An error from a sync means that the data may be gone from the cache and from
// the disk (Linux marks the pages clean: https://lwn.net/Articles/752063/).
// Calling it again on the same descriptor proves nothing; write elsewhere.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrLocked says that another process holds the lock.
var ErrLocked = errors.New("in use by another process")

// WriteFile replaces the named file by data with permissions perm. When it
// returns nil the new content survives a power cut; when it fails the old
// content stands.
func WriteFile(name string, data []byte, perm fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.tmp")
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := fill(f, data, perm); err != nil {
		return fmt.Errorf("replace %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	if err := rename(f.Name(), name); err != nil {
		return fmt.Errorf("replace %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	return SyncDir(filepath.Dir(name))
}

// fill writes, syncs and closes f: on Windows an open file cannot be renamed.
func fill(f *os.File, data []byte, perm fs.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Mkdir makes the folder and those above it that are missing, with permissions
// perm, and syncs the entry of each that it made.
func Mkdir(dir string, perm fs.FileMode) error {
	err := os.Mkdir(dir, perm)
	if errors.Is(err, fs.ErrNotExist) {
		if err := Mkdir(filepath.Dir(dir), perm); err != nil {
			return err
		}
		err = os.Mkdir(dir, perm)
	}
	switch {
	case err == nil:
		return SyncDir(filepath.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		return nil
	}
	return err
}
