package collect

import (
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/event"
)

func TestRate(t *testing.T) {
	count, none := event.Known[uint64], event.Maybe[float64]{}
	for name, c := range map[string]struct {
		before, now event.Maybe[uint64]
		seconds     float64
		want        event.Maybe[float64]
	}{
		"of growth":             {count(100), count(300), 2, event.Known(100.0)},
		"of standstill":         {count(100), count(100), 2, event.Known(0.0)},
		"of the greatest":       {count(0), count(1<<64 - 1), 1, event.Known(float64(1<<64 - 1))},
		"after a reset":         {count(100), count(99), 2, none},
		"where no time passed":  {count(100), count(300), 0, none},
		"where time went back":  {count(100), count(300), -1, none},
		"at the first reading":  {event.Maybe[uint64]{}, count(300), 2, none},
		"of what is not known":  {count(100), event.Maybe[uint64]{}, 2, none},
		"of what never is":      {event.Maybe[uint64]{}, event.Maybe[uint64]{}, 2, none},
		"of an unknown residue": {event.Maybe[uint64]{V: 7}, count(300), 2, none},
	} {
		if got := Rate(c.now, c.before, c.seconds); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := Rate(event.Known(2.5), event.Known(1.0), 3); got != event.Known(0.5) {
		t.Errorf("of seconds: %v", got)
	}
}

func TestShareStaysWithinOne(t *testing.T) {
	for now, want := range map[float64]event.Maybe[float64]{
		1: event.Known(0.0), 2: event.Known(0.5), 3.01: event.Known(1.0), 0.9: {},
	} {
		if got := Share(event.Known(now), event.Known(1.0), 2); got != want {
			t.Errorf("of %v: %v, want %v", now, got, want)
		}
	}
}

func TestCounterThatWentBackHasNoRate(t *testing.T) {
	c := Counter{Total: event.Known(uint64(5))}
	c.Since(Counter{Total: event.Known(uint64(1))}, 2*time.Second)
	if c.Rate != event.Known(2.0) {
		t.Errorf("rate is %v, want 2", c.Rate)
	}
	c.Since(Counter{Total: event.Known(uint64(10))}, 2*time.Second)
	if c.Rate.Known {
		t.Errorf("rate is %v", c.Rate.V)
	}
}
