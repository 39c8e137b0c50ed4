package redact

import (
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of docs/redaction.md instead of comparing with them")

// The tables of docs/redaction.md are made of those that the code uses.
func TestDocsTellOfEveryFieldAndKind(t *testing.T) {
	const file, begin, end = "../../docs/redaction.md", "<!-- begin generated -->\n", "<!-- end generated -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(text), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the tables", file)
	}
	want := head + begin + tables() + end + tail
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s is not up to date: go test ./internal/redact -run Docs -update", file)
	}
}

func tables() string {
	var b strings.Builder
	b.WriteString("\n### Fields\n\n| kind | accounts | command lines | paths |\n|---|---|---|---|\n")
	for _, kind := range slices.Sorted(maps.Keys(fields)) {
		if len(fields[kind]) == 0 {
			continue
		}
		b.WriteString("| `" + kind + "` |")
		for _, class := range []Class{Account, Command, Path} {
			var names []string
			for name, c := range fields[kind] {
				if c == class {
					names = append(names, "`"+name+"`")
				}
			}
			slices.Sort(names)
			b.WriteString(" " + strings.Join(names, " ") + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\n### Tokens by their prefix\n\n| kind | begins with |\n|---|---|\n")
	prefixes := map[string][]string{}
	for _, each := range tokens {
		prefixes[each.kind] = append(prefixes[each.kind], "`"+each.prefix+"`")
	}
	for _, kind := range slices.Sorted(maps.Keys(prefixes)) {
		b.WriteString("| `" + kind + "` | " + strings.Join(prefixes[kind], " ") + " |\n")
	}
	b.WriteString("\n### Names behind which a value is a secret\n\nCompared without case, `-`, `_` and space, at the end of longer names too.\n\n| kind | names |\n|---|---|\n")
	byKind := map[string][]string{}
	for _, n := range names {
		note := "`" + n.name + "`"
		switch {
		case n.url:
			note += " (in a URL)"
		case n.strict:
			note += " (where the value looks random)"
		case n.line:
			note += " (header, to the end of the line)"
		case n.whole:
			note += " (as a word)"
		}
		byKind[n.kind] = append(byKind[n.kind], note)
	}
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		b.WriteString("| `" + kind + "` | " + strings.Join(byKind[kind], ", ") + " |\n")
	}
	b.WriteString("\n### Programs whose short flags are known\n\n")
	for i, name := range slices.Sorted(maps.Keys(programs)) {
		b.WriteString([]string{"", ", "}[min(i, 1)] + "`" + name + "`")
	}
	b.WriteString("\n\n")
	return b.String()
}
