// Command path measures what an event costs on its whole way: through the
// pipeline, the writer and the queue with its syncs, and over mTLS with zstd to a
// receiver that throws it away. Each part runs in a process of its own, so that
// what is told of the agent is the agent's alone. It prints figures beside their
// budgets and ends well whatever they are: a noisy machine is not a failed test.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rea-agent/rea/internal/identity"
)

func main() {
	var j job
	flag.Uint64Var(&j.events, "events", 1_000_000, "how many events go the way")
	flag.StringVar(&j.dir, "dir", "", "where to make a folder for the queues, on a real disk; empty for the system's")
	flag.IntVar(&j.call, "call", 256, "how many events a source hands over at once")
	flag.DurationVar(&j.minute, "minute", time.Minute, "how long the collectors of this machine are read")
	flag.DurationVar(&j.interval, "interval", time.Second, "the least time between two batches; set by itself")
	flag.StringVar(&j.role, "role", "", "what this process is a part of; set by itself")
	flag.StringVar(&j.queue, "queue", "", "the folder of the queue; set by itself")
	flag.StringVar(&j.endpoint, "endpoint", "", "where the receiver listens; set by itself")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("path: ")
	var err error
	switch j.role {
	case "":
		err = bench(j)
	case "receive":
		err = receive(j.dir)
	default:
		err = agent(j)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// A job is what one process is told to do.
type job struct {
	role, dir, queue, endpoint string
	events                     uint64
	call                       int
	minute, interval           time.Duration
}

// A result is what an agent's process tells of itself, but CPU, which is asked
// of the system when it has ended.
type result struct {
	Readings           bool // of this machine; false: made up
	Events             uint64
	Lines              uint64 // bytes of the lines that were written
	Points             uint64 // data points in them, of real readings alone
	Records            uint64 // bytes of the records in the queue
	Folder             uint64 // bytes that the queue took up on the disk at the end
	Written            uint64 // bytes that were written to disks, in pages
	Wire               uint64 // bytes on the connection, all that was sent
	PeakMB             float64
	OpenMillis         float64
	WallSeconds        float64
	cpuSeconds, system float64
}

// bench starts the parts one after the other and prints the table.
func bench(j job) error {
	dir, err := os.MkdirTemp(j.dir, "path")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	j.dir = dir
	if _, err := identity.Generate(dir, []string{"127.0.0.1"}); err != nil {
		return err
	}
	endpoint, end, err := startReceiver(dir)
	if err != nil {
		return err
	}
	defer end()
	j.endpoint = endpoint

	fmt.Printf("%-58s %10s   %-8s %s\n", "FIGURE", "MEASURED", "BUDGET", "VERDICT")
	for _, measure := range []func(job) error{whole, outage, full, minute} {
		if err := measure(j); err != nil {
			return err
		}
	}
	return nil
}

// whole measures the way from Emit to the acknowledgement.
func whole(j job) error {
	r, err := j.run("send", "whole")
	if err != nil {
		return err
	}
	n, m := float64(r.Events), float64(r.Events)/1e6
	report("whole path: CPU per million events", r.cpuSeconds/m, "s", 2.0)
	tell("whole path: of that in the kernel", r.system/m, "s")
	tell("whole path: wall time", r.WallSeconds, "s")
	report("whole path: resident memory at most", r.PeakMB, "MB", 32)
	report("whole path: record bytes to the queue per event", float64(r.Records)/n, "B", 65)
	tell("whole path: bytes to the disk per event, in pages", float64(r.Written)/n, "B")
	report("whole path: bytes on the connection per event", float64(r.Wire)/n, "B", 36)
	return nil
}

// outage measures how a queue that filled while the server was away is drained.
func outage(j job) error {
	r, err := j.run("fill", "outage")
	if err != nil {
		return err
	}
	n, m := float64(r.Events), float64(r.Events)/1e6
	tell("outage: bytes of a line", float64(r.Lines)/n, "B")
	report("outage: folder of the queue per event", float64(r.Folder)/n, "B", 65)
	tell("outage: CPU to fill it per million events", r.cpuSeconds/m, "s")
	if r, err = j.run("drain", "outage"); err != nil {
		return err
	}
	report("outage: CPU to drain it per million events", r.cpuSeconds/m, "s", 0.5)
	tell("outage: wall time to drain it", r.WallSeconds, "s")
	tell("outage: resident memory at most", r.PeakMB, "MB")
	return nil
}

// full measures the opening and draining of a queue of 1 GiB that is full.
func full(j job) error {
	if _, err := j.run("stuff", "full"); err != nil {
		return err
	}
	cold := evict(filepath.Join(j.dir, "full"))
	r, err := j.run("drain", "full")
	if err != nil {
		return err
	}
	report("1 GiB of queue: open, "+cold, r.OpenMillis, "ms", 200)
	report("1 GiB of queue: resident memory at most, drained", r.PeakMB, "MB", 64)
	tell("1 GiB of queue: CPU to drain it", r.cpuSeconds, "s")
	return nil
}

// evict takes the files of a queue out of the page cache, as far as the system
// has a dd that can, and says whether it did.
func evict(dir string) string {
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		if exec.Command("dd", "if="+f, "iflag=nocache", "count=0", "status=none").Run() != nil {
			return "from the page cache"
		}
	}
	return "not in the page cache"
}

// minute measures what the readings of this machine's collectors become at their
// default intervals, with batches as they are by default and with one a minute.
// The budget is for a metric event, which docs/decisions/0016 reads as a data point;
// what our events take, whole readings, is told beside it.
func minute(j job) error {
	r, err := j.run("minute", "second")
	if err != nil {
		return err
	}
	n, size := float64(r.Events), float64(r.Lines)
	tell("a minute of the collectors here: events", n, "")
	tell("a minute: data points of an event", float64(r.Points)/n, "")
	tell("a minute: bytes of a line", size/n, "B")
	tell("a minute: batch bytes per event", float64(r.Records)/n, "B")
	tell("a minute: batch bytes per 350 B of lines", float64(r.Records)/size*350, "B")
	report("a minute: batch bytes per data point", float64(r.Records)/float64(r.Points), "B", 15)
	report("a minute: bytes on the connection per data point", float64(r.Wire)/float64(r.Points), "B", 15)
	j.interval = time.Minute
	if r, err = j.run("minute", "minute"); err != nil {
		return err
	}
	tell("60 s batches: batch bytes per event", float64(r.Records)/float64(r.Events), "B")
	tell("60 s batches: batch bytes per 350 B of lines", float64(r.Records)/float64(r.Lines)*350, "B")
	report("60 s batches: batch bytes per data point", float64(r.Records)/float64(r.Points), "B", 15)
	report("60 s batches: bytes on the connection per data point", float64(r.Wire)/float64(r.Points), "B", 15)
	return nil
}

func report(figure string, v float64, unit string, budget float64) {
	verdict := "met"
	if v > budget {
		verdict = "MISSED"
	}
	fmt.Printf("%-58s %7.2f %-2s   ≤ %-6g %s\n", figure, v, unit, budget, verdict)
}

// tell prints a figure that has no budget.
func tell(figure string, v float64, unit string) {
	fmt.Printf("%-58s %7.2f %s\n", figure, v, unit)
}

// run runs a part in a process of its own and returns what it tells.
func (j job) run(role, queue string) (r result, err error) {
	cmd := exec.Command(os.Args[0], "-role", role, "-dir", j.dir, "-queue", filepath.Join(j.dir, queue), "-endpoint", j.endpoint,
		"-events", strconv.FormatUint(j.events, 10), "-call", strconv.Itoa(j.call), "-minute", j.minute.String(), "-interval", j.interval.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("process that does %q: %w", role, err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("result of %q: %w", role, err)
	}
	r.system = cmd.ProcessState.SystemTime().Seconds()
	r.cpuSeconds = cmd.ProcessState.UserTime().Seconds() + r.system
	return r, nil
}
