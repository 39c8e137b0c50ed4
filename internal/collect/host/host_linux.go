package host

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
	"golang.org/x/sys/unix"
)

// A source is the part of /proc, /sys, /etc and /run that tells of the host.
type source struct {
	root         string
	uname        func(*unix.Utsname) error
	env          func(string) string
	stat, uptime procfs.File
	buf          []byte // what is being read; parsed before the next

	uts     unix.Utsname
	name    string // host name
	zone    zone
	facts   Facts
	asked   time.Time // when the facts were read; zero before
	trouble []string  // what of them could not be read

	boot  time.Time // as /proc/stat told it
	start time.Time // the time less the uptime, when it did
}

func newSource() *source { return sourceAt("/", unix.Uname, os.Getenv) }

func sourceAt(root string, uname func(*unix.Utsname) error, env func(string) string) *source {
	s := &source{root: root, uname: uname, env: env}
	s.stat.Path, s.uptime.Path = s.at("proc/stat"), s.at("proc/uptime")
	s.zone.path, s.zone.timezone = s.at("etc/localtime"), s.at("etc/timezone")
	return s
}

func (s *source) at(path string) string { return filepath.Join(s.root, path) }

func (s *source) read(r *Reading) error {
	if err := s.uname(&s.uts); err != nil {
		return os.NewSyscallError("uname", err)
	}
	if name := text(s.uts.Nodename[:]); string(name) != s.name {
		s.name = string(name)
	}
	r.Name = s.name
	if now := time.Now(); s.asked.IsZero() || now.Sub(s.asked) >= factsEvery {
		s.asked, s.zone.rules = now, nil
		s.readFacts()
	}
	r.Facts = s.facts
	r.errors = append(r.errors, s.trouble...)
	s.readClocks(r)
	return nil
}

// text returns what stands before the first zero byte.
func text(b []byte) []byte {
	b, _, _ = bytes.Cut(b, []byte{0})
	return b
}

func (s *source) readClocks(r *Reading) {
	b, err := s.uptime.Read(&s.buf)
	if err == nil {
		r.Uptime.V, err = parseUptime(b)
	}
	if r.Uptime.Known = err == nil; err != nil {
		r.fail("uptime_seconds", err)
	}
	if r.BootTime, err = s.bootTime(r.Uptime); err != nil {
		r.fail("boot_time", err)
	}
	if err := s.zone.read(); err != nil {
		r.fail("time_zone", err)
		return
	}
	_, offset := time.Now().In(s.zone.rules).Zone()
	r.Zone, r.Offset = s.zone.name, event.Known(int64(offset))
}

// bootTime reads when the machine started. /proc/stat is dear, since the kernel
// sums up every interrupt for it, and what it says of the start changes only when
// the clock is set: then the time less the uptime is another one, too.
func (s *source) bootTime(uptime event.Maybe[float64]) (time.Time, error) {
	start := time.Now().Round(0).Add(-time.Duration(uptime.V * float64(time.Second)))
	if uptime.Known && !s.boot.IsZero() && start.Sub(s.start).Abs() < time.Second {
		return s.boot, nil
	}
	b, err := s.stat.Read(&s.buf)
	if err == nil {
		s.boot, err = procfs.BootTime(b)
	}
	if err != nil {
		s.boot = time.Time{}
	}
	s.start = start
	return s.boot, err
}

func (s *source) readFacts() {
	s.trouble = s.trouble[:0]
	s.facts = Facts{
		OS: s.readOS(),
		Kernel: Kernel{
			Name:    string(text(s.uts.Sysname[:])),
			Release: string(text(s.uts.Release[:])),
			Version: string(text(s.uts.Version[:])),
		},
		Architecture:   architecture(string(text(s.uts.Machine[:]))),
		Virtualization: s.virtualization(),
	}
	s.facts.Container = s.container()
	id, err := os.ReadFile(s.at("proc/sys/kernel/random/boot_id"))
	if err != nil {
		s.trouble = append(s.trouble, "boot_id: "+err.Error())
	}
	s.facts.BootID = string(bytes.TrimSpace(id))
}

// readOS reads the first of the two places of os-release(5) that there is.
func (s *source) readOS() OS {
	b, err := os.ReadFile(s.at("etc/os-release"))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile(s.at("usr/lib/os-release"))
	}
	if err != nil {
		s.trouble = append(s.trouble, "os: "+err.Error())
		return OS{Type: "linux"}
	}
	return parseOSRelease(b)
}

