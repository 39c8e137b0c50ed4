//go:build torture && linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/test/rig"
)

// figure returns what the series of a page add up to whose names match.
func figure(page, pattern string) (sum float64) {
	series := regexp.MustCompile(`(?m)^` + pattern + `(?:\{[^}]*\})? (\S+)$`)
	for _, m := range series.FindAllStringSubmatch(page, -1) {
		if v, err := strconv.ParseFloat(m[1], 64); err == nil {
			sum += v
		}
	}
	return sum
}

// sent waits until the agent has delivered n more events of each lane.
func (b *bench) sent(n float64) {
	b.T.Helper()
	lanes := []string{`rea_events_sent_total\{lane="evidence"\}`, `rea_events_sent_total\{lane="metrics"\}`}
	var before []float64
	b.until("the agent answers", func() bool {
		page := metrics(b.status)
		before = []float64{figure(page, lanes[0]), figure(page, lanes[1])}
		return page != ""
	})
	b.until("more is delivered", func() bool {
		page := metrics(b.status)
		return figure(page, lanes[0]) >= before[0]+n && figure(page, lanes[1]) >= before[1]+n
	})
}

// fill leaves so many KiB of a disk free, and returns how to make room again.
func (d *disk) fill(kibibytes int64) (free func()) {
	d.t.Helper()
	name := filepath.Join(d.dir, "ballast")
	out, err := exec.Command("sh", "-c", fmt.Sprintf("dd if=/dev/zero of=%[1]s bs=64k 2>/dev/null; truncate -s -%[2]dK %[1]s; sync -f %[1]s", name, kibibytes)).CombinedOutput()
	if err != nil {
		d.t.Fatalf("fill the disk: %v: %s", err, out)
	}
	return func() {
		d.t.Helper()
		if err := os.Remove(name); err != nil {
			d.t.Fatal(err)
		}
	}
}

// TestAFullDisk has the disk of the queue run full while the server is away, and
// then makes room. With kills the agent also loses what it had only in mind.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	for name, kills := range map[string]int{"alone": 0, "and kills": 12} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDisk(t, 16)
			b := newBench(t)
			b.queue = filepath.Join(d.dir, "queue")
			free := d.fill(1024)
			b.startAgent(quick{})
			full := func() bool {
				return figure(metrics(b.status), `rea_events_dropped_total\{reason="disk_full",stage="(?:keep|queue)"\}`) > 200
			}
			b.until("events are lost to the full disk", full)
			for range kills {
				b.agent.kill()
				b.restartAgent()
				time.Sleep(time.Duration(b.rng.Int64N(int64(300 * time.Millisecond))))
			}
			free()
			for range kills {
				b.agent.kill()
				b.restartAgent()
				time.Sleep(time.Duration(b.rng.Int64N(int64(200 * time.Millisecond))))
			}
			b.startServer()
			b.sent(100)
			r := b.settle("full disk "+name, 1+kills)
			if r.declared == 0 {
				t.Error("nothing was lost: the disk was not full")
			}
		})
	}
}

// TestFailingCalls has system calls of the agent, or of the server, fail now and
// then, as those of a dying disk do.
func TestFailingCalls(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("strace: %v: %s", err, out))
	}
	for _, c := range []struct{ whose, call, failure, when, queue string }{
		{"agent", "fdatasync", "EIO", "20+37", ""},
		{"agent", "fdatasync", "EIO", "30..60", ""},
		{"agent", "fsync", "EIO", "30+7", ""},
		{"agent", "pwrite64", "EIO", "25+31", ""},
		{"agent", "pwrite64", "ENOSPC", "40..46", ""}, // a full disk is tried again after a pause
		{"agent", "pwrite64,openat", "EROFS", "60..120", ""},
		{"agent", "pread64", "EIO", "5+11", "2MiB"}, // small segments are soon done
		{"agent", "unlinkat", "EIO", "3+3", "2MiB"},
		{"server", "fdatasync,fsync", "EIO", "20+17", ""},
		{"server", "pwrite64", "ENOSPC", "60..61", ""},
	} {
		name := fmt.Sprintf("%s %s of the %s", c.failure, c.call, c.whose)
		t.Run(strings.ReplaceAll(name+" "+c.when, " ", "_"), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			wrap := []string{"strace", "-f", "-qq", "--seccomp-bpf", "-o", b.Path("strace.out"), "-e", "signal=none", "-e", "trace=" + c.call, "-e", "inject=" + c.call + ":error=" + c.failure + ":when=" + c.when}
			var wrapAgent, wrapServer []string
			if c.whose == "agent" {
				wrapAgent = wrap
			} else {
				wrapServer = wrap
			}
			b.startWrappedServer(wrapServer)
			b.startAgent(quick{wrap: wrapAgent, queueBytes: c.queue})
			injected := func() int {
				text, _ := os.ReadFile(b.Path("strace.out"))
				return strings.Count(string(text), "(INJECTED)")
			}
			b.until("calls have failed", func() bool { return injected() >= 3 && b.books.safe() > 300 })
			b.sent(100)
			b.agent.leave()
			b.hearOut()
			b.server.leave()
			calls := injected()
			b.startServer()
			b.ends++
			b.startAgent(quick{})
			b.sent(20)
			b.settle(name, calls)
		})
	}
}

