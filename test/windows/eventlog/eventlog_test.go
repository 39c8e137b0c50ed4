//go:build wine

package eventlog

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The agent is killed again and again while records come.
func TestEachRecordArrivesOnceOverKills(t *testing.T) {
	b := newBench(t, `win_eventlog_channels = ["System"]`)
	b.log("System", 1, 100)
	const kills = 10
	next := 101
	for range kills {
		a := b.agent()
		for range 10 {
			b.log("System", next, next+29)
			next += 30
			time.Sleep(120 * time.Millisecond)
		}
		a.Kill()
	}
	b.agent()
	b.wantAll("System", 1, next-1)
	b.wantGaps()
	t.Logf("%d records, %d kills", next-1, kills)
}

func TestRecordsThatAreGoneAreToldAndTheOthersArrive(t *testing.T) {
	for name, c := range map[string]struct{ orders, gap string }{
		"the log went round while the agent was away":    {"most 1 -1\n", "System log_wrapped 101-150 50"},
		"the log was cleared, unread, while it was away": {"", "System log_cleared 101-150 50"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, `win_eventlog_channels = ["System"]`)
			b.orders("System", c.orders)
			b.log("System", 1, 100)
			a := b.agent()
			b.wantAll("System", 1, 100)
			time.Sleep(4 * time.Second) // the position is written down each three seconds
			a.Kill()
			b.clear("System")
			b.log("System", 151, 250)
			b.agent()
			b.want("System", 200)
			b.wantGaps(c.gap)
		})
	}
	t.Run("the log was cleared while it was read", func(t *testing.T) {
		b := newBench(t, `win_eventlog_channels = ["System", "Application"]`)
		b.log("System", 1, 100)
		b.log("Application", 1, 10)
		b.agent()
		b.wantAll("System", 1, 100)
		b.clear("System")
		b.log("System", 101, 120)
		b.log("Application", 11, 20)
		b.wantAll("System", 1, 120)
		b.wantAll("Application", 1, 20)
		b.wantGaps() // all of it had been read
	})
}

// What Windows may answer, one error after the other; every record arrives once.
func TestErrorsOfTheServiceCostNothing(t *testing.T) {
	for name, orders := range map[string]string{
		"too much for one call (1734)":      "batch 7 -1\n",
		"the service is restarted (6)":      "next 6 3\n",
		"the service does not run (1722)":   "next 1722 2\nsubscribe 1722 2\n",
		"the call was cancelled (1818)":     "next 1818 2\n",
		"the result is stale (15011)":       "next 15011 2\n",
		"the subscription fails at first":   "subscribe 15007 1\n",
		"a record cannot be rendered twice": "render 1722 2\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, `win_eventlog_channels = ["System"]`)
			b.log("System", 1, 100)
			b.orders("System", orders)
			b.agent()
			b.wantAll("System", 1, 100)
			b.log("System", 101, 200)
			b.wantAll("System", 1, 200)
			b.wantGaps()
		})
	}
}

func TestOneChannelsTroubleDoesNotTouchAnother(t *testing.T) {
	b := newBench(t, `win_eventlog_channels = ["System", "Security", "Setup", "Absent"]`)
	b.log("System", 1, 50)
	b.log("Security", 1, 50)
	b.log("Setup", 1, 1)
	b.orders("Security", "subscribe 5 -1\n")
	b.orders("Setup", "config 1 -1\n")
	b.agent()
	b.wantAll("System", 1, 50)
	b.UntilQuiet("the states", func() string {
		s := b.states()
		for channel, want := range map[string]string{"System": "ok", "Security": "denied", "Setup": "disabled", "Absent": "absent"} {
			if s[channel] != want {
				return fmt.Sprintf("%s is %q, want %q: %v", channel, s[channel], want, s)
			}
		}
		return ""
	})
}

// Channels are found by a pattern; Windows is asked to filter; words and XML come where they were asked for; a
// forwarded record keeps its channel and number, and says where it was read.
func TestWhatIsAskedForOfAChannelComesAlong(t *testing.T) {
	b := newBench(t, `win_eventlog_channels = ["Micro*/Operational", "ForwardedEvents", "Setup"]
win_eventlog_rules = ["micro*: message=true xml=true", "Setup: xpath=*[EventData[Data='10.1.0.7']]"]
[redact]
fields = ["eventlog.xml=keep"]`)
	b.log("Microsoft-Windows-X!Operational", 1, 3)
	b.log("Application", 1, 3)
	b.log("Setup", 1, 9)
	b.forward("ForwardedEvents", "Security", 1, 9000)
	b.agent()
	b.UntilQuiet("events", func() string {
		for _, want := range []string{
			`"channel":"Microsoft-Windows-X/Operational","record_id":3,`, `"message":"Record 2 happened."`, `"xml":"<Event xmlns=`,
			`"channel":"Security","record_id":9000,"read_from":{"channel":"ForwardedEvents","record_id":1},`,
			`"channel":"Setup","record_id":7,`,
		} {
			if !strings.Contains(b.Events("--kind", "eventlog"), want) {
				return "no " + want
			}
		}
		return ""
	})
	if text := b.Events("--kind", "eventlog"); strings.Count(text, "\n") != 5 || strings.Count(text, `"message":`) != 3 {
		t.Errorf("other events than the five, or words of one that was not asked for:\n%s", text)
	}
	b.balance()
}

