package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/confine"
	"github.com/rea-agent/rea/internal/redact"
)

func TestTheRulesAreWhatTheConfigurationNeeds(t *testing.T) {
	dir := t.TempDir()
	c := defaults("linux", "")
	r, _ := rulesOf(&c, policyOf(t, &c), "", true)
	if r.Write != nil || r.Connect != nil || r.Bind != nil {
		t.Errorf("without networking, file and status page: %+v", r)
	}
	for _, path := range r.Read {
		if path == "/etc" || path == "/" || strings.Contains(path, "passwd") || strings.Contains(path, "resolv") {
			t.Errorf("root reads %s", path)
		}
	}
	c.Agent.RedactPII = false
	c.Logging.Mode, c.Logging.FilePath = "file", filepath.Join(dir, "log/events.ndjson")
	c.Status = StatusSection{Enabled: true, Port: 9101}
	c.Networking.Enabled, c.Networking.Endpoint, c.Networking.QueueDir = true, "https://rea.example.org:8443", filepath.Join(dir, "queue")
	c.TLS.CAFile = filepath.Join(dir, "certs/ca.crt")
	r, needs := rulesOf(&c, policyOf(t, &c), filepath.Join(dir, "etc/agent.toml"), true)
	if d := cmp.Diff(confine.Rules{Write: []string{filepath.Join(dir, "log"), filepath.Join(dir, "queue")}, Connect: []uint16{8443, 53}, Bind: []uint16{9101}},
		confine.Rules{Write: r.Write, Connect: r.Connect, Bind: r.Bind}); d != "" {
		t.Error(d)
	}
	for _, want := range []string{"/proc", "/sys", "/etc/passwd", "/etc/hosts", filepath.Join(dir, "etc"), filepath.Join(dir, "certs")} {
		if !slices.Contains(r.Read, want) {
			t.Errorf("cannot read %s: %v", want, r.Read)
		}
	}
	if slices.Contains(r.Read, "/etc/ssl/certs") {
		t.Error("the system's authorities can be read, and another one was named")
	}
	for _, want := range []string{filepath.Join(dir, "etc/agent.toml"), c.TLS.CAFile, "/etc/resolv.conf"} {
		if !slices.Contains(needs, want) {
			t.Errorf("%s is not read again: %v", want, needs)
		}
	}
	c.TLS.CAFile = ""
	if r, _ = rulesOf(&c, policyOf(t, &c), "", true); !slices.Contains(r.Read, "/etc/ssl/certs") {
		t.Error("the system's authorities cannot be read")
	}
	if r, _ = rulesOf(&c, policyOf(t, &c), "", false); !slices.Contains(r.Read, "/etc") || slices.Contains(r.Read, "/etc/hosts") {
		t.Errorf("a user without rights reads /etc, whose files are replaced: %v", r.Read)
	}
}

func policyOf(t *testing.T, c *Config) *redact.Policy {
	t.Helper()
	p, err := Redaction(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAFolderIsReadableAroundAFileUnlessItIsAtTheTop(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"live", "archive"} {
		check(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	check(t, os.WriteFile(filepath.Join(dir, "archive/cert2.pem"), nil, 0o600))
	check(t, os.Symlink("../archive/cert2.pem", filepath.Join(dir, "live/cert.pem")))
	for file, want := range map[string][]string{
		"/root/agent.toml":                     {"/root/agent.toml"},
		"/etc/rea-that-is-not/agent.toml":      {"/etc/rea-that-is-not"},
		"/ca.crt":                              {"/ca.crt"},
		filepath.Join(dir, "live/cert.pem"):    {filepath.Join(dir, "live"), filepath.Join(dir, "archive")},
		filepath.Join(dir, "live/missing.pem"): {filepath.Join(dir, "live")},
	} {
		if d := cmp.Diff(want, around(file)); d != "" {
			t.Errorf("%s: %s", file, d)
		}
	}
}

func TestPortsThatSendingConnectsTo(t *testing.T) {
	for _, c := range []struct {
		endpoint, proxy string
		want            []uint16
	}{
		{"https://127.0.0.1:8443", "", []uint16{8443}},
		{"https://[::1]:8443", "", []uint16{8443}},
		{"https://10.0.0.1", "", []uint16{443}},
		{"https://rea.example.org", "", []uint16{443, 53}},
		{"https://10.0.0.1:8443", "http://proxy:3128", []uint16{3128, 53}},
		{"https://rea.example.org:8443", "http://10.0.0.2", []uint16{80}},
		{"https://rea.example.org:8443", "https://10.0.0.2", []uint16{443}},
		{"https://rea.example.org:8443", "socks5://10.0.0.2", []uint16{1080}},
	} {
		if d := cmp.Diff(c.want, ports(&NetworkingSection{Endpoint: c.endpoint, Proxy: c.proxy})); d != "" {
			t.Errorf("%s by %q: %s", c.endpoint, c.proxy, d)
		}
	}
}
