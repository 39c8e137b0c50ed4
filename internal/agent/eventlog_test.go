package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/collect/eventlog"
	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/pipeline"
	"github.com/rea-agent/rea/internal/redact"
	"github.com/rea-agent/rea/internal/status"
)

// logon is a record as Windows renders it, with a message as it would make it.
const logon = `<Event><System><Provider Name='Microsoft-Windows-Security-Auditing'/><EventID>4688</EventID><Level>0</Level><TimeCreated SystemTime='2026-11-23T10:11:12Z'/><EventRecordID>5</EventRecordID>` +
	`<Channel>Security</Channel><Computer>LAB-7</Computer><Security UserID='S-1-5-21-1-2-3-1104'/></System><EventData>` +
	`<Data Name='SubjectUserSid'>S-1-5-18</Data><Data Name='SubjectUserName'>LAB-7$</Data><Data Name='TargetUserSid'>S-1-5-21-1-2-3-1104</Data><Data Name='TargetUserName'>alice</Data>` +
	`<Data Name='TargetDomainName'>EXAMPLE</Data><Data Name='CommandLine'>backup --password=hunter2 C:\Users\alice\x</Data><Data Name='NewProcessName'>C:\Users\alice\backup.exe</Data>` +
	`<Data Name='IpAddress'>192.0.2.7</Data><Data Name='Note'>url https://bob:hunter2@example.org/</Data><Data Name='MemberName'>alice</Data><Data Name='MemberName'>carol</Data></EventData>` +
	`<UserData><X><UserName kind='local'>dave</UserName></X></UserData>` +
	`<RenderingInfo Culture='en-US'><Message>alice (S-1-5-21-1-2-3-1104) logged on from 192.0.2.7 as LAB-7$ with hunter2: --password=hunter2</Message></RenderingInfo></Event>`

// line is what the pipeline makes of a record.
func line(t *testing.T, xml string, o redact.Options) string {
	t.Helper()
	p := eventlog.Parser{KeepXML: true}
	r := new(eventlog.Record)
	p.Parse([]byte(xml), r)
	e := event.NewEncoder(event.Stamp{Node: "n", Host: "h", Stream: strings.Repeat("a", 32)}, pipeline.Redactor(redact.New(o)), 0)
	ev := r.Event(time.Now())
	b, err := e.Append(nil, &ev, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, compileEventSchema(t), b); err != nil {
		t.Errorf("%v\n%s", err, b)
	}
	return string(b)
}

func TestTheEventLogIsRedacted(t *testing.T) {
	key := []byte(strings.Repeat("k", 32))
	for name, c := range map[string]struct {
		o       redact.Options
		has, no []string
	}{
		"by default names and command lines are left out": {
			redact.Options{PII: true, Commands: true},
			[]string{`"SubjectUserSid":"S-1-5-18"`, `"SubjectUserName":"LAB-7$"`, `"TargetDomainName":"EXAMPLE"`, `"IpAddress":"192.0.2.7"`, `"NewProcessName":"C:\\Users\\[redacted]\\backup.exe"`,
				`"message":"[redacted] ([redacted]) logged on from 192.0.2.7 as LAB-7$`, `"eventlog.event_data.TargetUserName"`, `"eventlog.event_data.MemberName"`, `"eventlog.user_data.X.UserName.#text"`, `"eventlog.xml"`, `"eventlog.user_id"`},
			[]string{"alice", "carol", "dave", "hunter2@", "password=hunter2", "S-1-5-21", "CommandLine\":", `"xml":`},
		},
		"with a key they are hashes": {
			redact.Options{PII: true, Commands: true, Key: key},
			[]string{`"TargetUserName":"h:`, `"TargetUserSid":"h:`, `"MemberName":["h:`, `"user_id":"h:`, `"#text":"h:`, `"message":"h:`},
			[]string{"alice", "carol", "dave", "hunter2@", "S-1-5-21", `"xml":`},
		},
		"secrets go even so": {
			redact.Options{},
			[]string{`"TargetUserName":"alice"`, `"TargetUserSid":"S-1-5-21-1-2-3-1104"`, `"user_id":"S-1-5-21-1-2-3-1104"`, `"CommandLine":"backup --password=[redacted]`, `"#text":"dave"`, `"xml":"<Event>`},
			[]string{"password=hunter2", "bob:hunter2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := line(t, logon, c.o)
			for _, has := range c.has {
				if !strings.Contains(got, has) {
					t.Errorf("no %s in %s", has, got)
				}
			}
			for _, no := range c.no {
				if strings.Contains(got, no) {
					t.Errorf("%s in %s", no, got)
				}
			}
		})
	}
}

func TestXMLThatCannotBeReadTellsNoNames(t *testing.T) {
	got := line(t, strings.TrimSuffix(logon, "</Event>"), redact.Options{PII: true, Commands: true})
	for _, no := range []string{"alice", "carol", "dave"} {
		if strings.Contains(got, no) {
			t.Errorf("%s in %s", no, got)
		}
	}
	if !strings.Contains(got, `"errors":["xml: it ends in the middle"]`) || !strings.Contains(got, `"record_id":5`) {
		t.Error(got)
	}
}

