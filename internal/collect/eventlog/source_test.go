package eventlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/metric"
)

// A bench runs a source over a fake system and notes what it hands over.
type bench struct {
	t       *testing.T
	fake    *fakeSystem
	cfg     Config
	metrics metric.Set
	log     bytes.Buffer

	mu    sync.Mutex
	ids   map[string][]uint64 // by channel, in the order in which they came
	gaps  []event.Missing
	told  []string // agent events
	lines []byte
	hold  time.Duration // how long the keeper takes

	handed func() Handed // what is known of the keeper at a start
	runs   int
	end    context.CancelFunc
	done   chan struct{}
	run    *collect.Runner
}

func newBench(t *testing.T, fake *fakeSystem, channels ...string) *bench {
	b := &bench{t: t, fake: fake, ids: map[string][]uint64{}}
	b.cfg = Config{Channels: channels, RPS: MaxRPS, Oldest: true, File: filepath.Join(t.TempDir(), "cursor"), Metrics: &b.metrics}
	return b
}

// emit is the keeper: it takes all events or, once the process has ended, none.
func (b *bench) emit(ctx context.Context, events ...event.Event) error {
	if b.hold > 0 {
		sleep(ctx, b.hold)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	b.fake.mu.Lock()
	_, err := b.fake.step("emit", b.fake.order[0])
	b.fake.mu.Unlock()
	if errors.Is(err, errDead) {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ev := range events {
		switch body := ev.Body.(type) {
		case *Record:
			id := body.RecordID.V
			b.ids[body.Channel] = append(b.ids[body.Channel], id)
		case *event.Missing:
			b.gaps = append(b.gaps, *body)
		case *event.Notice:
			b.told = append(b.told, strings.TrimSpace(body.Action+" "+body.Source+" "+body.Reason))
		}
	}
	b.lines = append(b.lines, collecttest.Encode(b.t, slices.Clone(events)...)...)
	return nil
}

// start runs the source until stop, or until the fake ends the process.
func (b *bench) start() {
	ctx, cancel := context.WithCancel(b.t.Context())
	b.end, b.done = cancel, make(chan struct{})
	b.fake.kill = cancel
	if b.handed != nil {
		b.cfg.Handed = b.handed()
	}
	s := New(b.cfg)
	s.open = func() (system, error) { return b.fake, nil }
	s.write = func(c *cursors) {
		c.write = func(name string, data []byte, perm fs.FileMode) error {
			b.fake.mu.Lock()
			_, err := b.fake.step("save", b.fake.order[0])
			b.fake.mu.Unlock()
			if errors.Is(err, errDead) || errors.Is(err, errDisk) {
				return err
			}
			return os.WriteFile(name, data, perm)
		}
	}
	b.run = collect.NewRunner(b.emit, slog.New(slog.NewTextHandler(&b.log, nil)), &b.metrics)
	b.run.Add("eventlog", s)
	b.runs++
	go func() {
		defer close(b.done)
		_ = b.run.Run(ctx)
	}()
}

// stop ends the source in order and sees that it leaves no handle open.
func (b *bench) stop() {
	b.t.Helper()
	b.end()
	<-b.done
	if b.fake.open != 0 {
		b.t.Errorf("%d subscriptions are open", b.fake.open)
	}
}

// kept is what the keeper has, as Handed tells of it.
func (b *bench) kept() Handed {
	h := Handed{}
	for line := range bytes.Lines(b.lines) {
		h.Note(line)
	}
	return h
}

// runFor runs the source for d.
func (b *bench) runFor(d time.Duration) {
	b.t.Helper()
	b.start()
	time.Sleep(d)
	b.stop()
}

// got returns the ids that came of a channel.
func (b *bench) got(channel string) []uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.ids[channel])
}

// want compares the ids that came of the first channel, runs of them as 1-5.
func (b *bench) want(want string, gaps ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := runs(b.ids[b.fake.order[0]]); got != want {
		b.t.Errorf("handed over %s, want %s", got, want)
	}
	var told []string
	for _, g := range b.gaps {
		told = append(told, strings.TrimSpace(fmt.Sprintf("%s %s %d of %d-%d %s", g.Channel, g.Cause, g.Count, g.FirstRecord, g.LastRecord, g.Bound)))
	}
	if d := cmp.Diff(gaps, told); d != "" {
		b.t.Errorf("gaps (-want +got):\n%s", d)
	}
}

