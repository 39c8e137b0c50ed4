package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// A machine makes frames up.
type machine struct {
	golden    goldens
	rand      *rand.Rand
	system    string
	processes []value // of the reading
}

// frame returns the lines of one record: nearly always the readings that were
// taken together.
func (m *machine) frame() (lines []byte) {
	m.system = m.one("linux", "linux", "windows")
	stamp := fmt.Sprintf(`"node":"%s-%s-7%s-9%s-%s","hostname":"%s-%d","stream":"%s"`, m.hex(8), m.hex(4), m.hex(3), m.hex(3), m.hex(12),
		m.one("web", "db", "desktop", "build", "pc"), m.rand.IntN(90), m.hex(32))
	at, seq := m.second(), int(math.Exp(14*m.rand.Float64()))
	for i, k := range m.kinds() {
		body := `{"action":"start","version":"1.0.0","config_hash":"` + m.hex(16) + `","pid":` + strconv.Itoa(m.rand.IntN(30000)) + "}"
		switch k {
		case "agent":
			if m.rand.IntN(2) == 0 {
				body = fmt.Sprintf(`{"action":"stop","lasted_seconds":%d.%03d}`, m.rand.IntN(1e5), m.rand.IntN(1000))
			}
		case "gap":
			body = fmt.Sprintf(`{"cause":"%s","count":%d,"stream":"%s","first":%d,"last":%d,"since":"%s.%09dZ","until":"%s.%09dZ"}`,
				m.one("queue_full", "crash", "disk_full", "rejected"), m.rand.IntN(1000), m.hex(32), seq, seq+m.rand.IntN(1000), at, m.rand.IntN(1e9), at, m.rand.IntN(1e9))
		default:
			body = string(m.reading(k).append(nil))
		}
		lines = fmt.Appendf(lines, `{"v":1,"time":"%s.%09dZ",%s,"seq":%d,"kind":"%s","%s":%s`, at, m.rand.IntN(1e9), stamp, seq+i, k, k, body)
		if k == "process" {
			lines = append(lines, `,"redacted":["process.top_cpu.command_line","process.top_cpu.user","process.top_memory.command_line","process.top_memory.user"]`...)
		}
		lines = append(lines, "}\n"...)
	}
	return lines
}

