package wire

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var batch = Batch{Stream: "7f3a00000000000000000000000000c1", First: 7, Last: 1<<63 - 1, ID: "0190d1c0-0000-7000-8000-000000000001", Schema: 1,
	Assigned: 1<<63 - 1, Instance: "0123456789abcdef0123456789abcdef"}

func TestHeadersComeBack(t *testing.T) {
	h := http.Header{}
	batch.SetHeader(h)
	got, err := ParseBatch(h)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(batch, got); d != "" {
		t.Error(d)
	}
	if h.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("content type %q", h.Get("Content-Type"))
	}
}

func TestParseBatchRefuses(t *testing.T) {
	for name, c := range map[string]struct{ header, value, want string }{
		"no stream":            {"Rea-Stream", "", "Rea-Stream is missing"},
		"a stream in capitals": {"Rea-Stream", strings.ToUpper(batch.Stream), "32 hexadecimal"},
		"a short stream":       {"Rea-Stream", batch.Stream[1:], "32 hexadecimal"},
		"first zero":           {"Rea-First", "0", "whole number"},
		"first with a sign":    {"Rea-First", "+7", "whole number"},
		"first with a zero":    {"Rea-First", "07", "whole number"},
		"first beyond 63 bits": {"Rea-First", "9223372036854775808", "whole number"},
		"first in Arabic":      {"Rea-First", "٧", "whole number"},
		"last below first":     {"Rea-Last", "6", "below"},
		"no last":              {"Rea-Last", "", "Rea-Last is missing"},
		"a path as batch":      {"Rea-Batch", "a/../b", "letters"},
		"a long batch":         {"Rea-Batch", strings.Repeat("a", 65), "letters"},
		"schema as text":       {"Rea-Schema", "one", "whole number"},
		"assigned below last":  {"Rea-Assigned", "7", "below"},
		"nothing assigned":     {"Rea-Assigned", "0", "whole number"},
		"an odd instance":      {"Rea-Instance", "x", "32 hexadecimal"},
	} {
		h := http.Header{}
		batch.SetHeader(h)
		if h.Del(c.header); c.value != "" {
			h.Set(c.header, c.value)
		}
		if _, err := ParseBatch(h); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	h := http.Header{}
	batch.SetHeader(h)
	h.Add("Rea-First", "8")
	if _, err := ParseBatch(h); err == nil || !strings.Contains(err.Error(), "2 times") {
		t.Errorf("first twice: %v", err)
	}
}

func TestResumeComesBack(t *testing.T) {
	for name, want := range map[string]Resume{
		"of a stream that runs": {Stream: batch.Stream, Assigned: 7, Instance: batch.Instance},
		"before the first":      {Stream: batch.Stream, Instance: batch.Instance},
	} {
		h := http.Header{}
		want.SetHeader(h)
		if got, err := ParseResume(h); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestParseResumeRefuses(t *testing.T) {
	for header, want := range map[string]string{"Rea-Stream": "Rea-Stream is missing", "Rea-Assigned": "Rea-Assigned is missing", "Rea-Instance": "Rea-Instance is missing"} {
		h := http.Header{}
		Resume{batch.Stream, 7, batch.Instance}.SetHeader(h)
		h.Del(header)
		if _, err := ParseResume(h); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v", header, err)
		}
	}
	h := http.Header{}
	Resume{batch.Stream, 7, batch.Instance}.SetHeader(h)
	h.Set("Rea-Assigned", "00")
	if _, err := ParseResume(h); err == nil || !strings.Contains(err.Error(), "whole number") {
		t.Errorf("assigned 00: %v", err)
	}
}

func TestTheNameOfANode(t *testing.T) {
	for node, ok := range map[string]bool{
		"0190d1c0-0000-7000-8000-000000000001": true, "lab-7.example:2": true, "a": true, strings.Repeat("a", 128): true,
		strings.Repeat("a", 129): false, "": false, "-a": false, "../a": false, "a b": false, "a\x00": false, "é": false, "a\n": false,
	} {
		h := http.Header{}
		SetNode(h, node)
		if got, err := ParseNode(h); (err == nil) != ok || ok && got != node {
			t.Errorf("%q: %q, %v", node, got, err)
		}
	}
	h := http.Header{}
	if _, err := ParseNode(h); err == nil {
		t.Error("no name is taken")
	}
	SetNode(h, "a")
	h.Add("Rea-Node", "b")
	if _, err := ParseNode(h); err == nil {
		t.Error("two names are taken")
	}
}

func FuzzParseBatch(f *testing.F) {
	f.Add(batch.Stream, "7", "8", "b", "1", "9")
	f.Add("", "+1", "18446744073709551616", "\x00", "-1", "0")
	f.Fuzz(func(t *testing.T, stream, first, last, id, schema, assigned string) {
		h := http.Header{"Rea-Stream": {stream}, "Rea-First": {first}, "Rea-Last": {last}, "Rea-Batch": {id}, "Rea-Schema": {schema}, "Rea-Assigned": {assigned}}
		b, err := ParseBatch(h)
		if err != nil {
			return
		}
		again := http.Header{}
		b.SetHeader(again)
		again.Del("Content-Type")
		if d := cmp.Diff(h, again); d != "" {
			t.Error(d)
		}
	})
}
