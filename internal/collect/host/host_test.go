package host

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/test/windows/wine"
)

// timeOfDay is a SYSTEM_TIMEOFDAY_INFORMATION of a machine started at boot.
func timeOfDay(boot time.Time) []byte {
	b := make([]byte, 48)
	binary.LittleEndian.PutUint64(b, uint64(boot.UnixNano()/100+116444736000000000))
	return b
}

// dynamicZone is a DYNAMIC_TIME_ZONE_INFORMATION with biases in minutes.
func dynamicZone(key string, bias, standard, daylight int32) []byte {
	b := make([]byte, zoneSize)
	binary.LittleEndian.PutUint32(b, uint32(bias))
	binary.LittleEndian.PutUint32(b[standardBiasAt:], uint32(standard))
	binary.LittleEndian.PutUint32(b[daylightBiasAt:], uint32(daylight))
	for i, c := range utf16.Encode([]rune(key)) {
		binary.LittleEndian.PutUint16(b[zoneKeyAt+2*i:], c)
	}
	return b
}

func TestWindowsGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boot := time.Now().Add(-time.Hour)
		c := newCollector(func(r *Reading) error {
			v := version{major: 10, build: 22631, product: "Windows 10 Pro", display: "23H2", edition: "Professional", revision: 3007}
			r.Name = "LAB-7"
			r.Facts = Facts{OS: v.os(), Kernel: v.kernel(), Architecture: machineArchitecture(0xaa64),
				Virtualization: hypervisor("Virtual Machine", "Microsoft Corporation"), BootID: "42"}
			r.Uptime = event.Known(time.Since(boot).Seconds())
			var err, err2 error
			r.BootTime, err = parseTimeOfDay(timeOfDay(boot))
			var offset int64
			r.Zone, offset, err2 = parseZone(dynamicZone("W. Europe Standard Time", -60, 0, -60), zoneIDDaylight)
			r.Offset = event.Known(offset)
			return errors.Join(err, err2)
		})
		lines := collecttest.Read(t, c)
		time.Sleep(2 * time.Second)
		lines = append(lines, collecttest.Read(t, c)...)
		collecttest.Golden(t, "testdata/windows.golden", Schema, lines)
	})
}

func TestBootTimeDoesNotWobble(t *testing.T) {
	start := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	told := []time.Time{start, start.Add(time.Second), start.Add(-time.Second), {}, start.Add(900 * time.Millisecond), start.Add(time.Hour)}
	want := []time.Time{start, start, start, {}, start.Add(900 * time.Millisecond), start.Add(time.Hour)}
	var got []time.Time
	i := 0
	c := newCollector(func(r *Reading) error {
		r.BootTime = told[i]
		i++
		return nil
	})
	for range told {
		if err := c.Read(t.Context(), func(context.Context, ...event.Event) error { return nil }); err != nil {
			t.Fatal(err)
		}
		got = append(got, c.now.BootTime)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("boot times (-want +got):\n%s", d)
	}
}

