package netif

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
)

// interval is the time between two readings of the tests.
const interval = 2 * time.Second

// fake returns a Collector of what fill puts into each sample.
func fake(fill func(s *sample)) *Collector {
	return &Collector{read: func(_ time.Time, s *sample) error { fill(s); return nil }}
}

// body is a network event as a reader of JSON sees it.
type body struct {
	Errors  []string
	Network struct {
		Interfaces                  []map[string]any
		TCP, UDP, IP, ICMP, Sockets map[string]float64
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

func TestWindowsGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := uint64(0)
		c := fake(func(s *sample) { fillAsWindows(t, s, i) })
		lines := collecttest.Read(t, c)
		time.Sleep(interval)
		i++
		lines = append(lines, collecttest.Read(t, c)...)
		collecttest.Golden(t, "testdata/windows.golden", Schema, lines)
	})
}

// fillAsWindows fills s as Windows would, i intervals after the first reading.
func fillAsWindows(t *testing.T, s *sample, i uint64) {
	rows := []row{
		{alias: "Ethernet", flags: hardwareInterface, ifType: ifEthernet, oper: 1, mtu: 1500, speed: 1_000_000_000,
			inOctets: 5_000_000 + 10_000*i, inUcast: 4000 + 10*i, inNUcast: 300 + 2*i, inErrors: 1, inDiscards: 2 + i,
			outOctets: 2_000_000 + 4_000*i, outUcast: 3000 + 8*i, outNUcast: 10, outErrors: 0, outDiscards: 1},
		{alias: "Ethernet-WFP Native MAC Layer LightWeight Filter-0000", flags: filterInterface, ifType: ifEthernet, oper: 1, inOctets: 5_000_000},
		{alias: "Wi-Fi", flags: hardwareInterface, ifType: ifWiFi, oper: 2, mtu: 1500, speed: 1<<64 - 1},
		{alias: "Loopback Pseudo-Interface 1", ifType: ifLoopback, oper: 1, mtu: 1<<32 - 1, speed: 1_073_741_824},
		{alias: "Local Area Connection* 6", ifType: ifEthernet, oper: 1, mtu: 1500}, // a WAN miniport
		{alias: "VPN", ifType: ifTunnel, oper: 1, mtu: 1400, inOctets: 100, outOctets: 50},
	}
	for _, r := range rows {
		if listed(r.flags, r.ifType, r.inOctets|r.outOctets) {
			s.links = append(s.links, r.link())
		}
	}
	n := uint32(i)
	ok := s.values.addTCP2(bytesOf(uint32(4), uint32(300), uint32(120000), uint32(1<<32-1),
		100+2*n, 50+n, uint32(7), uint32(8), uint32(9), uint32(0), 1<<40+100*i, 1<<39+80*i, 30+4*n, uint32(1), 20+n, uint32(25))) &&
		s.values.addTCP(bytesOf(uint32(4), uint32(300), uint32(120000), uint32(1<<32-1),
			uint32(10), uint32(5), uint32(1), uint32(1), uint32(2), uint32(100), uint32(90), uint32(1), uint32(0), uint32(2), uint32(3))) &&
		s.values.addUDP2(bytesOf(1<<33+50*i, uint32(3), uint32(4), 1<<33+70*i, uint32(12), uint32(0)), socketsUDP) &&
		s.values.addUDP(bytesOf(uint32(60), uint32(1), uint32(0), uint32(80), uint32(7)), socketsUDP6)
	if !ok {
		t.Error("statistics are too short")
	}
}

