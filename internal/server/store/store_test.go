package store

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/wire"
)

func openStore(t *testing.T, place string) engine {
	t.Helper()
	s, err := Open(place)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSQLite(t *testing.T) { testEngine(t, openStore) }

func TestReaderWorksBesideAWriterAndAfterIt(t *testing.T) {
	special := "data of ?#%41 ä" // nothing in a path is special
	if runtime.GOOS == "windows" {
		special = "data of #%41 ä" // no name there has a ?
	}
	dir := filepath.Join(t.TempDir(), special)
	s := openStore(t, dir)
	mustPut(t, s, made(nodeA, stream1, 1, 3), 3)
	read := func() string {
		r, err := OpenReader(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var n int
		if _, err := r.Events(t.Context(), Filter{}, func(*wire.Line) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(n)
	}
	if got := read(); got != "3" {
		t.Errorf("beside the writer: %s", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != "3" {
		t.Errorf("after the writer: %s", got)
	}
	if _, err := os.Stat(filepath.Join(dir, File)); err != nil {
		t.Error(err)
	}
}

func TestReaderDoesNotWrite(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir).Close()
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.db.Exec("DELETE FROM hosts"); err == nil {
		t.Error("a reader deleted rows")
	}
}

func TestDatabaseIsForItsOwner(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are of unix")
	}
	dir := filepath.Join(t.TempDir(), "data")
	s := openStore(t, dir)
	defer s.Close()
	mustPut(t, s, made(nodeA, stream1, 1, 3), 3)
	for name, want := range map[string]fs.FileMode{"": 0o700, File: 0o600, File + "-wal": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestFilesThatAreNoDatabaseOfOursAreRefused(t *testing.T) {
	change := func(statement string) func(t *testing.T, name string) {
		return func(t *testing.T, name string) {
			openStore(t, filepath.Dir(name)).Close()
			db, err := sql.Open("sqlite", name)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec(statement); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, name string)
		want  string
	}{
		"a text":                    {func(t *testing.T, name string) { os.WriteFile(name, bytes.Repeat([]byte("hello\n"), 1000), 0o600) }, "is not a database"},
		"a newer version":           {change("PRAGMA user_version = 99"), "newer rea-server (version 99"},
		"a database of another":     {change("PRAGMA application_id = 7"), "another program"},
		"another's, without a mark": {change("PRAGMA application_id = 0; PRAGMA user_version = 0"), "another program"},
		"a folder":                  {func(t *testing.T, name string) { os.Mkdir(name, 0o700) }, "open database"},
		"a database whose head is cut": {func(t *testing.T, name string) {
			openStore(t, filepath.Dir(name)).Close()
			if err := os.Truncate(name, 5000); err != nil {
				t.Fatal(err)
			}
		}, "is damaged"},
	} {
		dir := t.TempDir()
		c.spoil(t, filepath.Join(dir, File))
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: open: %v, want %q", name, err, c.want)
		}
		if _, err := OpenReader(dir); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: read: %v, want %q", name, err, c.want)
		}
	}
}

func TestReaderSaysWhatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenReader(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no database: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("asking made %v", entries)
	}
	if err := os.WriteFile(filepath.Join(dir, File), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReader(dir); err == nil || !strings.Contains(err.Error(), "start rea-server once") {
		t.Errorf("an empty database: %v", err)
	}
}

func TestAFullDiskIsAnErrorThatEnds(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustPut(t, s, made(nodeA, stream1, 1, 3), 3)
	var pages int
	if err := s.db.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit := func(n int) {
		if _, err := s.db.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
			t.Fatal(err)
		}
	}
	limit(pages)
	big := made(nodeA, stream1, 4, 5000)
	if _, err := s.Put(t.Context(), big); err == nil || errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "full") {
		t.Fatalf("put into a full database: %v", err)
	}
	if got := kept(t, s, Filter{}); got != "1-3" {
		t.Errorf("kept %s", got)
	}
	limit(1 << 30)
	mustPut(t, s, big, 5000)
	if got := kept(t, s, Filter{}); got != "1-5000" {
		t.Errorf("kept %s", got)
	}
}

func TestABugInAWriteHoldsNobodyUp(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustPut(t, s, made(nodeA, stream1, 1, 10), 10)
	decode := s.decode
	s.decode = nil // the bug: comparing an overlap panics
	batch := zstd(made(nodeA, stream2, 1, 5))
	other := &put{what: "keep", done: make(chan struct{}), do: func(tx *sql.Tx) error { _, err := s.keep(tx, batch); return err }}
	s.waiting = append(s.waiting, other)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic: the test is wrong")
			}
		}()
		s.Put(t.Context(), made(nodeA, stream1, 3, 7))
	}()
	if <-other.done; other.err == nil {
		t.Error("a batch was said to be kept by a transaction that was not committed")
	}
	s.decode = decode
	mustPut(t, s, made(nodeA, stream1, 3, 12), 12)
	if got := kept(t, s, Filter{}); got != "1-12" {
		t.Errorf("kept %s", got)
	}
}