// kinds returns what a record tells of, in any order, as collectors end.
func (m *machine) kinds() []string {
	list := []string{"cpu", "memory", "network", "process"}
	switch m.rand.IntN(8) {
	case 0:
		return []string{m.one("agent", "agent", "gap")}
	case 1:
		list = append(list, "disk", "host")
	case 2, 3:
		list = append(list, "disk")
	}
	m.rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// reading returns the body of a reading, mostly of one that knows the one before.
func (m *machine) reading(kind string) value {
	kind2 := map[string]string{"memory": "mem", "network": "netif", "process": "proc"}
	name := kind
	if kind2[kind] != "" {
		name = kind2[kind]
	}
	list := m.golden[m.system][name]
	v := list[len(list)-1]
	if m.rand.IntN(8) == 0 {
		v = list[m.rand.IntN(len(list))]
	}
	m.processes = nil
	return m.vary("", *v.member(kind))
}

// vary returns v with other numbers and names in it.
func (m *machine) vary(name string, v value) value {
	switch {
	case v.kind == '[' && len(v.list) > 0:
		return value{kind: '[', list: m.members(name, v.list)}
	case v.kind == '{':
		w := value{kind: '{'}
		for i, n := range v.names {
			if n == "user" && v.list[i].kind == 0 && strings.HasPrefix(v.list[i].text, `"`) || n == "command_line" {
				continue // which agents leave out unless they are told otherwise
			}
			w.names, w.list = append(w.names, n), append(w.list, m.vary(n, v.list[i]))
		}
		return w
	case strings.HasPrefix(v.text, `"`):
		return value{text: m.words(name, v.text)}
	}
	return value{text: m.number(name, v.text)}
}

// members returns a list of other length.
func (m *machine) members(name string, from []value) (list []value) {
	n := 1 + m.rand.IntN(2*len(from))
	if strings.HasPrefix(name, "top_") {
		n = 10
	}
	for i := range n {
		switch v := m.vary(name, from[m.rand.IntN(len(from))]); {
		case name == "cores":
			*v.member("number") = value{text: strconv.Itoa(i)}
			list = append(list, v)
		case name == "top_memory" && m.rand.IntN(2) == 0 && len(m.processes) > 0:
			list = append(list, m.processes[m.rand.IntN(len(m.processes))]) // both lists tell of it
		default:
			list = append(list, v)
		}
	}
	if name == "top_cpu" {
		m.processes = slices.Clone(list)
	}
	return list
}

// usual are texts that many machines share.
var usual = map[string][]string{
	"linux/name": {
		"systemd", "sshd", "bash", "cron", "dockerd", "containerd", "postgres", "nginx", "python3", "java", "node", "systemd-journal", "systemd-udevd",
		"dbus-daemon", "kworker/0:1", "kworker/u8:0", "ksoftirqd/0", "rcu_sched", "rcu_preempt", "migration/0", "kswapd0", "jbd2/sda1-8", "rea-agent", "gnome-shell", "chrome", "eth0", "lo", "ens3", "docker0",
	},
	"windows/name": {
		"System", "svchost.exe", "explorer.exe", "MsMpEng.exe", "lsass.exe", "csrss.exe", "dwm.exe", "services.exe", "chrome.exe", "msedge.exe", "OneDrive.exe",
		"SearchIndexer.exe", "RuntimeBroker.exe", "rea-agent.exe", "Registry", "Ethernet", "Wi-Fi",
	},
	"linux/mountpoint":   {"/", "/boot", "/home", "/var", "/srv", "/boot/efi", "/opt", "/data", "/tmp", "/run", "/dev/shm"},
	"windows/mountpoint": {`C:\`, `D:\`, `E:\`},
	"linux/device":       {"/dev/sda1", "/dev/sda2", "/dev/nvme0n1p1", "/dev/nvme0n1p2", "/dev/vda1", "/dev/mapper/vg-root", "tmpfs", "sda", "nvme0n1", "vda", "dm-0", "loop0"},
	"linux/options":      {"rw,relatime", "rw,nosuid,nodev", "ro,relatime", "rw,noatime", "ro,nosuid,nodev,relatime", "rw,nosuid,nodev,noexec,relatime"},
}

// words returns a text that could stand where text does.
func (m *machine) words(name, text string) string {
	if strings.HasSuffix(text, `Z"`) && len(text) > len("2026-01-02T03:04:05Z") {
		return fmt.Sprintf(`"%s.%02d0000000Z"`, m.second(), m.rand.IntN(100))
	}
	if list := usual[m.system+"/"+name]; list != nil && m.rand.IntN(6) > 0 {
		return strconv.Quote(m.one(list...))
	}
	return text
}

// number returns a number that could stand where text does: most of what is 0
// stays so, the rest is of the same size, more or less.
func (m *machine) number(name, text string) string {
	f, err := strconv.ParseFloat(text, 64)
	_, decimals, _ := strings.Cut(text, ".")
	digits := len(decimals)
	switch {
	case err != nil || f == 0 && m.rand.IntN(6) > 0:
		return text
	case m.rand.IntN(8) == 0:
		return "0"
	case f == 0:
		f = 10
	}
	f *= math.Exp(6*m.rand.Float64() - 3)
	switch {
	case strings.HasSuffix(name, "_per_second"), strings.HasSuffix(name, "_seconds") && digits < 3:
		digits = 2
	case strings.HasSuffix(name, "ratio"), strings.HasPrefix(name, "avg"), strings.HasSuffix(name, "utilization"):
		f, digits = math.Min(f, 1), 4
	case strings.HasSuffix(name, "_bytes") && f > 1<<16:
		f = math.Floor(f/4096) * 4096
	}
	unit := math.Pow10(digits)
	return strconv.FormatFloat(math.Round(f*unit)/unit, 'f', -1, 64)
}

func (m *machine) one(of ...string) string { return of[m.rand.IntN(len(of))] }

func (m *machine) hex(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdef"[m.rand.IntN(16)]
	}
	return string(b)
}

// second returns some second, as events write it.
func (m *machine) second() string {
	r := m.rand
	return fmt.Sprintf("20%02d-%02d-%02dT%02d:%02d:%02d", 20+r.IntN(20), 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60))
}
