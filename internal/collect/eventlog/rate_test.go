package eventlog

import (
	"strings"
	"testing"
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
