package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/event"
)

func TestAFileIsReadAgainBeforeItIsGivenUp(t *testing.T) {
	disk, denied := errors.New("input/output error"), syscall.EACCES
	if runtime.GOOS == "windows" {
		denied = syscall.Errno(5)
	}
	for name, c := range map[string]struct {
		fails []error
		tries int
		want  error // that it ends with; nil: the losses are there
		aside bool
	}{
		"the first try fails":        {[]error{disk}, 2, nil, false},
		"two tries fail":             {[]error{disk, disk}, 3, nil, false},
		"all tries fail":             {[]error{disk, disk, disk, disk}, 3, disk, true},
		"no right to open it":        {[]error{denied}, 1, denied, false},
		"no right at the second try": {[]error{disk, denied}, 2, denied, false},
		"it is not there any more":   {[]error{disk, fs.ErrNotExist}, 2, nil, false},
		"nothing fails":              {nil, 1, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook(t)
			b.add(full(1, 9))
			tries := 0
			l, err := open(b.path, evidence, 1, func(path string) ([]byte, error) {
				if tries++; tries <= len(c.fails) {
					return nil, c.fails[tries-1]
				}
				return durable.ReadFile(path)
			})
			if tries != c.tries || !errors.Is(err, c.want) {
				t.Errorf("tried %d times: %v; want %d: %v", tries, err, c.tries, c.want)
			}
			want := []event.Missing{full(1, 9)}
			if c.want != nil || slices.Contains(c.fails, fs.ErrNotExist) {
				want = nil
			}
			if l != nil {
				if d := cmp.Diff(want, missing(l)); d != "" {
					t.Error(d)
				}
			}
			if _, err := os.Stat(b.path + ".damaged"); (err == nil) != c.aside {
				t.Errorf("it is set aside: %t, want %t", err == nil, c.aside)
			}
		})
	}
}

// What is damaged may still tell somebody something, and the first of them most.
func TestWhatWasSetAsideBeforeIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing")
	name := func(i int) string {
		if i == 1 {
			return path + ".damaged"
		}
		return fmt.Sprintf("%s.damaged.%d", path, i)
	}
	written := time.Unix(1_700_000_000, 0)
	damage := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		written = written.Add(time.Hour)
		if err := os.Chtimes(path, written, written); err != nil {
			t.Fatal(err)
		}
		if l, err := Open(path, evidence, 1); err == nil || l == nil {
			t.Fatalf("%q is taken for good: %v", text, err)
		}
	}
	want := func(texts ...string) {
		t.Helper()
		var kept []string
		for i := range len(texts) {
			text, err := os.ReadFile(name(i + 1))
			if err != nil {
				t.Error(err)
			}
			kept = append(kept, string(text))
		}
		if d := cmp.Diff(texts, kept); d != "" {
			t.Error(d)
		}
	}
	for i := range 9 {
		damage(fmt.Sprint(i + 1))
	}
	want("1", "2", "3", "4", "5", "6", "7", "8", "9")
	if err := os.Remove(name(4)); err != nil {
		t.Fatal(err)
	}
	damage("10") // takes the name that is free
	want("1", "2", "3", "10", "5", "6", "7", "8", "9")
	damage("11") // and, as none is, the oldest
	damage("12")
	damage("13")
	damage("14")
	want("11", "12", "13", "10", "14", "6", "7", "8", "9")
	if _, err := os.Stat(name(10)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tenth is kept: %v", err)
	}
}
