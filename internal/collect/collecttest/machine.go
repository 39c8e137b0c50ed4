package collecttest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rea-agent/rea/internal/collect"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rogpeppe/go-internal/txtar"
)

// Files returns the files of an archive by name.
func Files(t testing.TB, archive string) map[string][]byte {
	t.Helper()
	a, err := txtar.ParseFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, f := range a.Files {
		files[f.Name] = f.Data
	}
	return files
}

// Lay writes the files of an archive below root, over what is there: of a state of
// the machine those in the folder of its name, without it; of "" all.
func Lay(t testing.TB, root, archive, state string) {
	t.Helper()
	if state != "" {
		state += "/"
	}
	for name, data := range Files(t, archive) {
		if name, ok := strings.CutPrefix(name, state); ok {
			Write(t, root, name, string(data))
		}
	}
}

// Write writes a file below root, with the folders that it lies in.
func Write(t testing.TB, root, name, data string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Drop takes events and forgets them.
func Drop(context.Context, ...event.Event) error { return nil }

// Supported skips a test of this machine where it has no such collector.
func Supported(t testing.TB, r collect.Reader) {
	t.Helper()
	if err := r.Read(t.Context(), Drop); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
}

// EncodesWithoutAllocating wants the events of two readings to be encoded without
// an allocation; each reading emits one.
func EncodesWithoutAllocating(t *testing.T, r collect.Reader) {
	t.Helper()
	enc := event.NewEncoder(Stamp, nil, 0)
	var line []byte
	for range 2 {
		err := r.Read(t.Context(), func(_ context.Context, events ...event.Event) error {
			var err error
			if n := testing.AllocsPerRun(100, func() { line, err = enc.Append(line[:0], &events[0], 1) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
