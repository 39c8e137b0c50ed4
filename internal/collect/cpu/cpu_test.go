package cpu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rogpeppe/go-internal/txtar"
)

// A processor is one SYSTEM_PROCESSOR_PERFORMANCE_INFORMATION, in seconds.
type processor struct {
	idle, kernel, user, dpc, interrupt uint64
	interrupts                         uint32
}

func processors(list ...processor) (b []byte) {
	for _, p := range list {
		for _, s := range []uint64{p.idle, p.kernel, p.user, p.dpc, p.interrupt} {
			b = binary.LittleEndian.AppendUint64(b, s*1e7)
		}
		b = binary.LittleEndian.AppendUint32(b, p.interrupts)
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

func performance(switches uint32) []byte {
	b := make([]byte, 344)
	binary.LittleEndian.PutUint32(b[296:], switches)
	return b
}

func power(mhz ...uint32) (b []byte) {
	for i, f := range mhz {
		for _, v := range []uint32{uint32(i), 4000, f, 4000, 0, 0} {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
	}
	return b
}

// records are what GetLogicalProcessorInformationEx writes for n cores.
func records(n int) []byte {
	one := make([]byte, 48)
	one[4] = 48
	return bytes.Repeat(one, n)
}

func TestWindowsGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		readings := [][]processor{
			{{idle: 900, kernel: 1000, user: 200, dpc: 5, interrupt: 10, interrupts: 5000}, {idle: 950, kernel: 1010, user: 190, dpc: 1, interrupt: 2, interrupts: 4000}},
			{{idle: 900, kernel: 1001, user: 201, dpc: 5, interrupt: 10, interrupts: 5500}, {idle: 952, kernel: 1012, user: 190, dpc: 1, interrupt: 2, interrupts: 4100}},
		}
		turn := 0
		c := newCollector(func(r *Reading) error {
			if err := parseProcessors(processors(readings[turn]...), event.Maybe[int64]{}, r); err != nil {
				return err
			}
			sumCores(r)
			r.Logical = event.Known(int64(len(r.Cores)))
			parsePower(power(2600, 1800), r.Cores)
			var err, err2 error
			r.Physical, err = countRecords(records(1))
			r.Switches.Total, err2 = parsePerformance(performance(uint32(70000 + 300*turn)))
			turn++
			return errors.Join(err, err2)
		})
		lines := collecttest.Read(t, c)
		time.Sleep(2 * time.Second)
		lines = append(lines, collecttest.Read(t, c)...)
		collecttest.Golden(t, "testdata/windows.golden", Schema, lines)
	})
}

func TestWindowsWithoutTimesOfCores(t *testing.T) {
	idling := uint64(900e7)
	c := newCollector(func(r *Reading) error {
		r.fail("cores", errors.New("query processor times: not implemented"))
		r.All.Time = systemTimes(idling, 1000e7+(idling-900e7), 50e7)
		sumCores(r)
		idling += 5e7
		return nil
	})
	collecttest.Validate(t, Schema, collecttest.Read(t, c))
	lines := collecttest.Read(t, c)
	collecttest.Validate(t, Schema, lines)
	if want := `"utilization":0,"time_ratio":{"user":0,"system":0,"idle":1},"time_seconds":{"user":50,"system":100,"idle":905}`; !strings.Contains(string(lines), want) {
		t.Errorf("no %s in %s", want, lines)
	}
}

func times(t ...float64) (all Times) {
	for m, v := range t {
		all[m] = event.Known(v)
	}
	return all
}