func runs(ids []uint64) string {
	var list []string
	for i := 0; i < len(ids); {
		j := i
		for j+1 < len(ids) && ids[j+1] == ids[j]+1 {
			j++
		}
		list = append(list, fmt.Sprintf("%d-%d", ids[i], ids[j]))
		i = j + 1
	}
	return strings.Join(list, " ")
}

// bubble runs a test of a source of one channel, Security, in virtual time.
func bubble(t *testing.T, f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newFake("Security"), "Security")
		f(t, b)
		collecttest.Validate(t, Schema, onlyKind(b.lines, "eventlog"))
		collecttest.Validate(t, event.GapSchema, onlyKind(b.lines, "gap"))
	})
}

func onlyKind(lines []byte, kind string) (some []byte) {
	for line := range bytes.Lines(lines) {
		if bytes.Contains(line, []byte(`"kind":"`+kind+`"`)) {
			some = append(some, line...)
		}
	}
	return some
}

func TestRecordsAreHandedOverOnceAcrossStarts(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 100)
		b.runFor(time.Second)
		b.fake.write("Security", 50)
		b.runFor(time.Second)
		b.start()
		for range 10 {
			b.fake.write("Security", 7)
			time.Sleep(100 * time.Millisecond)
		}
		b.stop()
		b.want("1-220")
	})
}

func TestTheNewestStartIsDecidedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.cfg.Oldest = false
		b.fake.write("Security", 10)
		b.runFor(time.Second)
		b.want("")
		b.fake.write("Security", 5) // while the agent is away
		b.runFor(time.Second)
		b.want("11-15")
	})
	t.Run("also in a log that is empty", func(t *testing.T) {
		bubble(t, func(t *testing.T, b *bench) {
			b.cfg.Oldest = false
			b.runFor(time.Second)
			b.fake.write("Security", 5)
			b.runFor(time.Second)
			b.want("1-5")
		})
	})
}

func TestASignalIsEnoughAndNotNeeded(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.start()
		time.Sleep(time.Second)
		b.fake.write("Security", 1)
		synctest.Wait()
		b.want("1-1")
		b.fake.mu.Lock()
		for s := range b.fake.subs { // a signal is lost
			s.log.records = append(s.log.records, fakeRecord{2, recordXML("Security", "P", 7, 2, "")})
			s.log.next = 3
		}
		b.fake.mu.Unlock()
		time.Sleep(pollMost)
		b.want("1-2")
		b.stop()
	})
}

// The event stays set until it is reset: that comes before the records are fetched,
// else what comes meanwhile is seen at the next poll only.
func TestARecordThatComesWhileOthersAreFetchedIsSeenBeforeThePoll(t *testing.T) {
	for name, comes := range map[string]func(b *bench){
		"before the event is reset": func(b *bench) {
			b.fake.mu.Lock()
			b.fake.late = time.Second
			b.fake.mu.Unlock()
			b.fake.write("Security", 1)
			time.Sleep(time.Second / 2)
			b.fake.write("Security", 1)
		},
		"after the last fetch": func(b *bench) {
			b.fake.mu.Lock()
			b.fake.drained = func() {
				b.fake.write("Security", 1)
				time.Sleep(time.Millisecond) // so that the signal is there
			}
			b.fake.mu.Unlock()
			b.fake.write("Security", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *bench) {
				b.start()
				time.Sleep(time.Second)
				comes(b)
				time.Sleep(pollLeast / 2)
				b.want("1-2")
				b.stop()
			})
		})
	}
}

