package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample has a key of each type.
type sample struct {
	On       bool
	Port     int
	Wait     time.Duration
	Size     int64
	Name     string
	File     string
	Server   string
	Listen   string
	Proxy    string
	Mode     string
	Channels []string
	Backoff  Range
	Cores    int
}

func newSample() *sample {
	return &sample{
		Port: 9100, Wait: time.Second, Size: 64 << 20, Name: "auto", File: "/var/log/rea.ndjson", Listen: "127.0.0.1:8443",
		Mode: "stdout", Channels: []string{"System"}, Backoff: Range{500 * time.Millisecond, 5 * time.Second}, Cores: 1,
	}
}

func (s *sample) spec() Spec {
	noBlank := func(s string) error {
		if strings.ContainsAny(s, " \t") {
			return errors.New("holds a blank")
		}
		return nil
	}
	return Spec{
		Env: "REA_", NotEnv: "REA_SERVER_",
		Keys: []Key{
			{Name: "agent.name", Usage: "A name.", Value: Text(&s.Name, "a name", noBlank)},
			{Name: "agent.wait_ms", Usage: "A time.", Value: Millis(&s.Wait, time.Millisecond, time.Minute)},
			{Name: "sources.channels", Usage: "Some names.", Value: Strings(&s.Channels, "a list of names", noBlank)},
			{Name: "sources.cpu.cores", Usage: "How many.", Value: Int(&s.Cores, 1, 64)},
			{Name: "status.enabled", Usage: "On.", Value: Bool(&s.On)},
			{Name: "status.port", Usage: "A port.", Value: Int(&s.Port, 1, 65535)},
			{Name: "status.listen", Usage: "Where.", Value: Address(&s.Listen)},
			{Name: "logging.mode", Usage: "Where to.", Value: Enum(&s.Mode, "stdout", "file").Refuse("syslog", "is not in this version")},
			{Name: "logging.file_path", Usage: "A file.", Value: Path(&s.File, "the path of a file")},
			{Name: "logging.rotate_bytes", Usage: "A size.", Value: Bytes(&s.Size, 1<<10, 1<<40)},
			{Name: "networking.endpoint", Usage: "A server.", Value: URL(&s.Server, "https://host:port", "https")},
			{Name: "networking.proxy", Usage: "A proxy.", Secret: true, Value: URL(&s.Proxy, "http://host:port", "http")},
			{Name: "networking.backoff_ms", Usage: "A pause.", Value: MillisRange(&s.Backoff, 1, time.Hour)},
		},
		Validate: func() []Conflict {
			if s.On && s.Server == "" {
				return []Conflict{{[]string{"status.enabled", "networking.endpoint"}, "there is nothing to tell of", "set endpoint in [networking]"}}
			}
			return nil
		},
	}
}

