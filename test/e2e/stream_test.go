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
	"github.com/rea-agent/rea/test/rig"
)

// verify waits until the books balance and returns what verify says.
func (b *bench) verify() string {
	b.T.Helper()
	var stdout, stderr string
	b.Until("the books balance", func() (ok bool) {
		var code int
		stdout, stderr, code = b.Run("rea-server", "verify", "--config", "server.toml", "--json")
		return code == 0
	})
	if b.T.Failed() {
		b.T.Log(stdout, stderr)
	}
	return stdout
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
	b.Until("events are stored", func() bool { return len(b.stored()) > 10 })
	server.Kill() // what follows is only in the queue, and in the snapshot
	time.Sleep(500 * time.Millisecond)
	agent.Stop(0)
	b.Copy("queue", "snapshot")
	server, agent = b.server(), b.agent()
	before := len(b.stored())
	b.Until("more events are stored", func() bool { return len(b.stored()) > before+20 })
	agent.Kill()
	b.Copy("snapshot", "queue")
	agent = b.agent()
	b.Until("new streams begin", func() bool { return len(streams(b.stored())) >= 4 })
	agent.Stop(0)
	agent = b.agent() // delivers what the last one said when it stopped
	b.verify()
	agent.Kill()
	server.Stop(0)
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
	b.Until("events are stored", func() bool { return len(b.stored()) > 10 })
	agent.Stop(0)
	b.Copy("queue", "clone")
	agent = b.agent()
	clone := b.agent("--networking.queue-dir", "clone", "--status.enabled=false")
	b.Until("the clones have streams of their own", func() bool { return len(streams(b.stored())) >= 4 })
	time.Sleep(time.Second)
	for _, p := range []*rig.Process{agent, clone} {
		p.Stop(0)
	}
	agent = b.agent()
	clone = b.agent("--networking.queue-dir", "clone", "--status.enabled=false")
	b.verify()
	hosts := b.Hosts()
	var host struct{ Conflicts, Clones uint64 }
	if err := json.Unmarshal([]byte(hosts), &host); err != nil || host.Conflicts+host.Clones == 0 {
		t.Errorf("hosts does not show the clone: %v\n%s", err, hosts)
	}
	agent.Kill()
	clone.Kill()
	server.Stop(0)
	checkBooks(t, b.stored())
}

func TestAnAgentWithAnotherNameTakesAlongWhatIsQueued(t *testing.T) {
	b := newBench(t, fast)
	b.Certify("others")
	var both []byte
	for _, name := range []string{"certs/ca.crt", "others/ca.crt"} {
		pem, err := os.ReadFile(b.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, pem...)
	}
	b.Write("clients.crt", string(both))
	agent := b.agent()
	b.Until("the agent says that the server is away", func() bool { return strings.Contains(agent.Said(), "connection refused") })
	time.Sleep(time.Second)
	agent.Stop(0)
	agent = b.agent("--tls.client-cert=others/agent.crt", "--tls.client-key=others/agent.key")
	server := b.Start("rea-server", "--config", "server.toml", "--tls.client-ca-file", "clients.crt")
	b.Until("the server listens", func() bool { return rig.Answers(b.address) })
	b.Until("events are stored", func() bool { return len(b.stored()) > 20 })
	b.verify()
	agent.Stop(0)
	server.Stop(0)
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
	b.Until("the queue overflows", func() bool {
		page := rig.Page(b.status, "/metrics")
		return page != "" && !strings.Contains(page, `rea_events_dropped_total{reason="queue_full",stage="queue"} 0`+"\n")
	})
	server := b.server()
	b.Until("a line is refused", func() bool {
		letters, _ := filepath.Glob(b.Path("queue/dead-letters/*"))
		return len(letters) > 2
	})
	stop()
	stop = b.inProcess() // delivers what is left
	var said string
	b.Until("the books balance", func() bool {
		var code int
		said, _, code = b.Run("rea-server", "verify", "--config", "server.toml")
		return code == 0
	})
	stop()
	server.Stop(0)
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
	b.T.Helper()
	c := agent.Default()
	text, err := os.ReadFile(b.Path("agent.toml"))
	if err != nil {
		b.T.Fatal(err)
	}
	b.Write("inprocess.toml", strings.NewReplacer(
		`"16MiB"`, `"1MiB"`, `"queue"`, fmt.Sprintf("%q", b.Path("queue")), `"certs/`, `"`+b.Path("certs")+`/`,
	).Replace(string(text)))
	if _, err := c.Spec().Load(config.Sources{File: b.Path("inprocess.toml")}); err != nil {
		b.T.Fatal(err)
	}
	a, err := agent.New(agent.Options{Config: c, Version: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Sources: sources})
	if err != nil {
		b.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() {
		if err := a.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			b.T.Error(err)
		}
	})
	return func() {
		cancel()
		run.Wait()
	}
}
