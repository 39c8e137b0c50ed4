package cpu

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
)

func TestLinuxGolden(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "")
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(sourceAt(root).read)
		lines := collecttest.Read(t, c)
		time.Sleep(2 * time.Second)
		collecttest.Lay(t, root, "testdata/linux-later.txtar", "")
		lines = append(lines, collecttest.Read(t, c)...)
		collecttest.Golden(t, "testdata/linux.golden", Schema, lines)
	})
}

// reading takes a reading of the machine below root and returns it.
func reading(t *testing.T, c *Collector) Reading {
	t.Helper()
	if err := c.Read(t.Context(), func(context.Context, ...event.Event) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return *c.now
}

func TestCoresComeAndGo(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "")
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(sourceAt(root).read)
		reading(t, c)
		time.Sleep(2 * time.Second)
		collecttest.Write(t, root, "proc/stat", "cpu  100100 2000 50000 1000300 3000 400 500 600 0 0\n"+
			"cpu1 25000 500 12500 250200 750 100 125 150 0 0\n"+
			"cpu3 25100 500 12500 250100 750 100 125 150 0 0\n"+
			"cpu9 1 0 1 5 0 0 0 0 0 0\n")
		collecttest.Write(t, root, "sys/devices/system/cpu/cpu9/topology/thread_siblings_list", "9\n")
		r := reading(t, c)
		if r.Logical != event.Known(int64(3)) || r.Physical != event.Known(int64(2)) {
			t.Errorf("%v logical and %v physical cores, want 3 and 2", r.Logical, r.Physical)
		}
		for i, want := range []event.Maybe[float64]{event.Known(0.0), event.Known(0.5), {}} {
			if r.Cores[i].Busy != want {
				t.Errorf("core %d is busy %v, want %v", r.Cores[i].Number, r.Cores[i].Busy, want)
			}
		}
		if r.Switches.Total.Known || r.Switches.Rate.Known {
			t.Error("context switches that the file does not hold")
		}
	})
}

func TestFrequencies(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "")
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(sourceAt(root).read)
		want := func(when string, hertz float64) {
			t.Helper()
			if f := reading(t, c).Cores[0].Frequency; f != (event.Maybe[float64]{V: hertz, Known: hertz > 0}) {
				t.Errorf("%s: frequency of core 0 is %v, want %v", when, f, hertz)
			}
		}
		want("at first", 3.6e9)
		collecttest.Write(t, root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1200000\n")
		time.Sleep(59 * time.Second)
		want("within the minute", 3.6e9)
		time.Sleep(time.Second)
		want("after a minute", 1.2e9)
		if err := os.RemoveAll(filepath.Join(root, "sys/devices/system/cpu/cpu0/cpufreq")); err != nil {
			t.Fatal(err)
		}
		collecttest.Write(t, root, "proc/cpuinfo", "processor\t: 0\nflags\t\t: "+strings.Repeat("flag ", 5000)+"\ncpu MHz\t\t: 2596.150\n\nprocessor\t: 1\ncpu MHz\t\t: 1000.5\n")
		time.Sleep(time.Minute)
		want("from cpuinfo", 2596.15e6)
	})
}

func TestPhysicalCoresFromCPUInfo(t *testing.T) {
	root := t.TempDir()
	collecttest.Write(t, root, "proc/stat", "cpu  1 1 1 1\ncpu0 1 1 1 1\ncpu1 1 1 1 1\ncpu2 1 1 1 1\n")
	collecttest.Write(t, root, "proc/cpuinfo", "processor : 0\nphysical id : 0\ncore id : 0\nprocessor : 1\nphysical id : 0\ncore id : 0\nprocessor : 2\nphysical id : 1\ncore id : 0\n")
	if r := reading(t, newCollector(sourceAt(root).read)); r.Physical != event.Known(int64(2)) {
		t.Errorf("%v physical cores, want 2", r.Physical)
	}
}

func TestMissingFilesAreNamed(t *testing.T) {
	root := t.TempDir()
	c := newCollector(sourceAt(root).read)
	if err := c.Read(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "proc/stat") {
		t.Errorf("without /proc/stat: %v", err)
	}
	collecttest.Write(t, root, "proc/stat", "cpu  1 1 1 1\ncpu0 1 1 1 1\n")
	collecttest.Write(t, root, "proc/pressure/cpu", "garbage\n")
	r := reading(t, c)
	if len(r.errors) != 2 || !strings.HasPrefix(r.errors[0], "load_average: open ") || r.errors[1] != "pressure: parse pressure: no line of some" {
		t.Errorf("errors are %q", r.errors)
	}
	if r.Physical.Known || r.Load.Known || r.Pressure.Known {
		t.Errorf("told what could not be read: %+v", r)
	}
	collecttest.Validate(t, Schema, collecttest.Read(t, c))
}

func TestKernelWithoutPressureIsNoError(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "")
	if err := os.RemoveAll(filepath.Join(root, "proc/pressure")); err != nil {
		t.Fatal(err)
	}
	if r := reading(t, newCollector(sourceAt(root).read)); r.Pressure.Known || len(r.errors) > 0 {
		t.Errorf("pressure %v, errors %q", r.Pressure, r.errors)
	}
}