func write(t testing.TB, data string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rea.toml")
	if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestBadFiles loads every testdata/*.toml and compares what it is told.
func TestBadFiles(t *testing.T) {
	t.Chdir("testdata")
	files, err := filepath.Glob("*.toml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(file, ".toml"), func(t *testing.T) {
			_, err := newSample().spec().Load(Sources{File: file})
			if err == nil {
				t.Fatal("no problem was found")
			}
			golden(t, strings.TrimSuffix(file, ".toml")+".golden", err.Error()+"\n")
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
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
		t.Error(diff)
	}
}

func TestHigherLayersGoBefore(t *testing.T) {
	for _, c := range []struct {
		key, file, env, flag          string // as each layer writes the value
		byDefault, byFile, byEnv, top string // as it is shown then
	}{
		{"agent.name", `"f"`, "e", "a", "auto", "f", "e", "a"},
		{"agent.wait_ms", "2", "3", "4", "1000", "2", "3", "4"},
		{"sources.channels", `["F", "G"]`, "E, D", "A", "System", "F,G", "E,D", "A"},
		{"sources.cpu.cores", "2", "3", "4", "1", "2", "3", "4"},
		{"status.enabled", "true", "false", "true", "false", "true", "false", "true"},
		{"status.port", "0x10", "3", "4", "9100", "16", "3", "4"},
		{"status.listen", `"f:1"`, "e:1", ":1", "127.0.0.1:8443", "f:1", "e:1", ":1"},
		{"logging.mode", `"file"`, "stdout", "file", "stdout", "file", "stdout", "file"},
		{"logging.file_path", `'C:\f'`, "/e", "a", "/var/log/rea.ndjson", `C:\f`, "/e", "a"},
		{"logging.rotate_bytes", `"2 MiB"`, "3MB", "4096", "64MiB", "2MiB", "3000000", "4KiB"},
		{"networking.endpoint", `"https://f"`, "https://e:1", "https://[::1]:1", "", "https://f", "https://e:1", "https://[::1]:1"},
		{"networking.proxy", `"http://u:p@f"`, "http://e", "", "", "http://u:p@f", "http://e", ""},
		{"networking.backoff_ms", `"1..2"`, "3..4", "5..5", "500..5000", "1..2", "3..4", "5..5"},
	} {
		t.Run(c.key, func(t *testing.T) {
			section, leaf := split(c.key)
			file := write(t, "["+section+"]\n"+leaf+" = "+c.file+"\n")
			variable := "REA_" + strings.ToUpper(strings.ReplaceAll(c.key, ".", "_"))
			environ := []string{"PATH=/bin", variable + "=" + c.env, "REA_SERVER_X=1"}
			flags := []Arg{{Key: c.key, Flag: "--" + c.key, Text: c.flag}}
			for _, layer := range []struct {
				sources      Sources
				want, origin string
			}{
				{Sources{}, c.byDefault, "default"},
				{Sources{File: file}, c.byFile, file + ":2"},
				{Sources{File: file, Environ: environ}, c.byEnv, variable},
				{Sources{File: file, Environ: environ, Args: flags}, c.top, "--" + c.key},
			} {
				spec := newSample().spec()
				spec.Validate = nil
				loaded, err := spec.Load(layer.sources)
				if err != nil {
					t.Fatal(err)
				}
				for _, k := range spec.Keys {
					if k.Name == c.key && k.Value.String() != layer.want {
						t.Errorf("%s: %s, want %s", layer.origin, k.Value, layer.want)
					}
				}
				if got := loaded.Origin(c.key).String(); got != layer.origin {
					t.Errorf("from %s, want %s", got, layer.origin)
				}
			}
		})
	}
}

func TestTheFileIsNamedByFlagThenVariableThenDefault(t *testing.T) {
	one, two, three := write(t, "status.port = 1"), write(t, "status.port = 2"), write(t, "status.port = 3")
	for _, c := range []struct {
		name    string
		sources Sources
		want    int
	}{
		{"flag", Sources{File: one, Environ: []string{"REA_CONFIG=" + two}, DefaultFile: three}, 1},
		{"variable", Sources{Environ: []string{"REA_CONFIG=" + two}, DefaultFile: three}, 2},
		{"empty variable", Sources{Environ: []string{"REA_CONFIG="}, DefaultFile: three}, 3},
		{"default", Sources{DefaultFile: three}, 3},
		{"default that is not there", Sources{DefaultFile: three + ".none"}, 9100},
		{"none", Sources{}, 9100},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSample()
			if _, err := s.spec().Load(c.sources); err != nil {
				t.Fatal(err)
			}
			if s.Port != c.want {
				t.Errorf("port %d, want %d", s.Port, c.want)
			}
		})
	}
}

func TestFilesThatCannotBeReadAreTold(t *testing.T) {
	folder := t.TempDir()
	locked := write(t, "")
	if err := os.Chmod(locked, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, file, want string }{
		{"missing", filepath.Join(folder, "none.toml"), "there is no such file"},
		{"folder", folder, "this is a folder"},
		{"large", write(t, strings.Repeat("#\n", 1<<19+1)), "larger than 1 MiB"},
		{"locked", locked, "may not be read"},
		{"UTF-16 without a mark", write(t, "a\x00=\x00"), "UTF-16 without a mark"},
		{"half of UTF-16", write(t, "\xff\xfea\x00b"), "begins like UTF-16 and is not"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSample()
			s.On = true // a conflict, of which nothing is said where the file is not known
			var err error
			load := func() { _, err = s.spec().Load(Sources{File: c.file}) }
			if c.name == "locked" {
				unprivileged(t, load)
			} else {
				load()
			}
			var problems Problems
			if !errors.As(err, &problems) || len(problems) != 1 {
				t.Fatalf("%d problems: %v", len(problems), err)
			}
			if !strings.Contains(err.Error(), c.file+": ") || !strings.Contains(err.Error(), c.want) || problems[0].Fix == "" {
				t.Error(err)
			}
		})
	}
}

func TestEncodingsOfWindowsAreRead(t *testing.T) {
	text := "[agent]\r\nname = \"Zoë\" # é\r\n"
	wide := func(high bool) string {
		var b strings.Builder
		for _, r := range "\ufeff" + text { // all of the basic plane
			pair := []byte{byte(r), byte(r >> 8)}
			if high {
				pair[0], pair[1] = pair[1], pair[0]
			}
			b.Write(pair)
		}
		return b.String()
	}
	for name, data := range map[string]string{
		"UTF-8": text, "UTF-8 with a mark": "\ufeff" + text, "UTF-16LE": wide(false), "UTF-16BE": wide(true),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSample()
			loaded, err := s.spec().Load(Sources{File: write(t, data)})
			if err != nil {
				t.Fatal(err)
			}
			if o := loaded.Origin("agent.name"); s.Name != "Zoë" || o.Line != 2 || o.Column != 8 {
				t.Errorf("%q at %d:%d", s.Name, o.Line, o.Column)
			}
		})
	}
}

func TestRelativePathsOfAFileBelongToItsFolder(t *testing.T) {
	file := write(t, "logging.file_path = 'logs/x'")
	s := newSample()
	if _, err := s.spec().Load(Sources{File: file}); err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(file), "logs", "x"); s.File != want {
		t.Errorf("%s, want %s", s.File, want)
	}
}

func TestVariablesAndFlagsAreToldLikeFiles(t *testing.T) {
	_, err := newSample().spec().Load(Sources{
		Environ: []string{"REA_STATUS_PROT=1", "REA_STATUS_ENABLED=maybe", "REA_XYZZY=1", "REA_NETWORKING_PROXY=ftp://me:secret@host"},
		Args:    []Arg{{"status.port", "70000", "--status-port"}, {"agent.wait_ms", "10s", "--agent.wait-ms"}, {"agent.name", "a\tb\x1b[31m", "--agent.name"}},
	})
	if err == nil {
		t.Fatal("no problem was found")
	}
	golden(t, "testdata/layers.golden", err.Error()+"\n")
}

func TestAConflictIsShownWhereItWasWritten(t *testing.T) {
	for _, c := range []struct {
		name    string
		sources Sources
		want    string
	}{
		{"file", Sources{File: write(t, "[status]\nenabled = true\n")}, ":2:11: status.enabled: there is nothing"},
		{"variable", Sources{Environ: []string{"REA_STATUS_ENABLED=1"}}, "REA_STATUS_ENABLED: status.enabled: there is nothing"},
		{"flag", Sources{Args: []Arg{{"status.enabled", "true", "--on"}}}, "--on: status.enabled: there is nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := newSample().spec().Load(c.sources); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestAConflictWithABrokenKeyIsNotTold(t *testing.T) {
	for name, text := range map[string]string{
		"wrong value":     "[status]\nenabled = true\n[networking]\nendpoint = 1\n",
		"not TOML":        "[status]\nenabled = true\n[networking]\nendpoint = https://x\n",
		"unknown key":     "[status]\nenabled = true\n[networking]\nendpiont = 'https://x'\n",
		"unknown section": "[status]\nenabled = true\n[netwrking]\nendpoint = 'https://x'\n",
		"wrong section":   "[status]\nenabled = true\nendpoint = 'https://x'\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newSample().spec().Load(Sources{File: write(t, text)})
			if problems, ok := errors.AsType[Problems](err); !ok || len(problems) != 1 {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestManyProblemsAreBounded(t *testing.T) {
	_, err := newSample().spec().Load(Sources{File: write(t, strings.Repeat("x = = 1\n", 1000))})
	if problems, ok := errors.AsType[Problems](err); !ok || len(problems) != maxProblems+1 {
		t.Errorf("%d problems", len(problems))
	}
}

func TestShow(t *testing.T) {
	t.Chdir("testdata")
	loaded, err := newSample().spec().Load(Sources{
		File:    "good/show.toml",
		Environ: []string{"REA_NETWORKING_PROXY=http://me:secret@proxy:3128"},
		Args:    []Arg{{"status.port", "9200", "--status-port"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var text, short, js bytes.Buffer
	if err := errors.Join(loaded.Show(&text, true), loaded.Show(&short, false), loaded.ShowJSON(&js)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text.String()+js.String(), "secret") {
		t.Error("the secret is shown")
	}
	golden(t, "show.golden", text.String())
	golden(t, "show.json.golden", js.String())

	for _, shown := range []string{text.String(), short.String()} {
		if _, err := newSample().spec().Load(Sources{File: write(t, shown)}); err != nil {
			t.Errorf("what is shown does not load: %v", err)
		}
	}
	if strings.Contains(short.String(), "#") {
		t.Error("origins are shown that nobody asked for")
	}
}

func TestSchemaHoldsGoodFilesAndRefusesBadOnes(t *testing.T) {
	var b bytes.Buffer
	if err := newSample().spec().Schema(&b, "sample"); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/schema.golden", b.String())
	doc, err := jsonschema.UnmarshalJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("sample.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("sample.json")
	if err != nil {
		t.Fatal(err)
	}
	for text, good := range map[string]bool{
		`{"status":{"enabled":true,"port":1},"logging":{"rotate_bytes":"64MiB"}}`: true,
		`{"sources":{"channels":["a"],"cpu":{"cores":2}}}`:                        true,
		`{"status":{"port":0}}`:           false,
		`{"status":{"prot":1}}`:           false,
		`{"logging":{"mode":"syslog"}}`:   false,
		`{"networking":{"backoff_ms":5}}`: false,
	} {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("\xff\xfe[\x00a\x00]\x00"))
	name := filepath.Join(f.TempDir(), "fuzz.toml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s := newSample()
		_, err := s.spec().Load(Sources{File: name})
		if err == nil {
			if s.Port < 1 || s.Port > 65535 || s.Backoff.Min > s.Backoff.Max || s.Size < 1<<10 {
				t.Errorf("took %+v", s)
			}
			return
		}
		problems, ok := errors.AsType[Problems](err)
		if !ok || len(problems) == 0 || len(problems) > maxProblems+1 {
			t.Fatalf("%d problems: %v", len(problems), err)
		}
		for _, p := range problems {
			if p.What == "" || p.Where.Line < 0 || p.Where.Line > 0 && p.Where.Column < 1 {
				t.Errorf("%+v", p)
			}
		}
		if text := err.Error(); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }) {
			t.Errorf("%q can act on a terminal", text)
		}
	})
}

// FuzzFlags sees that whatever a flag sets can be shown and read back.
func FuzzFlags(f *testing.F) {
	for i, text := range []string{"a'b\"c\\", "10s", "a, b", "7", "true", "65535", ":1", "file", "/a b", "9KiB", "https://[::1]:1", "http://u:p@h", "1..2"} {
		f.Add(byte(i), text)
	}
	f.Fuzz(func(t *testing.T, which byte, text string) {
		was, again := newSample().spec(), newSample().spec()
		was.Validate, again.Validate = nil, nil
		k := was.Keys[int(which)%len(was.Keys)]
		if _, err := was.Load(Sources{Args: []Arg{{k.Name, text, "--x"}}}); err != nil || k.Secret || k.Value.IsPath() && !absolute(text) {
			return
		}
		loaded, err := again.Load(Sources{File: write(t, k.Name+" = "+k.Value.Literal())})
		if err != nil {
			t.Fatalf("%s: %v", k.Name, err)
		}
		if got := again.Keys[int(which)%len(was.Keys)].Value.Literal(); got != k.Value.Literal() || loaded.Origin(k.Name).Layer != FromFile {
			t.Errorf("%s: %s became %s", k.Name, k.Value.Literal(), got)
		}
	})
}

// What was read once may be half written the next time, or be a pipe by now.
func TestAFileThatIsReadAgainHasToBeWhole(t *testing.T) {
	dir := t.TempDir()
	file, empty := filepath.Join(dir, "whole.toml"), filepath.Join(dir, "empty.toml")
	for name, text := range map[string]string{file: "# nothing but defaults\n", empty: ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ name, want string }{
		{file, ""},
		{empty, "the file is empty: somebody may be about to write it"},
		{os.DevNull, "this is no file that can be read again"},
		{dir, "this is a folder"},
		{filepath.Join(dir, "gone.toml"), "there is no such file"},
	} {
		_, err := newSample().spec().Load(Sources{File: c.name, Again: true})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if c.name == dir {
			continue
		}
		if _, err := newSample().spec().Load(Sources{File: c.name}); (err == nil) != (c.name != filepath.Join(dir, "gone.toml")) {
			t.Errorf("%s, the first time: %v", c.name, err)
		}
	}
}
