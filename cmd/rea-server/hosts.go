package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/server"
)

func hostsCommand(s *settings) *cli.Command {
	asJSON := false
	return &cli.Command{
		Name: "hosts", Summary: "show which agents there are, how much they sent and when last",
		About: "UNPROVEN are events that came without a certificate: anybody who reaches the server can have sent them. LOST are events of which the agent says that they are lost, MISSING those that never came though later ones did. CONFLICTS are batches that were refused because two agents use one stream. verify tells more.",
		Flags: []cli.Flag{cli.Switch(&asJSON, "json", "Print a JSON object a line.")},
		Examples: []cli.Example{
			{Line: "hosts", Tells: "a table"},
			{Line: "hosts --json | jq 'select(.missing > 0)'", Tells: "those of which events are missing and nobody says why"},
			{Line: "hosts --json | jq 'select(.unproven > 0)'", Tells: "those of which some came without a certificate"},
		},
		Run: func(ctx context.Context, in *cli.Invocation) (err error) {
			r, err := s.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			hosts, err := r.Hosts(ctx)
			switch {
			case err != nil:
				return cli.Fail(cli.IO, err, "")
			case asJSON:
				return hostsJSON(in, hosts)
			}
			return hostsTable(in, hosts)
		},
	}
}

func hostsJSON(in *cli.Invocation, hosts []server.Host) error {
	e := json.NewEncoder(cli.ForTerminal(in.Stdout))
	for i := range hosts {
		if err := e.Encode(&hosts[i]); err != nil {
			return cli.Fail(cli.IO, err, "")
		}
	}
	return nil
}

func hostsTable(in *cli.Invocation, hosts []server.Host) error {
	t := cli.NewTable("HOST", "LAST SEEN", "EVENTS", "UNPROVEN", "LOST", "MISSING", "CONFLICTS", "AGENT", "NODE", "KINDS")
	t.Style, t.Width, t.Right = style(in), cli.Width(in.Stdout), []int{2, 3, 4, 5, 6}
	for _, h := range hosts {
		t.Row(h.Host, ago(h.LastSeen), digits(h.Events), digits(h.Unproven), digits(h.Declared), digits(h.Missing), digits(h.Conflicts+h.Clones), h.Agent, h.Node, strings.Join(h.Kinds, " "))
	}
	if err := t.Write(in.Stdout); err != nil {
		return cli.Fail(cli.IO, err, "")
	}
	if len(hosts) == 0 {
		fmt.Fprintln(in.Stderr, "No agent has delivered anything yet.")
	}
	return nil
}

func digits(n uint64) string { return strconv.FormatUint(n, 10) }

// ago says how long ago t was, as exactly as people want to know.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < 0:
		return t.UTC().Format(time.RFC3339) // the clock was changed
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

func style(in *cli.Invocation) cli.Style { return cli.StyleFor(in.Stdout, os.Getenv) }
