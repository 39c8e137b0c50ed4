package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/server"
)

// authority is what the commands of pki are told.
type authority struct {
	dir, key, org, node, out, denylist, reason string

	names              []string
	days               int
	life               time.Duration
	json, all, foreign bool
}

const day = 24 * time.Hour

// leafDays is how long certificates last where nobody says: short, since who
// renews them on the way need not revoke them all.
const leafDays = 7

func pkiCommand() *cli.Command {
	return &cli.Command{
		Name: "pki", Summary: "issue and revoke certificates with an authority of your own",
		About:    "The authority is a folder, best on a machine that is not the server: the server needs only ca.crt and revoked.jsonl of it.",
		Commands: []*cli.Command{pkiInit(), pkiIssue(), pkiRevoke(), pkiList()},
	}
}

func (a *authority) folder() cli.Flag {
	a.dir = "pki"
	f := cli.Text(&a.dir, "dir", "FOLDER", "The folder of the authority; pki where it is not named.")
	f.Path = true
	return f
}

func (a *authority) kind() cli.Flag {
	a.key = "ecdsa"
	f := cli.Text(&a.key, "key", "KIND", "The kind of its key: ecdsa (P-256, where it is not named) or ed25519.")
	f.Choices = server.KeyKinds()
	return f
}

// times are the flags of how long a certificate lasts.
func (a *authority) times(days int) []cli.Flag {
	a.days = days
	return []cli.Flag{
		cli.Number(&a.days, "days", 1, 36500, fmt.Sprintf("How many days it is valid; %d where it is not named.", days)),
		cli.Duration(&a.life, "life", "The same as a time like 36h; goes before --days."),
	}
}

func (a *authority) lasting() time.Duration {
	if a.life > 0 {
		return a.life
	}
	return time.Duration(a.days) * day
}

func (a *authority) asJSON() cli.Flag {
	return cli.Switch(&a.json, "json", "Print a JSON object a line.")
}

func pkiInit() *cli.Command {
	a := &authority{org: "rea"}
	return &cli.Command{
		Name: "init", Summary: "make an authority",
		About: "Makes a certificate authority in a folder that it never overwrites. Whoever has its key can make agents and servers: keep a copy where the server is not.",
		Flags: append([]cli.Flag{
			a.folder(), a.kind(),
			cli.Text(&a.org, "org", "NAME", "The organisation in the names of its agents, spiffe://NAME/agent/UUID; rea where it is not named."),
			a.asJSON(),
		}, a.times(3650)...),
		Examples: []cli.Example{{Line: "pki init --org example.org", Tells: "into the folder pki, for ten years"}},
		Run: func(_ context.Context, in *cli.Invocation) error {
			f, err := server.InitAuthority(a.dir, a.org, a.key, a.lasting())
			if err != nil {
				return failed(err)
			}
			if a.json {
				return jsonLine(in, map[string]any{"dir": f.Dir, "org": a.org, "not_after": f.Authority.Cert.NotAfter})
			}
			return show(in, [][2]string{
				{filepath.Join(a.dir, "ca.crt"), "the authority's certificate: servers and agents need it"},
				{filepath.Join(a.dir, "ca.key"), "its key: who has it can make agents; nobody else needs it"},
				{filepath.Join(a.dir, "issued.jsonl"), "what it issued"},
				{filepath.Join(a.dir, "revoked.jsonl"), "whom it revoked: the server's [tls] denylist_file"},
			}, [][2]string{{"organisation", a.org}, {"valid until", date(f.Authority.Cert.NotAfter)}})
		},
	}
}

func pkiIssue() *cli.Command {
	return &cli.Command{Name: "issue", Summary: "make a certificate with its key", Commands: []*cli.Command{issueAgent(), issueServer()}}
}

// issueFlags are those of both kinds of certificates.
func (a *authority) issueFlags() []cli.Flag {
	out := cli.Text(&a.out, "out", "FOLDER", "Where to put them; agent-UUID or server where it is not named.")
	out.Path = true
	return append([]cli.Flag{a.folder(), out, a.kind(), a.asJSON()}, a.times(leafDays)...)
}

