package mem

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/collect/collecttest"
)

func TestLinuxGolden(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "")
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(sourceAt(root, 4096).read)
		lines := collecttest.Read(t, c)
		time.Sleep(2 * time.Second)
		collecttest.Lay(t, root, "testdata/linux-later.txtar", "")
		lines = append(lines, collecttest.Read(t, c)...)
		collecttest.Golden(t, "testdata/linux.golden", Schema, lines)
	})
}

func TestMissingFilesAreNamed(t *testing.T) {
	root := t.TempDir()
	c := newCollector(sourceAt(root, 4096).read)
	if err := c.Read(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "meminfo") {
		t.Errorf("without meminfo: %v", err)
	}
	collecttest.Write(t, root, "meminfo", "MemTotal: 100 kB\nMemFree: 10 kB\n")
	collecttest.Write(t, root, "pressure/memory", "garbage\n")
	collecttest.Write(t, root, "pressure/io", "some avg10=1.00 avg60=0.00 avg300=0.00 total=5\n")
	lines := string(collecttest.Read(t, c))
	collecttest.Validate(t, Schema, []byte(lines))
	for _, want := range []string{`"page_faults: open `, `"pressure: parse pressure: `, `"disk_pressure":{"some":`} {
		if !strings.Contains(lines, want) {
			t.Errorf("no %s in %s", want, lines)
		}
	}
	for _, not := range []string{"used_bytes", "available_bytes", "swap", `"full"`} {
		if strings.Contains(lines, not) {
			t.Errorf("%s in %s", not, lines)
		}
	}
}

func TestKernelWithoutPressureIsNoError(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "")
	if err := os.RemoveAll(filepath.Join(root, "pressure")); err != nil {
		t.Fatal(err)
	}
	if line := string(collecttest.Read(t, newCollector(sourceAt(root, 4096).read))); strings.Contains(line, "pressure") {
		t.Errorf("pressure or an error about it in %s", line)
	}
}