func TestLogsThatLose(t *testing.T) {
	for name, c := range map[string]struct {
		xpath  string
		before func(f *fakeSystem) // then all is read
		away   func(f *fakeSystem) // and this happens
		live   bool                // while the source runs
		want   string
		gaps   []string
	}{
		"cleared when all was read": {away: func(f *fakeSystem) { f.clear("Security") }, want: "1-11"},
		"cleared with records that were not read": {
			away: func(f *fakeSystem) { f.write("Security", 5); f.clear("Security"); f.write("Security", 2) },
			want: "1-10 16-18", gaps: []string{"Security log_cleared 5 of 11-15"},
		},
		"cleared while it is read": {live: true, away: func(f *fakeSystem) { f.clear("Security"); f.write("Security", 3) }, want: "1-14"},
		"wrapped": {
			before: func(f *fakeSystem) { f.log("Security").capacity = 20 },
			away:   func(f *fakeSystem) { f.write("Security", 50) },
			want:   "1-10 41-60", gaps: []string{"Security log_wrapped 30 of 11-40"},
		},
		"wrapped as far as it was read": {
			before: func(f *fakeSystem) { f.log("Security").capacity = 20 },
			away:   func(f *fakeSystem) { f.write("Security", 20) },
			want:   "1-30",
		},
		"made anew": {
			away: func(f *fakeSystem) { f.remake("Security", 4) },
			want: "1-10 1-4", gaps: []string{"Security log_cleared 1 of 0-0 unknown"},
		},
		"made anew while it is read": {
			live: true, away: func(f *fakeSystem) { f.remake("Security", 4) },
			want: "1-10 1-4", gaps: []string{"Security log_cleared 1 of 0-0 unknown"},
		},
		"filtered, and cleared": {
			xpath: "Security",
			away:  func(f *fakeSystem) { f.write("Security", 5); f.clear("Security"); f.write("Security", 2) },
			want:  "1-10 16-18", gaps: []string{"Security log_cleared 5 of 11-15 at_most"},
		},
		"filtered, and nothing is gone": {
			xpath:  "x='1'",
			before: func(f *fakeSystem) { f.add("Security", "<Data x='1'>.</Data>"); f.write("Security", 3) },
			away:   func(f *fakeSystem) { f.write("Security", 5); f.add("Security", "<Data x='1'>.</Data>") },
			want:   "11-11 20-20",
		},
		"the bookmark is broken, and nothing is gone": {
			away: func(f *fakeSystem) { f.fail("Security", "subscribe", errBadData); f.write("Security", 3) },
			want: "1-13",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *bench) {
				if c.xpath != "" {
					r, err := ParseRule("*: xpath=" + c.xpath)
					if err != nil {
						t.Fatal(err)
					}
					b.cfg.Rules = []Rule{r}
				}
				b.fake.write("Security", 10)
				if c.before != nil {
					c.before(b.fake)
				}
				b.start()
				time.Sleep(time.Second)
				if !c.live {
					b.stop()
				}
				c.away(b.fake)
				if !c.live {
					b.start()
				}
				time.Sleep(30 * time.Second)
				b.stop()
				b.want(c.want, c.gaps...)
			})
		})
	}
}

func TestADamagedFileOfPositionsRepeatsAndSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.cfg.Oldest = false
		b.fake.write("Security", 10)
		b.runFor(time.Second)
		if err := os.WriteFile(b.cfg.File, []byte("{\"version\":1,"), 0o600); err != nil {
			t.Fatal(err)
		}
		b.runFor(time.Second)
		b.want("1-10", "Security bookmark_lost 1 of 0-0 unknown")
		b.runFor(time.Second)
		b.want("1-10", "Security bookmark_lost 1 of 0-0 unknown")
		if _, err := os.Stat(b.cfg.File + ".damaged"); err != nil {
			t.Error(err)
		}
	})
}

func TestADamagedFileOfPositionsIsMadeGoodByTheKeeper(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.handed = b.kept
		b.fake.write("Security", 10)
		b.runFor(time.Second)
		if err := os.WriteFile(b.cfg.File, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		b.fake.write("Security", 3)
		b.runFor(time.Second)
		b.want("1-13")
	})
}

func TestErrorsThatPass(t *testing.T) {
	for _, err := range []error{errHandle, errServer, errCancelled, errNoChannel, errStale, errTimeout, errDenied, errno(4711)} {
		for _, call := range []string{"subscribe", "next", "mark", "bookmark", "info"} {
			t.Run(fmt.Sprintf("%s %d", call, err), func(t *testing.T) {
				bubble(t, func(t *testing.T, b *bench) {
					b.fake.write("Security", 40)
					b.fake.fail("Security", call, err, err, err)
					b.start()
					time.Sleep(20 * time.Second)
					b.fake.write("Security", 40)
					b.fake.fail("Security", call, nil, err, nil, err)
					time.Sleep(time.Hour)
					b.fake.write("Security", 1)
					time.Sleep(time.Hour)
					b.stop()
					b.want("1-81")
					if s := b.run.States()[0]; s.State != collect.OK || s.Parts[0].State != collect.OK {
						t.Errorf("%+v", s)
					}
				})
			})
		}
	}
}

func TestAFailureThatGoesOnIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 3)
		b.start()
		time.Sleep(time.Second)
		b.fake.fail("Security", "next", errServer, errServer, errServer, errServer)
		time.Sleep(time.Minute)
		b.stop()
		var told []string
		for _, s := range b.told {
			if strings.Contains(s, "eventlog/Security") {
				told = append(told, strings.Fields(s)[0])
			}
		}
		if d := cmp.Diff([]string{"source_down", "source_up"}, told); d != "" {
			t.Error(d)
		}
	})
}

