package procfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, f *File, buf *[]byte, text string) {
	t.Helper()
	if b, err := f.Read(buf); err != nil || string(b) != text {
		t.Errorf("read %d bytes, %v; want %d", len(b), err, len(text))
	}
}

func TestFileIsReadAgainThroughOneDescriptor(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "stat")}
	var buf []byte
	first := -1
	for _, text := range []string{strings.Repeat("long ", 10_000), "short", "", strings.Repeat("x", 8192)} {
		write(t, f.Path, text)
		want(t, &f, &buf, text)
		fd, open := f.Descriptor()
		if first < 0 {
			first = fd
		}
		if !open || fd != first {
			t.Errorf("descriptor %d, open: %v; want %d", fd, open, first)
		}
	}
	f.Close()
	if _, open := f.Descriptor(); open {
		t.Error("open after Close")
	}
	want(t, &f, &buf, strings.Repeat("x", 8192))
	f.Close()
}

func TestFileIsOpenedAnewAfterAnError(t *testing.T) {
	var buf []byte
	f := File{Path: filepath.Join(t.TempDir(), "stat")}
	if _, err := f.Read(&buf); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "open "+f.Path+": ") {
		t.Errorf("read what is not there: %v", err)
	}
	if err := os.Mkdir(f.Path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(&buf); err == nil || !strings.HasPrefix(err.Error(), "read "+f.Path+": ") {
		t.Errorf("read a folder: %v", err)
	}
	if err := os.Remove(f.Path); err != nil {
		t.Fatal(err)
	}
	write(t, f.Path, "text")
	want(t, &f, &buf, "text")
	f.Close()
}

// A descriptor of a file of a process that has gone fails with ESRCH, as one of
// an interface that has gone fails with ENODEV; the path is another's by then.
func TestAFileThatTookTheNameOfOneThatIsGoneIsReadAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "comm")
	process, err := os.StartProcess("/proc/self/exe", []string{"x", "-test.run=^$"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("/proc", strconv.Itoa(process.Pid), "comm"), path); err != nil {
		t.Fatal(err)
	}
	f := File{Path: path}
	defer f.Close()
	var buf []byte
	if _, err := f.Read(&buf); err != nil {
		t.Fatal(err)
	}
	if _, err := process.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, "another")
	want(t, &f, &buf, "another")
}

func TestPressureFile(t *testing.T) {
	var buf []byte
	f := PressureFile{File: File{Path: filepath.Join(t.TempDir(), "memory")}}
	write(t, f.Path, "garbage")
	if p, ok, err := f.Read(&buf); ok || err == nil || p != (Pressure{}) {
		t.Errorf("of garbage: %+v, %v, %v", p, ok, err)
	}
	write(t, f.Path, some)
	if p, ok, err := f.Read(&buf); !ok || err != nil || p.Some.Total != 2.5 {
		t.Errorf("%+v, %v, %v", p, ok, err)
	}
}

func TestKernelWithoutPressureIsAskedOnce(t *testing.T) {
	var buf []byte
	f := PressureFile{File: File{Path: filepath.Join(t.TempDir(), "memory")}}
	for range 2 {
		if p, ok, err := f.Read(&buf); ok || err != nil || p != (Pressure{}) {
			t.Errorf("%+v, %v, %v", p, ok, err)
		}
		write(t, f.Path, some) // no kernel does
	}
}

func BenchmarkRead(b *testing.B) {
	f := File{Path: "/proc/stat"}
	defer f.Close()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Read(&buf); err != nil {
			b.Fatal(err)
		}
	}
}
