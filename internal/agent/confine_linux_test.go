package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/confine"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/status"
)

// TestNothingOutsideTheListWorks runs an agent that is built as it is shipped,
// without cgo, confined by the rules of a configuration, as root and as a user.
func TestNothingOutsideTheListWorks(t *testing.T) {
	if confine.ABI() == 0 {
		t.Skip("SKIP a probe under Landlock: this kernel has none")
	}
	program := filepath.Join(t.TempDir(), "probe")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	users := map[string]int{"as this user": os.Geteuid()}
	if os.Geteuid() == 0 {
		users = map[string]int{"as root": 0, "as nobody": 65534}
	}
	for name, uid := range users {
		t.Run(name, func(t *testing.T) { runProbe(t, program, uid) })
	}
}

// runProbe lays out the files of an agent and of others, and runs the probe.
func runProbe(t *testing.T, program string, uid int) {
	dir, err := os.MkdirTemp("", "rea-probe")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"", "etc", "certs", "queue", "log", "data", "other"} {
		check(t, os.MkdirAll(at(d), 0o755))
		check(t, os.Chmod(at(d), 0o755))
	}
	_, err = identity.Generate(at("made"), []string{"127.0.0.1"})
	check(t, err)
	for _, name := range []string{"ca.crt", "agent.crt", "agent.key"} {
		check(t, os.Rename(at("made/"+name), at("certs/"+name)))
	}
	for name, mode := range map[string]os.FileMode{"etc/agent.toml": 0o644, "data/events.db": 0o644, "other/secret": 0o600} {
		check(t, os.WriteFile(at(name), []byte("#!/bin/true\n"), mode))
	}
	alone := dir + ".crt" // in a folder at the top
	t.Cleanup(func() { _ = os.Remove(alone) })
	ca, err := os.ReadFile(at("certs/ca.crt"))
	check(t, err)
	check(t, os.WriteFile(alone, ca, 0o644))
	bytes, err := os.ReadFile(program)
	check(t, err)
	for _, name := range []string{"probe", "queue/program"} { // needs no other file to be executed
		check(t, os.WriteFile(at(name), bytes, 0o755))
	}
	if os.Geteuid() == 0 {
		check(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error { return errors.Join(err, os.Lchown(path, uid, uid)) }))
		check(t, os.Lchown(at("other/secret"), 4711, 4711))
	}

	cmd := exec.Command(at("probe"), "-test.run", "^TestProbe$", "-test.v", "-test.timeout", "1m")
	cmd.Dir = "/"
	cmd.Env = []string{"REA_PROBE=" + dir, "REA_PROBE_PORTS=" + fmt.Sprint(listening(t), " ", listening(t), " ", freePort(t), " ", freePort(t)),
		"REA_PROBE_SOCKET=" + abstractSocket(t)}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	cmd.Stderr = cmd.Stdout
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	said := new(strings.Builder)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(said, lines.Text())
		if lines.Text() == "confined" { // now exchange files, as a renewal does
			for _, name := range []string{at("certs/agent.crt"), alone} {
				check(t, os.WriteFile(name+".new", []byte("renewed"), 0o644))
				check(t, os.Rename(name+".new", name))
			}
			_, err := io.WriteString(in, "go on\n")
			check(t, err)
		}
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), "probed as "+strconv.Itoa(uid)) {
		t.Errorf("%v\n%s", err, said)
	}
}

