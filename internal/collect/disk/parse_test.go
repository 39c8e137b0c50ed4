package disk

import (
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

func TestParseMount(t *testing.T) {
	cases := []struct {
		name, line string
		want       mountLine
		ok         bool
	}{
		{"ordinary", "36 35 98:0 /sub /mnt rw,noatime shared:1 - ext3 /dev/root rw,errors=continue",
			mountLine{36, 35, "98:0", "/mnt", "rw,noatime", "ext3", "/dev/root", false}, true},
		{"no optional fields, read-only", "36 35 98:0 / /mnt rw - ext3 /dev/root ro",
			mountLine{36, 35, "98:0", "/mnt", "rw", "ext3", "/dev/root", true}, true},
		{"many optional fields", "36 35 98:0 / /mnt rw shared:1 master:2 propagate_from:3 unbindable - ext3 x rw",
			mountLine{36, 35, "98:0", "/mnt", "rw", "ext3", "x", false}, true},
		{"escapes", `36 35 98:0 / /a\040b\011c\012d\134e\043f rw - fuse a\040b rw`,
			mountLine{36, 35, "98:0", "/a b\tc\nd\\e#f", "rw", "fuse", "a b", false}, true},
		{"not quite escapes", `36 35 98:0 / /a\04\9\777\08x rw - fuse \ rw`,
			mountLine{36, 35, "98:0", `/a\04\9\777\08x`, "rw", "fuse", `\`, false}, true},
		{"empty source", "36 35 98:0 / /mnt rw - tmpfs  rw",
			mountLine{36, 35, "98:0", "/mnt", "rw", "tmpfs", "", false}, true},
		{"no hyphen", "36 35 98:0 / /mnt rw ext3 /dev/root rw", mountLine{}, false},
		{"truncated", "36 35 98:0 / /mnt rw - ext3", mountLine{}, false},
		{"bad id", "x 35 98:0 / /mnt rw - ext3 /dev/root rw", mountLine{}, false},
		{"relative mountpoint", "36 35 98:0 / mnt rw - ext3 /dev/root rw", mountLine{}, false},
		{"empty", "", mountLine{}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, ok := parseMount(c.line)
			if ok != c.ok {
				t.Fatalf("ok is %v", ok)
			}
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(mountLine{})); ok && d != "" {
				t.Error(d)
			}
		})
	}
}

func TestVolumesOf(t *testing.T) {
	cases := []struct {
		name  string
		table []string
		want  []string // id and mountpoint
	}{
		{"bind mounts are one, under the shortest name", []string{
			"1 0 8:1 / / rw - ext4 a rw", "2 1 8:2 /x /srv/long rw - ext4 b rw", "3 1 8:2 / /srv rw - ext4 b rw", "4 1 8:2 / /var rw - ext4 b rw",
		}, []string{"/", "/srv"}},
		{"mount over a mount hides it", []string{
			"1 0 8:1 / / rw - ext4 a rw", "2 1 0:7 / /dev rw - devtmpfs a rw", "3 2 0:8 / /dev/shm rw - tmpfs old rw", "4 3 0:9 / /dev/shm rw - tmpfs new rw",
		}, []string{"/", "/dev/shm"}},
		{"mount over a folder on the way hides what is below", []string{
			"1 0 8:1 / / rw - ext4 a rw", "2 1 8:2 / /a/b rw - ext4 b rw", "3 2 8:3 / /a/b/c rw - ext4 c rw", "4 1 8:4 / /a rw - ext4 d rw", "5 4 8:5 / /a/e rw - ext4 e rw",
		}, []string{"/", "/a", "/a/e"}},
		{"hidden bind mount gives way to a longer one", []string{
			"1 0 8:1 / / rw - ext4 a rw", "2 1 8:2 / /m rw - ext4 b rw", "3 1 8:2 / /longer rw - ext4 b rw", "4 2 0:9 / /m rw - proc proc rw",
		}, []string{"/", "/longer"}},
		{"initial root under the root", []string{
			"1 1 0:1 / / rw - rootfs rootfs rw", "2 1 8:1 / / rw - ext4 a rw", "3 2 8:2 / /srv rw - ext4 b rw",
		}, []string{"/", "/srv"}},
		{"parents in a circle", []string{"1 2 8:1 / /a rw - ext4 a rw", "2 1 8:2 / /b rw - ext4 b rw"}, []string{"/a", "/b"}},
		{"kernel's own are left out", []string{"1 0 0:1 / /proc rw - proc proc rw", "2 0 0:2 / /sys rw - sysfs sysfs rw"}, nil},
		{"nothing", nil, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			lines, bad := parseMounts([]byte(strings.Join(c.table, "\n")))
			if bad != 0 {
				t.Fatalf("%d bad lines", bad)
			}
			var got []string
			for _, v := range volumesOf(lines) {
				got = append(got, v.mountpoint)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseDevice(t *testing.T) {
	const old = "8 0 sda 1 2 3 4 5 6 7 8 9 10 11"
	cases := []struct {
		name, line             string
		ok, discards, flushes  bool
		readBytes, writeMerged uint64
	}{
		{"Linux 2.6", old, true, false, false, 3 * 512, 6},
		{"Linux 4.18", old + " 12 13 14 15", true, true, false, 3 * 512, 6},
		{"Linux 5.5", "   " + old + " 12 13 14 15 16 17", true, true, true, 3 * 512, 6},
		{"a later one", old + " 12 13 14 15 16 17 18 19", true, true, true, 3 * 512, 6},
		{"partition of Linux before 2.6.25", "8 1 sda1 1 2 3 4", false, false, false, 0, 0},
		{"letters", "8 0 sda 1 2 x 4 5 6 7 8 9 10 11", false, false, false, 0, 0},
		{"number too large", "8 0 sda 1 2 18446744073709551616 4 5 6 7 8 9 10 11", false, false, false, 0, 0},
		{"negative number", "8 0 sda 1 2 -3 4 5 6 7 8 9 10 11", false, false, false, 0, 0},
		{"empty", "", false, false, false, 0, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, ok := parseDevice([]byte(c.line))
			if ok != c.ok {
				t.Fatalf("ok is %v", ok)
			}
			if !ok {
				return
			}
			if string(s.name) != "sda" || s.read.bytes.V != c.readBytes || s.write.merged.V != c.writeMerged ||
				s.discard.operations.Known != c.discards || s.flush.operations.Known != c.flushes {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func TestBytesThatDoNotFitAreUnknown(t *testing.T) {
	s, ok := parseDevice([]byte("8 0 sda 1 2 18446744073709551615 4 5 6 7 8 9 10 11"))
	if !ok || s.read.bytes.Known {
		t.Errorf("%v %+v", ok, s.read)
	}
}

func TestParsingDevicesAllocatesNothing(t *testing.T) {
	line := []byte(" 8 0 sda 12930 4295 788170 4583 1691 22189 1271856 3755 0 2152 8560 3402 54 43080 221 4 0")
	if n := testing.AllocsPerRun(100, func() { parseDevice(line) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestLocalVolume(t *testing.T) {
	cases := []struct {
		name   string
		places []string
		want   string
	}{
		{"letter", []string{`C:\`}, `C:\`},
		{"folder and letter", []string{`C:\data\`, `E:\`}, `E:\`},
		{"only folders, longer than the volume's own name", []string{`C:\` + strings.Repeat("a", 80) + `\`}, `C:\` + strings.Repeat("a", 80) + `\`},
		{"no place", nil, `\\?\Volume{1}\`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if v := localVolume(`\\?\Volume{1}\`, c.places); v.mountpoint != c.want || v.path != `\\?\Volume{1}\` {
				t.Errorf("got %+v", v)
			}
		})
	}
}

func TestDriveVolume(t *testing.T) {
	cases := []struct {
		name, target, device string
		remote, ok           bool
	}{
		{"share", `\Device\LanmanRedirector\;Z:00000000000a1b2c\server\share`, `\\server\share`, true, true},
		{"disk of a driver's own", `\Device\ImDisk0`, `\Device\ImDisk0`, false, true},
		{"folder by another name", `\??\C:\Users\ann`, "", false, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v, ok := driveVolume('Z', c.target)
			if ok != c.ok || v.device != c.device || v.remote != c.remote || ok && v.mountpoint != `Z:\` {
				t.Errorf("%v: %+v", ok, v)
			}
		})
	}
}

func TestLetters(t *testing.T) {
	for _, c := range []struct {
		places []string
		want   uint32
	}{
		{[]string{`C:\`}, 4}, {[]string{`A:\`, `C:\mnt\`, `Z:\`}, 1<<25 | 1}, {[]string{`C:`, `c:\`, `:\:`, ``}, 0}, {nil, 0},
	} {
		if got := letters(c.places); got != c.want {
			t.Errorf("%q: got %b", c.places, got)
		}
	}
}

func TestShareOf(t *testing.T) {
	for target, want := range map[string]string{
		`\Device\LanmanRedirector\;Z:00000000000a1b2c\server\share`:      `\\server\share`,
		`\Device\Mup\;LanmanRedirector\;Z:00000000000a1b2c\server\a\b c`: `\\server\a\b c`,
		`\Device\LanmanRedirector\;Z:00000000000a1b2c`:                   "",
		`\Device\LanmanRedirector\;Z:00000000000a1b2c\`:                  "",
		`\Device\VBoxMiniRdr\;E:\VBoxSvr\lab`:                            `\\VBoxSvr\lab`,
		`\Device\HarddiskVolume2`:                                        "",
		``:                                                               "",
	} {
		if got := shareOf(target); got != want {
			t.Errorf("%q: got %q, want %q", target, got, want)
		}
	}
}

func TestSplitNames(t *testing.T) {
	for _, c := range []struct {
		list string
		want []string
	}{
		{"C:\\\x00D:\\mnt\\\x00\x00rest", []string{`C:\`, `D:\mnt\`}},
		{"C:\\\x00", []string{`C:\`}},
		{"C:\\", []string{`C:\`}},
		{"\x00\x00", nil},
		{"", nil},
	} {
		if got := splitNames(utf16.Encode([]rune(c.list))); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q", c.list, got)
		}
	}
}

func TestParsePerformanceRefusesTheImpossible(t *testing.T) {
	if _, ok := parsePerformance("PhysicalDrive0", performance(0)[:performanceSize-1]); ok {
		t.Error("a truncated DISK_PERFORMANCE was taken")
	}
	b := performance(0)
	for i := range 8 {
		b[i], b[32+i] = 0xff, 0xff
	}
	if s, ok := parsePerformance("PhysicalDrive0", b); !ok || s.read.bytes.Known || s.idle.Known {
		t.Errorf("negative numbers are known: %+v", s)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("36 35 98:0 /sub /mnt\\040x rw,noatime shared:1 - ext3 /dev/root rw\n37 36 0:9 / /mnt\\040x/y rw - proc proc rw\n"))
	f.Add([]byte("1 1 0:1 / / rw - rootfs  rw\n2 1 8:1 / / rw - ext4 a ro\n"))
	f.Add([]byte("1 2 0:1 / // rw - a b c\n2 1 8:1 / /a//b rw - ext4 a ro\n - \n\\"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, bad := parseMounts(b)
		volumes := volumesOf(lines)
		if len(volumes) > len(lines) || len(lines)+bad > strings.Count(string(b), "\n")+1 {
			t.Errorf("%d volumes of %d lines, %d bad", len(volumes), len(lines), bad)
		}
		seen := map[string]bool{}
		for _, v := range volumes {
			if !strings.HasPrefix(v.mountpoint, "/") || seen[v.fsType+"\x00"+v.mountpoint+"\x00"+v.device] && v.id == 0 {
				t.Errorf("volume %+v", v)
			}
		}
	})
}

func FuzzParseDevice(f *testing.F) {
	f.Add([]byte("8 0 sda 12930 4295 788170 4583 1691 22189 1271856 3755 0 2152 8560 3402 54 43080 221 4 0"))
	f.Add([]byte("8 0 sda 1 2 3 4 5 6 7 8 9 10"))
	f.Add([]byte("  18446744073709551616"))
	f.Fuzz(func(t *testing.T, line []byte) {
		s, ok := parseDevice(line)
		if ok && (len(s.name) == 0 || !s.read.operations.Known || s.busy.V < 0 || math.IsInf(s.busy.V, 0)) {
			t.Errorf("got %+v", s)
		}
	})
}

func FuzzParsePerformance(f *testing.F) {
	f.Add(performance(0))
	f.Add(performance(3)[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := parsePerformance("PhysicalDrive0", b)
		if ok != (len(b) >= performanceSize) || s.idle.V < 0 || s.read.bytes.Known && s.read.bytes.V > math.MaxInt64 {
			t.Errorf("%v %+v", ok, s)
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add(`\Device\Mup\;LanmanRedirector\;Z:00000000000a1b2c\server\share`, "C:\\\x00D:\\mnt\\\x00\x00")
	f.Add(`\;\`, "\x00")
	f.Fuzz(func(t *testing.T, target, list string) {
		if s := shareOf(target); s != "" && (len(s) < 3 || !strings.HasSuffix(target, s[1:])) {
			t.Errorf("share %q of %q", s, target)
		}
		for _, n := range splitNames(utf16.Encode([]rune(list))) {
			if n == "" || strings.ContainsRune(n, 0) {
				t.Errorf("name %q of %q", n, list)
			}
		}
	})
}

func BenchmarkParseDevice(b *testing.B) {
	line := []byte("   8       0 sda 12930 4295 788170 4583 1691 22189 1271856 3755 0 2152 8560 3402 54 43080 221 4 0")
	b.ReportAllocs()
	for b.Loop() {
		parseDevice(line)
	}
}
