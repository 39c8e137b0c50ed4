// Package redact decides what may be told of people and keeps secrets in.
//
// There are two things that it takes out. Personal data goes by policy: each
// field of each kind of event has a class (Account, Command, Path, Text), each
// class something that is done to it, and the operator may say otherwise for
// single fields. Secrets (passwords, tokens, keys) go from every text, whatever
// the policy says:
//
//	p := redact.New(redact.Options{PII: true, Key: key})
//	clean, keep, secrets := p.Apply("eventlog", "SubjectUserName", redact.Text, "alice")
//
// An account is removed, or, where the operator gave a key, replaced by a keyed
// hash: h: and 128 bits of HMAC-SHA-256, the same on every machine with that
// key, so that events of one person can be joined by those who do not know who
// it is. Secrets finds secrets in one pass by hand-written rules; docs/redaction.md
// tells which, and what cannot be found.
//
// This package stands on the standard library and knows nothing of events but
// their names.
package redact

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// A Class says what a text may reveal.
type Class uint8

// The classes.
const (
	Text    Class = iota + 1 // words of others: may hold secrets and paths of homes
	Command                  // command-line arguments
	Account                  // names of users
	Path                     // a file path: may lie in somebody's home
)

// An Action is what is done to a field.
type Action uint8

// The actions. Whatever is done, secrets in what stays go.
const (
	ByClass Action = iota // what its class says
	Keep
	Remove
	Hash // replaced as a whole by a keyed hash

	leaveOut // what a class without a key means: removed, but for accounts that are nobody's
)

// actions are the words for them.
var actions = [...]string{Keep: "keep", Remove: "remove", Hash: "hash"}

// A Rule says what is done to one field of one kind.
type Rule struct {
	Kind, Field string
	Action      Action
}

// A RuleError says what is wrong with a rule, and what would be right.
type RuleError struct{ What, Fix string }

func (e *RuleError) Error() string { return e.What }

// ParseRule reads a rule as people write it: eventlog.IpAddress=hash. kinds are
// the kinds that there are.
func ParseRule(s string, kinds []string) (Rule, error) {
	at, action, ok := strings.Cut(s, "=")
	kind, field, named := strings.Cut(strings.TrimSpace(at), ".")
	if !ok || !named || field == "" {
		return Rule{}, &RuleError{"is not kind.field=action", "write it like process.user=hash"}
	}
	if !slices.Contains(kinds, kind) {
		return Rule{}, &RuleError{fmt.Sprintf("names %q, which is no kind of event", kind), "the kinds are " + strings.Join(kinds, ", ")}
	}
	if span(field, 0, word) != len(field) {
		return Rule{}, &RuleError{fmt.Sprintf("names the field %q: a field is letters, digits, - and _", field), "name the last part of its path, as docs/events.md has it"}
	}
	i := slices.Index(actions[1:], strings.TrimSpace(action))
	if i < 0 {
		return Rule{}, &RuleError{fmt.Sprintf("has the action %q", action), "the actions are keep, remove and hash"}
	}
	return Rule{Kind: kind, Field: field, Action: Action(i + 1)}, nil
}

// Options say what is redacted.
type Options struct {
	PII      bool   // personal data: accounts, homes, command lines
	Commands bool   // command lines, where personal data stays
	Key      []byte // for hashes; without one, what would be hashed is removed
	Rules    []Rule // for single fields; the last one counts
}

// A Policy is safe for concurrent use and does not change.
type Policy struct {
	o       Options
	rules   map[string]map[string]Action // by kind and folded field
	replace func(string) string          // for the name of a home; nil where those stay
}

// New returns the policy that o asks for.
func New(o Options) *Policy {
	p := &Policy{o: o, rules: map[string]map[string]Action{}}
	for _, r := range o.Rules {
		if p.rules[r.Kind] == nil {
			p.rules[r.Kind] = map[string]Action{}
		}
		var b [maxField]byte
		p.rules[r.Kind][string(foldField(&b, r.Field))] = r.Action
	}
	if o.PII {
		p.replace = p.homeName
	}
	return p
}