// sign returns what a file holds that is there only on some machines: where it
// cannot be read it tells nothing, which is no error. Long ones are cut.
func (s *source) sign(path string) []byte {
	f, err := os.Open(s.at(path))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 16<<10))
	if err != nil {
		return nil
	}
	return b
}

func (s *source) exists(path string) bool {
	_, err := os.Lstat(s.at(path))
	return err == nil
}

// virtualization asks the firmware, then the kernel, then the processor.
func (s *source) virtualization() string {
	if bytes.Contains(s.sign("proc/xen/capabilities"), []byte("control_d")) {
		return "" // Xen's first domain drives the hardware
	}
	dmi := func(name string) string { return string(bytes.TrimSpace(s.sign("sys/class/dmi/id/" + name))) }
	clock := clockHypervisor(s.sign("sys/devices/system/clocksource/clocksource0/available_clocksource"))
	if v := hypervisor(dmi("product_name"), dmi("sys_vendor"), dmi("board_vendor"), dmi("bios_vendor")); v == "qemu" && clock != "" {
		return clock // QEMU is the machine, and what lends the clock runs it
	} else if v != "" {
		return v
	}
	if clock != "" {
		return clock
	}
	if s.exists("sys/hypervisor/type") {
		return managerName(s.sign("sys/hypervisor/type"))
	}
	if v := treeHypervisor(s.sign("proc/device-tree/hypervisor/compatible")); v != "" {
		return v
	}
	if hasHypervisorFlag(s.sign("proc/cpuinfo")) {
		return "other"
	}
	return ""
}

// container looks for the marks that managers of containers document: the
// service account of Kubernetes, the files of Podman and Docker, systemd's
// Container Interface, the Windows Subsystem for Linux, and at last the cgroup.
func (s *source) container() string {
	switch {
	case s.env("KUBERNETES_SERVICE_HOST") != "" || s.exists("var/run/secrets/kubernetes.io"):
		return "kubernetes"
	case s.exists("run/.containerenv") && !s.inFirstNamespaces():
		return "podman"
	case s.exists(".dockerenv") && !s.inFirstNamespaces():
		return "docker"
	case strings.Contains(strings.ToLower(s.facts.Kernel.Release), "microsoft"):
		return "wsl"
	}
	for _, found := range [...]string{
		managerName(s.sign("run/host/container-manager")),
		managerName(s.sign("run/systemd/container")),
		environContainer(s.sign("proc/1/environ")),
		cgroupContainer(s.sign("proc/1/cgroup")),
	} {
		if found != "" {
			return found
		}
	}
	return ""
}

// inFirstNamespaces reports whether this program shares all its namespaces of
// processes, names and cgroups with the first process of the machine, whose
// numbers are fixed (linux/nsfs.h). Files of a manager of containers are then
// left over from the image that the machine was made of.
func (s *source) inFirstNamespaces() bool {
	for _, ns := range [...]struct{ name, first string }{
		{"pid", "pid:[4026531836]"}, {"uts", "uts:[4026531838]"}, {"cgroup", "cgroup:[4026531835]"},
	} {
		if now, err := os.Readlink(s.at("proc/self/ns/" + ns.name)); err != nil || now != ns.first {
			return false
		}
	}
	return true
}

// A zone is the time zone that /etc/localtime tells, read again when that file
// is another one.
type zone struct {
	path     string      // of /etc/localtime
	timezone string      // path of Debian's file with the name
	now, was unix.Stat_t // /etc/localtime at this read, and when the rest was taken from it
	name     string
	rules    *time.Location // nil before the first read
}

// read brings the zone up to date. Without /etc/localtime it is UTC
// (localtime(5)).
func (z *zone) read() error {
	switch err := unix.Lstat(z.path, &z.now); {
	case errors.Is(err, fs.ErrNotExist):
		z.name, z.rules, z.was = "UTC", time.UTC, unix.Stat_t{}
		return nil
	case err != nil:
		return &fs.PathError{Op: "lstat", Path: z.path, Err: err}
	}
	if z.rules != nil && z.now.Ino == z.was.Ino && z.now.Mtim == z.was.Mtim {
		return nil
	}
	data, err := os.ReadFile(z.path)
	if err != nil {
		return err
	}
	name := ""
	if target, err := os.Readlink(z.path); err == nil {
		name = zoneName(target)
	} else if b, err := os.ReadFile(z.timezone); err == nil {
		name = string(bytes.TrimSpace(b))
	}
	rules, err := time.LoadLocationFromTZData(name, data)
	if err != nil {
		return &fs.PathError{Op: "parse", Path: z.path, Err: err}
	}
	z.was, z.name, z.rules = z.now, name, rules
	return nil
}
