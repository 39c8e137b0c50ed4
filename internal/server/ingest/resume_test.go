package ingest

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/wire"
)

// question makes a Resume of the bench's stream.
func (b *bench) question(assigned uint64, instance string) *http.Request {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, strings.Replace(b.url, wire.IngestPath, wire.ResumePath, 1), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	wire.Resume{Stream: stream, Assigned: assigned, Instance: strings.Repeat(instance, 32)}.SetHeader(r.Header)
	return r
}

func TestAStreamIsToldOfAndAskedFor(t *testing.T) {
	b := newBench(t, small)
	b.store.resume = func(*Resume) (uint64, uint64, error) { return 1450, 1455, nil }
	if resp, a := b.send(b.question(1462, "a")); resp.StatusCode != 200 || a != (wire.Answer{Last: 1450, Assigned: 1455, Stream: stream}) {
		t.Errorf("%s %+v", resp.Status, a)
	}
	b.send(b.question(0, "b"))
	b.send(b.question(7, "a"))
	for i, want := range []Resume{{Assigned: 1462}, {Assigned: 0}, {Assigned: 7, Superseded: true}} {
		got := b.store.resumed[i]
		if time.Since(got.Received) > time.Minute {
			t.Errorf("received %s", got.Received)
		}
		want.Node, want.Stream, want.Received = b.node, stream, got.Received
		if got != want {
			t.Errorf("%d: %+v, want %+v", i, got, want)
		}
	}
	b.store.resume = func(*Resume) (uint64, uint64, error) { return 3, 4, errors.New("disk full at /secret/path") }
	resp, a := b.send(b.question(8, "b"))
	if want := (wire.Answer{Error: "the server cannot keep batches now"}); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "10" || a != want {
		t.Errorf("%s %+v", resp.Status, a)
	}
}

func TestQuestionsThatAreRefused(t *testing.T) {
	b := newBench(t, small)
	for name, c := range map[string]struct {
		change func(r *http.Request)
		status int
		want   string
	}{
		"another method": {func(r *http.Request) { r.Method = http.MethodGet }, 405, "want POST"},
		"a body":         {func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1 }, 400, "no body"},
		"no instance":    {func(r *http.Request) { r.Header.Del("Rea-Instance") }, 400, "Rea-Instance"},
		"no stream":      {func(r *http.Request) { r.Header.Del("Rea-Stream") }, 400, "Rea-Stream"},
		"no number":      {func(r *http.Request) { r.Header.Set("Rea-Assigned", "-1") }, 400, "Rea-Assigned"},
	} {
		r := b.question(3, "a")
		c.change(r)
		if resp, a := b.send(r); resp.StatusCode != c.status || !strings.Contains(a.Error, c.want) {
			t.Errorf("%s: %s %+v", name, resp.Status, a)
		}
	}
	if n := len(b.store.resumed); n != 0 {
		t.Errorf("%d reached the store", n)
	}
}

func TestAQuestionWaitsForItsTurn(t *testing.T) {
	b := newBench(t, small)
	entered, leave, done := make(chan struct{}), make(chan struct{}), make(chan int)
	b.store.put = func(batch *Batch) (uint64, error) { entered <- struct{}{}; <-leave; return batch.Last, nil }
	go func() {
		resp, _ := b.send(b.request([]byte(b.lines(1, 3)), 1, 3))
		done <- resp.StatusCode
	}()
	<-entered
	if resp, _ := b.send(b.question(3, "a")); resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	close(leave)
	if status := <-done; status != 200 {
		t.Errorf("the batch: %d", status)
	}
	if resp, _ := b.send(b.question(3, "a")); resp.StatusCode != 200 {
		t.Errorf("after it: %s", resp.Status)
	}
}