func TestARecordThatCannotBeRenderedIsHandedOverWithAnError(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 3)
		b.fake.fail("Security", "xml", nil, errno(15005))
		b.runFor(time.Second)
		b.want("1-3")
		if !bytes.Contains(b.lines, []byte(`"errors":["xml: render: Windows error 15005"]`)) {
			t.Errorf("%s", b.lines)
		}
	})
}

func TestTooMuchForOneCall(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		one := len(recordXML("Security", "P", 7, 100, ""))
		b.fake.most = 4*one + one/2
		b.fake.write("Security", 100)
		b.start()
		time.Sleep(time.Minute)
		b.fake.allow(0)
		b.fake.write("Security", 100)
		time.Sleep(time.Minute)
		b.stop()
		b.want("1-200")
	})
	t.Run("even alone", func(t *testing.T) {
		bubble(t, func(t *testing.T, b *bench) {
			b.fake.most = 2000
			b.fake.write("Security", 5)
			b.fake.add("Security", strings.Repeat("x", 3000))
			b.fake.add("Security", strings.Repeat("x", 3000))
			b.fake.write("Security", 5)
			b.fake.add("Security", strings.Repeat("x", 3000)) // the last: it waits for another
			b.start()
			time.Sleep(time.Minute)
			b.want("1-5 8-12", "Security unreadable 2 of 6-7")
			b.fake.write("Security", 1)
			time.Sleep(time.Minute)
			b.stop()
			b.want("1-5 8-12 14-14", "Security unreadable 2 of 6-7", "Security unreadable 1 of 13-13")
		})
	})
}

func TestWhatIsDeniedOrAbsentIsSeenAndDoesNotTouchTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newFake("Security", "System", "Gone"), "Security", "System", "Gone")
		b.fake.log("Security").denied = true
		b.fake.log("Gone").absent = true
		b.fake.write("Security", 5)
		b.fake.write("System", 5)
		b.start()
		time.Sleep(time.Second)
		states := map[string]string{}
		for _, p := range b.run.States()[0].Parts {
			states[p.Name] = p.State
		}
		if d := cmp.Diff(map[string]string{"Security": "denied", "System": "ok", "Gone": "absent"}, states); d != "" {
			t.Error(d)
		}
		if s := b.run.States()[0].State; s != collect.OK {
			t.Errorf("the source is %s", s)
		}
		if got := runs(b.got("System")); got != "1-5" {
			t.Error(got)
		}
		before := b.fake.made()
		time.Sleep(time.Minute)
		if n := b.fake.made() - before; n > 60 {
			t.Errorf("%d calls in a minute", n)
		}
		b.fake.mu.Lock()
		b.fake.log("Security").denied, b.fake.log("Gone").absent = false, false
		b.fake.mu.Unlock()
		time.Sleep(10 * time.Minute)
		b.stop()
		b.want("1-5")
		if !slices.Contains(b.told, "source_up eventlog/Security") || !slices.Contains(b.told, "source_down eventlog/Security subscribe: "+errDenied.Error()) {
			t.Errorf("%q", b.told)
		}
	})
}

func TestASourceWithoutAChannelThatWorksIsDown(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.log("Security").denied = true
		b.start()
		time.Sleep(time.Second)
		if s := b.run.States()[0]; s.State != collect.Failing || !strings.Contains(s.LastError, "access denied") {
			t.Errorf("%+v", s)
		}
		b.stop()
	})
}

func TestADisabledChannelIsSeen(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.log("Security").disabled = true
		b.start()
		time.Sleep(time.Second)
		if p := b.run.States()[0].Parts[0]; p.State != stateDisabled {
			t.Errorf("%+v", p)
		}
		b.fake.mu.Lock()
		b.fake.log("Security").disabled = false
		b.fake.mu.Unlock()
		time.Sleep(2 * lookEvery)
		if p := b.run.States()[0].Parts[0]; p.State != collect.OK || p.Error != "" {
			t.Errorf("%+v", p)
		}
		b.stop()
	})
}

