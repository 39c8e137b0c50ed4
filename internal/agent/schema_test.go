package agent

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rea-agent/rea/internal/redact"
)

var update = flag.Bool("update", false, "write generated files instead of comparing with them")

func compileEventSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := EventSchema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("events.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("events.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, line []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		t.Fatalf("not JSON: %v\n%s", err, line)
	}
	return s.Validate(v)
}

// Every collector's golden events, of both systems, are lines of the whole schema.
func TestGoldenEventsFollowTheSchema(t *testing.T) {
	s := compileEventSchema(t)
	files, err := filepath.Glob("../collect/*/testdata/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	systems := map[string]int{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		events := json.NewDecoder(bytes.NewReader(text))
		for n := 1; events.More(); n++ {
			var line json.RawMessage
			if err := events.Decode(&line); err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			if err := validate(t, s, line); err != nil {
				t.Errorf("%s, event %d: %v", f, n, err)
			}
		}
		systems[filepath.Base(f)]++
	}
	for _, system := range []string{"linux.golden", "windows.golden"} {
		if c := Default(); systems[system] < len(sources(&c, redact.New(redact.Options{}), nil))-1 { // the event log is on one of them
			t.Errorf("only %d collectors have a %s", systems[system], system)
		}
	}
}

func TestTheSchemaRefusesWhatIsNoEvent(t *testing.T) {
	const envelope = `"v":1,"time":"2026-11-23T10:11:12Z","node":"n","hostname":"h","stream":"7f3a00000000000000000000000000c1","seq":1`
	s := compileEventSchema(t)
	for name, c := range map[string]struct {
		line string
		good bool
	}{
		"a gap":                   {`{` + envelope + `,"kind":"gap","gap":{"cause":"queue_full","count":3}}`, true},
		"a body under another":    {`{` + envelope + `,"kind":"gap","agent":{"action":"start"}}`, false},
		"two bodies":              {`{` + envelope + `,"kind":"gap","gap":{"cause":"queue_full","count":3},"agent":{"action":"start"}}`, false},
		"a kind nobody knows":     {`{` + envelope + `,"kind":"weather","weather":{}}`, false},
		"a field nobody knows":    {`{` + envelope + `,"kind":"gap","gap":{"cause":"queue_full","count":3,"colour":"red"}}`, false},
		"no number":               {`{"v":1,"time":"2026-11-23T10:11:12Z","node":"n","hostname":"h","stream":"7f3a00000000000000000000000000c1","kind":"agent","agent":{"action":"start"}}`, false},
		"a time that is no time":  {strings.Replace(`{`+envelope+`,"kind":"agent","agent":{"action":"start"}}`, "11-23T", "13-23T", 1), false},
		"an agent event":          {`{` + envelope + `,"kind":"agent","agent":{"action":"start"}}`, true},
		"an action nobody knows":  {`{` + envelope + `,"kind":"agent","agent":{"action":"sing"}}`, false},
		"another schema version":  {strings.Replace(`{`+envelope+`,"kind":"agent","agent":{"action":"start"}}`, `"v":1`, `"v":2`, 1), false},
		"a gap that lacks events": {`{` + envelope + `,"kind":"gap","gap":{"cause":"queue_full","count":0}}`, false},
	} {
		if err := validate(t, s, []byte(c.line)); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// docs/events.md is generated from the schemas.
func TestDocsAreGeneratedFromTheSchemas(t *testing.T) {
	const file, begin, end = "../../docs/events.md", "<!-- begin generated -->\n", "<!-- end generated -->"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks its markers", file)
	}
	want := before + begin + eventTables(t) + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, string(page)); d != "" {
		t.Errorf("%s is not what the schemas say; go test ./internal/agent -run Docs -update\n%s", file, d)
	}
}

// A field is what a schema says of one member.
type field struct {
	Type        any
	Description string
	Unit        string   `json:"x-unit"`
	OTel        string   `json:"x-otel"`
	ECS         string   `json:"x-ecs"`
	OS          []string `json:"x-os"`
	Properties  map[string]*field
	Items       *field
	Enum        []any
}

func eventTables(t *testing.T) string {
	t.Helper()
	text, err := EventSchema()
	if err != nil {
		t.Fatal(err)
	}
	var root field
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	kinds, _ := bodies()
	envelope := field{Properties: maps.Clone(root.Properties)}
	for _, k := range kinds {
		delete(envelope.Properties, string(k))
	}
	var b strings.Builder
	b.WriteString("\n## Envelope\n\n")
	table(t, &b, &envelope)
	for _, k := range kinds {
		f := root.Properties[string(k)]
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", k, f.Description)
		table(t, &b, f)
	}
	b.WriteByte('\n')
	return b.String()
}

func table(t *testing.T, b *strings.Builder, f *field) {
	t.Helper()
	b.WriteString("| field | type | unit | meaning | OpenTelemetry | ECS |\n|---|---|---|---|---|---|\n")
	rows(t, b, "", f)
}

func rows(t *testing.T, b *strings.Builder, prefix string, f *field) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(f.Properties)) {
		p := f.Properties[name]
		if p.Description == "" {
			t.Errorf("%s%s has no description", prefix, name)
		}
		meaning := strings.ReplaceAll(p.Description, "|", `\|`)
		if len(p.OS) > 0 {
			meaning += " (" + strings.Join(p.OS, ", ") + " only)"
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s | %s | %s |\n", prefix, name, typeName(p), p.Unit, meaning, code(p.OTel), code(p.ECS))
		rows(t, b, prefix+name+".", p)
		if p.Items != nil {
			rows(t, b, prefix+name+"[].", p.Items)
		}
	}
}

func typeName(f *field) string {
	switch v := f.Type.(type) {
	case string:
		if f.Items != nil {
			return "list of " + typeName(f.Items) + "s"
		}
		return v
	case nil:
		return "constant"
	default:
		return fmt.Sprint(v)
	}
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
