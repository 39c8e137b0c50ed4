package agent

import (
	"runtime"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/collect/cpu"
	"github.com/rea-agent/rea/internal/collect/disk"
	"github.com/rea-agent/rea/internal/collect/eventlog"
	"github.com/rea-agent/rea/internal/collect/host"
	"github.com/rea-agent/rea/internal/collect/mem"
	"github.com/rea-agent/rea/internal/collect/netif"
	"github.com/rea-agent/rea/internal/collect/proc"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/redact"
)

// A source is one collector: the kind of its events, which is its name as well,
// what they hold, when it is read, and how it is made.
type source struct {
	kind    event.Kind
	schema  string
	section CollectorSection
	open    func() collect.Reader
}

// A replayer is a source that follows a log, and can read it again.
type replayer struct {
	kind   event.Kind
	schema string
	on     bool // it is wanted, and this system has it
	open   func() collect.Source
}

// replayers lists the sources that follow a log, one line each.
func replayers(c *Config, m *metric.Set, handed eventlog.Handed) []replayer {
	return []replayer{
		{event.EventLog, eventlog.Schema, followsEventLog(c), func() collect.Source { return eventlog.New(eventLog(c, m, handed)) }},
	}
}

func followsEventLog(c *Config) bool {
	return runtime.GOOS == "windows" && len(c.Collectors.WinEventLogChannels) > 0
}

// sources lists the collectors, one line each.
func sources(c *Config, policy *redact.Policy) []source {
	s := &c.Collectors
	return []source{
		{event.CPU, cpu.Schema, s.CPU, func() collect.Reader { return cpu.New() }},
		{event.Memory, mem.Schema, s.Memory, func() collect.Reader { return mem.New() }},
		{event.Disk, disk.Schema, s.Disk, func() collect.Reader { return disk.New(disk.Config{}) }},
		{event.Network, netif.Schema, s.Network, func() collect.Reader { return netif.New() }},
		{event.Process, proc.Schema, s.Process, func() collect.Reader { return proc.New(processes(c, policy)) }},
		{event.Host, host.Schema, s.Host, func() collect.Reader { return host.New() }},
	}
}

// processes says what the process collector may read: what is removed anyway is
// not even read.
func processes(c *Config, policy *redact.Policy) proc.Config {
	return proc.Config{
		TopN:         c.Collectors.TopNProcs,
		CommandLines: policy.Reads(string(event.Process), "command_line", redact.Command),
		Users:        policy.Reads(string(event.Process), "user", redact.Account),
	}
}