func TestWindowsVersions(t *testing.T) {
	for name, c := range map[string]struct {
		v                    version
		product, ver, number string
	}{
		"Windows 10 is Windows 10":       {version{major: 10, build: 19045, product: "Windows 10 Home", revision: 1}, "Windows 10 Home", "10.0.19045", "19045.1"},
		"Windows 11 says it is 10":       {version{major: 10, build: 26100, product: "Windows 10 Home", revision: 0}, "Windows 11 Home", "10.0.26100", "26100.0"},
		"a server is no Windows 11":      {version{major: 10, build: 26100, product: "Windows Server 2025 Datacenter", server: true, revision: -1}, "Windows Server 2025 Datacenter", "10.0.26100", "26100"},
		"without a registry, the number": {version{major: 6, minor: 3, build: 9600, revision: -1}, "", "6.3.9600", "9600"},
	} {
		o := c.v.os()
		if o.Name != c.product || o.Version != c.ver || o.Build != c.number || c.v.kernel().Release != c.ver {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestZonesOfWindows(t *testing.T) {
	for name, c := range map[string]struct {
		b      []byte
		id     uint32
		zone   string
		offset int64
	}{
		"east in winter":        {dynamicZone("W. Europe Standard Time", -60, 0, -60), zoneIDStandard, "W. Europe Standard Time", 3600},
		"west in summer":        {dynamicZone("Pacific Standard Time", 480, 0, -60), zoneIDDaylight, "Pacific Standard Time", -25200},
		"half hours, no summer": {dynamicZone("India Standard Time", -330, 0, -60), zoneIDUnknown, "India Standard Time", 19800},
	} {
		zone, offset, err := parseZone(c.b, c.id)
		if err != nil || zone != c.zone || offset != c.offset {
			t.Errorf("%s: %q, %d, %v", name, zone, offset, err)
		}
	}
}

func TestHypervisors(t *testing.T) {
	for name, c := range map[string]struct{ product, vendor, more, want string }{
		"hardware":                           {"PowerEdge R760", "Dell Inc.", "Dell Inc.", ""},
		"hardware of a maker of hypervisors": {"Surface Pro 9", "Microsoft Corporation", "", ""},
		"Hyper-V":                            {"Virtual Machine", "Microsoft Corporation", "", "hyperv"},
		"VMware":                             {"VMware20,1", "VMware, Inc.", "", "vmware"},
		"a Nitro guest":                      {"m7g.large", "Amazon EC2", "", "kvm"},
		"a Nitro machine without hypervisor": {"m7g.metal", "Amazon EC2", "", ""},
		"QEMU":                               {"Standard PC (i440FX + PIIX, 1996)", "QEMU", "", "qemu"},
		"by its firmware alone":              {"", "", "VBOX   - 1", "virtualbox"},
		"nothing told":                       {"", "", "", ""},
	} {
		if got := hypervisor(c.product, c.vendor, c.more); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestSigns(t *testing.T) {
	for name, c := range map[string]struct{ got, want string }{
		"the clock of KVM":               {clockHypervisor([]byte("tsc kvm-clock acpi_pm \n")), "kvm"},
		"the clock of Hyper-V":           {clockHypervisor([]byte("hyperv_clocksource_tsc_page acpi_pm\n")), "hyperv"},
		"the clock of Xen":               {clockHypervisor([]byte("xen tsc\n")), "xen"},
		"a clock of hardware":            {clockHypervisor([]byte("tsc hpet acpi_pm\n")), ""},
		"KVM in a device tree":           {treeHypervisor([]byte("linux,kvm\x00")), "kvm"},
		"Xen in a device tree":           {treeHypervisor([]byte("xen,xen-4.17\x00xen,xen\x00")), "xen"},
		"a pod":                          {cgroupContainer([]byte("0::/kubepods.slice/kubepods-pod1.slice/docker-1.scope\n")), "kubernetes"},
		"a container of Docker":          {cgroupContainer([]byte("12:pids:/docker/0123\n")), "docker"},
		"a container of LXC":             {cgroupContainer([]byte("0::/lxc.payload.web\n")), "lxc"},
		"a machine":                      {cgroupContainer([]byte("0::/init.scope\n")), ""},
		"the environment of process 1":   {environContainer([]byte("PATH=/bin\x00container=lxc\x00TERM=x\x00")), "lxc"},
		"an environment without a mark":  {environContainer([]byte("mycontainer=lxc\x00")), ""},
		"a manager with a strange name":  {managerName([]byte("<script>\n")), "other"},
		"a manager with no name":         {managerName([]byte("\n")), ""},
		"a manager with too long a name": {managerName([]byte(strings.Repeat("a", 33))), "other"},
		"a zone of a link":               {zoneName("../usr/share/zoneinfo/posix/America/Argentina/Ushuaia"), "America/Argentina/Ushuaia"},
		"a link to somewhere else":       {zoneName("/etc/mytime"), ""},
		"x86_64":                         {architecture("x86_64"), "amd64"},
		"i686":                           {architecture("i686"), "x86"},
		"armv7l":                         {architecture("armv7l"), "arm32"},
		"aarch64":                        {architecture("aarch64"), "arm64"},
		"ppc64le":                        {architecture("ppc64le"), "ppc64"},
		"riscv64":                        {architecture("riscv64"), "riscv64"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", name, c.got, c.want)
		}
	}
}

func TestHypervisorFlag(t *testing.T) {
	for cpuinfo, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu hypervisor sse\nbugs\t: x\n":       true,
		"processor\t: 0\nflags\t\t: fpu sse\nbugs\t\t: hypervisor\n":       false,
		"processor\t: 0\nflags\t\t: fpu nohypervisor\n":                    false,
		"processor\t: 0\nFeatures\t: fp asimd\nmodel name\t: hypervisor\n": false,
	} {
		if got := hasHypervisorFlag([]byte(cpuinfo)); got != want {
			t.Errorf("%v in %q", got, cpuinfo)
		}
	}
}

func TestOSRelease(t *testing.T) {
	got := parseOSRelease([]byte("NAME='Arch Linux'\nID=arch\nBUILD_ID=rolling\nVERSION_ID=\nJUNK\n\"\n=\n"))
	if d := cmp.Diff(OS{Type: "linux", ID: "arch", Name: "Arch Linux", Build: "rolling"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestParsingRefuses(t *testing.T) {
	for name, err := range map[string]error{
		"an uptime that is none":     second(parseUptime([]byte("NaN 5\n"))),
		"no uptime":                  second(parseUptime(nil)),
		"time of day cut":            second(parseTimeOfDay(make([]byte, 7))),
		"a time of day before 1970":  second(parseTimeOfDay(make([]byte, 48))),
		"zone cut":                   refused(make([]byte, 100), zoneIDStandard),
		"zone of no kind":            refused(make([]byte, zoneSize), 0xffffffff),
		"a zone more than a day off": refused(dynamicZone("Mars", -3000, 0, 0), zoneIDUnknown),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func refused(b []byte, id uint32) error {
	_, _, err := parseZone(b, id)
	return err
}

func FuzzTexts(f *testing.F) {
	f.Add([]byte("NAME=\"A \\\"b\\\"\"\nID='c'\nVERSION_ID=1\n"))
	f.Add([]byte("86400.25 160000.50\n"))
	f.Add([]byte("processor : 0\nflags : fpu hypervisor\n"))
	f.Add([]byte("a=b\x00container=lxc\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o := parseOSRelease(b); o.Name == "" || o.ID == "" {
			t.Errorf("no name in %+v", o)
		}
		if up, err := parseUptime(b); err == nil && !(up >= 0) {
			t.Errorf("uptime %v", up)
		}
		if name := managerName(b); len(name) > 32 || strings.ContainsAny(name, "<>\" \n") {
			t.Errorf("manager %q", name)
		}
		hasHypervisorFlag(b)
		environContainer(b)
		clockHypervisor(b)
		hypervisor(string(b), string(b))
		zoneName(string(b))
		if machine := string(b); machine != "" && architecture(machine) == "" {
			t.Errorf("no architecture of %q", machine)
		}
	})
}

func FuzzNT(f *testing.F) {
	f.Add(timeOfDay(time.Unix(946598400, 0)), uint32(0))
	f.Add(dynamicZone("W. Europe Standard Time", -60, 0, -60), uint32(zoneIDDaylight))
	f.Fuzz(func(t *testing.T, b []byte, id uint32) {
		if boot, err := parseTimeOfDay(b); err == nil && (boot.UTC().Year() < 1970 || boot.UTC().Year() > 9999) {
			t.Errorf("boot time %v", boot)
		}
		if _, offset, err := parseZone(b, id); err == nil && (offset < -86400 || offset > 86400) {
			t.Errorf("offset %d", offset)
		}
	})
}

func TestThisMachine(t *testing.T) {
	c := New()
	collecttest.Supported(t, c)
	first := time.Time{}
	for range 2 {
		lines := collecttest.Read(t, c)
		collecttest.Validate(t, Schema, lines)
		if strings.Contains(string(lines), `"errors"`) {
			t.Errorf("errors in %s", lines)
		}
		if first.IsZero() {
			first = c.now.BootTime
		}
		if wine.Running() { // counts the time up from that of Linux, and calls its own start the system's
			continue
		}
		if since := time.Since(c.now.BootTime).Seconds() - c.now.Uptime.V; !c.now.BootTime.Equal(first) || since < -2 || since > 2 {
			t.Errorf("started at %v, at first %v; that is %.1f s off the uptime", c.now.BootTime, first, since)
		}
	}
	if name, err := os.Hostname(); err != nil || name != c.now.Name {
		t.Errorf("name is %q, os.Hostname says %q, %v", c.now.Name, name, err)
	}
}

func BenchmarkRead(b *testing.B) {
	c := New()
	collecttest.Supported(b, c)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Read(b.Context(), collecttest.Drop); err != nil {
			b.Fatal(err)
		}
	}
}
