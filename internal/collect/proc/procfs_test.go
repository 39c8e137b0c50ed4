package proc

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const statLine = "4242 (postgres: main) S 1 4242 4242 0 -1 4194560 5112 90 3 0 1234 567 8 9 20 0 7 0 98765 " +
	"225280000 1800 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 2 0 0 0 0 0 0 0 0 0 0 0 0 0\n"

func TestParseStatReadsTheFields(t *testing.T) {
	got, name, err := parseStat([]byte(statLine), 4096)
	if err != nil {
		t.Fatal(err)
	}
	want := facts{
		parent:   1,
		start:    98765,
		cpu:      (1234 + 567) * 10 * time.Millisecond,
		threads:  7,
		resident: 1800 * 4096,
		virtual:  225280000,
		state:    sleeping,
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(facts{})); d != "" || string(name) != "postgres: main" {
		t.Errorf("name %q (-want +got):\n%s", name, d)
	}
}

func TestParseStatTellsThreadsOfTheKernel(t *testing.T) {
	for flags, want := range map[string]bool{"4194560": false, "2129984": true, "69238880": true, "0": false} {
		f, _, err := parseStat([]byte(strings.Replace(statLine, "4194560", flags, 1)), 1)
		if err != nil || f.kernel != want {
			t.Errorf("flags %s: %v, %v", flags, f.kernel, err)
		}
	}
}

