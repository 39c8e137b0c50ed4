// Command rea-agent collects what this machine does, emits it as NDJSON and
// delivers it to a rea-server. docs/configuration.md lists its keys, --help its
// commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/config"
)

func main() {
	// Memory matters more here than the processor: the live heap is one or two
	// megabytes, so collecting it twice as often costs next to nothing.
	debug.SetGCPercent(50)
	// One core at most, whatever happens, is part of the footprint; and with one
	// scheduler the bursts of work every few seconds wake half as many threads.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	os.Exit(supervised(func(ctx context.Context, s *supervisor) int {
		p := program(s)
		if s.log != nil {
			p.Stderr = s.log
		}
		return p.Main(ctx, os.Args[1:])
	}))
}

// program is the tree of commands, for who is told how it fares.
func program(by *supervisor) *cli.Program {
	s := &settings{config: agent.Default(), by: by}
	return &cli.Program{
		Name:    "rea-agent",
		Summary: "collects what this machine does and delivers it, each event once",
		Default: "run",
		Flags:   s.flags(),
		Keys:    s.keys(),
		Examples: []cli.Example{
			{Line: "once", Tells: "one reading of every collector to standard output"},
			{Line: "--collectors.cpu.interval-ms 1000", Tells: "go on reading, the processors every second"},
			{Line: "run --config /etc/rea/agent.toml", Tells: "what the service does"},
			{Line: "--enable-networking --networking.endpoint https://rea.example.org:8443 --status-port 9100", Tells: "deliver, with a status page on 127.0.0.1:9100"},
			{Line: "config check --config agent.toml", Tells: "say all that is wrong in a file"},
		},
		Commands: []*cli.Command{
			{Name: "run", Summary: "collect and deliver until told to stop", Run: s.run},
			{Name: "once", Summary: "take one reading of every collector, print it, exit", Run: s.once,
				About: "Nothing is sent and no file is written. Rates need two readings, so they are not there.",
				Examples: []cli.Example{
					{Line: "once | jq .", Tells: "read it"},
					{Line: "once | jq 'select(.kind == \"memory\").memory'", Tells: "memory alone"},
				}},
			{Name: "config", Summary: "look at the configuration", Commands: []*cli.Command{
				{Name: "check", Summary: "say all that is wrong with it; exit with 78 if anything is", Run: s.check},
				s.showCommand(),
				{Name: "schema", Summary: "print the JSON Schema of the file", Run: s.configSchema},
			}},
			queueCommand(s),
			enrollCommand(),
			redactCommand(s),
			s.evtxCommand(),
			serviceCommand(s),
			{Name: "schema", Summary: "print schemas", Commands: []*cli.Command{
				{Name: "events", Summary: "print the JSON Schema of events", Run: eventSchema},
			}},
		},
	}
}

func (s *settings) run(ctx context.Context, in *cli.Invocation) error {
	if _, err := s.load(); err != nil {
		return err
	}
	if err := s.fit(s.by.mute); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // a pipe that breaks is told and counted
	easeTimers()
	a, err := s.agent(in, s.by.hangup())
	if err != nil {
		return err
	}
	s.by.ready() // all that could be refused is open
	return explain(a.Run(ctx))
}

func (s *settings) once(ctx context.Context, in *cli.Invocation) error {
	if _, err := s.load(); err != nil {
		return err
	}
	s.printOnly()
	a, err := s.agent(in, nil)
	if err != nil {
		return err
	}
	return explain(a.Once(ctx))
}

// printOnly lets events go to standard output and nowhere else.
func (s *settings) printOnly() {
	s.config.Networking.Enabled = false
	s.config.Status.Enabled = false
	s.config.Logging.Mode = "stdout"
}

func (s *settings) agent(in *cli.Invocation, hangup <-chan os.Signal) (*agent.Agent, error) {
	if err := agent.Examine(&s.config, s.read); err != nil {
		return nil, explain(err)
	}
	level := new(slog.LevelVar)
	o := agent.Options{
		Config: s.config, Version: cli.ReadBuild().Version, Log: cli.Logger(in.Stderr, level), Level: level, Stdout: os.Stdout,
	}
	if hangup != nil { // what ends by itself is not reloaded
		o.Reload, o.Hangup = s.again, hangup
	}
	if !config.Rereadable(s.read) {
		o.Reload = nil
		o.Log.Warn("the configuration is not followed, since it cannot be read again", "file", s.read)
	}
	a, err := agent.New(o)
	if err == nil {
		err = a.Confine(s.read)
	}
	return a, explain(err)
}

// explain gives an error of the agent the exit code that scripts rely on.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, agent.ErrAccess): // before ErrConfig: it may be about what the configuration names
		return cli.Fail(cli.Permission, err, "")
	case errors.Is(err, agent.ErrConfig):
		return cli.Fail(cli.Config, err, "")
	case errors.Is(err, agent.ErrKernel):
		return cli.Fail(cli.Unavailable, err, `with landlock = "auto" in [agent] it is confined as far as the kernel can`)
	case errors.Is(err, fs.ErrPermission):
		return cli.Fail(cli.Permission, err, "")
	case errors.Is(err, agent.ErrBusy):
		return cli.Fail(cli.Unavailable, err, "")
	case errors.Is(err, agent.ErrOutput):
		return cli.Fail(cli.IO, err, "")
	case errors.Is(err, agent.ErrDamaged):
		return cli.Fail(cli.Data, err, "")
	}
	return cli.Fail(cli.Internal, err, "")
}

func eventSchema(_ context.Context, in *cli.Invocation) error {
	schema, err := agent.EventSchema()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(in.Stdout, "%s\n", schema)
	return err
}
