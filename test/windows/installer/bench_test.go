//go:build wine

// Package installer installs, replaces and removes the package for Windows, under
// Wine, with a server on this system. It wants root, what ../setup.sh makes, and
// what packaging/windows/build.sh installs: see make test-windows.
package installer

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/test/rig"
)

const (
	older, newer = "v0.0.1", "v0.0.2"

	// Where Wine has them.
	program = `/prefix/drive_c/Program Files/REA/rea-agent.exe`
	data    = `/prefix/drive_c/ProgramData/REA`
)

var bin string // the folder of the server and the packages

func TestMain(m *testing.M) {
	os.Exit(rig.Main(m, func(dir string) []*exec.Cmd {
		bin = dir
		builds := []*exec.Cmd{rig.Build(dir, "rea-server")}
		for _, v := range []string{older, newer} {
			builds = append(builds, exec.Command("../../../packaging/windows/build.sh", v, filepath.Join(dir, v+".msi")))
		}
		return builds
	}))
}

// A bench is a server at which machines can enrol, on this system, and a machine
// with Windows.
type bench struct {
	rig.Folder
	share           string // Z:\share there
	ingest, welcome string // addresses of the server
	server          *rig.Process
	commands        io.Writer
	codes           *bufio.Reader // of the commands, a line each
	logs            int           // of the installer
	complaints      string        // of Wine's installer about itself, the last time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{
		Folder: rig.Folder{T: t, Bin: bin, Dir: t.TempDir()}, share: t.TempDir(),
		ingest: rig.FreeAddress(t), welcome: rig.FreeAddress(t),
	}
	b.Found()
	b.Write("server.toml", rig.IssuingConfig(b.ingest, b.welcome))
	for _, v := range []string{older, newer} {
		if err := os.Link(filepath.Join(bin, v+".msi"), filepath.Join(b.share, v+".msi")); err != nil {
			t.Fatal(err)
		}
	}
	// A program's exit code has 8 bits for a shell, those of Windows have 32.
	b.Write(filepath.Join(b.share, "run.cmd"), "@%*\r\n@echo code %errorlevel%\r\n")
	b.startServer()
	b.boot()
	return b
}

func (b *bench) startServer() {
	b.T.Helper()
	b.server = b.Start("rea-server", "--config", "server.toml")
	b.Until("the server listens", func() bool { return rig.Answers(b.ingest) && rig.Answers(b.welcome) })
}

func (b *bench) token() string {
	b.T.Helper()
	return strings.TrimSpace(b.Must("rea-server", "enroll", "token", "--config", "server.toml", "--name", "lab-7"))
}

// revokeTokens makes all tokens useless that were not used yet.
func (b *bench) revokeTokens() {
	b.T.Helper()
	for _, token := range rig.Each[struct{ ID string }](b.T, b.Must("rea-server", "enroll", "list", "--dir", "pki", "--json")) {
		b.Must("rea-server", "enroll", "revoke", "--dir", "pki", token.ID)
	}
}

// boot starts the machine: a shell on it, which takes commands.
func (b *bench) boot() {
	b.T.Helper()
	run, err := filepath.Abs("../exec.sh")
	if err != nil {
		b.T.Fatal(err)
	}
	cmd := exec.Command(run, "-")
	cmd.Env = append(os.Environ(), "REA_SHARE="+b.share, "WINEDEBUG=-all,err+msi")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.T.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.T.Fatal(err)
	}
	cmd.Dir = b.Dir
	rig.Start(b.T, cmd)
	b.commands, b.codes = in, bufio.NewReader(out)
	// Whatever hangs there ends with the machine, and the command with it.
	patience := time.AfterFunc(10*time.Minute, func() { _ = cmd.Process.Kill() })
	b.T.Cleanup(func() { patience.Stop() })
}

// sh runs a command of the shell on the machine.
func (b *bench) sh(command string) (out string, code int) {
	b.T.Helper()
	// What is started by it, as the system's services, may hold the file for longer.
	fmt.Fprintf(b.commands, "rm -f /share/out; { %s\n} </dev/null >/share/out 2>/share/err; echo $?\n", command)
	line, err := b.codes.ReadString('\n')
	if err != nil {
		b.T.Fatalf("%s: the machine went down: %v", command, err)
	}
	if code, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		b.T.Fatalf("%s: %v", command, err)
	}
	text, err := os.ReadFile(filepath.Join(b.share, "out"))
	if err != nil {
		b.T.Fatal(err)
	}
	return string(text), code
}