func TestAFloodIsDeferredOrDroppedAndCounted(t *testing.T) {
	t.Run("defer", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, "win_eventlog_channels = [\"System\"]\nwin_eventlog_rps = 500")
		b.log("System", 1, 3000)
		b.agent()
		b.wantAll("System", 1, 3000)
		b.wantGaps()
	})
	t.Run("drop", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, "win_eventlog_channels = [\"System\"]\nwin_eventlog_rps = 500\nwin_eventlog_rate = \"drop\"")
		b.log("System", 1, 3000)
		b.agent()
		b.UntilQuiet("each record arrived or is in a gap", func() string {
			ids, gaps := b.arrived("System"), b.gaps()
			dropped := 0
			for _, g := range gaps {
				if g.Cause != "rate_limited" {
					return fmt.Sprintf("a gap of cause %s", g.Cause)
				}
				dropped += g.Count
			}
			if len(ids)+dropped != 3000 || dropped == 0 {
				return fmt.Sprintf("%d arrived and %d in %d gaps, want 3000", len(ids), dropped, len(gaps))
			}
			return ""
		})
	})
}

// It prints how fast; whether it is fast enough depends on the machine.
func TestAnEventLogEndToEnd(t *testing.T) {
	b := newBench(t, "win_eventlog_channels = [\"System\"]\nwin_eventlog_rps = 100000")
	const records = 100_000
	b.log("System", 1, records)
	began := time.Now()
	b.agent()
	var first time.Time
	var before int
	b.UntilQuiet("all arrived", func() string {
		n := b.stored()
		if n > 0 && first.IsZero() {
			first, before = time.Now(), n
		}
		if n < records {
			return fmt.Sprintf("%d of %d records", n, records)
		}
		return ""
	})
	took, steady := time.Since(began), time.Since(first)
	t.Logf("%d records from the log to the server's disk in %v, with the start of Wine and the agent; the last %d of them in %v, %.0f a second",
		records, took.Round(time.Millisecond), records-before, steady.Round(time.Millisecond), float64(records-before)/steady.Seconds())
	b.wantAll("System", 1, records)
}

// What the agent opens of the system it closes: over errors, clears and idle time
// only what it holds on purpose stays open.
func TestNoHandleLeaks(t *testing.T) {
	b := newBench(t, "win_eventlog_channels = [\"System\", \"Application\", \"Absent\", \"Sys*\"]\nwin_eventlog_message = true")
	b.log("System", 1, 500)
	b.log("Application", 1, 10)
	b.orders("System", "next 6 3\nbatch 5 3\nrender 1722 2\n")
	b.agent()
	b.wantAll("System", 1, 500)
	b.clear("System")
	b.log("System", 501, 700)
	b.wantAll("System", 1, 700)
	b.UntilQuiet("the handles are closed", func() string {
		var h map[string]json.RawMessage
		text, err := os.ReadFile(filepath.Join(b.share, "wevt", "handles.json"))
		if err == nil {
			err = json.Unmarshal(text, &h)
		}
		if err != nil {
			return err.Error()
		}
		if string(h["strangers"]) != "0" {
			return fmt.Sprintf("%s calls with a handle that was not open", h["strangers"])
		}
		type count struct{ Opened, Closed int }
		var subscriptions, publishers count
		if err := errors.Join(json.Unmarshal(h["subscription"], &subscriptions), json.Unmarshal(h["publisher"], &publishers)); err != nil {
			return err.Error()
		}
		if publishers.Opened == 0 || publishers.Opened > subscriptions.Opened { // one provider wrote all these records
			return fmt.Sprintf("the texts of providers were opened %d times by %d subscriptions: %s", publishers.Opened, subscriptions.Opened, text)
		}
		for kind, most := range map[string]int{"subscription": 2, "bookmark": 2, "record": 60, "query": 0, "channels": 0, "config": 0, "log": 0, "publisher": 2} {
			var n count
			if err := json.Unmarshal(h[kind], &n); err != nil {
				return kind + ": " + err.Error()
			}
			if open := n.Opened - n.Closed; open > most {
				return fmt.Sprintf("%d of kind %s are open, want %d at most: %s", open, kind, most, text)
			}
		}
		return ""
	})
}

// wantAll waits until each record of a channel arrived, and arrived once.
func (b *bench) wantAll(channel string, first, last int) {
	b.T.Helper()
	b.want(channel, last-first+1)
	ids := b.arrived(channel)
	for id := first; id <= last; id++ {
		if ids[id] != 1 {
			b.T.Fatalf("record %d of %s arrived %d times", id, channel, ids[id])
		}
	}
	b.balance()
}

// want waits until so many records of a channel arrived.
func (b *bench) want(channel string, n int) {
	b.T.Helper()
	b.UntilQuiet("records of "+channel, func() string {
		if ids := b.arrived(channel); len(ids) < n {
			return fmt.Sprintf("%d of %d", len(ids), n)
		}
		return ""
	})
}

// wantGaps wants these gaps of records, and no others: "channel cause first-last count".
func (b *bench) wantGaps(want ...string) {
	b.T.Helper()
	b.UntilQuiet("gaps", func() string {
		var got []string
		for _, g := range b.gaps() {
			got = append(got, fmt.Sprintf("%s %s %d-%d %d", g.Channel, g.Cause, g.FirstRecord, g.LastRecord, g.Count))
		}
		slices.SortFunc(got, cmp.Compare[string])
		if !slices.Equal(got, want) {
			return fmt.Sprintf("%v, want %v", strings.Join(got, "; "), want)
		}
		return ""
	})
}
