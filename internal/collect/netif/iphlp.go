package netif

import (
	"encoding/binary"
	"math"

	"github.com/rea-agent/rea/internal/event"
)

// What the IP Helper of Windows says, read on any system.

// A row is what matters of a MIB_IF_ROW2 (netioapi.h).
// https://learn.microsoft.com/en-us/windows/win32/api/netioapi/ns-netioapi-mib_if_row2
type row struct {
	alias             string
	flags             uint8
	ifType, oper, mtu uint32
	speed             uint64

	inOctets, inUcast, inNUcast, inErrors, inDiscards      uint64
	outOctets, outUcast, outNUcast, outErrors, outDiscards uint64
}

// Bits of InterfaceAndOperStatusFlags, in the order of the structure's fields.
const (
	hardwareInterface = 1 << 0
	filterInterface   = 1 << 1
)

// Interface types as IANA numbers them (ipifcons.h).
const (
	ifEthernet   = 6
	ifPPP        = 23
	ifLoopback   = 24
	ifWiFi       = 71
	ifTunnel     = 131
	ifInfiniband = 199
	ifWWANGSM    = 243
	ifWWANCDMA   = 244
)

// listed tells whether the row is shown. Filters (packet schedulers, firewalls,
// drivers of virtual machines) repeat the counters of the interface that they
// sit on. Software interfaces that never carried a byte are the dozen that
// Windows makes in advance for tunnels and dial-up.
func listed(flags uint8, ifType uint32, octets uint64) bool {
	if flags&filterInterface != 0 {
		return false
	}
	return flags&hardwareInterface != 0 || ifType == ifLoopback || octets > 0
}

func (r *row) link() link {
	return link{
		name:    r.alias,
		state:   operState(r.oper),
		kind:    typeName(r.ifType),
		virtual: event.Known(r.flags&hardwareInterface == 0),
		// All bits set, and 0 for a link that is down, say that there is none.
		speed:    event.Maybe[uint64]{V: r.speed, Known: r.speed != 0 && r.speed < math.MaxInt64},
		mtu:      event.Maybe[uint64]{V: uint64(r.mtu), Known: r.mtu != 0 && r.mtu != math.MaxUint32},
		receive:  traffic{r.inOctets, r.inUcast + r.inNUcast, r.inErrors, r.inDiscards},
		transmit: traffic{r.outOctets, r.outUcast + r.outNUcast, r.outErrors, r.outDiscards},
	}
}

// operState translates IF_OPER_STATUS (ifdef.h).
func operState(n uint32) string {
	states := [...]string{1: "up", 2: "down", 3: "testing", 4: "unknown", 5: "dormant", 6: "notpresent", 7: "lowerlayerdown"}
	if n >= uint32(len(states)) {
		return ""
	}
	return states[n]
}

func typeName(n uint32) string {
	switch n {
	case ifEthernet:
		return "ethernet"
	case ifPPP:
		return "ppp"
	case ifLoopback:
		return "loopback"
	case ifWiFi:
		return "wifi"
	case ifTunnel:
		return "tunnel"
	case ifInfiniband:
		return "infiniband"
	case ifWWANGSM, ifWWANCDMA:
		return "wwan"
	}
	return "other"
}

// Sizes of the structures of statistics, where 64-bit members are aligned to 8 bytes.
const (
	tcpStatsSize  = 15 * 4
	tcpStats2Size = 72
	udpStatsSize  = 5 * 4
	udpStats2Size = 32
)

// addTCP adds a MIB_TCPSTATS: 15 numbers of 32 bits. It reports whether b holds
// one. IPv4 and IPv6 have one each, and sum up.
// https://learn.microsoft.com/en-us/windows/win32/api/tcpmib/ns-tcpmib-mib_tcpstats_lh
func (v *values) addTCP(b []byte) bool {
	if len(b) < tcpStatsSize {
		return false
	}
	v.add32(b, 16, tcpActiveOpens, tcpPassiveOpens, tcpAttemptFailures, tcpResets, tcpEstablished,
		tcpInSegments, tcpOutSegments, tcpRetransmitted, tcpInErrors, tcpOutResets, tcpConnections)
	return true
}

// addTCP2 adds a MIB_TCPSTATS2, which is the same but for 64 bits in the numbers
// of segments, at 40 and 48.
// https://learn.microsoft.com/en-us/windows/win32/api/tcpmib/ns-tcpmib-mib_tcpstats2
func (v *values) addTCP2(b []byte) bool {
	if len(b) < tcpStats2Size {
		return false
	}
	v.add32(b, 16, tcpActiveOpens, tcpPassiveOpens, tcpAttemptFailures, tcpResets, tcpEstablished)
	v.add(tcpInSegments, binary.LittleEndian.Uint64(b[40:]))
	v.add(tcpOutSegments, binary.LittleEndian.Uint64(b[48:]))
	v.add32(b, 56, tcpRetransmitted, tcpInErrors, tcpOutResets, tcpConnections)
	return true
}

// addUDP adds a MIB_UDPSTATS: received, no port, errors, sent, and the number of
// sockets, which are counted for each family apart.
// https://learn.microsoft.com/en-us/windows/win32/api/udpmib/ns-udpmib-mib_udpstats
func (v *values) addUDP(b []byte, sockets slot) bool {
	if len(b) < udpStatsSize {
		return false
	}
	v.add32(b, 0, udpIn, udpNoPort, udpInErrors, udpOut, sockets)
	return true
}

// addUDP2 adds a MIB_UDPSTATS2, where received (at 0) and sent (at 16) have 64 bits.
// https://learn.microsoft.com/en-us/windows/win32/api/udpmib/ns-udpmib-mib_udpstats2
func (v *values) addUDP2(b []byte, sockets slot) bool {
	if len(b) < udpStats2Size {
		return false
	}
	v.add(udpIn, binary.LittleEndian.Uint64(b[0:]))
	v.add32(b, 8, udpNoPort, udpInErrors)
	v.add(udpOut, binary.LittleEndian.Uint64(b[16:]))
	v.add32(b, 24, sockets)
	return true
}

// add32 adds numbers of 32 bits that follow each other.
func (v *values) add32(b []byte, from int, at ...slot) {
	for i, s := range at {
		v.add(s, uint64(binary.LittleEndian.Uint32(b[from+4*i:])))
	}
}
