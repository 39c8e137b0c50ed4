package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/server"
	"github.com/rea-agent/rea/internal/server/store"
)

// foreign is text of an agent that a terminal would act on: colours, a title, the
// clearing of the screen, C1 controls, marks of direction, lines of its own.
const foreign = "lab\x1b[31m\x1b]0;owned\x07\x1b[2J\u009b2J\r\nfake line\t\x00\x7f\u202e\u2066\u200b\ufeff\u2028<script>alert(1)</script>\xff"

// harmless fails where out has anything but what shows itself.
func harmless(t *testing.T, what string, out *bytes.Buffer, lines int) {
	t.Helper()
	text := out.String()
	if !strings.Contains(text, "lab") {
		t.Errorf("%s does not show the text:\n%q", what, text)
	}
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%s shows %q:\n%q", what, r, text)
			break
		}
	}
	if n := strings.Count(text, "\n"); n != lines {
		t.Errorf("%s has %d lines, want %d:\n%s", what, n, lines, text)
	}
}

func TestForeignTextIsShownHarmless(t *testing.T) {
	var out, errs bytes.Buffer
	in := &cli.Invocation{Stdout: &out, Stderr: &errs}

	if err := hostsTable(in, []server.Host{{Host: foreign, Node: foreign, Agent: foreign, Kinds: []string{foreign}, LastSeen: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	harmless(t, "hosts", &out, 2)

	out.Reset()
	text := strings.NewReplacer("\x1b", `\u001b`, "\x07", `\u0007`, "\r", `\r`, "\n", `\n`, "\t", `\t`, "\x00", `\u0000`, "\xff", `\u00ff`).Replace(foreign)
	for kind, body := range map[string]string{
		"host": `{"os":{"name":"` + text + `"},"name":"` + text + `"}`, "agent": `{"action":"` + text + `","version":"` + text + `"}`, "gap": `{"cause":"` + text + `","count":1,"source":"` + text + `"}`,
		"eventlog": `{"channel":"` + text + `","provider":"` + text + `","event_id":7,"level":2,"message":"` + text + `"}`,
		"process":  `{"processes":[{"name":"` + text + `"}]}`, "disk": `{"volumes":[{"mount":"` + text + `"}]}`, "else": `{"any":"` + text + `","` + text + `":1}`,
	} {
		out.Reset()
		r := &row{out: &out}
		if err := r.print(&server.Line{Host: []byte(foreign), Kind: []byte(kind), Body: []byte(body), Seq: 1}); err != nil {
			t.Fatal(err)
		}
		harmless(t, "events of kind "+kind, &out, 1)
	}

	out.Reset()
	books := &server.Accounts{
		Streams:    []server.Account{{Node: foreign, Host: foreign, Stream: foreign, Causes: map[string]uint64{foreign: 1}, Assigned: 2, Missing: []store.Range{{First: 1, Last: 2}}}},
		Unnumbered: []server.Unnumbered{{Node: foreign, Cause: foreign, Source: foreign, Events: 1}},
	}
	audit := &server.Audit{Damaged: 1, Damage: []store.Damage{{Node: foreign, Stream: foreign, What: foreign}}}
	if err := (&proof{}).tellTables(in, books, audit); err != nil {
		t.Fatal(err)
	}
	harmless(t, "verify", &out, 3+1+2+1+2+1+2)
}
