//go:build torture && linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rea-agent/rea/test/rig"
)

// A process is one of ours that runs.
type process struct {
	t       *testing.T
	what    string
	cmd     *exec.Cmd
	log     string // what it said on standard error
	from    int64  // where that begins
	wrapped int    // how many programs run it
	done    chan struct{}
}

// start starts a process that says what is wrong in the file log, and has each
// line that it prints reported. Once done is closed all of them are.
func start(t *testing.T, what string, cmd *exec.Cmd, log string, report func(line string)) *process {
	t.Helper()
	p := &process{t: t, what: what, cmd: cmd, log: log, done: make(chan struct{})}
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		p.from = info.Size()
	}
	cmd.Stderr = f
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			report(lines.Text())
		}
		_ = cmd.Wait()
	}()
	return p
}

// said returns what the process said on standard error, or the end of it.
func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	const most = 16 << 10
	text = text[min(p.from, int64(len(text))):]
	return string(text[max(0, len(text)-most):])
}

// pid returns the id of the program: the last child, where others run it.
func (p *process) pid() int {
	pid := p.cmd.Process.Pid
	for range p.wrapped {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
		child, failed := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || failed != nil {
			return pid
		}
		pid = child
	}
	return pid
}

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends the process as a crash would; it must have run until then.
func (p *process) kill() {
	p.t.Helper()
	_ = p.cmd.Process.Kill()
	<-p.done
	if s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() {
		p.t.Fatalf("the %s ended by itself: %v\n%s", p.what, p.cmd.ProcessState, p.said())
	}
}

// end ends the process in any case.
func (p *process) end() {
	if !p.ended() {
		_ = syscall.Kill(p.pid(), syscall.SIGKILL)
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// leave asks the process to end, and lets it complain.
func (p *process) leave() {
	p.t.Helper()
	pid := p.pid()
	_ = syscall.Kill(pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(rig.Patience):
		_ = syscall.Kill(pid, syscall.SIGQUIT)
		time.Sleep(time.Second)
		p.end()
		p.t.Fatalf("the %s does not end:\n%s", p.what, p.said())
	}
}

// stop asks the process to end, and wants it to do so in order, unless it had
// only just begun.
func (p *process) stop() {
	p.t.Helper()
	p.leave()
	s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	early := ok && s.Signaled() && s.Signal() == syscall.SIGTERM // before it listened to signals
	if !p.cmd.ProcessState.Success() && !early {
		p.t.Errorf("the %s ended with %v:\n%s", p.what, p.cmd.ProcessState, p.said())
	}
}

// freeze stops the process, and returns when none of its threads runs.
func (p *process) freeze() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	for end := time.Now().Add(rig.Patience); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if p.ended() {
			p.t.Fatalf("the %s ended by itself: %v\n%s", p.what, p.cmd.ProcessState, p.said())
		}
		if frozen(p.cmd.Process.Pid) {
			return
		}
	}
	p.t.Fatalf("the %s does not stop", p.what)
}

// frozen reports whether every thread of a process is stopped (proc(5), stat).
func frozen(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range stats {
		text, failed := os.ReadFile(name)
		_, state, ok := strings.Cut(string(text), ") ")
		if failed != nil || !ok || state[0] != 'T' {
			return false
		}
	}
	return err == nil && len(stats) > 0
}

func (p *process) thaw() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }
