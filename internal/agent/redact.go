package agent

import (
	"errors"
	"fmt"

	"github.com/rea-agent/rea/internal/access"
	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/pipeline"
	"github.com/rea-agent/rea/internal/redact"
)

func (c *Config) redactKeys() []config.Key {
	r := &c.Redact
	return []config.Key{
		{Name: "redact.hash_key_file", Value: config.Path(&r.HashKeyFile, "the path of a file"),
			Usage: "The key (32 bytes or more, readable by nobody else) with which the names of accounts are hashed: the same name gives the same hash on every machine with that key. Empty leaves the names out."},
		{Name: "redact.fields", Value: config.Strings(&r.Fields, `a list like ["process.user=hash"]: kind.field=action, with keep, remove or hash`, redactRule),
			Usage: "What is done to single fields, whatever redact_pii and redact_cmdline say: keep, remove, or hash the whole value. Secrets in what is kept go all the same."},
	}
}

// redactRule checks an entry of redact.fields.
func redactRule(s string) error {
	_, err := redact.ParseRule(s, kindNames())
	if e, ok := errors.AsType[*redact.RuleError](err); ok {
		return &config.Fault{What: e.What, Fix: e.Fix}
	}
	return err
}

func kindNames() []string {
	names := make([]string, len(event.Kinds))
	for i, k := range event.Kinds {
		names[i] = string(k)
	}
	return names
}

// rules are those of redact.fields; the configuration has checked them.
func (c *Config) rules() (rules []redact.Rule, err error) {
	for _, s := range c.Redact.Fields {
		r, err := redact.ParseRule(s, kindNames())
		if err != nil {
			return nil, fmt.Errorf("redact.fields: %q %w", s, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func (c *Config) validateRedact() []config.Conflict {
	rules, err := c.rules()
	if err != nil || c.Redact.HashKeyFile != "" {
		return nil
	}
	for _, r := range rules {
		if r.Action == redact.Hash {
			return []config.Conflict{{Keys: []string{"redact.fields", "redact.hash_key_file"},
				What: fmt.Sprintf("%s.%s is to be hashed, but there is no key", r.Kind, r.Field),
				Fix:  "set hash_key_file in [redact], and make the file with: (umask 077; openssl rand -hex 32 > FILE)"}}
		}
	}
	return nil
}

// hashKey is what the key of the hashes is called.
const hashKey = "key of redaction"

// Redaction returns the policy of a configuration, with the key that it names.
func Redaction(c *Config) (*redact.Policy, error) {
	rules, err := c.rules()
	if err != nil {
		return nil, &kind{err, ErrConfig}
	}
	o := redact.Options{PII: c.Agent.RedactPII, Commands: c.Collectors.RedactCmdline, Rules: rules}
	if file := c.Redact.HashKeyFile; file != "" {
		if err = access.Secret(hashKey, file); err == nil {
			o.Key, err = redact.ReadKey(file)
		}
		if err != nil {
			return nil, &kind{err, ErrConfig}
		}
	}
	return redact.New(o), nil
}

// redact is the event.Redactor of the policy that is in force.
func (a *Agent) redact(kind event.Kind, field string, class event.Class, s string) (clean string, keep bool, secrets string) {
	return pipeline.Redact(a.policy.Load(), kind, field, class, s)
}
