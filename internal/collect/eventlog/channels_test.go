package eventlog

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/collect"
)

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
		b.fake.make("A/New")
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

func TestAChannelThatComesAfterADamageHasLostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newFake("Security", "System"), "S*")
		b.fake.write("Security", 2)
		b.runFor(time.Second)
		if err := os.WriteFile(b.cfg.File, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		b.start()
		time.Sleep(time.Second)
		b.fake.make("Setup")
		b.fake.write("Setup", 4)
		time.Sleep(2 * resolveEvery)
		b.stop()
		b.want("1-2 1-2", "Security bookmark_lost 1 of 0-0 unknown")
		if got := runs(b.ids["Setup"]); got != "1-4" {
			t.Errorf("handed over %s", got)
		}
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
