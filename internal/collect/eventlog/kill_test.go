package eventlog

import (
	"os"
	"testing"
	"testing/synctest"
	"time"
)

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

// That positions were lost is known until it is told, whenever the source is killed
// and whatever becomes of its channels meanwhile: none begins with what is new.
func TestAKillForgetsNoDamageOfThePositions(t *testing.T) {
	for name, trouble := range map[string]func(l *fakeLog){
		"read":   func(*fakeLog) {},
		"denied": func(l *fakeLog) { l.denied = true },
		"absent": func(l *fakeLog) { l.absent = true },
		"empty":  func(l *fakeLog) { l.records = nil },
	} {
		t.Run(name, func(t *testing.T) {
			for at, reached := 1, true; reached; at++ {
				bubble(t, func(t *testing.T, b *bench) {
					b.cfg.Oldest = false
					b.fake.write("Security", 10)
					b.runFor(time.Second)
					if err := os.WriteFile(b.cfg.File, []byte("{"), 0o600); err != nil {
						t.Fatal(err)
					}
					l := b.fake.log("Security")
					trouble(l)
					b.fake.die = b.fake.steps + at
					b.start()
					time.Sleep(10 * saveEvery)
					b.end()
					<-b.done
					b.fake.mu.Lock()
					reached = b.fake.dead
					b.fake.die, b.fake.dead, l.denied, l.absent = 0, false, false, false
					b.fake.subs, b.fake.open = map[*fakeSub]bool{}, 0
					b.fake.mu.Unlock()
					b.fake.write("Security", 3)
					b.runFor(time.Minute)
					accounted(t, b, l.records[0].id)
					if len(b.gaps) == 0 || b.gaps[0].Cause != "bookmark_lost" {
						t.Errorf("nobody is told that positions were lost: %+v", b.gaps)
					}
				})
				if t.Failed() {
					t.Fatalf("killed at call %d", at)
				}
			}
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
