//go:build wine

package installer

import (
	"strings"
	"testing"
)

// enrolled returns a machine that was set up by the package alone and delivers. Its
// operator has it read more often, by the file.
func enrolled(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.msiexec(0, "/i", older, "REA_ENDPOINT=https://"+b.ingest, "REA_SERVER=https://"+b.welcome, "REA_TOKEN="+b.token())
	b.sh(`printf '[collectors.cpu]\ninterval_ms = 250\n' >>` + data + `/agent.toml`)
	b.agent("service", "reload")
	return b
}

// runs wants the service to run the program of a version.
func (b *bench) runs(version string) {
	b.t.Helper()
	if s := b.state(); s != "RUNNING" {
		b.t.Errorf("the service is %q, want it to run", s)
	}
	if v := b.agent("--version"); !strings.HasPrefix(v, "rea-agent "+version+" ") {
		b.t.Errorf("installed is %s, want %s", v, version)
	}
}

// gone wants neither service nor program.
func (b *bench) gone() {
	b.t.Helper()
	if s := b.state(); s != "" {
		b.t.Errorf("the service is still there: %s", s)
	}
	if b.there(program) {
		b.t.Error("the program is still there")
	}
}

func TestAPackageEnrolsTheMachineWhichDelivers(t *testing.T) {
	b := enrolled(t)
	b.runs(older)
	config := b.file("agent.toml")
	for _, line := range []string{`endpoint="https://` + b.ingest + `"`, `client_cert="identity/agent.pem"`} {
		if !strings.Contains(config, line) {
			t.Errorf("agent.toml does not say %s:\n%s", line, config)
		}
	}
	if !strings.Contains(b.file("identity/agent.pem"), "BEGIN CERTIFICATE") {
		t.Error("agent.pem holds no certificate")
	}
	b.delivered(b.collected())
}
