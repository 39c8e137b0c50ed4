package server

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/config/configtest"
	"github.com/rea-agent/rea/internal/wire"
)

var update = flag.Bool("update", false, "write the tables of the documentation anew")

func specFor(goos string) config.Spec {
	c := defaults(goos, "")
	return c.Spec()
}

func TestConfigurationIsDocumented(t *testing.T) {
	linux, windows := specFor("linux"), specFor("windows")
	configtest.Docs(t, *update, "../../docs/configuration.md", "rea-server", linux, windows)
	configtest.Example(t, "../../configs/server.example.toml", func() config.Spec { return specFor("linux") })
}

func TestDefaultsAreRightByTheirOwnRules(t *testing.T) {
	for _, goos := range []string{"linux", "windows"} {
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

// An agent sends nothing that a server refuses which nobody configured, or which is
// set to the least.
func TestEveryServerTakesWhatAgentsSend(t *testing.T) {
	l := Default().Limits
	if l.MaxDecodedBytes < wire.BatchBytes || l.MaxBodyBytes < wire.MaxLine+wire.RecordBytes || l.MaxLineBytes < wire.MaxLine {
		t.Errorf("%+v", l)
	}
	cfg := Default()
	if _, err := cfg.Spec().Load(config.Sources{Args: []config.Arg{{Key: "limits.max_decoded_bytes", Flag: "--x", Text: fmt.Sprint(wire.BatchBytes - 1)}}}); err == nil {
		t.Error("less than a batch may be set")
	}
}

func TestVariablesNameTheServerOnce(t *testing.T) {
	c := Default()
	spec := c.Spec()
	for key, want := range map[string]string{
		"server.listen": "REA_SERVER_LISTEN", "tls.cert_file": "REA_SERVER_TLS_CERT_FILE", "logging.level": "REA_SERVER_LOGGING_LEVEL",
	} {
		if got := spec.Variable(key); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if _, err := spec.Load(config.Sources{Environ: []string{"REA_STATUS_ENABLED=true", "REA_SERVER_LISTEN=:1"}}); err != nil {
		t.Error(err)
	}
	if c.Server.Listen != ":1" {
		t.Error(c.Server.Listen)
	}
}

func TestImpossibleCombinationsAreRefused(t *testing.T) {
	const files = "tls.cert_file=a tls.key_file=b tls.client_ca_file=c "
	for _, c := range []struct {
		name, set string
		serving   bool
		want      string
	}{
		{"reading needs no certificate", "", false, ""},
		{"receiving needs one", "tls.client_ca_file=c", true, "no certificate to show"},
		{"receiving tells agents from others", "tls.cert_file=a tls.key_file=b", true, "cannot tell an agent"},
		{"receiving with all of them", files, true, ""},
		{"a certificate without its key", "tls.cert_file=a", false, "no key of it"},
		{"a key without its certificate", "tls.key_file=a", false, "no certificate of it"},
		{"nowhere to keep", "server.data_dir=", false, "no folder"},
		{"larger packed than not", "limits.max_body_bytes=64MiB", false, "larger as it comes"},
		{"a request larger than the memory", "limits.max_decoded_bytes=300MiB", false, "less than one may need"},
		{"an event larger than a request", "limits.max_line_bytes=5MiB", false, "longer than a whole request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var args []config.Arg
			for set := range strings.FieldsSeq(c.set) {
				key, text, _ := strings.Cut(set, "=")
				args = append(args, config.Arg{Key: key, Flag: "--" + key, Text: text})
			}
			cfg := Default()
			spec := cfg.Spec()
			if c.serving {
				spec = cfg.ServingSpec()
			}
			_, err := spec.Load(config.Sources{Args: args})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}
