package netif

import (
	"bytes"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
)

// A slot is the place of one number that the kernel keeps of a protocol.
type slot int

const (
	tcpEstablished slot = iota
	tcpConnections
	tcpActiveOpens
	tcpPassiveOpens
	tcpAttemptFailures
	tcpResets
	tcpInSegments
	tcpOutSegments
	tcpRetransmitted
	tcpInErrors
	tcpOutResets
	tcpListenOverflows
	tcpListenDrops
	tcpQueueFullDrops
	tcpBacklogDrops
	tcpSynCookies
	tcpSynRetransmits
	tcpTimeouts
	tcpAbortsOnTimeout
	tcpAbortsOnMemory
	tcpTimeWaitOverflows
	udpIn
	udpOut
	udpNoPort
	udpInErrors
	udpReceiveBufferErrors
	udpSendBufferErrors
	ipIn
	ipOut
	ipForwarded
	ipInDiscards
	ipOutDiscards
	ipInHeaderErrors
	ipInAddressErrors
	ipOutNoRoutes
	ipReassemblyFailures
	icmpIn
	icmpOut
	icmpInErrors
	icmpInUnreachable
	socketsUsed
	socketsTCP
	socketsTCP6
	socketsTCPOrphans
	socketsTCPTimeWait
	socketsTCPAllocated
	socketsTCPMemory
	socketsUDP
	socketsUDP6
	socketsUDPMemory
	socketsRaw
	socketsRaw6
	socketsFragmentMemory
	slots
)

// A counter says where a number is written and, on Linux, where it is found:
// "Tcp:ActiveOpens" is the column ActiveOpens of the lines Tcp of snmp or
// netstat, "TCP:inuse" the pair after TCP in sockstat, and "Udp6InDatagrams" a
// line of snmp6. What has several sources is their sum: Linux counts TCP for
// IPv4 and IPv6 together, but UDP, IP and ICMP apart.
// (RFC 1213 and RFC 4293 for most; include/uapi/linux/snmp.h for Linux's own.)
type counter struct {
	group, name, rate string
	sources           []string
}

