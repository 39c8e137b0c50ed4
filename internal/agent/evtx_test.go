package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/evtx"
)

// emitted gathers what a replay emits: record ids, and gaps as text.
type emitted struct{ list []string }

func (e *emitted) emit(_ context.Context, events ...event.Event) error {
	for _, ev := range events {
		switch body := ev.Body.(type) {
		case *event.Missing:
			e.list = append(e.list, fmt.Sprintf("gap %s %d-%d %d%s", body.Channel, body.FirstRecord, body.LastRecord, body.Count, body.Bound))
		case interface{ Encode(*event.Encoder) }:
			e.list = append(e.list, string(ev.Kind))
		}
	}
	return nil
}

const systemRecord = `<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider Name='P'/><EventID>1</EventID><EventRecordID>7</EventRecordID><Channel>System</Channel></System></Event>`

func TestDamageOfAnEventLogFileBecomesGaps(t *testing.T) {
	none := errors.New("not a chunk")
	var e emitted
	r := &replay{emit: e.emit}
	for _, d := range []*evtx.Damage{
		nil,
		{First: 8, Last: 9, Count: 2, Err: none},
		{First: 10, Last: 10, Count: 1, Err: none}, // one run with the one before
		nil,
		{First: 12, Last: 20, Err: none}, // a filtered log: nobody knows how many of them there were
		{Err: none},
	} {
		var err error
		if d == nil {
			err = r.add(t.Context(), []byte(systemRecord))
		} else {
			err = r.missing(t.Context(), d)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := r.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"eventlog", "gap System 8-10 3", "eventlog", "gap System 12-20 9at_most", "gap System 0-0 1unknown"}
	if d := cmp.Diff(want, e.list); d != "" {
		t.Errorf("emitted (-want +got):\n%s", d)
	}
}

func TestEachBatchOfAReplayIsEmittedBeforeItsRecordsAreUsedAgain(t *testing.T) {
	var e emitted
	r := &replay{emit: e.emit}
	for range 2*replayBatch + 3 {
		if err := r.add(t.Context(), []byte(systemRecord)); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.list) != 2*replayBatch {
		t.Errorf("%d events before the end, want %d", len(e.list), 2*replayBatch)
	}
	if err := r.flush(t.Context()); err != nil || len(e.list) != 2*replayBatch+3 {
		t.Errorf("%d events, %v", len(e.list), err)
	}
}

// A file with two damaged runs of chunks: what is read and what is declared
// missing are all numbers from the first to the last.
func TestAReplayAccountsForEachRecordOfADamagedFile(t *testing.T) {
	name := filepath.Join("..", "..", "..", "shared", "data", "evtx", "sample_with_a_bad_chunk_magic.evtx")
	f, err := os.Open(name)
	if err != nil {
		t.Skipf("samples: %s is not here", name)
	}
	defer f.Close()
	events, err := os.Create(filepath.Join(t.TempDir(), "events"))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	c := Default()
	c.Logging.Mode = "stdout"
	a, err := New(Options{Config: c, Log: slog.New(slog.DiscardHandler), Stdout: events})
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	err = a.Replay(t.Context(), []*os.File{f}, func(string, error) { said++ })
	if !errors.Is(err, ErrDamaged) || said == 0 {
		t.Errorf("%v; %d places were told", err, said)
	}
	text, err := os.ReadFile(events.Name())
	if err != nil {
		t.Fatal(err)
	}
	records, missing := 0, 0
	for line := range bytes.Lines(text) {
		var e struct {
			Kind string
			Gap  struct{ Count int }
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if missing += e.Gap.Count; e.Kind == "eventlog" {
			records++
		}
	}
	if records != 298 || missing != 1717 { // 45691 to 47705
		t.Errorf("%d records and %d missing, want 298 and 1717", records, missing)
	}
}
