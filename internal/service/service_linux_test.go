package service

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A fake machine has folders of its own, and answers as systemd would.
type fake struct {
	*machine
	called  []string
	answers map[string]string // by the first two words
	fails   string            // the command that does
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{machine: &machine{root: t.TempDir()}, answers: map[string]string{}}
	for _, dir := range []string{"/etc/systemd/system", "/run/systemd/system", "/var/lib/rea/queue", "/etc/rea"} {
		if err := os.MkdirAll(f.root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(f.root+"/etc/passwd", []byte("root:x:0:0::/:/bin/sh\nrea:x:999:999::/:/bin/false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.run = func(_ context.Context, stdin, name string, args ...string) (string, error) {
		line := strings.Join(append([]string{name}, args...), " ")
		if stdin != "" {
			line += " < " + strings.TrimSpace(stdin)
		}
		f.called = append(f.called, line)
		if line == f.fails {
			return "", errors.New("it does not")
		}
		return f.answers[strings.Join(strings.Fields(line)[:2], " ")], nil
	}
	return f
}

// program is an executable that nobody else may change.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rea agent")
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInstallMakesUserAndUnitAndUninstallRemovesThem(t *testing.T) {
	f := newFake(t)
	path := program(t)
	report, err := f.install(t.Context(), Options{Program: path, Config: "/etc/rea/100 %.toml", DisplayName: "REA 100 %"})
	if err != nil {
		t.Fatal(err)
	}
	want := &Report{Done: []string{"user rea", "unit /etc/systemd/system/rea-agent.service, as rea"}}
	if d := cmp.Diff(want, report); d != "" {
		t.Errorf("install (-want +got):\n%s", d)
	}
	text, err := os.ReadFile(f.root + unitFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`ExecStart="` + path + `" run --config "/etc/rea/100 %%.toml"`, "Description=REA 100 %%", "User=rea", "Type=notify", "TimerSlackNSec=4ms"} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("the unit has no line %s:\n%s", line, text)
		}
	}
	if _, err := f.install(t.Context(), Options{Program: path}); !errors.Is(err, ErrInstalled) {
		t.Errorf("again: %v", err)
	}
	if report, err = f.uninstall(t.Context(), false); err != nil || len(report.Done) != 1 {
		t.Errorf("uninstall: %v, %v", report, err)
	}
	if _, err := os.Stat(f.root + "/var/lib/rea/queue"); err != nil {
		t.Errorf("the data went: %v", err)
	}
	if _, err := f.uninstall(t.Context(), false); !errors.Is(err, ErrAbsent) {
		t.Errorf("uninstall again: %v", err)
	}
	if report, err = f.uninstall(t.Context(), true); err != nil || len(report.Done) != 3 {
		t.Errorf("purge: %v, %v", report, err)
	}
	if _, err := os.Stat(f.root + "/var/lib/rea"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the data is left: %v", err)
	}
	if d := cmp.Diff([]string{
		`systemd-sysusers - < u rea - "REA Endpoint Agent" /var/lib/rea`,
		"systemctl daemon-reload", "systemctl enable rea-agent.service",
		"systemctl disable --now rea-agent.service", "systemctl daemon-reload",
		"userdel rea",
	}, f.called); d != "" {
		t.Errorf("commands (-want +got):\n%s", d)
	}
}

func TestAnInstallThatFailsLeavesNoUnit(t *testing.T) {
	f := newFake(t)
	f.fails = "systemctl enable rea-agent.service"
	if _, err := f.install(t.Context(), Options{Program: program(t)}); err == nil {
		t.Error("it did not fail")
	}
	if _, err := os.Lstat(f.root + unitFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unit is left: %v", err)
	}
}

func TestWhatIsNotInstalled(t *testing.T) {
	writable := program(t)
	if err := os.Chmod(writable, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(f *fake, o *Options)
		want   error
	}{
		"by a user":                             {func(f *fake, _ *Options) { f.uid = 1000 }, fs.ErrPermission},
		"a program that others can exchange":    {func(_ *fake, o *Options) { o.Program = writable }, ErrWritable},
		"beside the unit of a package":          {func(f *fake, _ *Options) { f.put("/usr/lib/systemd/system/" + Unit) }, ErrInstalled},
		"a name with a line of its own":         {func(_ *fake, o *Options) { o.DisplayName = "a\nExecStartPre=/bin/x" }, nil},
		"an account with a line of its own":     {func(_ *fake, o *Options) { o.Account = "a\nExecStartPre=/bin/x" }, nil},
		"where systemd is not to be had at all": {func(f *fake, _ *Options) { f.fails = "systemctl daemon-reload" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f, o := newFake(t), Options{Program: program(t)}
			c.change(f, &o)
			_, err := f.install(t.Context(), o)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if _, err := os.Lstat(f.root + unitFile); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a unit is there: %v", err)
			}
		})
	}
}

func (f *fake) put(path string) {
	if err := errors.Join(os.MkdirAll(filepath.Dir(f.root+path), 0o755), os.WriteFile(f.root+path, nil, 0o644)); err != nil {
		panic(err)
	}
}

