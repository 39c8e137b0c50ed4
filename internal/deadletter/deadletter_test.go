package deadletter

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

const stream = "7f3a9d0c5b6e4f1a8c2d3e4f5a6b7c8d"

func letter(seq uint64) Letter {
	return Letter{
		Time: time.Date(2026, 11, 23, 7, 35, 11, 5, time.UTC), Lane: "metrics", Stream: stream, Seq: seq, Status: 422,
		Reason: "seq is 1204, want 1203", Line: fmt.Appendf(nil, `{"v":1,"seq":%d,"kind":"cpu"}`, seq),
	}
}

func mustOpen(t testing.TB, dir string, o Options) *Box {
	t.Helper()
	b, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustPut(t testing.TB, b *Box, letters ...Letter) {
	t.Helper()
	for _, l := range letters {
		if err := b.Put(l); err != nil {
			t.Fatal(err)
		}
	}
}

func mustList(t testing.TB, dir string) []Letter {
	t.Helper()
	letters, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	return letters
}

func seqs(letters []Letter) (n []uint64) {
	for _, l := range letters {
		n = append(n, l.Seq)
	}
	return n
}

func TestALetterComesBackAsItWasPut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "dead-letters")
	b := mustOpen(t, dir, Options{})
	odd := letter(7)
	odd.Lane, odd.Reason, odd.Line = "evidence", "line 1:\n\u202e\x1b[31m", []byte("no JSON, no UTF-8: \xff\x00 <&>")
	ended := letter(8)
	ended.Line = append(ended.Line, '\n')
	empty := letter(9)
	empty.Line = []byte{}
	last := letter(maxSeq)
	mustPut(t, b, letter(1204), odd, ended, empty, last)

	ended.Line = bytes.TrimSuffix(ended.Line, []byte("\n"))
	if diff := gocmp.Diff([]Letter{letter(1204), odd, ended, empty, last}, mustList(t, dir)); diff != "" {
		t.Error(diff)
	}
	if runtime.GOOS == "windows" {
		return // permissions are those of the folder above
	}
	for name, want := range map[string]fs.FileMode{".": 0o700, fileName(&odd): 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

func TestTheSameLinePutAgainIsOneLetter(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, Options{MaxLetters: 2})
	again := letter(1)
	again.Status, again.Reason = 400, "worse"
	mustPut(t, b, letter(1), letter(2), again)
	if diff := gocmp.Diff([]Letter{letter(2), again}, mustList(t, dir)); diff != "" {
		t.Error(diff)
	}
	if s, err := b.Stats(); err != nil || s != (Stats{Letters: 2, Bytes: 8192}) {
		t.Errorf("stats %+v, %v", s, err)
	}
}

func TestTheOldestGoFirstWhenABoundIsReached(t *testing.T) {
	large := func(seq uint64) Letter {
		l := letter(seq)
		l.Line = bytes.Repeat([]byte("x"), 9000) // 12 KiB in blocks
		return l
	}
	for _, c := range []struct {
		name    string
		o       Options
		put     []Letter
		want    []uint64
		dropped uint64
	}{
		{"by number", Options{MaxLetters: 3}, []Letter{letter(9), letter(1), letter(5), letter(2), letter(4)}, []uint64{5, 2, 4}, 2},
		{"by size", Options{MaxBytes: 5 * 4096}, []Letter{letter(1), letter(2), letter(3), large(4)}, []uint64{2, 3, 4}, 1},
		{"two for one", Options{MaxBytes: 4 * 4096}, []Letter{letter(1), letter(2), letter(3), large(4)}, []uint64{3, 4}, 2},
		{"one is enough", Options{MaxLetters: 1}, []Letter{letter(1), letter(2)}, []uint64{2}, 1},
		{"with room", Options{MaxLetters: 2}, []Letter{letter(1), letter(2)}, []uint64{1, 2}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			b := mustOpen(t, dir, c.o)
			mustPut(t, b, c.put...)
			if diff := gocmp.Diff(c.want, seqs(mustList(t, dir))); diff != "" {
				t.Error(diff)
			}
			s, err := b.Stats()
			if err != nil || s.Dropped != c.dropped || c.o.MaxBytes > 0 && s.Bytes > c.o.MaxBytes {
				t.Errorf("stats %+v, %v, want %d dropped", s, err, c.dropped)
			}
		})
	}
}

func TestAClockThatWasSetBackDoesNotMakeTheNewestTheOldest(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, Options{MaxLetters: 3})
	mustPut(t, b, letter(1))
	l := letter(1)
	future := time.Now().Add(10 * 365 * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, fileName(&l)), future, future); err != nil {
		t.Fatal(err)
	}
	mustPut(t, b, letter(2), letter(3), letter(4))
	if diff := gocmp.Diff([]uint64{2, 3, 4}, seqs(mustList(t, dir))); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNoLetterIsNotPut(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, Options{MaxBytes: 8192})
	mustPut(t, b, letter(1))
	for name, spoil := range map[string]func(*Letter){
		"no number":           func(l *Letter) { l.Seq = 0 },
		"too high a number":   func(l *Letter) { l.Seq = maxSeq + 1 },
		"no stream":           func(l *Letter) { l.Stream = "" },
		"a path for a stream": func(l *Letter) { l.Stream = "../../../../../../../../../passwd" },
		"no lane":             func(l *Letter) { l.Lane = "" },
		"a path for a lane":   func(l *Letter) { l.Lane = "../x" },
		"a long lane":         func(l *Letter) { l.Lane = strings.Repeat("x", 33) },
		"two lines":           func(l *Letter) { l.Line = []byte("a\nb\n") },
		"a line of no agent":  func(l *Letter) { l.Line = make([]byte, maxLine+1) },
		"more than the box":   func(l *Letter) { l.Line = make([]byte, 8192) },
	} {
		l := letter(2)
		spoil(&l)
		if err := b.Put(l); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if diff := gocmp.Diff([]uint64{1}, seqs(mustList(t, dir))); diff != "" {
		t.Errorf("what was there: %s", diff)
	}
	names, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*", "*"))
	if err != nil || len(names) != 1 {
		t.Errorf("files: %q, %v", names, err)
	}
}

