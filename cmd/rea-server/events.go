package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/server"
)

// wanted is what the flags of rea-server events say.
type wanted struct {
	filter       server.Filter
	since        time.Duration
	limit        int
	follow, json bool
}

// How many events are shown where nobody says: what fits on a screen, and a few
// before those that are followed.
const (
	screenful = 50
	lead      = 10
)

func eventsCommand(s *settings) *cli.Command {
	w := &wanted{limit: -1}
	return &cli.Command{
		Name: "events", Summary: "show what arrived, in that order",
		About: fmt.Sprintf("Without --since and --limit it shows the last %d events, or %d before it follows.", screenful, lead),
		Flags: []cli.Flag{
			cli.Text(&w.filter.Host, "host", "HOST", "Only of this host, by its name or its node."),
			cli.List(&w.filter.Kinds, "kind", "KIND", "Only of these kinds: cpu,memory,…"),
			cli.Duration(&w.since, "since", "Only what happened in the last 90s, 5m, 24h."),
			cli.Number(&w.limit, "limit", 0, 1<<31-1, "Only so many, the last ones; 0 for all."),
			cli.Switch(&w.follow, "follow", "Go on with what arrives, until Ctrl-C."),
			cli.Switch(&w.json, "json", "Print the lines as the agent wrote them."),
		},
		Examples: []cli.Example{
			{Line: "events --follow", Tells: "live, a line for each event"},
			{Line: "events --kind gap,agent --since 24h", Tells: "what was lost, and what agents say of themselves"},
			{Line: "events --host lab-7 --kind process --limit 1 --json | jq .", Tells: "the last reading of one host's processes"},
		},
		Run: func(ctx context.Context, in *cli.Invocation) (err error) {
			r, err := s.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			if err := w.show(ctx, r, in); err != nil && ctx.Err() == nil {
				return cli.Fail(cli.IO, err, "")
			}
			return nil
		},
	}
}

func (w *wanted) show(ctx context.Context, r *server.Reader, in *cli.Invocation) error {
	f := w.filter
	if w.since > 0 {
		f.Since = time.Now().Add(-w.since)
	}
	f.Limit = w.limit
	if w.limit < 0 {
		f.Limit = w.defaultLimit()
	}
	if w.follow {
		return r.Follow(ctx, f, w.printer(in, in.Stdout))
	}
	out := bufio.NewWriterSize(in.Stdout, 64<<10)
	found := false
	show := w.printer(in, out)
	_, err := r.Events(ctx, f, func(l *server.Line) error {
		found = true
		return show(l)
	})
	err = errors.Join(err, out.Flush())
	if err == nil && !found && !w.json {
		fmt.Fprintln(in.Stderr, "No such event has arrived.")
	}
	return err
}

func (w *wanted) defaultLimit() int {
	switch {
	case w.since > 0:
		return 0
	case w.follow:
		return lead
	}
	return screenful
}

// printer returns what writes one event to out.
func (w *wanted) printer(in *cli.Invocation, out io.Writer) func(*server.Line) error {
	if w.json {
		if cli.IsTerminal(in.Stdout) {
			out = cli.ForTerminal(in.Stdout)
		}
		return func(l *server.Line) error {
			_, err := out.Write(l.Raw)
			return err
		}
	}
	row := &row{style: style(in), out: out}
	return row.print
}

// row prints events in columns that widen as wider ones come: what follows is
// not known yet.
type row struct {
	style      cli.Style
	out        io.Writer
	host, kind int
	seq        int
}

// maxHost is the widest that the column of hosts becomes.
const maxHost = 24

func (r *row) print(l *server.Line) error {
	host, kind, seq := cli.Escape(string(l.Host)), string(l.Kind), fmt.Sprint(l.Seq)
	r.host, r.kind, r.seq = min(maxHost, max(r.host, cli.Columns(host))), max(r.kind, len("network"), len(kind)), max(r.seq, 4, len(seq))
	_, err := fmt.Fprintf(r.out, "%s  %s  %s  %s  %s\n",
		r.style.Dim(l.Time.Local().Format("2006-01-02 15:04:05")), pad(host, r.host), r.style.Bold(pad(kind, r.kind)),
		r.style.Dim(strings.Repeat(" ", r.seq-len(seq))+seq), cli.Escape(summary(kind, l.Body)))
	return err
}

func pad(s string, width int) string { return s + strings.Repeat(" ", max(0, width-cli.Columns(s))) }