func TestSharesOfTime(t *testing.T) {
	for name, c := range map[string]struct {
		before, now Times
		busy        event.Maybe[float64]
		idle        event.Maybe[float64]
	}{
		"divide what passed":                   {times(1, 0, 1, 8, 0), times(2, 0, 2, 9, 1), event.Known(0.5), event.Known(0.25)},
		"iowait that falls a little is none":   {times(1, 0, 1, 8, 1), times(2, 0, 1, 9, 0.9), event.Known(0.5), event.Known(0.5)},
		"a reset of the core tells nothing":    {times(100, 0, 50, 800, 0), times(0, 0, 0, 1, 0), event.Maybe[float64]{}, event.Maybe[float64]{}},
		"no time passed tells nothing":         {times(1, 0, 1, 8, 0), times(1, 0, 1, 8, 0), event.Maybe[float64]{}, event.Maybe[float64]{}},
		"other modes than before tell nothing": {times(1, 0, 1, 8), times(2, 0, 2, 9, 1), event.Maybe[float64]{}, event.Maybe[float64]{}},
	} {
		t.Run(name, func(t *testing.T) {
			u := Usage{Time: c.now}
			u.since(&Usage{Time: c.before})
			if u.Busy != c.busy || u.Shares[idle] != c.idle {
				t.Errorf("busy %v, idle %v; want %v, %v", u.Busy, u.Shares[idle], c.busy, c.idle)
			}
		})
	}
}

func TestManyCoresFillSeveralEvents(t *testing.T) {
	c := newCollector(func(r *Reading) error {
		r.All.Time = times(1, 1, 1, 1, 1, 1, 1, 1)
		for n := range int64(150) {
			r.Cores = append(r.Cores, Core{Number: n, Usage: Usage{Time: r.All.Time}})
		}
		return nil
	})
	for range 2 {
		var counts []int
		seen := int64(0)
		err := c.Read(t.Context(), func(_ context.Context, events ...event.Event) error {
			for _, ev := range events {
				cores, rest := ev.Body.(*Cores)
				if !rest {
					first := ev.Body.(*Reading).Cores[:coresPerEvent]
					cores = &first
				}
				counts = append(counts, len(*cores))
				for _, core := range *cores {
					if core.Number != seen {
						t.Errorf("core %d where %d was expected", core.Number, seen)
					}
					seen++
				}
				if !ev.Time.Equal(events[0].Time) {
					t.Error("events of one reading differ in time")
				}
				line := collecttest.Encode(t, ev)
				collecttest.Validate(t, Schema, line)
				if n := bytes.Count(line, []byte(`"number"`)); n != len(*cores) || len(line) > 48<<10 {
					t.Errorf("a line of %d bytes with %d cores, want %d", len(line), n, len(*cores))
				}
			}
			return nil
		})
		if err != nil || !cmp.Equal(counts, []int{64, 64, 22}) {
			t.Errorf("events of %v cores, error %v", counts, err)
		}
	}
}

func TestReadingAfterAFailedOneHasNoRates(t *testing.T) {
	fail := errors.New("open /proc/stat: permission denied")
	steps := []error{nil, fail, nil}
	c := newCollector(func(r *Reading) error {
		err := steps[0]
		steps = steps[1:]
		r.All.Time = times(1, 1, 1, float64(8-len(steps)))
		return err
	})
	emit := func(context.Context, ...event.Event) error { return nil }
	for i, want := range []error{nil, fail, nil} {
		if err := c.Read(t.Context(), emit); !errors.Is(err, want) {
			t.Errorf("reading %d returned %v", i, err)
		}
	}
	if c.now.All.Busy.Known {
		t.Error("shares of the time since a reading that failed")
	}
}

