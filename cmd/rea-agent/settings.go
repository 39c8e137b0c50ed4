package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/config"
)

// settings is the configuration on its way from the command line, the
// environment and the file into the agent.
type settings struct {
	config agent.Config
	file   string // that was asked for
	read   string // that was read; empty if none
	args   []config.Arg
	json   bool
	origin bool
	by     *supervisor
}

// flags are those of every command, apart from the keys.
func (s *settings) flags() []cli.Flag {
	file := cli.File(&s.file, "config", "The configuration file; "+agent.DefaultFile()+" where it is there.")
	file.Short = "c"
	return []cli.Flag{
		file,
		{Name: "enable-networking", Usage: "Deliver to the server: networking.enabled = true.", Set: func(written, value string) error {
			s.set("networking.enabled", value, written)
			return nil
		}},
		{Name: "status-port", Arg: "N", Usage: "Serve /healthz and /metrics on 127.0.0.1:N.", Set: func(written, value string) error {
			s.set("status.enabled", "true", written)
			s.set("status.port", value, written)
			return nil
		}},
	}
}

// keys makes a flag of every key.
func (s *settings) keys() []cli.Flag {
	var flags []cli.Flag
	for _, k := range s.config.Keys() {
		f := cli.Flag{Name: k.Name, Usage: k.Usage, Choices: k.Value.Choices(), Path: k.Value.IsPath()}
		if !k.Value.IsBool() {
			f.Arg = strings.ToUpper(k.Value.Type())
		}
		f.Set = func(written, value string) error {
			s.set(k.Name, value, written)
			return nil
		}
		flags = append(flags, f)
	}
	return flags
}

func (s *settings) set(key, text, flag string) {
	s.args = append(s.args, config.Arg{Key: key, Text: text, Flag: flag})
}

// load merges all layers into s.config.
func (s *settings) load() (*config.Loaded, error) { return s.loadFrom(false) }

func (s *settings) loadFrom(again bool) (*config.Loaded, error) {
	loaded, err := s.config.Spec().Load(config.Sources{
		File: s.file, DefaultFile: agent.DefaultFile(), Again: again, Environ: os.Environ(), Args: s.args,
	})
	if err != nil {
		return nil, cli.Fail(cli.Config, err, "")
	}
	s.read = loaded.File
	return loaded, nil
}

// again merges all layers anew, and tells which file took part.
func (s *settings) again() (agent.Config, string, error) {
	fresh := settings{config: agent.Default(), file: s.file, args: s.args}
	loaded, err := fresh.loadFrom(true)
	if err != nil {
		return agent.Config{}, "", err
	}
	if err := fresh.fit(s.by.mute); err != nil {
		return agent.Config{}, "", err
	}
	return fresh.config, loaded.File, nil
}

func (s *settings) check(_ context.Context, in *cli.Invocation) error {
	loaded, err := s.load()
	if err != nil {
		return err
	}
	from := "no file, defaults"
	if loaded.File != "" {
		from = loaded.File
	}
	_, err = fmt.Fprintf(in.Stdout, "the configuration is right (%s)\n", from)
	return err
}

func (s *settings) showCommand() *cli.Command {
	return &cli.Command{
		Name: "show", Summary: "print every key with its value",
		Flags: []cli.Flag{
			cli.Switch(&s.origin, "origin", "Say which layer each value came from."),
			cli.Switch(&s.json, "json", "Print JSON, with the layer of each value."),
		},
		Run: s.show,
	}
}

func (s *settings) show(_ context.Context, in *cli.Invocation) error {
	loaded, err := s.load()
	if err != nil {
		return err
	}
	if s.json {
		return loaded.ShowJSON(in.Stdout)
	}
	return loaded.Show(in.Stdout, s.origin)
}

func (s *settings) configSchema(_ context.Context, in *cli.Invocation) error {
	return s.config.Spec().Schema(in.Stdout, "Configuration of rea-agent")
}