func TestChannelsAreFoundByPatterns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newFake("A/Operational", "A/Admin", "System"), "a/*", "SYSTEM")
		b.cfg.Oldest = false
		b.fake.write("A/Operational", 3)
		b.fake.write("System", 3)
		b.start()
		time.Sleep(time.Second)
		b.fake.write("A/Operational", 2)
		b.fake.write("A/Admin", 2)
		b.fake.write("System", 2)
		b.fake.mu.Lock()
		b.fake.logs["a/new"] = &fakeLog{name: "A/New", next: 1, failing: map[string][]error{}}
		b.fake.order = append(b.fake.order, "A/New")
		b.fake.mu.Unlock()
		b.fake.write("A/New", 4)
		time.Sleep(2 * resolveEvery)
		b.stop()
		got := map[string]string{}
		for name, ids := range b.ids {
			got[name] = runs(ids)
		}
		want := map[string]string{"A/Operational": "4-5", "A/Admin": "1-2", "System": "4-5", "A/New": "1-4"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

func TestAChannelThatComesLaterIsReadFromItsOldestRecord(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.cfg.Oldest = false
		b.fake.log("Security").absent = true
		b.start()
		time.Sleep(time.Second)
		b.fake.write("Security", 5)
		b.fake.mu.Lock()
		b.fake.log("Security").absent = false
		b.fake.mu.Unlock()
		time.Sleep(2 * retryMost)
		b.stop()
		b.want("1-5")
	})
}

func TestTheSourceIsNotDownBeforeAllChannelsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newFake("System"), "Gone", "System")
		b.fake.write("System", 1)
		b.runFor(time.Second)
		if slices.ContainsFunc(b.told, func(s string) bool { return strings.HasPrefix(s, "source_down eventlog ") }) {
			t.Errorf("%q", b.told)
		}
	})
}

func TestAPatternTakesWhatCanBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newFake("A/Operational", "A/Debug", "A/Off", "B/Off", "B/Debug"), "a/*", "B/Off", "B/Debug")
		b.fake.log("A/Off").disabled, b.fake.log("B/Off").disabled = true, true
		for _, name := range []string{"A/Debug", "B/Debug"} {
			b.fake.fail(name, "subscribe", errDirect, errDirect, errDirect, errDirect)
		}
		b.start()
		time.Sleep(time.Second)
		got := map[string]string{}
		for _, p := range b.run.States()[0].Parts {
			got[p.Name] = strings.TrimSpace(p.State + " " + p.Error)
		}
		b.stop()
		want := map[string]string{
			"A/Operational": "ok", "A/Off": "disabled", "B/Off": "disabled the channel is disabled, and takes no records",
			"B/Debug": "absent subscribe: " + errDirect.Error(), partChannels: "ok",
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

func TestALateListDoesNotMakeOldChannelsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newFake("Security"), "Sec*")
		b.cfg.Oldest = false
		b.fake.write("Security", 5)
		b.fake.unlisted = true // the service is not there yet
		b.start()
		time.Sleep(time.Second)
		b.fake.mu.Lock()
		b.fake.unlisted = false
		b.fake.mu.Unlock()
		time.Sleep(2 * resolveEvery)
		b.fake.write("Security", 2)
		time.Sleep(time.Second)
		b.stop()
		b.want("6-7")
	})
}

func TestForwardedEventsKeepTheirMachineAndCountInTheirLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newFake("ForwardedEvents"), "ForwardedEvents")
		l := b.fake.log("ForwardedEvents")
		forward := func(id uint64) {
			b.fake.write("ForwardedEvents", 1)
			l.records[len(l.records)-1].xml = strings.Replace(recordXML("Security", "P", 7, id, ""), "</Channel>", "</Channel><Computer>other</Computer>", 1)
		}
		for _, id := range []uint64{9000, 12, 9001} {
			forward(id)
		}
		b.runFor(time.Second)
		forward(13)
		b.runFor(time.Second)
		if d := cmp.Diff(Handed{"forwardedevents": 5}, b.kept()); d != "" {
			t.Error(d)
		}
		if got := fmt.Sprint(b.ids["Security"]); got != "[9000 12 9001 13]" || len(b.gaps) > 0 {
			t.Errorf("%s, gaps %v", got, b.gaps)
		}
		if n := bytes.Count(b.lines, []byte(`"computer":"other"`)); n != 4 {
			t.Errorf("%d events of the other machine", n)
		}
	})
}

func TestMessagesAndXMLAreThereWhereWantedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newFake("Security", "System"), "Security", "System")
		r, err := ParseRule("Sec*: message=true xml=true")
		if err != nil {
			t.Fatal(err)
		}
		b.cfg.Rules = []Rule{r}
		b.fake.write("Security", 2)
		b.fake.fail("Security", "message", errPublisher)
		b.runFor(time.Second)
		for _, want := range []string{`"errors":["message: its provider is not installed`, `"message":"This is record 2."`, `"xml":"<Event>`} {
			if !bytes.Contains(b.lines, []byte(want)) {
				t.Errorf("no %s in %s", want, b.lines)
			}
		}
		b.lines = nil
		b.fake.write("System", 2)
		b.runFor(time.Second)
		if n := len(b.ids["System"]); n != 2 || bytes.Contains(b.lines, []byte(`"message":`)) || bytes.Contains(b.lines, []byte(`"xml":`)) {
			t.Errorf("%d events of System, with words or XML that nobody asked for: %s", n, b.lines)
		}
	})
}