// listening returns a port on which something listens that agrees to anything.
func listening(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func abstractSocket(t *testing.T) string {
	name := fmt.Sprintf("@rea-probe-%d-%d", os.Getpid(), time.Now().UnixNano())
	l, err := net.Listen("unix", name)
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return name
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A probe is in the process that is confined.
type probe struct {
	*testing.T
	dir                              string
	server, other, status, otherBind int // ports
}

// TestProbe is the process of TestNothingOutsideTheListWorks.
func TestProbe(t *testing.T) {
	dir := os.Getenv("REA_PROBE")
	if dir == "" {
		return // it is no test of its own
	}
	p := probe{T: t, dir: dir}
	_, err := fmt.Sscan(os.Getenv("REA_PROBE_PORTS"), &p.server, &p.other, &p.status, &p.otherBind)
	check(t, err)
	threads := p.threads()
	c := p.config()
	a, err := New(Options{Config: c, Log: slog.New(slog.NewTextHandler(os.Stdout, nil)), Stdout: os.Stdout})
	check(t, err)
	check(t, a.Confine(p.at("etc/agent.toml")))
	for _, try := range threads {
		p.refused("read in a thread from before", try())
	}
	p.files()
	p.network()
	p.programs()
	report := a.health()
	if report.Confinement == nil || report.Confinement.ABI != confine.ABI() || confine.ABI() >= confine.RequiredABI && report.Confinement.State != status.Confined {
		t.Errorf("/healthz says %+v", report.Confinement)
	}
	if report.Status != status.OK {
		t.Errorf("/healthz says %s: %v", report.Status, report.Reasons)
	}
	p.replaced()
	if report = a.health(); report.Status != status.Degraded || len(report.Reasons) != 1 || !strings.Contains(report.Reasons[0], c.TLS.CAFile+" was replaced") {
		t.Errorf("/healthz says %s: %v, want that the authority cannot be read again", report.Status, report.Reasons)
	}
	ctx, end := context.WithTimeout(t.Context(), time.Second)
	defer end()
	check(t, a.Run(ctx)) // it works
	fmt.Printf("probed as %d\n", os.Geteuid())
}

func (p probe) at(name string) string { return filepath.Join(p.dir, name) }

func (p probe) config() Config {
	c := defaults("linux", "")
	c.Agent.Landlock = "require"
	if confine.ABI() < confine.RequiredABI {
		c.Agent.Landlock = "auto"
	}
	c.Logging.Mode, c.Logging.FilePath = "file", p.at("log/events.ndjson")
	c.Status = StatusSection{Enabled: true, Port: p.status}
	c.Networking.Enabled, c.Networking.QueueDir, c.Networking.QueueMinFreeBytes = true, p.at("queue"), 0
	c.Networking.Endpoint = "https://127.0.0.1:" + strconv.Itoa(p.server)
	c.TLS.CAFile, c.TLS.ClientCert, c.TLS.ClientKey = p.dir+".crt", p.at("certs/agent.crt"), p.at("certs/agent.key")
	return c
}

// threads starts threads of their own. What it returns reads a file in one of
// them, later.
func (p probe) threads() (tries []func() error) {
	for range 8 {
		ask, answer := make(chan bool), make(chan error)
		go func() {
			runtime.LockOSThread() // ends with the goroutine
			for range ask {
				_, err := os.ReadFile(p.at("data/events.db"))
				answer <- err
			}
		}()
		tries = append(tries, sync.OnceValue(func() error { ask <- true; return <-answer }))
	}
	return tries
}

func (p probe) works(what string, err error) {
	p.Helper()
	if err != nil {
		p.Errorf("%s: %v", what, err)
	}
}

// refused checks that err is a refusal. A link into another folder is one between
// two file systems, to Landlock.
func (p probe) refused(what string, err error) {
	p.Helper()
	if !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EXDEV) {
		p.Errorf("%s: got %v, want a refusal", what, err)
	}
}

func (p probe) files() {
	read := func(path string) error {
		f, err := os.Open(path)
		if err == nil {
			_, err = f.Read(make([]byte, 1))
			f.Close()
		}
		return err
	}
	list := func(path string) error { _, err := os.ReadDir(path); return err }
	for _, path := range []string{p.at("etc/agent.toml"), p.at("certs/ca.crt"), p.at("certs/agent.key"), "/proc/stat", "/proc/1/stat", "/proc/self/io", "/sys/kernel/mm/transparent_hugepage/enabled", "/etc/os-release", "/etc/hosts"} {
		if _, err := os.Stat(path); err == nil {
			p.works("read "+path, read(path))
		}
	}
	for _, path := range []string{"/etc/shadow", "/proc/1/root/etc/shadow", "/proc/1/environ", p.at("other/secret"), p.at("data/events.db"), p.at("probe"), "/bin/true", "/etc/ssl/openssl.cnf"} {
		if _, err := os.Stat(path); err != nil || os.Geteuid() != 0 && path == "/etc/ssl/openssl.cnf" {
			continue
		}
		p.refused("read "+path, read(path))
	}
	p.refused("list others' folder", list(p.at("data")))
	p.refused("list /", list("/"))
	p.works("list /proc", list("/proc"))
	_, err := os.Stat(p.at("data/events.db"))
	p.works("look at a file", err)
	var st syscall.Statfs_t
	p.works("look at a disk", syscall.Statfs("/", &st))

	for _, dir := range []string{p.at("queue"), p.at("log")} {
		name := filepath.Join(dir, "new")
		p.works("make a file", os.WriteFile(name, []byte("x"), 0o600))
		p.works("truncate it", os.Truncate(name, 0))
		p.works("rename it", os.Rename(name, name+"er"))
		p.works("remove it", os.Remove(name+"er"))
		p.works("make a folder", os.Mkdir(name, 0o700))
		p.works("rename it", os.Rename(name, name+"er"))
		p.works("remove it", os.Remove(name+"er"))
		p.refused("make a link", os.Symlink("/etc/shadow", name))
		p.refused("make a pipe", syscall.Mkfifo(name, 0o600))
		p.refused("link a file from elsewhere", os.Link(p.at("certs/agent.key"), name))
	}
	for _, name := range []string{p.at("file"), p.at("etc/new"), p.at("certs/new"), "/tmp/rea-probe-new", "/dev/shm/rea-probe-new"} {
		p.refused("make "+name, os.WriteFile(name, nil, 0o600))
	}
	for _, name := range []string{p.at("etc/agent.toml"), p.at("certs/agent.crt"), p.at("data/events.db"), p.dir + ".crt"} {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		p.refused("write "+name, err)
		if err == nil {
			f.Close()
		}
		p.refused("truncate "+name, os.Truncate(name, 0))
		p.refused("remove "+name, os.Remove(name))
		p.refused("rename "+name, os.Rename(name, name+".old"))
	}
	p.refused("make a folder", os.Mkdir(p.at("folder"), 0o700))
	p.refused("write to /proc", os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0))
}

