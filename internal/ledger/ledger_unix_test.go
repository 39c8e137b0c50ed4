//go:build unix

package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/durable/durabletest"
	"github.com/rea-agent/rea/internal/event"
)

// A start without a free descriptor does not take the file for one that is not there.
func TestAFileThatCannotBeOpenedNowIsNotReplaced(t *testing.T) {
	b := newBook(t)
	b.add(full(1, 9))
	var l *Ledger
	var err error
	durabletest.WithoutDescriptors(t, func() { l, err = Open(b.path, evidence, 1) })
	if l != nil || !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("opened %v: %v", l, err)
	}
	b.reopen(evidence, 1)
	if d := cmp.Diff([]event.Missing{full(1, 9)}, missing(b.Ledger)); d != "" {
		t.Error(d)
	}
}

// What the disk does not give back is set aside, too.
func TestAFileThatCannotBeReadIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Open(path, evidence, 1)
	if err == nil || l == nil || !l.Empty() {
		t.Fatalf("opened %v: %v", l, err)
	}
	if err := l.Add(full(1, 2)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Error(err)
	}
}
