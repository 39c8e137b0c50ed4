// Command footprint measures what the whole agent costs: memory, processor
// time, size, and how soon the first event is there and delivered. It runs the
// built binaries against a server on this machine, with every collector on
// every two seconds, sending over mTLS. It prints figures beside their budgets
// and judges nothing: a noisy machine is not a failed test.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	bin := flag.String("bin", "bin", "folder of rea-agent and rea-server")
	seconds := flag.Int("seconds", 60, "how long each measurement lasts")
	starts := flag.Int("starts", 11, "how many starts the first event is the median of")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("footprint: ")

	b, err := newBench(*bin)
	if err != nil {
		log.Fatal(err)
	}
	err = b.run(time.Duration(*seconds)*time.Second, *starts)
	b.close()
	if err != nil {
		log.Fatal(err)
	}
}

// A bench is a server that runs, and the configuration of an agent for it.
type bench struct {
	dir, agent string
	server     *exec.Cmd
	config     string
}

func newBench(bin string) (*bench, error) {
	dir, err := os.MkdirTemp("", "footprint")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, agent: filepath.Join(bin, "rea-agent"), config: filepath.Join(dir, "agent.toml")}
	server := filepath.Join(bin, "rea-server")
	if out, err := exec.Command(server, "certs", "--dns", "127.0.0.1", "--dir", filepath.Join(dir, "certs")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("certificates: %w\n%s", err, out)
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if err := b.configure(address); err != nil {
		return nil, err
	}
	b.server = exec.Command(server, "--config", filepath.Join(dir, "server.toml"))
	if err := b.server.Start(); err != nil {
		return nil, err
	}
	for range 100 {
		if c, err := net.Dial("tcp", address); err == nil {
			return b, c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.close()
	return nil, fmt.Errorf("the server does not listen on %s", address)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (b *bench) configure(address string) error {
	server := fmt.Sprintf(`
[server]
listen = %q
data_dir = "data"
[tls]
cert_file = "certs/server.crt"
key_file = "certs/server.key"
client_ca_file = "certs/ca.crt"
`, address)
	agent := fmt.Sprintf(`
[logging]
mode = "none"
[networking]
enabled = true
endpoint = "https://%s"
queue_dir = "queue"
queue_max_bytes = "64MiB"
backoff_ms = "1..5000"
[tls]
ca_file = "certs/ca.crt"
client_cert = "certs/agent.crt"
client_key = "certs/agent.key"
`, address)
	for _, c := range []string{"cpu", "memory", "disk", "network", "process", "host"} {
		agent += fmt.Sprintf("[collectors.%s]\ninterval_ms = 2000\n", c)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "server.toml"), []byte(server), 0o600); err != nil {
		return err
	}
	return os.WriteFile(b.config, []byte(agent), 0o600)
}

func (b *bench) close() {
	if b.server != nil {
		_ = b.server.Process.Kill()
		_ = b.server.Wait()
	}
	_ = os.RemoveAll(b.dir)
}

func (b *bench) run(d time.Duration, starts int) error {
	size, err := os.Stat(b.agent)
	if err != nil {
		return err
	}
	fmt.Printf("%-50s %10s   %s\n", "FIGURE", "MEASURED", "BUDGET")
	report("agent binary", fmt.Sprintf("%.1f MB", float64(size.Size())/1e6), "12 MB")

	first, err := median(starts, b.firstEvent)
	if err != nil {
		return err
	}
	report("first event on stdout after start (median)", fmt.Sprintf("%.1f ms", first), "15 ms")
	shipped, err := median(starts, b.firstBatch)
	if err != nil {
		return err
	}
	report("first batch acknowledged after start (median)", fmt.Sprintf("%.1f ms", shipped), "50 ms")

	for _, load := range []struct {
		processes int
		budget    string
	}{{100, "0.10 s"}, {600, "0.40 s"}} {
		end, err := crowd(load.processes)
		if err == nil {
			err = b.steady(d, load.budget)
			end()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func report(figure, measured, budget string) {
	fmt.Printf("%-50s %10s   ≤ %s\n", figure, measured, budget)
}

func median(n int, measure func() (time.Duration, error)) (ms float64, err error) {
	var all []time.Duration
	for range n {
		d, err := measure()
		if err != nil {
			return 0, err
		}
		all = append(all, d)
	}
	slices.Sort(all)
	return float64(all[len(all)/2].Microseconds()) / 1000, nil
}

// firstEvent is the time from the start of an agent to its first line on stdout.
func (b *bench) firstEvent() (time.Duration, error) {
	cmd := exec.Command(b.agent, "--config", b.config, "--logging.mode", "stdout")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	return until(cmd, out, "{")
}

// firstBatch is the time from the start of an agent to the server's first
// acknowledgement, which the agent logs.
func (b *bench) firstBatch() (time.Duration, error) {
	cmd := exec.Command(b.agent, "--config", b.config)
	out, err := cmd.StderrPipe()
	if err != nil {
		return 0, err
	}
	return until(cmd, out, `"delivering"`)
}

func until(cmd *exec.Cmd, out io.Reader, want string) (time.Duration, error) {
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	var seen bytes.Buffer
	for lines.Scan() {
		if bytes.Contains(lines.Bytes(), []byte(want)) {
			return time.Since(begin), nil
		}
		seen.Write(append(lines.Bytes(), '\n'))
	}
	return 0, fmt.Errorf("the agent ended without saying %s:\n%s", want, seen.Bytes())
}

// steady runs an agent for d after two seconds of warming up.
func (b *bench) steady(d time.Duration, budget string) error {
	cmd := exec.Command(b.agent, "--config", b.config)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	time.Sleep(2 * time.Second)
	n, err := processes()
	if err != nil {
		return err
	}
	perMinute, err := medianCPU(cmd.Process.Pid, d)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	rss, peak, err := resident(cmd.Process.Pid)
	if err != nil {
		return err
	}
	with := fmt.Sprintf(" with %d processes", n)
	report("CPU a minute"+with+" (median)", fmt.Sprintf("%.3f s", perMinute), budget)
	report("resident memory"+with, fmt.Sprintf("%.1f MB", rss), "15 MB")
	report("resident memory at most"+with, fmt.Sprintf("%.1f MB", peak), "15 MB")
	return nil
}

// medianCPU returns the processor seconds a minute that a process takes: the
// median of five stretches of d, since a neighbour on the same hardware doubles
// one of them now and then.
func medianCPU(pid int, d time.Duration) (float64, error) {
	const stretches = 5
	var all []float64
	before, err := cpuSeconds(pid)
	for range stretches {
		if err != nil {
			return 0, err
		}
		time.Sleep(d / stretches)
		var after float64
		after, err = cpuSeconds(pid)
		all = append(all, (after-before)*60/(d/stretches).Seconds())
		before = after
	}
	slices.Sort(all)
	return all[len(all)/2], err
}

// crowd starts processes that sleep until there are n in all.
func crowd(n int) (end func(), err error) {
	var all []*exec.Cmd
	end = func() {
		for _, c := range all {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	have, err := processes()
	if err != nil {
		return nil, err
	}
	for range n - have {
		c := exec.Command("sleep", "3600")
		if err := c.Start(); err != nil {
			end()
			return nil, err
		}
		all = append(all, c)
	}
	return end, nil
}

func processes() (n int, err error) {
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		if _, bad := strconv.Atoi(e.Name()); bad == nil {
			n++
		}
	}
	return n, err
}

// cpuSeconds returns the processor time that a process has taken, in all threads;
// schedstat counts it in nanoseconds, where /proc/PID/stat counts hundredths of a second.
func cpuSeconds(pid int) (float64, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("no schedstat of process %d: %w", pid, err)
	}
	var ns uint64
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseUint(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		ns += n
	}
	return float64(ns) / 1e9, nil
}

// resident returns the resident memory of a process now and at most, in MB.
func resident(pid int) (now, peak float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kb); err == nil {
			now = kb * 1024 / 1e6
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kb); err == nil {
			peak = kb * 1024 / 1e6
		}
	}
	return now, peak, nil
}
