package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/service"
)

// programFile is this test under a name by which it is the program (TestMain), in
// folder.
func programFile(t *testing.T, folder string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	name := filepath.Join(folder, "rea-agent"+strings.Repeat(".exe", map[bool]int{true: 1}[runtime.GOOS == "windows"]))
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err == nil {
		_, err = io.Copy(out, in)
		err = errors.Join(err, out.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestOnceGivesEventsOfEveryKindThatFollowTheSchema(t *testing.T) {
	program := programFile(t, t.TempDir())
	run := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command(program, args...).Output()
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return out
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(run("schema", "events")))
	c := jsonschema.NewCompiler()
	if err == nil {
		err = c.AddResource("events.json", doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("events.json")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for line := range bytes.Lines(run("once", "--agent.redact-pii=false")) {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err == nil {
			err = schema.Validate(v)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, line)
			continue
		}
		kinds[v.(map[string]any)["kind"].(string)]++
	}
	want := map[string]int{"cpu": 1, "memory": 1, "disk": 1, "network": 1, "process": 1, "host": 1}
	if d := cmp.Diff(want, kinds); d != "" {
		t.Errorf("kinds (-want +got):\n%s", d)
	}
}

func TestSystemdIsToldWhenTheAgentRunsAndStops(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no systemd")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cmd := exec.Command(programFile(t, dir), "run", "--logging.mode", "file", "--logging.file-path", filepath.Join(dir, "logs", "events.ndjson"))
	var words bytes.Buffer
	cmd.Stderr = &words
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hear := func() string {
		b := make([]byte, 100)
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, &words)
		}
		return string(b[:n])
	}
	if said := hear(); said != "READY=1" {
		t.Errorf("first %q", said)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if said := hear(); said != "STOPPING=1" {
		t.Errorf("then %q", said)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &words)
	}
}

func TestWhoCannotStartDoesNotSayThatItRuns(t *testing.T) {
	ready := false
	p := program(&supervisor{ready: func() { ready = true }})
	p.Stderr = io.Discard
	if code := p.Main(t.Context(), []string{"run", "--logging.mode", "file", "--logging.file-path", t.TempDir()}); code == 0 || ready {
		t.Errorf("code %d, ready: %v", code, ready)
	}
}

func TestAServiceNeedsNoStandardOutput(t *testing.T) {
	s := &settings{}
	s.config.Logging.Mode = "stdout"
	if err := s.fit(false); err != nil || s.config.Logging.Mode != "stdout" {
		t.Errorf("where somebody reads it: %v, %q", err, s.config.Logging.Mode)
	}
	if err := s.fit(true); cli.Code(err) != cli.Config {
		t.Errorf("events that go nowhere: %v", err)
	}
	s.config.Networking.Enabled = true
	if err := s.fit(true); err != nil || s.config.Logging.Mode != "none" {
		t.Errorf("%v, %q", err, s.config.Logging.Mode)
	}
}

func TestTheStatusIsForPeopleAndForPrograms(t *testing.T) {
	s := service.Status{Name: "REA", State: service.Failed, Starts: "by hand", Account: "a\x1b", Command: `"C:\a b" run`, Code: 78}
	var people bytes.Buffer
	if err := show(&people, &s); err != nil {
		t.Fatal(err)
	}
	const want = `service    REA
state      failed
exit code  78
starts     by hand
account    a\x1b
command    "C:\a b" run
`
	if d := cmp.Diff(want, people.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	programs, err := json.Marshal(s)
	if err != nil || string(programs) != `{"name":"REA","state":"failed","starts":"by hand","account":"a\u001b","command":"\"C:\\a b\" run","exit_code":78}` {
		t.Errorf("%v %s", err, programs)
	}
}

func TestErrorsOfTheServiceHaveTheirCodes(t *testing.T) {
	for err, want := range map[error]int{
		nil:                   cli.OK,
		service.ErrInstalled:  cli.IO,
		service.ErrAbsent:     cli.Unavailable,
		service.ErrForeign:    cli.Permission,
		service.ErrWritable:   cli.Permission,
		os.ErrPermission:      cli.Permission,
		service.ErrFailed:     cli.Unavailable,
		service.ErrManager:    cli.Unavailable,
		errors.ErrUnsupported: cli.Unavailable,
		context.Canceled:      cli.IO,
	} {
		if got := cli.Code(notDone(err)); got != want {
			t.Errorf("%v: code %d, want %d", err, got, want)
		}
	}
}
