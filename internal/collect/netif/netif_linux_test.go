package netif

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/collect/collecttest"
)

func on(root string) *Collector { return &Collector{read: machine(root).read} }

// The second reading finds eth0 with its old speed, since its state is the
// same, wlan0 up and its counters reset, tun0 new, veth9 gone, and ICMP missing for IPv4, so
// that no sum of it is known.
func TestLinuxGolden(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := on(root)
		collecttest.Lay(t, root, "testdata/linux.txtar", "first")
		lines := collecttest.Read(t, c)
		collecttest.Lay(t, root, "testdata/linux.txtar", "second")
		time.Sleep(interval)
		lines = append(lines, collecttest.Read(t, c)...)
		collecttest.Golden(t, "testdata/linux.golden", Schema, lines)
	})
}

func TestFactsAreReadAgain(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "first")
	eth0 := filepath.Join(root, "sys/class/net/eth0")
	synctest.Test(t, func(t *testing.T) {
		c := on(root)
		speed := func() any {
			return decode(t, collecttest.Read(t, c))[0].Network.Interfaces[1]["speed_bits_per_second"]
		}
		steps := []struct {
			name         string
			state, speed string
			after        time.Duration
			wantMegabits float64
		}{
			{"first reading", "up", "1000", 0, 1000},
			{"same state, soon", "up", "100", interval, 1000},
			{"same state, late", "up", "100", refresh, 100},
			{"other state", "dormant", "10", interval, 10},
			{"other state, no speed", "down", "-1", interval, 0},
		}
		for _, s := range steps {
			collecttest.Write(t, eth0, "operstate", s.state+"\n")
			collecttest.Write(t, eth0, "speed", s.speed+"\n")
			time.Sleep(s.after)
			got, _ := speed().(float64)
			if got != s.wantMegabits*1e6 {
				t.Errorf("%s: speed %v", s.name, got)
			}
		}
	})
}

func TestWhatIsKeptOfInterfacesGoesWithThem(t *testing.T) {
	root := t.TempDir()
	collecttest.Lay(t, root, "testdata/linux.txtar", "first")
	s := machine(root)
	var out sample
	if err := s.interfaces(time.Now(), &out); err != nil {
		t.Fatal(err)
	}
	veth := s.ports["veth9"]
	collecttest.Lay(t, root, "testdata/linux.txtar", "second")
	if err := s.interfaces(time.Now(), &sample{}); err != nil {
		t.Fatal(err)
	}
	_, open := veth.operstate.Descriptor()
	if _, ok := s.ports["veth9"]; ok || open || len(s.ports) != 5 {
		t.Errorf("%d ports; veth9 is kept: %v, open: %v", len(s.ports), ok, open)
	}
}

func TestMissingAndBrokenFilesAreNamed(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(t *testing.T, net string)
		want  string // the first words of each error
		words int
		gone  func(b body) bool
	}{
		{"no IPv6", func(t *testing.T, net string) { remove(t, net+"/snmp6"); remove(t, net+"/sockstat6") }, "", 0,
			func(b body) bool {
				_, has := b.Network.Sockets["udp6_in_use"]
				return !has && b.Network.UDP["in_datagrams"] == 39
			}},
		{"no netstat", func(t *testing.T, net string) { remove(t, net+"/netstat") }, "netstat: open", 2,
			func(b body) bool {
				_, has := b.Network.TCP["listen_drops"]
				return !has && b.Network.TCP["active_opens"] == 26
			}},
		{"no interfaces", func(t *testing.T, net string) { remove(t, net+"/dev") }, "interfaces: open", 2,
			func(b body) bool { return len(b.Network.Interfaces) == 0 }},
		{"garbage", func(t *testing.T, net string) {
			collecttest.Write(t, net, "snmp", "\x00\xff\n\n")
			collecttest.Write(t, net, "dev", "a\nb\nc: 1 2 3\n")
		}, "interfaces: 1 lines; snmp: 1 numbers", 3, func(b body) bool { return b.Network.UDP == nil && b.Network.TCP["listen_drops"] == 4 }},
		{"empty", func(t *testing.T, net string) {
			collecttest.Write(t, net, "snmp", "")
			collecttest.Write(t, net, "dev", "")
		}, "", 0,
			func(b body) bool { return len(b.Network.Interfaces) == 0 && b.Network.UDP == nil }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			collecttest.Lay(t, root, "testdata/linux.txtar", "first")
			c.spoil(t, filepath.Join(root, "proc/self/net"))
			lines := collecttest.Read(t, on(root))
			collecttest.Validate(t, Schema, lines)
			got := decode(t, lines)[0]
			var errs []string
			for _, e := range got.Errors {
				errs = append(errs, strings.Join(strings.Fields(e)[:c.words], " "))
			}
			if strings.Join(errs, "; ") != c.want || !c.gone(got) {
				t.Errorf("errors %q, %+v", got.Errors, got.Network)
			}
		})
	}
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func TestThisMachine(t *testing.T) {
	c := New()
	lines := collecttest.Read(t, c)
	lines = append(lines, collecttest.Read(t, c)...)
	collecttest.Validate(t, Schema, lines)
	for _, i := range decode(t, lines)[0].Network.Interfaces {
		if i["name"] == "lo" {
			if i["type"] != "loopback" || i["virtual"] != true {
				t.Errorf("loopback: %v", i)
			}
			return
		}
	}
	t.Error("no loopback interface")
}

func BenchmarkRead(b *testing.B) {
	c := New()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Read(b.Context(), collecttest.Drop); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNetstat shows what one file of counters costs to read and to parse.
func BenchmarkNetstat(b *testing.B) {
	s := newSystem()
	var v values
	for i := range s.protocols {
		p := &s.protocols[i]
		b.Run(p.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := s.protocol(p, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
