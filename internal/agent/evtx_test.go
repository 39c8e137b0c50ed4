package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/config"
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

// planted returns a record of that channel and event id.
func planted(channel string, id int) []byte {
	return fmt.Appendf(nil, `<Event><System><Provider Name='P'/><EventID>%d</EventID><Channel>%s</Channel></System></Event>`, id, channel)
}

func mustSelect(t *testing.T, expr string) *Selection {
	t.Helper()
	only, err := Select(expr)
	if err != nil {
		t.Fatal(err)
	}
	return only
}

func TestRecordsThatAreNotSelectedAreNoEventsAndNoGaps(t *testing.T) {
	var e emitted
	r := &replay{emit: e.emit, only: mustSelect(t, "*[System[EventID=1]]")}
	none := errors.New("not a chunk")
	for _, step := range []any{
		planted("A", 1),
		planted("B", 2), // not selected, but the gap behind it is of its channel
		&evtx.Damage{First: 3, Last: 3, Count: 1, Err: none},
		planted("B", 2),
		&evtx.Damage{First: 4, Last: 4, Count: 1, Err: none}, // a run of its own: a record lies between them
		&evtx.Damage{First: 5, Last: 9, Count: 5, Err: none},
		planted("C", 2),
		planted("C", 1),
		[]byte("<Event><broken"), // nobody can say
	} {
		var err error
		switch step := step.(type) {
		case []byte:
			err = r.add(t.Context(), step)
		case *evtx.Damage:
			err = r.missing(t.Context(), step)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := r.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"eventlog", "gap B 3-3 1", "gap B 4-9 6", "eventlog", "eventlog"}, e.list); d != "" {
		t.Errorf("emitted (-want +got):\n%s", d)
	}
}

func TestAWrongExpressionSaysWhereAndWhatWouldBeRight(t *testing.T) {
	_, err := Select("*[System[not(Level=4)]]")
	want := &config.Fault{What: "column 10: Windows has no not()", Fix: "turn the comparison round: Level!=4"}
	if fault, _ := errors.AsType[*config.Fault](err); fault == nil || *fault != *want {
		t.Errorf("%#v, want %#v", err, want)
	}
}