// bytesOf lays out numbers as a structure of Windows.
func bytesOf(numbers ...any) []byte {
	var b bytes.Buffer
	for _, n := range numbers {
		if err := binary.Write(&b, binary.LittleEndian, n); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func TestEncodingAllocatesNothing(t *testing.T) {
	i := uint64(0)
	c := fake(func(s *sample) { i++; fillAsWindows(t, s, i) })
	collecttest.EncodesWithoutAllocating(t, c)
}

func TestShortStatisticsOfWindowsAreRefused(t *testing.T) {
	var v values
	if v.addTCP(make([]byte, tcpStatsSize-1)) || v.addTCP2(make([]byte, tcpStats2Size-1)) ||
		v.addUDP(make([]byte, udpStatsSize-1), socketsUDP) || v.addUDP2(make([]byte, udpStats2Size-1), socketsUDP) || v != (values{}) {
		t.Errorf("taken: %v", v)
	}
}

func TestSumThatLacksASourceIsUnknown(t *testing.T) {
	const table, list = "Udp: InDatagrams NoPorts\nUdp: 7 1\n", "Udp6InDatagrams 3\n"
	cases := []struct {
		name, table, list string
		ipv6              bool
		in, noPort        event.Maybe[uint64]
	}{
		{"both", table, list, true, event.Known[uint64](10), event.Maybe[uint64]{}},
		{"no IPv6", table, "", false, event.Known[uint64](7), event.Known[uint64](1)},
		{"only IPv6 could be read", "", list, true, event.Maybe[uint64]{}, event.Maybe[uint64]{}},
		{"only IPv4 could be read", table, "", true, event.Maybe[uint64]{}, event.Maybe[uint64]{}},
	}
	s := newScanner()
	for _, c := range cases {
		var v values
		s.table(&v, []byte(c.table))
		s.list(&v, []byte(c.list))
		s.finish(&v, c.ipv6)
		if v[udpIn] != c.in || v[udpNoPort] != c.noPort {
			t.Errorf("%s: got %v and %v", c.name, v[udpIn], v[udpNoPort])
		}
	}
	var v values
	v.add(udpIn, 1)
	v.add(tcpInSegments, 1)
	if v.forget("udp"); v[udpIn].Known || !v[tcpInSegments].Known {
		t.Error("not the group was forgotten")
	}
}

func TestCounterOfAProtocolThatComesAndGoes(t *testing.T) {
	steps := []struct {
		name     string
		value    event.Maybe[uint64]
		wantRate event.Maybe[float64]
	}{
		{"first reading", event.Known[uint64](10), event.Maybe[float64]{}},
		{"growth", event.Known[uint64](30), event.Known(10.0)},
		{"unreadable", event.Maybe[uint64]{}, event.Maybe[float64]{}},
		{"readable again", event.Known[uint64](50), event.Maybe[float64]{}},
		{"reset", event.Known[uint64](5), event.Maybe[float64]{}},
		{"growth again", event.Known[uint64](7), event.Known(1.0)},
	}
	var p protocols
	for _, s := range steps {
		var v values
		v[udpIn] = s.value
		p.next(&v, 2)
		if p.rates[udpIn] != s.wantRate || p.values[udpIn] != s.value {
			t.Errorf("%s: %v at %v", s.name, p.values[udpIn], p.rates[udpIn])
		}
	}
}

func TestHotPluggedInterfacesKeepTheirOwnRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names string
		n := uint64(0)
		c := fake(func(s *sample) {
			for _, name := range strings.Fields(names) {
				s.links = append(s.links, link{name: name, receive: traffic{bytes: n * uint64(name[0]-'a'+1)}})
			}
		})
		for i, step := range []struct{ names, rated string }{{"a c d", ""}, {"a b c d", "acd"}, {"d a c", "acd"}, {"", ""}, {"a", ""}} {
			names, n = step.names, n+2
			for _, got := range decode(t, collecttest.Read(t, c))[0].Network.Interfaces {
				name := got["name"].(string)
				rate, ok := got["receive_bytes_per_second"]
				if ok != strings.Contains(step.rated, name) || ok && rate != float64(name[0]-'a'+1) {
					t.Errorf("reading %d: interface %s has rate %v", i, name, rate)
				}
			}
			time.Sleep(interval)
		}
	})
}

func TestManyInterfacesAreSplit(t *testing.T) {
	c := fake(func(s *sample) {
		for i := range 600 {
			s.links = append(s.links, link{name: fmt.Sprintf("veth%d", i)})
		}
		s.values.add(udpIn, 1)
		s.errs = append(s.errs, "netstat: read: input/output error")
	})
	lines := collecttest.Read(t, c)
	collecttest.Validate(t, Schema, lines)
	got := decode(t, lines)
	if len(got) != 3 {
		t.Fatalf("%d events", len(got))
	}
	for i, want := range []int{256, 256, 88} {
		first := i == 0
		if len(got[i].Network.Interfaces) != want || (got[i].Network.UDP != nil) != first || (got[i].Errors != nil) != first {
			t.Errorf("event %d: %d interfaces, udp %v, errors %q", i, len(got[i].Network.Interfaces), got[i].Network.UDP, got[i].Errors)
		}
	}
}

