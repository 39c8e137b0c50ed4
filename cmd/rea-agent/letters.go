package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/cli"
)

func lettersCommand(s *settings, f *queueFlags) *cli.Command {
	const ids = "[--all | STREAM:SEQ …]"
	all := cli.Switch(&f.all, "all", "All letters that there are.")
	return &cli.Command{
		Name: "dead-letters", Summary: "look at the events that the server refused for their content",
		About: "The agent keeps such an event here, says in a gap event that it is missing, and goes on. Nothing is sent again by itself: replay it when the server was corrected, or purge it.",
		Commands: []*cli.Command{
			{Name: "list", Summary: "show what was refused, when and why", Flags: []cli.Flag{f.jsonFlag()},
				Examples: []cli.Example{
					{Line: "queue dead-letters list", Tells: "a line for each"},
					{Line: "queue dead-letters list --json | jq -r .line | jq .", Tells: "the events themselves"},
				},
				Run: func(_ context.Context, in *cli.Invocation) error { return f.listLetters(in, s) }},
			{Name: "replay", Summary: "send letters again; each goes when the server keeps it", Args: ids, Flags: []cli.Flag{all},
				About: "Sends each with the number that it had, to the server of the configuration. What is refused again stays: the exit code is 65 then, and 69 if the server cannot be reached or takes nothing.",
				Examples: []cli.Example{
					{Line: "queue dead-letters replay --all --config /etc/rea/agent.toml", Tells: "after the server was corrected"},
					{Line: "queue dead-letters replay 7f3a9d0c5b6e4f1a8c2d3e4f5a6b7c8d:1204", Tells: "one of them, as list names it"},
				},
				Run: func(ctx context.Context, in *cli.Invocation) error { return f.replay(ctx, in, s) }},
			{Name: "purge", Summary: "delete letters for good", Args: ids, Flags: []cli.Flag{all},
				About: "It does not ask. The server was told that these events are missing, and that stays true.",
				Examples: []cli.Example{
					{Line: "queue dead-letters purge 7f3a9d0c5b6e4f1a8c2d3e4f5a6b7c8d:1204", Tells: "one of them"},
					{Line: "queue dead-letters purge --all", Tells: "all"},
				},
				Run: func(_ context.Context, in *cli.Invocation) error { return f.purge(in, s) }},
		},
	}
}

// letters loads the configuration and lists the letters of its queue.
func (s *settings) letters() ([]agent.Letter, error) {
	if _, err := s.load(); err != nil {
		return nil, err
	}
	letters, err := agent.DeadLetters(s.config.Networking.QueueDir)
	return letters, explainQueue(err)
}

// id names a letter.
func id(l *agent.Letter) string { return l.Stream + ":" + number(l.Seq) }

// kindOf returns the kind of a letter's event, if it says one.
func kindOf(l *agent.Letter) string {
	var e struct{ Kind string }
	if json.Unmarshal(l.Line, &e) != nil || e.Kind == "" {
		return "-"
	}
	return e.Kind
}

type letterJSON struct {
	Time   time.Time `json:"time"`
	Lane   string    `json:"lane"`
	Stream string    `json:"stream"`
	Seq    uint64    `json:"seq"`
	Status int       `json:"status,omitempty"`
	Reason string    `json:"reason,omitempty"`
	Line   string    `json:"line,omitempty"`
	Damage string    `json:"damage,omitempty"`
}

