package file

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rea-agent/rea/internal/sink/sinktest"
	"github.com/rea-agent/rea/test/windows/wine"
)

func mustOpen(t testing.TB, o Options) *Sink {
	t.Helper()
	if o.Trouble == nil {
		o.Trouble = func(err error) { t.Errorf("trouble: %v", err) }
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustWrite(t testing.TB, s *Sink, lines string) {
	t.Helper()
	if err := s.Write([]byte(lines), strings.Count(lines, "\n")); err != nil {
		t.Fatalf("write %q: %v", lines, err)
	}
}

func mustClose(t testing.TB, s *Sink) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func put(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// read returns the content of a file, decompressed where it is compressed.
func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(path, compressed) {
		return string(b)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(b)
}

// contents returns what stands in each file of a folder, with the files put
// aside first: the order in which it was written.
func contents(t testing.TB, folder string) (names, texts []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	for _, n := range names {
		texts = append(texts, read(t, filepath.Join(folder, n)))
	}
	return names, texts
}

func wantTexts(t *testing.T, folder string, want ...string) {
	t.Helper()
	_, got := contents(t, folder)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("files in order (-want +got):\n%s", d)
	}
}

func TestSuite(t *testing.T) {
	for name, o := range map[string]Options{
		"no rotation": {},
		"small files": {RotateBytes: 20000},
		"compression": {RotateBytes: 100000, Gzip: true},
	} {
		t.Run(name, func(t *testing.T) {
			sinktest.Suite(t, func(t *testing.T) (sinktest.Sink, func() []byte) {
				o := o
				o.Path = filepath.Join(t.TempDir(), "agent.ndjson")
				return mustOpen(t, o), func() []byte {
					_, texts := contents(t, filepath.Dir(o.Path))
					return []byte(strings.Join(texts, ""))
				}
			})
		})
	}
}

func TestRotationBySize(t *testing.T) {
	for name, c := range map[string]struct {
		writes, want []string
	}{
		"exactly full":              {[]string{"aaaa\n", "bbbb\n"}, []string{"aaaa\nbbbb\n"}},
		"one byte more":             {[]string{"aaaa\n", "bbbbb\n"}, []string{"aaaa\n", "bbbbb\n"}},
		"a write is not divided":    {[]string{"aaaa\n", "bbb\nccc\n"}, []string{"aaaa\n", "bbb\nccc\n"}},
		"but if larger than a file": {[]string{"a\n", "bbb\nccc\nddd\n"}, []string{"a\n", "bbb\nccc\n", "ddd\n"}},
		"oversized line is alone":   {[]string{"a\n", "bbbbbbbbbbbbbb\nc\n"}, []string{"a\n", "bbbbbbbbbbbbbb\n", "c\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "agent.ndjson")
			s := mustOpen(t, Options{Path: path, RotateBytes: 10})
			for _, w := range c.writes {
				mustWrite(t, s, w)
			}
			mustClose(t, s)
			wantTexts(t, filepath.Dir(path), c.want...)
		})
	}
}

// at runs f in a bubble in which it is that time.
func at(t *testing.T, clock string, f func(t *testing.T)) {
	t.Helper()
	start, err := time.Parse(time.RFC3339Nano, clock)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(start))
		f(t)
	})
}

func TestRotationByTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.ndjson")
	folder := filepath.Dir(path)
	at(t, "2026-11-23T10:59:58.5Z", func(t *testing.T) {
		s := mustOpen(t, Options{Path: path, RotateEvery: time.Hour})
		mustWrite(t, s, "10:59:58\n")
		time.Sleep(time.Second)
		mustWrite(t, s, "10:59:59\n")
		time.Sleep(time.Second + 345*time.Millisecond)
		mustWrite(t, s, "11:00:00\n")
		time.Sleep(30 * time.Minute)
		mustWrite(t, s, "11:30:00\n")
		time.Sleep(5 * time.Hour)
		mustWrite(t, s, "16:30:00\n")
		mustClose(t, s)
	})
	wantTexts(t, folder, "10:59:58\n10:59:59\n", "11:00:00\n11:30:00\n", "16:30:00\n")
	names, _ := contents(t, folder)
	if names[0] != "agent-20261123T110000.845Z.ndjson" || names[2] != "agent.ndjson" {
		t.Errorf("%q", names)
	}
}

func TestRotationByTimeGoesOnAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.ndjson")
	put(t, path, "yesterday\n")
	at(t, "2026-11-23T10:00:00Z", func(t *testing.T) {
		old := time.Now().Add(-24 * time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, Options{Path: path, RotateEvery: 24 * time.Hour})
		mustWrite(t, s, "today\n")
		mustClose(t, s)
	})
	wantTexts(t, filepath.Dir(path), "yesterday\n", "today\n")
}

func TestEmptyFileIsNotPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.ndjson")
	at(t, "2026-11-23T10:00:00Z", func(t *testing.T) {
		s := mustOpen(t, Options{Path: path, RotateEvery: time.Hour, RotateBytes: 1})
		time.Sleep(3 * time.Hour)
		mustWrite(t, s, "a\n")
		mustClose(t, s)
	})
	wantTexts(t, filepath.Dir(path), "a\n")
}

func TestNamesSortWhereTheClockStandsStillOrGoesBack(t *testing.T) {
	folder := t.TempDir()
	put(t, filepath.Join(folder, "agent-20991231T235959.999Z.ndjson.gz"), gzipped(t, "future\n"))
	var want = []string{"future\n"}
	at(t, "2026-11-23T10:00:00Z", func(t *testing.T) {
		s := mustOpen(t, Options{Path: filepath.Join(folder, "agent.ndjson"), RotateBytes: 1})
		for i := range 20 {
			line := fmt.Sprintln(i)
			want = append(want, line)
			mustWrite(t, s, line)
		}
		mustClose(t, s)
	})
	wantTexts(t, folder, want...)
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTakenNamesArePassedOver(t *testing.T) {
	folder := t.TempDir()
	at(t, "2026-11-23T10:00:00Z", func(t *testing.T) {
		s := mustOpen(t, Options{Path: filepath.Join(folder, "agent.ndjson"), RotateBytes: 1})
		put(t, filepath.Join(folder, "agent-20261123T100000.000Z.ndjson"), "theirs\n")
		put(t, filepath.Join(folder, "agent-20261123T100000.001Z.ndjson.gz"), gzipped(t, "theirs too\n"))
		mustWrite(t, s, "a\n")
		mustWrite(t, s, "b\n")
		mustClose(t, s)
	})
	wantTexts(t, folder, "theirs\n", "theirs too\n", "a\n", "b\n")
}

func TestKeepDeletesTheOldestOfOurs(t *testing.T) {
	folder := t.TempDir()
	others := []string{
		"agent-20200101T000000.000Z.json", "agent-20200101T000000.000Z.ndjson.bz2", "agent-20200101T000000Z.ndjson",
		"agent-20200230T000000.000Z.ndjson", "agent-2-20200101T000000.000Z.ndjson", "agent.ndjson.1", "notes.txt",
	}
	for _, o := range others {
		put(t, filepath.Join(folder, o), "other\n")
	}
	if err := os.Mkdir(filepath.Join(folder, "agent-20200101T000000.000Z.ndjson"), 0o750); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(folder, "agent-20200102T000000.000Z.ndjson"), "old\n")
	put(t, filepath.Join(folder, "agent-20200103T000000.000Z.ndjson.gz"), "old too\n")
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Options{Path: filepath.Join(folder, "agent.ndjson"), RotateBytes: 1, Keep: 2})
		for _, line := range []string{"a\n", "b\n", "c\n", "d\n"} {
			mustWrite(t, s, line)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		mustClose(t, s)
	})
	var ours []string
	names, texts := contents(t, folder)
	for i, n := range names {
		if !slices.Contains(others, n) {
			ours = append(ours, texts[i])
		}
	}
	if d := cmp.Diff([]string{"b\n", "c\n", "d\n"}, ours); d != "" {
		t.Errorf("ours (-want +got):\n%s", d)
	}
	if len(names) != len(ours)+len(others) {
		t.Errorf("something of others is gone: %q", names)
	}
	if _, err := os.Stat(filepath.Join(folder, "agent-20200101T000000.000Z.ndjson")); err != nil {
		t.Error(err)
	}
}

