package rig

import (
	"bytes"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A Process is a program that runs, or has run.
type Process struct {
	*exec.Cmd
	t   *testing.T
	log log
}

// Start starts a program, which is killed at the end of the test if it still
// runs. What it says is kept, and shown where the test fails: standard error, and
// standard output unless cmd has another place for it.
func Start(t *testing.T, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, t: t}
	cmd.Stderr = &p.log
	if cmd.Stdout == nil {
		cmd.Stdout = &p.log
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			const most = 16 << 10
			said := p.Said()
			t.Logf("%s:\n%s", strings.Join(cmd.Args, " "), said[max(0, len(said)-most):])
		}
	})
	return p
}

// Start starts a program in the folder.
func (f Folder) Start(name string, args ...string) *Process {
	f.T.Helper()
	return Start(f.T, f.Command(name, args...))
}

// Said returns what the process has said so far.
func (p *Process) Said() string { return p.log.String() }

// Kill ends the process as a crash would, if it has not ended yet.
func (p *Process) Kill() {
	if p.ProcessState == nil {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
}

// Stop asks the process to end and wants it to do so with code.
func (p *Process) Stop(code int) {
	p.t.Helper()
	_ = p.Process.Signal(syscall.SIGTERM)
	_ = p.Wait()
	if got := p.ProcessState.ExitCode(); got != code {
		p.t.Errorf("%s ended with %d, want %d", p.Path, got, code)
	}
}

// A log may be read while it is written.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
