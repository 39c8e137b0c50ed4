package host

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
	"golang.org/x/sys/unix"
)

// link makes /etc/localtime below root a link to a zone of fixed offset.
func link(t testing.TB, root, name string, offset int32) {
	t.Helper()
	collecttest.Write(t, root, "usr/share/zoneinfo/"+name, string(tzfile(offset)))
	at := filepath.Join(root, "etc/localtime")
	if err := os.RemoveAll(at); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../usr/share/zoneinfo/"+name, at); err != nil {
		t.Fatal(err)
	}
}

// tzfile is a zone without transitions (RFC 8536, version 1).
func tzfile(offset int32) []byte {
	b := append([]byte("TZif"), make([]byte, 16)...)
	for _, n := range []uint32{0, 0, 0, 0, 1, 4} { // isut, isstd, leap, times, types, chars
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(offset))
	return append(b, 0, 0, 'T', 'S', 'T', 0)
}

func uname(u *unix.Utsname) error {
	copy(u.Sysname[:], "Linux\x00")
	copy(u.Nodename[:], "lab-7\x00")
	copy(u.Release[:], "6.18.44-test\x00")
	copy(u.Version[:], "#1 SMP PREEMPT_DYNAMIC\x00")
	copy(u.Machine[:], "x86_64\x00")
	return nil
}

func noEnv(string) string { return "" }

func TestLinuxGolden(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "")
	link(t, root, "Europe/Berlin", 3600)
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(sourceAt(root, uname, noEnv).read)
		lines := collecttest.Read(t, c)
		time.Sleep(2 * time.Second)
		collecttest.Write(t, root, "proc/uptime", "86402.25 160004.50\n")
		lines = append(lines, collecttest.Read(t, c)...)
		collecttest.Golden(t, "testdata/linux.golden", Schema, lines)
	})
}

// reading takes one reading of the machine below root.
func reading(t *testing.T, c *Collector) Reading {
	t.Helper()
	if err := c.Read(t.Context(), func(context.Context, ...event.Event) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return c.now
}

func TestFactsAreReadAgainAfterAnHour(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "")
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(sourceAt(root, uname, noEnv).read)
		reading(t, c)
		collecttest.Write(t, root, "etc/os-release", "ID=testix\nVERSION_ID=8\n")
		time.Sleep(59 * time.Minute)
		if r := reading(t, c); r.OS.Version != "7.2" {
			t.Errorf("version %q within the hour", r.OS.Version)
		}
		time.Sleep(time.Minute)
		if r := reading(t, c); r.OS.Version != "8" {
			t.Errorf("version %q after the hour", r.OS.Version)
		}
	})
}

func TestZone(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "")
	c := newCollector(sourceAt(root, uname, noEnv).read)
	want := func(when, name string, offset int64) {
		t.Helper()
		if r := reading(t, c); r.Zone != name || r.Offset != event.Known(offset) {
			t.Errorf("%s: zone %q, offset %v; want %q, %d", when, r.Zone, r.Offset, name, offset)
		}
	}
	want("without /etc/localtime", "UTC", 0)
	link(t, root, "Asia/Kolkata", 19800)
	want("with a link", "Asia/Kolkata", 19800)
	link(t, root, "America/Phoenix", -25200)
	want("with another link", "America/Phoenix", -25200)
	if err := os.Remove(filepath.Join(root, "etc/localtime")); err != nil {
		t.Fatal(err)
	}
	collecttest.Write(t, root, "etc/localtime", string(tzfile(7200)))
	collecttest.Write(t, root, "etc/timezone", "Europe/Kyiv\n")
	want("with a copy", "Europe/Kyiv", 7200)
	collecttest.Write(t, root, "etc/localtime", "garbage")
	if r := reading(t, c); r.Offset.Known || r.Zone != "" || len(r.errors) != 1 || !strings.HasPrefix(r.errors[0], "time_zone: parse ") {
		t.Errorf("of garbage: zone %q, offset %v, errors %q", r.Zone, r.Offset, r.errors)
	}
}

