//go:build wine

package installer

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rea-agent/rea/test/rig"
)

// What the installer ends with, in winerror.h. Where an action fails, Windows says
// the first one too.
const (
	installFailure = 1603 // ERROR_INSTALL_FAILURE: a condition does not hold
	actionFailed   = 1627 // ERROR_FUNCTION_FAILED
)

const (
	products = `HKLM\Software\Microsoft\Windows\CurrentVersion\Uninstall`
	service  = `HKLM\SYSTEM\CurrentControlSet\Services\REA`
)

// enrolled returns a machine that was set up by a package alone and delivers. Its
// operator has the processors read often.
func enrolled(t *testing.T, version string) *bench {
	t.Helper()
	b := newBench(t)
	b.msiexec(0, "/i", version, "REA_ENDPOINT=https://"+b.ingest, "REA_SERVER=https://"+b.welcome, "REA_TOKEN="+b.token())
	b.agent("service", "stop")
	b.sh(`printf '[collectors.cpu]\r\ninterval_ms = 250\r\n' >>` + data + `/agent.toml`)
	b.agent("service", "start")
	return b
}

// runs wants the service to run the program of a version.
func (b *bench) runs(version string) {
	b.T.Helper()
	if s := b.state(); s != "RUNNING" {
		b.T.Errorf("the service is %q, want it to run", s)
	}
	if list, _ := b.windows("reg", "query", products, "/s"); strings.Count(list, "REA Endpoint Agent") != 1 || !strings.Contains(list, " "+strings.TrimPrefix(version, "v")+".0\r\n") {
		b.T.Errorf("registered is %s, want %s and nothing else", list, version)
	}
	if v := b.agent("--version"); !strings.HasPrefix(v, "rea-agent "+version+" ") {
		b.T.Errorf("installed is %s, want %s", v, version)
	}
	b.UntilQuiet("the service is of that version", func() string {
		lines, _ := b.sh(`grep '"action":"start"' ` + data + "/logs/events.ndjson | tail -n 1")
		if !strings.Contains(lines, `"version":"`+version+`"`) {
			return lines
		}
		return ""
	})
}

// gone wants neither service nor program, and nothing to remove.
func (b *bench) gone() {
	b.T.Helper()
	if s := b.state(); s != "" {
		b.T.Errorf("the service is still there: %s", s)
	}
	if b.there(program) {
		b.T.Error("the program is still there")
	}
	if list, _ := b.windows("reg", "query", products, "/s"); strings.Contains(list, "REA Endpoint Agent") {
		b.T.Errorf("the package is still registered: %s", list)
	}
}

func TestAPackageEnrolsTheMachineWhichDelivers(t *testing.T) {
	b := enrolled(t, older)
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

func TestRemovalKeepsDataAndPurgeRemovesIt(t *testing.T) {
	b := enrolled(t, older)
	b.server.Stop(0)
	b.waiting()
	config, identity, events := b.file("agent.toml"), b.file("identity/agent.pem"), b.collected()

	b.msiexec(0, "/x", older)
	b.gone()
	b.same(config, identity)

	// Installed again it goes on: nothing need be said, what waited is delivered.
	b.msiexec(0, "/i", older)
	b.runs(older)
	b.same(config, identity)
	b.startServer()
	b.delivered(events)

	b.msiexec(0, "/x", older, "REA_PURGE=1")
	b.gone()
	if b.there(data) {
		left, _ := b.sh("find " + quote(data))
		t.Errorf("data is still there:\n%s", left)
	}
}

// same wants configuration and identity to be as they were.
func (b *bench) same(config, identity string) {
	b.T.Helper()
	if now := b.file("agent.toml"); now != config {
		b.T.Errorf("agent.toml was\n%s\nand is\n%s", config, now)
	}
	if b.file("identity/agent.pem") != identity {
		b.T.Error("the identity is another")
	}
}

// Windows tells the old package that it makes room for the new one; Wine does not,
// and the old one takes the service with it, which the new one wants to be there.
// So the first case does in two steps what Windows does in one.
func TestANewerPackageReplacesAnOlderOneAndDataStays(t *testing.T) {
	for name, replace := range map[string]func(*bench){
		"as Windows does it, in two steps": func(b *bench) {
			// Who removes the service removes this too.
			b.windows("reg", "add", service, "/v", "Mark", "/d", "kept", "/f")
			b.msiexec(0, "/x", older, "UPGRADINGPRODUCTCODE={00000000-0000-0000-0000-000000000000}")
			if b.there(program) {
				b.T.Error("the older program is still there")
			}
			if s := b.state(); s != "STOPPED" {
				b.T.Errorf("the service is %q, want it to be there and stopped", s)
			}
			b.msiexec(0, "/i", newer)
			if mark, code := b.windows("reg", "query", service, "/v", "Mark"); code != 0 || !strings.Contains(mark, "kept") {
				b.T.Errorf("the service is another one: %s", mark)
			}
		},
		"as Wine does it, which fails and is done again": func(b *bench) {
			b.msiexec(actionFailed, "/i", newer)
			b.gone()
			b.msiexec(0, "/i", newer)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := enrolled(t, older)
			b.server.Stop(0)
			b.waiting()
			config, identity, events := b.file("agent.toml"), b.file("identity/agent.pem"), b.collected()
			replace(b)
			b.runs(newer)
			b.same(config, identity)
			b.startServer()
			b.delivered(events)
			b.delivered(b.collected())
		})
	}
}