func issueAgent() *cli.Command {
	a := &authority{}
	return &cli.Command{
		Name: "agent", Summary: "make the certificate of an agent",
		Flags: append([]cli.Flag{
			cli.Text(&a.node, "node", "UUID", "The agent's name: that which it has, to renew; a new one where it is not named."),
		}, a.issueFlags()...),
		Examples: []cli.Example{
			{Line: "pki issue agent", Tells: "for an agent that is new"},
			{Line: "pki issue agent --node 0190d1c0-0000-7000-8000-000000000001 --out renewed", Tells: "for one that is not"},
		},
		Run: func(_ context.Context, in *cli.Invocation) error {
			f, err := server.OpenAuthority(a.dir)
			if err != nil {
				return failed(err)
			}
			node, out := a.node, a.out
			if node == "" {
				node = server.NewNode()
			}
			if out == "" {
				out = "agent-" + node
			}
			made, err := f.IssueAgent(node, a.key, out, a.lasting())
			if err != nil {
				return failed(err)
			}
			return a.tell(in, made)
		},
	}
}

func issueServer() *cli.Command {
	a := &authority{}
	return &cli.Command{
		Name: "server", Summary: "make the certificate of a server",
		Flags: append([]cli.Flag{
			cli.List(&a.names, "dns", "NAME", "DNS name or IP address that agents call the server by; may be given more than once."),
		}, a.issueFlags()...),
		Examples: []cli.Example{{Line: "pki issue server --dns rea.example.org,192.0.2.7 --days 30", Tells: "for a server with two names"}},
		Run: func(_ context.Context, in *cli.Invocation) error {
			if len(a.names) == 0 {
				return cli.Fail(cli.Usage, errors.New("the server has no name"), "give one with --dns")
			}
			f, err := server.OpenAuthority(a.dir)
			if err != nil {
				return failed(err)
			}
			out := a.out
			if out == "" {
				out = "server"
			}
			made, err := f.IssueServer(a.names, a.key, out, a.lasting())
			if err != nil {
				return failed(err)
			}
			return a.tell(in, made)
		},
	}
}

// tell shows what was made.
func (a *authority) tell(in *cli.Invocation, made *server.Made) error {
	if a.json {
		return jsonLine(in, made)
	}
	var files [][2]string
	for _, name := range made.Files {
		files = append(files, [2]string{filepath.Join(made.Dir, name), purposes[name]})
	}
	who := [2]string{"agent", made.Node}
	if made.Node == "" {
		who = [2]string{"server names", strings.Join(made.Names, ", ")}
	}
	return show(in, files, [][2]string{who, {"serial", made.Serial}, {"valid until", date(made.NotAfter)}})
}

func pkiRevoke() *cli.Command {
	a := &authority{}
	list := cli.Text(&a.denylist, "denylist", "FILE", "The list to add it to; revoked.jsonl of the authority where it is not named.")
	list.Path = true
	return &cli.Command{
		Name: "revoke", Summary: "let a certificate or an agent in no more", Args: "SERIAL|UUID",
		About: "Of the UUID of an agent, all of its certificates are refused, also those to come; of a serial number, that certificate and all with its key, but not what its holder has renewed since: to cut somebody off, name the agent. A server whose [tls] denylist_file names the list obeys within five seconds, and closes connections. To take it back, take the line out of the file.",
		Flags: []cli.Flag{
			a.folder(), list,
			cli.Text(&a.reason, "reason", "TEXT", "Why; the agent is told."),
			cli.Switch(&a.foreign, "foreign", "It may be of another authority, so do not look for it in the register."),
			a.asJSON(),
		},
		Examples: []cli.Example{{Line: "pki revoke 0190d1c0-0000-7000-8000-000000000001 --reason 'laptop stolen'", Tells: "cut an agent off"}},
		Run: func(_ context.Context, in *cli.Invocation) error {
			if len(in.Args) != 1 {
				return cli.Fail(cli.Usage, errors.New("want one serial number or one agent"), "rea-server pki list shows them")
			}
			d, err := server.Revoke(a.dir, in.Args[0], a.reason, a.denylist, a.foreign)
			if err != nil {
				return failed(err)
			}
			return a.revoked(in, &d)
		},
	}
}

// revoked shows what was revoked, and says what was not.
func (a *authority) revoked(in *cli.Invocation, d *server.Revocation) error {
	if d.Agent != "" {
		fmt.Fprintf(in.Stderr, "The agent itself is not revoked; other certificates of it that are let in: %d. To cut it off: rea-server pki revoke %s\n", len(d.Others), d.Agent)
	}
	if a.json {
		return jsonLine(in, d)
	}
	file := a.denylist
	if file == "" {
		file = filepath.Join(a.dir, "revoked.jsonl")
	}
	what := "serial " + d.Serial
	if d.Node != "" {
		what = "agent " + d.Node
	}
	_, err := fmt.Fprintf(in.Stdout, "revoked %s in %s\n", what, file)
	return err
}