func TestWhereTheEventLogIsReadTo(t *testing.T) {
	for _, c := range []struct {
		set  func(*Config)
		want string
	}{
		{func(c *Config) { c.Networking.Enabled, c.Networking.QueueDir = true, "q" }, filepath.Join("q", eventLogFile)},
		{func(c *Config) { c.Logging.Mode, c.Logging.FilePath = "file", filepath.Join("d", "f") }, filepath.Join("d", eventLogFile)},
		{func(*Config) {}, ""},
	} {
		config := Default()
		c.set(&config)
		if got := eventLog(&config).File; got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestTheQueueTellsUpToWhereTheEventLogWasHandedOver(t *testing.T) {
	for _, compression := range []string{"zstd", "none"} {
		t.Run(compression, func(t *testing.T) {
			c := Default()
			for _, s := range []*CollectorSection{&c.Collectors.CPU, &c.Collectors.Memory, &c.Collectors.Disk, &c.Collectors.Network, &c.Collectors.Process, &c.Collectors.Host} {
				s.Enabled = false
			}
			c.Logging.Mode = "none"
			c.Networking.Enabled, c.Networking.Endpoint, c.Networking.Compression = true, "https://127.0.0.1:1", compression // nobody is there
			c.Networking.QueueDir, c.Networking.QueueMinFreeBytes = filepath.Join(t.TempDir(), "queue"), 0
			log := slog.New(slog.DiscardHandler)
			if got := handedOver(filepath.Join(c.Networking.QueueDir, "evidence"), log); len(got) != 0 {
				t.Errorf("a queue that is not there has %v", got)
			}
			ctx, end := context.WithCancel(t.Context())
			a, err := New(Options{Config: c, Version: "test", Log: log, Sources: []Source{{"some", func(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
				defer end()
				return emitSome(ctx, emit)
			}}}})
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Run(ctx); err != nil {
				t.Fatal(err)
			}
			want := eventlog.Handed{"security": 8, "system": 6, "application": 10}
			if d := cmp.Diff(want, handedOver(filepath.Join(c.Networking.QueueDir, "evidence"), log)); d != "" {
				t.Error(d)
			}
		})
	}
}

// emitSome emits records of two channels, a gap of a third, and what says nothing
// of channels.
func emitSome(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
	var p eventlog.Parser
	r, now := new(eventlog.Record), time.Now()
	for _, xml := range []string{logon, strings.Replace(logon, "<EventRecordID>5", "<EventRecordID>7", 1), strings.Replace(logon, "<Channel>Security", "<Channel>System", 1)} {
		p.Parse([]byte(xml), r)
		if err := emit(ctx, r.Event(now)); err != nil {
			return err
		}
	}
	return emit(ctx,
		event.Event{Time: now, Kind: event.Gap, Body: &event.Missing{Source: "eventlog", Channel: "Application", Cause: "rate_limited", Count: 3, FirstRecord: 7, LastRecord: 9}},
		event.Event{Time: now, Kind: event.Gap, Body: &event.Missing{Source: "eventlog", Cause: "too_large", Count: 1}},
		event.Event{Time: now, Kind: event.Agent, Body: &event.Notice{Action: "source_down", Source: "eventlog", Reason: `"kind":"eventlog"`}})
}

// tells is a source of two parts, one of which does not work.
type tells struct{}

func (tells) Run(ctx context.Context, w *collect.Watch) error {
	w.Up(ctx)
	w.Part(ctx, "System", collect.OK, nil)
	w.Behind("System", collect.Backlog{Lag: 90 * time.Second, Records: 700, Missing: 12})
	w.Part(ctx, "Security", "denied", errors.New("access denied"))
	<-ctx.Done()
	return ctx.Err()
}

func TestHealthTellsOfThePartsOfASource(t *testing.T) {
	told := make(chan struct{}, 16)
	emit := func(context.Context, ...event.Event) error { told <- struct{}{}; return nil }
	a := &Agent{metrics: new(metric.Set), output: new(output)}
	a.runner = collect.NewRunner(emit, slog.New(slog.DiscardHandler), a.metrics)
	a.runner.Add("eventlog", tells{})
	ctx, end := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = a.runner.Run(ctx) })
	<-told
	r := a.health()
	end()
	run.Wait()
	want := map[string]status.Part{"System": {State: "ok", LagSeconds: 90, LagRecords: 700, MissingRecords: 12}, "Security": {State: "denied", LastError: "access denied"}}
	if d := cmp.Diff(want, r.Sources["eventlog"].Parts); d != "" || r.Status != status.Degraded || !slices.Contains(r.Reasons, "source eventlog/Security: access denied") {
		t.Errorf("%s %q %s", r.Status, r.Reasons, d)
	}
}

func TestRulesOfTheEventLogAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		"Security rps=5":          "is not channel: setting=value",
		"Security: rps=0":         "write a number from 1 to 100000",
		"*: message=true":         "",
		"A: xpath=*[System[1<2]]": "",
	} {
		c := Default()
		_, err := c.Spec().Load(config.Sources{Args: []config.Arg{{Key: "collectors.win_eventlog_rules", Flag: "--x", Text: text}}})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
