package netif

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// How old the name of an interface may become; Windows lets people change it.
const refresh = time.Minute

// A system reads this machine.
type system struct {
	aliases map[uint64]string // by LUID
	named   time.Time
	stats   [tcpStats2Size / 8]uint64 // words, so that the structures are aligned
	calls   []statistics
}

// statistics is one of the functions of iphlpapi that fill a structure for an
// address family, and its older form where Windows is older than 10 1709.
type statistics struct {
	group     string
	name      string // of the family
	family    uintptr
	wide, old *windows.LazyProc
	wideSize  int
	oldSize   int
	addWide   func(*values, []byte) bool
	addOld    func(*values, []byte) bool
}

func newSystem() *system {
	dll := windows.NewLazySystemDLL("iphlpapi.dll")
	tcp, tcp2 := dll.NewProc("GetTcpStatisticsEx"), dll.NewProc("GetTcpStatisticsEx2")
	udp, udp2 := dll.NewProc("GetUdpStatisticsEx"), dll.NewProc("GetUdpStatisticsEx2")
	s := &system{}
	for _, family := range []struct {
		number  uintptr
		name    string
		sockets slot
	}{{windows.AF_INET, "IPv4", socketsUDP}, {windows.AF_INET6, "IPv6", socketsUDP6}} {
		s.calls = append(s.calls,
			statistics{"tcp", family.name, family.number, tcp2, tcp, tcpStats2Size, tcpStatsSize, (*values).addTCP2, (*values).addTCP},
			statistics{"udp", family.name, family.number, udp2, udp, udpStats2Size, udpStatsSize,
				func(v *values, b []byte) bool { return v.addUDP2(b, family.sockets) },
				func(v *values, b []byte) bool { return v.addUDP(b, family.sockets) }})
	}
	return s
}

func (s *system) read(now time.Time, out *sample) error {
	if now.Sub(s.named) >= refresh {
		s.named, s.aliases = now, make(map[uint64]string)
	}
	if err := s.interfaces(out); err != nil {
		out.errs = append(out.errs, "interfaces: "+err.Error())
	}
	var failed []string
	for i := range s.calls {
		c := &s.calls[i]
		if err := s.ask(c, &out.values); err != nil {
			out.errs = append(out.errs, c.group+": "+c.name+": "+err.Error())
			failed = append(failed, c.group)
		}
	}
	for _, group := range failed {
		out.values.forget(group)
	}
	return nil
}

// interfaces reads the table at the level that GetIfTable2 reads it.
func (s *system) interfaces(out *sample) error {
	var table *windows.MibIfTable2
	if err := windows.GetIfTable2Ex(windows.MibIfTableNormal, &table); err != nil {
		return fmt.Errorf("GetIfTable2Ex: %w", err)
	}
	// The table is memory of the system's own, to be freed by FreeMibTable; the
	// collector of Go knows nothing of it (unsafe.Pointer rule 1: from *T1 to *T2).
	defer windows.FreeMibTable(unsafe.Pointer(table))
	// NumEntries rows follow each other from Table[0] on (netioapi.h declares
	// Table[ANY_SIZE]), and none is used after the table is freed.
	rows := unsafe.Slice(&table.Table[0], table.NumEntries)
	for i := range rows {
		r := &rows[i]
		if listed(r.InterfaceAndOperStatusFlags, r.Type, r.InOctets|r.OutOctets) {
			c := s.row(r)
			out.links = append(out.links, c.link())
		}
	}
	return nil
}

func (s *system) row(r *windows.MibIfRow2) row {
	alias, ok := s.aliases[r.InterfaceLuid]
	if !ok {
		alias = windows.UTF16ToString(r.Alias[:])
		s.aliases[r.InterfaceLuid] = alias
	}
	return row{
		alias: alias, flags: r.InterfaceAndOperStatusFlags, ifType: r.Type, oper: r.OperStatus, mtu: r.Mtu, speed: r.TransmitLinkSpeed,
		inOctets: r.InOctets, inUcast: r.InUcastPkts, inNUcast: r.InNUcastPkts, inErrors: r.InErrors, inDiscards: r.InDiscards,
		outOctets: r.OutOctets, outUcast: r.OutUcastPkts, outNUcast: r.OutNUcastPkts, outErrors: r.OutErrors, outDiscards: r.OutDiscards,
	}
}

// ask calls the form with 64 bits, or the older one where Windows has none.
func (s *system) ask(c *statistics, v *values) error {
	proc, size, add := c.wide, c.wideSize, c.addWide
	if proc.Find() != nil {
		proc, size, add = c.old, c.oldSize, c.addOld
		if err := proc.Find(); err != nil {
			return err
		}
	}
	// The structure is written while the call lasts, and s, which holds it, is
	// kept alive by it: the conversion to uintptr stands in the argument list
	// (unsafe.Pointer rule 4). stats is as large and as aligned as the largest.
	status, _, _ := proc.Call(uintptr(unsafe.Pointer(&s.stats[0])), c.family)
	if status != 0 {
		return fmt.Errorf("%s: %w", proc.Name, windows.Errno(status))
	}
	// The same memory as bytes; they are read before the next call.
	if !add(v, unsafe.Slice((*byte)(unsafe.Pointer(&s.stats[0])), size)) {
		return fmt.Errorf("%s: structure of %d bytes is too short", proc.Name, size)
	}
	return nil
}