// A process that puts batches is killed at random, again and again. All that it
// said was kept is there, once, and as it was.
func TestKillLosesNothing(t *testing.T) {
	if dir := os.Getenv("REA_TEST_STORE_CHILD"); dir != "" {
		putUntilKilled(dir)
	}
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir, acked := t.TempDir(), map[string]uint64{}
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(time.Now().UnixNano())))
	for range 8 {
		killAfter(t, dir, 1+r.IntN(60), acked)
		checkKept(t, dir, acked)
	}
	if len(acked) != writers {
		t.Errorf("only %v were kept at all", acked)
	}
}

const writers = 4

// putUntilKilled continues every stream where it ended, a batch at a time, now
// and then repeating one, and prints what is kept.
func putUntilKilled(dir string) {
	s, err := Open(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var out sync.Mutex
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			stream := fmt.Sprintf("%032x", w)
			high, err := s.Put(context.Background(), delivered(stream, 1, 1))
			for ; err == nil; high, err = s.Put(context.Background(), delivered(stream, max(3, high)-2, high+5)) {
				out.Lock()
				fmt.Println(stream, high)
				out.Unlock()
			}
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		})
	}
	wg.Wait()
}

// delivered is made, but that every fifth line declares three numbers of another
// stream lost, and that four more are assigned.
func delivered(stream string, first, last uint64) *Batch {
	gaps := map[uint64]string{}
	for n := first; n <= last; n++ {
		if n%5 == 0 {
			gaps[n] = numbered("queue_full", strings.Replace(stream, "0000", "ffff", 1), n-4, n-2)
		}
	}
	b := with(made(nodeA, stream, first, last), gaps)
	b.Assigned = last + 4
	return b
}

// killAfter lets a child say so many batches and kills it.
func killAfter(t *testing.T, dir string, lines int, acked map[string]uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillLosesNothing$")
	cmd.Env = append(os.Environ(), "REA_TEST_STORE_CHILD="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	for n := 0; scanner.Scan(); n++ {
		var stream string
		var high uint64
		if _, err := fmt.Sscan(scanner.Text(), &stream, &high); err != nil {
			break // the kill cut the line
		}
		acked[stream] = max(acked[stream], high)
		if n == lines {
			cmd.Process.Kill() // and read what it said before
		}
	}
	cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatalf("child: %s", stderr.String())
	}
}

func checkKept(t *testing.T, dir string, acked map[string]uint64) {
	t.Helper()
	r, err := OpenReader(dir) // finds the log of the killed process
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next := map[string]uint64{}
	_, err = r.Events(t.Context(), Filter{}, func(l *wire.Line) error {
		stream := string(l.Stream)
		next[stream]++
		if want := delivered(stream, l.Seq, l.Seq).Lines; l.Seq != next[stream] || !bytes.Equal(l.Raw, want) {
			return fmt.Errorf("stream %s: line %d is %s", stream, next[stream], l.Raw)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for stream, high := range acked {
		if next[stream] < high {
			t.Errorf("stream %s: %d were said to be kept, %d are", stream, high, next[stream])
		}
	}
	checkBooks(t, r, next)
}

// checkBooks wants the books to be those of the lines that are kept, neither
// behind them nor before.
func checkBooks(t *testing.T, r *Reader, next map[string]uint64) {
	t.Helper()
	for _, a := range mustAccounts(t, r, "").Streams {
		if high, ok := next[a.Stream]; ok {
			if a.Received != high || a.Assigned != high+4 || a.Waiting != 4 {
				t.Errorf("%d are kept: %+v", high, a)
			}
			continue
		}
		high := next[strings.Replace(a.Stream, "ffff", "0000", 1)]
		if want := high / 5 * 3; a.Declared != want || a.Waiting+a.Undeclared != high/5*2-min(2, high/5*2) {
			t.Errorf("%d lines of another stream are kept, so %d are declared: %+v", high, want, a)
		}
	}
	if a, err := r.Audit(t.Context(), "", true, nil); err != nil || a.Damaged != 0 {
		t.Errorf("%+v, %v", a, err)
	}
}

// BenchmarkPut keeps batches of streams that are new, and those of one that goes
// on.
func BenchmarkPut(b *testing.B) {
	for name, next := range map[string]func(batch *Batch, n uint64){
		"new":  func(batch *Batch, n uint64) { batch.Stream = fmt.Sprintf("%032x", n) },
		"next": func(batch *Batch, n uint64) { batch.First, batch.Last = n*1000+1, n*1000+1000 },
	} {
		b.Run(name, func(b *testing.B) {
			s, err := Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			one := zstd(made(nodeA, stream1, 1, 1000))
			b.ReportAllocs()
			b.SetBytes(int64(len(one.Lines)))
			for n := uint64(0); b.Loop(); n++ {
				next(one, n)
				if _, err := s.Put(context.Background(), one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkResume is a heartbeat that says nothing new.
func BenchmarkResume(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Put(context.Background(), made(nodeA, stream1, 1, 10)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Resume(context.Background(), &Resume{Node: nodeA, Stream: stream1, Assigned: 10, Received: start.Add(time.Hour)}); err != nil {
			b.Fatal(err)
		}
	}
}