func TestNothingIsWrittenDownBeforeTheKeeperHasIt(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 3)
		b.runFor(time.Second)
		b.hold = 10 * saveEvery
		b.fake.write("Security", 5)
		b.start()
		next := func() uint64 {
			c, err := openCursors(b.cfg.File)
			if err != nil {
				t.Fatal(err)
			}
			p, _ := c.get("Security")
			return p.Next
		}
		time.Sleep(9 * saveEvery)
		if n := next(); n != 4 {
			t.Errorf("record %d is written down as the next while the keeper has those up to 3", n)
		}
		time.Sleep(3 * saveEvery)
		if n := next(); n != 9 {
			t.Errorf("record %d is written down as the next when the keeper has those up to 8", n)
		}
		b.stop()
	})
}

func TestAFloodIsDeferred(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.cfg.RPS = 100
		b.fake.write("Security", 5000)
		b.start()
		time.Sleep(30*time.Second + 500*time.Millisecond)
		if n := len(b.got("Security")); n < 2900 || n > 3200 {
			t.Errorf("%d records in 30 s", n)
		}
		if p := b.run.States()[0].Parts[0]; p.State != stateLagging || p.Error != "" {
			t.Errorf("%+v", p)
		}
		var m bytes.Buffer
		_, _ = b.metrics.WriteTo(&m)
		if !strings.Contains(m.String(), `rea_eventlog_lag_seconds{channel="Security"} 30`) || strings.Contains(m.String(), `rea_eventlog_lag_records{channel="Security"} 0`) ||
			!strings.Contains(m.String(), `rea_eventlog_channel_state{channel="Security",state="lagging"} 1`) {
			t.Error(m.String())
		}
		if got := b.run.States()[0].Parts[0].Backlog; got.Lag.Round(time.Second) != 30*time.Second || got.Records < 1900 || got.Records > 3100 || got.Missing != 0 {
			t.Errorf("%+v", got)
		}
		time.Sleep(30 * time.Second)
		b.stop()
		b.want("1-5000")
		if p := b.run.States()[0].Parts[0]; p.State != collect.OK || p.Backlog != (collect.Backlog{}) {
			t.Errorf("%+v", p)
		}
		m.Reset()
		_, _ = b.metrics.WriteTo(&m)
		for _, want := range []string{`{channel="Security",state="lagging"} 0`, `{channel="Security",state="ok"} 1`} {
			if !strings.Contains(m.String(), "rea_eventlog_channel_state"+want) {
				t.Errorf("no %s in %s", want, m.String())
			}
		}
	})
}

func TestAFloodIsDroppedWhereThatIsWantedAndCounted(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.cfg.RPS, b.cfg.Drop = 100, true
		b.start()
		for range 10 {
			b.fake.write("Security", 150)
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Second)
		b.stop()
		ids := b.ids["Security"]
		dropped := uint64(0)
		for _, g := range b.gaps {
			if g.Cause != "rate_limited" || g.LastRecord-g.FirstRecord+1 != g.Count {
				t.Errorf("%+v", g)
			}
			dropped += g.Count
		}
		if uint64(len(ids))+dropped != 1500 || len(ids) != 1000 || len(b.gaps) > 10 {
			t.Errorf("%d handed over, %d dropped in %d gaps", len(ids), dropped, len(b.gaps))
		}
		everyRecordOnce(t, b, 1500)
		if got := b.run.States()[0].Parts[0].Backlog.Missing; got != dropped {
			t.Errorf("the health tells of %d missing, gap events of %d", got, dropped)
		}
		b.fake.write("Security", 3)
		b.runFor(time.Second)
		everyRecordOnce(t, b, 1503)
	})
}

// everyRecordOnce sees that each record up to last was handed over or declared, once.
func everyRecordOnce(t *testing.T, b *bench, last uint64) {
	t.Helper()
	times := make([]int, last+1)
	for _, id := range b.ids["Security"] {
		times[id]++
	}
	for _, g := range b.gaps {
		for id := g.FirstRecord; id <= g.LastRecord && g.FirstRecord > 0; id++ {
			times[id]++
		}
	}
	for id, n := range times[1:] {
		if n != 1 {
			t.Fatalf("record %d was handed over or declared %d times", id+1, n)
		}
	}
}

