package ingest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// A batch of nothing but gaps takes memory from the budget like any other.
func TestGapsTakeMemoryOfTheBudget(t *testing.T) {
	l := small
	l.Memory = 100 << 10
	b := newBench(t, l)
	var body strings.Builder
	for n := uint64(1); n <= 200; n++ {
		body.WriteString(strings.Replace(b.lines(n, n), fmt.Sprintf(`"cpu","cpu":{"n":%d}`, n), `"gap","gap":{"cause":"x","count":1}`, 1))
	}
	if resp, a := b.send(b.request([]byte(body.String()), 1, 200)); resp.StatusCode != 503 || a.Line != 0 {
		t.Errorf("%s %+v", resp.Status, a)
	}
}

func (b *bench) requestOf(stream string) *http.Request {
	r := b.request(nil, 1, 3)
	r.Header.Set("Rea-Stream", stream+r.Header.Get("Rea-Stream")[4:])
	return r
}

func TestMemoryIsSharedAndGivenBack(t *testing.T) {
	m := budget{free: 100}
	a, c := m.hold(), m.hold()
	if !a.grow(60) || c.grow(60) || !c.grow(40) || a.grow(1) {
		t.Error("the budget is not what was set")
	}
	a.release()
	a.release()
	c.release()
	if m.free != 100 {
		t.Errorf("%d are free", m.free)
	}
	l := small
	l.Memory = 100 << 10 // less than decoding takes at first
	b := newBench(t, l)
	for range 2 {
		if resp, a := b.send(compressed(b.request([]byte(b.lines(1, 3)), 1, 3))); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s %+v", resp.Status, a)
		}
	}
	if resp, a := b.send(b.request([]byte(b.lines(1, 3)), 1, 3)); resp.StatusCode != 200 {
		t.Errorf("%s %+v", resp.Status, a)
	}
}

// A body that is announced and does not come takes no more memory than what
// came, and is not the fault of its content.
func TestABodyThatDoesNotCome(t *testing.T) {
	m := budget{free: 1 << 20}
	reserve := m.hold()
	_, err := small.readBody(new(bodies), httptest.NewRecorder(), &http.Request{Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 100_000))), ContentLength: 1 << 20}, &reserve)
	var no *refusal
	if !errors.As(err, &no) || no.status != http.StatusRequestTimeout || reserve.held > 256<<10 {
		t.Errorf("%v, %d bytes held", err, reserve.held)
	}
}

// A body that comes too slowly is given up, and until then it takes no place of
// those that are worked on.
func TestASlowBodyHoldsUpNobody(t *testing.T) {
	l := small
	l.InFlight, l.BodyTime = 1, 300*time.Millisecond
	b := newBench(t, l)
	reader, writer := io.Pipe()
	defer writer.Close()
	slow := b.requestOf("0001")
	slow.Body, slow.ContentLength, slow.GetBody = reader, 1000, nil
	answered := make(chan int)
	go func() {
		resp, _ := b.send(slow)
		answered <- resp.StatusCode
	}()
	writer.Write([]byte("x")) // returns when the client reads on: the head is on its way
	if resp, a := b.send(b.request([]byte(b.lines(1, 3)), 1, 3)); resp.StatusCode != 200 {
		t.Errorf("beside it: %s %+v", resp.Status, a)
	}
	if status := <-answered; status != 408 {
		t.Errorf("the slow one: %d", status)
	}
	if got := b.counted(); !slices.Equal(got, []string{"body_slow"}) {
		t.Errorf("counted %v", got)
	}
}

// A refusal does not wait for the rest of a body that has no length, and so no end.
func TestABodyWithoutEndIsNotWaitedFor(t *testing.T) {
	b := newBench(t, small)
	reader, writer := io.Pipe()
	defer writer.Close()
	r := b.request(nil, 1, 3)
	r.Header.Set("Content-Type", "text/html")
	r.Body, r.ContentLength, r.GetBody = reader, -1, nil
	if resp, a := b.send(r); resp.StatusCode != 415 || !resp.Close {
		t.Errorf("%s %+v, close %v", resp.Status, a, resp.Close)
	}
}

func TestABodyEarnsTimeByWhatHasCome(t *testing.T) {
	p := (&Limits{BodyRate: 1000, BodyTime: time.Minute}).patience(httptest.NewRecorder())
	for have, want := range map[int]time.Duration{0: grace, 1000: grace + time.Second, 10_000: grace + 10*time.Second, 1 << 30: time.Minute} {
		p.until = time.Time{}
		if p.extend(have); p.until.Sub(p.began) != want {
			t.Errorf("after %d bytes: %v, want %v", have, p.until.Sub(p.began), want)
		}
	}
}