// startWrappedServer starts the server by another program.
func (b *bench) startWrappedServer(wrap []string) {
	b.T.Helper()
	b.wrap = wrap
	b.startServer()
	b.wrap = nil
}

// TestADiskThatTurnsReadOnly makes ext4 do what it does after an error on the
// disk: it refuses every write until it is mounted anew.
func TestADiskThatTurnsReadOnly(t *testing.T) {
	t.Parallel()
	d := newDisk(t, 64)
	b := newBench(t)
	b.queue, b.cursors = filepath.Join(d.dir, "queue"), d.dir
	b.startServer()
	b.startAgent(quick{})
	const times = 3
	for range times {
		b.sent(50)
		d.breakDown()
		b.until("the queue says so", func() bool { return strings.Contains(b.agent.said(), "read_only") })
		b.agent.leave()
		d.unmount()
		d.repair()
		d.mount()
		b.restartAgent()
	}
	b.sent(50)
	b.settle("a disk turns read-only", times)
}

// TestTheQueueIsRemovedUnderTheAgent removes the folder while the agent uses it.
// What lay in it is gone, and nobody can say of how much; but what comes after
// must arrive, and nothing twice or under a number in use.
func TestTheQueueIsRemovedUnderTheAgent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.startServer()
	b.startAgent(quick{})
	b.sent(100)
	const times = 3
	for range times {
		if err := os.RemoveAll(b.Path(b.queue)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		b.agent.stop()
		b.restartAgent()
		b.sent(100)
	}
	again := b.hush()
	b.drain()
	again()
	b.sent(100)
	b.hush()
	b.drain()
	b.agent.stop()
	b.server.stop()
	b.auditLoss("the queue's folder is removed", times)
}

// TestARestoredSnapshot puts an older copy of the queue's folder back, as the
// restoring of a machine does, and goes on.
func TestARestoredSnapshot(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.startServer()
	const times = 3
	for range times {
		b.startAgent(quick{})
		b.sent(60)
		b.agent.kill()
		b.Copy(b.queue, "snapshot")
		b.restartAgent()
		b.sent(60)
		again := b.hush()
		b.drain()
		b.agent.stop()
		b.ends++
		// What only the newer queue has is lost by the restoring, not by us.
		b.empty(b.queue, func() { b.startAgent(quick{still: true}) })
		again()
		if err := os.RemoveAll(b.Path(b.queue)); err != nil {
			t.Fatal(err)
		}
		b.Copy("snapshot", b.queue)
	}
	b.startAgent(quick{})
	b.sent(60)
	b.settle("a restored snapshot of the queue", times)
}

// TestAClonedQueue runs two agents at once with the same certificate and copies
// of the same queue, each with sources of its own.
func TestAClonedQueue(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.startServer()
	b.startAgent(quick{})
	b.sent(60)
	b.agent.kill()
	b.Copy(b.queue, "clone")
	for _, name := range []string{"clone-log", "clone-gauge"} {
		b.books.source(name, b.seed)
	}
	b.restartAgent()
	status := rig.FreeAddress(t)
	other := b.start("clone", b.agentCommand("clone.toml", status, "clone", "clone-", quick{}))
	t.Cleanup(other.end)
	time.Sleep(3 * time.Second)
	b.hush()
	b.until("both have delivered all", func() bool { return drained(b.status) && drained(status) })
	other.stop()
	b.agent.stop()
	b.empty(b.queue, func() { b.startAgent(quick{still: true}) })
	b.empty("clone", func() {
		b.agent = b.start("clone", b.agentCommand("clone.toml", b.status, "clone", "clone-", quick{still: true}))
	})
	b.server.stop()
	b.ends += 5
	b.audit("a cloned queue", 1, b.queue, "clone")
}
