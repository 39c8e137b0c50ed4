package ingest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestAProcessThatComesBackAfterAnotherIsSuperseded(t *testing.T) {
	for sequence, want := range map[string]string{
		"AAAA":       "....",
		"AB":         "..",       // started again
		"ABCDEFGH":   "........", // and again
		"ABA":        "..x",
		"ABAB":       "..x.", // the one that came later goes on
		"ABABBAA":    "..x..xx",
		"ABCA":       "...x",
		"ABCAB":      "...xx",
		"A-B-A-":     "....x.",  // a tool is nobody
		"ABCDEA":     ".....x",  // four are remembered
		"ABCDEFA":    ".......", // the fifth is not
		"ABCDEFAFAB": ".......x..",
	} {
		l := lineages{list: map[string]*lineage{}}
		var got strings.Builder
		for i, c := range sequence {
			instance := strings.Repeat(strings.ToLower(string(c)), 32)
			if c == '-' {
				instance = ""
			}
			if l.superseded("node/stream", instance, noon.Add(time.Duration(i)*time.Minute)) {
				got.WriteByte('x')
			} else {
				got.WriteByte('.')
			}
			if l.superseded("node/another", "a", noon) {
				t.Error("streams are mixed up")
			}
		}
		if got.String() != want {
			t.Errorf("%s: %s, want %s", sequence, got.String(), want)
		}
	}
}

func TestSilentStreamsAreForgotten(t *testing.T) {
	l := lineages{list: map[string]*lineage{}}
	for n := range 1000 {
		l.superseded(fmt.Sprint("node/", n), "a", noon)
	}
	l.superseded("node/heard", "a", noon.Add(silence))
	l.superseded("node/new", "a", noon.Add(silence+sweepEvery))
	if len(l.list) != 2 {
		t.Errorf("%d are remembered", len(l.list))
	}
}

func TestStreamsThatAreRememberedAreBounded(t *testing.T) {
	l := lineages{list: map[string]*lineage{}}
	for n := range maxLineages + 1000 {
		l.superseded(fmt.Sprint("node/", n), "a", noon)
	}
	if len(l.list) != maxLineages {
		t.Errorf("%d are remembered", len(l.list))
	}
}
