package ingest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rea-agent/rea/internal/wire"
)

func TestRefusals(t *testing.T) {
	b := newBench(t, small)
	good := b.lines(1, 3)
	set := func(name string, values ...string) func(*http.Request) *http.Request {
		return func(r *http.Request) *http.Request {
			r.Header.Del(name)
			for _, v := range values {
				r.Header.Add(name, v)
			}
			return r
		}
	}
	for _, c := range []struct {
		name   string
		body   string
		change func(*http.Request) *http.Request
		status int
		line   int
		want   string
	}{
		{"another method", good, func(r *http.Request) *http.Request { r.Method = "PUT"; return r }, 405, 0, "want POST"},
		{"another content type", good, set("Content-Type", "application/json"), 415, 0, "application/x-ndjson"},
		{"gzip", good, set("Content-Encoding", "gzip"), 415, 0, "zstd"},
		{"two encodings", good, set("Content-Encoding", "zstd", "zstd"), 415, 0, "zstd"},
		{"no length", good, func(r *http.Request) *http.Request { r.ContentLength = -1; return r }, 411, 0, "length"},
		{"a large body", strings.Repeat(" ", 1<<20+1), nil, 413, 0, "the limit is 1048576"},
		{"many lines", good, set("Rea-Last", "1001"), 413, 0, "the limit is 1000"},
		{"no stream", good, set("Rea-Stream"), 400, 0, "Rea-Stream"},
		{"another schema", good, set("Rea-Schema", "2"), 400, 0, "schema 2"},
		{"a dictionary that is not known", good, func(r *http.Request) *http.Request {
			frame := wire.NewDictionaryCompressor().Append(nil, []byte(good))
			return withFrames(r, bytes.Replace(frame, []byte{0x01, 0xea}, []byte{0x5f, 0xea}, 1))
		}, 400, 0, "dictionary that is not known"},
		{"a body that is not zstd", good, set("Content-Encoding", "zstd"), 400, 0, "zstd"},
		{"a damaged frame", good, func(r *http.Request) *http.Request {
			r = compressed(r)
			raw, _ := io.ReadAll(r.Body)
			raw[len(raw)-1] ^= 1
			return withFrames(r, raw)
		}, 400, 0, "zstd"},
		{"a bomb", "", func(r *http.Request) *http.Request {
			return withFrames(r, wire.NewCompressor().Append(nil, make([]byte, 64<<20)))
		}, 413, 0, "more than 200 for one"},
		{"more than the limit when decoded", "", func(r *http.Request) *http.Request {
			noise := make([]byte, 64<<10) // so that the ratio is a usual one
			for i, r := 0, rand.New(rand.NewPCG(1, 1)); i < len(noise); i++ {
				noise[i] = byte(r.Uint32())
			}
			return withFrames(r, wire.NewCompressor().Append(wire.NewCompressor().Append(nil, noise), make([]byte, 64<<20)))
		}, 413, 0, "more than 4194304 bytes when decoded"},
		{"a window that is too large", "", func(r *http.Request) *http.Request {
			return withFrames(r, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x60, 1, 0, 0}) // 4 MiB
		}, 400, 0, "window"},
		{"frames without content", "", func(r *http.Request) *http.Request {
			return withFrames(r, bytes.Repeat([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00, 1, 0, 0}, 60_000))
		}, 413, 0, "zstd frames and blocks"},
		{"a dictionary that nobody has", "", func(r *http.Request) *http.Request {
			return withFrames(r, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x40, 7, 1, 0, 0})
		}, 400, 0, "zstd"},
		{"gaps without end", strings.Replace(good, `"cpu","cpu":{"n":1}`, `"gap","gap":{"cause":"x","count":1,"more":"`+strings.Repeat("x", 60_000)+`"}`, 1), func(r *http.Request) *http.Request {
			var body strings.Builder
			for n := uint64(1); n <= 6; n++ {
				body.WriteString(strings.Replace(b.lines(n, n), fmt.Sprintf(`"cpu","cpu":{"n":%d}`, n), `"gap","gap":{"cause":"x","count":1,"more":"`+strings.Repeat("x", 60_000)+`"}`, 1))
			}
			return b.request([]byte(body.String()), 1, 6)
		}, 413, 5, "the gaps of the batch"},
		{"many members", strings.Replace(good, `"n":1`, many(257), 1), nil, 422, 1, "more than 256 members"},
		{"a number that is too long", strings.Replace(good, `"n":1`, `"n":`+strings.Repeat("1", 41), 1), nil, 422, 1, "longer than 40"},
		{"a bomb of spaces in a line", "", func(r *http.Request) *http.Request {
			return withFrames(r, wire.NewCompressor().Append(nil, bytes.Repeat([]byte(" "), 1<<20)))
		}, 422, 1, "longer than 65536"},
		{"no body", "", nil, 422, 0, "ends before number 1"},
		{"too few lines", b.lines(1, 2), nil, 422, 0, "ends before number 3"},
		{"too many lines", b.lines(1, 4), nil, 422, 4, "one more"},
		{"a line that is cut", good[:len(good)-1], nil, 422, 3, "newline"},
		{"a hole", b.lines(1, 1) + b.lines(3, 4), nil, 422, 2, "seq is 3, want 2"},
		{"a repeated number", b.lines(1, 2) + b.lines(2, 2), nil, 422, 3, "seq is 2, want 3"},
		{"numbers of another batch", b.lines(4, 6), nil, 422, 1, "seq is 4, want 1"},
		{"another stream", strings.Replace(good, stream[:8], "00000000", 1), nil, 422, 1, "stream is"},
		{"another version", strings.Replace(good, `"v":1`, `"v":2`, 1), nil, 422, 1, "v is 2"},
		{"another node", strings.Replace(good, b.node, "0190d1c0-0000-7000-8000-00000000000b", 1), nil, 403, 1, "the certificate names"},
		{"a name twice", strings.Replace(good, `"v":1`, `"v":1,"v":1`, 1), nil, 422, 1, "twice"},
		{"a name twice, deep, in line two", b.lines(1, 1) + strings.Replace(b.lines(2, 3), `"n":2`, `"n":2,"n":2`, 1), nil, 422, 2, "twice"},
		{"seventeen deep", strings.Replace(good, `{"n":1}`, `{"n":`+strings.Repeat("[", 15)+strings.Repeat("]", 15)+`}`, 1), nil, 422, 1, "deep"},
		{"no JSON", "hello\n", nil, 422, 1, "want an object"},
		{"a gap without a cause", strings.Replace(good, `"cpu","cpu":{"n":2}`, `"gap","gap":{"count":2}`, 1), nil, 422, 2, "gap: cause: want"},
		{"a gap that ends before it begins", strings.Replace(good, `"cpu","cpu":{"n":3}`, `"gap","gap":{"cause":"x","count":2,"stream":"`+stream+`","first":2,"last":1}`, 1), nil, 422, 3, "first is 2 and last is 1"},
		{"not UTF-8", strings.Replace(good, "lab-7", "lab\xff", 1), nil, 422, 1, "UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := b.request([]byte(c.body), 1, 3)
			if c.change != nil {
				r = c.change(r)
			}
			resp, a := b.send(r)
			if resp.StatusCode != c.status || a.Line != c.line || !strings.Contains(a.Error, c.want) || a.Last != 0 {
				t.Errorf("%s %+v, want %d, line %d, %q", resp.Status, a, c.status, c.line, c.want)
			}
			if c.status == 405 && resp.Header.Get("Allow") != "POST" {
				t.Errorf("Allow: %q", resp.Header.Get("Allow"))
			}
			if d := cmp.Diff(wire.Dictionaries(), wire.ParseDictionaries(resp.Header)); d != "" {
				t.Errorf("dictionaries in the answer (-want +got):\n%s", d)
			}
		})
	}
	if got := b.store.batches(); len(got) != 0 {
		t.Errorf("kept %+v", got)
	}
	want := []string{
		"announced", "body_bytes", "content_type", "decoded_bytes", "depth", "duplicate", "encoding", "frames", "gap", "gaps", "head", "json", "line_bytes", "lines", "members",
		"method", "no_length", "node", "number", "numbers", "ratio", "text", "window", "zstd",
	}
	if d := cmp.Diff(want, b.counted()); d != "" {
		t.Errorf("the reasons that were counted: %s", d)
	}
	// and the server goes on
	if resp, a := b.send(b.request([]byte(good), 1, 3)); resp.StatusCode != 200 {
		t.Errorf("%s %+v", resp.Status, a)
	}
}

