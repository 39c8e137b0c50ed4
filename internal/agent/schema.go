package agent

import (
	"encoding/json"
	"fmt"

	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/redact"
)

// bodies returns the schema of every kind's body, in the order of event.Kinds.
func bodies() (kinds []event.Kind, schemas map[event.Kind]string) {
	c := Default()
	schemas = map[event.Kind]string{event.Agent: event.AgentSchema, event.Gap: event.GapSchema}
	for _, s := range sources(&c, redact.New(redact.Options{}), nil) {
		schemas[s.kind] = s.schema
	}
	for _, k := range event.Kinds {
		if _, ok := schemas[k]; ok {
			kinds = append(kinds, k)
		}
	}
	return kinds, schemas
}

// EventSchema returns the JSON Schema (2020-12) of a line: the envelope, and the
// body of each kind under its own key.
func EventSchema() ([]byte, error) {
	var schema map[string]any
	if err := json.Unmarshal([]byte(event.EnvelopeSchema), &schema); err != nil {
		return nil, fmt.Errorf("schema of the envelope: %w", err)
	}
	kinds, schemas := bodies()
	properties := schema["properties"].(map[string]any)
	var alternatives []any
	belongs := map[string]any{} // the key of a kind stands only in events of that kind
	for _, k := range kinds {
		properties[string(k)] = json.RawMessage(schemas[k])
		isKind := map[string]any{"kind": map[string]any{"const": k}}
		alternatives = append(alternatives, map[string]any{"properties": isKind, "required": []any{k}})
		belongs[string(k)] = map[string]any{"properties": isKind}
	}
	properties["kind"].(map[string]any)["enum"] = kinds
	schema["oneOf"], schema["dependentSchemas"] = alternatives, belongs
	return json.MarshalIndent(schema, "", "  ")
}