func (f *queueFlags) listLetters(in *cli.Invocation, s *settings) error {
	letters, err := s.letters()
	if err != nil {
		return err
	}
	t := newTable(in, "REFUSED", "LANE", "STREAM:SEQ", "STATUS", "KIND", "REASON")
	t.Right = []int{3}
	e := json.NewEncoder(shown(in.Stdout))
	for i := range letters {
		l := &letters[i]
		row := letterJSON{l.Time, l.Lane, l.Stream, l.Seq, l.Status, l.Reason, string(l.Line), ""}
		if l.Damage != nil {
			row.Damage = l.Damage.Error()
			t.Row(l.Time.UTC().Format(time.RFC3339), l.Lane, id(l), "-", "-", "damaged: "+row.Damage)
		} else {
			t.Row(l.Time.UTC().Format(time.RFC3339), l.Lane, id(l), strconv.Itoa(l.Status), kindOf(l), l.Reason)
		}
		if !f.json {
			continue
		}
		if err := e.Encode(&row); err != nil {
			return wrapIO(err)
		}
	}
	switch {
	case f.json:
		return nil
	case len(letters) == 0:
		fmt.Fprintln(in.Stderr, "The server has refused nothing.")
		return nil
	}
	return wrapIO(t.Write(in.Stdout))
}

// chosen returns the letters that the command line names.
func (f *queueFlags) chosen(in *cli.Invocation, s *settings) ([]agent.Letter, error) {
	switch {
	case f.all && len(in.Args) > 0:
		return nil, cli.Fail(cli.Usage, errors.New("--all and names exclude each other"), "")
	case !f.all && len(in.Args) == 0:
		return nil, cli.Fail(cli.Usage, errors.New("name letters, or say --all"), "see rea-agent queue dead-letters list")
	}
	for _, name := range in.Args {
		stream, seq, _ := strings.Cut(name, ":")
		if _, err := strconv.ParseUint(seq, 10, 63); err != nil || stream == "" {
			return nil, cli.Fail(cli.Usage, fmt.Errorf("%q is no letter", name), "write STREAM:SEQ, as in rea-agent queue dead-letters list")
		}
	}
	letters, err := s.letters()
	if err != nil || f.all {
		return letters, err
	}
	var chosen []agent.Letter
	for _, name := range in.Args {
		i := 0
		for i < len(letters) && id(&letters[i]) != name {
			i++
		}
		if i == len(letters) {
			return nil, cli.Fail(cli.Unavailable, fmt.Errorf("there is no letter %s", name), "see rea-agent queue dead-letters list")
		}
		chosen = append(chosen, letters[i])
	}
	return chosen, nil
}

func (f *queueFlags) purge(in *cli.Invocation, s *settings) error {
	letters, err := f.chosen(in, s)
	if err != nil {
		return err
	}
	for i := range letters {
		if err := agent.RemoveDeadLetter(s.config.Networking.QueueDir, letters[i]); err != nil {
			return explainQueue(err)
		}
		fmt.Fprintf(in.Stdout, "purged %s %s\n", letters[i].Lane, id(&letters[i]))
	}
	return nil
}

func (f *queueFlags) replay(ctx context.Context, in *cli.Invocation, s *settings) error {
	letters, err := f.chosen(in, s)
	if err != nil {
		return err
	}
	r, err := agent.NewReplay(&s.config, cli.ReadBuild().Version)
	if err != nil {
		return explain(err)
	}
	refused := 0
	for i := range letters {
		l := &letters[i]
		switch err := r.Send(ctx, *l); {
		case errors.Is(err, agent.ErrRefused):
			refused++
			fmt.Fprintf(in.Stdout, "refused %s %s: %s\n", l.Lane, id(l), cli.Escape(err.Error()))
			continue
		case err != nil:
			return cli.Fail(cli.Unavailable, fmt.Errorf("replay %s: %w", id(l), err), count(len(letters)-i, "letter")+" not sent; all that was not delivered stays")
		}
		if err := agent.RemoveDeadLetter(s.config.Networking.QueueDir, *l); err != nil {
			return explainQueue(err)
		}
		fmt.Fprintf(in.Stdout, "delivered %s %s\n", l.Lane, id(l))
	}
	if refused > 0 {
		return cli.Fail(cli.Data, fmt.Errorf("the server refuses %s", count(refused, "letter")), "they stay; purge deletes them")
	}
	return nil
}
