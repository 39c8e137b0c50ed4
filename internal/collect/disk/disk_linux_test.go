package disk

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
	"golang.org/x/sys/unix"
)

func on(s *system, measure func(*volume) (usage, error)) *Collector {
	return &Collector{timeout: DefaultProbeTimeout, read: s.read, kind: s.kind, measure: measure}
}

// still is a machine whose mount table does not tell of changes.
func still(root string) *system {
	s := machine(root)
	s.changed = func(int) bool { return false }
	return s
}

func TestLinuxGolden(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "first")
	synctest.Test(t, func(t *testing.T) {
		dead := make(chan struct{})
		defer close(dead)
		c := on(still(root), func(v *volume) (usage, error) {
			switch v.fsType {
			case "nfs4":
				<-dead
			case "tmpfs":
				return usage{}, nil
			case "fuse.sshfs":
				return usage{}, errors.New("statfs: permission denied")
			case "btrfs", "vfat", "cifs": // no fixed number of inodes
				return usage{total: 1 << 40, free: 1 << 39, available: 1 << 39}, nil
			}
			return usage{
				total: 500 << 30, free: 125 << 30, available: 100 << 30,
				inodes: event.Known[uint64](1 << 25), inodesFree: event.Known[uint64](1 << 24),
			}, nil
		})
		lines := collecttest.Read(t, c)
		collecttest.Lay(t, root, "testdata/linux.txtar", "second")
		lines = append(lines, collecttest.Read(t, c)...) // after the 2 s of the first time-out
		collecttest.Golden(t, "testdata/linux.golden", Schema, lines)
	})
}

func TestMountTableIsReadAgainWhenItChangedOrIsOld(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "first")
	table := filepath.Join(root, "proc/self/mountinfo")
	synctest.Test(t, func(t *testing.T) {
		changed := false
		s := machine(root)
		s.changed = func(int) bool { return changed }
		var out sample
		mounts := func() int { _ = s.read(time.Now(), &out); return len(out.volumes) }
		before := mounts()
		if err := os.WriteFile(table, []byte("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if n := mounts(); n != before || n < 2 {
			t.Errorf("read again without need: %d mounts, then %d", before, n)
		}
		changed = true
		if n := mounts(); n != 1 {
			t.Errorf("%d mounts after a change", n)
		}
		changed = false
		if err := os.WriteFile(table, []byte("garbage\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rescan)
		out = sample{}
		if n := mounts(); n != 0 || strings.Join(out.errs, "; ") != "mounts: 1 lines of mountinfo are not as expected" {
			t.Errorf("%d mounts of garbage, errors %q", n, out.errs)
		}
	})
}

// A mount namespace of its own lets the test mount something without any trace
// outside. The thread is never unlocked, so it ends with the test.
func TestKernelTellsOfANewMount(t *testing.T) {
	root, place := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/thread-self", filepath.Join(root, "proc/self")); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skipf("no right to a mount namespace: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skipf("no right to mount: %v", err)
	}
	s := machine(root)
	now := time.Now()
	s.mounts(now)
	first := len(s.volumes)
	if s.tableChanged() {
		t.Error("changed before anything was mounted")
	}
	if err := unix.Mount("lab", place, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no right to mount: %v", err)
	}
	s.mounts(now)
	if len(s.volumes) != first+1 {
		t.Errorf("%d mounts, then %d", first, len(s.volumes))
	}
	if err := unix.Unmount(place, 0); err != nil {
		t.Error(err)
	}
	s.mounts(now)
	if len(s.volumes) != first {
		t.Errorf("%d mounts, and %d after one went", first, len(s.volumes))
	}
}

func TestMissingFilesAreNamed(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "first")
	if err := os.Remove(filepath.Join(root, "proc/diskstats")); err != nil {
		t.Fatal(err)
	}
	c := on(still(root), full)
	got := decode(t, collecttest.Read(t, c))[0]
	if len(got.Disk.Mounts) == 0 || len(got.Disk.Devices) != 0 || len(got.Errors) != 1 || !strings.HasPrefix(got.Errors[0], "devices: open ") {
		t.Errorf("%d mounts, %d devices, errors %q", len(got.Disk.Mounts), len(got.Disk.Devices), got.Errors)
	}
	collecttest.Lay(t, root, "testdata/linux.txtar", "first")
	if got := decode(t, collecttest.Read(t, c))[0]; len(got.Disk.Devices) == 0 || got.Errors != nil {
		t.Errorf("the file came back: %d devices, errors %q", len(got.Disk.Devices), got.Errors)
	}
}

func TestThisMachine(t *testing.T) {
	c := New(Config{})
	lines := collecttest.Read(t, c)
	lines = append(lines, collecttest.Read(t, c)...)
	collecttest.Validate(t, Schema, lines)
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		t.Fatal(err)
	}
	used := float64(st.Blocks - st.Bfree)
	want := used / (used + float64(st.Bavail))
	for _, m := range decode(t, lines)[0].Disk.Mounts {
		if m.Mountpoint == "/" {
			if m.Utilization == nil || *m.Utilization < want-0.02 || *m.Utilization > want+0.02 {
				t.Errorf("utilization of / is %v, want about %v", m.Utilization, want)
			}
			return
		}
	}
	t.Error("/ is not among the mounts")
}

func BenchmarkRead(b *testing.B) {
	c := New(Config{})
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Read(b.Context(), collecttest.Drop); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProbe(b *testing.B) {
	v := volume{path: "/"}
	b.Run("inline", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := measure(&v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("goroutine", func(b *testing.B) {
		p := &probe{volume: v, done: make(chan struct{}, 1)}
		b.ReportAllocs()
		for b.Loop() {
			go p.run(measure)
			<-p.done
		}
	})
}
