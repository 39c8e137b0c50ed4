package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/server"
)

// proof is what the flags of rea-server verify say.
type proof struct {
	node        string
	wait        time.Duration
	json, quick bool
}

func verifyCommand(s *settings) *cli.Command {
	p := &proof{}
	return &cli.Command{
		Name: "verify", Summary: "prove that nothing is missing: received + declared = assigned",
		About: `For each stream of numbers it shows how many events were received, how many the agent declared lost and why, and how many numbers there are. What is neither received nor declared is waiting, above the highest number received, or undeclared, below it.
It also reads all that is stored: whether each batch has the events that its row says, just as they were kept.
The exit code is 65 where the equation does not hold or the store is damaged.`,
		Flags: []cli.Flag{
			cli.Text(&p.node, "node", "NODE", "Only of this agent, by its node or the name of its host."),
			cli.Duration(&p.wait, "wait", "Look again for so long where events are waiting or undeclared: agents may still be delivering."),
			cli.Switch(&p.quick, "quick", "Do not read the bodies of what is stored."),
			cli.Switch(&p.json, "json", "Print a JSON object a line: the streams, then the total."),
		},
		Examples: []cli.Example{
			{Line: "verify", Tells: "all agents"},
			{Line: "verify --node lab-7 --wait 30s", Tells: "one of them, which is still delivering"},
			{Line: "verify --quick --json | jq 'select(.undeclared > 0)'", Tells: "the streams of which events vanished"},
		},
		Run: func(ctx context.Context, in *cli.Invocation) (err error) {
			r, err := s.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			return p.run(ctx, r, in)
		},
	}
}

func (p *proof) run(ctx context.Context, r *server.Reader, in *cli.Invocation) error {
	books, err := r.Settled(ctx, p.node, p.wait)
	if err != nil {
		return cli.Fail(cli.IO, err, "")
	}
	shown := &progress{out: in.Stderr, began: time.Now(), on: cli.IsTerminal(in.Stderr)}
	audit, err := r.Audit(ctx, p.node, !p.quick, shown.show)
	shown.end()
	if err != nil {
		return cli.Fail(cli.IO, err, "")
	}
	tell := p.tellTables
	if p.json {
		tell = p.tellJSON
	}
	if err := tell(in, &books, &audit); err != nil {
		return cli.Fail(cli.IO, err, "")
	}
	return p.judge(&books, &audit)
}

// judge returns the error of what was found.
func (p *proof) judge(books *server.Accounts, audit *server.Audit) error {
	total := books.Total()
	switch n := books.Unbalanced(); {
	case audit.Damaged > 0:
		return cli.Fail(cli.Data, fmt.Errorf("the store is damaged in %s of %s", count(int(audit.Damaged), "place"), count(int(audit.Batches), "batch")),
			"restore the data folder from a copy; agents send again only what they still hold")
	case p.node != "" && len(books.Streams) == 0:
		return cli.Fail(cli.Data, fmt.Errorf("nothing has come of %s", p.node), "rea-server hosts shows which agents there are")
	case total.Undeclared > 0:
		return cli.Fail(cli.Data, fmt.Errorf("%d events are missing and nobody says why, %d are waiting, in %d of %d streams", total.Undeclared, total.Waiting, n, len(books.Streams)), "")
	case n > 0:
		return cli.Fail(cli.Data, fmt.Errorf("%d events have not come, in %d of %d streams", total.Waiting, n, len(books.Streams)),
			"agents that are delivering need a moment: --wait 30s")
	}
	return nil
}

// sums is the last line of JSON.
type sums struct {
	Total    bool `json:"total"` // marks the line
	Balanced bool `json:"balanced"`
	Streams  int  `json:"streams"`

	Assigned         uint64            `json:"assigned"`
	Received         uint64            `json:"received"`
	Declared         uint64            `json:"declared"`
	Waiting          uint64            `json:"waiting"`
	Undeclared       uint64            `json:"undeclared"`
	Causes           map[string]uint64 `json:"causes"`
	DeclaredReceived uint64            `json:"declared_received"`
	Repeats          uint64            `json:"repeats"`
	Conflicts        uint64            `json:"conflicts"`
	Clones           uint64            `json:"clones"`

	Unnumbered []server.Unnumbered `json:"unnumbered"`
	Audit      *server.Audit       `json:"audit"`
}

func (p *proof) tellJSON(in *cli.Invocation, books *server.Accounts, audit *server.Audit) error {
	e := json.NewEncoder(cli.ForTerminal(in.Stdout))
	for i := range books.Streams {
		if err := e.Encode(&books.Streams[i]); err != nil {
			return err
		}
	}
	t := books.Total()
	return e.Encode(&sums{
		Total: true, Balanced: books.Unbalanced() == 0, Streams: len(books.Streams),
		Assigned: t.Assigned, Received: t.Received, Declared: t.Declared, Waiting: t.Waiting, Undeclared: t.Undeclared, Causes: t.Causes,
		DeclaredReceived: t.DeclaredReceived, Repeats: t.Repeats, Conflicts: t.Conflicts, Clones: t.Clones,
		Unnumbered: append([]server.Unnumbered{}, books.Unnumbered...), Audit: audit,
	})
}

