package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/wire"
)

// A process is one start of an agent, which has its own line content: that is how
// a clone's events differ.
type process struct {
	*running
	client   *http.Client
	instance string
	value    string // in the events that it makes
}

func (r *running) process(instance, value string) *process {
	return &process{r, r.client(r.clientTLS()), strings.Repeat(instance, 32), value}
}

func (p *process) ask(path string, body []byte, set func(http.Header)) (int, wire.Answer) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, "https://"+p.addr+path, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	set(req.Header)
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var a wire.Answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, a
}

func (p *process) send(first, last uint64) (int, wire.Answer) {
	p.t.Helper()
	body := bytes.ReplaceAll(p.lines(p.node, first, last), []byte("0.117"), []byte(p.value))
	return p.ask(wire.IngestPath, body, wire.Batch{Stream: stream, First: first, Last: last, ID: "b", Schema: 1, Assigned: last + 2, Instance: p.instance}.SetHeader)
}

func (p *process) resume(assigned uint64) (int, wire.Answer) {
	p.t.Helper()
	return p.ask(wire.ResumePath, nil, wire.Resume{Stream: stream, Assigned: assigned, Instance: p.instance}.SetHeader)
}

func TestTwoLivingAgentsOfOneStreamAreToldApart(t *testing.T) {
	r := start(t, nil)
	a, b := r.process("a", "0.1"), r.process("b", "0.2")
	step := func(what string, status int, got wire.Answer, wantStatus int, wantLast uint64) {
		t.Helper()
		if status != wantStatus || got.Last != wantLast {
			t.Errorf("%s: %d %+v, want %d, last %d", what, status, got, wantStatus, wantLast)
		}
	}
	status, got := a.resume(0)
	step("a begins", status, got, 200, 0)
	status, got = a.send(1, 3)
	step("a sends", status, got, 200, 3)
	status, got = b.resume(3)
	if step("b, its copy, begins", status, got, 200, 3); got.Assigned != 5 {
		t.Errorf("b is told that %d are assigned, want 5", got.Assigned)
	}
	status, got = b.send(4, 6)
	step("b sends under the numbers that a would give next", status, got, 200, 6)
	status, got = a.send(7, 9)
	step("a comes back with what is new", status, got, 409, 6)
	if !strings.Contains(got.Error, "two agents use this stream") {
		t.Error(got.Error)
	}
	status, got = a.send(4, 6)
	step("and with what has the numbers of b", status, got, 409, 6)
	status, got = a.send(1, 3)
	step("and repeats what is kept", status, got, 200, 6)
	status, got = b.send(7, 8)
	step("b goes on", status, got, 200, 8)
	status, got = a.resume(100)
	if step("a asks", status, got, 200, 8); got.Assigned != 10 {
		t.Errorf("a is told that %d are assigned, want 10", got.Assigned)
	}
	if seqs := fmt.Sprint(r.stored()); seqs != "[1 2 3 4 5 6 7 8]" {
		t.Errorf("stored %s", seqs)
	}
	reader, err := OpenReader(r.config.Server.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	books, err := reader.Settled(t.Context(), "lab-7", 0)
	if err != nil || len(books.Streams) != 1 {
		t.Fatalf("%+v, %v", books, err)
	}
	if s := books.Streams[0]; s.Clones != 1 || s.Conflicts != 1 || s.Repeats != 1 || s.Assigned != 10 || s.Waiting != 2 {
		t.Errorf("%+v", s)
	}
	if n := strings.Count(r.log.String(), "the other one came later"); n != 1 {
		t.Errorf("said %d times:\n%s", n, r.log)
	}
}

// Two connections deliver the same stream at once, each again until it is told
// 200 or 409. What they agree on is kept once; of what they do not, one is kept.
func TestTwoConnectionsOfOneStreamAtOnce(t *testing.T) {
	r := start(t, nil)
	var wg sync.WaitGroup
	accepted := make([][]uint64, 2)
	for i := range accepted {
		p := r.process(fmt.Sprint(i), fmt.Sprintf("0.%d", i+1))
		wg.Go(func() {
			for n := uint64(1); n <= 20; n++ {
				status, _ := p.send(n, n)
				for status == http.StatusTooManyRequests {
					time.Sleep(time.Millisecond)
					status, _ = p.send(n, n)
				}
				switch status {
				case http.StatusOK:
					accepted[i] = append(accepted[i], n)
				case http.StatusConflict:
				default:
					t.Errorf("number %d: %d", n, status)
				}
			}
		})
	}
	wg.Wait()
	by := map[uint64]string{}
	reader, err := OpenReader(r.config.Server.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := reader.Events(t.Context(), Filter{}, func(l *Line) error {
		if by[l.Seq] != "" {
			t.Errorf("number %d is kept twice", l.Seq)
		}
		by[l.Seq] = string(l.Body)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	total := 0
	for i, numbers := range accepted {
		total += len(numbers)
		for _, n := range numbers {
			if want := fmt.Sprintf(`{"utilization":0.%d}`, i+1); by[n] != want {
				t.Errorf("number %d was accepted as %s, kept is %q", n, want, by[n])
			}
		}
	}
	if total != len(by) {
		t.Errorf("%d were accepted, %d are kept", total, len(by))
	}
}

func TestTheBooksAreWaitedFor(t *testing.T) {
	r := start(t, nil)
	p := r.process("a", "0.1")
	p.send(1, 3) // of five
	reader, err := OpenReader(r.config.Server.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if books, err := reader.Settled(t.Context(), "", 0); err != nil || books.Streams[0].Waiting != 2 {
		t.Fatalf("%+v, %v", books, err)
	}
	done := make(chan Accounts)
	go func() {
		books, err := reader.Settled(context.Background(), "", time.Minute)
		if err != nil {
			t.Error(err)
		}
		done <- books
	}()
	status, a := p.ask(wire.IngestPath, p.lines(p.node, 4, 5), wire.Batch{Stream: stream, First: 4, Last: 5, ID: "b", Schema: 1, Assigned: 5}.SetHeader)
	if status != 200 || a.Last != 5 {
		t.Fatal(status, a)
	}
	if books := <-done; books.Unbalanced() != 0 || books.Streams[0].Received != 5 {
		t.Errorf("%+v", books)
	}
}
