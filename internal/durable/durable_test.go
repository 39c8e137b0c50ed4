package durable

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWriteFileReplacesAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "state")
	for _, text := range []string{"first", "", "a longer second one"} {
		if err := WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadFile(name); err != nil || string(got) != text {
			t.Fatalf("read %q, %v, want %q", got, err, text)
		}
	}
	if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("permissions %v, %v", info.Mode(), err)
	}
	occupied := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(occupied, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(occupied, nil, 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	if err := WriteFile(filepath.Join(dir, "missing", "state"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a missing folder: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left over: %v %v", entries, err)
	}
}

func TestMkdirMakesWhatIsMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 {
		if err := Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		t.Fatal(info, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Mkdir(filepath.Join(file, "d"), 0o700); err == nil {
		t.Error("a folder was made in a file")
	}
}

// TestLockKeepsAnotherProcessOut runs itself as that process.
func TestLockKeepsAnotherProcessOut(t *testing.T) {
	if name := os.Getenv("DURABLE_TEST_LOCK"); name != "" {
		if _, err := Lock(name); !errors.Is(err, ErrLocked) {
			t.Fatalf("lock: %v", err)
		}
		return
	}
	name := filepath.Join(t.TempDir(), "lock")
	lock, err := Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(name); !errors.Is(err, ErrLocked) {
		t.Errorf("a second lock: %v", err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockKeepsAnotherProcessOut$")
	cmd.Env = append(os.Environ(), "DURABLE_TEST_LOCK="+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("another process: %v\n%s", err, out)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAFileThatIsOpenCanBeRenamedAndRemoved(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(name, name+".1"), Remove(name+".1")); err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(f); string(text) != "text" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestAFileThatIsReplacedIsReadWhole(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	text := func(n int) []byte { return bytes.Repeat([]byte{byte('a' + n%26)}, 4000+n) }
	if err := os.WriteFile(name, text(0), 0o600); err != nil {
		t.Fatal(err)
	}
	const times = 1000
	var written atomic.Int64
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := 1; n <= times; n++ {
			from := filepath.Join(dir, "new")
			err := os.WriteFile(from, text(n), 0o600)
			if err == nil {
				err = os.Rename(from, name)
			}
			for IsOfTheMoment(err) { // who reads without a pause is in the way
				err = os.Rename(from, name)
			}
			if err != nil {
				t.Errorf("replace it the %dth time: %v", n, err)
				break
			}
			written.Store(int64(n))
		}
		written.Store(times)
	})
	defer writer.Wait()
	for reads := 0; ; reads++ {
		before := int(written.Load())
		got, err := ReadFile(name)
		if err != nil {
			t.Fatalf("read it the %dth time: %v", reads, err)
		}
		if n := len(got) - 4000; n < before || !bytes.Equal(got, text(max(n, 0))) {
			t.Fatalf("read %d bytes, %.20q…, when %d had been written", len(got), got, before)
		}
		if before == times {
			t.Logf("read %d times", reads)
			return
		}
	}
}

func TestAFileThatIsNotThereIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if _, err := ReadFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("waited %v", d)
		}
	})
}

func TestDatasyncAndFree(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Datasync(f); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Datasync(f); err == nil {
		t.Error("a closed file was synced")
	}
	if n, err := Free(t.TempDir()); err != nil || n <= 0 {
		t.Errorf("free: %d, %v", n, err)
	}
	if _, err := Free(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("free space of nothing")
	}
	if err := Remove(f.Name()); err != nil {
		t.Error(err)
	}
}