func TestALongReasonIsCut(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, Options{})
	l := letter(1)
	l.Reason = "x" + strings.Repeat("é", maxReason) + "\xff"
	mustPut(t, b, l)
	got := mustList(t, dir)[0]
	if got.Damage != nil || !strings.HasPrefix(l.Reason, strings.TrimSuffix(got.Reason, "…")) || len(got.Reason) < maxReason-4 || len(got.Reason) > maxReason+4 {
		t.Errorf("%d bytes of reason, %v: %.60q", len(got.Reason), got.Damage, got.Reason)
	}
}

func TestADamagedLetterIsToldAndCostsItselfAlone(t *testing.T) {
	l := letter(2)
	name := fileName(&l)
	whole, err := encode(&l)
	if err != nil {
		t.Fatal(err)
	}
	other := letter(3)
	foreign, err := encode(&other)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-5] ^= 1
	for what, data := range map[string][]byte{
		"empty":              {},
		"no line":            []byte("{}\n"),
		"cut off":            whole[:len(whole)-1],
		"a flipped bit":      flipped,
		"no JSON":            []byte("hello\nworld\n"),
		"another letter":     foreign,
		"of another version": bytes.Replace(whole, []byte(`"v":1`), []byte(`"v":2`), 1),
		"endless":            bytes.Repeat([]byte("x"), maxFile+1),
		"of endless head":    append(bytes.Repeat([]byte(" "), maxHead+1), whole...),
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			b := mustOpen(t, dir, Options{})
			mustPut(t, b, letter(1))
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
			mustPut(t, b, letter(4))
			got := mustList(t, dir)
			slices.SortFunc(got, func(a, b Letter) int { return cmp.Compare(a.Seq, b.Seq) }) // it was not put, so its age is chance
			if diff := gocmp.Diff([]uint64{1, 2, 4}, seqs(got)); diff != "" {
				t.Fatal(diff)
			}
			d := got[1]
			if d.Damage == nil || d.Line != nil || d.Lane != "metrics" || d.Stream != stream || d.Time.IsZero() {
				t.Errorf("damaged letter: %+v", d)
			}
			if got[0].Damage != nil || got[2].Damage != nil {
				t.Errorf("its neighbours: %v, %v", got[0].Damage, got[2].Damage)
			}
			if err := Remove(dir, d); err != nil {
				t.Error(err)
			}
			if diff := gocmp.Diff([]uint64{1, 4}, seqs(mustList(t, dir))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNoFlippedBitMakesAnotherLine(t *testing.T) {
	l := letter(2)
	whole, err := encode(&l)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		if got, err := decode(b); err == nil && fileName(&got) == fileName(&l) && !bytes.Equal(got.Line, l.Line) {
			t.Fatalf("bit %d: line %q", bit, got.Line)
		}
	}
}

func TestWhatAKillLeftIsRemovedAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	l := letter(1)
	for _, name := range []string{fileName(&l) + ".123.tmp", "notes.tmp", "notes.txt", "x.letter", "metrics-" + stream + "-1.letter"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := mustList(t, dir); got != nil {
		t.Errorf("letters: %v", got)
	}
	mustOpen(t, dir, Options{})
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := gocmp.Diff([]string{"metrics-" + stream + "-1.letter", "notes.tmp", "notes.txt", "x.letter"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestAFolderThatIsNotThereHasNoLetters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	if got, err := List(dir); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if err := Remove(dir, letter(1)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
}

func TestOthersListAndRemoveWhileLettersArePut(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir, Options{MaxLetters: 8})
	const writers, each = 2, 60
	var putting, looking sync.WaitGroup
	for w := range uint64(writers) {
		putting.Go(func() {
			for i := range uint64(each) {
				if err := b.Put(letter(1 + w*each + i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	looking.Go(func() {
		for i := 0; ; i++ {
			letters, err := List(dir)
			if err != nil {
				t.Error(err)
			}
			for _, l := range letters {
				if want := letter(l.Seq); l.Damage != nil || !bytes.Equal(l.Line, want.Line) {
					t.Errorf("letter %d: %v, %q", l.Seq, l.Damage, l.Line)
				}
			}
			if len(letters) > 0 && i%3 == 0 {
				if err := Remove(dir, letters[0]); err != nil {
					t.Error(err)
				}
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	putting.Wait()
	close(done)
	looking.Wait()
	if s, err := b.Stats(); err != nil || s.Letters > 8 {
		t.Errorf("stats %+v, %v", s, err)
	}
}

func FuzzDecode(f *testing.F) {
	l := letter(1204)
	whole, err := encode(&l)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte("{}\n\n"))
	f.Add([]byte(`{"v":1,"lane":"x","stream":"` + stream + `","seq":1,"crc32c":0}` + "\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decode(b)
		if err != nil {
			return
		}
		again, err := encode(&got)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", got, err)
		}
		back, err := decode(again)
		if err != nil {
			t.Fatal(err)
		}
		got.Reason = clip(got.Reason)
		if diff := gocmp.Diff(got, back); diff != "" {
			t.Fatal(diff)
		}
	})
}
