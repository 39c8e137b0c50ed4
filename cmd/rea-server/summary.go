package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// summary says in a few words what an event of a kind holds. What the event
// does not have is left out; a kind that is not known here is shown as its
// simple members.
func summary(kind string, body []byte) string {
	var s interface{ String() string }
	switch kind {
	case "cpu":
		s = &cpu{}
	case "memory":
		s = &memory{}
	case "disk":
		s = &disk{}
	case "network":
		s = &network{}
	case "process":
		s = &process{}
	case "host":
		s = &host{}
	case "eventlog":
		s = &eventlog{}
	case "agent":
		s = &agent{}
	case "gap":
		s = &gap{}
	default:
		return members(body)
	}
	if json.Unmarshal(body, s) == nil {
		if text := s.String(); text != "" {
			return text
		}
	}
	return members(body)
}

// parts joins what is not empty.
func parts(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), ", ")
}

// when returns the text if the value is known.
func when[T any](v *T, text func(T) string) string {
	if v == nil {
		return ""
	}
	return text(*v)
}

type cpu struct {
	Utilization *float64
	Load1       *float64 `json:"load_average_1m"`
	Logical     *int     `json:"logical_count"`
}

func (c *cpu) String() string {
	return parts(
		when(c.Utilization, func(v float64) string { return percent(v) + " busy" }),
		when(c.Load1, func(v float64) string { return fmt.Sprintf("load %.2f", v) }),
		when(c.Logical, func(n int) string { return count(n, "core") }))
}

type memory struct {
	Total     *float64 `json:"total_bytes"`
	Used      *float64 `json:"used_bytes"`
	SwapTotal *float64 `json:"swap_total_bytes"`
	SwapUsed  *float64 `json:"swap_used_bytes"`
}

func (m *memory) String() string {
	var used, swap string
	if m.Total != nil && m.Used != nil {
		used = size(*m.Used) + " of " + size(*m.Total) + " used"
	}
	if m.SwapTotal != nil && m.SwapUsed != nil && *m.SwapTotal > 0 {
		swap = "swap " + size(*m.SwapUsed) + " of " + size(*m.SwapTotal)
	}
	return parts(used, swap)
}

type disk struct {
	Mounts []struct {
		Mountpoint  string
		Total       float64 `json:"total_bytes"`
		Utilization *float64
	}
	Devices []struct {
		Read  *float64 `json:"read_bytes_per_second"`
		Write *float64 `json:"write_bytes_per_second"`
	}
}

func (d *disk) String() string {
	fullest := ""
	highest := -1.0
	for _, m := range d.Mounts {
		if u := m.Utilization; u != nil && *u > highest && m.Total > 0 {
			highest = *u
			fullest = fmt.Sprintf("fullest %s %s of %s", m.Mountpoint, percent(*u), size(m.Total))
		}
	}
	var read, write sum
	for _, v := range d.Devices {
		read.add(v.Read)
		write.add(v.Write)
	}
	return parts(counted(len(d.Mounts), "mount"), fullest, read.rate("read"), write.rate("write"))
}

type network struct {
	Interfaces []struct {
		Type     string
		Receive  *float64 `json:"receive_bytes_per_second"`
		Transmit *float64 `json:"transmit_bytes_per_second"`
	}
	TCP struct {
		Established *int `json:"established_connections"`
	}
}

func (n *network) String() string {
	var in, out sum
	for _, i := range n.Interfaces {
		if i.Type != "loopback" {
			in.add(i.Receive)
			out.add(i.Transmit)
		}
	}
	return parts(counted(len(n.Interfaces), "interface"), in.rate("in"), out.rate("out"),
		when(n.TCP.Established, func(n int) string { return count(n, "connection") }))
}

type process struct {
	Count   *int
	Threads *int
	CPU     []struct {
		Name        string
		Utilization *float64 `json:"cpu_utilization_core"`
	} `json:"top_cpu"`
	Memory []struct {
		Name     string
		Resident *float64 `json:"resident_bytes"`
	} `json:"top_memory"`
}

func (p *process) String() string {
	var cpu, memory string
	if len(p.CPU) > 0 && p.CPU[0].Utilization != nil {
		cpu = "most CPU " + p.CPU[0].Name + " " + percent(*p.CPU[0].Utilization)
	}
	if len(p.Memory) > 0 && p.Memory[0].Resident != nil {
		memory = "most memory " + p.Memory[0].Name + " " + size(*p.Memory[0].Resident)
	}
	return parts(
		when(p.Count, func(n int) string { return count(n, "process") }),
		when(p.Threads, func(n int) string { return count(n, "thread") }), cpu, memory)
}

