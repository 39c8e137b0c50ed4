package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/confine"
	"github.com/rea-agent/rea/internal/status"
)

func TestTheRulesAreWhatTheConfigurationNeeds(t *testing.T) {
	dir := t.TempDir()
	c := defaults("linux", "")
	r, _ := rulesOf(&c, "", true)
	if r.Write != nil || r.Connect != nil || r.Bind != nil {
		t.Errorf("without networking, file and status page: %+v", r)
	}
	for _, path := range r.Read {
		if path == "/etc" || path == "/" || strings.Contains(path, "shadow") || strings.Contains(path, "resolv") {
			t.Errorf("root reads %s", path)
		}
	}
	c.Agent.RedactPII = false
	c.Logging.Mode, c.Logging.FilePath = "file", filepath.Join(dir, "log/events.ndjson")
	c.Status = StatusSection{Enabled: true, Port: 9101}
	c.Networking.Enabled, c.Networking.Endpoint, c.Networking.QueueDir = true, "https://rea.example.org:8443", filepath.Join(dir, "queue")
	c.TLS.CAFile = filepath.Join(dir, "certs/ca.crt")
	r, needs := rulesOf(&c, filepath.Join(dir, "etc/agent.toml"), true)
	if d := cmp.Diff(confine.Rules{Write: []string{filepath.Join(dir, "log"), filepath.Join(dir, "queue")}, Connect: []uint16{8443, 53}, Bind: []uint16{9101}},
		confine.Rules{Write: r.Write, Connect: r.Connect, Bind: r.Bind}); d != "" {
		t.Error(d)
	}
	for _, want := range []string{"/proc", "/sys", "/etc/passwd", "/etc/hosts", filepath.Join(dir, "etc"), filepath.Join(dir, "certs")} {
		if !slices.Contains(r.Read, want) {
			t.Errorf("cannot read %s: %v", want, r.Read)
		}
	}
	c.TLS.Renew, c.TLS.ClientCert = true, filepath.Join(dir, "certs/agent.pem")
	if r, _ := rulesOf(&c, "", true); !slices.Contains(r.Write, filepath.Join(dir, "certs")) {
		t.Errorf("a renewed certificate cannot be written: %v", r.Write)
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
	if r, _ = rulesOf(&c, "", true); !slices.Contains(r.Read, "/etc/ssl/certs") {
		t.Error("the system's authorities cannot be read")
	}
	if r, _ = rulesOf(&c, "", false); !slices.Contains(r.Read, "/etc") || slices.Contains(r.Read, "/etc/hosts") {
		t.Errorf("a user without rights reads /etc, whose files are replaced: %v", r.Read)
	}
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

func TestARenewalThatTheConfinementDoesNotAllowIsSaidByName(t *testing.T) {
	dir := t.TempDir()
	pair := filepath.Join(dir, "agent.pem")
	for _, c := range []struct {
		name   string
		state  string
		writes []string
		tls    TLSSection
		want   string
	}{
		{"it was on at the start", status.Confined, []string{"/queue", dir}, TLSSection{Renew: true, ClientCert: pair}, ""},
		{"below what it may write", status.Confined, []string{filepath.Dir(dir)}, TLSSection{Renew: true, ClientCert: pair}, ""},
		{"beside what it may write", status.Confined, []string{dir[:len(dir)-1]}, TLSSection{Renew: true, ClientCert: pair}, "start the agent again"},
		{"it was switched on", status.Confined, []string{"/queue"}, TLSSection{Renew: true, ClientCert: pair}, pair + ", where the agent may not write, since it confined itself before: start the agent again"},
		{"the same with an older kernel", status.ConfinedFiles, nil, TLSSection{Renew: true, ClientCert: pair}, "start the agent again"},
		{"a folder at the top", status.Confined, nil, TLSSection{Renew: true, ClientCert: "/etc/agent.pem"}, "move client_cert into a folder of its own"},
		{"it is off", status.Confined, nil, TLSSection{ClientCert: pair}, ""},
		{"the agent is not confined", status.Unconfined, nil, TLSSection{Renew: true, ClientCert: pair}, ""},
	} {
		a := &Agent{}
		a.confined.report.State, a.confined.writes = c.state, c.writes
		a.loaded.Store(&c.tls)
		var reasons []string
		a.reportConfinement(new(status.Report), func(_ status.State, format string, args ...any) {
			reasons = append(reasons, fmt.Sprintf(format, args...))
		})
		if got := strings.Join(reasons, "\n"); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
