package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"github.com/rea-agent/rea/internal/event"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

const (
	ntWorkstation = 1  // VER_NT_WORKSTATION (winnt.h)
	timeOfDaySize = 48 // SYSTEM_TIMEOFDAY_INFORMATION
)

// Keys below HKEY_LOCAL_MACHINE.
const (
	versionKey  = `SOFTWARE\Microsoft\Windows NT\CurrentVersion`
	prefetchKey = `SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters`
	systemKey   = `HARDWARE\DESCRIPTION\System`
	biosKey     = `HARDWARE\DESCRIPTION\System\BIOS`
)

// A source is the set of calls and registry keys that tell of the host.
type source struct {
	timeZone *windows.LazyProc
	buf      []byte // allocated on its own, and so aligned for any structure
	facts    Facts
	asked    time.Time // when the facts were read; zero before
	trouble  []string  // what of them could not be read
}

func newSource() *source {
	return &source{
		timeZone: windows.NewLazySystemDLL("kernel32.dll").NewProc("GetDynamicTimeZoneInformation"),
		buf:      make([]byte, zoneSize),
	}
}

func (s *source) read(r *Reading) error {
	var err error
	if r.Name, err = os.Hostname(); err != nil {
		r.fail("name", err)
	}
	if now := time.Now(); s.asked.IsZero() || now.Sub(s.asked) >= factsEvery {
		s.asked = now
		s.readFacts()
	}
	r.Facts = s.facts
	r.errors = append(r.errors, s.trouble...)
	r.Uptime = event.Known(windows.DurationSinceBoot().Seconds())
	if r.BootTime, err = s.bootTime(); err != nil {
		r.fail("boot_time", err)
	}
	var offset int64
	if r.Zone, offset, err = s.readZone(); err != nil {
		r.fail("time_zone", err)
	} else {
		r.Offset = event.Known(offset)
	}
	return nil
}

func (s *source) bootTime() (time.Time, error) {
	var n uint32
	// unsafe.Pointer to the buffer lives for the call; the length, which may not
	// exceed that of the structure, lies within it.
	err := windows.NtQuerySystemInformation(windows.SystemTimeOfDayInformation,
		unsafe.Pointer(&s.buf[0]), timeOfDaySize, &n)
	if err != nil {
		return time.Time{}, fmt.Errorf("query time of day: %w", err)
	}
	return parseTimeOfDay(s.buf[:min(n, timeOfDaySize)])
}

func (s *source) readZone() (string, int64, error) {
	// Rule 4 of unsafe.Pointer: the conversion stands in the call itself.
	id, _, _ := syscall.SyscallN(s.timeZone.Addr(), uintptr(unsafe.Pointer(&s.buf[0])))
	return parseZone(s.buf, uint32(id))
}

func (s *source) readFacts() {
	s.trouble = s.trouble[:0]
	v := s.version()
	s.facts = Facts{
		OS:             v.os(),
		Kernel:         v.kernel(),
		Architecture:   s.architecture(),
		Virtualization: s.virtualization(),
		BootID:         s.bootID(),
	}
}

func (s *source) fail(field string, err error) {
	s.trouble = append(s.trouble, field+": "+err.Error())
}

func (s *source) version() version {
	i := windows.RtlGetVersion()
	v := version{major: i.MajorVersion, minor: i.MinorVersion, build: i.BuildNumber,
		server: i.ProductType != ntWorkstation, revision: -1}
	key, err := openKey(versionKey)
	if err != nil {
		s.fail("os", err)
		return v
	}
	defer key.Close()
	if v.product, v.edition = value(key, "ProductName"), value(key, "EditionID"); v.product == "" {
		s.fail("os.name", errors.New("the registry holds no ProductName"))
	}
	if v.display = value(key, "DisplayVersion"); v.display == "" {
		v.display = value(key, "ReleaseId") // its name until 2009
	}
	if n, _, err := key.GetIntegerValue("UBR"); err == nil {
		v.revision = int64(n)
	}
	return v
}

// architecture asks for the machine's own, which is not this program's where
// Windows emulates another.
func (s *source) architecture() string {
	var process, native uint16
	if err := windows.IsWow64Process2(windows.CurrentProcess(), &process, &native); err != nil {
		s.fail("architecture", fmt.Errorf("ask for the native machine: %w", err))
		return ""
	}
	return machineArchitecture(native)
}

func (s *source) virtualization() string {
	var product, vendor string
	var more []string
	if key, err := openKey(biosKey); err == nil {
		product, vendor = value(key, "SystemProductName"), value(key, "SystemManufacturer")
		more = append(more, value(key, "BaseBoardManufacturer"), value(key, "BIOSVendor"))
		_ = key.Close() // it was only read
	}
	key, err := openKey(systemKey)
	if err != nil {
		s.fail("virtualization", err)
		return hypervisor(product, vendor, more...)
	}
	defer key.Close()
	if lines, _, err := key.GetStringsValue("SystemBiosVersion"); err == nil {
		more = append(more, lines...)
	}
	return hypervisor(product, vendor, more...)
}

// bootID returns the number that Windows gives each of its starts.
func (s *source) bootID() string {
	key, err := openKey(prefetchKey)
	if errors.Is(err, registry.ErrNotExist) {
		return ""
	}
	if err != nil {
		s.fail("boot_id", err)
		return ""
	}
	defer key.Close()
	n, _, err := key.GetIntegerValue("BootId")
	if errors.Is(err, registry.ErrNotExist) {
		return "" // not every edition counts
	}
	if err != nil {
		s.fail("boot_id", err)
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func openKey(path string) (registry.Key, error) {
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return key, fmt.Errorf("open registry key %s: %w", path, err)
	}
	return key, nil
}

// value returns a text of the registry, or "" where there is none.
func value(key registry.Key, name string) string {
	s, _, err := key.GetStringValue(name)
	if err != nil {
		return ""
	}
	return s
}