func TestTheNewestPIDIsTheLastWordOfLoadavg(t *testing.T) {
	for text, want := range map[string]uint64{
		"0.32 0.19 0.52 1/123 30453\n": 30453, "30453": 30453, "": 0, "\n": 0, "0.32 0.19 0.52 1/123\n": 0, "0.32 0.19 0.52 1/123 x\n": 0,
	} {
		if got := parseNewest([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestAProcessHasAPIDInEachNamespace(t *testing.T) {
	for text, want := range map[string]int{
		"Name:\tx\nNStgid:\t1\t2\t3\nNSpid:\t4242\nNSpgid:\t5\t6\n": 1,
		"Name:\tx\nNSpid:\t4242\t17\t1\nNSpgid:\t5\n":               3,
		"Name:\tx\nNSpid:": 0, "Name:\tx\n": 0, "": 0,
	} {
		if got := countNSpids([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestParseStatFindsTheEndOfTheName(t *testing.T) {
	for _, name := range []string{"", "a b", ") R 7 (", "(sd-pam)", ")", "((", "line\nend", "\xff\xfe", ") S 1 1 1 1"} {
		got, gotName, err := parseStat([]byte(strings.Replace(statLine, "postgres: main", name, 1)), 1)
		if err != nil || string(gotName) != name || got.parent != 1 || got.start != 98765 {
			t.Errorf("%q: name %q, facts %+v, err %v", name, gotName, got, err)
		}
	}
}

func TestParseStatRefusesWhatIsCutOrForeign(t *testing.T) {
	cut := []string{"", "42", "42 (a", "42 a) S 1", "42 (a)", "42 (a) ", "42 (a) S", "42 (a) S "}
	for n := 1; n < strings.Index(statLine, " 1800"); n++ {
		cut = append(cut, statLine[:n])
	}
	cut = append(cut,
		strings.Replace(statLine, "S 1 ", "S x ", 1),
		strings.Replace(statLine, " 1234 ", " -1 ", 1),
		strings.Replace(statLine, " 1234 ", " 18446744073709551616 ", 1),
		strings.Replace(statLine, " 1234 ", " 18446744073709551615 ", 1))
	for _, line := range cut {
		if f, _, err := parseStat([]byte(line), 1); err == nil {
			t.Errorf("%q: no error, %+v", line, f)
		}
	}
}

func TestStateOfNamesEveryLetterOfTheKernel(t *testing.T) {
	want := map[byte]state{
		'R': running, 'S': sleeping, 'D': blocked, 'T': stopped, 't': stopped,
		'Z': zombie, 'X': zombie, 'I': idle, 'P': idle, 'W': unknown, '?': unknown,
	}
	for letter, s := range want {
		if got := stateOf(letter); got != s {
			t.Errorf("%c: got %s, want %s", letter, stateNames[got], stateNames[s])
		}
	}
}

func TestParsePIDTakesOnlyIDs(t *testing.T) {
	for name, want := range map[string]uint32{
		"1": 1, "4194304": 4194304, "0": 0, "self": 0, "": 0, "12a": 0, "-1": 0, "99999999999": 0, "18446744073709551617": 0,
	} {
		if got, ok := parsePID([]byte(name)); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d, %v", name, got, ok)
		}
	}
}

func TestParseStatm(t *testing.T) {
	for _, c := range []struct {
		line string
		want uint64
		err  error
	}{
		{"55000 1800 1500 200 0 900 0\n", 300, nil},
		{"0 0 0 0 0 0 0\n", 0, nil},
		{"55000 1500 1800 200 0 900 0\n", 0, errStatm},
		{"55000 1500", 0, errStatm},
		{"", 0, errStatm},
	} {
		if got, err := parseStatm([]byte(c.line)); got != c.want || err != c.err {
			t.Errorf("%q: %d, %v", c.line, got, err)
		}
	}
}

const ioText = "rchar: 999\nwchar: 888\nsyscr: 7\nsyscw: 6\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 5\n"

func TestParseIOTakesWhatReachedStorage(t *testing.T) {
	if r, w, err := parseIO([]byte(ioText)); r != 4096 || w != 8192 || err != nil {
		t.Errorf("%d, %d, %v", r, w, err)
	}
	for _, text := range []string{"", ioText[:60], strings.Replace(ioText, "8192", "-1", 1)} {
		if r, w, err := parseIO([]byte(text)); err != errIO {
			t.Errorf("%q: %d, %d, %v", text, r, w, err)
		}
	}
}

func TestParseUIDTakesTheEffectiveUser(t *testing.T) {
	if uid, err := parseUID([]byte("Name:\tsu\nUmask:\t0022\nUid:\t1000\t33\t0\t0\nGid:\t1\t2\t3\t4\n")); uid != 33 || err != nil {
		t.Errorf("%d, %v", uid, err)
	}
	for _, text := range []string{"", "Name:\tUid:\n", "\nUid:\t1000\n", "\nUid:\t1\t4294967296\t1\t1\n"} {
		if uid, err := parseUID([]byte(text)); err != errStatus {
			t.Errorf("%q: %d, %v", text, uid, err)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for list, want := range map[string]int{
		"0\n": 1, "0-3\n": 4, "0-3,8,10-11\n": 7, "": 0, "\n": 0, "3-0": 0, "0-": 0, "a": 0, "0,": 0, "0-99999999": 0,
	} {
		got, err := parseCPUs([]byte(list))
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", list, got, err)
		}
	}
}

func TestParseCommandJoinsArguments(t *testing.T) {
	for args, want := range map[string]string{
		"nginx\x00-g\x00daemon off;\x00": "nginx -g daemon off;",
		"sshd: root@pts/0\x00\x00\x00":   "sshd: root@pts/0",
		"":                               "",
	} {
		if got := parseCommand([]byte(args)); got != want {
			t.Errorf("%q: %q", args, got)
		}
	}
}

func TestParsePasswdKeepsTheFirstNameOfAnID(t *testing.T) {
	got := parsePasswd([]byte("root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n# note\n+::::::\n" +
		"web:x:33:33::/var/www:/usr/sbin/nologin\n:x:5:5:::\nbad:x:minus:1:::\nhuge:x:4294967296:1:::\ncut:x:7\nlast:x:8:8:::"))
	if d := cmp.Diff(map[uint32]string{0: "root", 33: "web", 8: "last"}, got); d != "" {
		t.Error(d)
	}
}

// entry lays out one entry as getdents64(2) does.
func entry(name string) []byte {
	b := make([]byte, (19+len(name)+1+7)&^7)
	binary.NativeEndian.PutUint16(b[16:], uint16(len(b)))
	copy(b[19:], name)
	return b
}

func TestNextEntryWalksADirectory(t *testing.T) {
	b := append(append(entry("."), entry("1")...), entry("a-long-name-of-a-file")...)
	var got []string
	name, rest, ok := nextEntry(b)
	for ; ok; name, rest, ok = nextEntry(rest) {
		got = append(got, string(name))
	}
	if d := cmp.Diff([]string{".", "1", "a-long-name-of-a-file"}, got); d != "" {
		t.Error(d)
	}
}

func FuzzNextEntry(f *testing.F) {
	f.Add(append(entry("1"), entry("stat")...))
	f.Add(entry("1")[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, rest, ok := nextEntry(b); ok; name, rest, ok = nextEntry(b) {
			if len(rest) >= len(b) || len(name) > len(b)-19 {
				t.Fatalf("no step forward: %d of %d bytes left", len(rest), len(b))
			}
			b = rest
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statLine))
	f.Add([]byte("1 (a) b) R 0 1 1"))
	f.Fuzz(func(t *testing.T, line []byte) {
		got, name, err := parseStat(line, 4096)
		if err != nil && (name != nil || got != facts{}) {
			t.Errorf("%q: facts beside an error: %+v", line, got)
		}
		if got.cpu < 0 || got.state >= states {
			t.Errorf("%q: %+v", line, got)
		}
	})
}

func FuzzParseSmallFiles(f *testing.F) {
	f.Add([]byte(ioText))
	f.Add([]byte("55000 1800 1500 200 0 900 0\n"))
	f.Add([]byte("\nUid:\t1000\t33\t0\t0\n"))
	f.Add([]byte("0-3,8\n"))
	f.Add([]byte("0.32 0.19 0.52 1/123 30453\n"))
	f.Add([]byte("Name:\tx\nNSpid:\t4242\t17\n"))
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if n, err := parseCPUs(text); n < 0 || (err == nil) == (n == 0) {
			t.Errorf("cpus of %q: %d, %v", text, n, err)
		}
		if n := countNSpids(text); n < 0 || n > len(text) {
			t.Errorf("pids in %q: %d", text, n)
		}
		_ = parseNewest(text)
		if pages, err := parseStatm(text); err != nil && pages != 0 {
			t.Errorf("statm of %q: %d, %v", text, pages, err)
		}
		if r, w, err := parseIO(text); err != nil && (r != 0 || w != 0) {
			t.Errorf("io of %q: %d, %d, %v", text, r, w, err)
		}
		if uid, err := parseUID(text); err != nil && uid != 0 {
			t.Errorf("uid of %q: %d, %v", text, uid, err)
		}
		if strings.ContainsRune(parseCommand(text), 0) {
			t.Errorf("command of %q holds a NUL", text)
		}
		for _, name := range parsePasswd(text) {
			if name == "" || strings.Contains(name, ":") {
				t.Errorf("passwd %q: user %q", text, name)
			}
		}
	})
}

func BenchmarkParseStat(b *testing.B) {
	line := []byte(statLine)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := parseStat(line, 4096); err != nil {
			b.Fatal(err)
		}
	}
}
