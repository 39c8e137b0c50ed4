package collect

import (
	"time"

	"github.com/rea-agent/rea/internal/event"
)

// A Counter is what a system counts from its start on.
type Counter struct {
	Total event.Maybe[uint64]
	Rate  event.Maybe[float64] // a second, since the last reading
}

// Since computes the rate since the last reading, which was d ago.
func (c *Counter) Since(last Counter, d time.Duration) {
	c.Rate = Rate(c.Total, last.Total, d.Seconds())
}

// Encode writes the count and its rate, each under its name.
func (c Counter) Encode(e *event.Encoder, name, rate string) {
	e.MaybeUint(name, c.Total)
	e.MaybeFloat(rate, c.Rate, 2)
}

// Rate is what a counter grew by since it was at before, for each of divisor:
// seconds make a rate of it, the growth of another counter an average. A
// counter that went backwards was reset, and what it grew by is not known.
func Rate[N uint64 | float64](now, before event.Maybe[N], divisor float64) event.Maybe[float64] {
	if !now.Known || !before.Known || now.V < before.V || divisor <= 0 {
		return event.Maybe[float64]{}
	}
	return event.Known(float64(now.V-before.V) / divisor)
}

// Share is Rate for seconds out of so many. It stays within 1, since counters
// and clock are not read at the very same instant.
func Share(now, before event.Maybe[float64], seconds float64) event.Maybe[float64] {
	share := Rate(now, before, seconds)
	share.V = min(share.V, 1)
	return share
}
