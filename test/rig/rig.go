// Package rig is what every bench stands on that runs the built programs: it
// builds them, gives them certificates, addresses and a folder, starts, stops and
// kills them, waits for what is to come, and asks the server what it has.
//
// What a bench tries with them, and how it judges, is its own.
package rig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Main runs the tests of a package beside what the commands have built into dir,
// which is there as long as the tests run. It returns what TestMain exits with.
func Main(m *testing.M, builds func(dir string) []*exec.Cmd) int {
	dir, err := os.MkdirTemp("", "rea-programs")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for _, build := range builds(dir) {
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
			return 1
		}
	}
	return m.Run()
}

// Build is the command that builds these programs of cmd into dir, as they are
// built for users. Other systems are a matter of its environment.
func Build(dir string, names ...string) *exec.Cmd {
	cmd := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-o", dir+string(filepath.Separator))
	for _, name := range names {
		cmd.Args = append(cmd.Args, "github.com/rea-agent/rea/cmd/"+name)
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}

// A Folder is where the programs of a test run, and where what they are told and
// what they keep lies.
type Folder struct {
	T   *testing.T
	Bin string // the folder of the programs
	Dir string
}

// Path returns the path of a file of the folder; an absolute one stays as it is.
func (f Folder) Path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(f.Dir, name)
}

// Write writes a file of the folder.
func (f Folder) Write(name, text string) {
	f.T.Helper()
	if err := os.WriteFile(f.Path(name), []byte(text), 0o600); err != nil {
		f.T.Fatal(err)
	}
}

// Copy copies a folder within the folder, in place of what is there.
func (f Folder) Copy(from, to string) {
	f.T.Helper()
	err := os.RemoveAll(f.Path(to))
	if err == nil {
		err = os.CopyFS(f.Path(to), os.DirFS(f.Path(from)))
	}
	if err != nil {
		f.T.Fatal(err)
	}
}

// Command is a program that is to run in the folder.
func (f Folder) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(f.Bin, name), args...)
	cmd.Dir = f.Dir
	return cmd
}

// Run runs a program to its end and returns what it printed and its exit code.
func (f Folder) Run(name string, args ...string) (stdout, stderr string, code int) {
	f.T.Helper()
	var out, errs bytes.Buffer
	cmd := f.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		f.T.Fatalf("%s: %v", name, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Must runs a program to its end, wants it to succeed, and returns what it printed.
func (f Folder) Must(name string, args ...string) string {
	f.T.Helper()
	stdout, stderr, code := f.Run(name, args...)
	if code != 0 {
		f.T.Fatalf("%s %s: exit %d\n%s%s", name, strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// Events returns what the server of server.toml keeps, as lines of JSON.
func (f Folder) Events(args ...string) string {
	f.T.Helper()
	return f.Must("rea-server", append([]string{"events", "--config", "server.toml", "--json", "--limit", "0"}, args...)...)
}

// Hosts returns of which agents it has something, as lines of JSON.
func (f Folder) Hosts() string {
	f.T.Helper()
	return f.Must("rea-server", "hosts", "--config", "server.toml", "--json")
}

// Each decodes lines of JSON.
func Each[T any](t *testing.T, lines string) (all []T) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, v)
	}
	return all
}
