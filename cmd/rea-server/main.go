// Command rea-server receives what rea-agents deliver, keeps each event once,
// and shows what arrived. docs/configuration.md lists its keys, --help its
// commands.
package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(program().Main(ctx, os.Args[1:]))
}

// program is the tree of commands.
func program() *cli.Program {
	s := &settings{config: server.Default()}
	return &cli.Program{
		Name:    "rea-server",
		Summary: "receives what agents deliver, keeps each event once, and shows it",
		Default: "serve",
		Flags:   s.flags(),
		Keys:    s.keys(),
		Examples: []cli.Example{
			{Line: "certs --dns rea.example.org", Tells: "certificates for this server and one agent, into the folder certs"},
			{Line: "--config /etc/rea/server.toml", Tells: "receive; what the service does"},
			{Line: "hosts", Tells: "which agents there are"},
			{Line: "events --follow", Tells: "live, a line for each event"},
			{Line: "verify", Tells: "prove that nothing is missing"},
		},
		Commands: []*cli.Command{
			{Name: "serve", Summary: "receive until told to stop", Run: s.serve},
			hostsCommand(s),
			eventsCommand(s),
			verifyCommand(s),
			certsCommand(),
			pkiCommand(),
			enrollCommand(s),
		},
	}
}

// settings is the configuration on its way from the command line, the
// environment and the file into the server.
type settings struct {
	config server.Config
	file   string // that was asked for
	read   string // that was read; empty if none
	args   []config.Arg
}

// flags are those of every command, apart from the keys.
func (s *settings) flags() []cli.Flag {
	file := cli.File(&s.file, "config", "The configuration file; "+server.DefaultFile()+" where it is there.")
	file.Short = "c"
	return []cli.Flag{file, {Name: "data-dir", Arg: "FOLDER", Usage: "The folder of what was received: server.data_dir.", Path: true, Set: s.setter("server.data_dir")}}
}

// keys makes a flag of every key.
func (s *settings) keys() []cli.Flag {
	var flags []cli.Flag
	for _, k := range s.config.Keys() {
		f := cli.Flag{Name: k.Name, Usage: k.Usage, Choices: k.Value.Choices(), Path: k.Value.IsPath(), Set: s.setter(k.Name)}
		if !k.Value.IsBool() {
			f.Arg = strings.ToUpper(k.Value.Type())
		}
		flags = append(flags, f)
	}
	return flags
}

func (s *settings) setter(key string) func(written, value string) error {
	return func(written, value string) error {
		s.args = append(s.args, config.Arg{Key: key, Text: value, Flag: written})
		return nil
	}
}

// load merges all layers into s.config.
func (s *settings) load(spec config.Spec) error {
	loaded, err := spec.Load(config.Sources{File: s.file, DefaultFile: server.DefaultFile(), Environ: os.Environ(), Args: s.args})
	if err != nil {
		return cli.Fail(cli.Config, err, "")
	}
	s.read = loaded.File
	return nil
}

func (s *settings) serve(ctx context.Context, in *cli.Invocation) error {
	if err := s.load(s.config.ServingSpec()); err != nil {
		return err
	}
	if err := server.Examine(&s.config, s.read); err != nil {
		return explain(err)
	}
	signal.Ignore(syscall.SIGPIPE) // who reads the log may go; the server stays
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	o := server.Options{
		Config: s.config, Version: cli.ReadBuild().Version, Log: cli.Logger(in.Stderr, cli.Level(s.config.Logging.Level)),
		Reload: s.again, Hangup: hangup,
	}
	if !config.Rereadable(s.read) {
		o.Reload = nil
		o.Log.Warn("the configuration is not followed, since it cannot be read again", "file", s.read)
	}
	return explain(server.Run(ctx, o))
}

// again merges all layers anew, and tells which file took part.
func (s *settings) again() (server.Config, string, error) {
	fresh := server.Default()
	loaded, err := fresh.ServingSpec().Load(config.Sources{File: s.file, DefaultFile: server.DefaultFile(), Again: true, Environ: os.Environ(), Args: s.args})
	if err != nil {
		return server.Config{}, "", err
	}
	return fresh, loaded.File, nil
}

// open opens the data folder for reading.
func (s *settings) open() (*server.Reader, error) {
	if err := s.load(s.config.Spec()); err != nil {
		return nil, err
	}
	r, err := server.OpenReader(s.config.Server.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cli.Fail(cli.Unavailable, err, "name the folder of the server: --config FILE or --data-dir FOLDER")
	}
	return r, explain(err)
}

// explain gives an error of the server the exit code that scripts rely on.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, server.ErrAccess): // before ErrConfig: it may be about what the configuration names
		return cli.Fail(cli.Permission, err, "")
	case errors.Is(err, server.ErrConfig):
		return cli.Fail(cli.Config, err, "")
	case errors.Is(err, fs.ErrPermission):
		return cli.Fail(cli.Permission, err, "")
	case errors.Is(err, server.ErrAddress):
		return cli.Fail(cli.Unavailable, err, "choose another address with listen in [server]")
	case errors.Is(err, server.ErrInUse):
		return cli.Fail(cli.Unavailable, err, "")
	case errors.Is(err, server.ErrData):
		return cli.Fail(cli.IO, err, "")
	}
	return cli.Fail(cli.Internal, err, "")
}
