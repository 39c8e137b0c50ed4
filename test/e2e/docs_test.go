package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
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
	b := &bench{t: t, dir: t.TempDir(), address: freeAddress(t), status: freeAddress(t)}
	if err := os.Mkdir(b.path("etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-eux", "-c", shell(t, "../../docs/certificates.md"))
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "ETC="+b.path("etc"), "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// What they leave behind: a revoked agent, and one of another authority.
	server := b.start("rea-server", "--config", "etc/server.toml", "--data-dir", "data", "--server.listen", b.address)
	b.until("the server listens", func() bool { return answers(b.address) }, server)
	b.write("server.toml", "[server]\ndata_dir = \"data\"\n")
	agent := func(name, files string) *process {
		return b.start("rea-agent", append(strings.Fields(files), "--config", "etc/agent.toml", "--networking.endpoint", "https://"+b.address,
			"--networking.queue-dir", name, "--logging.mode", "none")...)
	}
	revoked, other := agent("one", ""), agent("two", fmt.Sprintf("--tls.client-cert=%s --tls.client-key=%s", b.path("other/agent.crt"), b.path("other/agent.key")))
	b.until("the revoked one is told", func() bool { return strings.Contains(revoked.stderr.String(), "revoked (laptop stolen)") }, revoked, server)
	b.until("the other one delivers", func() bool { return len(b.stored()) > 0 }, other, server)
	for _, e := range b.stored() {
		if e.Node != "0190d1c0-0000-7000-8000-000000000002" {
			t.Errorf("an event of %s is stored", e.Node)
		}
	}
	for _, p := range []*process{revoked, other, server} {
		p.stop(0)
	}
}
