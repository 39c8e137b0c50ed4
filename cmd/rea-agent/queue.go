package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/cli"
)

// queueFlags are what the flags of rea-agent queue say.
type queueFlags struct {
	json, segments, all bool
	lane                string
}

func queueCommand(s *settings) *cli.Command {
	f := new(queueFlags)
	return &cli.Command{
		Name: "queue", Summary: "look into the queue of the agent, running or not",
		Commands: []*cli.Command{
			queueListCommand(s, f),
			queueVerifyCommand(s, f),
			queueExportCommand(s, f),
			lettersCommand(s, f),
		},
	}
}

func (f *queueFlags) jsonFlag() cli.Flag {
	return cli.Switch(&f.json, "json", "Print a JSON object a line.")
}

func queueListCommand(s *settings, f *queueFlags) *cli.Command {
	return &cli.Command{
		Name: "ls", Summary: "show how much waits for delivery, and since when",
		Flags: []cli.Flag{f.jsonFlag(), cli.Switch(&f.segments, "segments", "Show the files of each lane, too.")},
		Examples: []cli.Example{
			{Line: "queue ls", Tells: "a line for each lane"},
			{Line: "queue ls --json | jq 'select(.waiting.events > 0)'", Tells: "the lanes in which something waits"},
		},
		Run: func(_ context.Context, in *cli.Invocation) error {
			lanes, err := s.lanes()
			switch {
			case err != nil:
				return err
			case f.json:
				return f.listJSON(in, lanes)
			}
			return f.list(in, lanes)
		},
	}
}

// lanes loads the configuration and inspects the queue that it names.
func (s *settings) lanes() ([]agent.QueueLane, error) {
	if _, err := s.load(); err != nil {
		return nil, err
	}
	lanes, err := agent.QueueLanes(s.config.Networking.QueueDir)
	return lanes, explainQueue(err)
}

// explainQueue gives an error of looking into a queue its exit code.
func explainQueue(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, agent.ErrNoQueue):
		return cli.Fail(cli.Unavailable, err, "name the folder of the queue: --config FILE or --networking.queue-dir FOLDER; it is made when an agent first runs with networking enabled")
	case errors.Is(err, os.ErrPermission):
		return cli.Fail(cli.Permission, err, "look as the user that the agent runs as, or as an administrator")
	}
	return cli.Fail(cli.IO, err, "")
}

func (f *queueFlags) list(in *cli.Invocation, lanes []agent.QueueLane) error {
	t := newTable(in, "LANE", "WAITING", "RECORDS", "SIZE", "OLDEST", "ACKED", "NEXT", "SEGMENTS", "ON DISK")
	t.Right = []int{1, 2, 3, 5, 6, 7, 8}
	for _, l := range lanes {
		w := &l.Waiting
		t.Row(l.Name, number(w.Events), number(w.Records), size(w.Bytes), age(w.Oldest), number(l.Acked), number(l.Next), strconv.Itoa(len(l.Segments)), size(l.DiskBytes))
	}
	if err := t.Write(in.Stdout); err != nil {
		return cli.Fail(cli.IO, err, "")
	}
	for _, l := range lanes {
		for _, loss := range l.Losses {
			fmt.Fprintf(in.Stdout, "%s: %d events, %d to %d, are lost (%s); the agent will declare them\n", l.Name, loss.Count, loss.First, loss.Last, loss.Cause)
		}
		for _, file := range l.Foreign {
			fmt.Fprintf(in.Stdout, "%s: %s, %s, is not of this queue: %s\n", l.Name, cli.Escape(file.Name), size(file.Bytes), file.Why)
		}
	}
	if !f.segments {
		return nil
	}
	t = newTable(in, "LANE", "SEGMENT", "FIRST", "LAST", "EVENTS", "RECORDS", "SIZE", "STATE", "OLDEST", "NEWEST")
	t.Right = []int{2, 3, 4, 5, 6}
	for _, l := range lanes {
		for _, g := range l.Segments {
			t.Row(l.Name, g.Name, number(g.Base), number(g.Last), number(g.Events), number(g.Records), size(g.Size), segmentState(g.Sealed, g.Last <= l.Acked), age(g.Oldest), age(g.Newest))
		}
	}
	fmt.Fprintln(in.Stdout)
	return wrapIO(t.Write(in.Stdout))
}

// segmentState says whether a segment grows, waits, or may go.
func segmentState(sealed, delivered bool) string {
	switch {
	case delivered:
		return "delivered"
	case sealed:
		return "sealed"
	}
	return "open"
}

type laneJSON struct {
	Lane      string        `json:"lane"`
	Stream    string        `json:"stream"`
	Acked     uint64        `json:"acked"`
	Next      uint64        `json:"next"`
	Dropped   uint64        `json:"dropped"`
	Waiting   waitingJSON   `json:"waiting"`
	DiskBytes int64         `json:"disk_bytes"`
	Cursor    cursorJSON    `json:"cursor"`
	Losses    []lossJSON    `json:"undeclared_losses"`
	Foreign   []foreignJSON `json:"foreign_files"`
	Count     int           `json:"segment_count"`
	Segments  []segmentJSON `json:"segments,omitempty"`
}