var counters = [slots]counter{
	tcpEstablished:       {"tcp", "established_connections", "", []string{"Tcp:CurrEstab"}},
	tcpConnections:       {"tcp", "connections", "", nil},
	tcpActiveOpens:       {"tcp", "active_opens", "active_opens_per_second", []string{"Tcp:ActiveOpens"}},
	tcpPassiveOpens:      {"tcp", "passive_opens", "passive_opens_per_second", []string{"Tcp:PassiveOpens"}},
	tcpAttemptFailures:   {"tcp", "attempt_failures", "attempt_failures_per_second", []string{"Tcp:AttemptFails"}},
	tcpResets:            {"tcp", "established_resets", "established_resets_per_second", []string{"Tcp:EstabResets"}},
	tcpInSegments:        {"tcp", "in_segments", "in_segments_per_second", []string{"Tcp:InSegs"}},
	tcpOutSegments:       {"tcp", "out_segments", "out_segments_per_second", []string{"Tcp:OutSegs"}},
	tcpRetransmitted:     {"tcp", "retransmitted_segments", "retransmitted_segments_per_second", []string{"Tcp:RetransSegs"}},
	tcpInErrors:          {"tcp", "in_errors", "in_errors_per_second", []string{"Tcp:InErrs"}},
	tcpOutResets:         {"tcp", "out_resets", "out_resets_per_second", []string{"Tcp:OutRsts"}},
	tcpListenOverflows:   {"tcp", "listen_overflows", "listen_overflows_per_second", []string{"TcpExt:ListenOverflows"}},
	tcpListenDrops:       {"tcp", "listen_drops", "listen_drops_per_second", []string{"TcpExt:ListenDrops"}},
	tcpQueueFullDrops:    {"tcp", "request_queue_full_drops", "", []string{"TcpExt:TCPReqQFullDrop"}},
	tcpBacklogDrops:      {"tcp", "backlog_drops", "", []string{"TcpExt:TCPBacklogDrop"}},
	tcpSynCookies:        {"tcp", "syn_cookies_sent", "", []string{"TcpExt:SyncookiesSent"}},
	tcpSynRetransmits:    {"tcp", "syn_retransmits", "", []string{"TcpExt:TCPSynRetrans"}},
	tcpTimeouts:          {"tcp", "timeouts", "timeouts_per_second", []string{"TcpExt:TCPTimeouts"}},
	tcpAbortsOnTimeout:   {"tcp", "aborts_on_timeout", "", []string{"TcpExt:TCPAbortOnTimeout"}},
	tcpAbortsOnMemory:    {"tcp", "aborts_on_memory", "", []string{"TcpExt:TCPAbortOnMemory"}},
	tcpTimeWaitOverflows: {"tcp", "time_wait_overflows", "", []string{"TcpExt:TCPTimeWaitOverflow"}},

	udpIn:                  {"udp", "in_datagrams", "in_datagrams_per_second", []string{"Udp:InDatagrams", "Udp6InDatagrams"}},
	udpOut:                 {"udp", "out_datagrams", "out_datagrams_per_second", []string{"Udp:OutDatagrams", "Udp6OutDatagrams"}},
	udpNoPort:              {"udp", "no_port", "no_port_per_second", []string{"Udp:NoPorts", "Udp6NoPorts"}},
	udpInErrors:            {"udp", "in_errors", "in_errors_per_second", []string{"Udp:InErrors", "Udp6InErrors"}},
	udpReceiveBufferErrors: {"udp", "receive_buffer_errors", "receive_buffer_errors_per_second", []string{"Udp:RcvbufErrors", "Udp6RcvbufErrors"}},
	udpSendBufferErrors:    {"udp", "send_buffer_errors", "send_buffer_errors_per_second", []string{"Udp:SndbufErrors", "Udp6SndbufErrors"}},

	ipIn:                 {"ip", "in_packets", "in_packets_per_second", []string{"Ip:InReceives", "Ip6InReceives"}},
	ipOut:                {"ip", "out_packets", "out_packets_per_second", []string{"Ip:OutRequests", "Ip6OutRequests"}},
	ipForwarded:          {"ip", "forwarded_packets", "forwarded_packets_per_second", []string{"Ip:ForwDatagrams", "Ip6OutForwDatagrams"}},
	ipInDiscards:         {"ip", "in_discards", "", []string{"Ip:InDiscards", "Ip6InDiscards"}},
	ipOutDiscards:        {"ip", "out_discards", "", []string{"Ip:OutDiscards", "Ip6OutDiscards"}},
	ipInHeaderErrors:     {"ip", "in_header_errors", "", []string{"Ip:InHdrErrors", "Ip6InHdrErrors"}},
	ipInAddressErrors:    {"ip", "in_address_errors", "", []string{"Ip:InAddrErrors", "Ip6InAddrErrors"}},
	ipOutNoRoutes:        {"ip", "out_no_routes", "", []string{"Ip:OutNoRoutes", "Ip6OutNoRoutes"}},
	ipReassemblyFailures: {"ip", "reassembly_failures", "", []string{"Ip:ReasmFails", "Ip6ReasmFails"}},

	icmpIn:            {"icmp", "in_messages", "in_messages_per_second", []string{"Icmp:InMsgs", "Icmp6InMsgs"}},
	icmpOut:           {"icmp", "out_messages", "out_messages_per_second", []string{"Icmp:OutMsgs", "Icmp6OutMsgs"}},
	icmpInErrors:      {"icmp", "in_errors", "", []string{"Icmp:InErrors", "Icmp6InErrors"}},
	icmpInUnreachable: {"icmp", "in_destination_unreachable", "", []string{"Icmp:InDestUnreachs", "Icmp6InDestUnreachs"}},

	socketsUsed:           {"sockets", "used", "", []string{"sockets:used"}},
	socketsTCP:            {"sockets", "tcp_in_use", "", []string{"TCP:inuse"}},
	socketsTCP6:           {"sockets", "tcp6_in_use", "", []string{"TCP6:inuse"}},
	socketsTCPOrphans:     {"sockets", "tcp_orphans", "", []string{"TCP:orphan"}},
	socketsTCPTimeWait:    {"sockets", "tcp_time_wait", "", []string{"TCP:tw"}},
	socketsTCPAllocated:   {"sockets", "tcp_allocated", "", []string{"TCP:alloc"}},
	socketsTCPMemory:      {"sockets", "tcp_memory_bytes", "", []string{"TCP:mem"}},
	socketsUDP:            {"sockets", "udp_in_use", "", []string{"UDP:inuse"}},
	socketsUDP6:           {"sockets", "udp6_in_use", "", []string{"UDP6:inuse"}},
	socketsUDPMemory:      {"sockets", "udp_memory_bytes", "", []string{"UDP:mem"}},
	socketsRaw:            {"sockets", "raw_in_use", "", []string{"RAW:inuse"}},
	socketsRaw6:           {"sockets", "raw6_in_use", "", []string{"RAW6:inuse"}},
	socketsFragmentMemory: {"sockets", "fragment_memory_bytes", "", []string{"FRAG:memory", "FRAG6:memory"}},
}

