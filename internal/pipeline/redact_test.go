package pipeline

import (
	"testing"

	"github.com/rea-agent/rea/internal/event"
)

func TestRedactor(t *testing.T) {
	const gone = "(left out)"
	for _, c := range []struct {
		class         event.Class
		in, pii, open string // with personal data redacted, and without
	}{
		{event.Text, "plain words", "plain words", "plain words"},
		{event.Text, "token expired", "token expired", "token expired"},
		{event.Text, "--password=hunter2 --v", "--password=[redacted] --v", "--password=[redacted] --v"},
		{event.Text, "--password hunter2 --v", "--password [redacted] --v", "--password [redacted] --v"},
		{event.Text, `{"api_key": "abc", "b": 1}`, `{"api_key": "[redacted]", "b": 1}`, `{"api_key": "[redacted]", "b": 1}`},
		{event.Text, "Authorization: Bearer abc.def rest", "Authorization: [redacted] rest", "Authorization: [redacted] rest"},
		{event.Text, "DB_PASSWORD=a;Server=b", "DB_PASSWORD=[redacted];Server=b", "DB_PASSWORD=[redacted];Server=b"},
		{event.Text, "get https://u:p@ss@host/x?y", "get https://u:[redacted]@host/x?y", "get https://u:[redacted]@host/x?y"},
		{event.Text, "https://host:8443/x@y", "https://host:8443/x@y", "https://host:8443/x@y"},
		{event.Text, "password=", "password=", "password="},
		{event.Text, "Authorization: Bearer", "Authorization: [redacted]", "Authorization: [redacted]"},
		{event.Account, "alice", gone, "alice"},
		{event.Command, "ls -l --token=t", gone, "ls -l --token=[redacted]"},
		{event.Path, "/home/alice/x", "/home/[redacted]/x", "/home/alice/x"},
		{event.Path, `C:\Users\alice`, `C:\Users\[redacted]`, `C:\Users\alice`},
		{event.Path, `c:\users\alice\x`, `c:\users\[redacted]\x`, `c:\users\alice\x`},
		{event.Path, "/home", "/home", "/home"},
		{event.Path, "/srv", "/srv", "/srv"},
	} {
		for pii, want := range map[bool]string{true: c.pii, false: c.open} {
			got, keep := Redactor(pii, false)(c.class, c.in)
			if !keep {
				got = gone
			}
			if got != want {
				t.Errorf("pii %v, class %d: %q became %q, want %q", pii, c.class, c.in, got, want)
			}
		}
	}
	if _, keep := Redactor(false, true)(event.Command, "ls"); keep {
		t.Error("a command line went through although commands are redacted")
	}
}

func FuzzRedactor(f *testing.F) {
	for _, s := range []string{"--password=x", "https://u:p@h", "token: bearer x", "secret=\"a b\"", "\xff=://:@", "Authorization: Basic "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, class := range []event.Class{event.Text, event.Path} {
			once, _ := Redactor(true, true)(class, s)
			if twice, _ := Redactor(true, true)(class, once); len(once) > 12*len(s)+12 || len(twice) > 12*len(once)+12 {
				t.Errorf("%q grew to %q and %q", s, once, twice)
			}
		}
	})
}