// quote makes one word of a shell of the text.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// agent runs the program that is installed.
func (b *bench) agent(args ...string) string {
	b.T.Helper()
	out, code := b.sh("wine " + quote(program) + " " + strings.Join(args, " "))
	if code != 0 {
		b.T.Fatalf("rea-agent %s: exit %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

var codeLine = regexp.MustCompile(`(?m)^code (-?\d+)\s*$`)

// windows runs a program of Windows, and returns what it ends with there.
func (b *bench) windows(args ...string) (out string, code int) {
	b.T.Helper()
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = quote(a)
	}
	out, _ = b.sh(`wine cmd /c 'Z:\share\run.cmd' ` + strings.Join(words, " "))
	found := codeLine.FindStringSubmatch(out)
	if found == nil {
		b.T.Fatalf("%v: no exit code in %q", args, out)
	}
	code, err := strconv.Atoi(found[1])
	if err != nil {
		b.T.Fatal(err)
	}
	return out, code
}

// msiexec wants the installer to end with a code. verb is /i or /x.
func (b *bench) msiexec(want int, verb, version string, properties ...string) {
	b.T.Helper()
	b.logs++
	log := fmt.Sprintf("installer-%d.log", b.logs)
	args := append([]string{"msiexec", verb, `Z:\share\` + version + ".msi", "/qn", "/l*v", `Z:\share\` + log}, properties...)
	_, code := b.windows(args...)
	complaints, err := os.ReadFile(filepath.Join(b.share, "err"))
	if err != nil {
		b.T.Fatal(err)
	}
	if b.complaints = string(complaints); code != want {
		text, _ := os.ReadFile(filepath.Join(b.share, log))
		b.T.Fatalf("%v ended with %d, want %d\n%s", args, code, want, text)
	}
}

// file reads a file of the machine's data.
func (b *bench) file(name string) string {
	b.T.Helper()
	text, code := b.sh("cat " + quote(data+"/"+name))
	if code != 0 {
		b.T.Fatalf("there is no %s", name)
	}
	return text
}

// there reports whether a file or folder of the machine is there.
func (b *bench) there(path string) bool {
	b.T.Helper()
	_, code := b.sh("test -e " + quote(path))
	return code == 0
}

// state is what the control manager says of the service: "" where there is none.
func (b *bench) state() string {
	b.T.Helper()
	out, code := b.windows("sc", "query", "REA")
	const absent = 1060 // ERROR_SERVICE_DOES_NOT_EXIST
	if code == absent {
		return ""
	}
	_, rest, found := strings.Cut(out, "STATE")
	fields := strings.Fields(rest)
	if code != 0 || !found || len(fields) < 3 {
		b.T.Fatalf("sc query: code %d: %s", code, out)
	}
	return fields[2] // of ": 4 RUNNING"
}

// An id is what makes an event one.
type id struct {
	Node, Stream string
	Seq          int
}

func (b *bench) ids(lines string) map[id]int {
	b.T.Helper()
	ids := map[id]int{}
	for _, i := range rig.Each[id](b.T, lines) {
		ids[i]++
	}
	return ids
}

// collected returns the events that the machine has in its own file, without the
// line that is being written; stored, those that the server has.
func (b *bench) collected() map[id]int {
	b.T.Helper()
	text := b.file("logs/events.ndjson")
	return b.ids(text[:strings.LastIndexByte(text, '\n')+1])
}

func (b *bench) stored() map[id]int { b.T.Helper(); return b.ids(b.Events()) }

// waiting wants the machine to have events that the server has not.
func (b *bench) waiting() {
	b.T.Helper()
	b.UntilQuiet("events wait in the queue", func() string {
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
	b.T.Helper()
	if len(events) == 0 {
		b.T.Fatal("there are no events to deliver")
	}
	b.UntilQuiet("all events arrive", func() string {
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
			b.T.Errorf("%v is stored %d times", i, n)
		}
	}
	b.Must("rea-server", "verify", "--wait", "30s", "--config", "server.toml")
	if gaps := b.Events("--kind", "gap"); len(gaps) > 0 {
		b.T.Errorf("events were lost: %s", gaps)
	}
}