func TestCompression(t *testing.T) {
	folder := t.TempDir()
	var want []string
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Options{Path: filepath.Join(folder, "agent.ndjson"), RotateBytes: 100000, Gzip: true})
		for i := range 5 {
			lines := strings.Repeat(string(sinktest.Line(i, 1000)), 90)
			want = append(want, lines)
			mustWrite(t, s, lines)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		mustClose(t, s)
	})
	wantTexts(t, folder, want...)
	names, _ := contents(t, folder)
	aside := regexp.MustCompile(`^agent-\d{8}T\d{6}\.\d{3}Z\.ndjson\.gz$`)
	for _, n := range names[:4] {
		if !aside.MatchString(n) {
			t.Errorf("%s is not compressed", n)
		}
		if info, err := os.Stat(filepath.Join(folder, n)); err != nil || info.Size() > 9000 {
			t.Errorf("%s: %d bytes, %v", n, info.Size(), err)
		}
	}
}

func TestWhatACrashLeftIsTakenUp(t *testing.T) {
	folder := t.TempDir()
	put(t, filepath.Join(folder, "agent-20260101T000000.000Z.ndjson"), "both\n")
	put(t, filepath.Join(folder, "agent-20260101T000000.000Z.ndjson.gz"), gzipped(t, "both\n"))
	put(t, filepath.Join(folder, "agent-20260102T000000.000Z.ndjson"), "unfinished\n")
	put(t, filepath.Join(folder, "agent-20260102T000000.000Z.ndjson.gz.tmp"), "unf")
	put(t, filepath.Join(folder, "agent-20260103T000000.000Z.ndjson"), "not begun\n")
	put(t, filepath.Join(folder, "agent.ndjson"), "whole\ntor")
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, Options{Path: filepath.Join(folder, "agent.ndjson"), Gzip: true})
		mustWrite(t, s, "next\n")
		synctest.Wait()
		mustClose(t, s)
	})
	wantTexts(t, folder, "both\n", "unfinished\n", "not begun\n", "whole\ntor\nnext\n")
	names, _ := contents(t, folder)
	for _, n := range names[:3] {
		if !strings.HasSuffix(n, ".ndjson.gz") {
			t.Errorf("%s stayed", n)
		}
	}
}

func TestOthersChangeTheFile(t *testing.T) {
	for name, c := range map[string]struct {
		meddle func(path string) error
		want   string // in the file afterwards
	}{
		"renamed": {func(path string) error { return os.Rename(path, path+".1") }, "b\n"},
		"renamed, and an empty one made": {func(path string) error {
			return errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, nil, 0o644))
		}, "b\n"},
		"replaced by a torn one": {func(path string) error {
			return errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, []byte("tor"), 0o644))
		}, "tor\nb\n"},
		"deleted":            {os.Remove, "b\n"},
		"deleted and folder": {func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, "b\n"},
		"truncated":          {func(path string) error { return os.Truncate(path, 0) }, "b\n"},
		"appended to": {func(path string) error {
			return os.WriteFile(path, []byte("a\ntheirs\n"), 0o644)
		}, "a\ntheirs\nb\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "deleted" {
				wine.Differs(t, "a file that is deleted while it is open keeps its name")
			}
			path := filepath.Join(t.TempDir(), "logs", "agent.ndjson")
			s := mustOpen(t, Options{Path: path})
			mustWrite(t, s, "a\n")
			if err := c.meddle(path); err != nil {
				t.Fatal(err)
			}
			mustWrite(t, s, "b\n")
			if got := read(t, path); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if b, err := os.ReadFile(path + ".1"); err == nil && string(b) != "a\n" {
				t.Errorf("%q was renamed", b)
			}
		})
	}
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such modes on Windows")
	}
	path := filepath.Join(t.TempDir(), "a", "b", "agent.ndjson")
	mustOpen(t, Options{Path: path})
	for p, want := range map[string]os.FileMode{path: 0o640, filepath.Dir(path): 0o750 | os.ModeDir} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", p, info.Mode(), err)
		}
	}
}