func TestWhatIsBeingHandedOverAtTheEndIsNotRepeated(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.hold = time.Second
		b.fake.write("Security", 5)
		b.start()
		time.Sleep(500 * time.Millisecond)
		b.stop() // in the middle of Emit
		b.hold = 0
		b.runFor(time.Second)
		b.want("1-5")
	})
}

func TestAPanicIsOneOfTheChannelsTroubles(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 5)
		b.fake.fail("Security", "next", panics{})
		b.start()
		time.Sleep(time.Second / 2)
		if p := b.run.States()[0].Parts[0]; !strings.Contains(p.Error, "panic: ") {
			t.Errorf("%+v", p)
		}
		time.Sleep(time.Minute)
		b.stop()
		b.want("1-5")
	})
}

// panics is an error that panics when it is looked at.
type panics struct{}

func (panics) Error() string { panic("index out of range") }
func (panics) Is(error) bool { panic("index out of range") }

// A source is killed at each call that it makes, of the system, the keeper and the
// disk, and started again: nothing is missing, and nothing comes twice. Where it is
// not known what the keeper has, what was handed over since the positions were last
// written down comes twice.
func TestAKillAtAnyCallLosesAndRepeatsNothing(t *testing.T) {
	for name, setup := range map[string]func(*bench){
		"plain":         func(*bench) {},
		"newest":        func(b *bench) { b.cfg.Oldest = false },
		"dropped":       func(b *bench) { b.cfg.RPS, b.cfg.Drop = 20, true },
		"wrapped":       func(b *bench) { b.fake.log("Security").capacity = 60 },
		"cleared":       func(b *bench) {},
		"bounded":       func(b *bench) { b.fake.most = 1500 },
		"keeper forgot": func(b *bench) { b.handed = nil },
	} {
		t.Run(name, func(t *testing.T) {
			kills := 0
			for at := 1; ; at++ {
				reached := false
				synctest.Test(t, func(t *testing.T) {
					b := newBench(t, newFake("Security"), "Security")
					b.handed = b.kept
					setup(b)
					b.fake.write("Security", 3)
					b.fake.die = at
					b.start()
					time.Sleep(10 * time.Millisecond)
					write := func(n int) { b.fake.write("Security", n); time.Sleep(700 * time.Millisecond) }
					for range 8 {
						write(11)
					}
					if name == "cleared" {
						b.fake.clear("Security")
					}
					b.end()
					<-b.done
					reached = b.fake.dead
					b.fake.mu.Lock()
					b.fake.die, b.fake.dead = 0, false
					b.fake.subs, b.fake.open = map[*fakeSub]bool{}, 0
					b.fake.mu.Unlock()
					write(11)
					first := b.begins()
					b.runFor(20 * time.Second)
					accounted(t, b, first)
					if b.handed != nil {
						onlyOnce(t, b)
					}
				})
				if t.Failed() {
					t.Fatalf("killed at call %d", at)
				}
				if !reached {
					break
				}
				kills++
			}
			if kills < 30 {
				t.Errorf("only %d kills", kills)
			}
			t.Logf("%d kills", kills)
		})
	}
}

// begins returns the first record that there must be: that behind the saved
// position, where one was known, or of those that were handed over.
func (b *bench) begins() uint64 {
	l := b.fake.log("Security")
	first := l.next
	if b.cfg.Oldest {
		first = l.records[0].id
	}
	if p, err := openCursors(b.cfg.File); err == nil {
		if at, known := p.get("Security"); known && at.Next > 0 { // 0: the log was empty, and what goes before it was ever read is not seen
			first = at.Next
		}
	}
	for _, id := range b.ids["Security"] {
		first = min(first, id)
	}
	return first
}

// onlyOnce sees that no record was handed over twice.
func onlyOnce(t *testing.T, b *bench) {
	t.Helper()
	ids := b.ids["Security"]
	for i := 1; i < len(ids); i++ {
		if ids[i] <= ids[i-1] {
			t.Errorf("handed over %s", runs(ids))
			return
		}
	}
}

