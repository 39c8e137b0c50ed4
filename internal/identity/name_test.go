package identity

import (
	"math/rand/v2"
	"regexp"
	"testing"
)

// What the checks by hand say is what these say.
var (
	agentURI     = regexp.MustCompile(`^spiffe://([a-z0-9._-]{1,255})/agent/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$`)
	dnsLabels    = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)
	organisation = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`)
)

func TestNamesAreCheckedAsTheirGrammarSays(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	good := []string{
		"spiffe://lab/agent/0190a1b2-0000-7000-8000-00000000000f", "spiffe://a.b-c_9/agent/ffffffff-ffff-4fff-bfff-ffffffffffff",
		"rea.example.org", "*.example.org", "_tcp.x", "a-b", "x", "",
	}
	const strange = "-._*/:AZaz09@[`{\x00\n\xc1é "
	agents, names := 0, 0
	for range 200_000 {
		s := []byte(good[rng.IntN(len(good))])
		for range rng.IntN(4) {
			if len(s) == 0 {
				break
			}
			switch at := rng.IntN(len(s)); rng.IntN(4) {
			case 0:
				s[at] = strange[rng.IntN(len(strange))]
			case 1:
				s = append(s[:at], s[at+1:]...)
			case 2:
				s = append(s, s[at:]...)
			case 3: // a label, or an organisation, as long as it may be, and longer
				for range 60 + rng.IntN(6) {
					s = append(s[:at+1], s[at:]...)
				}
			}
		}
		text := string(s)
		m := agentURI.FindStringSubmatch(text)
		if uuid, ok := agentOf(text); ok != (m != nil) || ok && uuid != m[2] {
			t.Fatalf("%q: agent %q %v, want %q", text, uuid, ok, m)
		}
		if got, want := isDNSName(text), len(text) <= 253 && dnsLabels.MatchString(text); got != want {
			t.Fatalf("%q: a DNS name %v, want %v", text, got, want)
		} else if got {
			names++
		}
		if got, want := isOrganisation(text), organisation.MatchString(text); got != want {
			t.Fatalf("%q: an organisation %v, want %v", text, got, want)
		}
		if m != nil {
			agents++
		}
	}
	if agents < 1000 || names < 1000 {
		t.Fatalf("only %d agents and %d names among them", agents, names)
	}
}
