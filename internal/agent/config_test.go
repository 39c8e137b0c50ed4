package agent

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/config/configtest"
)

func specFor(goos string) config.Spec {
	c := defaults(goos, "")
	return c.Spec()
}

func TestConfigurationIsDocumented(t *testing.T) {
	linux, windows := specFor("linux"), specFor("windows")
	configtest.Docs(t, *update, "../../docs/configuration.md", "rea-agent", linux, windows)
	configtest.Example(t, "../../configs/agent.example.toml", func() config.Spec { return specFor("linux") })
}

func TestDefaultsAreRightByTheirOwnRules(t *testing.T) {
	for _, goos := range []string{"linux", "windows", "darwin"} {
		c, again := defaults(goos, ""), defaults(goos, "")
		var args []config.Arg
		for _, k := range c.Keys() {
			args = append(args, config.Arg{Key: k.Name, Flag: "--" + k.Name, Text: k.Value.String()})
		}
		if _, err := again.Spec().Load(config.Sources{Args: args}); err != nil {
			t.Error(goos, err)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Error(goos, diff)
		}
	}
}

func TestEveryKeyHasAVariableOfItsOwn(t *testing.T) {
	spec := specFor("linux")
	seen := map[string]string{spec.FileVariable(): "the file"}
	for _, k := range spec.Keys {
		v := spec.Variable(k.Name)
		if seen[v] != "" || strings.HasPrefix(v, spec.NotEnv) {
			t.Errorf("%s sets %s and %s", v, seen[v], k.Name)
		}
		seen[v] = k.Name
	}
}

func TestImpossibleCombinationsAreRefused(t *testing.T) {
	const https = "networking.endpoint=https://rea.example:8443"
	for _, c := range []struct{ name, set, want string }{
		{"networking without a server", "networking.enabled=true", "no server to send to"},
		{"networking without a queue", "networking.enabled=true " + https + " networking.queue_dir=", "the queue has no folder"},
		{"a file without a path", "logging.mode=file logging.file_path=", "it has no path"},
		{"nothing is kept", "logging.mode=none", "events would go nowhere"},
		{"a certificate without its key", "tls.client_cert=a", "no key of it"},
		{"a key without its certificate", "tls.client_key=a", "no certificate of it"},
		{"any server is believed", https + " tls.verify=false", "anybody could be the server"},
		{"a protocol of later", "networking.protocol=otlp", "not in this version"},
		{"plain HTTP", "networking.endpoint=http://127.0.0.1:1", "begins with http://"},
		{"the path of the server", "networking.endpoint=https://a/ingest", `write "https://a"`},
		{"a node with a blank", "agent.node_id=a/b", "cannot be the name of a node"},
		{"a pin that is none", "tls.spki_pins=abc", "is not the base64 of a SHA-256"},
		{"sending without a copy", "logging.mode=none networking.enabled=true " + https, ""},
		{"this machine is believed", "networking.endpoint=https://127.0.0.2:1 tls.verify=false", ""},
		{"this machine by name", "networking.endpoint=https://localhost:1 tls.verify=false", ""},
		{"not what only looks like it", "networking.endpoint=https://localhost.example:1 tls.verify=false", "anybody could be"},
		{"a pinned server is believed", https + " tls.verify=false tls.spki_pins=n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var args []config.Arg
			for set := range strings.FieldsSeq(c.set) {
				key, text, _ := strings.Cut(set, "=")
				args = append(args, config.Arg{Key: key, Flag: "--" + key, Text: text})
			}
			cfg := Default()
			_, err := cfg.Spec().Load(config.Sources{Args: args})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestPathsFollowTheSystem(t *testing.T) {
	for _, c := range []struct{ goos, programData, file, queue string }{
		{"linux", "", "/etc/rea/agent.toml", "/var/lib/rea/queue"},
		{"darwin", "", "/etc/rea/agent.toml", "/var/lib/rea/queue"},
		{"windows", "", `C:\ProgramData\REA\agent.toml`, `C:\ProgramData\REA\queue`},
		{"windows", `D:\Data`, `D:\Data\REA\agent.toml`, `D:\Data\REA\queue`},
	} {
		if got := configFile(c.goos, c.programData); got != c.file {
			t.Errorf("%s: %s", c.goos, got)
		}
		if got := defaults(c.goos, c.programData).Networking.QueueDir; got != c.queue {
			t.Errorf("%s: %s", c.goos, got)
		}
	}
}

func TestAPasswordOfAProxyIsNeverShown(t *testing.T) {
	c := Default()
	loaded, err := c.Spec().Load(config.Sources{Environ: []string{"REA_NETWORKING_PROXY=http://me:hunter2@proxy:1"}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := loaded.Show(&b, true); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "hunter2") || !strings.Contains(b.String(), "proxy:1") {
		t.Error(b.String())
	}
}
