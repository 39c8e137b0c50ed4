// Package house holds the plan of the code as a table and checks every file
// against it. docs/architecture.md tells the plan in words.
package house

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/rea-agent/rea"

// ground is what every room may stand on. It imports nothing of ours, but what
// rooms says, and at most one module of others each.
var ground = map[string]string{
	"internal/event":    "",
	"internal/wire":     "github.com/klauspost/compress",
	"internal/identity": "",
	"internal/metric":   "",
	"internal/trouble":  "",
	"internal/redact":   "",
	"internal/durable":  "golang.org/x/sys",
	"internal/access":   "golang.org/x/sys",
	"internal/confine":  "github.com/landlock-lsm/go-landlock",
	"internal/procfs":   "golang.org/x/sys",
	"internal/evtx":     "",
	"internal/near":     "",
	"internal/xpath":    "",
	"internal/config":   "github.com/pelletier/go-toml/v2",
	"internal/cli":      "golang.org/x/sys",
	"internal/service":  "golang.org/x/sys",
}

// A room may import these of ours; a name that ends in /* stands for all rooms below it.
var rooms = []struct{ room, may string }{
	{"internal/access", "durable"},
	{"internal/identity", "access durable"},
	{"internal/durable/durabletest", ""},
	{"internal/cli", "near"},
	{"internal/config", "durable near"},
	{"internal/service", "access"},
	{"internal/queue", "durable metric"},
	{"internal/collect", "event metric"},
	{"internal/config/configtest", "config"},
	{"internal/collect/collecttest", "collect event"},
	{"internal/redact/redacttest", ""},
	{"internal/collect/*", "collect event durable procfs metric xpath"},
	{"internal/ledger", "event durable"},
	{"internal/pipeline", "event metric trouble ledger redact"},
	{"internal/sink/*", "durable"},
	{"internal/deadletter", "durable"},
	{"internal/ship", "wire metric trouble queue"},
	{"internal/status", "metric"},
	{"internal/trust", "identity metric status trouble"},
	{"internal/enroll", "access durable identity metric status trouble wire"},
	{"internal/server/guard", "metric trouble"},
	{"internal/server/ingest", "wire metric trouble"},
	{"internal/server/store", "wire event durable"},
	{"internal/server/pki", "identity durable"},
	{"internal/server/registrar", "wire identity metric trouble server/pki"},
	{"internal/server/web", "event"},
	{"internal/agent", "collect collect/* pipeline ledger sink/* queue deadletter ship status trust enroll event wire identity metric trouble redact durable access confine config evtx xpath"},
	{"internal/server", "server/* status trust event wire identity metric trouble durable access config"},
	{"test/path", "collect collect/* pipeline queue ship event wire identity metric redact"},
	{"test/*", ""},
	{"packaging/windows/*", ""},
	{"test/windows/*", ""},
	{"cmd/rea-agent", "agent config service cli"},
	{"cmd/rea-server", "server config cli"},
}

// noRoom lists names that say nothing of what is inside.
var noRoom = []string{"util", "utils", "common", "types", "helpers", "misc", "base"}

// file is one Go file that is not a test.
type file struct {
	path, room string
	imports    []string
	comment    bool // has the package comment
	unsafe     bool
}

func TestImportsFollowThePlan(t *testing.T) {
	for _, f := range files(t) {
		modules := map[string]bool{}
		for _, imp := range f.imports {
			if ours, ok := strings.CutPrefix(imp, module+"/"); ok {
				if !allowed(f.room, ours) {
					t.Errorf("%s imports %s: the plan does not let %s do that", f.path, ours, f.room)
				}
			} else if strings.Contains(strings.Split(imp, "/")[0], ".") {
				modules[imp] = true
			}
		}
		own, isGround := ground[f.room]
		for imp := range modules {
			if isGround && (own == "" || imp != own && !strings.HasPrefix(imp, own+"/")) {
				t.Errorf("%s imports %s: %s stands on the standard library and %q", f.path, imp, f.room, own)
			}
		}
	}
}

func TestEveryRoomIsInThePlanAndSaysWhatItIs(t *testing.T) {
	comments := map[string]int{}
	for _, f := range files(t) {
		if _, ok := comments[f.room]; !ok {
			comments[f.room] = 0
		}
		if f.comment {
			comments[f.room]++
		}
		if f.unsafe && !strings.HasSuffix(f.path, "_windows.go") {
			t.Errorf("%s uses unsafe: only _windows.go files may", f.path)
		}
	}
	if len(comments) < 20 {
		t.Errorf("found %d rooms only: is the walk wrong?", len(comments))
	}
	for room, n := range comments {
		if n != 1 {
			t.Errorf("%s has %d package comments, want 1", room, n)
		}
		if slices.Contains(noRoom, path.Base(room)) {
			t.Errorf("%s: the name says nothing", room)
		}
		if _, ok := ground[room]; !ok && plan(room) == nil {
			t.Errorf("%s is not in the plan", room)
		}
	}
}

// allowed reports whether room may import the package at the path ours.
func allowed(room, ours string) bool {
	if ours == "internal/cli" && !strings.HasPrefix(room, "cmd/") {
		return false
	}
	for _, may := range plan(room) {
		if matches("internal/"+may, ours) {
			return true
		}
	}
	return false
}

// plan returns what room may import, or nil if the plan does not know it.
func plan(room string) []string {
	for _, r := range rooms {
		if matches(r.room, room) {
			return strings.Fields(r.may)
		}
	}
	return nil
}

func matches(pattern, name string) bool {
	if below, ok := strings.CutSuffix(pattern, "/*"); ok {
		return path.Dir(name) == below
	}
	return pattern == name
}

// files parses every Go file of the module that is not a test, whatever system
// it is for.
func files(t *testing.T) []file {
	t.Helper()
	root := filepath.Join("..", "..")
	var list []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "demo" || name == "bin") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f, err := parse(p)
		f.path, f.room = filepath.ToSlash(rel), filepath.ToSlash(filepath.Dir(rel))
		list = append(list, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func parse(p string) (file, error) {
	syntax, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return file{}, err
	}
	f := file{comment: syntax.Doc != nil && (strings.HasPrefix(syntax.Doc.Text(), "Package ") || strings.HasPrefix(syntax.Doc.Text(), "Command "))}
	for _, imp := range syntax.Imports {
		name, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			return f, err
		}
		f.imports = append(f.imports, name)
		f.unsafe = f.unsafe || name == "unsafe"
	}
	return f, nil
}
