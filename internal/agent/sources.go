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
	"github.com/rea-agent/rea/internal/redact"
)

// A source is one kind of events: what they hold, whether the configuration wants
// them and this system has them, what else it says of them, and who makes them.
type source struct {
	kind     event.Kind
	schema   string
	on       bool
	settings any // a source with others is another one
	open     func() collect.Source
}

// sources lists all of them, one line each. follow makes the one that remembers.
func sources(c *Config, policy *redact.Policy, follow func(eventlog.Config) *eventlog.Source) []source {
	s := &c.Collectors
	processes, log := processes(c, policy), eventLog(c)
	return []source{
		polled(event.CPU, cpu.Schema, s.CPU, nil, func() collect.Reader { return cpu.New() }),
		polled(event.Memory, mem.Schema, s.Memory, nil, func() collect.Reader { return mem.New() }),
		polled(event.Disk, disk.Schema, s.Disk, nil, func() collect.Reader { return disk.New(disk.Config{}) }),
		polled(event.Network, netif.Schema, s.Network, nil, func() collect.Reader { return netif.New() }),
		polled(event.Process, proc.Schema, s.Process, processes, func() collect.Reader { return proc.New(processes) }),
		polled(event.Host, host.Schema, s.Host, nil, func() collect.Reader { return host.New() }),
		{event.EventLog, eventlog.Schema, followsEventLog(c), log, func() collect.Source { return follow(log) }},
	}
}

// polled is a source that is read at intervals.
func polled(kind event.Kind, schema string, s CollectorSection, settings any, open func() collect.Reader) source {
	return source{kind, schema, s.Enabled, [...]any{s, settings}, func() collect.Source { return collect.Poll(open(), s.Interval, s.Timeout) }}
}

func followsEventLog(c *Config) bool {
	return runtime.GOOS == "windows" && len(c.Collectors.WinEventLogChannels) > 0
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
