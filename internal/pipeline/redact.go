package pipeline

import (
	"strings"

	"github.com/rea-agent/rea/internal/event"
)

// Redacted stands where a secret stood.
const Redacted = "[redacted]"

// Redactor returns what Emit applies to every text. Secrets in text always go.
// With pii, names of users and the home part of paths go as well; commands says
// whether command lines go.
func Redactor(pii, commands bool) event.Redactor {
	return func(class event.Class, s string) (string, bool) {
		switch class {
		case event.Account:
			return s, !pii
		case event.Command:
			if pii || commands {
				return "", false
			}
		case event.Path:
			if pii {
				s = withoutHome(s)
			}
		}
		return withoutSecrets(s), true
	}
}

// Where homes lie, and so where the next path element is somebody's name.
var homes = [...]string{"/home/", "/Users/", `\Users\`, `\Documents and Settings\`, "/export/home/", "/var/home/"}

// withoutHome replaces the name of the home that the path lies in.
func withoutHome(path string) string {
	for _, h := range homes {
		i := indexFold(path, h)
		if i < 0 {
			continue
		}
		name := path[i+len(h):]
		end := strings.IndexAny(name, `/\`)
		if end < 0 {
			end = len(name)
		}
		if end > 0 {
			return path[:i+len(h)] + Redacted + name[end:]
		}
	}
	return path
}

// The names after which a value is a secret, compared without case and without
// - and _.
var secretNames = [...]string{
	"password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "accesskey",
	"privatekey", "clientsecret", "authorization", "credential", "credentials",
}

// withoutSecrets replaces what is known to be a secret by its name or its place:
// the value of --password=…, "token: …", and the password in a URL.
func withoutSecrets(s string) string {
	if !strings.ContainsAny(s, "=:@ ") {
		return s
	}
	s = withoutURLPassword(s)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c != '=' && c != ':' && c != ' ':
			continue
		case c == ' ' && !strings.HasPrefix(lastField(s[:i]), "-"): // "token expired" is no secret, "--token x" is
			continue
		case !isSecretName(lastWord(s[:i])):
			continue
		}
		start := i + 1
		for start < len(s) && strings.IndexByte(` ="':`, s[start]) >= 0 {
			start++
		}
		end := start
		for end < len(s) && strings.IndexByte(" \t\n\"'&;,", s[end]) < 0 {
			end++
		}
		if strings.EqualFold(s[start:end], "bearer") || strings.EqualFold(s[start:end], "basic") {
			for end++; end < len(s) && s[end] != ' '; end++ {
			}
			end = min(end, len(s))
		}
		if end > start {
			s = s[:start] + Redacted + s[end:]
			i = start + len(Redacted) - 1
		}
	}
	return s
}

// withoutURLPassword replaces the password in scheme://user:password@host.
func withoutURLPassword(s string) string {
	for from := 0; ; {
		i := strings.Index(s[from:], "://")
		if i < 0 {
			return s
		}
		from += i + 3
		authority := s[from:]
		if end := strings.IndexAny(authority, "/?# \t\n\"'"); end >= 0 {
			authority = authority[:end]
		}
		at := strings.LastIndexByte(authority, '@')
		colon := strings.IndexByte(authority, ':')
		if at > colon && colon >= 0 && authority[colon+1:at] != Redacted {
			s = s[:from+colon+1] + Redacted + s[from+at:]
		}
	}
}

func isSecretName(word string) bool {
	for _, n := range secretNames {
		if endsWithFold(word, n) {
			return true
		}
	}
	return false
}

// endsWithFold reports whether word, without - and _ and in lower case, ends in name.
func endsWithFold(word, name string) bool {
	i := len(word)
	for j := len(name) - 1; j >= 0; j-- {
		for i--; i >= 0 && (word[i] == '-' || word[i] == '_'); i-- {
		}
		if i < 0 || lower(word[i]) != name[j] {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// lastWord returns the name at the end of s, without a quote that closes it.
func lastWord(s string) string {
	s = strings.TrimRight(s, `"'`)
	i := len(s)
	for i > 0 && (s[i-1] == '-' || s[i-1] == '_' || s[i-1] >= '0' && s[i-1] <= '9' || lower(s[i-1]) >= 'a' && lower(s[i-1]) <= 'z') {
		i--
	}
	return s[i:]
}

func lastField(s string) string {
	return s[strings.LastIndexByte(s, ' ')+1:]
}

func indexFold(s, sub string) int {
	for i := 0; i+len(sub) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(sub)], sub) {
			return i
		}
	}
	return -1
}
