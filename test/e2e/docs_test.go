package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rea-agent/rea/test/rig"
)

// shell returns what stands in the blocks for the shell of a page.
func shell(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, block := range strings.Split(string(text), "```sh\n")[1:] {
		code, _, ok := strings.Cut(block, "```")
		if !ok {
			t.Fatal("a block does not end")
		}
		script.WriteString(code)
	}
	return script.String()
}

func TestTheCommandsOfThePageAboutCertificatesWork(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skipf("SKIP the commands with openssl: %v", err)
	}
	b := bare(t)
	if err := os.Mkdir(b.Path("etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-eux", "-c", shell(t, "../../docs/certificates.md"))
	cmd.Dir = b.Dir
	cmd.Env = append(os.Environ(), "ETC="+b.Path("etc"), "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// What they leave behind: a revoked agent, and one of another authority.
	server := b.Start("rea-server", "--config", "etc/server.toml", "--data-dir", "data", "--server.listen", b.address)
	b.Until("the server listens", func() bool { return rig.Answers(b.address) })
	b.Write("server.toml", "[server]\ndata_dir = \"data\"\n")
	agent := func(name, files string) *rig.Process {
		return b.Start("rea-agent", append(strings.Fields(files), "--config", "etc/agent.toml", "--networking.endpoint", "https://"+b.address,
			"--networking.queue-dir", name, "--logging.mode", "none")...)
	}
	revoked, other := agent("one", ""), agent("two", fmt.Sprintf("--tls.client-cert=%s --tls.client-key=%s", b.Path("other/agent.crt"), b.Path("other/agent.key")))
	b.Until("the revoked one is told", func() bool { return strings.Contains(revoked.Said(), "revoked (laptop stolen)") })
	b.Until("the other one delivers", func() bool { return len(b.stored()) > 0 })
	for _, e := range b.stored() {
		if e.Node != "0190d1c0-0000-7000-8000-000000000002" {
			t.Errorf("an event of %s is stored", e.Node)
		}
	}
	for _, p := range []*rig.Process{revoked, other, server} {
		p.Stop(0)
	}
}
