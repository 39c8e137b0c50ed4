package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/ledger"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

// TestNoLossIsForgottenWhileEvidenceOverflows gives up many times what the queue
// of evidence holds, and with it the gap events that tell of that.
func TestNoLossIsForgottenWhileEvidenceOverflows(t *testing.T) {
	c := delivering(t)
	for range 2 { // what one process leaves the next one goes on with
		ctx, cancel := context.WithCancel(t.Context())
		flood := Source{Name: "flood", Run: func(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
			defer cancel()
			return overflow(ctx, emit)
		}}
		a, err := New(Options{Config: c, Version: "test", Log: slog.New(slog.DiscardHandler), Stdout: os.Stdout, Sources: []Source{flood}})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Run(ctx); err != nil {
			t.Fatal(err)
		}
		wantAllKnown(t, c.Networking.QueueDir)
	}
}

// TestNoLossIsForgottenThoughTheDiskRefusesTheLedger has a folder where the file
// belongs until the queue of evidence has overflowed many times.
func TestNoLossIsForgottenThoughTheDiskRefusesTheLedger(t *testing.T) {
	c := delivering(t)
	ctx, cancel := context.WithCancel(t.Context())
	path := filepath.Join(c.Networking.QueueDir, ledgerFile)
	flood := Source{Name: "flood", Run: func(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
		defer cancel()
		return errors.Join(overflow(ctx, emit), os.Remove(path))
	}}
	a, err := New(Options{Config: c, Version: "test", Log: slog.New(slog.DiscardHandler), Stdout: os.Stdout, Sources: []Source{flood}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
	wantAllKnown(t, c.Networking.QueueDir)
}

// delivering is the configuration of an agent without collectors that delivers to
// nobody.
func delivering(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	certs := filepath.Join(dir, "certs")
	if _, err := identity.Generate(certs, nil); err != nil {
		t.Fatal(err)
	}
	c := Default()
	for _, s := range []*CollectorSection{&c.Collectors.CPU, &c.Collectors.Memory, &c.Collectors.Disk, &c.Collectors.Network, &c.Collectors.Process, &c.Collectors.Host} {
		s.Enabled = false
	}
	c.Logging.Mode = "none"
	c.TLS.CAFile, c.TLS.ClientCert, c.TLS.ClientKey = filepath.Join(certs, identity.CAFile), filepath.Join(certs, identity.AgentFile), filepath.Join(certs, identity.AgentKey)
	c.Networking.Enabled, c.Networking.Endpoint = true, "https://127.0.0.1:1"
	c.Networking.QueueDir, c.Networking.QueueMaxBytes, c.Networking.QueueMinFreeBytes = filepath.Join(dir, "queue"), 1<<20, 0
	return c
}

// What a start declares must be written down before a number behind it is given:
// then nobody sees any more that those before it are missing.
func TestWhatAStartDeclaresIsWrittenBeforeANumberIsGiven(t *testing.T) {
	c := delivering(t)
	q, err := queue.Open(queue.Options{Dir: filepath.Join(c.Networking.QueueDir, "evidence"), MaxBytes: queue.MinBytes})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(q.Append(t.Context(), queue.Record{First: 1, Count: 1, Data: []byte("{}\n")}), q.Close()); err != nil {
		t.Fatal(err)
	}
	stream, path := q.Stream().String(), filepath.Join(c.Networking.QueueDir, ledgerFile)
	open := func() *ledger.Ledger {
		l, err := ledger.Open(path, stream, 2)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if err := open().Add(event.Missing{Cause: "read_only", Stream: stream, First: 4, Last: 6, Count: 3}); err != nil {
		t.Fatal(err)
	}
	a, err := New(Options{Config: c, Version: "test", Log: slog.New(slog.DiscardHandler), Stdout: os.Stdout})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range open().Take() {
		got = append(got, fmt.Sprintf("%s %d-%d", e.Cause, e.First, e.Last))
	}
	if want := []string{"read_only 4-6", "crash 2-3"}; !slices.Equal(got, want) {
		t.Errorf("a kill now leaves %q, want %q", got, want)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Run(ended); err != nil {
		t.Error(err)
	}
}

// A number that the last process could not keep, and declared missing, is not
// given to another event, though the queue does not know of it; and those before
// it, of which nobody could say so, are declared.
func TestANumberThatIsDeclaredMissingIsNotGivenAgain(t *testing.T) {
	c := delivering(t)
	start := func() {
		ctx, cancel := context.WithCancel(t.Context())
		one := Source{Name: "one", Run: func(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
			defer cancel()
			return emit(ctx, event.Event{Time: time.Now(), Kind: event.Agent, Body: &event.Notice{Action: "one"}})
		}}
		a, err := New(Options{Config: c, Version: "test", Log: slog.New(slog.DiscardHandler), Stdout: os.Stdout, Sources: []Source{one}})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	inspect := func() *queue.Inspection {
		q, err := queue.Inspect(filepath.Join(c.Networking.QueueDir, "evidence"))
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	start()
	q := inspect()
	l, err := ledger.Open(filepath.Join(c.Networking.QueueDir, ledgerFile), q.Stream.String(), q.Next)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Add(event.Missing{Cause: "read_only", Stream: q.Stream.String(), First: q.Next + 2, Last: q.Next + 4, Count: 3}); err != nil {
		t.Fatal(err)
	}
	start()
	var got []string
	begins := int64(-1)
	decoder := wire.NewDecompressor()
	for r, err := range inspect().Records(false) {
		if err != nil {
			t.Fatal(err)
		}
		lines, err := decoder.Decode(nil, r.Data, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(lines) {
			var ev struct {
				Seq uint64
				Gap struct {
					Cause       string
					First, Last uint64
				}
			}
			if err := json.Unmarshal(line, &ev); err != nil {
				t.Fatal(err)
			}
			if at := int64(ev.Seq) - int64(q.Next); at >= 0 && begins < 0 {
				begins = at
			}
			if ev.Gap.Cause != "" {
				got = append(got, fmt.Sprintf("%s %d-%d", ev.Gap.Cause, ev.Gap.First-q.Next, ev.Gap.Last-q.Next))
			}
		}
	}
	slices.Sort(got)
	if want := []string{"crash 0-1", "read_only 2-4"}; begins != 5 || !slices.Equal(got, want) {
		t.Errorf("the second process begins at %d, want 5, and declares %q, want %q", begins, got, want)
	}
}

// overflow emits several times what the queue of evidence holds, in a form that
// cannot be made small.
func overflow(ctx context.Context, emit func(context.Context, ...event.Event) error) error {
	for range 200 {
		var events []event.Event
		for range 4 {
			noise := make([]byte, 1024)
			_, _ = rand.Read(noise)
			events = append(events, event.Event{Time: time.Now(), Kind: event.Agent, Body: &event.Notice{Action: "noise", Reason: hex.EncodeToString(noise)}})
		}
		if err := emit(ctx, events...); err != nil {
			return err
		}
	}
	return nil
}

type missingRun struct {
	Stream      string
	First, Last uint64
}

// wantAllKnown wants every number of evidence that is not in the queue to be
// declared in it, or to be in the ledger or in the queue's own memory.
func wantAllKnown(t *testing.T, dir string) {
	t.Helper()
	q, err := queue.Inspect(filepath.Join(dir, "evidence")) // Open would find the holes by itself
	if err != nil {
		t.Fatal(err)
	}
	known := make([]bool, q.Next)
	mark := func(r missingRun) {
		for n := r.First; n <= r.Last && n < q.Next && r.Stream == q.Stream.String(); n++ {
			known[n] = true
		}
	}
	for _, l := range q.Losses {
		mark(missingRun{q.Stream.String(), l.First, l.Last})
	}
	text, err := os.ReadFile(filepath.Join(dir, ledgerFile))
	if err != nil {
		t.Fatal(err)
	}
	_, second, _ := bytes.Cut(text, []byte("\n"))
	var book struct {
		Missing []struct {
			missingRun
			Told uint64 `json:"told_first"`
		}
	}
	if err := json.Unmarshal(second, &book); err != nil {
		t.Fatal(err)
	}
	for _, m := range book.Missing {
		if m.Told == 0 {
			mark(m.missingRun)
		}
	}
	decoder := wire.NewDecompressor()
	for r, err := range q.Records(false) {
		if err != nil {
			t.Fatal(err)
		}
		for n := range uint64(r.Count) {
			known[r.First+n] = true
		}
		lines, err := decoder.Decode(nil, r.Data, 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(lines) {
			var ev struct{ Gap missingRun }
			if err := json.Unmarshal(line, &ev); err != nil {
				t.Fatal(err)
			}
			mark(ev.Gap)
		}
	}
	for n, ok := range known {
		if !ok && n > 0 {
			t.Fatalf("number %d of %d is not in the queue and nothing says why; the ledger is %s", n, q.Next-1, second)
		}
	}
	if q.Next < 700 {
		t.Fatalf("only %d numbers: nothing was given up", q.Next)
	}
}

// A renewal closes the queue, and may not be able to open what lies there then: for
// want of a descriptor, or while a scanner has a file. Events wait until it can.
func TestAQueueThatCouldNotBeOpenedAfterARenewalIsTriedAgain(t *testing.T) {
	refused := errors.New("too many open files")
	for name, c := range map[string]struct {
		renewed bool // before it could not be opened
		want    error
	}{
		"it is the new one": {true, nil},
		"it is the old one": {false, refused},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "evidence")
			closed := openQueue(t, dir)
			if err := closed.Close(); err != nil {
				t.Fatal(err)
			}
			if c.renewed {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
			held := openQueue(t, dir) // who has it is in the way
			var said bytes.Buffer
			l := &lane{name: "evidence", agent: &Agent{o: Options{Log: slog.New(slog.NewTextHandler(&said, nil))}}}
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 3*lookAgain)
				defer cancel()
				if q, err := l.reopen(ctx, closed, refused); q != nil || err == nil {
					t.Errorf("opened what another has: %v", err)
				}
				time.AfterFunc(3*lookAgain, func() {
					if err := held.Close(); err != nil {
						t.Error(err)
					}
				})
				q, err := l.reopen(t.Context(), closed, refused)
				if q == nil || (err != nil) != (c.want != nil) || q.Stream() != held.Stream() {
					t.Fatalf("opened %v: %v", q, err)
				}
				if err := q.Close(); err != nil {
					t.Error(err)
				}
			})
			if !strings.Contains(said.String(), "events wait") {
				t.Errorf("said: %s", &said)
			}
		})
	}
}

func openQueue(t *testing.T, dir string) *queue.Queue {
	t.Helper()
	q, err := queue.Open(queue.Options{Dir: dir, MaxBytes: queue.MinBytes, Metrics: new(metric.Set), Lane: "evidence"})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Append(t.Context(), queue.Record{First: q.Next(), Count: 1, Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	return q
}

func TestAFolderThatCannotBeUsedSaysWhatToDo(t *testing.T) {
	for err, want := range map[error]struct {
		kind   error
		advice bool
	}{
		fs.ErrPermission:  {fs.ErrPermission, true},
		durable.ErrLocked: {ErrBusy, false},
		syscall.EMFILE:    {ErrOutput, false},
	} {
		got := ofFolder(fmt.Errorf("open queue: %w", err))
		if !errors.Is(got, err) || !errors.Is(got, want.kind) || strings.Contains(got.Error(), "must belong to the account") != want.advice {
			t.Errorf("%v: %v", err, got)
		}
	}
}