// undo does what Wine cannot when it rolls back: it removes the program before it
// runs the actions for that, which are the program's. Windows goes back step by
// step, and the program goes last. So this wants Wine to have tried, at the wrong
// time, and does the same with a program that is there.
func (b *bench) undo() {
	b.T.Helper()
	if b.state() == "" {
		b.T.Log("Wine rolled back as Windows does: undo has nothing to do any more")
		return
	}
	if !strings.Contains(b.complaints, "execute_command can't find executable") {
		b.T.Errorf("the service is there, and not because Wine came too late: %s", b.complaints)
	}
	if s := b.state(); s != "STOPPED" {
		b.T.Errorf("the service is %q", s)
	}
	if out, err := exec.Command("msiextract", "-C", b.share, filepath.Join(b.share, older+".msi")).CombinedOutput(); err != nil {
		b.T.Fatalf("msiextract: %v: %s", err, out)
	}
	if out, code := b.sh("wine '/share/PFiles/REA/rea-agent.exe' service uninstall"); code != 0 {
		b.T.Errorf("service uninstall: exit %d: %s", code, out)
	}
}

func TestAnEnrolmentThatFailsLeavesNothing(t *testing.T) {
	b := newBench(t)
	revoked := b.token()
	b.revokeTokens()
	nowhere := rig.FreeAddress(t)
	for _, c := range []struct {
		name       string
		want       int
		properties []string
	}{
		{"a slip in the token", actionFailed, []string{"REA_SERVER=https://" + b.welcome, "REA_TOKEN=" + b.token() + "x"}},
		{"a token that is not valid", actionFailed, []string{"REA_SERVER=https://" + b.welcome, "REA_TOKEN=" + revoked}},
		{"no server where it should be", actionFailed, []string{"REA_SERVER=https://" + nowhere, "REA_TOKEN=" + b.token()}},
		{"no server is named", installFailure, []string{"REA_TOKEN=" + b.token()}},
	} {
		b.msiexec(c.want, "/i", older, append(c.properties, "REA_ENDPOINT=https://"+b.ingest)...)
		if c.want == actionFailed {
			if !strings.Contains(b.complaints, `action L"Enroll" returned`) {
				t.Errorf("it was something else that failed: %s", b.complaints)
			}
			b.undo()
		}
		b.gone()
		if b.there(data + "/identity/agent.pem") {
			t.Error("there is an identity")
		}
		if t.Failed() {
			t.Fatal(c.name)
		}
	}
	// It can be tried again.
	b.msiexec(0, "/i", older, "REA_ENDPOINT=https://"+b.ingest, "REA_SERVER=https://"+b.welcome, "REA_TOKEN="+b.token())
	b.runs(older)
	b.delivered(b.collected())
}

func TestADowngradeIsRefusedAndWhatWasThereGoesOn(t *testing.T) {
	b := enrolled(t, newer)
	config, identity := b.file("agent.toml"), b.file("identity/agent.pem")
	b.msiexec(installFailure, "/i", older)
	b.runs(newer)
	b.same(config, identity)
	b.server.Stop(0)
	b.waiting() // it still collects
	b.startServer()
	b.delivered(b.collected())
}
