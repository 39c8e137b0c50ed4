package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/status"
)

// certified is a configuration with certificates of its own.
func certified(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	if _, err := identity.Generate(dir, nil); err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.Networking.Enabled, c.Networking.Endpoint = true, "https://127.0.0.1:1"
	c.TLS.CAFile, c.TLS.ClientCert, c.TLS.ClientKey = filepath.Join(dir, "ca.crt"), filepath.Join(dir, "agent.crt"), filepath.Join(dir, "agent.key")
	return c
}

func TestWhatAReloadTakesOfTheConfiguration(t *testing.T) {
	first, other := certified(t), certified(t)
	var log bytes.Buffer
	now, broken := first, error(nil)
	f := following(Options{
		Config: first, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Reload: func() (Config, string, error) { return now, "agent.toml", broken },
	})
	set, files, err := f.load()
	if err != nil || strings.Join(files, " ") != "agent.toml "+first.TLS.CAFile+" "+first.TLS.ClientCert+" "+first.TLS.ClientKey {
		t.Fatal(files, err)
	}

	now.TLS.SPKIPins = []string{identity.SPKI(set.Leaf)}
	pinned, _, err := f.load()
	if err != nil || pinned.Same(set) || log.Len() > 0 {
		t.Errorf("pins: %v\n%s", err, log.String())
	}

	now.Status.Enabled = true
	if again, _, err := f.load(); err != nil || !again.Same(pinned) {
		t.Errorf("other keys: %v", err)
	}

	now.TLS = other.TLS
	if _, files, err := f.load(); err == nil || !strings.Contains(err.Error(), "start it anew to give it another name") || files[1] != other.TLS.CAFile {
		t.Errorf("another name: %v, %q", err, files)
	}

	broken = errors.New("line 7 is wrong")
	if _, files, err := f.load(); !errors.Is(err, broken) || len(files) != 4 {
		t.Errorf("a broken configuration: %v, %q", err, files)
	}
}

