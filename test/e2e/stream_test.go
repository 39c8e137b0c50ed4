package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/event"
)

// verify waits until the books balance and returns what verify says.
func (b *bench) verify(processes ...*process) string {
	b.t.Helper()
	var stdout, stderr string
	b.until("the books balance", func() (ok bool) {
		var code int
		stdout, stderr, code = b.run("rea-server", "verify", "--config", "server.toml", "--json")
		return code == 0
	}, processes...)
	if b.t.Failed() {
		b.t.Log(stdout, stderr)
	}
	return stdout
}

// copyFolder copies a queue as the snapshot of a machine would.
func (b *bench) copyFolder(from, to string) {
	b.t.Helper()
	if err := os.RemoveAll(b.path(to)); err != nil {
		b.t.Fatal(err)
	}
	if err := os.CopyFS(b.path(to), os.DirFS(b.path(from))); err != nil {
		b.t.Fatal(err)
	}
}

// moments returns how often each reading is stored, by what makes it one.
func moments(events []envelope) map[string]int {
	n := map[string]int{}
	for _, e := range events {
		n[e.Kind+" "+e.Time]++
	}
	return n
}

func streams(events []envelope) map[string]int {
	n := map[string]int{}
	for _, e := range events {
		n[e.Stream]++
	}
	return n
}

func TestARestoredSnapshotLosesAndRepeatsNothing(t *testing.T) {
	b := newBench(t, fast)
	server, agent := b.server(), b.agent()
	b.until("events are stored", func() bool { return len(b.stored()) > 10 }, agent, server)
	server.kill() // what follows is only in the queue, and in the snapshot
	time.Sleep(500 * time.Millisecond)
	agent.stop(0)
	b.copyFolder("queue", "snapshot")
	server, agent = b.server(), b.agent()
	before := len(b.stored())
	b.until("more events are stored", func() bool { return len(b.stored()) > before+20 }, agent, server)
	agent.kill()
	b.copyFolder("snapshot", "queue")
	agent = b.agent()
	b.until("new streams begin", func() bool { return len(streams(b.stored())) >= 4 }, agent, server)
	agent.stop(0)
	agent = b.agent() // delivers what the last one said when it stopped
	b.verify(agent, server)
	agent.kill()
	server.stop(0)
	events := b.stored()
	checkBooks(t, events)
	for moment, n := range moments(events) {
		if n > 1 {
			t.Errorf("%s is stored %d times", moment, n)
		}
	}
}

func TestACloneIsRefusedShownAndLosesNothing(t *testing.T) {
	b := newBench(t, fast)
	server, agent := b.server(), b.agent()
	b.until("events are stored", func() bool { return len(b.stored()) > 10 }, agent, server)
	agent.stop(0)
	b.copyFolder("queue", "clone")
	agent = b.agent()
	clone := b.agent("--networking.queue-dir", "clone", "--status.enabled=false")
	b.until("the clones have streams of their own", func() bool { return len(streams(b.stored())) >= 4 }, agent, clone, server)
	time.Sleep(time.Second)
	for _, p := range []*process{agent, clone} {
		p.stop(0)
	}
	agent = b.agent()
	clone = b.agent("--networking.queue-dir", "clone", "--status.enabled=false")
	b.verify(agent, clone, server)
	hosts := b.must("rea-server", "hosts", "--config", "server.toml", "--json")
	var host struct{ Conflicts, Clones uint64 }
	if err := json.Unmarshal([]byte(hosts), &host); err != nil || host.Conflicts+host.Clones == 0 {
		t.Errorf("hosts does not show the clone: %v\n%s", err, hosts)
	}
	agent.kill()
	clone.kill()
	server.stop(0)
	checkBooks(t, b.stored())
}