func TestWhereItRuns(t *testing.T) {
	in := func(text string) map[string]string { return map[string]string{"container": text} }
	for name, c := range map[string]struct {
		files                     map[string]string
		env                       map[string]string
		virtualization, container string
	}{
		"on hardware":                        {map[string]string{"sys/class/dmi/id/product_name": "X1 Carbon\n", "proc/cpuinfo": "processor : 0\nflags : fpu\n"}, nil, "", ""},
		"with a hypervisor of no name":       {map[string]string{"proc/cpuinfo": "processor : 0\nflags : fpu hypervisor\n"}, nil, "other", ""},
		"on a guest of Xen":                  {map[string]string{"sys/hypervisor/type": "xen\n"}, nil, "xen", ""},
		"on Xen's first domain":              {map[string]string{"sys/hypervisor/type": "xen\n", "proc/xen/capabilities": "control_d\n"}, nil, "", ""},
		"on emulated hardware":               {map[string]string{"sys/class/dmi/id/sys_vendor": "QEMU\n"}, nil, "qemu", ""},
		"on ARM under KVM":                   {map[string]string{"proc/device-tree/hypervisor/compatible": "linux,kvm\x00"}, nil, "kvm", ""},
		"in Docker":                          {map[string]string{".dockerenv": ""}, nil, "", "docker"},
		"in Podman":                          {map[string]string{"run/.containerenv": "engine=\"podman-5\"\n", "proc/1/environ": "container=oci\x00"}, nil, "", "podman"},
		"in LXC":                             {map[string]string{"proc/1/environ": "TERM=linux\x00container=lxc\x00"}, nil, "", "lxc"},
		"in a pod with an account":           {map[string]string{"var/run/secrets/kubernetes.io/serviceaccount/token": "x", ".dockerenv": ""}, nil, "", "kubernetes"},
		"in a pod without one":               {nil, map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "", "kubernetes"},
		"in a container by its cgroup":       {map[string]string{"proc/1/cgroup": "0::/system.slice/docker-01.scope\n"}, nil, "", "docker"},
		"in what its manager calls itself":   {map[string]string{"run/host/container-manager": "mkosi\n"}, nil, "", "mkosi"},
		"not where a variable is named such": {nil, in("lxc"), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, data := range c.files {
				collecttest.Write(t, root, file, data)
			}
			r := reading(t, newCollector(sourceAt(root, uname, func(k string) string { return c.env[k] }).read))
			if r.Virtualization != c.virtualization || r.Container != c.container {
				t.Errorf("virtualization %q, container %q; want %q, %q", r.Virtualization, r.Container, c.virtualization, c.container)
			}
		})
	}
}

func TestFilesLeftOverFromAnImage(t *testing.T) {
	root := t.TempDir()
	collecttest.Write(t, root, ".dockerenv", "")
	if err := os.MkdirAll(filepath.Join(root, "proc/self/ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{"pid:[4026531836]", "uts:[4026531838]", "cgroup:[4026531835]"} {
		if c := newCollector(sourceAt(root, uname, noEnv).read); reading(t, c).Container != "docker" {
			t.Errorf("not in a container before the namespace %s is the machine's", ns)
		}
		name, _, _ := strings.Cut(ns, ":")
		if err := os.Symlink(ns, filepath.Join(root, "proc/self/ns", name)); err != nil {
			t.Fatal(err)
		}
	}
	if r := reading(t, newCollector(sourceAt(root, uname, noEnv).read)); r.Container != "" {
		t.Errorf("in a container %q, though in all namespaces of the machine", r.Container)
	}
}

func TestMissingFilesAreNamed(t *testing.T) {
	c := newCollector(sourceAt(t.TempDir(), uname, noEnv).read)
	for range 2 {
		lines := collecttest.Read(t, c)
		collecttest.Validate(t, Schema, lines)
		if c.now.Uptime.Known || !c.now.BootTime.IsZero() || len(c.now.errors) != 4 {
			t.Errorf("told %+v", c.now)
		}
	}
}
