package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/redact/redacttest"
	"github.com/rea-agent/rea/internal/wire"
)

// record is a body as a source of foreign records has it.
type record struct{ message, command string }

func (r *record) Encode(e *event.Encoder) {
	e.Sensitive("message", event.Text, r.message)
	e.Sensitive("command_line", event.Command, r.command)
}

// corpus is a source that emits each planted secret in every place where an event
// can have foreign words, and then one event that a server refuses.
type corpus struct {
	planted []redacttest.Planted
	done    chan struct{}
}

const refused = "the server does not want this one"

func (c *corpus) run(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
	var events []event.Event
	for _, p := range c.planted {
		if p.Shell {
			events = append(events, event.Event{Time: time.Now(), Kind: event.Journal, Body: &record{command: p.Line}})
			continue
		}
		events = append(events, event.Event{Time: time.Now(), Kind: event.Journal, Body: &record{message: p.Line}},
			event.Event{Time: time.Now(), Kind: event.Agent, Body: &event.Notice{Action: "start", Reason: p.Line}, Errors: []string{"field: " + p.Line}})
	}
	for some := range slices.Chunk(events, 100) {
		if err := emit(ctx, some...); err != nil {
			return err
		}
	}
	if err := emit(ctx, event.Event{Time: time.Now(), Kind: event.Agent, Body: &event.Notice{Action: "start", Reason: refused}}); err != nil {
		return err
	}
	close(c.done)
	<-ctx.Done()
	return ctx.Err()
}

// fails is a source whose error quotes a secret.
func (c *corpus) fails(ctx context.Context, _ func(context.Context, ...event.Event) error) error {
	<-c.done
	return fmt.Errorf("query failed: %s", c.planted[0].Line)
}

