package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rea-agent/rea/internal/cli"
)

// evtxCommand is for people with a file of somebody else's event log.
func (s *settings) evtxCommand() *cli.Command {
	return &cli.Command{
		Name: "evtx", Summary: "print the events of Windows event-log files, on any system", Args: "FILE …", Run: s.evtx,
		About: "The events are those that the agent emits on the machine that wrote the log, redacted by the same\n" +
			"policy. What is damaged is passed over, told on standard error and by gap events; the exit code is then 65.",
		Examples: []cli.Example{
			{Line: "evtx System.evtx | jq 'select(.eventlog.level == 2).eventlog'", Tells: "the errors in it"},
			{Line: "evtx --agent.redact-pii=false --collectors.redact-cmdline=false Security.evtx", Tells: "with the names of accounts and command lines"},
		},
	}
}

func (s *settings) evtx(ctx context.Context, in *cli.Invocation) error {
	if len(in.Args) == 0 {
		return cli.Fail(cli.Usage, errors.New("no file is named"), "rea-agent evtx FILE …")
	}
	if _, err := s.load(); err != nil {
		return err
	}
	s.printOnly()
	var files []*os.File // before the agent is confined to what its configuration names
	for _, name := range in.Args {
		f, err := os.Open(name)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return cli.Fail(cli.Permission, err, "")
		case err != nil:
			return cli.Fail(cli.IO, err, "")
		}
		defer f.Close()
		files = append(files, f)
	}
	a, err := s.agent(in, nil)
	if err != nil {
		return err
	}
	return explain(a.Replay(ctx, files, func(file string, problem error) {
		fmt.Fprintf(in.Stderr, "rea-agent: %s: %s\n", cli.Escape(file), cli.Escape(problem.Error())) // to whom could its error be told?
	}))
}
