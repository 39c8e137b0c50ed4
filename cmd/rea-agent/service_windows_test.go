package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/service"
	"github.com/rea-agent/rea/test/windows/wine"
)

// A controlled handler is one under a control manager that the test is.
type controlled struct {
	t        *testing.T
	requests chan svc.ChangeRequest
	statuses chan svc.Status
	ended    chan uint32
}

func control(t *testing.T, run handler) *controlled {
	c := &controlled{t, make(chan svc.ChangeRequest), make(chan svc.Status, 100), make(chan uint32, 1)}
	go func() {
		_, code := run.Execute(nil, c.requests, c.statuses)
		c.ended <- code
	}()
	synctest.Wait()
	return c
}

func (c *controlled) send(cmd svc.Cmd) {
	c.requests <- svc.ChangeRequest{Cmd: cmd}
	synctest.Wait()
}

// states returns those that were told since, each once.
func (c *controlled) states() (told []svc.State) {
	for {
		select {
		case s := <-c.statuses:
			if len(told) == 0 || told[len(told)-1] != s.State {
				told = append(told, s.State)
			}
		default:
			return told
		}
	}
}

func (c *controlled) want(what string, states ...svc.State) {
	c.t.Helper()
	if d := cmp.Diff(states, c.states()); d != "" {
		c.t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestTheServiceRunsOnlyWhenTheAgentDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := make(chan struct{})
		c := control(t, func(ctx context.Context, s *supervisor) int {
			<-opened
			s.ready()
			<-ctx.Done()
			return 0
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		c.want("before", svc.StartPending)
		close(opened)
		synctest.Wait()
		c.want("then", svc.Running)
		c.send(svc.Stop)
		c.want("at the end", svc.StopPending)
		if code := <-c.ended; code != 0 {
			t.Errorf("code %d", code)
		}
	})
}

func TestAChangeOfParametersIsAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reloads int
		c := control(t, func(ctx context.Context, s *supervisor) int {
			s.ready()
			for {
				select {
				case <-s.hangup():
					reloads++
				case <-ctx.Done():
					return 0
				}
			}
		})
		c.send(svc.ParamChange)
		c.send(svc.ParamChange)
		if reloads != 2 {
			t.Errorf("%d reloads of 2", reloads)
		}
		c.send(svc.PreShutdown)
		c.want("all", svc.StartPending, svc.Running, svc.StopPending)
		<-c.ended
	})
}

func TestAServiceThatDoesNotDrainEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never, began := make(chan struct{}), time.Now()
		c := control(t, func(_ context.Context, s *supervisor) int {
			s.ready()
			<-never
			return 0
		})
		c.send(svc.Stop)
		if code := <-c.ended; code != cli.Unavailable || time.Since(began) != drain {
			t.Errorf("code %d after %v", code, time.Since(began))
		}
		last := uint32(0)
		for len(c.statuses) > 0 {
			if s := <-c.statuses; s.State == svc.StopPending && s.CheckPoint > 0 {
				if s.CheckPoint != last+1 {
					t.Errorf("checkpoint %d after %d", s.CheckPoint, last)
				}
				last = s.CheckPoint
			}
		}
		if last == 0 {
			t.Error("the control manager heard of no progress")
		}
		close(never)
	})
}

func TestAServiceThatCannotStartSaysItsCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := control(t, func(context.Context, *supervisor) int { return cli.Config })
		if code := <-c.ended; code != cli.Config {
			t.Errorf("code %d", code)
		}
		c.want("all", svc.StartPending)
	})
}

func TestATestIsNotStartedByTheControlManager(t *testing.T) {
	if startedByServices() {
		t.Error("its parent is called services.exe")
	}
}

type reported struct{ text []string }

func (r *reported) Warning(_ uint32, text string) error {
	r.text = append(r.text, "warning "+text)
	return nil
}

func (r *reported) Error(_ uint32, text string) error {
	r.text = append(r.text, "error "+text)
	return nil
}

func TestWhatMattersGoesToTheEventLog(t *testing.T) {
	var r reported
	log := cli.Logger(events{&r}, slog.LevelDebug)
	log.Debug("a")
	log.Info("b")
	log.Warn("c")
	log.Error("d")
	if _, err := (events{&r}).Write([]byte("rea-agent: no such file\n")); err != nil {
		t.Error(err)
	}
	if len(r.text) != 3 || !strings.HasPrefix(r.text[0], "warning {") || !strings.Contains(r.text[1], `error {`) || r.text[2] != "error rea-agent: no such file" {
		t.Errorf("%q", r.text)
	}
}

// installed is the program in a folder with a space in its name.
type installed struct {
	t       *testing.T
	program string
}

// do runs a command, and wants its code.
func (i installed) do(code int, args ...string) string {
	i.t.Helper()
	var out, words bytes.Buffer
	cmd := exec.Command(i.program, args...)
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != code {
		i.t.Fatalf("%q: %v, want code %d\n%s%s", args, err, code, &out, &words)
	}
	i.t.Logf("%q\n%s%s", args, &out, &words)
	return out.String()
}

// events returns what the service wrote so far.
func (i installed) events(data string) []byte {
	i.t.Helper()
	text, err := os.ReadFile(filepath.Join(data, `logs\events.ndjson`))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		i.t.Fatal(err)
	}
	return text
}