func (p probe) network() {
	dial := func(network, address string) error {
		c, err := net.DialTimeout(network, address, 5*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}
	bind := func(port int) error {
		var c net.ListenConfig
		c.SetMultipathTCP(false) // which Landlock does not know
		l, err := c.Listen(context.Background(), "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
		}
		return err
	}
	p.works("connect to the server", dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.server)))
	p.works("send a datagram", dial("udp", "127.0.0.1:53"))
	if err := bind(p.status); !errors.Is(err, syscall.EADDRINUSE) {
		p.Errorf("listen at the status port: %v, want that it is in use, by ourselves", err)
	}
	if confine.ABI() >= confine.RequiredABI {
		p.refused("connect to another port", dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.other)))
		p.refused("connect to DNS, where the server has no name", dial("tcp", "127.0.0.1:53"))
		p.refused("listen at another port", bind(p.otherBind))
	}
	if confine.ABI() >= 6 {
		p.refused("connect to an abstract socket", dial("unix", os.Getenv("REA_PROBE_SOCKET")))
	}
	_, err := net.LookupHost("localhost")
	p.works("look up a name", err)
}

func (p probe) programs() {
	for _, program := range []string{"/bin/true", p.at("probe"), p.at("queue/program")} {
		cmd := exec.Command(program, "-test.run", "^$")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stdout // or it would be /dev/null that is refused
		p.refused("execute "+program, cmd.Run())
	}
}

// replaced reads a certificate that was exchanged since.
func (p probe) replaced() {
	fmt.Println("confined")
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	check(p.T, err)
	text, err := os.ReadFile(p.at("certs/agent.crt"))
	if err != nil || string(text) != "renewed" {
		p.Errorf("the renewed certificate: %q, %v", text, err)
	}
	_, err = os.ReadFile(p.dir + ".crt")
	p.refused("read a file that took the place of one that was given alone", err)
}
