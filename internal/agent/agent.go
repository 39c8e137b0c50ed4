// Package agent is REA on an endpoint: it wires the collectors to the pipeline,
// the pipeline to where events are safe, and that to the server.
//
// config.go is the whole configuration, sources.go the list of collectors,
// output.go where events go, reload.go what changes while it runs; this file is the agent's life. The agent stops in
// the order of the flow: the sources first, then a last event that says so, then
// the writers with what they still hold, then the senders. What the server has not
// acknowledged by then is in the queue and goes out at the next start.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/collect/eventlog"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/ledger"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/pipeline"
	"github.com/rea-agent/rea/internal/redact"
	"github.com/rea-agent/rea/internal/status"
)

// lastWords is how long the event that says that the agent stops may take.
const lastWords = 2 * time.Second

// What kind of error New and Run return, where a program acts on it.
var (
	ErrConfig = errors.New("what the configuration names cannot be used")
	ErrBusy   = errors.New("something is in use by another process")
	ErrOutput = errors.New("events cannot be written")
)

// kind is an error that is also one of those above, without saying so.
type kind struct {
	error
	is error
}

func (k *kind) Is(target error) bool { return target == k.is }
func (k *kind) Unwrap() error        { return k.error }

// Options are what an agent is made of.
type Options struct {
	Config  Config
	Version string
	Log     *slog.Logger   // the agent's own log
	Level   *slog.LevelVar // of Log, which the agent sets; may be nil
	Stdout  *os.File       // where events go with logging.mode = "stdout"
	Sources []Source       // beside the collectors

	// Reload reads the configuration again, and tells which file it is in, or
	// "". What of it cannot be taken while the agent runs is named. It may be nil.
	Reload func() (c Config, file string, err error)
	Hangup <-chan os.Signal // asks to reload at once; may be nil
}

// A Source is one that the caller brings along. Run emits until its context ends;
// what it returns before that is told and it is run again.
type Source struct {
	Name string
	Run  func(ctx context.Context, emit func(context.Context, ...event.Event) error) error
}

// brought makes a collect.Source of a Source.
type brought struct{ Source }

func (b brought) Run(ctx context.Context, w *collect.Watch) error { return b.Source.Run(ctx, w.Emit) }

// An Agent is made by New, runs once, and is closed by Run.
type Agent struct {
	o        Options
	node     string
	started  time.Time
	metrics  *metric.Set
	output   *output
	ledger   *ledger.Ledger // nil where nothing is delivered
	policy   atomic.Pointer[redact.Policy]
	pipeline *pipeline.Pipeline
	runner   *collect.Runner
	status   *status.Server // nil when off
	confined confinement    // set before Run
	end      context.CancelCauseFunc
	loaded   atomic.Pointer[TLSSection] // what the certificates in use were loaded by
	follower *follower
	reload   atomic.Pointer[reloadState] // nil before the first
	eventLog *eventlog.Source            // the last one; nil before
}

// New opens everything that can be refused: certificates, queue, files, the
// status port. What it returns has not read or sent anything yet.
func New(o Options) (*Agent, error) {
	o.Log = slog.New(redact.Log(o.Log.Handler()))
	a := &Agent{o: o, started: time.Now(), metrics: new(metric.Set), end: func(error) {}}
	a.follower = &follower{agent: a, inForce: o.Config}
	a.setLevel(&o.Config)
	a.measureReload()
	policy, err := Redaction(&o.Config)
	if err != nil {
		return nil, err
	}
	a.policy.Store(policy)
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name of this machine: %w", err)
	}
	if a.output, err = a.open(); err != nil {
		return nil, err
	}
	if a.status, err = a.listen(); err != nil {
		return nil, errors.Join(err, a.output.close())
	}
	a.pipeline = pipeline.New(pipeline.Options{
		Node:          a.node,
		Host:          hostname,
		MaxEventBytes: o.Config.Agent.MaxEventBytes,
		Redact:        a.redact,
		Metrics:       a.output.metrics,
		Evidence:      a.output.evidence,
		Tees:          a.output.tees,
		Ledger:        a.ledger,
		Set:           a.metrics,
		Log:           o.Log,
	})
	a.runner = collect.NewRunner(a.pipeline.Emit, o.Log, a.metrics)
	for _, s := range sources(&o.Config, policy, a.followEventLog) {
		if s.on {
			a.runner.Add(string(s.kind), s.open())
		}
	}
	for _, s := range o.Sources {
		a.runner.Add(s.Name, brought{s})
	}
	return a, nil
}