func TestACertificateComesAndGoesWithAStart(t *testing.T) {
	with := certified(t)
	without := with
	without.TLS.ClientCert, without.TLS.ClientKey = "", ""
	for _, c := range []struct {
		was, is Config
		want    string
	}{
		{without, with, "was started without one"},
		{with, without, "there is no client certificate any more"},
		{without, without, ""},
	} {
		now := c.was
		f := following(Options{
			Config: c.was, Log: slog.New(slog.DiscardHandler), Reload: func() (Config, string, error) { return now, "agent.toml", nil },
		})
		if _, _, err := f.load(); err != nil {
			t.Fatal(err)
		}
		now = c.is
		if _, _, err := f.load(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// following returns what follows the configuration of an agent that was not started.
func following(o Options) *follower {
	a := &Agent{o: o}
	a.follower = &follower{agent: a, inForce: o.Config}
	return a.follower
}

// A rig is an agent that runs with a configuration that the test changes.
type rig struct {
	*testing.T
	*Agent
	log    bytes.Buffer
	level  slog.LevelVar
	events string // file of events
	file   string // of the configuration

	mu     sync.Mutex
	now    Config
	broken error

	hangup chan os.Signal
	end    context.CancelFunc
	done   chan error
}

// start runs an agent that reads only what change asks for, in virtual time.
func start(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{T: t, now: Default(), events: filepath.Join(dir, "events.ndjson"), file: filepath.Join(dir, "agent.toml"), hangup: make(chan os.Signal), done: make(chan error, 1)}
	r.write("")
	r.now.Logging.Mode, r.now.Logging.FilePath = "file", r.events
	c := &r.now.Collectors
	c.WinEventLogChannels = nil
	for _, s := range []*CollectorSection{&c.CPU, &c.Memory, &c.Disk, &c.Network, &c.Process, &c.Host} {
		s.Enabled = false
	}
	change(&r.now)
	var err error
	r.Agent, err = New(Options{
		Config: r.now, Log: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: &r.level})), Level: &r.level, Hangup: r.hangup,
		Reload: func() (Config, string, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.now, r.file, r.broken
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	r.end = end
	go func() { r.done <- r.Agent.Run(ctx) }()
	synctest.Wait()
	return r
}

func (r *rig) write(text string) {
	r.Helper()
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
}

// change changes the configuration, and fails to read it if broken is not nil.
func (r *rig) change(change func(*Config), broken error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = broken
	change(&r.now)
}

// reload changes the configuration and asks the agent to read it.
func (r *rig) reload(change func(*Config), broken error) {
	r.change(change, broken)
	r.hangup <- syscall.SIGHUP
	synctest.Wait()
}

func (r *rig) stop() {
	r.Helper()
	r.end()
	if err := <-r.done; err != nil {
		r.Error(err)
	}
}

// took returns what was written since the last time: kinds, or what agent events
// tell.
func (r *rig) took() (list []string) {
	r.Helper()
	for _, e := range r.lines() {
		what := e.Kind
		if e.Agent != nil {
			what = strings.TrimSpace(e.Agent.Action + " " + e.Agent.Reason)
		}
		list = append(list, what)
	}
	return list
}

type told struct {
	Kind  string
	Agent *struct {
		Action, Reason string
		ConfigHash     string `json:"config_hash"`
	}
	Process *struct {
		ByCPU []struct{ User string } `json:"top_cpu"`
	}
}

func (r *rig) lines() (list []told) {
	r.Helper()
	text, err := os.ReadFile(r.events)
	if err != nil {
		r.Fatal(err)
	}
	if err := os.Truncate(r.events, 0); err != nil {
		r.Fatal(err)
	}
	for text := range bytes.Lines(text) {
		var l told
		if err := json.Unmarshal(text, &l); err != nil {
			r.Fatalf("%s: %v", text, err)
		}
		list = append(list, l)
	}
	return list
}

func (r *rig) want(want ...string) {
	r.Helper()
	if d := cmp.Diff(want, r.took(), cmpopts.EquateEmpty()); d != "" {
		r.Errorf("written (-want +got):\n%s", d)
	}
}

// said counts how often the log has a text.
func (r *rig) said(text string, times int) {
	r.Helper()
	if n := strings.Count(r.log.String(), text); n != times {
		r.Errorf("%q is said %d times, want %d:\n%s", text, n, times, r.log.String())
	}
}

func (r *rig) figure(text string) {
	r.Helper()
	var b bytes.Buffer
	if _, err := r.metrics.WriteTo(&b); err != nil || !strings.Contains(b.String(), text) {
		r.Errorf("the metrics do not have %s: %v\n%s", text, err, b.String())
	}
}

func TestCollectorsChangeWhileTheOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(c *Config) {
			c.Collectors.CPU = CollectorSection{true, 10 * time.Second, time.Second}
			c.Collectors.Host = CollectorSection{true, time.Hour, time.Second}
		})
		time.Sleep(time.Second)
		if first := r.took(); len(first) != 3 { // in any order
			t.Errorf("at first %q", first)
		}
		r.reload(func(c *Config) {
			c.Collectors.CPU.Interval = 20 * time.Second
			c.Collectors.Memory = CollectorSection{true, 30 * time.Second, time.Second}
		}, nil)
		if now := r.took(); len(now) != 3 || !slices.Contains(now, "reload changed: collectors.cpu.interval_ms collectors.memory.enabled collectors.memory.interval_ms collectors.memory.timeout_ms") {
			t.Errorf("with the change %q", now)
		}
		time.Sleep(28 * time.Second) // to 0:29
		r.want("cpu")
		r.reload(func(c *Config) { c.Collectors.CPU.Enabled = false }, nil)
		r.want("reload changed: collectors.cpu.enabled")
		time.Sleep(time.Minute)
		r.want("memory", "memory")
		r.reload(func(*Config) {}, nil)
		r.want()
		r.stop()
		r.want("stop")
	})
}

func TestRedactionChangesWhileTheAgentRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(c *Config) {
			c.Collectors.Process = CollectorSection{true, 10 * time.Second, 5 * time.Second}
		})
		time.Sleep(15 * time.Second)
		users := func() (named int) {
			for _, l := range r.lines() {
				if l.Process != nil {
					for _, p := range l.Process.ByCPU {
						if p.User != "" {
							named++
						}
					}
				}
			}
			return named
		}
		if n := users(); n != 0 {
			t.Errorf("%d users are named", n)
		}
		r.reload(func(c *Config) { c.Agent.RedactPII = false }, nil)
		time.Sleep(10 * time.Second)
		if users() == 0 {
			t.Error("no user is named")
		}
		r.reload(func(c *Config) { c.Agent.RedactPII = true }, nil)
		time.Sleep(10 * time.Second)
		if n := users(); n != 0 {
			t.Errorf("%d users are named again", n)
		}
		r.stop()
	})
}