type waitingJSON struct {
	Events  uint64    `json:"events"`
	Records uint64    `json:"records"`
	Bytes   int64     `json:"bytes"`
	Oldest  time.Time `json:"oldest,omitzero"`
}

type cursorJSON struct {
	Generation uint64   `json:"generation"`
	Slots      []string `json:"slots"`
}

type lossJSON struct {
	Cause string `json:"cause"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	Count uint64 `json:"count"`
}

type foreignJSON struct {
	File  string `json:"file"`
	Why   string `json:"why"`
	Bytes int64  `json:"bytes"`
}

type segmentJSON struct {
	ID      uint64    `json:"id"`
	File    string    `json:"file"`
	Base    uint64    `json:"base"`
	Last    uint64    `json:"last"`
	Events  uint64    `json:"events"`
	Records uint64    `json:"records"`
	Bytes   int64     `json:"bytes"`
	Sealed  bool      `json:"sealed"`
	Oldest  time.Time `json:"oldest,omitzero"`
	Newest  time.Time `json:"newest,omitzero"`
}

func (f *queueFlags) listJSON(in *cli.Invocation, lanes []agent.QueueLane) error {
	e := json.NewEncoder(shown(in.Stdout))
	for _, l := range lanes {
		w := &l.Waiting
		row := laneJSON{
			Lane: l.Name, Stream: l.Stream.String(), Acked: l.Acked, Next: l.Next, Dropped: l.Dropped,
			Waiting: waitingJSON{w.Events, w.Records, w.Bytes, w.Oldest}, DiskBytes: l.DiskBytes,
			Cursor: cursorJSON{Generation: l.Cursor.Generation, Slots: []string{}},
			Losses: []lossJSON{}, Foreign: []foreignJSON{}, Count: len(l.Segments),
		}
		for _, slot := range l.Cursor.Slots {
			row.Cursor.Slots = append(row.Cursor.Slots, string(slot))
		}
		for _, loss := range l.Losses {
			row.Losses = append(row.Losses, lossJSON{loss.Cause, loss.First, loss.Last, loss.Count})
		}
		for _, file := range l.Foreign {
			row.Foreign = append(row.Foreign, foreignJSON{file.Name, file.Why, file.Bytes})
		}
		for _, g := range l.Segments {
			if f.segments {
				row.Segments = append(row.Segments, segmentJSON{g.ID, g.Name, g.Base, g.Last, g.Events, g.Records, g.Size, g.Sealed, g.Oldest, g.Newest})
			}
		}
		if err := e.Encode(&row); err != nil {
			return wrapIO(err)
		}
	}
	return nil
}

func queueVerifyCommand(s *settings, f *queueFlags) *cli.Command {
	return &cli.Command{
		Name: "verify", Summary: "read every byte of the queue; exit with 65 if anything is damaged",
		About: "Says in which file and where, and which numbers cannot be read for it. Nothing is changed: the agent passes over damage by itself, and declares it.",
		Flags: []cli.Flag{f.jsonFlag()},
		Examples: []cli.Example{
			{Line: "queue verify", Tells: "a line for each lane, and one for each damage"},
			{Line: "queue verify --json | jq '.damage[]'", Tells: "the damage alone"},
		},
		Run: func(_ context.Context, in *cli.Invocation) error {
			lanes, err := s.lanes()
			if err != nil {
				return err
			}
			return f.verify(in, lanes)
		},
	}
}

type findingsJSON struct {
	Lane     string       `json:"lane"`
	Segments int          `json:"segments"`
	Records  uint64       `json:"records"`
	Events   uint64       `json:"events"`
	Bytes    int64        `json:"bytes"`
	Tail     int64        `json:"unfinished_bytes"`
	Damage   []damageJSON `json:"damage"`
}

type damageJSON struct {
	File      string `json:"file,omitempty"`
	Offset    int64  `json:"offset"`
	Bytes     int64  `json:"bytes"`
	What      string `json:"what"`
	First     uint64 `json:"first,omitempty"`
	Last      uint64 `json:"last,omitempty"`
	Delivered bool   `json:"delivered,omitempty"` // all of these numbers are
}

func (f *queueFlags) verify(in *cli.Invocation, lanes []agent.QueueLane) error {
	e := json.NewEncoder(shown(in.Stdout))
	damaged := 0
	for _, l := range lanes {
		v, err := l.Verify()
		if err != nil {
			return explainQueue(err)
		}
		row := findingsJSON{Lane: l.Name, Segments: len(l.Segments), Records: v.Records, Events: v.Events, Bytes: v.Bytes, Tail: v.Tail, Damage: []damageJSON{}}
		for _, d := range v.Damage {
			row.Damage = append(row.Damage, damageJSON{d.File, d.Offset, d.Bytes, d.What, d.First, d.Last, d.First > 0 && d.Last <= l.Acked})
		}
		damaged += len(v.Damage)
		if f.json {
			err = e.Encode(&row)
		} else {
			_, err = io.WriteString(in.Stdout, row.text())
		}
		if err != nil {
			return wrapIO(err)
		}
	}
	if damaged > 0 {
		return cli.Fail(cli.Data, fmt.Errorf("the queue is damaged in %s", count(damaged, "place")), "the agent passes over it and declares what is lost; see to the disk")
	}
	return nil
}

// text tells the findings to people.
func (v *findingsJSON) text() string {
	s := fmt.Sprintf("%s: %s read; %s in %s of %s hold", v.Lane, size(v.Bytes), count(v.Events, "event"), count(v.Records, "record"), count(v.Segments, "segment"))
	if v.Tail > 0 {
		s += fmt.Sprintf("; the last %d bytes are a write that is not finished", v.Tail)
	}
	s += "\n"
	for _, d := range v.Damage {
		at := ""
		if d.File != "" {
			at = fmt.Sprintf("%s, %d bytes at offset %d: ", d.File, d.Bytes, d.Offset)
		}
		s += fmt.Sprintf("%s: DAMAGED: %s%s", v.Lane, at, d.What)
		if d.First > 0 {
			s += fmt.Sprintf("; numbers %d to %d", d.First, d.Last)
		}
		if d.Delivered {
			s += ", which were delivered"
		}
		s += "\n"
	}
	return s
}

func queueExportCommand(s *settings, f *queueFlags) *cli.Command {
	lane := cli.Text(&f.lane, "lane", "LANE", "Only of this lane.")
	lane.Choices = []string{"evidence", "metrics"}
	return &cli.Command{
		Name: "export", Summary: "print the events that wait for delivery, as NDJSON",
		About: "Nothing is taken out of the queue. What cannot be read is named on standard error and passed over; the exit code is 65 then.",
		Flags: []cli.Flag{lane, cli.Switch(&f.all, "all", "Also those that are delivered and still on the disk.")},
		Examples: []cli.Example{
			{Line: "queue export > events.ndjson", Tells: "save what the server has not got"},
			{Line: "queue export --lane evidence | jq -c 'select(.kind == \"gap\")'", Tells: "look for gaps that are not delivered"},
		},
		Run: func(_ context.Context, in *cli.Invocation) error {
			lanes, err := s.lanes()
			if err != nil {
				return err
			}
			return f.export(in, lanes)
		},
	}
}

func (f *queueFlags) export(in *cli.Invocation, lanes []agent.QueueLane) error {
	out := bufio.NewWriterSize(in.Stdout, 64<<10)
	found, torn := f.lane == "", 0
	for _, l := range lanes {
		if f.lane != "" && f.lane != l.Name {
			continue
		}
		found = true
		var w io.Writer = out
		if cli.IsTerminal(in.Stdout) {
			w = escaped{out}
		}
		err := l.Export(w, f.all, func(err error) {
			torn++
			fmt.Fprintf(in.Stderr, "%s: %s\n", l.Name, cli.Escape(err.Error()))
		})
		if err != nil {
			return wrapIO(err)
		}
	}
	if err := out.Flush(); err != nil {
		return wrapIO(err)
	}
	switch {
	case !found:
		return cli.Fail(cli.Usage, fmt.Errorf("there is no lane %q", f.lane), "see rea-agent queue ls")
	case torn > 0:
		return cli.Fail(cli.Data, fmt.Errorf("%s could not be read", count(torn, "place")), "rea-agent queue verify tells more")
	}
	return nil
}

// shown is w, made harmless if somebody looks at it.
func shown(w io.Writer) io.Writer {
	if cli.IsTerminal(w) {
		return escaped{w}
	}
	return w
}

// escaped shows whole lines on a terminal.
type escaped struct{ w io.Writer }

func (e escaped) Write(p []byte) (int, error) {
	if _, err := io.WriteString(e.w, cli.EscapeLines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func newTable(in *cli.Invocation, head ...string) *cli.Table {
	t := cli.NewTable(head...)
	t.Style, t.Width = cli.StyleFor(in.Stdout, os.Getenv), cli.Width(in.Stdout)
	return t
}

func wrapIO(err error) error {
	if err == nil {
		return nil
	}
	return cli.Fail(cli.IO, err, "")
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// count shows how many there are of a thing.
func count[N int | uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// size shows bytes in the unit that leaves one to four digits.
func size(bytes int64) string {
	n, unit := float64(bytes), 0
	for ; n >= 999.5 && unit < 4; unit++ {
		n /= 1024
	}
	places := 0
	if unit > 0 && n < 9.95 {
		places = 1
	}
	return strconv.FormatFloat(n, 'f', places, 64) + " " + [...]string{"B", "KiB", "MiB", "GiB", "TiB"}[unit]
}

// age says how long ago t was, as exactly as people want to know.
func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return "-"
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
