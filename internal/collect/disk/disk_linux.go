package disk

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
	"golang.org/x/sys/unix"
)

// rescan is how old the list of mounts may become although nothing told of a
// change: a file system that turns read-only by itself, after an error, does not.
const rescan = time.Minute

// A system reads this machine, or the one that a test laid out under root.
type system struct {
	root    string
	changed func(fd int) bool // the mount table behind fd; nil is polled

	table, diskstats procfs.File
	buf              []byte // what is being read; names in the sample lie in it
	polled           [1]unix.PollFd
	scanned          time.Time
	volumes          []volume
	tableErr         string
}

func newSystem() *system { return machine("") }

func machine(root string) *system {
	return &system{
		root:      root,
		table:     procfs.File{Path: root + "/proc/self/mountinfo"},
		diskstats: procfs.File{Path: root + "/proc/diskstats"},
	}
}

func (s *system) read(now time.Time, out *sample) error {
	s.mounts(now)
	out.volumes = s.volumes
	if s.tableErr != "" {
		out.errs = append(out.errs, s.tableErr)
	}
	if err := s.devices(out); err != nil {
		out.errs = append(out.errs, "devices: "+err.Error())
	}
	return nil
}

// mounts reads the mount table if it changed: the kernel marks its descriptor
// readable with POLLPRI and POLLERR then (proc_pid_mountinfo(5)).
func (s *system) mounts(now time.Time) {
	if now.Sub(s.scanned) < rescan && !s.tableChanged() {
		return
	}
	b, err := s.table.Read(&s.buf)
	if err != nil {
		s.volumes, s.tableErr = nil, "mounts: "+err.Error()
		return
	}
	lines, bad := parseMounts(b)
	s.scanned, s.volumes, s.tableErr = now, volumesOf(lines), ""
	if bad > 0 {
		s.tableErr = fmt.Sprintf("mounts: %d lines of mountinfo are not as expected", bad)
	}
}

func (s *system) tableChanged() bool {
	fd, open := s.table.Descriptor()
	switch {
	case !open:
		return true
	case s.changed != nil:
		return s.changed(fd)
	}
	s.polled[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLPRI}
	_, err := unix.Poll(s.polled[:], 0)
	return err != nil || s.polled[0].Revents != 0
}

// devices reads the counters of all devices but those never used.
func (s *system) devices(out *sample) error {
	b, err := s.diskstats.Read(&s.buf)
	if err != nil {
		return err
	}
	bad := 0
	for len(b) > 0 {
		var line []byte
		line, b = procfs.Line(b)
		if d, ok := parseDevice(line); !ok {
			bad++
		} else if !unused(&d) {
			out.stats = append(out.stats, d)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d lines of diskstats are not as expected", bad)
	}
	return nil
}

// unused reports whether the device is one of those that the kernel makes in
// advance, and was never used.
func unused(s *stat) bool {
	for _, prefix := range [...]string{"loop", "ram", "zram", "nbd"} {
		if bytes.HasPrefix(s.name, []byte(prefix)) {
			return s.read.operations.V == 0 && s.write.operations.V == 0
		}
	}
	return false
}

// kind asks sysfs, where whole devices stand in /sys/block and all of them in
// /sys/class/block, with ! for the / of names like cciss/c0d0.
func (s *system) kind(name string) string {
	name = strings.ReplaceAll(name, "/", "!")
	if exists(s.root + "/sys/block/" + name) {
		return "disk"
	}
	if exists(s.root + "/sys/class/block/" + name) {
		return "partition"
	}
	return ""
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// measure asks the file system, which may take for ever.
func measure(v *volume) (usage, error) {
	var st unix.Statfs_t
	err := unix.Statfs(v.path, &st)
	for errors.Is(err, unix.EINTR) {
		err = unix.Statfs(v.path, &st)
	}
	if err != nil {
		return usage{}, fmt.Errorf("statfs: %w", err)
	}
	block := uint64(st.Frsize) // the unit of the three numbers; old kernels left it empty
	if block == 0 {
		block = uint64(st.Bsize)
	}
	u := usage{total: st.Blocks * block, free: st.Bfree * block, available: st.Bavail * block}
	if st.Files > 0 { // file systems without a fixed number of inodes say 0
		u.inodes, u.inodesFree = event.Known(st.Files), event.Known(st.Ffree)
	}
	return u, nil
}
