package ship

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/wire"
)

func TestLinesOfManyReachTheServerInOneBatch(t *testing.T) {
	for name, compress := range map[string]bool{"zstd": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane(t, compress)
				l.run(t, time.Minute, func() {
					l.keep(t, 2)
					var sources sync.WaitGroup
					for range 5 {
						n := l.next
						l.next++
						wait, err := l.Keep(fmt.Appendf(nil, "{\"seq\":%d}\n", n), n, 1)
						if err != nil {
							t.Error(err)
						}
						sources.Go(func() { _ = wait(t.Context()) })
					}
					sources.Wait()
				})
				if d := cmp.Diff(lines(1, 7), l.kept); d != "" {
					t.Errorf("kept (-want +got):\n%s", d)
				}
				if s := l.queue.Stats(); s.Records != 0 {
					t.Errorf("queue still holds %+v", s)
				}
				if d := cmp.Diff([]string{"1-7 200"}, l.seen); d != "" {
					t.Errorf("requests (-want +got):\n%s", d)
				}
				l.metric(t, `rea_batches_sent_total{lane="test"} 1`)
				l.metric(t, `rea_events_sent_total{lane="test"} 7`)
			})
		})
	}
}

func TestNothingTheServerAnswersLosesAnything(t *testing.T) {
	for name, c := range map[string]struct {
		answer answer
		reason string
		least  time.Duration // before the next try
		most   time.Duration
	}{
		"no connection":              {answer{err: errors.New("connection refused")}, "unreachable", 0, 500 * time.Millisecond},
		"time-out":                   {answer{err: context.DeadlineExceeded}, "timeout", 0, 500 * time.Millisecond},
		"a page of another server":   {answer{status: 200, body: "<html>sign in</html>"}, "answer", 0, 500 * time.Millisecond},
		"only a part was kept":       {answer{status: 200, body: `{"last":2}`}, "answer", 0, 500 * time.Millisecond},
		"the answer to another":      {answer{status: 200, body: `{"last":99,"stream":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}`}, "answer", 0, 500 * time.Millisecond},
		"redirect":                   {answer{status: 302, body: "moved"}, "server", 0, 500 * time.Millisecond},
		"not allowed":                {answer{status: 403, body: `{"error":"revoked"}`}, "denied", 15 * time.Second, 45 * time.Second},
		"another agent's stream":     {answer{status: 409, body: `{"error":"clone"}`}, "conflict", 0, 500 * time.Millisecond},
		"too large":                  {answer{status: 413, body: `{"error":"over 4 MiB"}`}, "too_large", 0, 500 * time.Millisecond},
		"a line at fault":            {answer{status: 422, body: `{"error":"not JSON","line":2}`}, "rejected", 0, 500 * time.Millisecond},
		"busy, with a time":          {answer{status: 503, header: http.Header{"Retry-After": {"60"}}}, "busy", 60 * time.Second, 67 * time.Second},
		"busy, without one":          {answer{status: 429}, "busy", 0, 500 * time.Millisecond},
		"asks for ever":              {answer{status: 503, header: http.Header{"Retry-After": {"999999999"}}}, "busy", 10 * time.Minute, 11*time.Minute + time.Second},
		"a Retry-After of nonsense":  {answer{status: 503, header: http.Header{"Retry-After": {"-1"}}}, "busy", 0, 500 * time.Millisecond},
		"the server's own trouble":   {answer{status: 500}, "server", 0, 500 * time.Millisecond},
		"a status that nobody knows": {answer{status: 299}, "server", 0, 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane(t, true, c.answer)
				l.run(t, time.Hour, func() { l.keep(t, 4) })
				if d := cmp.Diff(lines(1, 4), l.kept); d != "" {
					t.Errorf("kept (-want +got):\n%s", d)
				}
				l.metric(t, fmt.Sprintf(`rea_batch_errors_total{lane="test",reason=%q} 1`, c.reason))
				if s := l.Sender.State(); s.State != "ok" || s.LastSuccess.Sub(l.server.began) > c.most+time.Second || s.LastSuccess.Sub(l.server.began) < c.least {
					t.Errorf("%+v, %v after the start", s, s.LastSuccess.Sub(l.server.began))
				}
				if n := strings.Count(l.log.String(), "level=WARN"); n != 1 {
					t.Errorf("said %d times:\n%s", n, l.log.String())
				}
			})
		})
	}
}

func TestADeadServerIsTriedGentlyAndSaidNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var script []answer
		for range 10_000 {
			script = append(script, answer{err: errors.New("connection refused")})
		}
		l := newLane(t, true, script...)
		l.run(t, time.Hour, func() { l.keep(t, 1) })
		if n := len(l.seen); n < 3600/4 || n > 3600 {
			t.Errorf("%d tries in an hour, want about one in two and a half seconds", n)
		}
		if n := strings.Count(l.log.String(), "\n"); n < 11 || n > 13 {
			t.Errorf("%d lines of log in an hour:\n%s", n, l.log.String())
		}
		if s := l.Sender.State(); s.State != "failing" || s.LastError != "connection refused" {
			t.Errorf("%+v", s)
		}
		if s := l.queue.Stats(); s.Events != 1 {
			t.Errorf("queue holds %+v", s)
		}
	})
}

func TestFullJitterStaysWithinItsBounds(t *testing.T) {
	b := Backoff{500 * time.Millisecond, 5 * time.Second}
	for failures, most := range map[uint64]time.Duration{1: 500 * time.Millisecond, 2: time.Second, 4: 4 * time.Second, 5: 5 * time.Second, 60: 5 * time.Second} {
		var low, high time.Duration = time.Hour, 0
		for range 2000 {
			d := b.delay(failures, &failure{})
			low, high = min(low, d), max(high, d)
		}
		if high > most || high < most*9/10 || low > most/10 {
			t.Errorf("after %d failures: %v to %v, want all of 0 to %v", failures, low, high, most)
		}
	}
}

func TestTheBudgetBoundsTriesAMinute(t *testing.T) {
	b := budget{perMinute: 6}
	now := time.Unix(0, 0)
	tries := 0
	for now.Before(time.Unix(600, 0)) {
		now = now.Add(max(time.Second, b.take(now, 5*time.Second)))
		tries++
	}
	if tries < 60 || tries > 67 {
		t.Errorf("%d tries in ten minutes at six a minute", tries)
	}
}

func TestASilentLaneSaysThatItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.run(t, time.Hour, func() {})
		if n := l.beats; n < 59 || n > 61 {
			t.Errorf("%d heartbeats in an hour", n)
		}
		if s := l.Sender.State(); s.State != OK {
			t.Errorf("a lane with nothing to send is %+v", s)
		}
	})
}

func TestAResumeThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, true)
		l.resumes = []answer{{err: errors.New("connection refused")}, {status: 503}, {status: 404, body: "no"}}
		l.run(t, time.Hour, func() { l.keep(t, 3) })
		if d := cmp.Diff(lines(1, 3), l.server.kept); d != "" {
			t.Errorf("kept (-want +got):\n%s", d)
		}
	})
}

func TestAnAgentWithoutACertificateNamesItselfInEveryRequest(t *testing.T) {
	for _, node := range []string{"", "lab-7"} {
		s := &Sender{o: SenderOptions{Endpoint: "https://server", Node: node}}
		for _, path := range []string{wire.IngestPath, wire.ResumePath} {
			req, err := s.request(t.Context(), path, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.ParseNode(req.Header)
			if got != node || (err == nil) != (node != "") {
				t.Errorf("%s names %q, want %q: %v", path, got, node, err)
			}
		}
	}
}