func (i installed) status() service.Status {
	i.t.Helper()
	var s service.Status
	var words bytes.Buffer
	cmd := exec.Command(i.program, "service", "status", "--json")
	cmd.Stderr = &words
	out, _ := cmd.Output() // 69 where it does not run
	if err := json.Unmarshal(out, &s); err != nil {
		i.t.Fatalf("%v: %s%s", err, out, &words)
	}
	return s
}

// kept returns what the control manager keeps of the service, by the names that it
// has in the registry.
func kept(t *testing.T) map[string]string {
	t.Helper()
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\REA`, registry.QUERY_VALUE)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	values := map[string]string{}
	for _, name := range []string{"DisplayName", "Description"} {
		if values[name], _, err = k.GetStringValue(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"Start", "DelayedAutostart", "PreshutdownTimeout"} {
		n, _, err := k.GetIntegerValue(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		values[name] = strconv.FormatUint(n, 10)
	}
	return values
}

// accepted returns which controls the running service takes.
func accepted(t *testing.T) svc.Accepted {
	t.Helper()
	m, err := mgr.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Disconnect()
	s, err := m.OpenService(service.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now, err := s.Query()
	if err != nil {
		t.Fatal(err)
	}
	return now.Accepts
}

// It makes a service of the machine that it runs on, so it is for a machine that
// is thrown away afterwards.
func TestTheLifeOfTheServiceUnderAControlManager(t *testing.T) {
	if !wine.Running() {
		t.Skip("installs a service, so it is for a machine that is thrown away: a Wine of its own")
	}
	folder := filepath.Join(t.TempDir(), "Program Files")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	i := installed{t, programFile(t, folder)}
	const data = `C:\ProgramData\REA`
	i.do(cli.Unavailable, "service", "status")
	i.do(cli.Unavailable, "service", "start")
	i.do(cli.Unavailable, "service", "uninstall")

	// Something stands in the way: what was made before is removed again.
	if err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "logs"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	i.do(cli.Permission, "service", "install")
	if left, err := os.ReadDir(data); len(left) != 1 || i.status().State != service.Absent {
		t.Errorf("left of an install that failed: %v, %v, %+v", left, err, i.status())
	}
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}

	i.do(0, "service", "install", "--display-name", "REA of the lab")
	i.do(cli.IO, "service", "install")
	want := service.Status{
		Name: "REA", State: service.Stopped, Starts: "with the system, delayed", Account: `NT SERVICE\REA`,
		Command: `"` + i.program + `" run`,
	}
	if d := cmp.Diff(want, i.status()); d != "" {
		t.Errorf("installed (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]string{
		"DisplayName": "REA of the lab", "Description": service.Description, "Start": "2", "DelayedAutostart": "1", "PreshutdownTimeout": "30000",
	}, kept(t)); d != "" {
		t.Errorf("the control manager keeps (-want +got):\n%s", d)
	}
	if k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\EventLog\Application\REA`, registry.QUERY_VALUE); err != nil {
		t.Errorf("event source: %v", err)
	} else if err := k.Close(); err != nil {
		t.Error(err)
	}

	i.do(0, "service", "start")
	i.do(0, "service", "start") // which it does
	now := i.status()
	if now.State != service.Running || now.PID == 0 {
		t.Errorf("started: %+v", now)
	}
	if takes := accepted(t); takes != svc.AcceptStop|svc.AcceptPreShutdown|svc.AcceptParamChange {
		t.Errorf("it takes %#x", takes)
	}
	i.do(0, "service", "status")
	config := filepath.Join(data, "agent.toml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "\n[collectors.cpu]\nenabled = false\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	i.do(0, "service", "reload")
	for end := time.Now().Add(time.Minute); !bytes.Contains(i.events(data), []byte(`"action":"reload","reason":"changed: collectors.cpu.enabled"`)); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no reload is told:\n%s", i.events(data))
		}
	}
	if again := i.status(); again.PID != now.PID || again.State != service.Running {
		t.Errorf("after a reload: %+v", again)
	}
	i.do(0, "service", "stop")
	i.do(0, "service", "stop")
	if now := i.status(); now.State != service.Stopped || now.Code != 0 {
		t.Errorf("stopped: %+v", now)
	}
	if events := i.events(data); !bytes.Contains(events, []byte(`"action":"start"`)) || !bytes.Contains(events, []byte(`"action":"stop"`)) {
		t.Errorf("the events do not begin and end with the agent:\n%s", events)
	}

	// A configuration with a mistake: it starts no more, and the code says why.
	if err := os.WriteFile(config, []byte("[loging]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	i.do(cli.Unavailable, "service", "start")
	if now := i.status(); now.State != service.Failed || now.Code != cli.Config {
		t.Errorf("with a mistake: %+v", now)
	}

	i.do(0, "service", "uninstall")
	if now := i.status(); now.State != service.Absent {
		t.Errorf("uninstalled: %+v", now)
	}
	if _, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\EventLog\Application\REA`, registry.QUERY_VALUE); !errors.Is(err, registry.ErrNotExist) {
		t.Errorf("the event source is left: %v", err)
	}
	if _, err := os.Stat(data); err != nil {
		t.Errorf("the data went: %v", err)
	}
	i.do(0, "service", "uninstall", "--purge")
	if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the data is left: %v", err)
	}
}
