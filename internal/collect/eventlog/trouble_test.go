package eventlog

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rea-agent/rea/internal/collect"
)

func TestErrorsThatPass(t *testing.T) {
	for _, err := range []error{errHandle, errServer, errCancelled, errNoChannel, errStale, errTimeout, errDenied, errno(4711)} {
		for _, call := range []string{"subscribe", "next", "mark", "bookmark", "info"} {
			t.Run(fmt.Sprintf("%s %d", call, err), func(t *testing.T) {
				bubble(t, func(t *testing.T, b *bench) {
					b.fake.write("Security", 40)
					b.fake.fail("Security", call, err, err, err)
					b.start()
					time.Sleep(20 * time.Second)
					b.fake.write("Security", 40)
					b.fake.fail("Security", call, nil, err, nil, err)
					time.Sleep(time.Hour)
					b.fake.write("Security", 1)
					time.Sleep(time.Hour)
					b.stop()
					b.want("1-81")
					if s := b.run.States()[0]; s.State != collect.OK || s.Parts[0].State != collect.OK {
						t.Errorf("%+v", s)
					}
				})
			})
		}
	}
}

func TestAFailureThatGoesOnIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 3)
		b.start()
		time.Sleep(time.Second)
		b.fake.fail("Security", "next", errServer, errServer, errServer, errServer)
		time.Sleep(time.Minute)
		b.stop()
		var told []string
		for _, s := range b.told {
			if strings.Contains(s, "eventlog/Security") {
				told = append(told, strings.Fields(s)[0])
			}
		}
		if d := cmp.Diff([]string{"source_down", "source_up"}, told); d != "" {
			t.Error(d)
		}
	})
}

func TestARecordThatCannotBeRenderedIsHandedOverWithAnError(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 3)
		b.fake.fail("Security", "xml", nil, errno(15005))
		b.runFor(time.Second)
		b.want("1-3")
		if !bytes.Contains(b.lines, []byte(`"errors":["xml: render: Windows error 15005"]`)) {
			t.Errorf("%s", b.lines)
		}
	})
}

func TestTooMuchForOneCall(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		one := len(recordXML("Security", "P", 7, 100, ""))
		b.fake.most = 4*one + one/2
		b.fake.write("Security", 100)
		b.start()
		time.Sleep(time.Minute)
		b.fake.allow(0)
		b.fake.write("Security", 100)
		time.Sleep(time.Minute)
		b.stop()
		b.want("1-200")
	})
	t.Run("even alone", func(t *testing.T) {
		bubble(t, func(t *testing.T, b *bench) {
			b.fake.most = 2000
			b.fake.write("Security", 5)
			b.fake.add("Security", strings.Repeat("x", 3000))
			b.fake.add("Security", strings.Repeat("x", 3000))
			b.fake.write("Security", 5)
			b.fake.add("Security", strings.Repeat("x", 3000)) // the last: it waits for another
			b.start()
			time.Sleep(time.Minute)
			b.want("1-5 8-12", "Security unreadable 2 of 6-7")
			b.fake.write("Security", 1)
			time.Sleep(time.Minute)
			b.stop()
			b.want("1-5 8-12 14-14", "Security unreadable 2 of 6-7", "Security unreadable 1 of 13-13")
		})
	})
}

func TestAPanicIsOneOfTheChannelsTroubles(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 5)
		b.fake.fail("Security", "next", panics{})
		b.start()
		time.Sleep(time.Second / 2)
		if p := b.run.States()[0].Parts[0]; !strings.Contains(p.Error, "panic: ") {
			t.Errorf("%+v", p)
		}
		time.Sleep(time.Minute)
		b.stop()
		b.want("1-5")
	})
}

// panics is an error that panics when it is looked at.
type panics struct{}

func (panics) Error() string { panic("index out of range") }
func (panics) Is(error) bool { panic("index out of range") }

// Whether the ids began anew is asked once; what is not answered is asked again, as
// all of the new records would be taken for old ones.
func TestALogThatWasMadeAnewIsSeenAfterATrouble(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 10)
		b.runFor(time.Second)
		b.fake.remake("Security", 5)
		b.fake.fail("Security", "info", nil, errServer) // the first looks how the log fares
		b.runFor(time.Minute)
		b.want("1-10 1-5", "Security log_cleared 1 of 0-0 unknown")
	})
}

// Nor is a channel given up of which nothing can be asked.
func TestALogThatCannotBeLookedAtIsReadAllTheSame(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.fake.write("Security", 10)
		b.runFor(time.Second)
		if err := os.WriteFile(b.cfg.File, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		b.handed = func() Handed { return Handed{"security": 11} }
		b.fake.write("Security", 5)
		b.fake.fail("Security", "info", slices.Repeat([]error{errDenied}, 1000)...)
		b.runFor(time.Minute)
		b.want("1-15")
	})
}
