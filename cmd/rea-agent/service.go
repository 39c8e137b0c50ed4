package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/service"
)

// patience is how long the commands wait for the service to start or to stop.
const patience = time.Minute

// A supervisor is who started the agent and wants to hear of it: systemd, the
// service control manager of Windows, or nobody in particular.
type supervisor struct {
	ready   func()           // is told that the agent runs
	reloads <-chan os.Signal // asks to read the configuration again; nil where signals do
	log     io.Writer        // takes the agent's own log; nil for standard error
	mute    bool             // nobody reads standard output
}

// console runs the program for whoever started it from a command line.
func console(run func(context.Context, *supervisor) int) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	return run(ctx, &supervisor{ready: func() {}})
}

// hangup returns what asks to read the configuration again.
func (s *supervisor) hangup() <-chan os.Signal {
	if s.reloads != nil {
		return s.reloads
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	return hangup
}

// fit makes the configuration one for a service that has no standard output. What
// is delivered need not go there; else events would go nowhere.
func (s *settings) fit(mute bool) error {
	l := &s.config.Logging
	if !mute || l.Mode != "stdout" {
		return nil
	}
	if !s.config.Networking.Enabled {
		return cli.Fail(cli.Config, errors.New("nobody reads the standard output of a Windows service"),
			`set mode = "file" in [logging], or deliver to a server with [networking]`)
	}
	l.Mode = "none"
	return nil
}

// A manager is the flags and commands of the service.
type manager struct {
	settings *settings
	options  service.Options
	purge    bool
	json     bool
}

func serviceCommand(s *settings) *cli.Command {
	m := &manager{settings: s}
	asJSON := cli.Switch(&m.json, "json", "Print a JSON object.")
	return &cli.Command{
		Name: "service", Summary: "install the agent as a service, and look after it",
		About: "The service is " + service.Name + " on Windows and " + service.Unit + " with systemd. It starts with the system, and the system starts it again after a fault.",
		Commands: []*cli.Command{
			{
				Name: "install", Summary: "make the service, which starts with the system",
				About: "The service runs this program where it lies, with the configuration that --config names, as an account of its own with few rights. It does not start yet.",
				Flags: []cli.Flag{
					cli.Text(&m.options.DisplayName, "display-name", "NAME", "What people see; "+service.DisplayName+" where it is not named."),
					cli.Text(&m.options.Account, "account", "NAME", `Run as this account, which has to be there and needs no password, and not as one of its own: NT SERVICE\`+service.Name+" on Windows, rea with systemd."),
					asJSON,
				},
				Examples: []cli.Example{
					{Line: "service install", Tells: "as an account of its own; start it with rea-agent service start"},
					{Line: "service install --config /etc/rea/lab.toml", Tells: "with another configuration"},
				},
				Run: m.install,
			},
			{
				Name: "uninstall", Summary: "stop the service, and remove what install made",
				About: "Configuration, queue, logs and certificates stay, unless they are to go.",
				Flags: []cli.Flag{cli.Switch(&m.purge, "purge", "Remove the data too: configuration, queue, logs, certificates and keys."), asJSON},
				Run:   m.uninstall,
			},
			{
				Name: "status", Summary: "say what the service does; exit with 69 unless it runs",
				Flags: []cli.Flag{asJSON}, Run: m.status,
			},
			{Name: "start", Summary: "start the service, and wait until it runs", Run: m.wait(service.Start)},
			{Name: "stop", Summary: "stop the service, and wait until it has stopped", Run: m.wait(service.Stop)},
			{Name: "reload", Summary: "have the service take what changed in its configuration and certificates", Run: m.wait(service.Reload)},
		},
	}
}

func (m *manager) install(ctx context.Context, in *cli.Invocation) error {
	if len(m.settings.args) > 0 {
		return cli.Fail(cli.Usage, fmt.Errorf("%s is not for install", m.settings.args[0].Flag), "the service takes its configuration from the file; write it there")
	}
	// What could not start is not installed.
	if _, err := m.settings.load(); err != nil {
		return err
	}
	if m.settings.file != "" {
		if err := m.settings.fit(runtime.GOOS == "windows"); err != nil {
			return err
		}
		path, err := filepath.Abs(m.settings.file)
		if err != nil {
			return err
		}
		m.options.Config = path
	}
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	m.options.Program = program
	report, err := service.Install(ctx, m.options)
	if err != nil {
		return notDone(err)
	}
	m.tell(in, "made", report)
	return nil
}

func (m *manager) uninstall(ctx context.Context, in *cli.Invocation) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	report, err := service.Uninstall(ctx, m.purge)
	if err != nil {
		return notDone(err)
	}
	m.tell(in, "removed", report)
	return nil
}

// tell says what was done. It is done also if nobody hears of it, as where an
// installer runs this without an output: that is no failure.
func (m *manager) tell(in *cli.Invocation, verb string, r *service.Report) {
	if m.json {
		_ = json.NewEncoder(in.Stdout).Encode(r)
		return
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(in.Stderr, "rea-agent: warning: %s\n", cli.Escape(w)) // to whom could its error be told?
	}
	for _, d := range r.Done {
		fmt.Fprintf(in.Stdout, "%-8s %s\n", verb, cli.Escape(d))
	}
}

func (m *manager) status(ctx context.Context, in *cli.Invocation) error {
	status, err := service.Query(ctx)
	if err != nil {
		return notDone(err)
	}
	if m.json {
		err = json.NewEncoder(in.Stdout).Encode(status)
	} else {
		err = show(in.Stdout, &status)
	}
	if err == nil && status.State != service.Running {
		err = cli.Fail(cli.Unavailable, fmt.Errorf("the service is %s", status.State), fix(status.State))
	}
	return err
}

func fix(s service.State) string {
	switch s {
	case service.Absent:
		return "install it with rea-agent service install"
	case service.Stopped, service.Failed:
		return "start it with rea-agent service start"
	}
	return ""
}

func show(w io.Writer, s *service.Status) error {
	pid, code := "", ""
	if s.PID != 0 {
		pid = fmt.Sprint(s.PID)
	}
	if s.Code != 0 {
		code = fmt.Sprint(s.Code)
	}
	for _, line := range [][2]string{
		{"service", s.Name}, {"state", string(s.State)}, {"exit code", code}, {"process", pid},
		{"starts", s.Starts}, {"account", s.Account}, {"command", s.Command},
	} {
		if line[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-10s %s\n", line[0], cli.Escape(line[1])); err != nil {
			return err
		}
	}
	return nil
}

// wait makes a command of something that has to be waited for.
func (m *manager) wait(do func(context.Context) error) func(context.Context, *cli.Invocation) error {
	return func(ctx context.Context, _ *cli.Invocation) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return notDone(do(ctx))
	}
}

// notDone gives the error its exit code and says how to get on.
func notDone(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, service.ErrInstalled):
		return cli.Fail(cli.IO, err, "remove it first with rea-agent service uninstall; data stays")
	case errors.Is(err, service.ErrAbsent):
		return cli.Fail(cli.Unavailable, err, fix(service.Absent))
	case errors.Is(err, service.ErrForeign), errors.Is(err, service.ErrWritable):
		return cli.Fail(cli.Permission, err, "")
	case errors.Is(err, fs.ErrPermission):
		who := "root"
		if runtime.GOOS == "windows" {
			who = "an administrator"
		}
		return cli.Fail(cli.Permission, err, "run it as "+who)
	case errors.Is(err, service.ErrFailed), errors.Is(err, service.ErrManager), errors.Is(err, errors.ErrUnsupported):
		return cli.Fail(cli.Unavailable, err, "")
	}
	return cli.Fail(cli.IO, err, "")
}
