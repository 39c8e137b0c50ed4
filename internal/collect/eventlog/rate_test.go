package eventlog

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/collect"
)

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
		m := b.text()
		if !strings.Contains(m, `rea_eventlog_lag_seconds{channel="Security"} 30`) || strings.Contains(m, `rea_eventlog_lag_records{channel="Security"} 0`) ||
			!strings.Contains(m, `rea_eventlog_channel_state{channel="Security",state="lagging"} 1`) {
			t.Error(m)
		}
		if got := b.run.States()[0].Parts[0].Backlog; got.Lag.Round(time.Second) != 30*time.Second || got.Records < 1900 || got.Records > 3100 || got.Missing != 0 {
			t.Errorf("%+v", got)
		}
		time.Sleep(30 * time.Second)
		m = b.text()
		b.stop()
		b.want("1-5000")
		if p := b.run.States()[0].Parts[0]; p.State != collect.OK || p.Backlog != (collect.Backlog{}) {
			t.Errorf("%+v", p)
		}
		for _, want := range []string{`{channel="Security",state="lagging"} 0`, `{channel="Security",state="ok"} 1`} {
			if !strings.Contains(m, "rea_eventlog_channel_state"+want) {
				t.Errorf("no %s in %s", want, m)
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

// What the keeper has tells how far the source was: a gap event behind records that
// were dropped may not come before that of these.
func TestAHoleBehindDroppedRecordsHidesNoneOfThem(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.cfg.RPS, b.cfg.Drop, b.handed = 5, true, b.kept
		b.start()
		time.Sleep(2 * time.Second)
		b.fake.write("Security", 11)
		time.Sleep(100 * time.Millisecond)
		b.fake.mu.Lock()
		l := b.fake.log("Security")
		l.records, l.next = nil, l.next+5 // cleared, and the subscription does not see that
		b.fake.mu.Unlock()
		b.fake.write("Security", 3)
		time.Sleep(100 * time.Millisecond)
		b.stop()
		b.runFor(10 * time.Second)
		everyRecordOnce(t, b, 19)
	})
}

// Where a record stands in the log that it was forwarded to is known by the bookmark,
// which is not put behind it while it is only counted.
func TestNoForwardedRecordIsForgottenThatWasDropped(t *testing.T) {
	for name, xpath := range map[string]string{"all": "", "filtered": "EventID>7<"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, newFake("ForwardedEvents"), "ForwardedEvents")
				b.cfg.RPS, b.cfg.Drop = 5, true
				if xpath != "" {
					b.cfg.Rules = []Rule{{Channel: "*", apply: []func(*settings){func(s *settings) { s.XPath = xpath }}}}
				}
				l := b.fake.log("ForwardedEvents")
				forward := func(n int) {
					b.fake.mu.Lock()
					defer b.fake.mu.Unlock()
					for range n {
						l.records = append(l.records, fakeRecord{l.next, recordXML("Security", "P", 7, 1000+l.next, "")})
						l.next++
					}
					b.fake.wake(l.name)
				}
				b.start()
				time.Sleep(2 * time.Second)
				forward(5)
				time.Sleep(100 * time.Millisecond)
				forward(1)
				time.Sleep(100 * time.Millisecond)
				forward(2)
				time.Sleep(100 * time.Millisecond)
				b.stop()
				b.runFor(10 * time.Second)
				if got := runs(b.ids["Security"]); got != "1001-1008" || len(b.gaps) != 0 {
					t.Errorf("handed over %s, gaps %+v", got, b.gaps)
				}
			})
		})
	}
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
