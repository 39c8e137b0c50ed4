package disk

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/windows"
)

// rescan is how old the lists of volumes and disks may become while the drive
// letters stay the same: volumes without a letter and disks come unannounced.
const rescan = 30 * time.Second

// Disks are numbered from 0, seldom beyond the number of slots; a number that
// was free is tried again at the next rescan.
const maxDisks = 64

// A system reads this machine.
type system struct {
	letters uint32
	scanned time.Time
	volumes []volume
	disks   []string // PhysicalDrive0 …
	lost    error    // why the list of volumes may not be whole
	buf     [performanceSize]byte
}

func newSystem() *system { return &system{} }

func (s *system) read(now time.Time, out *sample) error {
	drives, err := windows.GetLogicalDrives()
	if err != nil {
		out.errs = append(out.errs, "mounts: GetLogicalDrives: "+err.Error())
	}
	if s.scanned.IsZero() || drives != s.letters || now.Sub(s.scanned) >= rescan {
		s.scanned, s.letters = now, drives
		var covered uint32
		s.volumes, covered, s.lost = listVolumes()
		s.volumes = append(s.volumes, otherDrives(drives&^covered)...)
		s.disks = listDisks(s.disks[:0])
	}
	if s.lost != nil {
		out.errs = append(out.errs, "mounts: "+s.lost.Error())
	}
	out.volumes = s.volumes
	s.performance(out)
	return nil
}

func (*system) kind(string) string { return "disk" }

// listVolumes lists the volumes of the mount manager, those included that have
// a folder or nothing instead of a letter, and the letters that they cover.
func listVolumes() (list []volume, covered uint32, lost error) {
	var guid [windows.MAX_PATH]uint16
	search, err := windows.FindFirstVolume(&guid[0], uint32(len(guid)))
	if err != nil {
		return nil, 0, fmt.Errorf("FindFirstVolume: %w", err)
	}
	defer func() { _ = windows.FindVolumeClose(search) }() // it was only read
	for {
		places, err := placesOf(&guid[0])
		if err != nil {
			lost = fmt.Errorf("GetVolumePathNamesForVolumeName: %w", err)
		}
		covered |= letters(places)
		list = append(list, localVolume(windows.UTF16ToString(guid[:]), places))
		switch err := windows.FindNextVolume(search, &guid[0], uint32(len(guid))); {
		case errors.Is(err, windows.ERROR_NO_MORE_FILES):
			return list, covered, lost
		case err != nil:
			return list, covered, fmt.Errorf("FindNextVolume: %w", err)
		}
	}
}

// placesOf returns the paths where a volume is mounted. There may be more than
// fit the first buffer; the call says how much room they need.
func placesOf(guid *uint16) ([]string, error) {
	buf := make([]uint16, windows.MAX_PATH)
	for range 4 { // each call may find that yet another was mounted
		var need uint32
		err := windows.GetVolumePathNamesForVolumeName(guid, &buf[0], uint32(len(buf)), &need)
		if err == nil {
			return splitNames(buf), nil
		}
		if !errors.Is(err, windows.ERROR_MORE_DATA) {
			return nil, err
		}
		buf = make([]uint16, max(int(need), 2*len(buf)))
	}
	return nil, windows.ERROR_MORE_DATA
}

// otherDrives lists the drive letters that are no volumes: mostly shares. They
// are told apart by QueryDosDevice, which only reads a name: GetDriveType opens
// the drive, and so may hang on a share whose server is dead. Shares belong to a
// logon session; a service sees those of its own.
func otherDrives(mask uint32) []volume {
	var list []volume
	for i := range byte(26) {
		if mask&(1<<i) == 0 {
			continue
		}
		letter := 'A' + i
		device := [...]uint16{uint16(letter), ':', 0}
		var target [1024]uint16
		n, err := windows.QueryDosDevice(&device[0], &target[0], uint32(len(target)))
		if err != nil {
			continue // gone since GetLogicalDrives, which tells at the next reading
		}
		if v, ok := driveVolume(letter, windows.UTF16ToString(target[:n])); ok {
			list = append(list, v)
		}
	}
	return list
}

// measure asks the volume, which may take for ever. A drive without a medium
// has no size, and so is not listed.
func measure(v *volume) (usage, error) {
	root, err := windows.UTF16PtrFromString(v.path)
	if err != nil {
		return usage{}, fmt.Errorf("volume path: %w", err)
	}
	var a volumeAnswer
	var name [windows.MAX_PATH + 1]uint16
	err = windows.GetVolumeInformation(root, nil, 0, nil, nil, &a.flags, &name[0], uint32(len(name)))
	if errors.Is(err, windows.ERROR_NOT_READY) {
		return usage{}, nil
	}
	if err != nil {
		return usage{}, fmt.Errorf("GetVolumeInformation: %w", err)
	}
	if err := windows.GetDiskFreeSpaceEx(root, &a.available, &a.total, &a.free); err != nil {
		return usage{}, fmt.Errorf("GetDiskFreeSpaceEx: %w", err)
	}
	a.fileSystem = windows.UTF16ToString(name[:])
	return a.usage(), nil
}

// performance reads the counters of each disk.
func (s *system) performance(out *sample) {
	for _, name := range s.disks {
		if err := query(name, s.buf[:]); err != nil {
			out.errs = append(out.errs, "devices: "+name+": "+err.Error())
			continue
		}
		if st, ok := parsePerformance(name, s.buf[:]); ok {
			out.stats = append(out.stats, st)
		}
	}
}

func query(name string, buf []byte) error {
	h, err := openDisk(name)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = windows.CloseHandle(h) }() // nothing was written to it
	var n uint32
	if err := windows.DeviceIoControl(h, ioctlDiskPerformance, nil, 0, &buf[0], uint32(len(buf)), &n, nil); err != nil {
		return fmt.Errorf("IOCTL_DISK_PERFORMANCE: %w", err)
	}
	if n < performanceSize {
		return fmt.Errorf("IOCTL_DISK_PERFORMANCE: %d bytes", n)
	}
	return nil
}

// ioctlDiskPerformance is IOCTL_DISK_PERFORMANCE (winioctl.h):
// CTL_CODE(IOCTL_DISK_BASE, 0x0008, METHOD_BUFFERED, FILE_ANY_ACCESS).
const ioctlDiskPerformance = 0x70020

// openDisk opens a disk without any right to its contents, which needs no
// privilege and does not keep the disk from being removed for longer than the
// call.
func openDisk(name string) (windows.Handle, error) {
	path, err := windows.UTF16PtrFromString(`\\.\` + name)
	if err != nil {
		return windows.InvalidHandle, err
	}
	return windows.CreateFile(path, 0, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
}

func listDisks(list []string) []string {
	for i := range maxDisks {
		name := "PhysicalDrive" + strconv.Itoa(i)
		h, err := openDisk(name)
		if errors.Is(err, windows.ERROR_FILE_NOT_FOUND) {
			continue
		}
		if err == nil {
			_ = windows.CloseHandle(h) // it was only tried
		}
		list = append(list, name) // one that cannot be opened is named in the errors
	}
	return list
}
