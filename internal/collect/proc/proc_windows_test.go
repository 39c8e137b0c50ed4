package proc

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/rea-agent/rea/internal/event"
)

// crowd starts n processes that wait for the end of the test.
func crowd(t testing.TB, n int) {
	t.Helper()
	for range n {
		cmd := exec.Command("cmd.exe", "/d", "/k", "@rem") // waits for a command
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = in.Close() // which ends it
			_ = cmd.Wait() // with any code
		})
	}
}

// A cycle is one system call into one buffer, however many processes there are.
func TestACycleOfAHundredProcessesUsesTheSameBuffer(t *testing.T) {
	const processes = 100
	crowd(t, processes)
	c := New(Config{TopN: 5})
	read := func() {
		t.Helper()
		if err := c.Read(t.Context(), func(context.Context, ...event.Event) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	read()
	s := c.sys.(*nt)
	buffer, ask, calls := unsafe.SliceData(s.buf), s.ask, 0
	s.ask = func(class int32, into unsafe.Pointer, size uint32, n *uint32) error {
		calls++
		return ask(class, into, size, n)
	}
	const cycles = 20
	began := time.Now()
	for range cycles {
		read()
	}
	took := time.Since(began)
	if calls != cycles {
		t.Errorf("%d calls in %d cycles", calls, cycles)
	}
	if n := len(c.table.byPID); n < processes {
		t.Errorf("%d processes are seen of %d and more", n, processes)
	}
	if unsafe.SliceData(s.buf) != buffer {
		t.Error("the buffer was made anew")
	}
	allocs := testing.AllocsPerRun(cycles, read)
	t.Logf("%d processes: %v and %.0f allocations a cycle", len(c.table.byPID), took/cycles, allocs)
	if allocs > 10 {
		t.Errorf("%.0f allocations a cycle", allocs)
	}
}

// Opening a process is dear, and guards of the machine look at who does it.
func TestAProcessIsOpenedOnceWhenItIsListedFirst(t *testing.T) {
	const processes = 50 // more than the lists of all readings can hold
	crowd(t, processes)
	c := New(Config{TopN: 3})
	s := c.sys.(*nt)
	type life struct {
		pid   uint32
		start uint64
	}
	opened, want, open := map[life]int{}, map[life]int{}, s.open
	s.open = func(p *process) (windows.Handle, error) {
		opened[life{p.pid, p.start}]++
		return open(p)
	}
	for range 5 {
		if err := c.Read(t.Context(), func(context.Context, ...event.Event) error { return nil }); err != nil {
			t.Fatal(err)
		}
		for _, p := range c.listed {
			if p.pid != systemPID {
				want[life{p.pid, p.start}] = 1
			}
		}
	}
	if n := len(c.table.byPID); n < processes || len(want) == 0 {
		t.Fatalf("%d processes are seen, %d listed: this test shows nothing", n, len(want))
	}
	if !maps.Equal(opened, want) {
		t.Errorf("processes were opened so often: %v, want %v", opened, want)
	}
}

func TestTheProgramOfAProcessIsNamed(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := newSystem(Default()).(*nt)
	s.path = s.path[:1] // so that it has to grow
	table := newTable()
	table.begin(time.Now())
	if err := s.scan(&table); err != nil {
		t.Fatal(err)
	}
	p := table.byPID[uint32(os.Getpid())]
	if p == nil {
		t.Fatal("this process is not seen")
	}
	if errs := s.details([]*process{p}, &table, nil); len(errs) > 0 || !strings.EqualFold(p.executable, own) || p.user != "" || p.command != "" {
		t.Errorf("%q, want %q; user %q, command line %q: %q", p.executable, own, p.user, p.command, errs)
	}
}
