package pipeline

import (
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/redact"
)

// Redactor returns what Emit applies to every text: what the policy says of its
// field.
func Redactor(p *redact.Policy) event.Redactor {
	return func(kind event.Kind, field string, class event.Class, s string) (clean string, keep bool, secrets string) {
		return p.Apply(string(kind), field, classes[class], s)
	}
}

// classes are the policy's words for what a collector knows of a text.
var classes = [...]redact.Class{event.Text: redact.Text, event.Command: redact.Command, event.Account: redact.Account, event.Path: redact.Path}
