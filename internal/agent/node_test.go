package agent

import (
	"errors"
	"regexp"
	"testing"
)

func TestNodeOf(t *testing.T) {
	machine := func() (string, error) { return "f00dfeed00000000000000000000cafe\n", nil }
	none := func() (string, error) { return "", errors.New("no such file") }
	for name, c := range map[string]struct {
		configured, certified string
		machine               func() (string, error)
		node, origin          string
	}{
		"what is configured wins":               {"lab-7", "0190-cert", machine, "lab-7", "configuration"},
		"the certificate is what a server sees": {"auto", "0190-cert", machine, "0190-cert", "certificate"},
		"the machine id is not given away":      {"auto", "", machine, derive("f00dfeed00000000000000000000cafe"), "machine id"},
		"without any id it is random":           {"auto", "", none, "", "random for this run"},
	} {
		t.Run(name, func(t *testing.T) {
			node, origin := nodeOf(c.configured, c.certified, c.machine)
			if c.node != "" && node != c.node || origin != c.origin {
				t.Errorf("node %q by %q, want %q by %q", node, origin, c.node, c.origin)
			}
			if again, _ := nodeOf(c.configured, c.certified, c.machine); c.node == "" && again == node {
				t.Errorf("two runs drew the same id %q", node)
			}
		})
	}
	if id := derive("f00dfeed00000000000000000000cafe"); !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("derived %q", id)
	}
}
