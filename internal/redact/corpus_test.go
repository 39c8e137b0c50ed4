package redact_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/redact"
	"github.com/rea-agent/rea/internal/redact/redacttest"
)

// corpusSeed draws the corpus; another one draws other secrets for the same places.
const corpusSeed = 20261123

func TestNoPlantedSecretStays(t *testing.T) {
	p := redact.New(redact.Options{}) // personal data stays: secrets go even so
	planted, kept, kinds := map[string]int{}, map[string]int{}, []string(nil)
	all := redacttest.Secrets(corpusSeed, 10)
	for _, s := range all {
		if planted[s.Kind]++; planted[s.Kind] == 1 {
			kinds = append(kinds, s.Kind)
		}
		class := redact.Text
		if s.Shell {
			class = redact.Command
		}
		clean, _, secrets := p.Apply("agent", "message", class, s.Line)
		if strings.Contains(clean, s.Secret) {
			kept[s.Kind]++
			t.Errorf("%s: %q stayed in %q", s.Kind, s.Secret, clean)
		}
		if secrets == "" {
			t.Errorf("%s: nothing was said of %q", s.Kind, s.Line)
		}
		if again, _, _ := p.Apply("agent", "message", class, clean); again != clean {
			t.Errorf("%s: not the same again (-once +twice):\n%s", s.Kind, cmp.Diff(clean, again))
		}
	}
	if len(all) < 500 || len(kinds) < 40 {
		t.Errorf("the corpus has %d secrets of %d kinds, and is to have 500 of 40", len(all), len(kinds))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s %8s %8s\n", "KIND OF SECRET", "PLANTED", "KEPT")
	for _, k := range kinds {
		fmt.Fprintf(&b, "%-24s %8d %8d\n", k, planted[k], kept[k])
	}
	t.Logf("%d secrets of %d kinds\n%s", len(all), len(kinds), b.String())
}

func TestHarmlessLinesStay(t *testing.T) {
	lines, touched, order := map[string]int{}, map[string]int{}, []string(nil)
	n := 0
	all := redacttest.Lines(corpusSeed, 150)
	for _, l := range all {
		if lines[l.Kind]++; lines[l.Kind] == 1 {
			order = append(order, l.Kind)
		}
		if clean, kinds := redact.Secrets(l.Line); clean != l.Line {
			touched[l.Kind]++
			n++
			t.Logf("touched (%s): %q\n became %q", kinds, l.Line, clean)
		}
	}
	if len(all) < 1000 || n*100 > len(all) {
		t.Errorf("%d of %d harmless lines were touched: at most 1 %% of 1,000 or more", n, len(all))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s %8s %8s\n", "KIND OF LINE", "LINES", "TOUCHED")
	for _, k := range order {
		fmt.Fprintf(&b, "%-24s %8d %8d\n", k, lines[k], touched[k])
	}
	t.Logf("%d of %d harmless lines touched\n%s", n, len(all), b.String())
}