// A listed is a certificate as list shows it.
type listed struct {
	server.Issued
	State  string         `json:"state"` // valid, expired, revoked, early
	Denial *server.Denial `json:"denial,omitempty"`
}

func pkiList() *cli.Command {
	a := &authority{}
	list := cli.Text(&a.denylist, "denylist", "FILE", "The list of those who were revoked; revoked.jsonl of the authority where it is not named.")
	list.Path = true
	return &cli.Command{
		Name: "list", Summary: "show what was issued",
		Flags: []cli.Flag{a.folder(), list, cli.Switch(&a.all, "all", "Show those that have expired, too."), a.asJSON()},
		Run: func(_ context.Context, in *cli.Invocation) error {
			issued, denied, err := server.ListIssued(a.dir, a.denylist)
			if err != nil {
				return failed(err)
			}
			now := time.Now()
			var rows []listed
			for _, i := range issued {
				l := listed{Issued: i, State: "valid"}
				switch l.Denial = denied.DeniesIssued(i.Serial, i.SPKI, i.Node); {
				case now.After(i.NotAfter):
					l.State = "expired"
				case l.Denial != nil:
					l.State = "revoked"
				}
				if a.all || l.State != "expired" {
					rows = append(rows, l)
				}
			}
			return a.list(in, rows)
		},
	}
}

func (a *authority) list(in *cli.Invocation, rows []listed) error {
	if a.json {
		for _, r := range rows {
			if err := jsonLine(in, r); err != nil {
				return err
			}
		}
		return nil
	}
	t := cli.NewTable("SERIAL", "STATE", "FOR", "NAME", "VALID UNTIL", "REASON")
	t.Style, t.Width = style(in), cli.Width(in.Stdout)
	for _, r := range rows {
		reason := ""
		if r.Denial != nil {
			reason = r.Denial.Reason
		}
		name := r.Node
		if name == "" {
			name = strings.Join(r.Names, " ")
		}
		t.Row(r.Serial, r.State, r.Role, name, date(r.NotAfter), reason)
	}
	if err := t.Write(in.Stdout); err != nil {
		return cli.Fail(cli.IO, err, "")
	}
	return nil
}

// show prints files with what they are, and then facts.
func show(in *cli.Invocation, files, facts [][2]string) error {
	t := cli.NewTable("FILE", "WHAT IT IS")
	t.Style = style(in)
	for _, f := range files {
		t.Row(f[0], f[1])
	}
	if err := t.Write(in.Stdout); err != nil {
		return cli.Fail(cli.IO, err, "")
	}
	var b strings.Builder
	for _, f := range slices.Concat([][2]string{{}}, facts) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-13s %s", f[0], cli.Escape(f[1])), " ") + "\n")
	}
	_, err := fmt.Fprint(in.Stdout, b.String())
	return err
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

func jsonLine(in *cli.Invocation, v any) error {
	if err := json.NewEncoder(in.Stdout).Encode(v); err != nil {
		return cli.Fail(cli.IO, err, "")
	}
	return nil
}

// failed gives an error of the authority its exit code and, where that is not in
// its text, what to do.
func failed(err error) error {
	var file *server.FileError
	switch {
	case errors.Is(err, fs.ErrExist):
		return cli.Fail(cli.IO, err, "move them away, or name another folder")
	case errors.Is(err, fs.ErrPermission):
		return cli.Fail(cli.Permission, err, "")
	case errors.Is(err, server.ErrUnknown):
		return cli.Fail(cli.Unavailable, err, "rea-server pki list --all shows what it issued; --foreign does not look there")
	case errors.As(err, &file):
		return cli.Fail(cli.Config, err, "")
	case errors.Is(err, fs.ErrNotExist):
		return cli.Fail(cli.Unavailable, err, "name the folder of the authority with --dir, or make one: rea-server pki init")
	case errors.Is(err, server.ErrName), errors.Is(err, server.ErrNode), errors.Is(err, server.ErrAsked), errors.Is(err, server.ErrTokenName):
		return cli.Fail(cli.Usage, err, "")
	}
	return cli.Fail(cli.IO, err, "")
}