// many is a list of so many members.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":0`, i)
	}
	return b.String()[1:]
}

// counted returns the reasons for which requests were refused.
func (b *bench) counted() (reasons []string) {
	for _, reason := range Reasons {
		if b.set.Counter("rea_requests_refused_total", "", "reason", reason).Value() > 0 {
			reasons = append(reasons, reason)
		}
	}
	slices.Sort(reasons)
	return reasons
}

func TestHostsAndKindsOfABatchAreBounded(t *testing.T) {
	b := newBench(t, small)
	var body strings.Builder
	for n := uint64(1); n <= 100; n++ {
		body.WriteString(strings.Replace(b.lines(n, n), "lab-7", fmt.Sprint("lab-", n), 1))
	}
	if resp, a := b.send(b.request([]byte(body.String()), 1, 100)); resp.StatusCode != 422 || a.Line != 65 {
		t.Errorf("%s %+v", resp.Status, a)
	}
}

// FuzzCheck feeds bodies past the head: whatever is accepted is what was announced.
func FuzzCheck(f *testing.F) {
	b := &bench{node: "0190d1c0-0000-7000-8000-00000000000b"}
	f.Add([]byte(b.lines(1, 3)), uint64(1), uint64(3), false)
	f.Add(wire.NewCompressor().Append(nil, []byte(b.lines(5, 6))), uint64(5), uint64(6), true)
	f.Add([]byte("{}\n"), uint64(1), uint64(1), false)
	f.Add([]byte(strings.Replace(b.lines(1, 2), `"cpu","cpu":{"n":2}`, `"gap","gap":{"cause":"x","count":2,"stream":"`+stream+`","first":1,"last":9223372036854775807}`, 1)), uint64(1), uint64(2), false)
	w := newWork(small)
	f.Fuzz(func(t *testing.T, body []byte, first, last uint64, zstd bool) {
		m := budget{free: small.Memory}
		reserve := m.hold()
		w.reserve = &reserve
		batch := &Batch{Node: b.node, Stream: stream, First: first, Last: last}
		r := &http.Request{Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
		if zstd {
			r.Header.Set("Content-Encoding", wire.Zstd)
		}
		if w.read(r, body, batch) != nil || w.check(batch) != nil || last < first {
			return
		}
		if n := bytes.Count(batch.Lines, []byte("\n")); uint64(n) != last-first+1 {
			t.Errorf("%d lines as %d to %d", n, first, last)
		}
		for _, g := range batch.Gaps {
			if g.Seq < first || g.Seq > last || g.First > g.Last || g.Last > wire.MaxSeq || (g.First == 0) != (g.Stream == "") || g.Count < 1 || g.Count > wire.MaxSeq {
				t.Errorf("%+v", g)
			}
		}
	})
}
