package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// A tried is a program whose commands tell how they were called.
type tried struct {
	*Program
	out, err bytes.Buffer

	file     string
	keys     []string
	json     bool
	names    []string
	limit    int
	span     time.Duration
	failWith error
}

func newTried() *tried {
	x := &tried{limit: 10}
	tell := func(name string) func(context.Context, *Invocation) error {
		return func(_ context.Context, in *Invocation) error {
			fmt.Fprintf(in.Stdout, "%s args=%q file=%q keys=%q json=%v names=%q limit=%d for=%v\n",
				name, in.Args, x.file, x.keys, x.json, x.names, x.limit, x.span)
			return x.failWith
		}
	}
	key := func(name, arg string, choices ...string) Flag {
		return Flag{Name: name, Arg: arg, Usage: "Sets " + name + ". And more.", Choices: choices, Set: func(written, s string) error {
			x.keys = append(x.keys, written+"="+s)
			return nil
		}}
	}
	config := File(&x.file, "config", "The file of the configuration.")
	config.Short = "c"
	x.Program = &Program{
		Name: "rea-test", Summary: "tries its command line", Default: "run",
		Stdout: &x.out, Stderr: &x.err,
		Flags: []Flag{config, key("enable-networking", "")},
		Keys:  []Flag{key("networking.queue_dir", "PATH"), key("logging.mode", "CHOICE", "stdout", "file"), key("status.enabled", "", "true", "false")},
		Commands: []*Command{
			{Name: "run", Summary: "collect and deliver", Run: tell("run")},
			{
				Name: "events", Summary: "show events", Args: "[HOST …]", About: "Shows what was received, the newest last.",
				Flags: []Flag{
					Switch(&x.json, "json", "One JSON object a line."),
					List(&x.names, "kind", "KIND", "Only these kinds."),
					Number(&x.limit, "limit", 1, 1000, "How many."),
					Duration(&x.span, "since", "How far back; a long sentence that has to go on in another line because it says so very much."),
				},
				Examples: []Example{{"events --kind cpu,memory --json", "two kinds, for programs"}},
				Run:      tell("events"),
			},
			{Name: "config", Summary: "look at the configuration", Commands: []*Command{
				{Name: "check", Summary: "find what is wrong", Run: tell("check")},
				{Name: "show", Summary: "show what is in force", Flags: []Flag{Switch(&x.json, "json", "As JSON.")}, Run: tell("show")},
			}},
		},
		Examples: []Example{{"", "everything to standard output"}, {"-c rea.toml --enable-networking", "and to a server"}},
	}
	return x
}

func (x *tried) main(line string) int { return x.Main(context.Background(), strings.Fields(line)) }

func TestTheTreeIsSound(t *testing.T) {
	if err := newTried().Check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Program){
		"default":  func(p *Program) { p.Default = "none" },
		"no run":   func(p *Program) { p.Commands[0].Run = nil },
		"one name": func(p *Program) { p.Commands[0].Flags = []Flag{Text(new(string), "json", "FILE", "")} },
	} {
		x := newTried()
		if spoil(x.Program); x.Check() == nil {
			t.Errorf("%s: nothing found", name)
		}
	}
}

