//go:build torture

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A plant is a bug: text of a file that is replaced while it is built. Nothing of
// it is in the program that is shipped.
type plant struct {
	name, file, old, new string
	catch                string // the arguments of go test that must fail, in a minute
}

const (
	// Those that cut off processes and those that compare with a model.
	storeTests = "./internal/server/store -run TestTheBooksAreThoseOfANaiveModel|TestKillLosesNothing"
	histories  = "./internal/queue -run TestHistories$ -sim.seed=1 -sim.histories=4000"
)

var plants = []plant{
	{
		"what is written is not synced", "internal/queue/append.go",
		"if err := q.file.Sync(); err != nil {", "if err := error(nil); err != nil {", histories,
	}, {
		"a failed sync is ignored", "internal/queue/append.go",
		"if err := q.file.Sync(); err != nil {", "if err := q.file.Sync(); err != nil && false {", histories,
	}, {
		"records can be sent before they are durable", "internal/queue/append.go",
		"\t\tif err == nil {\n\t\t\terr = q.write(group)\n\t\t}\n\t\tif err == nil {\n\t\t\tq.publish(group, size)\n", "\t\tif err == nil {\n\t\t\tq.publish(group, size)\n\t\t\terr = q.write(group)\n\t\t}\n\t\tif err == nil {\n", histories,
	}, {
		"numbers are used again", "internal/queue/recover.go",
		"q.next = max(1, m.next, q.next)", "q.next = max(1, q.next)", histories,
	}, {
		"a torn end is not cut off", "internal/queue/segment.go",
		"if err := f.Truncate(s.end); err != nil {", "if err := error(nil); err != nil {", histories,
	}, {
		"the bound is missed by a block", "internal/queue/append.go",
		"q.used+growth <= q.options.MaxBytes\n", "q.used+growth <= q.options.MaxBytes+block\n", histories,
	}, {
		"room counts as free before the removal is durable", "internal/queue/loss.go",
		"q.ghosts += blocks(s.size)", "q.used -= blocks(s.size)", "./internal/queue -run TestRoomIsFreeWhenTheRemovalIsOnTheDisk",
	}, {
		"an id of a segment is used again", "internal/queue/recover.go",
		"q.fresh = max(q.fresh+1, m.fresh)", "q.fresh++", "./internal/queue -run TestAnIdOfASegmentIsNotUsedAgain",
	}, {
		"a queue forgets losses once it has told them", "internal/queue/loss.go",
		"q.told = merge(q.told, l, maxLosses)", "_ = l", histories,
	}, {
		"a gap event that is given up is not told again", "internal/agent/account.go",
		"l.agent.ledger.Lost(loss.First, loss.Last)", "_ = loss", "./internal/agent -run TestNoLossIsForgottenWhileEvidenceOverflows",
	}, {
		"the agent forgets what the server has not answered", "internal/ship/sender.go",
		"f := s.post(ctx, b)\n\tif f == nil {\n\t\tf = s.accepted(b)\n\t}", "f := s.accepted(b)\n\tif f == nil {\n\t\tf = s.post(ctx, b)\n\t}", "./internal/ship -run TestNothingTheServerAnswersLosesAnything",
	}, {
		"the server does not see repeats", "internal/server/store/put.go",
		"func missing(st stream, want span) (news []span) {\n", "func missing(st stream, want span) (news []span) {\n\tst.high = want.first - 1\n\tst.holes = nil\n", storeTests,
	}, {
		"the server answers before the batch is on its disk", "internal/server/store/put.go",
		"if err := tx.Commit(); err != nil {", "if err := tx.Rollback(); err != nil {", storeTests,
	}, {
		"agents wait without jitter", "internal/ship/backoff.go",
		"return rand.N(d)", "_ = rand.N(d)\n\treturn d", "./internal/ship -run TestFullJitterStaysWithinItsBounds",
	},
}

// TestPlantedBugsAreFound builds each bug in and wants its test to fail; without
// it the same test must pass.
func TestPlantedBugsAreFound(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sound := map[string]bool{}
	for _, p := range plants {
		t.Run(strings.ReplaceAll(p.name, " ", "_"), func(t *testing.T) {
			overlay := p.overlay(t, root)
			if !sound[p.catch] {
				if out, err := test(t, root, p.catch); err != nil {
					t.Fatalf("fails without the bug:\n%s", out)
				}
				sound[p.catch] = true
			}
			began := time.Now()
			out, err := test(t, root, "-overlay "+overlay+" "+p.catch)
			switch {
			case err == nil:
				t.Errorf("nothing found it: go test %s", p.catch)
			case !bytes.Contains(out, []byte("--- FAIL")):
				t.Errorf("it did not come to a test:\n%s", out)
			default:
				t.Logf("found in %v", time.Since(began).Round(100*time.Millisecond))
				// For the table of make torture.
				t.Logf(`row {"What":"planted: %s","Many":1,"Seconds":%.1f,"Note":"found"}`, p.name, time.Since(began).Seconds())
			}
		})
	}
}

// overlay writes the file with the bug, and the file that tells go of it.
func (p *plant) overlay(t *testing.T, root string) string {
	t.Helper()
	path := filepath.Join(root, filepath.FromSlash(p.file))
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(source, []byte(p.old)); n != 1 {
		t.Fatalf("the plant no longer fits: %q is %d times in %s", p.old, n, p.file)
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(changed, bytes.Replace(source, []byte(p.old), []byte(p.new), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}

// test runs go test for a minute at most, compiling not included: that is warm
// after the first.
func test(t *testing.T, root, args string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	words := strings.Fields(args)
	var packages, flags []string
	for _, w := range words {
		if strings.HasPrefix(w, "./") {
			packages = append(packages, w)
		} else {
			flags = append(flags, w)
		}
	}
	// Flags of go before the packages, those of the test after them.
	line := []string{"test", "-count=1", "-timeout=60s"}
	for i, f := range flags {
		if f == "-overlay" {
			line = append(line, f, flags[i+1])
			flags = append(flags[:i:i], flags[i+2:]...)
			break
		}
	}
	line = append(append(line, packages...), flags...)
	cmd := exec.CommandContext(ctx, "go", line...)
	cmd.Dir = root
	return cmd.CombinedOutput()
}
