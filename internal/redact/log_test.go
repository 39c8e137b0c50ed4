package redact

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestTheLogKeepsNoSecret(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(Log(slog.NewJSONHandler(&b, nil))).With("endpoint", "https://u:hunter2@h/").WithGroup("g")
	log.Info("login with password=hunter2", "error", errors.New("token=hunter2: refused"), "api_key", "hunter2", "n", 3,
		slog.Group("inner", "text", "Authorization: Bearer hunter2"), "plain", "nothing here")
	if got := b.String(); strings.Contains(got, "hunter2") || strings.Count(got, Mark) != 5 {
		t.Errorf("the log has %s", got)
	}
	for _, want := range []string{`"n":3`, `"plain":"nothing here"`, `"inner":{`, `"g":{`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s is not in %s", want, b.String())
		}
	}
}
