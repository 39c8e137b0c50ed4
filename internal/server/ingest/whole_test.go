package ingest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/wire"
)

// documented are the answers that docs/wire.md has.
var documented = []int{200, 400, 403, 405, 408, 409, 411, 413, 415, 422, 429, 503}

// open is a Handler of one node, without a network around it.
type open struct {
	*Handler
	store *fake
}

const openNode = "0190d1c0-0000-7000-8000-00000000000b"

func newOpen() *open {
	store := &fake{}
	node := func(*x509.Certificate) (string, error) { return openNode, nil }
	return &open{New(store, Names{Certified: node}, small, Watch{}, slog.New(slog.DiscardHandler)), store}
}

// try makes a request and checks what must be so of every answer.
func (o *open) try(t *testing.T, path string, header http.Header, body []byte, length int64) (status int) {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Header, r.ContentLength = header, length
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}
	w := httptest.NewRecorder()
	o.store.got, o.store.resumed = nil, nil
	o.ServeHTTP(w, r)
	var a wire.Answer
	switch err := json.Unmarshal(w.Body.Bytes(), &a); {
	case err != nil || !slices.Contains(documented, w.Code):
		t.Fatalf("%d %s, %v", w.Code, w.Body, err)
	case (w.Code == http.StatusOK) != (a.Error == ""):
		t.Fatalf("%d %+v", w.Code, a)
	case w.Code == http.StatusOK && len(o.store.got)+len(o.store.resumed) != 1, w.Code != http.StatusOK && len(o.store.got)+len(o.store.resumed) > 0:
		t.Fatalf("%d, but %d reached the store", w.Code, len(o.store.got)+len(o.store.resumed))
	case strings.ContainsFunc(a.Error, func(r rune) bool { return r < ' ' || r > '~' }):
		t.Fatalf("answered %q", a.Error)
	case o.memory.used() != 0 || o.memory.free != small.Memory:
		t.Fatalf("%d bytes are still reserved", o.memory.used())
	case len(o.flying) != 0 || o.total != 0:
		t.Fatalf("%v, %d are still on their way", o.flying, o.total)
	}
	return w.Code
}

// FuzzHeaders feeds heads of both requests. What is let through is what they say.
func FuzzHeaders(f *testing.F) {
	f.Add("/ingest", "application/x-ndjson", "zstd", stream, "1", "3", "b1", "1", "3", "", int64(10))
	f.Add("/resume", "", "", stream, "", "", "", "", "0", strings.Repeat("a", 32), int64(0))
	f.Add("/ingest", "application/x-ndjson", "", stream, "18446744073709551615", "-1", "\x1b[2J", "01", "+3", "x", int64(-1))
	f.Add("/ingest", "text/html", "gzip", "../../etc", "1", "9223372036854775807", strings.Repeat("b", 65), "1", "9223372036854775807", "", int64(1<<40))
	o := newOpen()
	f.Fuzz(func(t *testing.T, path, kind, coding, stream, first, last, id, schema, assigned, instance string, length int64) {
		if path != wire.ResumePath {
			path = wire.IngestPath
		}
		h := http.Header{}
		for name, value := range map[string]string{
			"Content-Type": kind, "Content-Encoding": coding, "Rea-Stream": stream, "Rea-First": first, "Rea-Last": last,
			"Rea-Batch": id, "Rea-Schema": schema, "Rea-Assigned": assigned, "Rea-Instance": instance,
		} {
			if value != "" {
				h[name] = []string{value}
			}
		}
		if o.try(t, path, h, nil, length) != http.StatusOK {
			return
		}
		if path == wire.IngestPath {
			t.Fatal("a batch without lines was kept")
		}
		if r := o.store.resumed[0]; !wire.IsStream(r.Stream) || r.Stream != stream || r.Assigned > wire.MaxSeq || r.Node != openNode {
			t.Fatalf("%+v", r)
		}
	})
}

// FuzzHandler feeds bodies to the whole of a request.
func FuzzHandler(f *testing.F) {
	b := &bench{node: openNode}
	f.Add([]byte(b.lines(1, 3)), uint64(1), uint64(3), false)
	f.Add(wire.NewCompressor().Append(nil, []byte(b.lines(5, 6))), uint64(5), uint64(6), true)
	f.Add(wire.NewCompressor().Append(nil, bytes.Repeat([]byte(" "), 5<<20)), uint64(1), uint64(1), true)
	f.Add([]byte("{}\n"), uint64(1), uint64(1), false)
	f.Add(bytes.Repeat([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00, 1, 0, 0}, 100), uint64(1), uint64(1), true)
	o := newOpen()
	f.Fuzz(func(t *testing.T, body []byte, first, last uint64, zstd bool) {
		h := http.Header{}
		wire.Batch{Stream: stream, First: first, Last: last, ID: "b", Schema: 1, Assigned: last}.SetHeader(h)
		if zstd {
			h.Set("Content-Encoding", wire.Zstd)
		}
		began := time.Now()
		if o.try(t, wire.IngestPath, h, body, int64(len(body))) != http.StatusOK {
			return
		}
		got := o.store.got[0]
		if n := bytes.Count(got.Lines, []byte("\n")); uint64(n) != last-first+1 || len(got.Lines) > small.Decoded || got.Node != openNode || got.Received.Before(began) {
			t.Errorf("%d lines as %d to %d", n, first, last)
		}
	})
}
