package disk

import (
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf16"

	"github.com/rea-agent/rea/internal/event"
)

// What Windows says, read on any system.

// performanceSize is the size of DISK_PERFORMANCE (winioctl.h), where 64-bit
// members are aligned to 8 bytes.
const performanceSize = 88

// parsePerformance reads a DISK_PERFORMANCE:
//
//	 0 BytesRead   8 BytesWritten  16 ReadTime    24 WriteTime  32 IdleTime  int64
//	40 ReadCount  44 WriteCount    48 QueueDepth  52 SplitCount              uint32
//	56 QueryTime int64  64 StorageDeviceNumber uint32  68 StorageManagerName [8]uint16
//
// Times are in units of 100 nanoseconds.
// https://learn.microsoft.com/en-us/windows/win32/api/winioctl/ns-winioctl-disk_performance
func parsePerformance(name string, b []byte) (s stat, ok bool) {
	if len(b) < performanceSize {
		return s, false
	}
	le := binary.LittleEndian
	count := func(at int) event.Maybe[uint64] { return event.Known(uint64(le.Uint32(b[at:]))) }
	return stat{
		name:     []byte(name),
		read:     work{operations: count(40), bytes: positive(le.Uint64(b[0:])), seconds: ticks(le.Uint64(b[16:]))},
		write:    work{operations: count(44), bytes: positive(le.Uint64(b[8:])), seconds: ticks(le.Uint64(b[24:]))},
		inFlight: count(48),
		idle:     ticks(le.Uint64(b[32:])),
		clock:    ticks(le.Uint64(b[56:])),
	}, true
}

// positive takes the bits of an int64 that cannot truly be negative.
func positive(n uint64) event.Maybe[uint64] {
	return event.Maybe[uint64]{V: n, Known: n <= math.MaxInt64}
}

func ticks(n uint64) event.Maybe[float64] {
	return event.Maybe[float64]{V: float64(n) / 1e7, Known: n <= math.MaxInt64}
}

// localVolume describes a volume by its GUID path and the places where it is
// mounted: the shortest is shown, the GUID path if there is none. It is asked
// by the GUID path, which leads through no other volume.
func localVolume(guid string, places []string) volume {
	mountpoint := guid
	for i, p := range places {
		if i == 0 || len(p) < len(mountpoint) {
			mountpoint = p
		}
	}
	return volume{path: guid, device: guid, mountpoint: mountpoint}
}

// letters returns the drive letters among the places of a volume, as the bits of
// GetLogicalDrives: A is the lowest.
func letters(places []string) (mask uint32) {
	for _, p := range places {
		if len(p) == 3 && p[1:] == `:\` && p[0] >= 'A' && p[0] <= 'Z' {
			mask |= 1 << (p[0] - 'A')
		}
	}
	return mask
}

// driveVolume describes a drive letter that is no volume of the mount manager,
// by what QueryDosDevice says of it: a share, or a disk of some driver's own.
// ok is false for another name of a folder, as subst makes them.
func driveVolume(letter byte, target string) (v volume, ok bool) {
	root := string(letter) + `:\`
	if strings.HasPrefix(target, `\??\`) {
		return v, false
	}
	v = volume{path: root, device: target, mountpoint: root}
	if share := shareOf(target); share != "" {
		v.device, v.remote = share, true
	}
	return v, true
}

// shareOf finds the share in what QueryDosDevice says of a network drive, where
// every redirector writes a semicolon before the letter and its logon session:
//
//	\Device\LanmanRedirector\;Z:00000000000a1b2c\server\share
//	\Device\Mup\;LanmanRedirector\;Z:00000000000a1b2c\server\share
//
// It is empty for a drive that is none.
func shareOf(target string) string {
	i := strings.LastIndex(target, `\;`)
	if i < 0 {
		return ""
	}
	_, share, ok := strings.Cut(target[i+2:], `\`)
	if !ok || share == "" {
		return ""
	}
	return `\\` + share
}

// splitNames parts a list of texts that each end in a zero, as a whole in two.
func splitNames(b []uint16) []string {
	var names []string
	for len(b) > 0 && b[0] != 0 {
		n := 0
		for n < len(b) && b[n] != 0 {
			n++
		}
		names = append(names, string(utf16.Decode(b[:n])))
		b = b[min(n+1, len(b)):]
	}
	return names
}

// A volumeAnswer is what GetVolumeInformation and GetDiskFreeSpaceEx say.
type volumeAnswer struct {
	fileSystem             string
	flags                  uint32
	available, total, free uint64
}

// fileReadOnlyVolume is FILE_READ_ONLY_VOLUME (winnt.h).
const fileReadOnlyVolume = 0x00080000

func (a *volumeAnswer) usage() usage {
	u := usage{total: a.total, free: a.free, available: a.available, fsType: a.fileSystem, options: "rw"}
	if a.flags&fileReadOnlyVolume != 0 {
		u.options = "ro"
	}
	return u
}
