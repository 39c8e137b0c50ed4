package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/config"
)

// evtxCommand is for people with a file of somebody else's event log.
func (s *settings) evtxCommand() *cli.Command {
	var expr *string
	return &cli.Command{
		Name: "evtx", Summary: "print the events of Windows event-log files, on any system", Args: "FILE …",
		Run: func(ctx context.Context, in *cli.Invocation) error { return s.evtx(ctx, in, expr) },
		Flags: []cli.Flag{{Name: "xpath", Arg: "EXPR", Usage: "Only the events that Windows would select by this.", Set: func(_, value string) error {
			expr = &value
			return nil
		}}},
		About: "The events are those that the agent emits on the machine that wrote the log, redacted by the same\n" +
			"policy. What is damaged is passed over, told on standard error and by gap events; the exit code is then 65.",
		Examples: []cli.Example{
			{Line: "evtx System.evtx | jq 'select(.eventlog.level == 2).eventlog'", Tells: "the errors in it"},
			{Line: "evtx --xpath '*[System[EventID=4624]]' Security.evtx", Tells: "what the xpath of a rule would let through on Windows"},
			{Line: "evtx --agent.redact-pii=false --collectors.redact-cmdline=false Security.evtx", Tells: "with the names of accounts and command lines"},
		},
	}
}

// selection reads what --xpath says, nil where it is not given.
func selection(expr *string) (*agent.Selection, error) {
	if expr == nil {
		return nil, nil
	}
	only, err := agent.Select(*expr)
	if fault, ok := errors.AsType[*config.Fault](err); ok {
		return nil, cli.Fail(cli.Usage, fmt.Errorf("--xpath: %w", err), fault.Fix)
	}
	return only, err
}

func (s *settings) evtx(ctx context.Context, in *cli.Invocation, expr *string) error {
	if len(in.Args) == 0 {
		return cli.Fail(cli.Usage, errors.New("no file is named"), "rea-agent evtx FILE …")
	}
	only, err := selection(expr)
	if err != nil {
		return err
	}
	if _, err := s.load(); err != nil {
		return err
	}
	s.printOnly()
	var files []*os.File // before the agent is confined to what its configuration names
	for _, name := range in.Args {
		f, err := openEvtx(name)
		if err != nil {
			return err
		}
		defer f.Close()
		files = append(files, f)
	}
	a, err := s.agent(in, nil)
	if err != nil {
		return err
	}
	return explainReplay(a.Replay(ctx, files, only, func(file string, problem error) {
		fmt.Fprintf(in.Stderr, "rea-agent: %s: %s\n", cli.Escape(file), cli.Escape(problem.Error())) // to whom could its error be told?
	}))
}

// openEvtx opens a file of which any part can be read. It looks first: opening a pipe
// would wait for who writes to it, and cannot be ended.
func openEvtx(name string) (*os.File, error) {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return nil, cli.Fail(cli.IO, fmt.Errorf("%s is a folder", name), "name the files in it")
	case err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice) != 0:
		return nil, cli.Fail(cli.IO, fmt.Errorf("%s is not a file", name), "write the log to a file first: it is not read from front to back")
	}
	f, err := os.Open(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, cli.Fail(cli.Permission, err, "")
	case err != nil:
		return nil, cli.Fail(cli.IO, err, "")
	}
	return f, nil
}

// explainReplay is explain for what a person may end.
func explainReplay(err error) error {
	if errors.Is(err, context.Canceled) {
		return cli.Fail(cli.IO, errors.New("ended before all was read"), "")
	}
	return explain(err)
}
