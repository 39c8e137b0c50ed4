// Package configtest holds a program's configuration against its documentation:
// the tables are made from the keys, and the example file has every one of them.
package configtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rea-agent/rea/internal/config"
)

// Docs sees that the part of a Markdown file between the lines
//
//	<!-- keys of NAME -->
//	<!-- end of keys of NAME -->
//
// is what the keys say of themselves, or with update makes it so. The defaults
// of Windows are told where they differ.
func Docs(t *testing.T, update bool, file, name string, linux, windows config.Spec) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- keys of "+name+" -->\n", "<!-- end of keys of "+name+" -->\n"
	before, rest, ok := strings.Cut(string(data), begin)
	is, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the keys of %s", file, name)
	}
	want := tables(linux, windows)
	if is == want {
		return
	}
	if !update {
		t.Fatalf("%s does not tell of the keys of %s as they are; run its test with -update", file, name)
	}
	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func tables(linux, windows config.Spec) string {
	var b strings.Builder
	section := ""
	for i, k := range linux.Keys {
		at := strings.LastIndexByte(k.Name, '.')
		if s := k.Name[:at]; s != section {
			section = s
			fmt.Fprintf(&b, "\n### [%s]\n\n| key | value | default | meaning | variable and flag |\n|---|---|---|---|---|\n", s)
		}
		initial := code(k.Value.Literal())
		if other := windows.Keys[i].Value.Literal(); code(other) != initial {
			initial += ", on Windows " + code(other)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | `%s` `--%s` |\n", k.Name[at+1:], cell(k.Value.Want()), initial, cell(k.Usage),
			linux.Variable(k.Name), k.Name)
	}
	return b.String() + "\n"
}

func code(s string) string { return "`" + cell(s) + "`" }
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

var commentedOut = regexp.MustCompile(`(?m)^#(\[|[a-z_0-9]+ = )`)

// Example sees that a file loads as it is, and that with all that is commented
// out (by # without a space) it still does and has every key, with the default
// as its value unless that is empty. fresh makes a spec bound to defaults.
func Example(t *testing.T, file string, fresh func() config.Spec) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh().Load(config.Sources{File: file}); err != nil {
		t.Fatalf("as it is: %v", err)
	}
	full := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(full, commentedOut.ReplaceAll(data, []byte("$1")), 0o600); err != nil {
		t.Fatal(err)
	}
	spec, initial := fresh(), fresh()
	loaded, err := spec.Load(config.Sources{File: full})
	if err != nil {
		t.Fatalf("with all keys: %v", err)
	}
	for i, k := range spec.Keys {
		is, was := k.Value.Literal(), initial.Keys[i].Value.Literal()
		switch {
		case loaded.Origin(k.Name).Layer != config.FromFile:
			t.Errorf("%s is not in the example", k.Name)
		case is != was && was != `""` && was != "[]":
			t.Errorf("%s is %s in the example, and %s by default", k.Name, is, was)
		}
	}
}
