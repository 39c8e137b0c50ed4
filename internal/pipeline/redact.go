package pipeline

import (
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/redact"
)

// Redactor returns what Emit applies to every text where the policy stays the same.
func Redactor(p *redact.Policy) event.Redactor {
	return func(kind event.Kind, field string, class event.Class, s string) (clean string, keep bool, secrets string) {
		return Redact(p, kind, field, class, s)
	}
}

// Redact returns what the policy makes of a text: what it says of its field.
func Redact(p *redact.Policy, kind event.Kind, field string, class event.Class, s string) (clean string, keep bool, secrets string) {
	return p.Apply(string(kind), field, classes[class], s)
}

// classes are the policy's words for what a collector knows of a text.
var classes = [...]redact.Class{event.Text: redact.Text, event.Command: redact.Command, event.Account: redact.Account, event.Path: redact.Path}
