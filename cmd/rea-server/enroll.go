package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/server"
)

// tokens is what the commands of enroll are told.
type tokens struct {
	settings  *settings
	dir, name string
	life      time.Duration
	json, all bool
}

func enrollCommand(s *settings) *cli.Command {
	return &cli.Command{
		Name: "enroll", Summary: "let machines become agents, with a token each",
		About:    "A token is shown once and can be used once, within an hour, at a server whose [enroll] listen is set. Run these commands as the account that the server runs as: they change files that it reads.",
		Commands: []*cli.Command{enrollToken(s), enrollList(s), enrollRevoke(s)},
	}
}

func (t *tokens) flags(more ...cli.Flag) []cli.Flag {
	dir := cli.Text(&t.dir, "dir", "FOLDER", "The folder of the authority; where it is not named, pki_dir in [enroll] of the configuration, or pki.")
	dir.Path = true
	return append(more, dir, cli.Switch(&t.json, "json", "Print a JSON object a line."))
}

// folder returns the folder of the authority.
func (t *tokens) folder() (string, error) {
	if t.dir != "" {
		return t.dir, nil
	}
	if err := t.settings.load(t.settings.config.Spec()); err != nil {
		return "", err
	}
	if dir := t.settings.config.Enroll.PKIDir; dir != "" {
		return dir, nil
	}
	return "pki", nil
}

// A shownToken is a token as it is printed, which is never with its hash.
type shownToken struct {
	Token   string    `json:"token,omitempty"` // when it is made, and never again
	ID      string    `json:"id"`
	State   string    `json:"state"` // open, used, expired, revoked
	Name    string    `json:"name"`
	Node    string    `json:"node"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"`
}

func shown(t server.JoinToken) shownToken {
	return shownToken{ID: t.ID, State: t.State(time.Now()), Name: t.Name, Node: t.Node, Created: t.Created, Expires: t.Expires, Used: t.Used}
}

func enrollToken(s *settings) *cli.Command {
	t := &tokens{settings: s, life: server.TokenLife}
	return &cli.Command{
		Name: "token", Summary: "make a token for one machine",
		About: "Prints the token to standard output and what it is for to standard error. It is not kept: only its hash is.",
		Flags: t.flags(
			cli.Text(&t.name, "name", "NAME", "What people call the machine, or the UUID that the agent has or will have."),
			cli.Duration(&t.life, "life", "How long it can be used, at most 1h; 1h where it is not named."),
		),
		Examples: []cli.Example{{Line: "enroll token --name lab-7 --life 10m", Tells: "then, on lab-7: rea-agent enroll"}},
		Run: func(_ context.Context, in *cli.Invocation) error {
			if t.name == "" {
				return cli.Fail(cli.Usage, errors.New("the token is for nobody"), "give the machine a name with --name")
			}
			dir, err := t.folder()
			if err != nil {
				return err
			}
			made, token, err := server.NewToken(dir, t.name, t.life)
			if err != nil {
				return failed(err)
			}
			if t.json {
				out := shown(made)
				out.Token = token.String()
				return jsonLine(in, out)
			}
			if _, err := fmt.Fprintln(in.Stdout, token); err != nil {
				return cli.Fail(cli.IO, err, "")
			}
			fmt.Fprintf(in.Stderr, "token %s for %s, the agent %s, until %s\non that machine: rea-agent enroll --server https://SERVER:PORT --token TOKEN\n",
				made.ID, made.Name, made.Node, made.Expires.Format(time.RFC3339))
			return nil
		},
	}
}

func enrollList(s *settings) *cli.Command {
	t := &tokens{settings: s}
	return &cli.Command{
		Name: "list", Summary: "show the tokens",
		Flags: t.flags(cli.Switch(&t.all, "all", "Show those that are used, revoked or expired, too.")),
		Run: func(_ context.Context, in *cli.Invocation) error {
			dir, err := t.folder()
			if err != nil {
				return err
			}
			list, err := server.ListTokens(dir)
			if err != nil {
				return failed(err)
			}
			table := cli.NewTable("ID", "STATE", "NAME", "AGENT", "CREATED", "EXPIRES", "USED")
			table.Style, table.Width = style(in), cli.Width(in.Stdout)
			for _, entry := range list {
				row := shown(entry)
				switch {
				case row.State != "open" && !t.all:
				case t.json:
					if err := jsonLine(in, row); err != nil {
						return err
					}
				default:
					used := ""
					if !row.Used.IsZero() {
						used = date(row.Used)
					}
					table.Row(row.ID, row.State, row.Name, row.Node, date(row.Created), date(row.Expires), used)
				}
			}
			if t.json {
				return nil
			}
			if err := table.Write(in.Stdout); err != nil {
				return cli.Fail(cli.IO, err, "")
			}
			return nil
		},
	}
}

func enrollRevoke(s *settings) *cli.Command {
	t := &tokens{settings: s}
	return &cli.Command{
		Name: "revoke", Summary: "make a token useless", Args: "ID",
		About: "An agent that has used it stays: see rea-server pki revoke.",
		Flags: t.flags(),
		Run: func(_ context.Context, in *cli.Invocation) error {
			if len(in.Args) != 1 {
				return cli.Fail(cli.Usage, errors.New("want one token"), "rea-server enroll list shows their ids")
			}
			dir, err := t.folder()
			if err != nil {
				return err
			}
			token, err := server.RevokeToken(dir, in.Args[0])
			switch {
			case errors.Is(err, server.ErrNoToken):
				return cli.Fail(cli.Unavailable, err, "rea-server enroll list --all shows those there are")
			case err != nil:
				return failed(err)
			}
			if t.json {
				return jsonLine(in, shown(token))
			}
			_, err = fmt.Fprintf(in.Stdout, "revoked the token %s for %s\n", token.ID, token.Name)
			return err
		},
	}
}
