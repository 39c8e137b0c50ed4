package redact_test

import (
	"testing"
	"unicode/utf8"

	"github.com/rea-agent/rea/internal/redact"
	"github.com/rea-agent/rea/internal/redact/redacttest"
)

// Whatever the text, the scan ends, keeps UTF-8 valid, finds nothing in its own
// result, and does not let the text grow without bound.
func FuzzSecrets(f *testing.F) {
	for _, s := range redacttest.Secrets(1, 1) {
		f.Add(s.Line)
	}
	for _, s := range []string{"\xff=://:@", "password=[redacted]x", "secret=\"a b", "--password --token --secret", "://a:b:c@d@e://", "/home//home/a/home/b", `C:\Users\\Users\`, "net use net use net user a b", "password=password=password=x", "ˀ\x1618Q~a7QSTLTUmNUmkKsW0fOc26jP06kPEl"} {
		f.Add(s)
	}
	policies := []*redact.Policy{redact.New(redact.Options{}), redact.New(redact.Options{PII: true}), redact.New(redact.Options{PII: true, Key: []byte("0123456789abcdef0123456789abcdef")})}
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range policies {
			for _, class := range []redact.Class{redact.Text, redact.Path} {
				once, _, _ := p.Apply("agent", "message", class, s)
				if utf8.ValidString(s) && !utf8.ValidString(once) {
					t.Errorf("%q became %q", s, once)
				}
				if len(once) > 35*len(s)+len(redact.Mark) {
					t.Errorf("%q grew to %q", s, once)
				}
				if again, _, _ := p.Apply("agent", "message", class, once); again != once {
					t.Errorf("%q became %q and then %q", s, once, again)
				}
			}
		}
		clean, _, _ := redact.New(redact.Options{Rules: []redact.Rule{{Kind: "x", Field: "y", Action: redact.Keep}}}).Apply("process", "command_line", redact.Command, s)
		if again, _, _ := redact.New(redact.Options{}).Apply("process", "command_line", redact.Command, clean); again != clean {
			t.Errorf("%q became %q and then %q", s, clean, again)
		}
	})
}