func TestFlagsStandAnywhereAndAreSpeltAsPeopleLike(t *testing.T) {
	const nothing = `args=[] file="" keys=[] json=false names=[] limit=10 for=0s`
	for line, want := range map[string]string{
		"":                             "run " + nothing,
		"run":                          "run " + nothing,
		"config check":                 "check " + nothing,
		"--config f run":               `run args=[] file="f" keys=[] json=false names=[] limit=10 for=0s`,
		"-config=f":                    `run args=[] file="f" keys=[] json=false names=[] limit=10 for=0s`,
		"-c f -c g":                    `run args=[] file="g" keys=[] json=false names=[] limit=10 for=0s`,
		"-enable_networking":           `run args=[] file="" keys=["--enable_networking=true"] json=false names=[] limit=10 for=0s`,
		"--enable-networking=false":    `run args=[] file="" keys=["--enable-networking=false"] json=false names=[] limit=10 for=0s`,
		"--networking.queue-dir -":     `run args=[] file="" keys=["--networking.queue-dir=-"] json=false names=[] limit=10 for=0s`,
		"--networking.queue-dir=":      `run args=[] file="" keys=["--networking.queue-dir="] json=false names=[] limit=10 for=0s`,
		"--json config show":           `show args=[] file="" keys=[] json=true names=[] limit=10 for=0s`,
		"config --json=0 show":         `show args=[] file="" keys=[] json=false names=[] limit=10 for=0s`,
		"--limit 5 events a -- --json": `events args=["a" "--json"] file="" keys=[] json=false names=[] limit=5 for=0s`,
		"events - --kind a,b --kind c": `events args=["-"] file="" keys=[] json=false names=["a" "b" "c"] limit=10 for=0s`,
		"events run --since 90m":       `events args=["run"] file="" keys=[] json=false names=[] limit=10 for=1h30m0s`,
	} {
		x := newTried()
		if code := x.main(line); code != OK || x.out.String() != want+"\n" || x.err.Len() > 0 {
			t.Errorf("%q: %d %s%s", line, code, &x.out, &x.err)
		}
	}
}

func TestMistakesSayWhatWasMeant(t *testing.T) {
	for line, want := range map[string]string{
		"rnu":                      "rea-test: there is no command \"rnu\"\n  did you mean rea-test run?\n",
		"config chekc":             "rea-test: there is no command \"chekc\"\n  did you mean rea-test config check?\n",
		"frobnicate":               "rea-test: there is no command \"frobnicate\"\n  see rea-test --help\n",
		"--confg=x":                "rea-test: there is no flag --confg\n  did you mean --config?\n",
		"--networking_queue_dir x": "rea-test: there is no flag --networking_queue_dir\n  did you mean --networking.queue-dir?\n",
		"--xyzzy":                  "rea-test: there is no flag --xyzzy\n  see rea-test --help\n",
		"run --json":               "rea-test: there is no flag --json\n  see rea-test --help\n",
		"run here":                 "rea-test: rea-test run takes no argument \"here\"\n  see rea-test run --help\n",
		"--config":                 "rea-test: --config wants a value\n  write -c, --config FILE\n",
		"--config --json":          "rea-test: --config wants a value\n  write -c, --config FILE\n",
		"events --limit 0":         "rea-test: --limit wants an integer from 1 to 1000\n",
		"events --limit many":      "rea-test: --limit wants an integer from 1 to 1000\n",
		"events --since yesterday": "rea-test: --since wants a time like 90s, 5m or 24h\n",
		"events --json=maybe":      "rea-test: --json wants true or false\n",
		"completion tcsh":          "rea-test: name one shell: bash, zsh, fish or powershell\n  write rea-test completion bash\n",
		"--\x1b[31mred":            "rea-test: there is no flag --\\x1b[31mred\n  see rea-test --help\n",
		"--networking.queue_dir":   "rea-test: --networking.queue_dir wants a value\n  write --networking.queue_dir PATH\n",
	} {
		x := newTried()
		if code := x.main(line); code != Usage || x.err.String() != want || x.out.Len() > 0 {
			t.Errorf("%q: %d %s%s", line, code, &x.out, &x.err)
		}
	}
}

func TestHelp(t *testing.T) {
	for line, file := range map[string]string{
		"--help": "top", "help": "top", "-h": "top", "--help --config x": "top",
		"events --help": "events", "help events": "events", "--help events extra --json": "events", "run --json -h": "run",
		"help config": "config", "config --help": "config", "config show -h": "show",
		"help completion": "completion", "keys": "keys",
	} {
		x := newTried()
		if code := x.main(line); code != OK || x.err.Len() > 0 {
			t.Errorf("%q: %d %s", line, code, &x.err)
		}
		golden(t, "help_"+file, x.out.String())
	}
}

func TestHelpThatNobodyAskedForIsAMistake(t *testing.T) {
	x := newTried()
	if code := x.main("config"); code != Usage || x.out.Len() > 0 || !strings.Contains(x.err.String(), "commands:") {
		t.Errorf("%d %s%s", code, &x.out, &x.err)
	}
	x = newTried()
	x.Default = ""
	if code := x.main(""); code != Usage || x.out.Len() > 0 || !strings.HasSuffix(x.err.String(), "rea-test: name a command\n") {
		t.Errorf("%d %s%s", code, &x.out, &x.err)
	}
}

func TestVersionTellsTheBuild(t *testing.T) {
	x := newTried()
	b := ReadBuild()
	if code := x.main("--version"); code != OK || x.out.String() != "rea-test "+b.String()+"\n" || b.Version == "" || b.Go == "" {
		t.Errorf("%d %s%s", code, &x.out, &x.err)
	}
	if s := (Build{"1.2.3", "0a1b2c3", "go1.26.0", "linux", "arm64"}).String(); s != "1.2.3 (0a1b2c3) go1.26.0 linux/arm64" {
		t.Error(s)
	}
}

func TestErrorsEndWithTheirCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{errors.New("open x: no"), Internal, "rea-test: open x: no\n"},
		{Fail(Config, errors.New("a.toml:1:1: x\n  fix: y"), ""), Config, "rea-test:\na.toml:1:1: x\n  fix: y\n"},
		{fmt.Errorf("start: %w", Fail(Unavailable, errors.New("no server"), "start one")), Unavailable, "rea-test: start: no server\n  start one\n"},
		{Fail(IO, io.ErrClosedPipe, ""), IO, "rea-test: io: read/write on closed pipe\n"},
	} {
		x := newTried()
		x.failWith = c.err
		if code := x.main("run"); code != c.code || x.err.String() != c.want {
			t.Errorf("%d %q", code, x.err.String())
		}
	}
}

func TestCompletionsAreMadeOfTheTree(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		x := newTried()
		if code := x.main("completion " + shell); code != OK {
			t.Fatal(x.err.String())
		}
		golden(t, "completion_"+shell, x.out.String())
		if path, err := exec.LookPath(shell); err == nil && shell != "powershell" {
			check := exec.Command(path, "-n")
			check.Stdin = &x.out
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s -n: %v\n%s", shell, err, out)
			}
		}
	}
}

func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	x := newTried()
	if code := x.main("completion bash"); code != OK {
		t.Fatal(x.err.String())
	}
	for line, want := range map[string]string{
		"":                         "run events config keys completion",
		"co":                       "config completion",
		"config ":                  "check show",
		"config show --js":         "--json",
		"--c":                      "--config",
		"-- --x":                   "",
		"completion z":             "zsh",
		"run --logging.mode ":      "stdout file",
		"run --logging.mode = f":   "file",
		"--networking.queue_dir ":  "",
		"--config x config s":      "show",
		"events --k":               "--kind",
		"--enable-networking conf": "config",
	} {
		script := x.out.String() + `COMP_WORDS=(rea-test`
		for word := range strings.SplitSeq(line, " ") {
			script += " " + quoted(word)
		}
		script += `); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _rea_test; echo "${COMPREPLY[*]}"`
		run := exec.Command(bash, "--norc", "-c", script)
		out, err := run.CombinedOutput()
		if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != want {
			t.Errorf("%q: %q, want %q (%v)", line, got, want, err)
		}
	}
}

func TestForeignTextIsHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"lab-7":                    "lab-7",
		"Zoë 日本 🙂":                 "Zoë 日本 🙂",
		`C:\x`:                     `C:\x`,
		"\x1b]0;title\a":           `\x1b]0;title\x07`,
		"a\nb\r\tc":                `a\nb\r\tc`,
		"\u202egnp.exe":            `\u202egnp.exe`,
		"\u200b\u00a0\u0085\ufeff": `\u200b\u00a0\u0085\ufeff`,
		"\xff\x9b":                 `\xff\x9b`,
		"\U000e0041":               `\U000e0041`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := EscapeLines("a\n\tb\x1b"); got != "a\n\tb\\x1b" {
		t.Errorf("%q", got)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("\x1b[31m\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Escape(s) {
			if !harmless(r) {
				t.Fatalf("%q left %q", s, r)
			}
		}
		if Columns(cut(Escape(s), 20)) > 20 {
			t.Errorf("%q is too wide", cut(Escape(s), 20))
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("--config x run -- y")
	f.Add("help config -json=1 --limit")
	f.Fuzz(func(t *testing.T, s string) {
		x := newTried()
		if code := x.Main(t.Context(), strings.Split(s, " ")); code != OK && code != Usage {
			t.Errorf("%q: %d %s", s, code, &x.err)
		}
	})
}

func TestTable(t *testing.T) {
	for _, c := range []struct {
		name  string
		width int
		style Style
		want  string
	}{
		{"as wide as it comes", 0, Style{}, "HOST   EVENTS  NOTE\n日本       12\na\\x1b       3  a long note that does not fit\n       100000  x\n"},
		{"cut to the terminal", 30, Style{}, "HOST   EVENTS  NOTE\n日本       12\na\\x1b       3  a long note th…\n       100000  x\n"},
		{"painted", 0, Style{on: true}, "\x1b[1mHOST   EVENTS  NOTE\x1b[0m\n日本       12\na\\x1b       3  a long note that does not fit\n       100000  x\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := NewTable("HOST", "EVENTS", "NOTE")
			table.Right, table.Width, table.Style = []int{1}, c.width, c.style
			table.Row("日本", "12")
			table.Row("a\x1b", "3", "a long note that does not fit")
			table.Row("", "100000", "x")
			var b bytes.Buffer
			if err := table.Write(&b); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOnlyTerminalsArePainted(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, w := range []io.Writer{file, &bytes.Buffer{}} {
		if IsTerminal(w) || Width(w) != 0 || StyleFor(w, func(string) string { return "" }).on {
			t.Errorf("%T is taken for a terminal", w)
		}
	}
	if terminal, err := os.Open("/dev/ptmx"); err == nil && runtime.GOOS != "windows" { // Wine shows it, as a file
		defer terminal.Close()
		for env, painted := range map[string]bool{"": true, "NO_COLOR=1": false, "TERM=dumb": false, "NO_COLOR=": true} {
			getenv := func(name string) string {
				value, _ := strings.CutPrefix(env, name+"=")
				if value == env {
					return ""
				}
				return value
			}
			if !IsTerminal(terminal) || StyleFor(terminal, getenv).on != painted {
				t.Errorf("a terminal with %q: painted is not %v", env, painted)
			}
		}
	}
	if got := (Style{on: true}).Red("x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("%q", got)
	}
	if got := (Style{}).Red("x"); got != "x" {
		t.Errorf("%q", got)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

func TestJSONIsEscapedForEyesAndMeansTheSame(t *testing.T) {
	const text = "a\u009b2J\u202eb\x7f\u200bc\U000e0041\ufffd é 中 \\n\n"
	line, err := json.Marshal(map[string]string{"name": text})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if _, err := (jsonEscaper{&out}).Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || back["name"] != text {
		t.Errorf("%v: %q", err, back)
	}
	if i := strings.IndexFunc(strings.TrimSuffix(out.String(), "\n"), func(r rune) bool { return !harmless(r) }); i >= 0 {
		t.Errorf("%q", out.String()[i:])
	}
	if w := ForTerminal(&out); w != io.Writer(&out) {
		t.Errorf("a pipe gets %T", w)
	}
}
