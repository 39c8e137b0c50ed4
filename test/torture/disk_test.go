//go:build torture && linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A disk is a small file system of our own, whose power can be cut.
type disk struct {
	t          *testing.T
	image, dir string
}

// newDisk makes an ext4 of that many MiB and mounts it. The image lies in memory
// where it can: what a power cut loses is decided by ext4, not by what is below.
func newDisk(t *testing.T, mebibytes int) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "a file system of its own needs root")
	}
	where := "/dev/shm"
	if _, err := os.Stat(where); err != nil {
		where = ""
	}
	folder, err := os.MkdirTemp(where, "rea-torture")
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{t: t, image: filepath.Join(folder, "image"), dir: filepath.Join(t.TempDir(), "disk")}
	t.Cleanup(func() {
		d.unmount()
		os.RemoveAll(folder)
	})
	for _, err := range []error{
		os.Mkdir(d.dir, 0o700), os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, int64(mebibytes)<<20),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", d.image).CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("mkfs.ext4: %v: %s", err, out))
	}
	if out, err := d.tryMount(); err != nil {
		skip(t, fmt.Sprintf("mount -o loop: %v: %s", err, out))
	}
	return d
}

func (d *disk) tryMount() ([]byte, error) {
	return exec.Command("mount", "-o", "loop,errors=remount-ro", d.image, d.dir).CombinedOutput()
}

func (d *disk) mount() {
	d.t.Helper()
	if out, err := d.tryMount(); err != nil {
		d.t.Fatalf("mount: %v: %s", err, out)
	}
	if _, err := os.ReadDir(d.dir); err != nil {
		d.t.Fatalf("%v: the file system is still the one without power; a mount namespace that began meanwhile (a container, unshare) may hold it", err)
	}
}

// unmount takes the file system away; what just ended may hold it for a moment.
func (d *disk) unmount() {
	err := unix.Unmount(d.dir, 0)
	for i := 0; err == unix.EBUSY && i < 1000; i++ {
		time.Sleep(time.Millisecond)
		err = unix.Unmount(d.dir, 0)
	}
	if err != nil && err != unix.EINVAL { // not mounted
		d.t.Errorf("unmount %s: %v", d.dir, err)
	}
}

// EXT4_IOC_SHUTDOWN of linux/fs/ext4/ext4.h, and the flag by which nothing more
// is written, not even the journal.
const (
	ext4Shutdown = 0x8004587d
	noLogFlush   = 2
)

// cutPower loses everything that was not synced. The process is frozen before,
// so that what it reported is what it did: without that a report may be on its
// way whose work the cut prevented.
func (d *disk) cutPower(p *process) {
	d.t.Helper()
	p.freeze()
	f, err := os.Open(d.dir)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush)
		f.Close()
	}
	if err != nil {
		d.t.Fatalf("cut the power of %s: %v", d.dir, err)
	}
	p.kill()
	d.unmount()
	d.mount()
}

// breakDown makes the file system refuse every write from now on.
func (d *disk) breakDown() {
	d.t.Helper()
	device, err := exec.Command("findmnt", "-n", "-o", "SOURCE", d.dir).Output()
	if err == nil {
		err = os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(strings.TrimSpace(string(device))), "trigger_fs_error"), []byte("1"), 0)
	}
	if err != nil {
		d.t.Fatalf("break the file system: %v", err)
	}
}

// repair checks the file system, which must not be mounted.
func (d *disk) repair() {
	d.t.Helper()
	out, err := exec.Command("fsck.ext4", "-p", d.image).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // errors were corrected: fsck(8)
		err = nil
	}
	if err != nil {
		d.t.Fatalf("fsck: %v: %s", err, out)
	}
}