// Run collects and delivers until ctx ends, and then closes the agent. It
// returns nil after an orderly end, else what ended it.
func (a *Agent) Run(ctx context.Context) error {
	ctx, a.end = context.WithCancelCause(ctx)
	defer a.end(nil)
	wait := a.start(ctx)
	var start sync.WaitGroup // the sources need not wait until its event is on the disk
	start.Go(func() {
		a.tell(ctx, &event.Notice{Action: "start", Version: a.o.Version, ConfigHash: a.o.Config.Hash(), PID: os.Getpid()})
	})
	_ = a.runner.Run(ctx)
	start.Wait()
	return a.stop(ctx, wait)
}

// Once takes one reading of every collector, keeps it, and closes the agent.
func (a *Agent) Once(ctx context.Context) error { return a.through(ctx, a.runner.Once) }

// through runs what emits by itself and comes to an end, and closes the agent.
func (a *Agent) through(ctx context.Context, emit func(context.Context) error) error {
	ctx, a.end = context.WithCancelCause(ctx)
	defer a.end(nil)
	wait := a.start(ctx)
	err := emit(ctx)
	if cause := ended(ctx); cause != nil {
		err = cause // what the sources say then is only what follows from it
	}
	a.end(nil)
	wait()
	a.pipeline.Close()
	if n := a.pipeline.Undeclared(); n > 0 {
		err = errors.Join(err, &kind{fmt.Errorf("%d events could not be written", n), ErrOutput})
	}
	return errors.Join(err, a.output.close())
}

// start runs what is not a source. The function that it returns ends the writers
// and waits for everything.
func (a *Agent) start(ctx context.Context) (wait func()) {
	writing, endWriting := context.WithCancel(context.WithoutCancel(ctx))
	var writers, others sync.WaitGroup
	for _, l := range a.output.lanes {
		writers.Go(func() { _ = l.writer.Run(writing) })
		others.Go(func() { _ = l.sender.Run(ctx) })
		others.Go(func() { l.declare(ctx) })
	}
	if a.output.trust != nil {
		others.Go(func() { _ = a.output.renewer.Run(ctx) })
	}
	others.Go(func() { a.follow(ctx) })
	others.Go(func() { giveBack(ctx) })
	if a.status != nil {
		others.Go(func() {
			if err := a.status.Run(ctx); err != nil {
				a.end(err)
			}
		})
	}
	return func() {
		endWriting()
		writers.Wait()
		others.Wait()
	}
}

// settled is when the agent has read its certificates, opened its queues and made
// its first connection: from then on it needs less memory.
const settled = 2 * time.Second

// idle is how often what lies unused between objects is looked for. By itself the
// runtime lets a heap of 1.3 MB take up nearly four within an hour. A round takes
// about two milliseconds.
const idle = time.Minute

// giveBack gives the memory that only the start needed back to the system, and then
// what is not in use.
func giveBack(ctx context.Context) {
	for pause := settled; ; pause = idle {
		select {
		case <-time.After(pause):
			debug.FreeOSMemory()
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) stop(ctx context.Context, wait func()) error {
	cause := ended(ctx)
	if cause == nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		a.tell(last, &event.Notice{Action: "stop", Lasted: time.Since(a.started)})
		cancel()
	}
	wait()
	a.pipeline.Close()
	if n := a.pipeline.Undeclared(); n > 0 && !a.pipeline.Remembers() {
		a.o.Log.Error("events are lost, and the agent ends before a gap event could say so", "lost", n)
	}
	return errors.Join(cause, a.output.close())
}

// ended returns what ended ctx, or nil where that was the caller.
func ended(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (a *Agent) tell(ctx context.Context, n *event.Notice) {
	if err := a.pipeline.Emit(ctx, event.Event{Time: time.Now(), Kind: event.Agent, Body: n}); err != nil {
		a.o.Log.Error("emit agent event", "action", n.Action, "error", err.Error())
	}
}
