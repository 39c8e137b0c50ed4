package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/cli"
)

// maxRedactLine bounds a line that is shown redacted; it is more than an event can have.
const maxRedactLine = 4 << 20

func redactCommand(s *settings) *cli.Command {
	asJSON := false
	return &cli.Command{
		Name: "redact", Summary: "show what redaction does to lines", Args: "[FILE | -]",
		About: "Reads events (NDJSON) or any text, from standard input where no file is named, and prints each line as this configuration would let it out. Nothing is sent or kept. Of an event the members are redacted by their names; plain text is looked through for secrets and, with agent.redact_pii, for homes.",
		Flags: []cli.Flag{cli.Switch(&asJSON, "json", "Print a JSON object for each line: its number, whether it changed, what was redacted, and the text.")},
		Examples: []cli.Example{
			{Line: "redact /var/log/syslog", Tells: "how those lines would go out"},
			{Line: "redact --json app.log | jq 'select(.changed)'", Tells: "only what is touched, and why"},
			{Line: "once | rea-agent redact --agent.redact-pii=false -", Tells: "events, by another policy"},
		},
		Run: func(_ context.Context, in *cli.Invocation) error { return s.redact(in, asJSON) },
	}
}

// redactedJSON is a line of redact --json.
type redactedJSON struct {
	Line     int      `json:"line"`
	Changed  bool     `json:"changed"`
	Redacted []string `json:"redacted"`
	Text     string   `json:"text"`
}

func (s *settings) redact(in *cli.Invocation, asJSON bool) error {
	if len(in.Args) > 1 {
		return cli.Fail(cli.Usage, errors.New("name one file, or - for standard input"), "")
	}
	if _, err := s.load(); err != nil {
		return err
	}
	policy, err := agent.Redaction(&s.config)
	if err != nil {
		return explain(err)
	}
	from, end, err := openLines(in)
	if err != nil {
		return err
	}
	defer end()
	out := bufio.NewWriter(shown(in.Stdout))
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 64<<10), maxRedactLine)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		clean, redacted := policy.Line(line)
		if !asJSON {
			fmt.Fprintln(out, clean)
		} else if err := e.Encode(redactedJSON{n, clean != line, append([]string{}, redacted...), clean}); err != nil {
			return wrapIO(err)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return cli.Fail(cli.Data, errors.Join(fmt.Errorf("a line has more than %d bytes", maxRedactLine), wrapIO(out.Flush())), "see that this is a file of lines")
	} else if err != nil {
		return wrapIO(err)
	}
	return wrapIO(out.Flush())
}

// openLines opens what the command line names. end closes it.
func openLines(in *cli.Invocation) (from io.Reader, end func(), err error) {
	if len(in.Args) == 0 || in.Args[0] == "-" {
		return in.Stdin, func() {}, nil
	}
	f, err := os.Open(in.Args[0])
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, cli.Fail(cli.Permission, err, "")
	case err != nil:
		return nil, nil, wrapIO(err)
	}
	return f, func() { _ = f.Close() }, nil // only read from
}
