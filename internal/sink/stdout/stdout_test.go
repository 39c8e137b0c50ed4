package stdout

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/sink/sinktest"
)

func TestSuite(t *testing.T) {
	t.Run("pipe", func(t *testing.T) {
		sinktest.Suite(t, func(t *testing.T) (sinktest.Sink, func() []byte) {
			r, w := pipe(t)
			got := make(chan []byte)
			go func() {
				b, err := io.ReadAll(r)
				if err != nil {
					t.Error(err)
				}
				got <- b
			}()
			return New(w, 0), func() []byte { w.Close(); return <-got }
		})
	})
	t.Run("file", func(t *testing.T) {
		sinktest.Suite(t, func(t *testing.T) (sinktest.Sink, func() []byte) {
			f, err := os.Create(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			return New(f, 0), func() []byte {
				b, err := os.ReadFile(f.Name())
				if err != nil {
					t.Error(err)
				}
				return b
			}
		})
	})
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// valve is a writer that stops while it is shut.
type valve struct {
	shut chan struct{} // closed to open the valve
	got  bytes.Buffer
}

func (v *valve) Write(b []byte) (int, error) {
	<-v.shut
	return v.got.Write(b)
}

func TestStuckReaderIsWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &valve{shut: make(chan struct{})}
		s := newSink(v, 0)
		took := func(lines string) time.Duration {
			start := time.Now()
			borrowed := []byte(lines)
			if err := s.Write(borrowed, 1); !errors.Is(err, ErrStuck) {
				t.Errorf("%q: %v", lines, err)
			}
			clear(borrowed) // it is the caller's again
			return time.Since(start)
		}
		if d := took("1\n"); d != Patience {
			t.Errorf("gave up after %v", d)
		}
		for range 3 {
			if d := took("2\n"); d != 0 {
				t.Errorf("waited %v for a write that hangs", d)
			}
		}
		close(v.shut)
		synctest.Wait()
		if err := s.Write([]byte("3\n"), 1); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := v.got.String(); got != "1\n3\n" {
			t.Errorf("%q: what was handed over is finished, what was dropped is not written", got)
		}
	})
}

func TestPatienceIsForTheWholeWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := writerFunc(func(b []byte) (int, error) { time.Sleep(400 * time.Millisecond); return len(b), nil })
		s := newSink(slow, time.Second)
		start := time.Now()
		lines := bytes.Repeat(sinktest.Line(1, pieceBytes), 10)
		if err := s.Write(lines, 10); !errors.Is(err, ErrStuck) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		time.Sleep(time.Second)
		if err := s.Write(sinktest.Line(2, 100), 1); err != nil {
			t.Errorf("a slow reader is not a stuck one: %v", err)
		}
		s.Close()
	})
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &valve{shut: make(chan struct{})}
		s := newSink(v, time.Second)
		if err := s.Write([]byte("1\n"), 1); !errors.Is(err, ErrStuck) {
			t.Error(err)
		}
		start := time.Now()
		if err := s.Close(); !errors.Is(err, ErrStuck) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		close(v.shut) // or the goroutine would outlive the test, which synctest reports
	})
}

func TestFullPipe(t *testing.T) {
	r, w := pipe(t)
	s := New(w, 20*time.Millisecond)
	var took []byte
	var err error
	i := 0
	for ; err == nil && i < 1000; i++ {
		line := sinktest.Line(i, 5000)
		if err = s.Write(line, 1); err == nil {
			took = append(took, line...)
		}
	}
	if !errors.Is(err, ErrStuck) {
		t.Fatalf("no reader, and %d lines were taken: %v", i, err)
	}
	took = append(took, sinktest.Line(i-1, 5000)...) // the one that hangs
	if err := s.Write(sinktest.Line(i, 100), 1); !errors.Is(err, ErrStuck) {
		t.Errorf("while it hangs: %v", err)
	}
	got := make([]byte, len(took))
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, took) {
		t.Errorf("the reader woke and found lines torn, missing or out of order (%v)", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	w.Close()
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestClosedReader(t *testing.T) {
	r, w := pipe(t)
	s := New(w, 0)
	r.Close()
	for range 3 {
		if err := s.Write([]byte("1\n"), 1); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestClosedReaderOfRealStdout runs this test again as a child whose standard
// output nobody reads.
func TestClosedReaderOfRealStdout(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no SIGPIPE on Windows")
	}
	if os.Getenv("REA_TEST_STDOUT_CHILD") != "" {
		signal.Ignore(syscall.SIGPIPE)
		if err := New(os.Stdout, 0).Write([]byte("1\n"), 1); errors.Is(err, ErrClosed) {
			os.Exit(74)
		}
		os.Exit(1)
	}
	r, w := pipe(t)
	r.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "REA_TEST_STDOUT_CHILD=1")
	cmd.Stdout = w
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 74 {
		t.Errorf("child: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestTornLineIsFinishedFirst(t *testing.T) {
	room := 10
	var got bytes.Buffer
	s := newSink(writerFunc(func(b []byte) (int, error) { // a disk that is sometimes full
		n := min(len(b), room)
		room -= n
		got.Write(b[:n])
		if n < len(b) {
			return n, syscall.ENOSPC
		}
		return n, nil
	}), 0)
	for _, c := range []struct {
		room   int
		lines  string
		failed bool
		want   string
	}{
		{10, "aaaa\nbbbb\n", false, "aaaa\nbbbb\n"},
		{7, "cccc\ndddd\neeee\n", true, "cccc\ndd"},
		{0, "ffff\n", true, ""},
		{2, "gggg\n", true, "dd"},
		{9, "hhhh\n", false, "\nhhhh\n"},
		{5, "iiii\njjjj\n", true, "iiii\n"},
		{99, "kkkk\n", false, "kkkk\n"},
	} {
		room = c.room
		got.Reset()
		err := s.Write([]byte(c.lines), strings.Count(c.lines, "\n"))
		if errors.Is(err, syscall.ENOSPC) != c.failed || got.String() != c.want {
			t.Errorf("%q into %d bytes: %q, %v", c.lines, c.room, got.String(), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestWriteDoesNotAllocate(t *testing.T) {
	s := newSink(io.Discard, 0)
	defer s.Close()
	lines := sinktest.Line(1, 350)
	allocs := testing.AllocsPerRun(1000, func() {
		if err := s.Write(lines, 1); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkWrite(b *testing.B) {
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	s := New(f, 0)
	defer s.Close()
	lines := bytes.Repeat(sinktest.Line(1, 350), 20)
	b.ReportAllocs()
	b.SetBytes(int64(len(lines)))
	for b.Loop() {
		if err := s.Write(lines, 20); err != nil {
			b.Fatal(err)
		}
	}
}
