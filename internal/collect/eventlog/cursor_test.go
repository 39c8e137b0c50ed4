package eventlog

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/collect"
)

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

// Without a bookmark what is gone from the front of a log is seen though a filter
// makes holes.
func TestWhatIsGoneFromAFilteredLogIsToldWithoutABookmark(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, b *bench){
		"damaged": func(t *testing.T, b *bench) {
			b.runFor(time.Second)
			if err := os.WriteFile(b.cfg.File, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"not read yet": func(_ *testing.T, b *bench) {
			b.fake.fail("Security", "subscribe", errServer)
			b.runFor(100 * time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *bench) {
				b.handed = b.kept
				b.cfg.Rules = []Rule{{Channel: "*", apply: []func(*settings){func(s *settings) { s.XPath = "EventID>7<" }}}}
				b.fake.write("Security", 10)
				lose(t, b)
				b.fake.log("Security").capacity = 5
				b.fake.write("Security", 20)
				b.runFor(10 * time.Second)
				got := b.ids["Security"]
				if len(got) < 5 || runs(got[len(got)-5:]) != "26-30" || len(b.gaps) != 1 || b.gaps[0].LastRecord != 25 || b.gaps[0].Bound != "at_most" {
					t.Errorf("handed over %s, gaps %+v", runs(got), b.gaps)
				}
			})
		})
	}
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
