//go:build !windows

package queue

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestAFolderDoesNotFollowLinks(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(outside, []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, write := range []bool{false, true} {
		if f, err := osFolder(dir).Open("link", write); !errors.Is(err, syscall.ELOOP) || f != nil {
			t.Errorf("write %v: opened a link: %v, %v", write, f, err)
		}
	}
}

// What is no file is not of the queue, whatever its name: it is neither opened,
// which might not end, nor removed to make room, which might not work.
func TestWhatIsNoFileIsLeftAlone(t *testing.T) {
	for what, make := range map[string]func(path string) error{
		"a folder": func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o700) },
		"a pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a link":   func(path string) error { return os.Symlink("cursor", path) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, segmentName(1))
			if err := make(name); err != nil {
				t.Fatal(err)
			}
			q := mustOpen(t, Options{Dir: dir, MaxBytes: MinBytes})
			for n := range uint64(100) {
				add(t, q, n+1, 1, 3000)
			}
			q = reopen(t, q)
			if got := drain(t, q); len(got) < 10 || got[len(got)-1] != 100 {
				t.Errorf("drained %v", got)
			}
			if _, err := os.Lstat(name); err != nil {
				t.Error(err)
			}
		})
	}
}
