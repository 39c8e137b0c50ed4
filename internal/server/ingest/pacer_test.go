package ingest

import (
	"testing"
	"time"
)

// always is a die that shows the same.
func always(x float64) func() float64 { return func() float64 { return x } }

var noon = time.Unix(1_700_000_000, 0)

func TestAFewAgentsAreToldToComeSoon(t *testing.T) {
	p := newPacer(always(0.999))
	for n := range 50 {
		if got := p.later(noon); got != time.Second {
			t.Fatalf("agent %d is told %s", n, got)
		}
	}
}

func TestTheTimeGrowsWithThoseWhoWaitAndIsBounded(t *testing.T) {
	p := newPacer(always(0.999))
	var last time.Duration
	for range 1_000_000 {
		got := p.later(noon)
		if got < last || got > maxLater {
			t.Fatalf("%s after %s", got, last)
		}
		last = got
	}
	if last != maxLater {
		t.Errorf("a million agents: the last one is told %s", last)
	}
}

func TestTheTimeIsMeasuredByWhatIsServed(t *testing.T) {
	told := func(rate int) time.Duration {
		p := newPacer(always(0.999))
		for second := range 10 {
			now := noon.Add(time.Duration(second) * time.Second)
			p.later(now)
			for n := range rate {
				p.done(now.Add(time.Duration(n) * time.Second / time.Duration(rate)))
			}
		}
		for range 100_000 {
			p.later(noon.Add(10 * time.Second))
		}
		return p.later(noon.Add(10 * time.Second))
	}
	for rate, want := range map[int]time.Duration{1000: 50 * time.Second, 10_000: 5 * time.Second, 200: 250 * time.Second, 50: maxLater} {
		if got := told(rate); got < want*9/10 || got > want*11/10+time.Second {
			t.Errorf("%d requests a second: %s, want about %s", rate, got, want)
		}
	}
}

func TestWhoCameIsNotWaitedForAnyMore(t *testing.T) {
	p := newPacer(always(0.999))
	for range 1_000_000 {
		p.later(noon)
	}
	for _, c := range []struct{ after, most time.Duration }{
		{1000 * time.Second, time.Second},
		{-time.Hour, time.Second}, // the clock was set back
	} {
		if got := p.later(noon.Add(c.after)); got > c.most {
			t.Errorf("%s after a million were told: %s", c.after, got)
		}
	}
}

func TestAServerThatServesNothingSendsAgentsAwayLonger(t *testing.T) {
	p := newPacer(always(0.999))
	var first, last time.Duration
	for range 100 {
		first = p.later(noon)
	}
	for second := range 60 { // one agent keeps asking
		p.later(noon.Add(time.Duration(second) * time.Second))
	}
	for range 100 {
		last = p.later(noon.Add(time.Minute))
	}
	if first != time.Second || last < 20*time.Second || last > 60*time.Second {
		t.Errorf("the hundredth agent is told %s at first, %s after a minute", first, last)
	}
}
