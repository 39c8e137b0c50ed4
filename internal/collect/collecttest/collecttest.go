// Package collecttest is the suite that every collector passes: its events are
// encoded as the agent would, checked against the collector's schema and
// compared with a golden file.
package collecttest

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write golden files instead of comparing with them")

// Stamp is the envelope of every golden event.
var Stamp = event.Stamp{Node: "0190d1c0-0000-7000-8000-000000000001", Host: "lab-7", Stream: "7f3a00000000000000000000000000c1"}

// Read takes one reading and returns the encoded lines of what was emitted.
func Read(t testing.TB, r collect.Reader) []byte {
	t.Helper()
	var lines []byte
	err := r.Read(t.Context(), func(_ context.Context, events ...event.Event) error {
		lines = append(lines, Encode(t, events...)...)
		return nil
	})
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return lines
}

// Encode returns events as lines, numbered from 1, with nothing redacted.
func Encode(t testing.TB, events ...event.Event) []byte {
	t.Helper()
	e := event.NewEncoder(Stamp, nil, 0)
	var lines []byte
	for i := range events {
		var err error
		if lines, err = e.Append(lines, &events[i], uint64(i+1)); err != nil {
			t.Fatalf("encode: %v", err)
		}
	}
	return lines
}

// Golden validates the body of each line against schema and compares all lines,
// indented for people, with the golden file; -update writes it.
func Golden(t testing.TB, file, schema string, lines []byte) {
	t.Helper()
	Validate(t, schema, lines)
	var got bytes.Buffer
	for line := range bytes.Lines(lines) {
		if err := json.Indent(&got, bytes.TrimSpace(line), "", "  "); err != nil {
			t.Fatalf("indent: %v\n%s", err, line)
		}
		got.WriteByte('\n')
	}
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

// Validate checks the body of each line against the collector's schema.
func Validate(t testing.TB, schema string, lines []byte) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatalf("schema is not JSON: %v", err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("body.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("body.json")
	if err != nil {
		t.Fatalf("schema: %v", err)
	}
	for line := range bytes.Lines(lines) {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			t.Fatalf("line is not JSON: %v\n%s", err, line)
		}
		ev := v.(map[string]any)
		body, ok := ev[ev["kind"].(string)]
		if !ok {
			t.Fatalf("no body under the kind: %s", line)
		}
		if err := s.Validate(body); err != nil {
			t.Errorf("%v\n%s", err, line)
		}
	}
}
