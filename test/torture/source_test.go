//go:build torture && linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rea-agent/rea/internal/agent"
	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/event"
)

// An item is the body of an event of a source that can replay: its number in the
// source's own log, and what follows from that and the seed.
type item struct {
	Source string `json:"item_source"`
	Number uint64 `json:"item"`
	Text   string `json:"text"`
	Sum    string `json:"sum"`
}

// alphabet has what an encoder must escape, and letters of one to four bytes.
var alphabet = []rune("abcdefghijklmnopqrstuvwxyz 0123456789\"\\/\n\t\x01<>&äß€\u2028𝄞")

// newItem returns item n of the source of that name.
func newItem(name string, seed, n uint64) item {
	var text strings.Builder
	r := rand.New(rand.NewPCG(seed, n))
	for range r.IntN(300) {
		text.WriteRune(alphabet[r.IntN(len(alphabet))])
	}
	it := item{Source: name, Number: n, Text: text.String()}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %s", name, seed, n, it.Text))
	it.Sum = hex.EncodeToString(sum[:])
	return it
}

// Encode writes the item as an event's body.
func (it *item) Encode(e *event.Encoder) {
	e.String("item_source", it.Source)
	e.Uint("item", it.Number)
	e.String("text", it.Text)
	e.String("sum", it.Sum)
}

// mostItems is how many items a source hands over at once.
const mostItems = 8

// A replayer is a source with a log of its own, like an event log: after a start
// it goes on where its cursor says, and the cursor moves when Emit has returned.
type replayer struct {
	name  string
	kind  event.Kind
	seed  uint64
	dir   string // of the cursor
	quiet string // while this file is there, nothing is emitted
}

func (r *replayer) cursor() string { return filepath.Join(r.dir, r.name+".cursor") }

// load returns the first item that is not known to be safe.
func (r *replayer) load() (uint64, error) {
	text, err := os.ReadFile(r.cursor())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(text), 10, 64)
}

// run is agent.Source.Run.
func (r *replayer) run(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
	next, err := r.load()
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if _, err := os.Stat(r.quiet); err == nil {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		n := 1 + rand.Uint64N(mostItems)
		if err := emit(ctx, r.events(next, n)...); err != nil {
			return err
		}
		next += n
		fmt.Printf("safe %s %d\n", r.name, next)
		r.save(ctx, next)
		pause(ctx, rand.N(12*time.Millisecond))
	}
	return ctx.Err()
}

func (r *replayer) events(first, n uint64) (events []event.Event) {
	for i := range n {
		it := newItem(r.name, r.seed, first+i)
		events = append(events, event.Event{Time: time.Now(), Kind: r.kind, Body: &it})
	}
	return events
}

// save moves the cursor. A source whose cursor cannot be moved hands over nothing
// more, since a restart would hand over all of it again.
func (r *replayer) save(ctx context.Context, next uint64) {
	for ctx.Err() == nil {
		if durable.WriteFile(r.cursor(), strconv.AppendUint(nil, next, 10), 0o600) == nil {
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// beAgent is what rea-agent is, with two sources that replay: one of evidence,
// one of measurements. Its arguments are the configuration file, the seed, a
// prefix of the sources' names, and the folder of their cursors. On standard
// output it says what Emit acknowledged.
func beAgent(args []string) error {
	debug.SetGCPercent(50) // as in cmd/rea-agent
	runtime.GOMAXPROCS(1)
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	file, prefix, dir := args[0], args[2], args[3]
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	c := agent.Default()
	if _, err := c.Spec().Load(config.Sources{File: file}); err != nil {
		return err
	}
	var sources []agent.Source
	for name, kind := range map[string]event.Kind{"log": event.Journal, "gauge": event.CPU} {
		r := &replayer{name: prefix + name, kind: kind, seed: seed, dir: dir, quiet: "quiet"}
		sources = append(sources, agent.Source{Name: r.name, Run: r.run})
	}
	a, err := agent.New(agent.Options{
		Config: c, Version: "torture", Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Stdout: os.Stdout, Sources: sources,
	})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
