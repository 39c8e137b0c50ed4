package eventlog

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Where nothing is remembered across starts, a source with other settings must know
// all the same what the one before handed over.
func TestOtherSettingsTakeEffectWithoutALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newFake("Security", "System"), "Security")
		b.cfg.File, b.cfg.Oldest = "", false
		b.fake.write("Security", 5) // before the first start: not asked for
		b.start()
		time.Sleep(time.Second)
		for i := range 20 {
			b.fake.write("Security", 3)
			b.fake.write("System", 1)
			b.cfg.RPS = MaxRPS - i
			switch i {
			case 5:
				b.cfg.Channels = []string{"Security", "System"}
			case 15:
				b.cfg.Channels = []string{"System"}
			case 17:
				b.cfg.Channels = []string{"S*"}
			}
			b.reload()
			b.fake.write("Security", 2)
			time.Sleep(time.Minute)
		}
		metrics := b.text()
		b.stop()
		b.want("6-105")
		if got := runs(b.got("System")); got != "7-20" { // what comes after its first start
			t.Errorf("of System came %s", got)
		}
		if !strings.Contains(metrics, `rea_eventlog_channel_state{channel="Security",state="ok"} 1`) {
			t.Error(metrics)
		}
	})
}

func TestAChannelThatIsNotReadAnyMoreIsInNoState(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.start()
		time.Sleep(time.Second)
		b.cfg.Channels = nil
		b.reload()
		if text := b.text(); !strings.Contains(text, `rea_eventlog_channel_state{channel="Security",state="ok"} 0`) {
			t.Error(text)
		}
		if s := b.run.States()[0]; len(s.Parts) > 0 {
			t.Errorf("it is told of %+v", s.Parts)
		}
		b.stop()
	})
}

// A log that began anew has small numbers again: what the keeper had at the start
// says nothing of it.
func TestASourceThatIsRunAgainReadsALogThatBeganAnew(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 10)
		b.runFor(time.Second)
		b.handed = b.kept
		b.start()
		time.Sleep(time.Second)
		b.fake.remake("Security", 4)
		time.Sleep(time.Minute)
		b.reload()
		b.fake.write("Security", 4)
		time.Sleep(time.Minute)
		b.stop()
		b.want("1-10 1-8", "Security log_cleared 1 of 0-0 unknown")
	})
}

func (b *bench) text() string {
	var text bytes.Buffer
	_, _ = b.metrics.WriteTo(&text)
	return text.String()
}
