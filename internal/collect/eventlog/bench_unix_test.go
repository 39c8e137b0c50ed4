//go:build unix

package eventlog

import (
	"bytes"
	"encoding/xml"
	"syscall"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/collect/collecttest"
	"github.com/rea-agent/rea/internal/event"
	"github.com/rea-agent/rea/internal/xpath"
)

// The speed is told in processor time, which a busy machine does not change.
func BenchmarkParse(b *testing.B) {
	var events [][]byte
	size := 0
	for _, s := range sample(b) {
		events = append(events, []byte(s))
		size += len(s)
	}
	e := event.NewEncoder(collecttest.Stamp, nil, 1<<20)
	var line []byte
	for name, f := range map[string]func(*Record){
		"scan": func(*Record) {},
		"scan and encode": func(r *Record) {
			ev := r.Event(read)
			line, _ = e.Append(line[:0], &ev, 1)
		},
	} {
		b.Run(name, func(b *testing.B) {
			var p Parser
			r := new(Record)
			b.ReportAllocs()
			b.SetBytes(int64(size / len(events)))
			before := processorTime()
			for i := 0; b.Loop(); i++ {
				p.Parse(events[i%len(events)], r)
				f(r)
			}
			b.ReportMetric(float64(b.N)/(processorTime()-before).Seconds(), "events/cpu-s")
		})
	}
	b.Run("encoding xml", func(b *testing.B) {
		b.SetBytes(int64(size / len(events)))
		before := processorTime()
		for i := 0; b.Loop(); i++ {
			if _, err := readElement(xml.NewDecoder(bytes.NewReader(events[i%len(events)])), nil); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/(processorTime()-before).Seconds(), "events/cpu-s")
	})
}

// What it costs to pass over a record that an expression does not select: the
// outline, and the asking.
func BenchmarkSelect(b *testing.B) {
	e, err := xpath.Compile("*[System[(EventID=4624 or EventID=4625) and Provider[@Name='Microsoft-Windows-Security-Auditing'] and TimeCreated[timediff(@SystemTime) <= 86400000]]] and *[EventData[Data[@Name='LogonType']='10']]")
	if err != nil {
		b.Fatal(err)
	}
	var events [][]byte
	size := 0
	for _, s := range sample(b) {
		events = append(events, []byte(s))
		size += len(s)
	}
	var p Parser
	var tree xpath.Tree
	b.ReportAllocs()
	b.SetBytes(int64(size / len(events)))
	before := processorTime()
	for i := 0; b.Loop(); i++ {
		if err := p.Outline(events[i%len(events)], &tree); err != nil {
			b.Fatal(err)
		}
		e.Selects(&tree, read)
	}
	b.ReportMetric(float64(b.N)/(processorTime()-before).Seconds(), "events/cpu-s")
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
