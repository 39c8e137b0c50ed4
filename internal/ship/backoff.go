package ship

import (
	"math/rand/v2"
	"time"
)

// slowProbe is how often a server is asked that said no for a reason which only
// people can remove.
const slowProbe = 30 * time.Second

// Backoff bounds the waits between tries.
type Backoff struct{ Min, Max time.Duration }

// delay returns how long to wait after so many failures in a row: at random
// between nothing and a bound that doubles up to Max (full jitter, so that a
// fleet that lost its server together does not come back together), longer
// where the failure says so, and never less than the server asked for.
func (b Backoff) delay(failures uint64, f *failure) time.Duration {
	d := jitter(b.bound(failures))
	if f.quick {
		d = jitter(b.Min)
	}
	if f.slow {
		d = slowProbe/2 + jitter(slowProbe)
	}
	if f.after > 0 {
		d = f.after + jitter(f.after/10+time.Second)
	}
	return max(d, time.Millisecond)
}

func (b Backoff) bound(failures uint64) time.Duration {
	d := b.Min
	for i := uint64(1); i < failures && d < b.Max; i++ {
		d *= 2
	}
	return min(d, b.Max)
}

func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// A budget is how many retries a minute a server is given. It bounds how hard a
// dead server is tried, never for how long: when it is spent, single tries at
// about the longest interval find out whether the server is back.
type budget struct {
	perMinute int
	left      float64
	last      time.Time
}

// take takes one retry and returns how long to wait for it at least.
func (b *budget) take(now time.Time, longest time.Duration) time.Duration {
	every := time.Minute / time.Duration(b.perMinute)
	if b.last.IsZero() {
		b.left = float64(b.perMinute)
	} else {
		b.left = min(float64(b.perMinute), b.left+float64(now.Sub(b.last))/float64(every))
	}
	b.last = now
	b.left--
	if b.left >= 0 {
		return 0
	}
	return max(time.Duration(-b.left*float64(every)), longest/2+jitter(longest))
}