// accounted sees that each record from first on was handed over or declared, and
// that the order goes back at most once, to where the positions were saved.
func accounted(t *testing.T, b *bench, first uint64) {
	t.Helper()
	seen := map[uint64]bool{}
	for _, id := range b.ids["Security"] {
		seen[id] = true
	}
	for _, g := range b.gaps {
		for id := g.FirstRecord; id <= g.LastRecord && id > 0; id++ {
			seen[id] = true
		}
	}
	for id := first; id < b.fake.log("Security").next; id++ {
		if !seen[id] {
			t.Errorf("record %d is missing: handed over %s, gaps %+v", id, runs(b.ids["Security"]), b.gaps)
			return
		}
	}
	back := 0
	ids := b.ids["Security"]
	for i := 1; i < len(ids); i++ {
		if ids[i] <= ids[i-1] {
			back++
		}
	}
	if back > 1 {
		t.Errorf("handed over %s", runs(ids))
	}
}

func TestSavedPositionsAreExactWithoutAKill(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	bubble(t, func(t *testing.T, b *bench) {
		total := uint64(0)
		for range 60 {
			b.hold = time.Duration(r.IntN(50)) * time.Millisecond
			b.start()
			for range r.IntN(5) {
				n := r.IntN(80)
				b.fake.write("Security", n)
				total += uint64(n)
				time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
			b.stop()
		}
		b.hold = 0
		b.runFor(time.Minute)
		everyRecordOnce(t, b, total)
	})
}

func TestPositionsAreSavedAtMostEveryFewSeconds(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.start()
		for range 600 {
			b.fake.write("Security", 1)
			time.Sleep(100 * time.Millisecond)
		}
		b.fake.mu.Lock()
		saves := b.fake.calls["save"]
		b.fake.mu.Unlock()
		b.stop()
		if saves > 22 {
			t.Errorf("%d saves in a minute", saves)
		}
	})
}

var errDisk = errors.New("no space left on device")

func TestPositionsThatCannotBeSavedAreToldAndSavedLater(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 5)
		b.fake.fail("Security", "save", errDisk, errDisk, errDisk)
		b.start()
		time.Sleep(time.Second)
		part := func() collect.Part { return b.run.States()[0].Parts[0] }
		if p := part(); p.Name != partCursor || !strings.Contains(p.Error, errDisk.Error()) {
			t.Errorf("%+v", p)
		}
		time.Sleep(5 * saveEvery)
		if p := part(); p.State != collect.OK || p.Error != "" {
			t.Errorf("%+v", p)
		}
		b.fake.mu.Lock()
		calls := b.fake.calls["save"]
		b.fake.mu.Unlock()
		time.Sleep(time.Hour)
		b.fake.mu.Lock()
		if n := b.fake.calls["save"] - calls; n > 0 {
			t.Errorf("saved %d times though nothing changed", n)
		}
		b.fake.mu.Unlock()
		b.stop()
		b.runFor(time.Second)
		b.want("1-5")
	})
}

func TestRulesSayWhatIsWrong(t *testing.T) {
	for s, want := range map[string]string{
		"Security":                      "is not channel",
		"Security:":                     "is not channel",
		": rps=1":                       "is not channel",
		"Security: rps=0":               "has rps=0",
		"Security: rps=many":            "has rps=many",
		"Security: rate=slow":           "has rate=slow",
		"Security: start_at=noon":       "has start_at=noon",
		"Security: message=yes":         "has message=yes",
		"Security: xpath=":              "an empty xpath",
		"Security: level=3":             `the setting "level"`,
		"Security: rps=1  message=true": "",
		"*: xml=true xpath=*[System[(EventID=1 or EventID=2) and band(Keywords,4)]]": "",
	} {
		_, err := ParseRule(s)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", s, err, want)
		}
	}
}

func TestTheLaterRuleCounts(t *testing.T) {
	c := Config{RPS: 5}
	for _, s := range []string{"*: rps=10 message=true", "Sec*: rps=20 rate=drop start_at=oldest xpath=*[System[Level=1]]", "security: xml=true message=false"} {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		c.Rules = append(c.Rules, r)
	}
	if got, want := c.settings("Security"), (settings{XPath: "*[System[Level=1]]", RPS: 20, Drop: true, Oldest: true, XML: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := c.settings("System"), (settings{RPS: 10, Message: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"Security", "security", true}, {"Sec*", "Security", true}, {"*", "", true}, {"*/Operational", "A-B/Operational", true},
		{"*/Operational", "A-B/Operational2", false}, {"S?stem", "System", true}, {"S?stem", "Stem", false}, {"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXbYbZ", false}, {"", "a", false}, {"a", "", false}, {"a**", "a", true}, {"*a", "aaab", false},
	} {
		if got := matches(c.pattern, c.name); got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.name, got)
		}
	}
}
