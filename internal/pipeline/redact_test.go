package pipeline

import (
	"log/slog"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/redact"
)

func TestTextsAreRedactedByTheirClass(t *testing.T) {
	const gone = "(left out)"
	for _, c := range []struct {
		class         event.Class
		in, pii, open string // with personal data redacted, and without
	}{
		{event.Text, "plain words", "plain words", "plain words"},
		{event.Text, "--password=hunter2 --v", "--password=[redacted] --v", "--password=[redacted] --v"},
		{event.Text, "open /home/alice/x: no such file", "open /home/[redacted]/x: no such file", "open /home/alice/x: no such file"},
		{event.Account, "alice", gone, "alice"},
		{event.Command, "ls -l --token=t", gone, "ls -l --token=[redacted]"},
		{event.Path, "/home/alice/x", "/home/[redacted]/x", "/home/alice/x"},
		{event.Path, `C:\Users\alice`, `C:\Users\[redacted]`, `C:\Users\alice`},
		{event.Path, `c:\users\alice\x`, `c:\users\[redacted]\x`, `c:\users\alice\x`},
		{event.Path, "/home", "/home", "/home"},
		{event.Path, "/srv", "/srv", "/srv"},
	} {
		for pii, want := range map[bool]string{true: c.pii, false: c.open} {
			got, keep, _ := Redactor(redact.New(redact.Options{PII: pii}))(event.Process, "field", c.class, c.in)
			if !keep {
				got = gone
			}
			if got != want {
				t.Errorf("pii %v, class %d: %q became %q, want %q", pii, c.class, c.in, got, want)
			}
		}
	}
	if _, keep, _ := Redactor(redact.New(redact.Options{Commands: true}))(event.Process, "command_line", event.Command, "ls"); keep {
		t.Error("a command line went through although commands are redacted")
	}
}

// record is a body as the journal and the event log have them: a few texts, one of
// them long.
type record struct{}

func (record) Encode(e *event.Encoder) {
	e.Sensitive("message", event.Text, `Nov 23 10:11:12 kubelet: operationExecutor.VerifyControllerAttachedVolume started for volume "config" (UniqueName: "kubernetes.io/configmap/7f3a9d0c-5b6e") pod "coredns-abc" status=200 duration=12ms path=/healthz`)
	e.Sensitive("unit", event.Text, "kubelet.service")
	e.Sensitive("executable", event.Path, "/usr/local/bin/kubelet")
	e.Sensitive("identifier", event.Text, "kubelet")
	e.Sensitive("cgroup", event.Text, "/system.slice/kubelet.service")
	e.Uint("pid", 1234)
	e.Uint("priority", 6)
}

func BenchmarkEmitRecord(b *testing.B) {
	p := New(Options{Node: "n", Host: "h", MaxEventBytes: 1 << 16, Redact: Redactor(redact.New(redact.Options{PII: true})),
		Metrics: discard{}, Evidence: discard{}, Log: slog.New(slog.DiscardHandler)})
	events := []event.Event{{Time: time.Now(), Kind: event.Journal, Body: record{}}}
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Emit(b.Context(), events...)
	}
}
