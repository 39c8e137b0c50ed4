package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
)

// interval is the time between the two readings of the golden tests.
const interval = 2 * time.Second

// fake returns a Collector of the volumes and stats that a test sets, whose
// file systems answer by measure.
func fake(s *sample, measure func(*volume) (usage, error)) *Collector {
	return &Collector{
		timeout: DefaultProbeTimeout,
		measure: measure,
		kind:    func(string) string { return "disk" },
		read: func(_ time.Time, out *sample) error {
			out.volumes = s.volumes
			out.stats = append(out.stats, s.stats...)
			out.errs = append(out.errs, s.errs...)
			return nil
		},
	}
}

func full(*volume) (usage, error) {
	return usage{total: 1000, free: 250, available: 200}, nil
}

// body is a disk event as a reader of JSON sees it.
type body struct {
	Errors []string
	Disk   struct {
		Mounts []struct {
			Mountpoint, State string
			Utilization       *float64
		}
		Devices []map[string]any
	}
}

func decode(t *testing.T, lines []byte) (events []body) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		var b body
		if err := json.Unmarshal(line, &b); err != nil {
			t.Fatal(err)
		}
		events = append(events, b)
	}
	return events
}

func states(b body) string {
	var s []string
	for _, m := range b.Disk.Mounts {
		s = append(s, m.Mountpoint+" "+m.State)
	}
	return strings.Join(s, ", ")
}

func TestWindowsGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := `\Device\Mup\;LanmanRedirector\;Z:00000000000a1b2c\files\team`
		s := &sample{volumes: []volume{
			localVolume(`\\?\Volume{11111111-0000-0000-0000-000000000001}\`, []string{`C:\`}),
			localVolume(`\\?\Volume{11111111-0000-0000-0000-000000000002}\`, nil),
			localVolume(`\\?\Volume{11111111-0000-0000-0000-000000000003}\`, []string{`C:\Users\ann\data\`, `E:\`}),
			localVolume(`\\?\Volume{11111111-0000-0000-0000-000000000004}\`, []string{`D:\`}), // no disc in it
			localVolume(`\\?\Volume{11111111-0000-0000-0000-000000000005}\`, []string{`F:\`}),
		}}
		if share, ok := driveVolume('Z', target); ok {
			s.volumes = append(s.volumes, share)
		}
		answers := map[string]volumeAnswer{
			s.volumes[0].path: {"NTFS", 0x03e72eff, 100 << 30, 237 << 30, 100 << 30},
			s.volumes[1].path: {"NTFS", 0x03e72eff, 80 << 20, 500 << 20, 80 << 20},
			s.volumes[2].path: {"ReFS", 0x03e72eff | fileReadOnlyVolume, 0, 1 << 40, 0},
			s.volumes[3].path: {},
			s.volumes[5].path: {"NTFS", 0x000700ff, 5 << 30, 10 << 30, 6 << 30},
		}
		c := fake(s, func(v *volume) (usage, error) {
			a, ok := answers[v.path]
			if !ok {
				return usage{}, errors.New("GetVolumeInformation: access is denied")
			}
			return a.usage(), nil
		})
		var lines []byte
		for i := range int64(2) {
			st, ok := parsePerformance("PhysicalDrive0", performance(i))
			if !ok {
				t.Fatal("not a DISK_PERFORMANCE")
			}
			s.stats = []stat{st}
			lines = append(lines, collecttest.Read(t, c)...)
			time.Sleep(interval)
		}
		collecttest.Golden(t, "testdata/windows.golden", Schema, lines)
	})
}

// performance is a DISK_PERFORMANCE, i intervals after the first: 1 MiB read by
// 64 operations of 2 ms, 4 MiB written by 32 of 5 ms, and half the time idle.
func performance(i int64) []byte {
	var b bytes.Buffer
	for _, v := range []any{
		9<<30 + i<<20, 5<<30 + i<<22, 7_000_000 + i*64*20_000, 9_000_000 + i*32*50_000,
		1_000_000_000 + i*10_000_000, uint32(120_000 + i*64), uint32(80_000 + i*32), uint32(1), uint32(12),
		133_000_000_000_000_000 + i*20_000_000, uint32(0), utf16z("PhysDisk"), uint32(0),
	} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func utf16z(s string) (u [8]uint16) {
	for i, c := range s {
		u[i] = uint16(c)
	}
	return u
}

func TestEncodingAllocatesNothing(t *testing.T) {
	st, _ := parsePerformance("PhysicalDrive0", performance(0))
	c := fake(&sample{volumes: []volume{{mountpoint: "/", device: "/dev/sda1", fsType: "ext4"}}, stats: []stat{st}}, full)
	collecttest.EncodesWithoutAllocating(t, c)
}

func TestMountThatHangsHarmsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := make(chan struct{})
		asked := 0
		s := &sample{volumes: []volume{{id: 1, mountpoint: "/"}, {id: 2, mountpoint: "/dead"}, {id: 3, mountpoint: "/srv"}}}
		c := fake(s, func(v *volume) (usage, error) {
			if v.mountpoint == "/dead" {
				asked++
				<-dead
			}
			return full(v)
		})
		steps := []struct {
			name, want, err string
			before          func()
			takes           time.Duration
		}{
			{"first reading waits until time is up", "/ ok, /dead timeout, /srv ok", "mounts[1]: no answer for 2s", func() {}, DefaultProbeTimeout},
			{"next one does not wait", "/ ok, /dead timeout, /srv ok", "mounts[1]: no answer for 4s", func() {}, 0},
			{"answer brings it back", "/ ok, /dead ok, /srv ok", "", func() { close(dead); synctest.Wait() }, 0},
		}
		for i, step := range steps {
			time.Sleep(time.Duration(i) * interval)
			step.before()
			start := time.Now()
			got := decode(t, collecttest.Read(t, c))[0]
			if took := time.Since(start); took != step.takes {
				t.Errorf("%s: took %v, want %v", step.name, took, step.takes)
			}
			if states(got) != step.want || strings.Join(got.Errors, "; ") != step.err {
				t.Errorf("%s: got %q with errors %q", step.name, states(got), got.Errors)
			}
		}
		if asked != 2 {
			t.Errorf("the dead mount was asked %d times, want once while it hung and once after", asked)
		}
	})
}

func TestReadingThatIsCancelledDoesNotWaitForMounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := make(chan struct{})
		defer close(dead)
		s := &sample{volumes: []volume{{mountpoint: "/dead"}}}
		c := fake(s, func(v *volume) (usage, error) { <-dead; return full(v) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		var got body
		err := c.Read(ctx, func(_ context.Context, events ...event.Event) error {
			got = decode(t, collecttest.Encode(t, events...))[0]
			return nil
		})
		if err != nil || time.Since(start) != time.Second || states(got) != "/dead timeout" {
			t.Errorf("after %v: %q, error %v", time.Since(start), states(got), err)
		}
	})
}

func TestChangedMountTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := make(chan struct{})
		s := &sample{volumes: []volume{{id: 1, mountpoint: "/"}, {id: 2, mountpoint: "/dead"}}}
		c := fake(s, func(v *volume) (usage, error) {
			if v.id == 2 {
				<-dead
			}
			return full(v)
		})
		collecttest.Read(t, c)
		root := c.known[0].probe
		hung := c.known[1].probe

		s.volumes = []volume{{id: 3, mountpoint: "/dead"}, {id: 1, mountpoint: "/"}}
		if got := states(decode(t, collecttest.Read(t, c))[0]); got != "/dead ok, / ok" {
			t.Errorf("mounted anew: got %q", got)
		}
		if c.known[1].probe != root || len(c.orphans) != 1 || c.orphans[0] != hung {
			t.Errorf("probes were not kept: %v %v", c.known, c.orphans)
		}
		close(dead)
		synctest.Wait()
		collecttest.Read(t, c)
		if len(c.orphans) != 0 {
			t.Error("a probe that came back is still waited for")
		}
	})
}

func TestHangingProbesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := make(chan struct{})
		defer close(dead)
		s := &sample{}
		var hanging atomic.Int32
		c := fake(s, func(v *volume) (usage, error) { hanging.Add(1); <-dead; return full(v) })
		for id := range uint64(maxHanging + 50) {
			s.volumes = []volume{{id: id + 1, mountpoint: "/dead"}} // mounted, hangs, detached
			collecttest.Read(t, c)
		}
		if n := hanging.Load(); n != maxHanging {
			t.Errorf("%d probes hang, want %d", n, maxHanging)
		}
		got := decode(t, collecttest.Read(t, c))[0]
		if states(got) != "/dead timeout" || len(got.Errors) != 1 || !strings.Contains(got.Errors[0], errCrowded.Error()) {
			t.Errorf("a mount that was not asked: %q %q", states(got), got.Errors)
		}
	})
}

func TestLongListsAreSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sample{}
		for i := range 300 {
			s.volumes = append(s.volumes, volume{id: uint64(i), mountpoint: fmt.Sprintf("/m%d", i)})
		}
		for i := range 10 {
			s.stats = append(s.stats, stat{name: fmt.Appendf(nil, "sd%d", i)})
		}
		c := fake(s, func(v *volume) (usage, error) {
			if v.id >= 270 {
				return usage{}, errors.New("statfs: refused")
			}
			return full(v)
		})
		lines := collecttest.Read(t, c)
		collecttest.Validate(t, Schema, lines)
		got := decode(t, lines)
		if len(got) != 2 || len(got[0].Disk.Mounts) != 256 || len(got[1].Disk.Mounts) != 44 || len(got[0].Disk.Devices) != 10 || len(got[1].Disk.Devices) != 0 {
			t.Fatalf("%d events", len(got))
		}
		if errs := got[1].Errors; len(got[0].Errors) != 0 || len(errs) != maxErrors+1 || errs[0] != "mounts[14]: statfs: refused" || errs[maxErrors] != "mounts: 14 more could not be read" {
			t.Errorf("errors %q %q", got[0].Errors, errs)
		}
		s.volumes, s.stats = s.volumes[:1:1], nil
		if got := decode(t, collecttest.Read(t, c)); len(got) != 1 {
			t.Errorf("%d events of a short list", len(got))
		}
	})
}

func TestRates(t *testing.T) {
	counters := func(ops, bytes uint64, busy float64) stat {
		return stat{
			read: work{operations: event.Known(ops), bytes: event.Known(bytes), seconds: event.Known(busy)},
			busy: event.Known(busy),
		}
	}
	none := event.Maybe[float64]{}
	cases := []struct {
		name                             string
		before, now                      stat
		seconds                          float64
		ops, bytes, latency, utilization event.Maybe[float64]
	}{
		{"growth", counters(10, 100, 1), counters(30, 5100, 2), 2, event.Known(10.0), event.Known(2500.0), event.Known(0.05), event.Known(0.5)},
		{"nothing happened", counters(10, 100, 1), counters(10, 100, 1), 2, event.Known(0.0), event.Known(0.0), none, event.Known(0.0)},
		{"reset", counters(10, 100, 9), counters(3, 50, 1), 2, none, none, none, none},
		{"only bytes went backwards", counters(10, 100, 1), counters(12, 50, 1), 2, event.Known(1.0), none, event.Known(0.0), event.Known(0.0)},
		{"unknown", stat{}, counters(3, 50, 1), 2, none, none, none, none},
		{"no time passed", counters(1, 1, 1), counters(3, 50, 1), 0, none, none, event.Known(0.0), none},
		{"busier than the clock", counters(1, 1, 1), counters(1, 1, 4), 2, event.Known(0.0), event.Known(0.0), none, event.Known(1.0)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := Device{stat: c.now}
			d.rate(&Device{stat: c.before}, c.seconds)
			if d.readRate.operations != c.ops || d.readRate.bytes != c.bytes || d.readRate.latency != c.latency || d.utilization != c.utilization {
				t.Errorf("got %+v, utilization %v", d.readRate, d.utilization)
			}
		})
	}
}

func TestHotPluggedDevicesKeepTheirOwnRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sample{}
		c := fake(s, full)
		plugged := func(names string, ops uint64) []map[string]any {
			s.stats = nil
			for _, n := range strings.Fields(names) {
				s.stats = append(s.stats, stat{name: []byte(n), read: work{operations: event.Known(ops * uint64(n[0]-'a'+1))}})
			}
			time.Sleep(interval)
			return decode(t, collecttest.Read(t, c))[0].Disk.Devices
		}
		for i, names := range []string{"a c d", "a b c d", "d a c"} {
			seen := "abcd"
			if i == 1 {
				seen = "acd"
			}
			for _, d := range plugged(names, uint64(i+1)*2) {
				name := d["device"].(string)
				rate, ok := d["read_operations_per_second"]
				if wantRate := i > 0 && strings.Contains(seen, name); ok != wantRate || ok && rate != float64(name[0]-'a'+1) {
					t.Errorf("reading %d: device %s has rate %v", i, name, rate)
				}
			}
		}
	})
}

func TestNothingReadableIsAnError(t *testing.T) {
	c := fake(&sample{errs: []string{"mounts: open /proc/self/mountinfo: no such file or directory"}}, full)
	err := c.Read(t.Context(), func(context.Context, ...event.Event) error { t.Error("emitted"); return nil })
	if err == nil || !strings.Contains(err.Error(), "mountinfo") {
		t.Errorf("error %v", err)
	}
}

func TestPersonalPathsAreWithheld(t *testing.T) {
	s := &sample{volumes: []volume{{mountpoint: "/home/ann/nas", device: "//nas/ann", remote: true}}}
	c := fake(s, func(*volume) (usage, error) { return usage{}, errors.New("statfs: refused") })
	hide := func(_ event.Kind, _ string, class event.Class, s string) (string, bool, string) {
		return s, class != event.Path, ""
	}
	err := c.Read(t.Context(), func(_ context.Context, events ...event.Event) error {
		line, err := event.NewEncoder(collecttest.Stamp, hide, 0).Append(nil, &events[0], 1)
		if strings.Contains(string(line), "ann") || !strings.Contains(string(line), `"redacted":["disk.mounts.device","disk.mounts.mountpoint"]`) {
			t.Errorf("%s", line)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