// sampleLog opens a real log, which lie beside the repository where there are any.
func sampleLog(t *testing.T, file string) *os.File {
	t.Helper()
	name := filepath.Join("..", "..", "..", "shared", "data", "evtx", file)
	f, err := os.Open(name)
	if err != nil {
		t.Skipf("samples: %s is not here", name)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// seen is what encoding/xml reads of a record.
type seen struct {
	System struct {
		Provider struct {
			Name string `xml:",attr"`
		}
		EventID, Level int
		Keywords       string
		TimeCreated    struct {
			SystemTime time.Time `xml:",attr"`
		}
	}
	EventData struct {
		Data []struct {
			Name  string `xml:",attr"`
			Value string `xml:",chardata"`
		}
	}
}

func (s *seen) data(name, value string) bool {
	for _, d := range s.EventData.Data {
		if (name == "" || d.Name == name) && d.Value == value {
			return true
		}
	}
	return false
}

func TestAnExpressionSelectsOfRealLogsWhatAnIndependentCountFinds(t *testing.T) {
	for _, file := range []string{"new-user-security.evtx", "sysmon.evtx", "system.evtx", "sample_with_a_bad_chunk_magic.evtx"} {
		t.Run(file, func(t *testing.T) {
			var all []seen
			var texts [][]byte
			f := sampleLog(t, file)
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			log, err := evtx.Open(f, info.Size())
			if err != nil {
				t.Fatal(err)
			}
			for r, damage := range log.Records() {
				if damage != nil {
					continue
				}
				var s seen
				if err := xml.Unmarshal(r.XML, &s); err != nil {
					t.Fatalf("%v: %s", err, r.XML)
				}
				all, texts = append(all, s), append(texts, bytes.Clone(r.XML))
			}
			first := all[len(all)/2].System.TimeCreated.SystemTime
			tests := map[string]func(*seen) bool{
				"*": func(*seen) bool { return true },
				"*[System[(Level=1  or Level=2) and (EventID=20 or EventID=10016 or EventID=7023)]]": func(s *seen) bool {
					return s.System.Level <= 2 && s.System.Level > 0 && (s.System.EventID == 20 || s.System.EventID == 10016 || s.System.EventID == 7023)
				},
				"*[System[Provider[@Name='Service Control Manager' or @Name='Microsoft-Windows-Sysmon'] and band(Keywords,9223372036854775808)]]": func(s *seen) bool {
					n, err := strconv.ParseUint(s.System.Keywords, 0, 64)
					return err == nil && n>>63 == 1 && (s.System.Provider.Name == "Service Control Manager" || s.System.Provider.Name == "Microsoft-Windows-Sysmon")
				},
				"*[EventData[Data[@Name='QueryName']='wpad' or Data='System']]": func(s *seen) bool {
					return s.data("QueryName", "wpad") || s.data("", "System")
				},
				fmt.Sprintf("*[System[TimeCreated[@SystemTime>='%s']]]", first.Format("2006-01-02T15:04:05.0000000Z")): func(s *seen) bool {
					return !s.System.TimeCreated.SystemTime.Before(first)
				},
				fmt.Sprintf("*[System[TimeCreated[timediff(@SystemTime,'%s') <= 86400000]]]", first.Format(time.RFC3339)): func(s *seen) bool {
					return first.Truncate(time.Second).Sub(s.System.TimeCreated.SystemTime).Milliseconds() <= 86400000
				},
			}
			for _, s := range all {
				id := s.System.EventID
				tests[fmt.Sprintf("*[System[(EventID=%d)]]", id)] = func(s *seen) bool { return s.System.EventID == id }
			}
			for expr, independent := range tests {
				r := &replay{only: mustSelect(t, expr)}
				selected, want := 0, 0
				for i := range all {
					if r.selects(texts[i]) {
						selected++
					}
					if independent(&all[i]) {
						want++
					}
				}
				if t.Logf("%s: %d of %d", expr, want, len(all)); selected != want {
					t.Errorf("%s selects %d records, want %d", expr, selected, want)
				}
			}
		})
	}
}

// What is not selected is passed over without a call that would see the end.
func TestAReplayThatSelectsNothingCanBeEnded(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(append([]byte("ElfFile\x00"), make([]byte, 4088)...)); err != nil { // it has one damage, which makes no event
		t.Fatal(err)
	}
	c := Default()
	c.Logging.Mode = "stdout"
	a, err := New(Options{Config: c, Log: slog.New(slog.DiscardHandler), Stdout: f})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Replay(ctx, []*os.File{f}, mustSelect(t, "*[x]"), func(string, error) {}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

// That a gap event says what is gone is not true where it could not be written.
func TestADamagedFileAndAnOutputThatFailsAreBothTold(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(name, append([]byte("ElfFile\x00"), bytes.Repeat([]byte("x"), 4088+64<<10)...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := Default()
	c.Logging.Mode = "stdout"
	a, err := New(Options{Config: c, Log: slog.New(slog.DiscardHandler), Stdout: f}) // which is open for reading alone
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Replay(t.Context(), []*os.File{f}, nil, func(string, error) {}); !errors.Is(err, ErrOutput) || !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

func TestAFileIsNotReadBehindTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := &endable{ctx, strings.NewReader("log")}
	b := make([]byte, 3)
	if n, err := r.ReadAt(b, 0); n != 3 || err != nil {
		t.Error(n, err)
	}
	cancel()
	if n, err := r.ReadAt(b, 0); n != 0 || !errors.Is(err, context.Canceled) {
		t.Error(n, err)
	}
}

// A file with two damaged runs of chunks: what is read and what is declared
// missing are all numbers from the first to the last, whatever is selected.
func TestAReplayAccountsForEachRecordOfADamagedFile(t *testing.T) {
	for _, test := range []struct {
		only    *Selection
		records int
	}{
		{nil, 298}, // with the missing: 45691 to 47705
		{mustSelect(t, "*[System[EventRecordID<45700]]"), 9},
		{mustSelect(t, "*[System[EventID=1]]"), 0},
	} {
		f := sampleLog(t, "sample_with_a_bad_chunk_magic.evtx")
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
		err = a.Replay(t.Context(), []*os.File{f}, test.only, func(string, error) { said++ })
		if !errors.Is(err, ErrDamaged) || said == 0 {
			t.Errorf("%v; %d places were told", err, said)
		}
		if records, missing := counted(t, events.Name()); records != test.records || missing != 1717 {
			t.Errorf("%d records and %d missing, want %d and 1717", records, missing, test.records)
		}
	}
}

// counted returns how many records are in a file of events, and how many its gaps
// say are missing.
func counted(t *testing.T, file string) (records, missing int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
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
	return records, missing
}
