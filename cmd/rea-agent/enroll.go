package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/cli"
)

// maxTokenText is more than a token with all the spaces around it.
const maxTokenText = 4 << 10

func enrollCommand() *cli.Command {
	var asJSON bool
	o := agent.Enrolment{Key: "ecdsa", Dir: agent.DefaultIdentity(), Agent: "rea-agent/" + cli.ReadBuild().Version}
	dir := cli.Text(&o.Dir, "dir", "FOLDER", "Where the files go; "+o.Dir+" where it is not named.")
	dir.Path = true
	kind := cli.Text(&o.Key, "key", "KIND", "The kind of the key: ecdsa (P-256, where it is not named) or ed25519.")
	kind.Choices = agent.KeyKinds()
	return &cli.Command{
		Name: "enroll", Summary: "make this machine an agent, with a token of the server",
		About: "Makes a key, which stays here, and gets a certificate for it from the server that the token was made for. Run it as the account that the agent runs as, which needs the files, and the folder to renew them. If it is cut short, the same token brings the certificate when it is run again.",
		Flags: []cli.Flag{
			cli.Text(&o.Server, "server", "URL", "Where machines enrol, https://host:port: [enroll] listen of the server."),
			cli.Text(&o.Token, "token", "TOKEN", "What rea-server enroll token printed; - reads it from standard input, where other users do not see it."),
			dir, kind,
			cli.Switch(&o.Force, "force", "Replace the certificate, the key and the authority that are there."),
			cli.Switch(&asJSON, "json", "Print a JSON object."),
		},
		Examples: []cli.Example{{Line: "enroll --server https://rea.example.org:8444 --token -", Tells: "then paste the token"}},
		Run: func(ctx context.Context, in *cli.Invocation) error {
			if o.Server == "" || o.Token == "" {
				return cli.Fail(cli.Usage, errors.New("want a server and a token"), "give --server and --token; rea-server enroll token makes one")
			}
			if o.Token == "-" {
				text, err := io.ReadAll(io.LimitReader(os.Stdin, maxTokenText))
				if err != nil {
					return cli.Fail(cli.IO, fmt.Errorf("read the token: %w", err), "")
				}
				o.Token = string(text)
			}
			made, err := agent.Enrol(ctx, o)
			if err != nil {
				return notEnrolled(err)
			}
			if asJSON {
				_ = json.NewEncoder(in.Stdout).Encode(made)
				return nil
			}
			tellEnrolled(in, made)
			return nil
		},
	}
}

// tellEnrolled says what there is now. The token is used up and the files are there
// also if nobody hears of it, as where an installer runs this without an output.
func tellEnrolled(in *cli.Invocation, e *agent.Enrolled) {
	path := func(name string) string {
		if abs, err := filepath.Abs(name); err == nil {
			name = abs
		}
		return "'" + name + "'" // a literal of TOML
	}
	fmt.Fprintf(in.Stdout, `agent         %s
valid until   %s

agent.toml    [tls]
              ca_file = %s
              client_cert = %s
              client_key = %s
              renew = true
`, e.Node, e.NotAfter.UTC().Format(time.RFC3339), path(e.CA), path(e.Pair), path(e.Pair))
}

// notEnrolled gives the error its exit code and says how to get on.
func notEnrolled(err error) error {
	var file *agent.FileError
	switch {
	case errors.Is(err, agent.ErrToken), errors.Is(err, agent.ErrServer), errors.Is(err, agent.ErrAsked):
		return cli.Fail(cli.Usage, err, "")
	case errors.Is(err, agent.ErrNotEnrolled):
		return cli.Fail(cli.Permission, err, "the server's log says why; rea-server enroll token makes another token")
	case errors.Is(err, agent.ErrStranger):
		return cli.Fail(cli.Unavailable, err, "check the address and the port, those of [enroll] listen; the token was not sent")
	case errors.Is(err, agent.ErrUnreachable), errors.Is(err, agent.ErrServerBusy):
		return cli.Fail(cli.Unavailable, err, "run it again: the token can be used by this machine until it expires")
	case errors.Is(err, agent.ErrIssued):
		return cli.Fail(cli.Data, err, "")
	case errors.Is(err, fs.ErrExist):
		return cli.Fail(cli.IO, err, "name another folder with --dir, or replace what is there with --force")
	case errors.Is(err, agent.ErrAccess):
		return cli.Fail(cli.Permission, err, "")
	case errors.As(err, &file):
		return cli.Fail(cli.Config, err, "")
	case errors.Is(err, fs.ErrPermission):
		return cli.Fail(cli.Permission, err, "run it as the account that the agent runs as, or name a folder of its own with --dir")
	}
	return cli.Fail(cli.IO, err, "")
}