func TestWhatCannotChangeWhileTheAgentRunsIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(*Config) {})
		before := r.now.Hash()
		r.lines()
		for range 2 {
			r.reload(func(c *Config) { c.Status.Enabled, c.Networking.QueueMaxBytes = true, 1<<26 }, nil)
			r.said(`takes effect when the agent starts again" keys="[status.enabled networking.queue_max_bytes]"`, 1)
		}
		r.want()
		r.reload(func(c *Config) { c.Logging.Level, c.Status.Port = "error", 9101 }, nil)
		if r.level.Level() != slog.LevelError {
			t.Errorf("the level is %v", r.level.Level())
		}
		in := r.now
		in.Status, in.Networking = Default().Status, Default().Networking
		if l := r.lines(); len(l) != 1 || l[0].Agent.Action != "reload" || l[0].Agent.ConfigHash != in.Hash() || in.Hash() == before {
			t.Errorf("%+v, want the hash %s", l, in.Hash())
		}
		r.stop()
	})
}

func TestAConfigurationThatCannotBeTakenChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(c *Config) { c.Collectors.CPU = CollectorSection{true, 10 * time.Second, time.Second} })
		time.Sleep(time.Second)
		r.lines()
		r.figure("rea_config_reload_success 1")
		for range 3 {
			r.reload(func(*Config) {}, errors.New("line 7 is wrong"))
			r.said("line 7 is wrong", 1)
			time.Sleep(5 * time.Second)
		}
		r.want("reload_failed the configuration is not taken: line 7 is wrong", "cpu")
		r.figure("rea_config_reload_success 0")
		if h := r.health(); h.Status != status.Degraded || !slices.Contains(h.Reasons, "the configuration is not taken: line 7 is wrong") {
			t.Errorf("%s: %q", h.Status, h.Reasons)
		}
		r.reload(func(c *Config) { // what it names is not there
			c.Collectors.CPU.Enabled = false
			c.Redact.HashKeyFile = filepath.Join(t.TempDir(), "key")
		}, nil)
		time.Sleep(10 * time.Second)
		if l := r.took(); len(l) != 2 || !strings.Contains(l[0], "reload_failed the configuration is not taken: hash key") || l[1] != "cpu" {
			t.Errorf("%q", l)
		}
		r.reload(func(c *Config) { c.Redact.HashKeyFile = "" }, nil)
		r.want("reload changed: collectors.cpu.enabled")
		r.reload(func(*Config) {}, errors.New("line 7 is wrong"))
		r.reload(func(*Config) {}, nil)
		r.want("reload_failed the configuration is not taken: line 7 is wrong", "reload what could not be taken can be again")
		r.said("can be read again", 2)
		r.figure("rea_config_reload_success 1")
		if h := r.health(); h.Status != status.OK {
			t.Errorf("%s: %q", h.Status, h.Reasons)
		}
		r.stop()
	})
}

func TestAFileThatChangesIsTakenWithoutASignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(*Config) {})
		time.Sleep(time.Minute)
		r.lines()
		r.change(func(c *Config) { c.Collectors.Host = CollectorSection{true, time.Hour, time.Second} }, nil)
		time.Sleep(time.Minute)
		r.want()
		r.write("other = true")
		time.Sleep(3 * trustInterval)
		if l := r.took(); len(l) != 2 || !slices.Contains(l, "host") {
			t.Errorf("%q", l)
		}
		r.stop()
	})
}

// The key of the hashes is read again as well: who replaces it need not restart.
func TestAnotherKeyOfRedactionIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := filepath.Join(t.TempDir(), "key")
		write := func(first string) {
			if err := os.WriteFile(key, []byte(first+"123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("a")
		r := start(t, func(c *Config) { c.Redact.HashKeyFile = key })
		before, _, _ := r.redact(event.Process, "user", event.Account, "alice")
		write("b")
		time.Sleep(3 * trustInterval)
		after, _, _ := r.redact(event.Process, "user", event.Account, "alice")
		if before == "" || after == "" || before == after {
			t.Errorf("alice is %q, and then %q", before, after)
		}
		if l := r.took(); len(l) != 2 || l[1] != "reload changed: what is in redact.hash_key_file" {
			t.Errorf("told %q", l)
		}
		r.stop()
	})
}