func TestNothingReadableIsAnError(t *testing.T) {
	c := fake(func(s *sample) {
		s.errs = append(s.errs, "interfaces: open /proc/self/net/dev: no such file or directory")
	})
	err := c.Read(t.Context(), func(context.Context, ...event.Event) error { t.Error("emitted"); return nil })
	if err == nil || !strings.Contains(err.Error(), "net/dev") {
		t.Errorf("error %v", err)
	}
}

// A group of counters must stand together, since each is written as one object.
func TestCountersAreGroupedAndNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	last := ""
	for _, c := range counters {
		if c.group != last && seen[c.group] || seen[c.group+"."+c.name] || c.name == "" {
			t.Errorf("%+v", c)
		}
		if c.rate != "" && c.rate != c.name+"_per_second" {
			t.Errorf("rate of %s is called %s", c.name, c.rate)
		}
		seen[c.group], seen[c.group+"."+c.name], last = true, true, c.group
	}
}

func TestParseInterface(t *testing.T) {
	cases := []struct {
		name, line, want string
		ok               bool
		in, out          traffic
	}{
		{"ordinary", "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "eth0", true, traffic{1, 2, 3, 4}, traffic{9, 10, 11, 12}},
		{"number touches the colon", "eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "eth0", true, traffic{1, 2, 3, 4}, traffic{9, 10, 11, 12}},
		{"alias", "eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "eth0:1", true, traffic{1, 2, 3, 4}, traffic{9, 10, 11, 12}},
		{"greatest number", "a: 18446744073709551615 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "a", true, traffic{1<<64 - 1, 2, 3, 4}, traffic{9, 10, 11, 12}},
		{"number too large", "a: 18446744073709551616 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "", false, traffic{}, traffic{}},
		{"truncated", "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", "", false, traffic{}, traffic{}},
		{"no colon", "eth0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "", false, traffic{}, traffic{}},
		{"no name", ": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "", false, traffic{}, traffic{}},
		{"empty", "", "", false, traffic{}, traffic{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			name, l, ok := parseInterface([]byte(c.line))
			if ok != c.ok || ok && (string(name) != c.want || l.receive != c.in || l.transmit != c.out || l.multicast != event.Known[uint64](8)) {
				t.Errorf("%v: %q %+v", ok, name, l)
			}
		})
	}
}

func TestScanner(t *testing.T) {
	s := newScanner()
	cases := []struct {
		name, text string
		parse      func(*values, []byte) int
		at         slot
		want       event.Maybe[uint64]
		bad        int
	}{
		{"table", "Tcp: MaxConn ActiveOpens\nTcp: -1 7\n", s.table, tcpActiveOpens, event.Known[uint64](7), 0},
		{"table with a column that is not a number", "Tcp: ActiveOpens PassiveOpens\nTcp: x 7\n", s.table, tcpPassiveOpens, event.Known[uint64](7), 1},
		{"table that ends early", "Tcp: ActiveOpens PassiveOpens\nTcp: 7", s.table, tcpPassiveOpens, event.Maybe[uint64]{}, 1},
		{"table without its numbers", "Tcp: ActiveOpens", s.table, tcpActiveOpens, event.Maybe[uint64]{}, 1},
		{"table whose lines do not match", "Tcp: ActiveOpens\nUdp: 7\n", s.table, tcpActiveOpens, event.Maybe[uint64]{}, 1},
		{"other group with a column of that name", "UdpLite: InDatagrams\nUdpLite: 7\n", s.table, udpIn, event.Maybe[uint64]{}, 0},
		{"list", "Ip6InReceives   \t 3\nUdp6InDatagrams \t 7\n", s.list, udpIn, event.Known[uint64](7), 0},
		{"list with an empty number", "Udp6InDatagrams\n", s.list, udpIn, event.Maybe[uint64]{}, 1},
		{"pairs", "TCP: inuse 1 orphan 2 tw 7\nUDP: inuse 3\n", s.pairs, socketsTCPTimeWait, event.Known[uint64](7), 0},
		{"pairs that sum up", "FRAG: inuse 0 memory 3\nFRAG6: inuse 0 memory 4\n", s.pairs, socketsFragmentMemory, event.Known[uint64](7), 0},
		{"pair cut off", "TCP: inuse 1 orphan", s.pairs, socketsTCPOrphans, event.Maybe[uint64]{}, 1},
		{"nothing", "", s.table, tcpActiveOpens, event.Maybe[uint64]{}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var v values
			if bad := c.parse(&v, []byte(c.text)); bad != c.bad || v[c.at] != c.want {
				t.Errorf("got %v, %d bad", v[c.at], bad)
			}
		})
	}
}

func TestFactsOfSysfs(t *testing.T) {
	for text, want := range map[string]event.Maybe[uint64]{
		"1000": event.Known[uint64](1e9), "400000": event.Known[uint64](4e11), "-1": {}, "4294967295": {}, "0": {}, "": {}, "fast": {},
	} {
		if got := speedOf([]byte(text)); got != want {
			t.Errorf("speed %q: got %v", text, got)
		}
	}
	for text, want := range map[string]string{"1": "ethernet", "772": "loopback", "65534": "tunnel", "9999": "other", "": "", "x": ""} {
		if got := kindOf([]byte(text)); got != want {
			t.Errorf("type %q: got %q", text, got)
		}
	}
	for text, want := range map[string]string{"up": "up", "lowerlayerdown": "lowerlayerdown", "sideways": "", "": ""} {
		if got := stateOf([]byte(text)); got != want {
			t.Errorf("state %q: got %q", text, got)
		}
	}
	for n, want := range map[uint32]string{0: "", 1: "up", 7: "lowerlayerdown", 8: ""} {
		if got := operState(n); got != want {
			t.Errorf("state %d: got %q", n, got)
		}
	}
}

func TestParsingAllocatesNothing(t *testing.T) {
	s := newScanner()
	dev := []byte("  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16")
	table := []byte("Tcp: MaxConn ActiveOpens\nTcp: -1 7\n")
	var v values
	s.table(&v, table)
	if n := testing.AllocsPerRun(100, func() { parseInterface(dev); s.table(&v, table) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseInterface(f *testing.F) {
	f.Add([]byte("  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"))
	f.Add([]byte("eth0:1:18446744073709551616"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name, l, ok := parseInterface(b)
		if ok && (len(name) == 0 || !l.multicast.Known || !bytes.Contains(b, name)) {
			t.Errorf("%q %+v", name, l)
		}
	})
}

func FuzzProtocols(f *testing.F) {
	f.Add([]byte("Tcp: MaxConn ActiveOpens\nTcp: -1 7\nUdp: InDatagrams\nUdp: 9\n"))
	f.Add([]byte("Udp6InDatagrams \t 7\nIp6InReceives\n"))
	f.Add([]byte("TCP: inuse 1 orphan 2 tw 7 alloc\nFRAG: inuse 0 memory 3\nFRAG6: memory 4"))
	f.Add([]byte(":\n:\n \n"))
	s := newScanner()
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func(*values, []byte) int{s.table, s.list, s.pairs} {
			var v values
			if bad := parse(&v, b); bad < 0 || bad > len(b) {
				t.Errorf("%d bad", bad)
			}
			for i := range v {
				if v[i].Known && counters[i].sources == nil {
					t.Errorf("%s has no source but is %d", counters[i].name, v[i].V)
				}
			}
		}
	})
}

func FuzzStatistics(f *testing.F) {
	f.Add(make([]byte, tcpStats2Size))
	f.Add(bytesOf(uint64(1), uint32(2), uint32(3), uint64(4), uint32(5), uint32(0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v values
		if v.addTCP(b) != (len(b) >= tcpStatsSize) || v.addTCP2(b) != (len(b) >= tcpStats2Size) ||
			v.addUDP(b, socketsUDP) != (len(b) >= udpStatsSize) || v.addUDP2(b, socketsUDP6) != (len(b) >= udpStats2Size) {
			t.Errorf("%d bytes: %v", len(b), v)
		}
	})
}