// SameKey reports whether both policies make the same hash of a name.
func (p *Policy) SameKey(other *Policy) bool { return hmac.Equal(p.o.Key, other.o.Key) }

// Apply returns what may be written of the text s in the field of that kind of
// event, and whether anything may. class is what the collector knows of the
// field; where that is Text, the table of known fields may know better. secrets
// names the kinds of secrets that were taken out, divided by commas.
func (p *Policy) Apply(kind, field string, class Class, s string) (clean string, keep bool, secrets string) {
	class, action := p.decide(kind, field, class)
	c := scan{home: p.replace, command: class == Command}
	switch action {
	case Remove:
		return "", false, ""
	case leaveOut:
		if class == Account && wellKnown(s) {
			return s, true, ""
		}
		return "", false, ""
	case Hash:
		if class == Account {
			return p.account(s), true, ""
		}
		return p.hash(s), true, ""
	case Keep:
		c.home = nil
	}
	if kind, ok := namedSecret(field, s); ok {
		return Mark, true, kind
	}
	if class == Path && c.home != nil {
		s = withoutHome(s, c.home)
	}
	clean, secrets = c.clean(s)
	return clean, true, secrets
}

// Reads reports whether anything of such a field may be written, so that nobody
// need read what is removed anyway.
func (p *Policy) Reads(kind, field string, class Class) bool {
	_, action := p.decide(kind, field, class)
	return action != Remove && action != leaveOut
}

// decide returns the class of a field and what is done to it.
func (p *Policy) decide(kind, field string, class Class) (Class, Action) {
	known, rules := fields[kind], p.rules[kind]
	if known != nil && class == Text || rules != nil {
		var b [maxField]byte
		name := foldField(&b, field)
		if c, ok := known[string(name)]; ok && class == Text {
			class = c
		}
		if action, ok := rules[string(name)]; ok {
			if action == Hash && p.o.Key == nil {
				action = Remove
			}
			return class, action
		}
	}
	switch {
	case class == Account && p.o.PII && p.o.Key != nil:
		return class, Hash
	case class == Account && p.o.PII, class == Command && (p.o.PII || p.o.Commands):
		return class, leaveOut
	}
	return class, ByClass
}

// namedSecret reports whether the field is one whose value is a secret by its
// name, and of which kind.
func namedSecret(field, s string) (kind string, ok bool) {
	n, _ := secretName(field, len(field))
	if n == nil || n.strict || harmless(s) {
		return "", false
	}
	return n.kind, true
}

// homeName returns what stands for the name of a home.
func (p *Policy) homeName(name string) string {
	if p.o.Key == nil {
		return Mark
	}
	return p.hash(name)
}

// account returns the hash of an account. The domain stays, as it names no
// person: CORP\alice and alice@corp.example have the hash of alice.
func (p *Policy) account(s string) string {
	if wellKnown(s) {
		return s
	}
	if i := strings.LastIndexByte(s, '\\'); i >= 0 && i+1 < len(s) {
		return s[:i+1] + p.hash(s[i+1:])
	}
	if i := strings.LastIndexByte(s, '@'); i > 0 {
		return p.hash(s[:i]) + s[i:]
	}
	return p.hash(s)
}

const (
	hashPrefix = "h:"
	hashLen    = len(hashPrefix) + 32
)

// hash returns the keyed hash of s, without regard to case: Windows has none, and
// one person's name is written in both. A hash is its own hash.
func (p *Policy) hash(s string) string {
	if hashed(s) || s == Mark {
		return s
	}
	m := hmac.New(sha256.New, p.o.Key)
	m.Write([]byte(strings.ToLower(s)))
	var sum [sha256.Size]byte
	return hashPrefix + hex.EncodeToString(m.Sum(sum[:0])[:16])
}

// hashed reports whether s is what hash returns.
func hashed(s string) bool {
	return len(s) == hashLen && strings.HasPrefix(s, hashPrefix) && span(s, len(hashPrefix), hexSet) == len(s)
}
