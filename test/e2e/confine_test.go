package e2e

import (
	"strings"
	"testing"

	"github.com/rea-agent/rea/internal/confine"
	"github.com/rea-agent/rea/test/rig"
)

func TestTheAgentConfinesItselfAndSaysHowFar(t *testing.T) {
	want := "unavailable"
	switch abi := confine.ABI(); {
	case abi >= confine.RequiredABI:
		want = "confined"
	case abi > 0:
		want = "files"
	}
	b := newBench(t, fast)
	b.server()
	for arg, want := range map[string]string{"--agent.landlock=auto": want, "--agent.landlock=off": "off"} {
		agent := b.agent(arg)
		b.Until("events arrive", func() bool {
			return strings.Contains(rig.Page(b.status, "/metrics"), `rea_batches_sent_total{lane="metrics"}`)
		})
		if page := rig.Page(b.status, "/healthz"); !strings.Contains(strings.ReplaceAll(page, `": "`, `":"`), `"state":"`+want+`"`) || strings.Contains(page, "degraded") {
			t.Errorf("%s: want %q in\n%s", arg, want, page)
		}
		agent.Stop(0)
	}
	_, stderr, code := b.Run("rea-agent", "once", "--agent.landlock", "require")
	if enough := confine.ABI() >= confine.RequiredABI; enough != (code == 0) || !enough && (code != 69 || !strings.Contains(stderr, `landlock = "auto"`)) {
		t.Errorf("require: exit %d\n%s", code, stderr)
	}
}
