//go:build torture && linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
)

// TestTheBooksFindWhatIsWrong shows the arithmetic one history of each kind: a
// checker that cannot fail proves nothing.
func TestTheBooksFindWhatIsWrong(t *testing.T) {
	event := func(seq, number uint64, change ...func(*item)) string {
		it := newItem("log", 7, number)
		for _, c := range change {
			c(&it)
		}
		body, err := json.Marshal(it)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"stream":"s","seq":%d,"kind":"journal","journal":%s}`, seq, body)
	}
	gap := func(seq, first, last, count uint64) string {
		return fmt.Sprintf(`{"stream":"s","seq":%d,"kind":"gap","gap":{"stream":"s","cause":"queue_full","first":%d,"last":%d,"count":%d}}`, seq, first, last, count)
	}
	for name, c := range map[string]struct {
		safe, assigned uint64
		stored, kept   []string
		faults         map[string]int
		replayed       uint64
	}{
		"all is well":                    {safe: 2, assigned: 2, stored: []string{event(1, 0), event(2, 1)}},
		"in another order":               {safe: 2, assigned: 2, stored: []string{event(2, 1), event(1, 0)}},
		"the last is not acknowledged":   {safe: 1, assigned: 2, stored: []string{event(1, 0), event(2, 1)}},
		"a replay has its own number":    {safe: 1, assigned: 2, stored: []string{event(1, 0), event(2, 0)}, replayed: 1},
		"in the queue and in the store":  {safe: 1, assigned: 1, stored: []string{event(1, 0)}, kept: []string{event(1, 0)}},
		"in the queue alone":             {safe: 1, assigned: 1, kept: []string{event(1, 0)}},
		"lost and declared":              {safe: 2, assigned: 3, stored: []string{event(1, 0), gap(3, 2, 2, 1)}},
		"stored twice":                   {safe: 1, assigned: 1, stored: []string{event(1, 0), event(1, 0)}, faults: map[string]int{repeated: 1}},
		"a number with two contents":     {safe: 2, assigned: 1, stored: []string{event(1, 0), event(1, 1)}, faults: map[string]int{reused: 1, lost: 1}},
		"another content in the queue":   {safe: 1, assigned: 1, stored: []string{event(1, 0)}, kept: []string{event(1, 1)}, faults: map[string]int{reused: 1}},
		"a hole in the numbers":          {safe: 2, assigned: 3, stored: []string{event(1, 0), event(3, 1)}, faults: map[string]int{undeclared: 1}},
		"the end is missing":             {safe: 1, assigned: 2, stored: []string{event(1, 0)}, faults: map[string]int{undeclared: 1}},
		"an acknowledged item is gone":   {safe: 2, assigned: 1, stored: []string{event(1, 0)}, faults: map[string]int{lost: 1}},
		"more items gone than declared":  {safe: 3, assigned: 2, stored: []string{gap(2, 1, 1, 1)}, faults: map[string]int{lost: 2}},
		"a gap that covers too much":     {safe: 0, assigned: 4, stored: []string{gap(4, 1, 3, 1)}, faults: map[string]int{undeclared: 1}},
		"a text that was changed":        {safe: 1, assigned: 1, stored: []string{event(1, 0, func(i *item) { i.Text += "x" })}, faults: map[string]int{wrong: 1, lost: 1}},
		"what was never handed over":     {safe: 0, assigned: 1, stored: []string{event(1, 0, func(i *item) { i.Number = 9 })}, faults: map[string]int{wrong: 1}},
		"a gap that ends before it runs": {safe: 0, assigned: 1, stored: []string{gap(1, 3, 2, 1)}, faults: map[string]int{wrong: 1}},
		"no JSON":                        {safe: 0, assigned: 0, stored: []string{"{"}, faults: map[string]int{wrong: 1}},
		"a number that cannot be":        {safe: 0, assigned: 0, stored: []string{event(1<<60, 0)}, faults: map[string]int{wrong: 1}},
	} {
		b := newBooks()
		b.source("log", 7)
		b.acknowledged("log", c.safe)
		var faults []fault
		for _, l := range c.stored {
			faults = append(faults, b.stored([]byte(l+"\n"))...)
		}
		for _, l := range c.kept {
			faults = append(faults, b.kept([]byte(l+"\n"))...)
		}
		if err := b.assign("s", c.assigned); err != nil {
			t.Fatal(err)
		}
		r := b.close()
		got := map[string]int{}
		for _, f := range slices.Concat(faults, r.faults) {
			got[f.what]++
		}
		if !maps.Equal(got, c.faults) {
			t.Errorf("%s: found %v, want %v: %v", name, got, c.faults, r.faults)
		}
		if r.replayed != c.replayed {
			t.Errorf("%s: %d replays, want %d", name, r.replayed, c.replayed)
		}
	}
}
