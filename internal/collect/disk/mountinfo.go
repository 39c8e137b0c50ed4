package disk

import (
	"bytes"
	"strings"

	"github.com/rea-agent/rea/internal/procfs"
)

// A mountLine is one line of /proc/self/mountinfo.
type mountLine struct {
	id, parent uint64
	fileSystem string // major:minor of what is mounted
	mountpoint string
	options    string
	fsType     string
	source     string
	readOnly   bool // the file system as a whole
}

// parseMounts reads /proc/self/mountinfo and returns what is good of it and the
// number of lines that are not.
func parseMounts(b []byte) (lines []mountLine, bad int) {
	for line := range bytes.Lines(b) {
		m, ok := parseMount(strings.TrimSuffix(string(line), "\n"))
		if !ok {
			bad++
			continue
		}
		lines = append(lines, m)
	}
	return lines, bad
}

// parseMount reads one line (Documentation/filesystems/proc.rst, section 3.5):
//
//	36 35 98:0 /sub /mnt rw,noatime shared:1 - ext3 /dev/root rw,errors=continue
//
// The fields are parted by single spaces and one of them, the source, may be
// empty. The optional ones before the hyphen are any number.
func parseMount(line string) (m mountLine, ok bool) {
	mount, rest, ok := strings.Cut(line, " - ")
	if !ok {
		return m, false
	}
	f := strings.SplitN(mount, " ", 7)
	g := strings.SplitN(rest, " ", 3)
	if len(f) < 6 || len(g) < 3 || !strings.HasPrefix(f[4], "/") {
		return m, false
	}
	var idOK, parentOK bool
	m.id, idOK = procfs.Uint([]byte(f[0]))
	m.parent, parentOK = procfs.Uint([]byte(f[1]))
	m.fileSystem, m.mountpoint, m.options = f[2], unescape(f[4]), f[5]
	m.fsType, m.source = g[0], unescape(g[1])
	m.readOnly = g[2] == "ro" || strings.HasPrefix(g[2], "ro,")
	return m, idOK && parentOK
}

// unescape undoes the kernel's writing of space, tab, newline, backslash and #
// as a backslash and three octal digits.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if c, ok := octal(s[i:]); ok {
			b = append(b, c)
			i += 3
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func octal(s string) (c byte, ok bool) {
	if len(s) < 4 || s[0] != '\\' || s[1] > '3' {
		return 0, false
	}
	for _, d := range []byte(s[1:4]) {
		if d < '0' || d > '7' {
			return 0, false
		}
		c = c<<3 | (d - '0')
	}
	return c, true
}

// volumesOf chooses the mounts to list: each file system once, under its
// shortest mountpoint, in the order of the table.
func volumesOf(lines []mountLine) []volume {
	hidden := covered(lines)
	shortest := make(map[string]int)
	for i := range lines {
		m := &lines[i]
		if pseudo(m.fsType) || hidden[i] {
			continue
		}
		if j, ok := shortest[m.fileSystem]; !ok || len(m.mountpoint) < len(lines[j].mountpoint) {
			shortest[m.fileSystem] = i
		}
	}
	volumes := make([]volume, 0, len(shortest))
	for i := range lines {
		if j, ok := shortest[lines[i].fileSystem]; ok && i == j {
			volumes = append(volumes, volumeOf(&lines[i]))
		}
	}
	return volumes
}

func volumeOf(m *mountLine) volume {
	options := m.options
	if m.readOnly {
		if rest, ok := strings.CutPrefix(options, "rw"); ok {
			options = "ro" + rest
		}
	}
	return volume{
		id: m.id, path: m.mountpoint, device: m.source, mountpoint: m.mountpoint,
		fsType: m.fsType, options: options, remote: remote(m.fsType),
	}
}

// covered tells which mounts no path leads to, because another was mounted over
// them or over a folder on the way: asking for their mountpoint would ask the
// other. A mount is reached from its parent, so it is covered by a mount of the
// same parent on the way from there, and by one whose parent it is and whose
// mountpoint is its own.
func covered(lines []mountLine) []bool {
	type place struct {
		parent     uint64
		mountpoint string
	}
	places := make(map[place]bool, len(lines))
	byID := make(map[uint64]int, len(lines))
	for i := range lines {
		byID[lines[i].id] = i
		if lines[i].parent != lines[i].id {
			places[place{lines[i].parent, lines[i].mountpoint}] = true
		}
	}
	hidden := make([]bool, len(lines))
	for i := range lines {
		m := &lines[i]
		hidden[i] = places[place{m.id, m.mountpoint}]
		for depth := 0; !hidden[i] && depth < len(lines); depth++ {
			for p := m.mountpoint; p != "/" && !hidden[i]; {
				p = parentFolder(p)
				hidden[i] = places[place{m.parent, p}]
			}
			up, ok := byID[m.parent]
			if !ok || m.parent == m.id {
				break
			}
			m = &lines[up]
		}
	}
	return hidden
}

func parentFolder(p string) string {
	return p[:max(1, strings.LastIndexByte(p, '/'))]
}

// pseudo tells of file systems that show the kernel's own data or stand for
// others, and store nothing that could fill up.
func pseudo(fsType string) bool {
	switch fsType {
	case "anon_inodefs", "autofs", "bdev", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2",
		"configfs", "cpuset", "debugfs", "devfs", "devpts", "devtmpfs", "dlmfs", "efivarfs",
		"fuse.gvfsd-fuse", "fuse.lxcfs", "fuse.portal", "fusectl", "hugetlbfs", "mqueue", "nfsd",
		"nsfs", "openpromfs", "pipefs", "proc", "pstore", "ramfs", "resctrl", "rootfs",
		"rpc_pipefs", "securityfs", "selinuxfs", "smackfs", "sockfs", "spufs", "sysfs", "tracefs",
		"usbfs", "xenfs":
		return true
	}
	return false
}

// remote tells of file systems whose data lies on other machines.
func remote(fsType string) bool {
	switch fsType {
	case "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.glusterfs", "fuse.rclone",
		"fuse.s3fs", "fuse.sshfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "pvfs2", "smb3", "smbfs":
		return true
	}
	return false
}
