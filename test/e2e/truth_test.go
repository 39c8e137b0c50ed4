package e2e

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/rea-agent/rea/test/rig"
)

// What the agent says of this machine, read by other people's tools. Values move
// between two readings, so each has a tolerance.

// reading is one reading of every collector.
type reading struct {
	CPU struct {
		LogicalCount int     `json:"logical_count"`
		Load         float64 `json:"load_average_1m"`
	}
	Memory struct {
		Total     float64 `json:"total_bytes"`
		Available float64 `json:"available_bytes"`
	}
	Disk struct {
		Mounts []struct {
			Mountpoint string
			Total      float64 `json:"total_bytes"`
			Available  float64 `json:"available_bytes"`
		}
	}
	Network struct {
		Interfaces []struct {
			Name     string
			Receive  float64 `json:"receive_bytes"`
			Transmit float64 `json:"transmit_bytes"`
		}
	}
	Process struct {
		Count     float64
		TopMemory []struct {
			PID      int
			Name     string
			Resident float64 `json:"resident_bytes"`
		} `json:"top_memory"`
	}
	Host struct{ Kernel struct{ Release string } }
}

func once(t *testing.T) (r reading) {
	t.Helper()
	b := rig.Folder{T: t, Bin: bin, Dir: t.TempDir()}
	kinds := 0
	for line := range strings.Lines(b.Must("rea-agent", "once", "--agent.redact-pii=false")) {
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v\n%s", err, line)
		}
		kinds++
	}
	if kinds != 6 {
		t.Errorf("once printed %d events, want one of each collector", kinds)
	}
	return r
}

// tool runs somebody else's tool, or skips the test where it is not installed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if cmd.Err != nil {
		t.Skipf("SKIP comparison with %s: it is not installed (Debian: procps)", name)
	}
	if err != nil && len(out) == 0 { // df fails on one mount and tells of the others
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}

func near(t *testing.T, what string, got, want, share, slack float64) {
	t.Helper()
	if math.Abs(got-want) > share*math.Abs(want)+slack {
		t.Errorf("%s: the agent says %.0f, the other tool %.0f", what, got, want)
	}
}

func fields(line string) (words []string, numbers []float64) {
	words = strings.Fields(line)
	for _, w := range words {
		n, err := strconv.ParseFloat(w, 64)
		if err != nil {
			n = math.NaN()
		}
		numbers = append(numbers, n)
	}
	return words, numbers
}

func TestMemoryIsWhatFreeSays(t *testing.T) {
	out := tool(t, "free", "-b")
	r := once(t)
	_, n := fields(strings.Split(out, "\n")[1])
	near(t, "total memory", r.Memory.Total, n[1], 0, 0)
	near(t, "available memory", r.Memory.Available, n[6], 0.1, 256<<20)
}

func TestDisksAreWhatDfSays(t *testing.T) {
	out := tool(t, "df", "-B1", "--output=target,size,avail")
	said := map[string][]float64{}
	for line := range strings.Lines(out) {
		words, n := fields(line)
		if len(words) == 3 {
			said[words[0]] = n
		}
	}
	compared := 0
	for _, m := range once(t).Disk.Mounts {
		if n, ok := said[m.Mountpoint]; ok {
			near(t, m.Mountpoint+" total", m.Total, n[1], 0, 0)
			near(t, m.Mountpoint+" available", m.Available, n[2], 0.05, 256<<20)
			compared++
		}
	}
	if _, ok := said["/"]; !ok || compared == 0 {
		t.Errorf("no mount in common with df:\n%s", out)
	}
}

func TestProcessesAreWhatPsSays(t *testing.T) {
	out := tool(t, "ps", "-eo", "pid=,rss=,comm=")
	rss := map[int]float64{}
	for line := range strings.Lines(out) {
		_, n := fields(line)
		rss[int(n[0])] = n[1] * 1024
	}
	r := once(t)
	near(t, "count of processes", r.Process.Count, float64(len(rss)), 0.1, 20)
	compared := 0
	for _, p := range r.Process.TopMemory {
		if want, ok := rss[p.PID]; ok && want > 0 {
			near(t, p.Name+" resident", p.Resident, want, 0.3, 64<<20)
			compared++
		}
	}
	if compared == 0 {
		t.Errorf("no process in common with ps:\n%s", out)
	}
}

func TestInterfacesAreWhatTheKernelSays(t *testing.T) {
	text, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Skipf("SKIP comparison with /proc/net/dev: %v", err)
	}
	seen := map[string][]float64{}
	for line := range strings.Lines(string(text)) {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			_, seen[strings.TrimSpace(name)] = fields(rest)
		}
	}
	r := once(t)
	if len(r.Network.Interfaces) != len(seen) {
		t.Errorf("%d interfaces, the kernel has %d", len(r.Network.Interfaces), len(seen))
	}
	for _, i := range r.Network.Interfaces {
		n := seen[i.Name]
		if n == nil {
			t.Errorf("the kernel has no interface %s", i.Name)
			continue
		}
		near(t, i.Name+" received", i.Receive, n[0], 0.1, 10<<20)
		near(t, i.Name+" transmitted", i.Transmit, n[8], 0.1, 10<<20)
	}
}

func TestTheMachineIsThisOne(t *testing.T) {
	r := once(t)
	if want := strings.TrimSpace(tool(t, "uname", "-r")); r.Host.Kernel.Release != want {
		t.Errorf("kernel %q, uname says %q", r.Host.Kernel.Release, want)
	}
	if r.CPU.LogicalCount < runtime.NumCPU() {
		t.Errorf("%d cores, this process may use %d", r.CPU.LogicalCount, runtime.NumCPU())
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, n := fields(string(load))
		near(t, "load in hundredths", r.CPU.Load*100, n[0]*100, 0.3, 100)
	}
}