// deliver runs an agent with the corpus until until returns, and returns its log.
func (c *corpus) deliver(t *testing.T, config Config, stdout *os.File, until func()) string {
	t.Helper()
	for _, s := range []*CollectorSection{&config.Collectors.CPU, &config.Collectors.Memory, &config.Collectors.Disk, &config.Collectors.Network, &config.Collectors.Process, &config.Collectors.Host} {
		s.Enabled = false
	}
	config.Agent.RedactPII, config.Collectors.RedactCmdline = false, false // secrets go even so
	c.done = make(chan struct{})
	var log bytes.Buffer
	a, err := New(Options{Config: config, Version: "test", Log: slog.New(slog.NewJSONHandler(&log, nil)), Stdout: stdout, Sources: []Source{{"corpus", c.run}, {"failing", c.fails}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { err = a.Run(ctx) })
	<-c.done
	until()
	end()
	run.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return log.String()
}

// found counts the secrets that are in text, as they are and as JSON has them.
func (c *corpus) found(t *testing.T, place, text string) int {
	t.Helper()
	n := 0
	for _, p := range c.planted {
		quoted, _ := json.Marshal(p.Secret)
		if strings.Contains(text, p.Secret) || strings.Contains(text, strings.Trim(string(quoted), `"`)) {
			n++
			t.Errorf("%s: a secret (%s) reached %s: %s", p.Kind, p.Line, place, p.Secret)
		}
	}
	return n
}

func TestNoSecretReachesStdoutFileDiskOrWire(t *testing.T) {
	c := &corpus{planted: redacttest.Secrets(7, 8)}
	if len(c.planted) < 500 {
		t.Fatalf("only %d secrets", len(c.planted))
	}
	t.Logf("%-28s %10s %10s %8s", "PLACE", "BYTES", "REDACTED", "SECRETS")
	check := func(place, text string, least int) {
		marks := strings.Count(text, "[redacted]")
		if marks < least {
			t.Errorf("%s has %d marks only: is the corpus there?", place, marks)
		}
		t.Logf("%-28s %10d %10d %8d", place, len(text), marks, c.found(t, place, text))
	}
	pause := func() { time.Sleep(50 * time.Millisecond) } // for what is said at the same time; decides nothing

	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	log := c.deliver(t, Default(), out, pause)
	check("stdout", contents(t, out.Name()), len(c.planted))
	c.found(t, "the agent's log", log)

	config := Default()
	config.Logging.Mode, config.Logging.FilePath = "file", filepath.Join(dir, "events", "events.ndjson")
	if err := os.Mkdir(filepath.Dir(config.Logging.FilePath), 0o700); err != nil {
		t.Fatal(err)
	}
	c.deliver(t, config, nil, pause)
	check("file", contents(t, filepath.Dir(config.Logging.FilePath)), len(c.planted))

	certs := filepath.Join(dir, "certs")
	if _, err := identity.Generate(certs, []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	for _, compression := range []string{"none", "zstd"} {
		r := newTakesAll(t, certs, "line 2: cannot log in with "+c.planted[0].Line)
		config := Default()
		config.Logging.Mode = "none"
		config.Networking.Enabled, config.Networking.Compression = true, compression
		config.Networking.QueueDir = filepath.Join(dir, "queue-"+compression)
		config.Networking.QueueMinFreeBytes = 0
		config.TLS.CAFile, config.TLS.ClientCert, config.TLS.ClientKey = filepath.Join(certs, identity.CAFile), filepath.Join(certs, identity.AgentFile), filepath.Join(certs, identity.AgentKey)
		config.Networking.Endpoint = "https://127.0.0.1:1" // nobody is there: all of it waits on the disk
		c.deliver(t, config, nil, pause)
		queue := contents(t, config.Networking.QueueDir)
		if compression == "none" {
			check("queue folder, uncompressed", queue, len(c.planted))
		} else {
			c.found(t, "queue folder, zstd", queue)
		}

		config.Networking.Endpoint = r.server.URL
		log := c.deliver(t, config, nil, func() { <-r.buried })
		check("wire, "+compression+", decompressed", r.String(), len(c.planted))
		letters := contents(t, filepath.Join(config.Networking.QueueDir, lettersFolder))
		check("dead letters, "+compression, letters, 1)
		c.found(t, "the agent's log", log)
		if !strings.Contains(log, "cannot log in with") {
			t.Error("the log does not tell what the server said")
		}
	}
}

// contents returns all that is in the files below a folder, or of one file.
func contents(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// takesAll is a receiver that remembers what it was sent, and refuses one line
// with the reason that it was given.
type takesAll struct {
	server *httptest.Server
	reason string
	buried chan struct{} // closed when something came behind what was refused

	mu      sync.Mutex
	text    strings.Builder
	refused bool
	once    sync.Once
}

func newTakesAll(t *testing.T, certs, reason string) *takesAll {
	t.Helper()
	conf, err := identity.ServerTLS(identity.Server{
		CertFile: filepath.Join(certs, identity.ServerFile), KeyFile: filepath.Join(certs, identity.ServerKey), ClientCAFile: filepath.Join(certs, identity.CAFile),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &takesAll{reason: reason, buried: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.IngestPath, r.ingest)
	mux.HandleFunc("POST "+wire.ResumePath, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(wire.Answer{}) })
	r.server = httptest.NewUnstartedServer(mux)
	r.server.TLS = conf
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	return r
}

func (r *takesAll) ingest(w http.ResponseWriter, req *http.Request) {
	b, err := wire.ParseBatch(req.Header)
	body, readErr := io.ReadAll(req.Body)
	if err = errors.Join(err, readErr); err == nil && wire.IsZstd(body) {
		body, err = wire.NewDecompressor().Decode(nil, body, 64<<20)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(body)
	for i, line := range bytes.Split(body, []byte("\n")) {
		if bytes.Contains(line, []byte(refused)) {
			r.refused = true
			w.WriteHeader(http.StatusUnprocessableEntity)
			_ = json.NewEncoder(w).Encode(wire.Answer{Error: r.reason, Line: i + 1})
			return
		}
	}
	if r.refused && bytes.Contains(body, []byte(`"cause":"rejected"`)) {
		r.once.Do(func() { close(r.buried) })
	}
	_ = json.NewEncoder(w).Encode(wire.Answer{Last: b.Last})
}

func (r *takesAll) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}