func TestAnotherAccountIsTakenAsItIs(t *testing.T) {
	text, err := unit(&Options{Program: "/usr/bin/rea-agent", Account: "telemetry"})
	if err != nil || !strings.Contains(text, "\nUser=telemetry\n") || strings.Contains(text, "Group=") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestWordsOfAUnitStayWords(t *testing.T) {
	for in, want := range map[string]string{
		"/usr/bin/rea-agent": "/usr/bin/rea-agent",
		"/opt/a b":           `"/opt/a b"`,
		"/opt/100%/$HOME":    "/opt/100%%/$$HOME",
		`/opt/"x\y`:          `"/opt/\"x\\y"`,
		"/opt/a;b":           `"/opt/a;b"`,
	} {
		if got := quoteUnit(in); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

func TestTheStateIsThatOfSystemd(t *testing.T) {
	for _, c := range []struct {
		shown string
		want  Status
	}{
		{"LoadState=not-found\nActiveState=inactive\n", Status{Name: Unit, State: Absent}},
		{
			"LoadState=loaded\nActiveState=active\nMainPID=42\nUnitFileState=enabled\nUser=rea\nExecMainStatus=0\n" +
				"ExecStart={ path=/usr/bin/rea-agent ; argv[]=/usr/bin/rea-agent run ; ignore_errors=no ; start_time=[n/a] }\n",
			Status{Name: Unit, State: Running, PID: 42, Starts: "with the system", Account: "rea", Command: "/usr/bin/rea-agent run"},
		},
		{
			"LoadState=loaded\nActiveState=failed\nMainPID=0\nUnitFileState=disabled\nUser=rea\nExecMainStatus=78\n",
			Status{Name: Unit, State: Failed, Starts: "by hand", Account: "rea", Code: 78},
		},
		{"LoadState=loaded\nActiveState=activating\n", Status{Name: Unit, State: Starting, Starts: "by hand"}},
		{"LoadState=loaded\nActiveState=deactivating\n", Status{Name: Unit, State: Stopping, Starts: "by hand"}},
		{"LoadState=loaded\nActiveState=inactive\n", Status{Name: Unit, State: Stopped, Starts: "by hand"}},
	} {
		f := newFake(t)
		f.answers["systemctl show"] = c.shown
		got, err := f.query(t.Context())
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
	}
}

func TestAServiceIsToldWhatToDo(t *testing.T) {
	f := newFake(t)
	f.answers["systemctl show"] = "LoadState=loaded\nActiveState=active\n"
	for _, verb := range []string{"start", "stop", "reload"} {
		if err := f.control(t.Context(), verb); err != nil || f.called[len(f.called)-1] != "systemctl "+verb+" rea-agent.service" {
			t.Errorf("%s: %v, %q", verb, err, f.called)
		}
	}
	f.fails = "systemctl start rea-agent.service"
	if err := f.control(t.Context(), "start"); !errors.Is(err, ErrFailed) {
		t.Errorf("a start that fails: %v", err)
	}
	f.uid = 1000
	if err := f.control(t.Context(), "stop"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("by a user: %v", err)
	}
	f.answers["systemctl show"] = "LoadState=not-found\n"
	if err := f.control(t.Context(), "stop"); !errors.Is(err, ErrAbsent) {
		t.Errorf("without one: %v", err)
	}
	if err := os.Remove(f.root + "/run/systemd/system"); err != nil {
		t.Fatal(err)
	}
	if err := f.control(t.Context(), "stop"); !errors.Is(err, ErrManager) {
		t.Errorf("without systemd: %v", err)
	}
}

func TestACommandThatFailsSaysWhy(t *testing.T) {
	if out, err := command(t.Context(), "in", "cat"); out != "in" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := command(t.Context(), "", "cat", "/none\n"); err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("%v", err)
	}
	if _, err := command(t.Context(), "", "rea-no-such-program"); !errors.Is(err, ErrManager) {
		t.Errorf("%v", err)
	}
}

func TestTheUnitIsExposedByAtMostTwo(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("SKIP the exposure of the unit: no systemd-analyze here")
	}
	file, err := filepath.Abs("rea-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`exposure level for rea-agent.service: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("it says no level:\n%s", out)
	}
	if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > 2 {
		t.Errorf("%v: %s", err, m[0])
	}
}

// What passes, such as a minute without a free descriptor, is not to end the agent for
// the day: the starts that a day allows last longer.
func TestTheStartsOfADayLastHalfAnHour(t *testing.T) {
	value := func(key string) string {
		t.Helper()
		_, rest, ok := strings.Cut(template, "\n"+key+"=")
		if !ok {
			t.Fatalf("the unit has no %s", key)
		}
		v, _, _ := strings.Cut(rest, "\n")
		return v
	}
	number := func(key string) float64 {
		t.Helper()
		n, err := strconv.Atoi(value(key))
		if err != nil {
			t.Fatal(err)
		}
		return float64(n)
	}
	seconds := func(key string) float64 {
		t.Helper()
		d, err := time.ParseDuration(value(key))
		if err != nil {
			t.Fatal(err)
		}
		return d.Seconds()
	}
	first, most, steps := seconds("RestartSec"), seconds("RestartMaxDelaySec"), number("RestartSteps")
	var all float64
	for i := range int(number("StartLimitBurst")) - 1 { // before each start but the first
		// systemd.service(5), RestartSteps=
		all += first * math.Pow(most/first, min(float64(i), steps)/steps)
	}
	if all < 30*60 || all > 60*60 || value("StartLimitIntervalSec") != "1d" {
		t.Errorf("the last start is %.0f s after the first", all)
	}
	t.Logf("the last start is %.0f s after the first", all)
}