func (p *proof) tellTables(in *cli.Invocation, books *server.Accounts, audit *server.Audit) error {
	if len(books.Streams) == 0 {
		fmt.Fprintln(in.Stderr, "No agent has delivered anything yet.")
		return nil
	}
	t := cli.NewTable("HOST", "STREAM", "RECEIVED", "", "DECLARED", "", "ASSIGNED", "REMARKS")
	t.Style, t.Width, t.Right = style(in), cli.Width(in.Stdout), []int{2, 4, 6}
	for i := range books.Streams {
		a := &books.Streams[i]
		equation(t, nameOf(a.Host, a.Node), a.Stream, a)
	}
	total := books.Total()
	equation(t, "all", count(len(books.Streams), "stream"), &total)
	var err error
	write := func(t *cli.Table) {
		if t != nil && err == nil {
			_, err = io.WriteString(in.Stdout, "\n")
			err = errors.Join(err, t.Write(in.Stdout))
		}
	}
	err = t.Write(in.Stdout)
	write(missingTable(in, books))
	write(unnumberedTable(in, books))
	write(damageTable(in, audit))
	if err == nil && audit.Damaged == 0 {
		_, err = fmt.Fprintf(in.Stdout, "\n%s\n", auditLine(audit, p.quick))
	}
	return err
}

func nameOf(host, node string) string {
	if host == "" {
		return node
	}
	return host
}

// equation adds the row of one account.
func equation(t *cli.Table, host, stream string, a *server.Account) {
	sign := "="
	if !a.Balanced() {
		sign = "≠"
	}
	t.Row(host, stream, digits(a.Received), "+", digits(a.Declared), sign, digits(a.Assigned), remarks(a))
}

// remarks says what else there is of an account, the worst first.
func remarks(a *server.Account) string {
	var list []string
	add := func(n uint64, what string) {
		if n > 0 {
			list = append(list, digits(n)+" "+what)
		}
	}
	add(a.Undeclared, "undeclared")
	add(a.Waiting, "waiting")
	add(a.Clones, "refused as of a clone")
	add(a.Conflicts, "refused for other content")
	for _, cause := range slices.Sorted(maps.Keys(a.Causes)) {
		add(a.Causes[cause], cause)
	}
	add(a.DeclaredReceived, "declared and received")
	if a.Repeats > 0 {
		list = append(list, count(int(a.Repeats), "repeat"))
	}
	return strings.Join(list, ", ")
}

// missingTable names the first numbers that are neither received nor declared.
func missingTable(in *cli.Invocation, books *server.Accounts) *cli.Table {
	t := cli.NewTable("MISSING OF", "STREAM", "FIRST", "LAST", "WHAT", "KNOWN SINCE")
	t.Style, t.Width, t.Right = style(in), cli.Width(in.Stdout), []int{2, 3}
	rows := 0
	for i := range books.Streams {
		a := &books.Streams[i]
		for _, m := range a.Missing {
			if rows++; rows > maxRows {
				t.Row("…")
				return t
			}
			what, since := "undeclared", "before this was noted"
			if m.Waiting {
				what = "waiting"
			}
			if !m.Since.IsZero() {
				since = m.Since.Local().Format("2006-01-02 15:04:05")
			}
			t.Row(nameOf(a.Host, a.Node), a.Stream, digits(m.First), digits(m.Last), what, since)
		}
	}
	if rows == 0 {
		return nil
	}
	return t
}

// maxRows bounds what is named; all is counted.
const maxRows = 20

// unnumberedTable is no part of the equation: these events never had numbers.
func unnumberedTable(in *cli.Invocation, books *server.Accounts) *cli.Table {
	if len(books.Unnumbered) == 0 {
		return nil
	}
	hosts := map[string]string{}
	for i := range books.Streams {
		hosts[books.Streams[i].Node] = books.Streams[i].Host
	}
	t := cli.NewTable("LOST BEFORE NUMBERED", "EVENTS", "CAUSE", "SOURCE")
	t.Style, t.Width, t.Right = style(in), cli.Width(in.Stdout), []int{1}
	for _, u := range books.Unnumbered {
		t.Row(nameOf(hosts[u.Node], u.Node), digits(u.Events), u.Cause, u.Source)
	}
	return t
}

func damageTable(in *cli.Invocation, audit *server.Audit) *cli.Table {
	if audit.Damaged == 0 {
		return nil
	}
	t := cli.NewTable("DAMAGED NODE", "STREAM", "FIRST", "LAST", "WHAT")
	t.Style, t.Width, t.Right = style(in), 0, []int{2, 3} // what is wrong is told whole
	for _, d := range audit.Damage {
		t.Row(d.Node, d.Stream, digits(d.First), digits(d.Last), d.What)
	}
	if n := audit.Damaged - uint64(len(audit.Damage)); n > 0 {
		t.Row(fmt.Sprintf("… and %d more", n))
	}
	return t
}

func auditLine(audit *server.Audit, quick bool) string {
	if quick {
		return count(int(audit.Batches), "batch") + " are stored; what is in them was not read."
	}
	return fmt.Sprintf("%s with %s are stored and are as they were received.", count(int(audit.Batches), "batch"), count(int(audit.Events), "event"))
}

// progress tells somebody at a terminal how far a long look has come.
type progress struct {
	out   io.Writer
	on    bool
	began time.Time
	last  time.Time
	width int
}

func (p *progress) show(done, of uint64) {
	now := time.Now()
	if !p.on || now.Sub(p.began) < time.Second || now.Sub(p.last) < 100*time.Millisecond {
		return
	}
	p.last = now
	p.line(fmt.Sprintf("read %d of %d batches", done, of))
}

// line writes over the line before it.
func (p *progress) line(text string) {
	fmt.Fprintf(p.out, "\r%s", text+strings.Repeat(" ", max(0, p.width-len(text))))
	p.width = len(text)
}

// end leaves an empty line.
func (p *progress) end() {
	if p.width > 0 {
		p.line("")
		fmt.Fprint(p.out, "\r")
	}
}