func TestSymbolicLinkStays(t *testing.T) {
	folder := t.TempDir()
	real := filepath.Join(folder, "real")
	if err := os.Mkdir(real, 0o750); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(real, "x.log"), "a\n")
	link := filepath.Join(folder, "agent.ndjson")
	if err := os.Symlink(filepath.Join(real, "x.log"), link); err != nil {
		t.Skip(err)
	}
	if _, err := os.Lstat(link); err != nil {
		wine.Differs(t, "it makes no symbolic links, and says that it does")
	}
	s := mustOpen(t, Options{Path: link, RotateBytes: 1})
	mustWrite(t, s, "b\n")
	wantTexts(t, real, "a\n", "b\n")
	if got := read(t, link); got != "b\n" {
		t.Errorf("%q through the link", got)
	}
}

func TestOpenErrors(t *testing.T) {
	folder := t.TempDir()
	put(t, filepath.Join(folder, "plain"), "")
	cases := map[string]struct{ path, want string }{
		"a folder":             {folder, "not a regular file but a folder"},
		"a file as the folder": {filepath.Join(folder, "plain", "agent.ndjson"), "open "},
	}
	if runtime.GOOS != "windows" {
		cases["a device"] = struct{ path, want string }{os.DevNull, "not a regular file but a pipe, socket or device"}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Open(Options{Path: c.path})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("%v", err)
			}
		})
	}
}

// brokenDisk makes the writes of s stop after room bytes.
func brokenDisk(s *Sink, room *int) {
	s.write = func(f *os.File, b []byte) (int, error) {
		if len(b) <= *room {
			*room -= len(b)
			return f.Write(b)
		}
		n, err := f.Write(b[:*room])
		*room = 0
		return n, errors.Join(err, syscall.ENOSPC)
	}
}

func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.ndjson")
	s := mustOpen(t, Options{Path: path})
	room := 10
	brokenDisk(s, &room)
	mustWrite(t, s, "aaaa\n")
	for range 2 {
		if err := s.Write([]byte("bbbb\ncccc\n"), 2); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if got := read(t, path); got != "aaaa\n" {
			t.Fatalf("a part of what was dropped stands: %q", got)
		}
	}
	room = 100
	mustWrite(t, s, "dddd\n")
	mustClose(t, s)
	wantTexts(t, filepath.Dir(path), "aaaa\ndddd\n")
}

func TestTornLineThatCannotBeTakenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.ndjson")
	s := mustOpen(t, Options{Path: path})
	s.write = func(f *os.File, b []byte) (int, error) {
		n, err := f.Write(b[:7])
		return n, errors.Join(err, syscall.EIO, f.Close()) // closed, it can be neither truncated nor synced
	}
	if err := s.Write([]byte("aaaa\nbbbb\n"), 2); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	s.write = (*os.File).Write
	mustWrite(t, s, "cccc\n")
	mustClose(t, s)
	wantTexts(t, filepath.Dir(path), "aaaa\nbb\ncccc\n")
}