type host struct {
	OS           struct{ Name, Version string }
	Kernel       struct{ Release string }
	Architecture string
	Uptime       *float64 `json:"uptime_seconds"`
}

func (h *host) String() string {
	kernel := ""
	if h.Kernel.Release != "" {
		kernel = "kernel " + h.Kernel.Release
	}
	return parts(strings.TrimSpace(h.OS.Name+" "+h.OS.Version), kernel, h.Architecture,
		when(h.Uptime, func(s float64) string {
			return "up " + strings.TrimSuffix(time.Duration(min(s, 1e9)*float64(time.Second)).Round(time.Minute).String(), "0s")
		}))
}

type agent struct {
	Action, Source, Version, Reason string
	Lasted                          *float64 `json:"lasted_seconds"`
}

func (a *agent) String() string {
	s := parts(strings.Join(strings.Fields(a.Action+" "+a.Source+" "+a.Version), " "),
		when(a.Lasted, func(s float64) string { return fmt.Sprintf("after %.0f s", s) }))
	if a.Reason != "" {
		s += ": " + a.Reason
	}
	return s
}

type eventlog struct {
	Channel, Provider, Message string
	EventID                    *int `json:"event_id"`
	Level                      *int
}

// levels are the grave ones.
var levels = map[int]string{1: "critical", 2: "error", 3: "warning"}

func (l *eventlog) String() string {
	s := parts(strings.TrimSpace(l.Channel+" "+when(l.EventID, strconv.Itoa)), l.Provider, when(l.Level, func(n int) string { return levels[n] }))
	if text, _, _ := strings.Cut(l.Message, "\n"); text != "" {
		s += ": " + strings.TrimSpace(text)
	}
	return s
}

type gap struct {
	Source, Cause, Channel string
	Count, First, Last     uint64
}

func (g *gap) String() string {
	s := fmt.Sprintf("%d events", g.Count)
	if g.Source != "" {
		s += strings.TrimRight(" of "+g.Source+" "+g.Channel, " ")
	}
	if g.First > 0 {
		s += fmt.Sprintf(", %d to %d,", g.First, g.Last)
	}
	return s + " are missing: " + g.Cause
}

// sum adds what is known.
type sum struct {
	v     float64
	known bool
}

func (s *sum) add(v *float64) {
	if v != nil {
		s.v, s.known = s.v+*v, true
	}
}

func (s *sum) rate(name string) string {
	if !s.known {
		return ""
	}
	return name + " " + size(s.v) + "/s"
}

func percent(ratio float64) string { return strconv.FormatFloat(ratio*100, 'f', 1, 64) + " %" }

func count(n int, what string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(what, "s") || strings.HasSuffix(what, "ch"):
		what += "es"
	default:
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// counted is count, but nothing of none.
func counted(n int, what string) string {
	if n == 0 {
		return ""
	}
	return count(n, what)
}

// size shows bytes in the unit that leaves one to four digits.
func size(bytes float64) string {
	unit := 0
	for ; bytes >= 999.5 && unit < 6; unit++ {
		bytes /= 1024
	}
	places := 0
	if unit > 0 && bytes < 9.95 {
		places = 1
	}
	return strconv.FormatFloat(bytes, 'f', places, 64) + " " + [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}[unit]
}

// maxMembers bounds what is shown of a kind that is not known.
const maxMembers = 100

// members shows the members of an object as name=value, in their order, those
// that are objects or lists as … .
func members(body []byte) string {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return ""
	}
	var b strings.Builder
	for d.More() && b.Len() < maxMembers {
		name, err := d.Token()
		if err != nil {
			break
		}
		var v json.RawMessage
		if d.Decode(&v) != nil {
			break
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s=%s", name, member(v))
	}
	if d.More() {
		b.WriteString(" …")
	}
	return b.String()
}

func member(v json.RawMessage) string {
	var s string
	switch {
	case v[0] == '{' || v[0] == '[':
		return "…"
	case json.Unmarshal(v, &s) == nil:
		if r := []rune(s); len(r) > maxMembers {
			return string(r[:maxMembers]) + "…"
		}
		return s
	}
	return string(v)
}
