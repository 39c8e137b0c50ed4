package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/wire"
)

func TestAnExportHasTheLinesAsTheyWillBeSent(t *testing.T) {
	dir := t.TempDir()
	q, err := queue.Open(queue.Options{Dir: filepath.Join(dir, "metrics"), MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	z := wire.NewDictionaryCompressor()
	first := uint64(1)
	for _, data := range [][]byte{
		[]byte("{\"seq\":1}\n{\"seq\":2}\n"),
		z.Append(nil, []byte("{\"seq\":3}\n{\"seq\":4}\n")),
		z.Append(nil, bytes.Repeat([]byte("no end "), exportBytes)), // more than a writer gathers
		z.Append(nil, []byte("{\"seq\":7}\n{\"seq\":8}\n")),
	} {
		if err := q.Append(t.Context(), queue.Record{First: first, Count: 2, Data: data}); err != nil {
			t.Fatal(err)
		}
		first += 2
	}
	if err := q.Ack(2); err != nil {
		t.Fatal(err)
	}
	lanes, err := QueueLanes(dir)
	if err != nil || len(lanes) != 1 || lanes[0].Name != "metrics" {
		t.Fatalf("%v, %v", lanes, err)
	}
	const waiting = "{\"seq\":3}\n{\"seq\":4}\n{\"seq\":7}\n{\"seq\":8}\n"
	for all, want := range map[bool]string{false: waiting, true: "{\"seq\":1}\n{\"seq\":2}\n" + waiting} {
		var out bytes.Buffer
		var torn []string
		if err := lanes[0].Export(&out, all, func(err error) { torn = append(torn, err.Error()) }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Error(diff)
		}
		if len(torn) != 1 || !strings.HasPrefix(torn[0], "numbers 5 to 6: ") {
			t.Errorf("torn: %q", torn)
		}
	}
}

func TestAFolderThatNoAgentUsedIsSaid(t *testing.T) {
	dir := t.TempDir()
	if _, err := QueueLanes(dir); !errors.Is(err, ErrNoQueue) {
		t.Errorf("lanes of an empty folder: %v", err)
	}
	if _, err := DeadLetters(filepath.Join(dir, "none")); !errors.Is(err, ErrNoQueue) {
		t.Errorf("letters of no folder: %v", err)
	}
	if letters, err := DeadLetters(dir); err != nil || letters != nil {
		t.Errorf("letters of a folder without any: %v, %v", letters, err)
	}
}

func TestALetterIsSentAgainAsTheNodeThatTheAgentIs(t *testing.T) {
	with := certified(t)
	with.Agent.NodeID = "auto"
	without := with
	without.TLS.ClientCert, without.TLS.ClientKey, without.Agent.NodeID = "", "", "lab-7"
	for want, c := range map[string]*Config{"": &with, "lab-7": &without} {
		var got string
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r.Header.Get("Rea-Node")
			fmt.Fprint(w, `{"last":7}`)
		}))
		c.Networking.Endpoint, c.TLS.Verify = server.URL, false
		replay, err := NewReplay(c, "1.2.3")
		if err != nil {
			t.Fatal(err)
		}
		err = replay.Send(t.Context(), Letter{Stream: strings.Repeat("0a", 16), Seq: 7, Line: []byte("{}")})
		if err != nil || got != want {
			t.Errorf("named %q, want %q: %v", got, want, err)
		}
		server.Close()
	}
}
