package eventlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
	source *Source
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
			if err := os.WriteFile(name+".tmp", data, perm); err != nil {
				return err
			}
			return os.Rename(name+".tmp", name)
		}
	}
	b.source = s
	b.run = collect.NewRunner(b.emit, slog.New(slog.NewTextHandler(&b.log, nil)), &b.metrics)
	b.run.Add("eventlog", s)
	b.runs++
	go func() {
		defer close(b.done)
		_ = b.run.Run(ctx)
	}()
}

// reload has the source go on with b.cfg as it is now.
func (b *bench) reload() {
	b.run.Replace("eventlog", func() collect.Source {
		b.source = b.source.With(b.cfg)
		return b.source
	})
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
