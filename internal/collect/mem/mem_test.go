package mem

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/test/windows/wine"
	"github.com/rogpeppe/go-internal/txtar"
)

// pagefiles are a chain of SYSTEM_PAGEFILE_INFORMATION with names behind them.
func pagefiles(list ...[2]uint32) (b []byte) {
	for i, f := range list {
		one := make([]byte, pagefileSize+16)
		if i < len(list)-1 {
			binary.LittleEndian.PutUint32(one, uint32(len(one)))
		}
		binary.LittleEndian.PutUint32(one[4:], f[0])
		binary.LittleEndian.PutUint32(one[8:], f[1])
		b = append(b, one...)
	}
	return b
}

func faults(n uint32) []byte {
	b := make([]byte, 344)
	binary.LittleEndian.PutUint32(b[60:], n)
	return b
}

func TestWindowsGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		count := uint32(123456)
		c := newCollector(func(r *Reading) error {
			r.Total, r.Available = event.Known(uint64(16<<30)), event.Known(uint64(10<<30))
			p := performance{commitTotal: 2 << 20, commitLimit: 5 << 20, systemCache: 1 << 20, kernelPaged: 100000, kernelNonpaged: 50000, pageSize: 4096}
			p.fill(r)
			var err, err2 error
			r.SwapTotal, r.SwapFree, err = parsePagefiles(pagefiles([2]uint32{1 << 18, 1 << 16}, [2]uint32{1 << 10, 0}), p.pageSize)
			r.PageFaults.Total, err2 = parsePageFaults(faults(count))
			count += 1000
			return errors.Join(err, err2)
		})
		lines := collecttest.Read(t, c)
		time.Sleep(2 * time.Second)
		lines = append(lines, collecttest.Read(t, c)...)
		collecttest.Golden(t, "testdata/windows.golden", Schema, lines)
	})
}

func TestUsed(t *testing.T) {
	known := event.Known[uint64]
	for name, c := range map[string]struct {
		total, left, used Bytes
		share             event.Maybe[float64]
	}{
		"is total less what is left":              {known(8), known(6), known(2), event.Known(0.25)},
		"has no share of nothing":                 {known(0), known(0), known(0), event.Maybe[float64]{}},
		"is not known where left is not":          {known(8), Bytes{}, Bytes{}, event.Maybe[float64]{}},
		"is not known where left exceeds total":   {known(8), known(9), Bytes{}, event.Maybe[float64]{}},
		"is not known where the total is unknown": {Bytes{}, known(9), Bytes{}, event.Maybe[float64]{}},
	} {
		if bytes, share := used(c.total, c.left); bytes != c.used || share != c.share {
			t.Errorf("used %s: %v, %v; want %v, %v", name, bytes, share, c.used, c.share)
		}
	}
}

func TestMachineWithoutPageFiles(t *testing.T) {
	total, free, err := parsePagefiles(nil, 4096)
	if err != nil || total != event.Known(uint64(0)) || free != event.Known(uint64(0)) {
		t.Errorf("%v, %v, %v", total, free, err)
	}
}

func TestParsingRefuses(t *testing.T) {
	for name, err := range map[string]error{
		"meminfo without a total":      parseMeminfo([]byte("MemFree: 5 kB\n"), new(Reading)),
		"a total out of range":         parseMeminfo([]byte("MemTotal: 18446744073709551615 kB\n"), new(Reading)),
		"vmstat without faults":        parseVmstat([]byte("pswpin 5\n"), 4096, new(Reading)),
		"performance cut":              second(parsePageFaults(make([]byte, 100))),
		"page files cut":               refused(pagefiles([2]uint32{5, 0})[:31]),
		"page files with a wrong link": refused(pagefiles([2]uint32{5, 0}, [2]uint32{5, 0})[:40]),
		"page files fuller than full":  refused(pagefiles([2]uint32{5, 6})),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func refused(b []byte) error {
	_, _, err := parsePagefiles(b, 4096)
	return err
}

func TestParsingDoesNotAllocate(t *testing.T) {
	a, err := txtar.ParseFile("testdata/linux.txtar")
	if err != nil {
		t.Fatal(err)
	}
	file := make(map[string][]byte)
	for _, f := range a.Files {
		file[f.Name] = f.Data
	}
	meminfo, vmstat := file["meminfo"], file["vmstat"]
	r := new(Reading)
	if n := testing.AllocsPerRun(100, func() {
		if parseMeminfo(meminfo, r) != nil || parseVmstat(vmstat, 4096, r) != nil {
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
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(Reading)
		if err := parseMeminfo(b, r); err == nil && !r.Total.Known {
			t.Error("accepted without a total")
		}
		if err := parseVmstat(b, 4096, r); err == nil && !r.PageFaults.Total.Known {
			t.Error("accepted without faults")
		}
		r.derive()
		if r.Used.Known && r.Used.V > r.Total.V || r.Utilization.V > 1 {
			t.Errorf("used %v of %v", r.Used, r.Total)
		}
	})
}

func FuzzNT(f *testing.F) {
	f.Add(pagefiles([2]uint32{1 << 18, 1 << 16}, [2]uint32{1 << 10, 0}))
	f.Add(faults(7))
	f.Fuzz(func(t *testing.T, b []byte) {
		if total, free, err := parsePagefiles(b, 4096); err == nil && free.V > total.V {
			t.Errorf("%v free of %v", free, total)
		}
		if n, err := parsePageFaults(b); err == nil && !n.Known {
			t.Error("no error and no number")
		}
	})
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
		// Wine does not tell of page files.
		if strings.Contains(string(lines), `"errors"`) && !(wine.Running() && strings.Contains(string(lines), `"errors":["swap_total_bytes: query system information 18: NTSTATUS 0xc0000003"]`)) {
			t.Errorf("errors in %s", lines)
		}
	}
	if !c.now.Utilization.Known || !c.now.PageFaults.Rate.Known {
		t.Errorf("this machine's reading lacks use or rates: %+v", c.now)
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
