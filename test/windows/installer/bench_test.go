//go:build wine

// Package installer installs, replaces and removes the package for Windows, under
// Wine, with a server on this system. It wants root, what ../setup.sh makes, and
// what packaging/windows/build.sh installs: see make test-windows.
package installer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	older, newer = "v0.0.1", "v0.0.2"

	// Where Wine has them.
	program = `/prefix/drive_c/Program Files/REA/rea-agent.exe`
	data    = `/prefix/drive_c/ProgramData/REA`
)

var bin string // the folder of the server and the packages

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "rea-installer")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		bin = dir
		server := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-o", bin+"/", "../../../cmd/rea-server")
		server.Env = append(os.Environ(), "CGO_ENABLED=0")
		builds := []*exec.Cmd{server}
		for _, v := range []string{older, newer} {
			builds = append(builds, exec.Command("../../../packaging/windows/build.sh", v, filepath.Join(bin, v+".msi")))
		}
		for _, build := range builds {
			if out, err := build.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

// A bench is a server at which machines can enrol, on this system, and a machine
// with Windows.
type bench struct {
	t               *testing.T
	dir, share      string // share is Z:\share there
	ingest, welcome string // addresses of the server
	server          *exec.Cmd
	commands        io.Writer
	codes           *bufio.Reader // of the commands, a line each
	logs            int           // of the installer
	complaints      string        // of Wine's installer about itself, the last time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), share: t.TempDir(), ingest: freeAddress(t), welcome: freeAddress(t)}
	b.must("pki", "init", "--org", "example.org")
	b.must("pki", "issue", "server", "--dns", "127.0.0.1")
	b.write(filepath.Join(b.dir, "server.toml"), fmt.Sprintf(`
[server]
listen = %q
data_dir = "data"
[tls]
cert_file = "server/server.crt"
key_file = "server/server.key"
client_ca_file = "pki/ca.crt"
denylist_file = "pki/revoked.jsonl"
[enroll]
listen = %q
pki_dir = "pki"
`, b.ingest, b.welcome))
	for _, v := range []string{older, newer} {
		if err := os.Link(filepath.Join(bin, v+".msi"), filepath.Join(b.share, v+".msi")); err != nil {
			t.Fatal(err)
		}
	}
	// A program's exit code has 8 bits for a shell, those of Windows have 32.
	b.write(filepath.Join(b.share, "run.cmd"), "@%*\r\n@echo code %errorlevel%\r\n")
	b.startServer()
	b.boot()
	return b
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts what ends with the test, if not before.
func (b *bench) start(cmd *exec.Cmd) {
	b.t.Helper()
	var log bytes.Buffer
	cmd.Dir, cmd.Stderr = b.dir, &log
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b.t.Failed() {
			b.t.Logf("%s:\n%s", filepath.Base(cmd.Path), log.Bytes())
		}
	})
}

func (b *bench) startServer() {
	b.t.Helper()
	b.server = exec.Command(filepath.Join(bin, "rea-server"), "--config", "server.toml")
	b.start(b.server)
	for _, address := range []string{b.ingest, b.welcome} {
		b.until("the server listens", func() string {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return err.Error()
			}
			c.Close()
			return ""
		})
	}
}

func (b *bench) stopServer() {
	b.t.Helper()
	if err := b.server.Process.Signal(syscall.SIGTERM); err != nil {
		b.t.Fatal(err)
	}
	if err := b.server.Wait(); err != nil {
		b.t.Fatalf("rea-server: %v", err)
	}
}

// must runs rea-server to its end and returns what it printed.
func (b *bench) must(args ...string) []byte {
	b.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "rea-server"), args...)
	cmd.Dir = b.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("rea-server %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out
}

func (b *bench) token() string {
	b.t.Helper()
	return strings.TrimSpace(string(b.must("enroll", "token", "--config", "server.toml", "--name", "lab-7")))
}

// revokeTokens makes all tokens useless that were not used yet.
func (b *bench) revokeTokens() {
	b.t.Helper()
	for line := range bytes.Lines(b.must("enroll", "list", "--dir", "pki", "--json")) {
		var token struct{ ID string }
		if err := json.Unmarshal(line, &token); err != nil {
			b.t.Fatalf("%v: %s", err, line)
		}
		b.must("enroll", "revoke", "--dir", "pki", token.ID)
	}
}

// boot starts the machine: a shell on it, which takes commands.
func (b *bench) boot() {
	b.t.Helper()
	run, err := filepath.Abs("../exec.sh")
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(run, "-")
	cmd.Env = append(os.Environ(), "REA_SHARE="+b.share, "WINEDEBUG=-all,err+msi")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.start(cmd)
	b.commands, b.codes = in, bufio.NewReader(out)
	// Whatever hangs there ends with the machine, and the command with it.
	patience := time.AfterFunc(10*time.Minute, func() { _ = cmd.Process.Kill() })
	b.t.Cleanup(func() { patience.Stop() })
}

// sh runs a command of the shell on the machine.
func (b *bench) sh(command string) (out string, code int) {
	b.t.Helper()
	// What is started by it, as the system's services, may hold the file for longer.
	fmt.Fprintf(b.commands, "rm -f /share/out; { %s\n} </dev/null >/share/out 2>/share/err; echo $?\n", command)
	line, err := b.codes.ReadString('\n')
	if err != nil {
		b.t.Fatalf("%s: the machine went down: %v", command, err)
	}
	if code, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		b.t.Fatalf("%s: %v", command, err)
	}
	text, err := os.ReadFile(filepath.Join(b.share, "out"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text), code
}

