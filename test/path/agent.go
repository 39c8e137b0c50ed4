package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/pipeline"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/redact"
	"github.com/rea-agent/rea/internal/ship"
	"github.com/rea-agent/rea/internal/wire"
)

// agent does one part of an agent's work, as cmd/rea-agent would: with its
// garbage collection, one processor, late timers, and the defaults of its metrics
// lane.
func agent(j job) error {
	debug.SetGCPercent(50)
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	easeTimers()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	begin, r := time.Now(), &result{Readings: j.role == "minute"}
	q, err := queue.Open(queue.Options{Dir: j.queue, MaxBytes: 1 << 30})
	if err != nil {
		return err
	}
	r.OpenMillis = float64(time.Since(begin).Microseconds()) / 1000
	l := newLane(q, r)
	switch j.role {
	case "send":
		err = l.during(ctx, func() error {
			return l.deliver(ctx, j, r, func() error { return feed(ctx, j, l.pipeline.Emit) })
		})
	case "fill":
		err = l.during(ctx, func() error { return feed(ctx, j, l.pipeline.Emit) })
	case "drain":
		err = l.deliver(ctx, j, r, func() error { return nil })
	case "minute":
		err = l.during(ctx, func() error {
			return l.deliver(ctx, j, r, func() error { return l.collect(ctx, j.minute) })
		})
	case "stuff":
		err = stuff(ctx, q)
	}
	if err != nil {
		return err
	}
	r.WallSeconds = time.Since(begin).Seconds()
	r.Events = q.Next() - 1
	if fed := j.role == "send" || j.role == "fill"; fed && r.Events != j.events {
		return fmt.Errorf("%d events were handed over and %d numbers given", j.events, r.Events)
	}
	r.Folder = uint64(q.Stats().DiskBytes)
	r.Records += uint64(q.Stats().Bytes)
	r.PeakMB, r.Written = peakMB(), pagesWritten()
	if err := q.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// easeTimers lets the kernel wake this process up to four milliseconds late, as
// cmd/rea-agent does.
func easeTimers() {
	threads, _ := filepath.Glob("/proc/self/task/*")
	for _, t := range threads {
		_ = os.WriteFile(filepath.Join("/proc", filepath.Base(t), "timerslack_ns"), []byte("4000000"), 0)
	}
}

// A lane is what an agent has between its sources and the connection.
type lane struct {
	queue    *queue.Queue
	writer   *ship.Writer
	pipeline *pipeline.Pipeline
	set      *metric.Set
	log      *slog.Logger
}

func newLane(q *queue.Queue, r *result) *lane {
	l := &lane{queue: q, set: new(metric.Set), log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	l.writer = ship.NewWriter(ship.WriterOptions{Queue: q, Compressor: wire.NewDictionaryCompressor(), Linger: 20 * time.Millisecond})
	keeper := &tally{l.writer, r}
	l.pipeline = pipeline.New(pipeline.Options{
		Node: "0190d1c0-0000-7000-8000-000000000001", Host: "lab-7", MaxEventBytes: 256 << 10, Redact: pipeline.Redactor(redact.New(redact.Options{PII: true, Commands: true})),
		Metrics: keeper, Evidence: keeper, Set: l.set, Log: l.log,
	})
	return l
}

// A tally counts what goes to a writer. The pipeline makes one call at a time.
type tally struct {
	*ship.Writer
	r *result
}

// Keep counts lines and hands them on.
func (t *tally) Keep(lines []byte, first uint64, n int) (func(context.Context) error, error) {
	t.r.Lines += uint64(len(lines))
	if t.r.Readings {
		t.r.Points += points(lines)
	}
	return t.Writer.Keep(lines, first, n)
}

// points counts the data points in lines: the numbers that collectors read, but
// those that say which core or process it is. docs/decisions/0016 says why.
func points(lines []byte) (n uint64) {
	for line := range bytes.Lines(lines) {
		var e map[string]any
		if err := json.Unmarshal(line, &e); err != nil {
			panic(err) // the pipeline writes JSON
		}
		kind, _ := e["kind"].(string)
		n += numbers(kind, e[kind])
	}
	return n
}

func numbers(name string, v any) (n uint64) {
	switch v := v.(type) {
	case float64:
		if name != "number" && name != "pid" && name != "parent_pid" {
			n = 1
		}
	case map[string]any:
		for name, m := range v {
			n += numbers(name, m)
		}
	case []any:
		for _, m := range v {
			n += numbers(name, m)
		}
	}
	return n
}

// during runs f while the writer writes.
func (l *lane) during(ctx context.Context, f func() error) error {
	ctx, end := context.WithCancel(ctx)
	var writing sync.WaitGroup
	writing.Go(func() { _ = l.writer.Run(ctx) })
	err := f()
	end()
	writing.Wait()
	return err
}

// deliver runs f while the sender sends, and waits until all is acknowledged.
func (l *lane) deliver(ctx context.Context, j job, r *result, f func() error) error {
	var sent atomic.Uint64
	client, err := newClient(j.dir, &sent)
	if err != nil {
		return err
	}
	sender := ship.NewSender(ship.SenderOptions{
		Queue: l.queue, Lane: "metrics", Endpoint: j.endpoint, Client: client, UserAgent: "path", Interval: j.interval,
		Instance: strings.Repeat("0", 32), Assigned: l.writer.Assigned,
		Backoff: ship.Backoff{Min: time.Millisecond, Max: time.Second}, RetryBudget: 60,
		Explain: identity.Explain, Account: account{}, Set: l.set, Log: l.log,
	})
	ctx, end := context.WithCancel(ctx)
	var sending sync.WaitGroup
	sending.Go(func() { _ = sender.Run(ctx) })
	err = f()
	for err == nil && l.queue.Acked() < l.queue.Next()-1 {
		time.Sleep(20 * time.Millisecond)
		err = ctx.Err()
	}
	end()
	sending.Wait()
	client.CloseIdleConnections()
	r.Wire = sent.Load()
	r.Records = l.set.Counter("rea_sent_bytes_total", "", "lane", "metrics").Value()
	return err
}

// account is for what never happens here: a receiver that refuses.
type account struct{}

var errRefused = errors.New("the receiver refuses what it should not")

func (account) Bury(context.Context, ship.Refused) error    { return errRefused }
func (account) Crashed(context.Context, uint64) error       { return errRefused }
func (account) Renew(context.Context) (*queue.Queue, error) { return nil, errRefused }

// newClient returns a client with the options of the agent's that counts what it
// sends, TLS included.
func newClient(dir string, sent *atomic.Uint64) (*http.Client, error) {
	conf, err := identity.ClientTLS(identity.Client{
		CAFile: filepath.Join(dir, identity.CAFile), CertFile: filepath.Join(dir, identity.AgentFile), KeyFile: filepath.Join(dir, identity.AgentKey), Verify: true,
	})
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		TLSClientConfig: conf, DisableCompression: true, ResponseHeaderTimeout: 30 * time.Second, WriteBufferSize: 16 << 10, ReadBufferSize: 4 << 10,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			return &counted{c, sent}, err
		},
	}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	return &http.Client{Transport: t, Timeout: 30 * time.Second}, nil
}

type counted struct {
	net.Conn
	sent *atomic.Uint64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(uint64(n))
	return n, err
}

// stuff fills the queue with what cannot be compressed, until it drops some.
func stuff(ctx context.Context, q *queue.Queue) error {
	data := make([]byte, q.MaxRecord()/64)
	for {
		_, _ = rand.Read(data) // never fails
		data[0] = '{'          // no zstd
		if err := q.Append(ctx, queue.Record{First: q.Next(), Count: 1, Data: data}); err != nil {
			return err
		}
		select {
		case <-q.Lossy():
			return nil
		default:
		}
	}
}

// peakMB returns the most memory that this process had resident, in MB.
func peakMB() float64 { return ofProc("status", "VmHWM: %f kB") * 1024 / 1e6 }

// pagesWritten returns how many bytes this process made the system write.
func pagesWritten() uint64 { return uint64(ofProc("io", "write_bytes: %f")) }

func ofProc(file, format string) (v float64) {
	text, _ := os.ReadFile(filepath.Join("/proc/self", file)) // 0 where there is none
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, format, &v); err == nil {
			return v
		}
	}
	return 0
}