func TestRotationThatFailsLosesNothing(t *testing.T) {
	folder := t.TempDir()
	at(t, "2026-11-23T10:00:00Z", func(t *testing.T) {
		var troubles []string
		s := mustOpen(t, Options{Path: filepath.Join(folder, "agent.ndjson"), RotateBytes: 1, Trouble: func(err error) {
			troubles = append(troubles, err.Error())
		}})
		s.names.folder = filepath.Join(folder, "plain", "file") // cannot be reached
		put(t, filepath.Join(folder, "plain"), "")
		for range 3 {
			mustWrite(t, s, "a\n")
		}
		if len(troubles) != 1 || !strings.HasPrefix(troubles[0], "rotate ") {
			t.Errorf("%q", troubles)
		}
		s.names.folder = folder
		if err := os.Remove(filepath.Join(folder, "plain")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retryRotation)
		mustWrite(t, s, "b\n")
		mustClose(t, s)
	})
	wantTexts(t, folder, "a\na\na\n", "b\n")
}

func TestNamesParse(t *testing.T) {
	n := namesOf("/var/log/agent.ndjson")
	for name, want := range map[string]string{
		"agent-20261123T101112.345Z.ndjson":        "",
		"agent-20261123T101112.345Z.ndjson.gz":     ".gz",
		"agent-20261123T101112.345Z.ndjson.gz.tmp": ".gz.tmp",
		"agent-20261123T101112.345Z.ndjson.tmp":    "no",
		"agent-20261123T101112.345Z":               "no",
		"agent-20261123T101112,345Z.ndjson":        "no",
		"agent-20261323T101112.345Z.ndjson":        "no",
		"agent-20261123T101160.345Z.ndjson":        "no",
		"agent.ndjson":                             "no",
		"bagent-20261123T101112.345Z.ndjson":       "no",
		"agent-":                                   "no",
	} {
		at, state, ok := n.parse(name)
		if ok != (want != "no") || ok && (state != want || filepath.Base(n.path(at))+state != name) {
			t.Errorf("%s: %v %q %v", name, at, state, ok)
		}
	}
}

// tally counts lines by their number.
type tally struct {
	seen map[int]int
	torn []string
}

func (c *tally) add(text string) {
	for text != "" {
		line, rest, whole := strings.Cut(text, "\n")
		text = rest
		var i, size int
		if n, _ := fmt.Sscanf(line, "%d %d ", &i, &size); n == 2 && whole && len(line) == size {
			c.seen[i]++
		} else {
			c.torn = append(c.torn, line)
		}
	}
}

// numbered returns line i of size bytes without its newline.
func numbered(i, size int) string {
	head := fmt.Sprintf("%d %d ", i, size)
	return head + strings.Repeat("x", size-len(head)) + "\n"
}

// TestRotationUnderMeddling writes while another goroutine moves the file away
// again and again, into a folder or, held open, out of every folder.
func TestRotationUnderMeddling(t *testing.T) {
	folder, moved := t.TempDir(), t.TempDir()
	path := filepath.Join(folder, "agent.ndjson")
	s := mustOpen(t, Options{Path: path, RotateBytes: 50000, Gzip: true})
	var deleted []*os.File
	stop := make(chan struct{})
	var meddler sync.WaitGroup
	meddler.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			to := filepath.Join(moved, strconv.Itoa(i))
			if os.Rename(path, to) == nil && i%2 == 0 && runtime.GOOS != "windows" {
				f, err := os.Open(to)
				if err != nil {
					t.Error(err)
					return
				}
				deleted = append(deleted, f)
				if err := os.Remove(to); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Duration(i%20) * time.Millisecond)
		}
	})
	r := rand.New(rand.NewPCG(3, 3))
	total, bytes := 0, 0
	for bytes < 8<<20 {
		var lines strings.Builder
		n := 1 + r.IntN(40)
		for range n {
			lines.WriteString(numbered(total, 20+r.IntN(1<<r.IntN(16))))
			total++
		}
		bytes += lines.Len()
		mustWrite(t, s, lines.String())
	}
	close(stop)
	meddler.Wait()
	mustClose(t, s)

	c := tally{seen: map[int]int{}}
	_, aside := contents(t, folder)
	_, away := contents(t, moved)
	for _, text := range slices.Concat(aside, away) {
		c.add(text)
	}
	for _, f := range deleted {
		b, err := io.ReadAll(f)
		if err != nil {
			t.Error(err)
		}
		c.add(string(b))
		f.Close()
	}
	c.check(t, total, 0)
	if len(aside) < 20 || len(away) < 3 {
		t.Errorf("only %d files put aside, %d moved away", len(aside), len(away))
	}
}

