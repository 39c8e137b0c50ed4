package proc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
)

// ntMachine is a Windows machine whose process table is the bytes of buf.
type ntMachine struct {
	buf []byte
	err error
}

func (m *ntMachine) scan(t *table) error {
	if m.err != nil {
		return m.err
	}
	return ntScan(m.buf, ntBase, t)
}

func (m *ntMachine) details(listed []*process, _ *table, errs []string) []string {
	for _, p := range listed {
		p.executable, p.user, p.command = `C:\Program Files\`+p.name, `LAB\anna`, `"C:\Program Files\`+p.name+`" -k`
	}
	return errs
}

func (m *ntMachine) forget(*process)    {}
func (m *ntMachine) states() []state    { return windowsStates }
func (m *ntMachine) cpus() (int, error) { return 8, nil }
func (m *ntMachine) close()             {}

// bodies decodes what stands under "process" in each line.
func bodies(t *testing.T, lines []byte) []map[string]any {
	t.Helper()
	var list []map[string]any
	for line := range bytes.Lines(lines) {
		var ev struct{ Process map[string]any }
		if err := json.Unmarshal(line, &ev); err != nil {
			t.Fatal(err)
		}
		list = append(list, ev.Process)
	}
	return list
}

// member finds the process with pid in a list of a body.
func member(body map[string]any, list string, pid float64) map[string]any {
	for _, v := range body[list].([]any) {
		if p := v.(map[string]any); p["pid"] == pid {
			return p
		}
	}
	return nil
}

func TestWindowsGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := ntFake{user: 1 << 50, threads: []ntThread{{threadRunning, 0}, {threadRunning, 0}}}
		system := ntFake{
			pid: 4, name: "System", created: 125_911_584_000_000_000, kernel: 900_000_000, workingSet: 148 << 10,
			private: 60 << 10, commit: 196 << 10, virtual: 4 << 20, handles: 4012, read: 1 << 20, written: 9 << 20,
			threads: []ntThread{{threadWaiting, 0}, {threadReady, 0}},
		}
		app := ntFake{
			pid: 5320, parent: 4100, name: "Taschenrechner.exe", created: 125_911_584_500_000_000, user: 1_562_500,
			workingSet: 1 << 20, private: 1 << 19, commit: 22 << 20, virtual: 2 << 40, handles: 540,
			threads: []ntThread{{threadWaiting, waitSuspended}, {threadWaiting, waitSuspended}},
		}
		service := ntService
		service.created = 125_911_584_100_000_000
		m := &ntMachine{buf: ntBuffer(idle, system, service, app)}
		c := newCollector(Config{TopN: 2, CommandLines: true, Users: true}, m)
		lines := collecttest.Read(t, c)

		time.Sleep(2 * time.Second)
		service.user += 10_000_000 // 1 s in 2 s: half a core
		service.read += 8192
		service.written = 0 // went backwards: reset
		m.buf = ntBuffer(idle, system, service, app)
		collecttest.Golden(t, "testdata/windows.golden", Schema, append(lines, collecttest.Read(t, c)...))
	})
}

func TestAReusedPIDIsANewProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &ntMachine{buf: ntBuffer(ntService)}
		c := newCollector(Default(), m)
		lines := collecttest.Read(t, c)
		time.Sleep(2 * time.Second)
		other := ntService
		other.name, other.created, other.user = "other.exe", ntService.created+1, ntService.user+50_000_000
		m.buf = ntBuffer(other)
		lines = append(lines, collecttest.Read(t, c)...)
		collecttest.Validate(t, Schema, lines)
		p := member(bodies(t, lines)[1], "top_cpu", 1234)
		if p["name"] != "other.exe" {
			t.Errorf("name of the process before: %v", p["name"])
		}
		for _, rate := range []string{"cpu_utilization", "cpu_utilization_core", "read_bytes_per_second"} {
			if v, ok := p[rate]; ok {
				t.Errorf("%s of a process that is new: %v", rate, v)
			}
		}
	})
}

func TestCPUTimeThatWentBackwardsHasNoRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &ntMachine{buf: ntBuffer(ntService)}
		c := newCollector(Default(), m)
		lines := collecttest.Read(t, c)
		time.Sleep(time.Second)
		less := ntService
		less.user -= 10_000_000
		m.buf = ntBuffer(less)
		body := bodies(t, append(lines, collecttest.Read(t, c)...))[1]
		if list := body["top_cpu"].([]any); len(list) != 0 {
			t.Errorf("listed by CPU: %v", list)
		}
		if p := member(body, "top_memory", 1234); p["cpu_utilization_core"] != nil || p["cpu_time_seconds"] != 4.0 {
			t.Errorf("%v", p)
		}
	})
}

func TestAfterAFailedScanRatesBeginAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &ntMachine{buf: ntBuffer(ntService)}
		c := newCollector(Default(), m)
		collecttest.Read(t, c)
		time.Sleep(time.Second)
		m.err = errors.New("no memory")
		emitted := 0
		err := c.Read(t.Context(), func(context.Context, ...event.Event) error { emitted++; return nil })
		if !errors.Is(err, m.err) || emitted > 0 {
			t.Errorf("%v, %d emitted", err, emitted)
		}
		time.Sleep(time.Second)
		m.err = nil
		p := member(bodies(t, collecttest.Read(t, c))[0], "top_cpu", 1234)
		if p == nil || p["cpu_utilization"] != nil || p["read_bytes_per_second"] != nil {
			t.Errorf("%v", p)
		}
	})
}

func TestWithoutListsThereAreCountsAlone(t *testing.T) {
	c := newCollector(Config{TopN: 0}, &ntMachine{buf: ntBuffer(ntService)})
	lines := collecttest.Read(t, c)
	collecttest.Validate(t, Schema, lines)
	want := map[string]any{
		"count": 1.0, "threads": 2.0, "by_state": map[string]any{"running": 0.0, "sleeping": 1.0, "stopped": 0.0},
	}
	if d := cmp.Diff(want, bodies(t, lines)[0]); d != "" {
		t.Error(d)
	}
	if bytes.Contains(lines, []byte("redacted")) {
		t.Errorf("nothing was left out: %s", lines)
	}
}

func TestWhatIsNotReadIsNamedAsRedacted(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want []string
	}{
		{Config{TopN: 1, CommandLines: true, Users: true}, nil},
		{Config{TopN: 1, CommandLines: true}, []string{"user"}},
		{Config{TopN: 1, Users: true}, []string{"command_line"}},
		{Config{TopN: 1}, []string{"command_line", "user"}},
	} {
		m := &ntMachine{buf: ntBuffer(ntService)}
		var ev struct{ Redacted []string }
		if err := json.Unmarshal(collecttest.Read(t, newCollector(c.cfg, m)), &ev); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, list := range []string{"top_cpu", "top_memory"} {
			for _, name := range c.want {
				want = append(want, strings.Join([]string{"process", list, name}, "."))
			}
		}
		if d := cmp.Diff(want, ev.Redacted); d != "" {
			t.Errorf("%+v: %s", c.cfg, d)
		}
	}
}

func TestPersonalTextsPassTheRedactor(t *testing.T) {
	c := newCollector(Config{TopN: 1, CommandLines: true, Users: true}, &ntMachine{buf: ntBuffer(ntService)})
	classes := map[string]event.Class{}
	redact := func(_ event.Kind, _ string, class event.Class, s string) (string, bool, string) {
		classes[s] = class
		return "", false, ""
	}
	err := c.Read(t.Context(), func(_ context.Context, events ...event.Event) error {
		line, err := event.NewEncoder(collecttest.Stamp, redact, 0).Append(nil, &events[0], 1)
		if bytes.Contains(line, []byte("anna")) || bytes.Contains(line, []byte(" -k")) {
			t.Errorf("not redacted: %s", line)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]event.Class{`C:\Program Files\svc-höst.exe`: event.Path, `LAB\anna`: event.Account, `"C:\Program Files\svc-höst.exe" -k`: event.Command}
	if d := cmp.Diff(want, classes); d != "" {
		t.Error(d)
	}
}

func TestTopKeepsTheFirstOfAnyOrder(t *testing.T) {
	all := make([]*process, 200)
	for i := range all {
		all[i] = &process{pid: uint32(i + 1), spent: time.Duration(i % 17), facts: facts{resident: uint64(i % 5)}}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for name, order := range map[string]func(a, b *process) int{"cpu": byCPU, "memory": byMemory} {
		want := slices.SortedFunc(slices.Values(all), order)
		for _, n := range []int{0, 1, 3, 64, 200, 300} {
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			list := newTop(n, order)
			for _, p := range all {
				list.offer(p)
			}
			if !slices.Equal(list.list, want[:min(n, len(want))]) {
				t.Errorf("%s: another top %d", name, n)
			}
		}
	}
}

func TestACounterHasARateOnlyFromOneReadingToTheNext(t *testing.T) {
	var c counter
	for _, step := range []struct {
		value, reading uint64
		want           event.Maybe[uint64]
	}{
		{100, 1, event.Maybe[uint64]{}}, // the first
		{150, 2, event.Known[uint64](50)},
		{150, 3, event.Known[uint64](0)},
		{160, 5, event.Maybe[uint64]{}}, // one was left out
		{150, 6, event.Maybe[uint64]{}}, // went backwards
		{151, 7, event.Known[uint64](1)},
	} {
		c.set(step.value, step.reading)
		if c.grown != step.want || c.total.V != step.value {
			t.Errorf("%+v: %+v", step, c)
		}
	}
}

func TestListsAreBounded(t *testing.T) {
	for n, want := range map[int]int{-1: 0, 0: 0, 10: 10, 1000: MaxTopN} {
		if c := newCollector(Config{TopN: n}, &ntMachine{}); c.reading.topCPU.n != want {
			t.Errorf("%d: %d", n, c.reading.topCPU.n)
		}
	}
}

// A closing machine says when it is closed.
type closing struct {
	ntMachine
	closed chan struct{}
}

func (m *closing) close() { close(m.closed) }

func TestACollectorThatNobodyHasIsClosed(t *testing.T) {
	m := &closing{ntMachine{buf: ntBuffer(ntService)}, make(chan struct{})}
	func() { collecttest.Read(t, newCollector(Default(), m)) }()
	runtime.GC()
	<-m.closed
}

func TestThisMachine(t *testing.T) {
	c := New(Config{TopN: 5, CommandLines: true, Users: true})
	if runtime.GOOS != "linux" && runtime.GOOS != "windows" {
		if err := c.Read(t.Context(), nil); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v, want to hear that this system is not supported", err)
		}
		return
	}
	lines := collecttest.Read(t, c)
	lines = append(lines, collecttest.Read(t, c)...)
	collecttest.Validate(t, Schema, lines)
	for _, body := range bodies(t, lines) {
		if body["count"].(float64) < 1 || body["threads"].(float64) < body["count"].(float64) {
			t.Errorf("count %v, threads %v", body["count"], body["threads"])
		}
		sum := 0.0
		for _, n := range body["by_state"].(map[string]any) {
			sum += n.(float64)
		}
		if sum != body["count"] {
			t.Errorf("states sum up to %v of %v", sum, body["count"])
		}
	}
	if p := c.table.byPID[uint32(os.Getpid())]; p == nil || int(p.parent) != os.Getppid() || p.resident == 0 {
		t.Errorf("this process is %+v", p)
	}
}
