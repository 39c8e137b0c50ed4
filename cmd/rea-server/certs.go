package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/server"
)

func certsCommand() *cli.Command {
	var names []string
	dir := "certs"
	folder := cli.Text(&dir, "dir", "FOLDER", "Where to put them; certs where it is not named.")
	folder.Path = true
	return &cli.Command{
		Name: "certs", Summary: "make the certificates of a local set-up",
		About: "Makes a certificate authority, a certificate for this server and one for an agent, with their keys. It never overwrites a file. The server's names are those of --dns, and localhost.",
		Flags: []cli.Flag{
			cli.List(&names, "dns", "NAME", "DNS name or IP address that agents call the server by; may be given more than once."),
			folder,
		},
		Examples: []cli.Example{
			{Line: "certs --dns 127.0.0.1", Tells: "for a server that only this machine reaches"},
			{Line: "certs --dns rea.example.org,192.0.2.7 --dir /etc/rea", Tells: "for one that others do"},
		},
		Run: func(_ context.Context, in *cli.Invocation) error {
			made, err := server.MakeCertificates(dir, names)
			switch {
			case errors.Is(err, fs.ErrExist):
				return cli.Fail(cli.IO, err, "move them away, or name another folder with --dir")
			case errors.Is(err, fs.ErrPermission):
				return cli.Fail(cli.Permission, err, "")
			case errors.Is(err, server.ErrName):
				return cli.Fail(cli.Usage, err, "")
			case err != nil:
				return cli.Fail(cli.IO, err, "")
			}
			return tellCertificates(in, made)
		},
	}
}

// purposes says what the files are for.
var purposes = map[string]string{
	"ca.crt":     "the certificate authority: server and agent need it",
	"ca.key":     "its key: who has it can make agents; neither server nor agent needs it",
	"server.crt": "the server's certificate",
	"server.key": "its key",
	"agent.crt":  "the agent's certificate",
	"agent.key":  "its key",
}

func tellCertificates(in *cli.Invocation, made *server.Certificates) error {
	t := cli.NewTable("FILE", "WHAT IT IS")
	t.Style = style(in)
	for _, name := range made.Files {
		t.Row(filepath.Join(made.Dir, name), purposes[name])
	}
	if err := t.Write(in.Stdout); err != nil {
		return err
	}
	dir, err := filepath.Abs(made.Dir)
	if err != nil {
		return err
	}
	path := func(name string) string { return "'" + filepath.Join(dir, name) + "'" } // a literal of TOML
	_, err = fmt.Fprintf(in.Stdout, `
server names  %s
agent         %s
valid until   %s

server.toml   [tls]
              cert_file = %s
              key_file = %s
              client_ca_file = %s

agent.toml    [tls]
              ca_file = %s
              client_cert = %s
              client_key = %s
`, strings.Join(made.Names, ", "), made.Node, made.NotAfter.UTC().Format(time.DateOnly),
		path("server.crt"), path("server.key"), path("ca.crt"), path("ca.crt"), path("agent.crt"), path("agent.key"))
	return err
}