// values are the numbers of one moment.
type values [slots]event.Maybe[uint64]

// add takes one source of a number; several of them sum up.
func (v *values) add(at slot, n uint64) {
	v[at] = event.Known(v[at].V + n)
}

// forget makes the numbers of a group unknown, of which a part could not be
// read: half a sum would look like a reset, and the next whole one like a burst.
func (v *values) forget(group string) {
	for i := range counters {
		if counters[i].group == group {
			v[i] = event.Maybe[uint64]{}
		}
	}
}

// protocols are the numbers of this reading and their growth since the last.
type protocols struct {
	values values
	rates  [slots]event.Maybe[float64]
}

func (p *protocols) next(now *values, seconds float64) {
	for i := range counters {
		p.rates[i] = event.Maybe[float64]{}
		if counters[i].rate != "" {
			p.rates[i] = collect.Rate(now[i], p.values[i], seconds)
		}
	}
	p.values = *now
}

func (p *protocols) encode(e *event.Encoder) {
	group := ""
	for i := range counters {
		c := &counters[i]
		if !p.values[i].Known {
			continue
		}
		if c.group != group {
			if group != "" {
				e.Close()
			}
			e.Open(c.group)
			group = c.group
		}
		e.Uint(c.name, p.values[i].V)
		e.MaybeFloat(c.rate, p.rates[i], 2)
	}
	if group != "" {
		e.Close()
	}
}

// A scanner finds the numbers that are wanted in the files of Linux.
type scanner struct {
	slots map[string]slot
	seen  [slots]int // sources of each number in this reading
	key   []byte
}

func newScanner() *scanner {
	s := &scanner{slots: make(map[string]slot)}
	for i := range counters {
		for _, source := range counters[i].sources {
			s.slots[source] = slot(i)
		}
	}
	return s
}

// number adds the number at group and key to v, if it is wanted, and reports
// whether it is as expected.
func (s *scanner) number(v *values, group, key, value []byte) bool {
	s.key = append(append(s.key[:0], group...), key...)
	at, wanted := s.slots[string(s.key)]
	if !wanted {
		return true
	}
	n, ok := procfs.Uint(value)
	if ok {
		v.add(at, n)
		s.seen[at]++
	}
	return ok
}

// finish ends a reading. It makes unknown what lacks one of its sources, as
// forget does; where IPv6 is off the second one lacks by right.
func (s *scanner) finish(v *values, ipv6 bool) {
	for i := range counters {
		need := len(counters[i].sources)
		if !ipv6 {
			need = min(need, 1)
		}
		if s.seen[i] < need {
			v[i] = event.Maybe[uint64]{}
		}
	}
	s.seen = [slots]int{}
}

// table reads /proc/net/snmp and netstat: pairs of lines, the first with the
// names and the second with the numbers, both after the name of the group.
// It returns how many numbers or pairs were not as expected.
func (s *scanner) table(v *values, b []byte) (bad int) {
	for len(b) > 0 {
		var keys, numbers []byte
		keys, b = procfs.Line(b)
		numbers, b = procfs.Line(b)
		group, keys := procfs.Field(keys)
		same, numbers := procfs.Field(numbers)
		if len(group) == 0 || !bytes.Equal(group, same) {
			bad++
			continue
		}
		for {
			var key, value []byte
			key, keys = procfs.Field(keys)
			value, numbers = procfs.Field(numbers)
			if len(key) == 0 {
				break
			}
			if !s.number(v, group, key, value) {
				bad++
			}
		}
	}
	return bad
}

// list reads /proc/net/snmp6: one name and one number a line.
func (s *scanner) list(v *values, b []byte) (bad int) {
	for len(b) > 0 {
		var l []byte
		l, b = procfs.Line(b)
		key, rest := procfs.Field(l)
		value, _ := procfs.Field(rest)
		if !s.number(v, nil, key, value) {
			bad++
		}
	}
	return bad
}

// pairs reads /proc/net/sockstat and sockstat6: a group, then names and numbers
// in turn.
func (s *scanner) pairs(v *values, b []byte) (bad int) {
	for len(b) > 0 {
		var l []byte
		l, b = procfs.Line(b)
		group, l := procfs.Field(l)
		for {
			var key, value []byte
			key, l = procfs.Field(l)
			value, l = procfs.Field(l)
			if len(key) == 0 {
				break
			}
			if !s.number(v, group, key, value) {
				bad++
			}
		}
	}
	return bad
}
