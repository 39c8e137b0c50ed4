//go:build unix

package eventlog

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/durable/durabletest"
)

// A start without a free descriptor does not take positions for lost.
func TestPositionsThatCannotBeReadNowAreReadLater(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.cfg.Oldest = false
		b.fake.write("Security", 10)
		b.runFor(time.Second)
		b.fake.write("Security", 3)
		durabletest.WithoutDescriptors(t, func() {
			b.start()
			synctest.Wait()
		})
		time.Sleep(time.Minute)
		b.stop()
		b.want("11-13")
		if !slices.ContainsFunc(b.told, func(s string) bool { return strings.HasSuffix(s, "too many open files") }) {
			t.Errorf("told %q", b.told)
		}
	})
}