func TestParsingRefuses(t *testing.T) {
	for name, err := range map[string]error{
		"stat without times":             parseStat([]byte("intr 5\nctxt 7\n"), new(Reading)),
		"stat cut within the modes":      parseStat([]byte("cpu  1 2"), new(Reading)),
		"stat with a core of no number":  parseStat([]byte("cpu  1 2 3 4\ncpux 1 2 3 4\n"), new(Reading)),
		"processors cut":                 parseProcessors(make([]byte, 47), event.Maybe[int64]{}, new(Reading)),
		"no processors":                  parseProcessors(nil, event.Maybe[int64]{}, new(Reading)),
		"two load averages":              second(parseLoad([]byte("0.1 0.2"))),
		"a load average that is none":    second(parseLoad([]byte("0.1 NaN 0.3 1/2 3"))),
		"performance cut":                second(parsePerformance(make([]byte, 100))),
		"a record without end":           second(countRecords([]byte{0, 0, 0, 0, 0, 0, 0, 0})),
		"a record longer than the table": second(countRecords([]byte{0, 0, 0, 0, 9, 0, 0, 0})),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestParsingDoesNotAllocate(t *testing.T) {
	a, err := txtar.ParseFile("testdata/linux.txtar")
	if err != nil {
		t.Fatal(err)
	}
	file := make(map[string][]byte)
	for _, f := range a.Files {
		file[f.Name] = f.Data
	}
	stat, load := file["proc/stat"], file["proc/loadavg"]
	r := &Reading{Cores: make(Cores, 0, 4)}
	if n := testing.AllocsPerRun(100, func() {
		r.Cores = r.Cores[:0]
		if parseStat(stat, r) != nil || second(parseLoad(load)) != nil {
			t.Fatal("does not parse")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzProc(f *testing.F) {
	a, err := txtar.ParseFile("testdata/linux.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range a.Files {
		f.Add(file.Data)
	}
	f.Add([]byte("processor\t: 0\ncpu MHz\t\t: 2596.150\nphysical id\t: 0\ncore id\t\t: 0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(Reading)
		if err := parseStat(b, r); err == nil && !r.All.Time[idle].Known {
			t.Error("accepted without times")
		}
		if load, err := parseLoad(b); err == nil && !(load[0] >= 0 && load[1] >= 0 && load[2] >= 0) {
			t.Errorf("load %v", load)
		}
		var cores []cpuinfo
		for line := range bytes.Lines(b) {
			cores = parseCPUInfo(line, cores)
		}
		if n := countPhysical(cores); n.Known && (n.V < 1 || n.V > int64(len(cores))) {
			t.Errorf("%d physical of %d cores", n.V, len(cores))
		}
		if n, ok := first(b); ok && n < 0 {
			t.Errorf("core %d", n)
		}
	})
}

func FuzzNT(f *testing.F) {
	f.Add(processors(processor{1, 2, 3, 0, 0, 4}, processor{}))
	f.Add(performance(7))
	f.Add(power(2600, 1800))
	f.Add(records(3))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(Reading)
		if err := parseProcessors(b, event.Known(int64(1)), r); err == nil {
			sumCores(r)
			if len(r.Cores) != len(b)/processorSize || !(r.All.Time[system].V >= 0) {
				t.Errorf("%d cores of %d bytes, system %v", len(r.Cores), len(b), r.All.Time[system])
			}
			parsePower(b, r.Cores)
		}
		if n, err := countRecords(b); err == nil && n.V > int64(len(b)/8) {
			t.Errorf("%d records in %d bytes", n.V, len(b))
		}
		if _, err := parsePerformance(b); err == nil && len(b) < performanceSize {
			t.Error("accepted what is too short")
		}
	})
}

func TestSchemaNamesEveryMode(t *testing.T) {
	for _, m := range modeNames {
		if strings.Count(Schema, `"`+m+`":`) != 4 {
			t.Errorf("mode %s is not in all four objects", m)
		}
	}
}

func drop(context.Context, ...event.Event) error { return nil }

// supported skips a test of this machine where it has no such collector.
func supported(t testing.TB, c *Collector) {
	t.Helper()
	if err := c.Read(t.Context(), drop); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
}

func TestThisMachine(t *testing.T) {
	c := New()
	supported(t, c)
	for range 2 {
		lines := collecttest.Read(t, c)
		collecttest.Validate(t, Schema, lines)
		if strings.Contains(string(lines), `"errors"`) {
			t.Errorf("errors in %s", lines)
		}
	}
	if n := c.now.Physical; !n.Known || n.V < 1 || n.V > c.now.Logical.V {
		t.Errorf("%v physical of %v cores", n, c.now.Logical)
	}
}

func BenchmarkRead(b *testing.B) {
	c := New()
	supported(b, c)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Read(b.Context(), drop); err != nil {
			b.Fatal(err)
		}
	}
}