func TestAnAgentWithAnotherNameTakesAlongWhatIsQueued(t *testing.T) {
	b := newBench(t, fast)
	b.must("rea-server", "certs", "--dns", "127.0.0.1", "--dir", b.path("others"))
	var both []byte
	for _, name := range []string{"certs/ca.crt", "others/ca.crt"} {
		pem, err := os.ReadFile(b.path(name))
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, pem...)
	}
	b.write("clients.crt", string(both))
	agent := b.agent()
	b.until("the agent says that the server is away", func() bool { return strings.Contains(agent.stderr.String(), "connection refused") }, agent)
	time.Sleep(time.Second)
	agent.stop(0)
	agent = b.agent("--tls.client-cert=others/agent.crt", "--tls.client-key=others/agent.key")
	server := b.start("rea-server", "--config", "server.toml", "--tls.client-ca-file", "clients.crt")
	b.until("the server listens", func() bool { return answers(b.address) }, server)
	b.until("events are stored", func() bool { return len(b.stored()) > 20 }, agent, server)
	b.verify(agent, server)
	agent.stop(0)
	server.stop(0)
	events := b.stored()
	starts := 0
	for _, e := range events {
		if e.Node != events[0].Node {
			t.Errorf("events of %s and of %s are stored", e.Node, events[0].Node)
		}
		if e.Agent.Action == "start" {
			starts++
		}
	}
	if starts != 2 {
		t.Errorf("%d starts are stored, want that under the old name and that under the new one", starts)
	}
	checkBooks(t, events)
}

// members is a body of so many members.
type members int

func (m members) Encode(e *event.Encoder) {
	for i := range int(m) {
		e.Uint(fmt.Sprintf("m%d", i), uint64(i))
	}
}

// TestVerifyPrintsTheEquationOfABadDay has an outage, a queue that overflows and
// lines that the server refuses, and wants every number accounted for.
func TestVerifyPrintsTheEquationOfABadDay(t *testing.T) {
	b := newBench(t, fast)
	stop := b.inProcess(agent.Source{Name: "poison", Run: func(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
		for n := 0; ctx.Err() == nil; n++ {
			events := make([]event.Event, 200) // fill the queue of measurements while the server is away
			for i := range events {
				events[i] = event.Event{Time: time.Now(), Kind: event.CPU, Body: members(200)}
			}
			if n%20 == 7 {
				events[100].Body = members(300) // more than a server takes in one object
			}
			if err := emit(ctx, events...); err != nil {
				return err
			}
		}
		return nil
	}})
	b.until("the queue overflows", func() bool {
		return answers(b.status) && !strings.Contains(b.get("/metrics"), `rea_events_dropped_total{reason="queue_full",stage="queue"} 0`+"\n")
	})
	server := b.server()
	b.until("a line is refused", func() bool {
		letters, _ := filepath.Glob(b.path("queue/dead-letters/*"))
		return len(letters) > 2
	}, server)
	stop()
	stop = b.inProcess() // delivers what is left
	var said string
	b.until("the books balance", func() bool {
		var code int
		said, _, code = b.run("rea-server", "verify", "--config", "server.toml")
		return code == 0
	}, server)
	stop()
	server.stop(0)
	t.Logf("\n%s", said)
	for _, want := range []string{"queue_full", "rejected"} {
		if !strings.Contains(said, want) {
			t.Errorf("verify does not tell of %s", want)
		}
	}
	checkBooks(t, b.stored())
}

// inProcess runs an agent with sources of ours in this process, and returns how
// to stop it.
func (b *bench) inProcess(sources ...agent.Source) (stop func()) {
	b.t.Helper()
	c := agent.Default()
	text, err := os.ReadFile(b.path("agent.toml"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.write("inprocess.toml", strings.NewReplacer(
		`"16MiB"`, `"1MiB"`, `"queue"`, fmt.Sprintf("%q", b.path("queue")), `"certs/`, `"`+b.path("certs")+`/`,
	).Replace(string(text)))
	if _, err := c.Spec().Load(config.Sources{File: b.path("inprocess.toml")}); err != nil {
		b.t.Fatal(err)
	}
	a, err := agent.New(agent.Options{Config: c, Version: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Sources: sources})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() {
		if err := a.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			b.t.Error(err)
		}
	})
	return func() {
		cancel()
		run.Wait()
	}
}
