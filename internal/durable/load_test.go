package durable

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
)

var errTorn = errors.New("it is torn")

// decodeGood is of files that say "good".
func decodeGood(text []byte) error {
	if string(text) != "good" {
		return errTorn
	}
	return nil
}

func TestAFileIsReadAgainBeforeItIsGivenUp(t *testing.T) {
	disk, denied := errors.New("input/output error"), syscall.EACCES
	if runtime.GOOS == "windows" {
		denied = syscall.Errno(5)
	}
	for name, c := range map[string]struct {
		text  string
		fails []error
		tries int
		want  error // that it ends with
		aside bool
	}{
		"the first try fails":        {"good", []error{disk}, 2, nil, false},
		"two tries fail":             {"good", []error{disk, disk}, 3, nil, false},
		"all tries fail":             {"good", []error{disk, disk, disk, disk}, 3, disk, true},
		"no right to open it":        {"good", []error{denied}, 1, denied, false},
		"no right at the second try": {"good", []error{disk, denied}, 2, denied, false},
		"it is not there any more":   {"good", []error{disk, fs.ErrNotExist}, 2, fs.ErrNotExist, false},
		"nothing fails":              {"good", nil, 1, nil, false},
		"its content is damaged":     {"go", nil, 1, errTorn, true},
		"it is empty":                {"", []error{disk}, 2, errTorn, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			tries := 0
			err := load(path, decodeGood, func(path string) ([]byte, error) {
				if tries++; tries <= len(c.fails) {
					return nil, c.fails[tries-1]
				}
				return ReadFile(path)
			})
			if tries != c.tries || !errors.Is(err, c.want) || errors.Is(err, ErrDamaged) != c.aside {
				t.Errorf("tried %d times: %v; want %d: %v", tries, err, c.tries, c.want)
			}
			kept := path
			if c.aside {
				kept += ".damaged"
			}
			if text, err := os.ReadFile(kept); err != nil || string(text) != c.text {
				t.Errorf("kept is %q, %v", text, err)
			}
		})
	}
}

// Whoever is killed before it has begun anew finds the damage, and not nothing: of
// positions, say, nothing means that there never were any.
func TestADamagedFileIsFoundUntilItIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := WriteFile(path, []byte("go"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := Load(path, decodeGood); !errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := WriteFile(path, []byte("good"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, decodeGood); err != nil {
		t.Error(err)
	}
	if kept, err := os.ReadFile(path + ".damaged"); err != nil || string(kept) != "go" {
		t.Errorf("kept is %q, %v", kept, err)
	}
	if _, err := os.Stat(path + ".damaged.2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is kept twice: %v", err)
	}
}

// A folder can have no second name.
func TestWhatCannotBeLinkedIsRenamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	unreadable := func(string) ([]byte, error) { return nil, errors.New("is a directory") }
	if err := load(path, decodeGood, unreadable); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeSetAsideIsDamagedAllTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	err := load(path, decodeGood, func(string) ([]byte, error) { return nil, nil })
	if !errors.Is(err, ErrDamaged) || !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// What is damaged may still tell somebody something, and the first of them most.
func TestWhatWasSetAsideBeforeIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	name := func(i int) string {
		if i == 1 {
			return path + ".damaged"
		}
		return fmt.Sprintf("%s.damaged.%d", path, i)
	}
	written := time.Unix(1_700_000_000, 0)
	damage := func(text string) {
		t.Helper()
		if err := WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		written = written.Add(time.Hour)
		if err := os.Chtimes(path, written, written); err != nil {
			t.Fatal(err)
		}
		if err := Load(path, decodeGood); !errors.Is(err, ErrDamaged) {
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
		if !slices.Equal(texts, kept) {
			t.Errorf("kept are %q, want %q", kept, texts)
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
