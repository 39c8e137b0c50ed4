package netif

import (
	"bytes"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/procfs"
)

// parseInterface reads a line of /proc/net/dev (net/core/net-procfs.c): the
// name, which may touch its colon and the first number, then eight numbers
// received and eight sent:
//
//	bytes packets errs drop fifo frame compressed multicast
//	bytes packets errs drop fifo colls carrier compressed
//
// The name may hold a colon of its own, as those of old aliases do.
func parseInterface(b []byte) (name []byte, l link, ok bool) {
	colon := bytes.LastIndexByte(b, ':')
	if colon < 0 {
		return nil, l, false
	}
	name = bytes.TrimLeft(b[:colon], " \t")
	var n [16]uint64
	rest := b[colon+1:]
	for i := range n {
		var word []byte
		word, rest = procfs.Field(rest)
		v, valid := procfs.Uint(word)
		if !valid {
			return nil, l, false
		}
		n[i] = v
	}
	l.receive = traffic{bytes: n[0], packets: n[1], errors: n[2], dropped: n[3]}
	l.transmit = traffic{bytes: n[8], packets: n[9], errors: n[10], dropped: n[11]}
	l.multicast = event.Known(n[7])
	return name, l, len(name) > 0
}

// stateOf knows the texts of operstate (Documentation/networking/operstates.rst).
func stateOf(b []byte) string {
	for _, s := range [...]string{"up", "down", "unknown", "lowerlayerdown", "dormant", "testing", "notpresent"} {
		if string(b) == s {
			return s
		}
	}
	return ""
}

// speedOf takes the megabits per second of sysfs, where -1 (in old kernels as
// an unsigned number of 32 bits) and 0 say that they are not known.
func speedOf(b []byte) event.Maybe[uint64] {
	n, ok := procfs.Uint(b)
	if !ok || n == 0 || n >= 1<<32-1 {
		return event.Maybe[uint64]{}
	}
	return event.Known(n * 1_000_000)
}

// kindOf translates ARPHRD_ numbers (include/uapi/linux/if_arp.h).
func kindOf(b []byte) string {
	n, ok := procfs.Uint(b)
	if !ok {
		return ""
	}
	switch n {
	case 1:
		return "ethernet"
	case 32:
		return "infiniband"
	case 512:
		return "ppp"
	case 519: // raw IP of mobile modems
		return "wwan"
	case 768, 769, 776, 778, 823, 65534: // ipip, ip6tnl, sit, ipgre, ip6gre, none (tun, wireguard)
		return "tunnel"
	case 772:
		return "loopback"
	case 801, 802, 803:
		return "wifi"
	}
	return "other"
}
