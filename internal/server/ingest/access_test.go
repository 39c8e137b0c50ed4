package ingest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/wire"
)

func TestWithoutACertificateNobodyIsHeard(t *testing.T) {
	h := New(&fake{}, Names{Certified: identity.Node}, small, Watch{}, slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	resp, err := http.Post("http://"+l.Addr().String()+wire.IngestPath, wire.ContentType, strings.NewReader("{}\n"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Error(resp.Status)
	}
	if _, err := h.who(&http.Request{TLS: &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}}); err == nil {
		t.Error("a certificate without a name was taken")
	}
}

// A client without a certificate is who it says, where that may be, and what is
// remembered and counted of it is its address's.
func TestAClientWithoutACertificate(t *testing.T) {
	const proven, taken, unknown = "0190d1c0-0000-7000-8000-00000000000c", "0190d1c0-0000-7000-8000-00000000000d", "0190d1c0-0000-7000-8000-00000000000e"
	store, set, log := &fake{}, new(metric.Set), new(bytes.Buffer)
	names := Names{
		Certified: identity.Node,
		Claimed: func(_ context.Context, node string) error {
			switch node {
			case proven:
				return fmt.Errorf("%w: it has one", ErrNotAllowed)
			case unknown:
				return errors.New("disk on fire")
			}
			return nil
		},
		Address: func(r *http.Request) string { return "there" },
	}
	var kept []Batch
	store.put = func(b *Batch) (uint64, error) {
		if b.Node == taken { // showed a certificate a moment ago
			return 0, ErrProven
		}
		kept = append(kept, *b)
		return b.Last, nil
	}
	store.resume = func(r *Resume) (uint64, uint64, error) {
		if r.Node == taken {
			return 0, 0, ErrProven
		}
		return 7, 9, nil
	}
	h := New(store, names, small, Watch{Metrics: set}, slog.New(slog.NewTextHandler(log, nil)))
	ask := func(path, node, body string) (int, wire.Answer) {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		r.TLS = new(tls.ConnectionState)
		if path == wire.ResumePath {
			wire.Resume{Stream: stream, Assigned: 9, Instance: stream}.SetHeader(r.Header)
		} else {
			wire.Batch{Stream: stream, First: 1, Last: 2, ID: "b", Schema: 1, Assigned: 2}.SetHeader(r.Header)
		}
		if node != "" {
			wire.SetNode(r.Header, node)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var a wire.Answer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		return w.Code, a
	}
	lines := func(node string) string { return (&bench{node: node}).lines(1, 2) }
	for _, c := range []struct {
		name, node, lines string
		status            int
		want              string
	}{
		{"one that nobody knows", fuzzNode, fuzzNode, 200, ""},
		{"lines of another one", fuzzNode, openNode + "x", 403, "the request names"},
		{"no name", "", fuzzNode, 403, "header Rea-Node is missing"},
		{"a path", "../" + fuzzNode, fuzzNode, 403, "header Rea-Node: want"},
		{"one with a certificate", proven, proven, 403, "it has one"},
		{"one with a certificate since a moment", taken, taken, 403, "has shown a certificate"},
		{"when nobody can tell", unknown, unknown, 503, "cannot keep"},
	} {
		if status, a := ask(wire.IngestPath, c.node, lines(c.lines)); status != c.status || !strings.Contains(a.Error, c.want) {
			t.Errorf("%s: %d %+v", c.name, status, a)
		}
	}
	if len(kept) != 1 || !kept[0].Unproven || kept[0].Node != fuzzNode {
		t.Errorf("%+v", kept)
	}
	if status, a := ask(wire.ResumePath, fuzzNode, ""); status != 200 || a.Last != 7 || !store.resumed[len(store.resumed)-1].Unproven {
		t.Errorf("resume: %d %+v", status, a)
	}
	if status, _ := ask(wire.ResumePath, taken, ""); status != 403 {
		t.Errorf("resume of one with a certificate: %d", status)
	}
	if n := h.count("unproven").Value(); n != 3 {
		t.Errorf("%d are counted", n)
	}
	for range 100 { // each with a name of its own
		ask(wire.IngestPath, identity.NewNode(), "nonsense")
	}
	if len(h.troubles) > 1 || len(h.voices) > 1 || len(h.flying) > 0 || strings.Count(log.String(), "\n") > mostSaid+1 {
		t.Errorf("%d troubles, %d voices, %d flying\n%s", len(h.troubles), len(h.voices), len(h.flying), log)
	}
}

func TestAnAddressWithoutCertificatesHasSoManyRequestsAtATime(t *testing.T) {
	h := New(&fake{}, Names{}, Limits{InFlight: 1000}, Watch{}, slog.New(slog.DiscardHandler))
	taken := 0
	var ends []func()
	for n := range 100 {
		land, err := h.takeOff(sender{node: fmt.Sprint(n), stranger: true, address: "there"}, stream)
		if err == nil {
			taken, ends = taken+1, append(ends, land)
		}
	}
	if _, err := h.takeOff(sender{node: "a", stranger: true, address: "elsewhere"}, stream); err != nil || taken != perAddress {
		t.Errorf("%d requests, elsewhere %v", taken, err)
	}
	for _, land := range ends {
		land()
	}
	if len(h.flying) != 3 {
		t.Errorf("%v are left", h.flying)
	}
}
