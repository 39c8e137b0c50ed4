package agent

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/rea-agent/rea/internal/collect/eventlog"
	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

// EventLogSection is what [collectors] says of the Windows event log.
type EventLogSection struct {
	WinEventLogChannels []string
	WinEventLogRPS      int
	WinEventLogRate     string // defer, drop
	WinEventLogStartAt  string // now, oldest
	WinEventLogMessage  bool
	WinEventLogXML      bool
	WinEventLogRules    []string
}

func defaultEventLog() EventLogSection {
	return EventLogSection{
		WinEventLogChannels: []string{"System", "Application", "Security"},
		WinEventLogRPS:      500,
		WinEventLogRate:     "defer",
		WinEventLogStartAt:  "now",
		WinEventLogRules:    []string{},
	}
}

func (s *EventLogSection) keys() []config.Key {
	return []config.Key{
		{Name: "collectors.win_eventlog_channels", Value: config.Strings(&s.WinEventLogChannels, `a list of channels of the Windows event log, like ["System", "Microsoft-Windows-*/Operational"]`, asFault(eventlog.CheckChannel)),
			Usage: "The channels of the Windows event log that are read, by name or by a pattern with * and ?; an empty list reads none. Not used on other systems."},
		{Name: "collectors.win_eventlog_rps", Value: config.Int(&s.WinEventLogRPS, 1, eventlog.MaxRPS),
			Usage: "How many events a second each channel may give."},
		{Name: "collectors.win_eventlog_rate", Value: config.Enum(&s.WinEventLogRate, "defer", "drop"),
			Usage: `What becomes of more: "defer" leaves it in the log until there is time, "drop" passes it over, and a gap event says how many.`},
		{Name: "collectors.win_eventlog_start_at", Value: config.Enum(&s.WinEventLogStartAt, "now", "oldest"),
			Usage: "Where a channel is begun that was never read before: with what comes from now on, or with the oldest record that it has."},
		{Name: "collectors.win_eventlog_message", Value: config.Bool(&s.WinEventLogMessage),
			Usage: "Ask Windows what each record says in words. It costs more than all the rest."},
		{Name: "collectors.win_eventlog_xml", Value: config.Bool(&s.WinEventLogXML),
			Usage: "Keep the XML of each record beside what was read of it. It is left out while agent.redact_pii or redact_cmdline is on."},
		{Name: "collectors.win_eventlog_rules", Value: config.Strings(&s.WinEventLogRules, `a list like ["Security: rps=2000 rate=drop", "Application: message=true xpath=*[System[Level<=3]]"]`, asFault(eventLogRule)),
			Usage: "What is different for single channels, or those that a pattern means: start_at, rate, rps, message, xml and, as the last, xpath, which filters in Windows. Later ones count."},
	}
}

func eventLogRule(s string) error {
	_, err := eventlog.ParseRule(s)
	return err
}

// asFault makes of a check of the event log one of the configuration.
func asFault(check func(string) error) config.Check {
	return func(s string) error {
		err := check(s)
		if e, ok := errors.AsType[*eventlog.RuleError](err); ok {
			return &config.Fault{What: e.What, Fix: e.Fix}
		}
		return err
	}
}

// eventLogFile remembers up to where the channels were read, beside the queues or,
// where nothing is sent, beside the file of events.
const eventLogFile = "eventlog.cursor"

// handedBytes bounds what is read of the queue at the start, from its end: more
// than a source hands over between two times that it writes its positions down.
const handedBytes = 4 << 20

// handedOver reads from the end of the queue of evidence up to where each channel
// of the event log was handed over: after a kill its positions on the disk are some
// seconds old, and what came since would be handed over twice. It is called before
// the queue is opened, which removes what was delivered. What cannot be read is
// passed over: then those come twice.
func handedOver(dir string, log *slog.Logger) eventlog.Handed {
	handed := eventlog.Handed{}
	in, err := queue.Inspect(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return handed
	}
	if err != nil {
		log.Warn("what was handed over last is not known, and may be again", "error", err.Error())
		return handed
	}
	var last [][]byte // records, the oldest first
	size := 0
	for r, err := range in.Records(true) {
		if err != nil {
			continue // the queue tells of it
		}
		last = append(last, bytes.Clone(r.Data))
		for size += len(r.Data); size > handedBytes; last = last[1:] {
			size -= len(last[0])
		}
	}
	d := wire.NewDecompressor()
	var lines []byte
	for _, data := range last {
		if wire.IsZstd(data) {
			if lines, err = d.Decode(lines[:0], data, exportBytes); err != nil {
				continue
			}
			data = lines
		}
		for line := range bytes.Lines(data) {
			handed.Note(line)
		}
	}
	return handed
}

// eventLog is how the source of the event log is set up. What goes to standard
// output alone has no place to remember anything in.
func eventLog(c *Config) eventlog.Config {
	s := &c.Collectors
	e := eventlog.Config{
		Channels: s.WinEventLogChannels, RPS: s.WinEventLogRPS, Drop: s.WinEventLogRate == "drop", Oldest: s.WinEventLogStartAt == "oldest",
		Message: s.WinEventLogMessage, XML: s.WinEventLogXML,
	}
	for _, text := range s.WinEventLogRules {
		if r, err := eventlog.ParseRule(text); err == nil { // the configuration has checked them
			e.Rules = append(e.Rules, r)
		}
	}
	switch {
	case c.Networking.Enabled:
		e.File = filepath.Join(c.Networking.QueueDir, eventLogFile)
	case c.Logging.Mode == "file":
		e.File = filepath.Join(filepath.Dir(c.Logging.FilePath), eventLogFile)
	}
	return e
}

// followEventLog returns a source of the event log that goes on where the last one
// was.
func (a *Agent) followEventLog(c eventlog.Config) *eventlog.Source {
	c.Handed, c.Metrics = a.output.handed, a.metrics
	if a.eventLog == nil {
		a.eventLog = eventlog.New(c)
	} else {
		a.eventLog = a.eventLog.With(c)
	}
	return a.eventLog
}