// check wants the first total lines exactly once, at most extra lines more, and
// none torn.
func (c *tally) check(t *testing.T, total, extra int) {
	t.Helper()
	for i := range total {
		if c.seen[i] != 1 {
			t.Fatalf("line %d of %d is there %d times", i, total, c.seen[i])
		}
	}
	for i, n := range c.seen {
		if n != 1 {
			t.Errorf("line %d is there %d times", i, n)
		}
	}
	if len(c.torn) > 0 {
		t.Errorf("%d lines are torn: %.60q", len(c.torn), c.torn)
	}
	if n := len(c.seen); n > total+extra {
		t.Errorf("%d lines came back, %d were written", n, total)
	}
}

// TestKill runs this test again as a child that writes, rotates and compresses,
// and kills it in the middle, over and over in one folder.
func TestKill(t *testing.T) {
	if path := os.Getenv("REA_TEST_FILE_CHILD"); path != "" {
		writeForEver(path)
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "agent.ndjson")
	next, torn := 0, 0
	for round := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "REA_TEST_FILE_CHILD="+path, "REA_TEST_FILE_FIRST="+strconv.Itoa(next))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked := bufio.NewScanner(out)
		for i := 0; acked.Scan(); i++ { // the child says after each write up to where lines are safe
			if next, err = strconv.Atoi(acked.Text()); err != nil {
				t.Fatalf("child says %q", acked.Text())
			}
			if i == 60+31*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
			}
		}
		if cmd.Wait() == nil {
			t.Fatal("the child was not killed")
		}

		s := mustOpen(t, Options{Path: path, Gzip: true, RotateBytes: 40000})
		mustClose(t, s)
		c := tally{seen: map[int]int{}}
		_, texts := contents(t, folder)
		for _, text := range texts {
			c.add(text)
		}
		if len(c.torn) > round+1 { // one for each kill, ended by the next process
			t.Fatalf("round %d: %d lines are torn: %.60q", round, len(c.torn), c.torn)
		}
		torn, c.torn = len(c.torn), nil
		c.check(t, next, 40) // and what was written but not yet said
		next = len(c.seen)
	}
	t.Logf("%d lines, %d torn", next, torn)
}

func writeForEver(path string) {
	s, err := Open(Options{Path: path, RotateBytes: 40000, Gzip: true, Trouble: func(err error) { fmt.Fprintln(os.Stderr, err) }})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	i, err := strconv.Atoi(os.Getenv("REA_TEST_FILE_FIRST"))
	for err == nil {
		var lines strings.Builder
		n := 1 + rand.IntN(40)
		for range n {
			lines.WriteString(numbered(i, 20+rand.IntN(1<<rand.IntN(12))))
			i++
		}
		if err = s.Write([]byte(lines.String()), n); err == nil {
			_, err = fmt.Println(i)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func BenchmarkWrite(b *testing.B) {
	s := mustOpen(b, Options{Path: filepath.Join(b.TempDir(), "agent.ndjson"), RotateBytes: 64 << 20, Keep: 1})
	lines := bytes.Repeat(sinktest.Line(1, 350), 20)
	b.ReportAllocs()
	b.SetBytes(int64(len(lines)))
	for b.Loop() {
		if err := s.Write(lines, 20); err != nil {
			b.Fatal(err)
		}
	}
}
