package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/test/windows/wine"
	"golang.org/x/sys/windows"
)

func TestPatienceIsForErrorsOfTheMoment(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		fails int           // before it succeeds; -1: always
		want  time.Duration // at least
		least int           // tries
	}{
		{"nothing fails", nil, 0, 0, 1},
		{"somebody has it", windows.ERROR_SHARING_VIOLATION, 4, 75 * time.Millisecond, 5},
		{"it is being deleted", windows.ERROR_ACCESS_DENIED, 4, 75 * time.Millisecond, 5},
		{"it is being deleted, as newer systems say", windows.ERROR_DELETE_PENDING, 4, 75 * time.Millisecond, 5},
		{"it stays denied", windows.ERROR_ACCESS_DENIED, -1, time.Second, 10},
		{"it is not there", windows.ERROR_FILE_NOT_FOUND, -1, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, tries := time.Now(), 0
				err := Patiently(func() error {
					if tries++; tries > c.fails && c.fails >= 0 {
						return nil
					}
					return &fs.PathError{Op: "open", Path: "f", Err: c.err}
				})
				if c.fails >= 0 && err != nil || c.fails < 0 && !errors.Is(err, c.err) {
					t.Errorf("got %v", err)
				}
				if d := time.Since(began); d < c.want || d > c.want+100*time.Millisecond || tries < c.least {
					t.Errorf("tried %d times in %v, want %d in %v", tries, d, c.least, c.want)
				}
			})
		})
	}
}

func TestAFileThatSomebodyHasForAMomentIsRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		alone := hold(t, name, windows.GENERIC_READ, 0)
		if _, err := os.ReadFile(name); !errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
			t.Fatalf("it can be read, with %v: this test shows nothing", err)
		}
		time.AfterFunc(500*time.Millisecond, func() { release(t, alone) })
		if text, err := ReadFile(name); string(text) != "text" || err != nil {
			t.Errorf("read %q, %v", text, err)
		}
	})
}

// A name whose file is deleted, and still open somewhere, is neither there nor free.
func TestAFileThatIsReplacedBehindADeletedOneIsRead(t *testing.T) {
	wine.Differs(t, "a file that is being deleted can be opened")
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		last := hold(t, name, windows.GENERIC_READ|windows.DELETE, windows.FILE_SHARE_READ|windows.FILE_SHARE_DELETE)
		disposition := byte(1)
		if err := windows.SetFileInformationByHandle(last, windows.FileDispositionInfo, &disposition, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(name); !IsOfTheMoment(err) {
			t.Fatalf("it can be read, with %v: this test shows nothing", err)
		}
		time.AfterFunc(500*time.Millisecond, func() {
			release(t, last)
			if err := os.WriteFile(name, []byte("new"), 0o600); err != nil {
				t.Error(err)
			}
		})
		if text, err := ReadFile(name); string(text) != "new" || err != nil {
			t.Errorf("read %q, %v", text, err)
		}
	})
}

func hold(t *testing.T, name string, access, share uint32) windows.Handle {
	t.Helper()
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		t.Fatal(err)
	}
	h, err := windows.CreateFile(path, access, share, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func release(t *testing.T, h windows.Handle) {
	if err := windows.CloseHandle(h); err != nil {
		t.Error(err)
	}
}
