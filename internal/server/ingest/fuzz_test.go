package ingest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rea-agent/rea/internal/wire"
)

const fuzzNode = "0190d1c0-0000-7000-8000-00000000000b"

// FuzzBatch sends batches of lines that nobody wrote through all that lies in
// front of the store. The lines are mutated before they are compressed, and a
// second time their node, stream and numbers are made right, or no mutation would
// get past the checksum of the frames and the comparison with the headers.
func FuzzBatch(f *testing.F) {
	b := &bench{node: fuzzNode}
	f.Add([]byte(b.lines(1, 3)), uint64(1), uint8(2))
	f.Add([]byte(b.lines(7, 7)), uint64(7), uint8(1))
	f.Add([]byte(strings.ReplaceAll(b.lines(1, 2), `"cpu","cpu":{"n":2}`, `"gap","gap":{"cause":"x","count":2,"stream":"`+stream+`","first":1,"last":9223372036854775807}`)), uint64(1), uint8(9))
	f.Add([]byte(strings.ReplaceAll(b.lines(1, 2), `{"n":2}`, `{"a":[1,-2.5e3,null,true,{"b":"\u00e4\ud834\udd1e\\"}],"é":""}`)), uint64(1<<63-3), uint8(0))
	var kept *Batch
	store := &fake{put: func(b *Batch) (uint64, error) {
		c := *b
		c.Lines, c.Frames = bytes.Clone(b.Lines), bytes.Clone(b.Frames)
		kept = &c
		return b.Last, nil
	}}
	h := New(store, Names{Certified: func(*x509.Certificate) (string, error) { return fuzzNode, nil }}, small, Watch{}, slog.New(slog.DiscardHandler))
	c := wire.NewCompressor()
	f.Fuzz(func(t *testing.T, text []byte, first uint64, perFrame uint8) {
		for _, repaired := range []bool{false, true} {
			if repaired {
				text = repair(text, first)
			}
			count := uint64(bytes.Count(text, []byte("\n")))
			if count == 0 || first == 0 || first+count-1 > wire.MaxSeq || first+count < first {
				return
			}
			r, frames := post(c, text, first, count, int(perFrame))
			w := httptest.NewRecorder()
			kept = nil
			h.ServeHTTP(w, r)
			var a wire.Answer
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Fatalf("answer %q: %v", w.Body, err)
			}
			switch {
			case w.Code != http.StatusOK && (kept != nil || w.Code < 400 || w.Code >= 500 || a.Error == "" || a.Line > int(count)+1):
				t.Fatalf("status %d %+v, kept %+v", w.Code, a, kept)
			case w.Code != http.StatusOK:
			case kept == nil || a.Last != kept.Last || a.Stream != stream:
				t.Fatalf("%+v, kept %+v", a, kept)
			case !bytes.Equal(kept.Lines, text) || !bytes.Equal(kept.Frames, frames):
				t.Fatalf("sent %q, kept %q", text, kept.Lines)
			default:
				judge(t, kept)
			}
		}
	})
}

// post is a request of those lines, so many in each zstd frame.
func post(c *wire.Compressor, text []byte, first, count uint64, perFrame int) (r *http.Request, frames []byte) {
	var part []byte
	n := 0
	for line := range bytes.Lines(text) {
		part = append(part, line...)
		if n++; n > perFrame {
			frames, part, n = c.Append(frames, part), nil, 0
		}
	}
	if len(part) > 0 {
		frames = c.Append(frames, part)
	}
	r = httptest.NewRequest(http.MethodPost, wire.IngestPath, bytes.NewReader(frames))
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}
	wire.Batch{Stream: stream, First: first, Last: first + count - 1, ID: "b1", Schema: 1, Assigned: first + count - 1}.SetHeader(r.Header)
	r.Header.Set("Content-Encoding", wire.Zstd)
	return r, frames
}

var (
	nodeOf   = regexp.MustCompile(`"node":"[^"\n]*"`)
	streamOf = regexp.MustCompile(`"stream":"[^"\n]*"`)
	seqOf    = regexp.MustCompile(`"seq":[^,}\n]*`)
)

// repair gives lines the node, the stream and the numbers of their batch, and the
// last one its end.
func repair(text []byte, first uint64) (lines []byte) {
	for line := range bytes.Lines(text) {
		for _, r := range []struct {
			pattern *regexp.Regexp
			right   string
		}{
			{nodeOf, fmt.Sprintf(`"node":%q`, fuzzNode)}, {streamOf, fmt.Sprintf(`"stream":%q`, stream)}, {seqOf, fmt.Sprintf(`"seq":%d`, first)},
		} {
			if at := r.pattern.FindIndex(line); at != nil { // of the envelope, which comes first
				line = slices.Concat(line[:at[0]], []byte(r.right), line[at[1]:])
			}
		}
		lines = append(lines, line...)
		first++
	}
	if len(lines) > 0 && lines[len(lines)-1] != '\n' {
		lines = append(lines, '\n')
	}
	return lines
}

// judge compares what was accepted with what another decoder of JSON sees.
func judge(t *testing.T, b *Batch) {
	seq, gaps := b.First, 0
	for line := range bytes.Lines(b.Lines) {
		var e map[string]json.RawMessage
		if err := json.Unmarshal(line, &e); err != nil || !utf8.Valid(line) {
			t.Fatalf("accepted %q: %v", line, err)
		}
		var kind string
		_ = json.Unmarshal(e["kind"], &kind)
		body := e[kind]
		if string(e["seq"]) != fmt.Sprint(seq) || string(e["v"]) != "1" || kind == "" || len(body) == 0 || body[0] != '{' {
			t.Fatalf("accepted %q as number %d", line, seq)
		}
		for name, want := range map[string]string{"node": b.Node, "stream": b.Stream} {
			var got string
			if err := json.Unmarshal(e[name], &got); err != nil || got != want {
				t.Fatalf("accepted %q as of %s %s", line, name, want)
			}
		}
		if kind == "gap" {
			gaps++
		}
		seq++
	}
	if seq != b.Last+1 || gaps != len(b.Gaps) {
		t.Fatalf("%d lines with %d gaps as %d to %d with %+v", seq-b.First, gaps, b.First, b.Last, b.Gaps)
	}
	for _, g := range b.Gaps {
		if g.Seq < b.First || g.Seq > b.Last || g.First > g.Last || g.Last > wire.MaxSeq || (g.First == 0) != (g.Stream == "") || g.Count < 1 {
			t.Errorf("%+v", g)
		}
	}
}
