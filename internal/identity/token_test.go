package identity

import (
	"errors"
	"strings"
	"testing"
)

func testToken(t testing.TB) Token { return NewToken(authority(t).issuer.cert) }

func TestATokenIsReadAsItWasCopied(t *testing.T) {
	token := testToken(t)
	text := token.String()
	for name, copied := range map[string]string{
		"as it is":                text,
		"in capitals":             strings.ToUpper(text),
		"over two lines":          " " + text[:40] + "\r\n  " + text[40:] + "\n",
		"with a space that joins": text[:10] + "\u00a0" + text[10:],
	} {
		if got, err := ParseToken(copied); err != nil || got != token {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASlipInATokenIsSaid(t *testing.T) {
	text := testToken(t).String()
	for i := range text {
		for _, c := range "ab2-" {
			if rune(text[i]) == c {
				continue
			}
			slip := text[:i] + string(c) + text[i+1:]
			if _, err := ParseToken(slip); !errors.Is(err, ErrToken) {
				t.Fatalf("character %d: %v", i, err)
			} else if strings.Contains(err.Error(), text[20:30]) {
				t.Errorf("the secret is in the error: %v", err)
			}
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":          {"", "begins with rea1: copy it as a whole"},
		"a part":           {text[:len(text)-1], "it has 87 characters, not 88"},
		"too much":         {text + "a", "it has 89 characters"},
		"something else":   {"hunter2", "begins with rea1"},
		"a later version":  {"rea2" + text[4:], "use the same version as the server"},
		"very much":        {strings.Repeat("a", 2000), "too long"},
		"two wrong places": {text[:8] + text[9:10] + text[8:9] + text[10:], "a character is wrong"},
	} {
		if name == "two wrong places" && text[8] == text[9] {
			continue
		}
		if _, err := ParseToken(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestWhatIsKeptOfATokenIsNotTheToken(t *testing.T) {
	token := testToken(t)
	if hash := token.Hash(); len(hash) != 64 || strings.Contains(token.String(), hash[:12]) {
		t.Error(hash)
	}
	if other := testToken(t); other.Hash() == token.Hash() {
		t.Error("two tokens are the same")
	}
}

func FuzzParseToken(f *testing.F) {
	text := testToken(f).String()
	f.Add(text)
	f.Add(strings.ToUpper(text))
	f.Add(text[:50])
	f.Add("rea2aaaa")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			if !errors.Is(err, ErrToken) || token != (Token{}) {
				t.Errorf("%v, %v", token, err)
			}
			return
		}
		if again, err := ParseToken(token.String()); err != nil || again != token {
			t.Errorf("%q does not come back: %v", s, err)
		}
	})
}
