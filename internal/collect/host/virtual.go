package host

import (
	"bytes"
	"strings"
)

// What firmware and makers write where there is no hardware, and the hypervisor
// that it betrays. The clouds in it run on KVM.
var firmwares = [...]struct{ prefix, hypervisor string }{
	{"KVM", "kvm"},
	{"KubeVirt", "kvm"},
	{"OpenStack", "kvm"},
	{"RHEV", "kvm"},
	{"oVirt", "kvm"},
	{"AHV", "kvm"}, // Nutanix
	{"Amazon EC2", "kvm"},
	{"Google Compute Engine", "kvm"},
	{"Alibaba Cloud ECS", "kvm"},
	{"DigitalOcean", "kvm"},
	{"vServer", "kvm"}, // Hetzner
	{"VMware", "vmware"},
	{"VMW", "vmware"},
	{"VirtualBox", "virtualbox"},
	{"innotek GmbH", "virtualbox"},
	{"VBOX", "virtualbox"},
	{"VRTUAL", "hyperv"},
	{"Parallels", "parallels"},
	{"PRLS", "parallels"},
	{"Apple Virtualization", "apple"},
	{"BHYVE", "bhyve"},
	{"HVM domU", "xen"},
	{"Xen", "xen"},
	{"Bochs", "bochs"},
	{"BOCHS", "bochs"},
	{"QEMU", "qemu"},
	{"Standard PC (", "qemu"},
}

// hypervisor tells from what the firmware says of product and vendor, and from
// any more texts of it, what the machine runs in; empty is no sign of anything.
func hypervisor(product, vendor string, more ...string) string {
	switch {
	case vendor == "Microsoft Corporation" && product == "Virtual Machine":
		return "hyperv"
	case vendor == "Amazon EC2" && strings.Contains(product, ".metal"):
		return ""
	}
	for _, text := range append([]string{product, vendor}, more...) {
		for _, f := range firmwares {
			if strings.HasPrefix(text, f.prefix) {
				return f.hypervisor
			}
		}
	}
	return ""
}

// clockHypervisor tells the hypervisor from the clock that it lends to the
// kernel (/sys/devices/system/clocksource).
func clockHypervisor(available []byte) string {
	for _, clock := range bytes.Fields(available) {
		switch {
		case string(clock) == "kvm-clock":
			return "kvm"
		case string(clock) == "xen":
			return "xen"
		case bytes.HasPrefix(clock, []byte("hyperv_")):
			return "hyperv"
		}
	}
	return ""
}

// treeHypervisor tells it from the device tree of ARM and POWER machines, whose
// node "hypervisor" says what it is compatible with.
func treeHypervisor(compatible []byte) string {
	switch {
	case bytes.Contains(compatible, []byte("kvm")):
		return "kvm"
	case bytes.Contains(compatible, []byte("xen")):
		return "xen"
	case bytes.Contains(compatible, []byte("vmware")):
		return "vmware"
	}
	return ""
}

// hasHypervisorFlag reports whether the processor says that it is lent: the
// flag "hypervisor" of /proc/cpuinfo, bit 31 of CPUID leaf 1.
func hasHypervisorFlag(cpuinfo []byte) bool {
	_, flags, _ := bytes.Cut(cpuinfo, []byte("\nflags"))
	flags, _, _ = bytes.Cut(flags, []byte("\n"))
	for flag := range bytes.FieldsSeq(flags) {
		if string(flag) == "hypervisor" {
			return true
		}
	}
	return false
}

// cgroupContainer tells the manager of containers from the cgroup that it put
// process 1 in.
func cgroupContainer(cgroup []byte) string {
	for _, c := range [...]struct{ mark, manager string }{
		{"kubepods", "kubernetes"}, {"libpod", "podman"}, {"docker", "docker"}, {"/lxc", "lxc"}, {"containerd", "containerd"},
	} {
		if bytes.Contains(cgroup, []byte(c.mark)) {
			return c.manager
		}
	}
	return ""
}

// environContainer tells it from the environment of process 1: the variable
// "container" (systemd, Container Interface).
func environContainer(environ []byte) string {
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		if name, ok := bytes.CutPrefix(v, []byte("container=")); ok {
			return managerName(name)
		}
	}
	return ""
}

// managerName returns the name of a manager of containers that a file or a
// variable holds, or "other" where it is no name.
func managerName(b []byte) string {
	b = bytes.TrimSpace(b)
	for _, c := range b {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' || len(b) > 32 {
			return "other"
		}
	}
	return string(b)
}