// quote makes one word of a shell of the text.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// agent runs the program that is installed.
func (b *bench) agent(args ...string) string {
	b.t.Helper()
	out, code := b.sh("wine " + quote(program) + " " + strings.Join(args, " "))
	if code != 0 {
		b.t.Fatalf("rea-agent %s: exit %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

var codeLine = regexp.MustCompile(`(?m)^code (-?\d+)\s*$`)

// windows runs a program of Windows, and returns what it ends with there.
func (b *bench) windows(args ...string) (out string, code int) {
	b.t.Helper()
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = quote(a)
	}
	out, _ = b.sh(`wine cmd /c 'Z:\share\run.cmd' ` + strings.Join(words, " "))
	found := codeLine.FindStringSubmatch(out)
	if found == nil {
		b.t.Fatalf("%v: no exit code in %q", args, out)
	}
	code, err := strconv.Atoi(found[1])
	if err != nil {
		b.t.Fatal(err)
	}
	return out, code
}

// msiexec wants the installer to end with a code. verb is /i or /x.
func (b *bench) msiexec(want int, verb, version string, properties ...string) {
	b.t.Helper()
	b.logs++
	log := fmt.Sprintf("installer-%d.log", b.logs)
	args := append([]string{"msiexec", verb, `Z:\share\` + version + ".msi", "/qn", "/l*v", `Z:\share\` + log}, properties...)
	_, code := b.windows(args...)
	complaints, err := os.ReadFile(filepath.Join(b.share, "err"))
	if err != nil {
		b.t.Fatal(err)
	}
	if b.complaints = string(complaints); code != want {
		text, _ := os.ReadFile(filepath.Join(b.share, log))
		b.t.Fatalf("%v ended with %d, want %d\n%s", args, code, want, text)
	}
}

// file reads a file of the machine's data.
func (b *bench) file(name string) string {
	b.t.Helper()
	text, code := b.sh("cat " + quote(data+"/"+name))
	if code != 0 {
		b.t.Fatalf("there is no %s", name)
	}
	return text
}

// there reports whether a file or folder of the machine is there.
func (b *bench) there(path string) bool {
	b.t.Helper()
	_, code := b.sh("test -e " + quote(path))
	return code == 0
}

// state is what the control manager says of the service: "" where there is none.
func (b *bench) state() string {
	b.t.Helper()
	out, code := b.windows("sc", "query", "REA")
	const absent = 1060 // ERROR_SERVICE_DOES_NOT_EXIST
	if code == absent {
		return ""
	}
	_, rest, found := strings.Cut(out, "STATE")
	fields := strings.Fields(rest)
	if code != 0 || !found || len(fields) < 3 {
		b.t.Fatalf("sc query: code %d: %s", code, out)
	}
	return fields[2] // of ": 4 RUNNING"
}

// An id is what makes an event one.
type id struct {
	Node, Stream string
	Seq          int
}

func (b *bench) ids(lines string) map[id]int {
	b.t.Helper()
	ids := map[id]int{}
	for line := range strings.Lines(lines) {
		if !strings.HasSuffix(line, "\n") {
			continue // it is being written
		}
		var i id
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			b.t.Fatalf("%v: %s", err, line)
		}
		ids[i]++
	}
	return ids
}

// collected returns the events that the machine has in its own file; stored, those
// that the server has.
func (b *bench) collected() map[id]int { b.t.Helper(); return b.ids(b.file("logs/events.ndjson")) }

func (b *bench) stored() map[id]int {
	b.t.Helper()
	return b.ids(string(b.must("events", "--data-dir", "data", "--json", "--limit", "0")))
}

// waiting wants the machine to have events that the server has not.
func (b *bench) waiting() {
	b.t.Helper()
	b.until("events wait in the queue", func() string {
		stored, n := b.stored(), 0
		for i := range b.collected() {
			if stored[i] == 0 {
				n++
			}
		}
		if n < 20 {
			return fmt.Sprintf("%d wait", n)
		}
		return ""
	})
}

// delivered wants the server to get each of these events once, and its books to
// balance without a loss.
func (b *bench) delivered(events map[id]int) {
	b.t.Helper()
	if len(events) == 0 {
		b.t.Fatal("there are no events to deliver")
	}
	b.until("all events arrive", func() string {
		stored, missing := b.stored(), 0
		for i := range events {
			if stored[i] == 0 {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Sprintf("%d of %d are missing", missing, len(events))
		}
		return ""
	})
	for i, n := range b.stored() {
		if n != 1 {
			b.t.Errorf("%v is stored %d times", i, n)
		}
	}
	b.must("verify", "--wait", "30s", "--data-dir", "data")
	if gaps := b.must("events", "--data-dir", "data", "--json", "--limit", "0", "--kind", "gap"); len(gaps) > 0 {
		b.t.Errorf("events were lost: %s", gaps)
	}
}

// until waits until f has nothing to complain of.
func (b *bench) until(what string, f func() string) {
	b.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		complaint := f()
		if complaint == "" {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: %s", what, complaint)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
