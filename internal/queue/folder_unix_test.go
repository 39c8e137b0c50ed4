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
