package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rea-agent/rea/internal/wire"
)

// An engine keeps batches and answers questions. testEngine is what each one
// has to pass.
type engine interface {
	Put(ctx context.Context, b *Batch) (high uint64, err error)
	Hosts(ctx context.Context) ([]Host, error)
	Events(ctx context.Context, f Filter, each func(*wire.Line) error) (Position, error)
	Version(ctx context.Context) (int64, error)
	Close() error
}

const (
	nodeA, nodeB     = "0190d1c0-0000-7000-8000-00000000000a", "0190d1c0-0000-7000-8000-00000000000b"
	stream1, stream2 = "7f3a00000000000000000000000000c1", "7f3a00000000000000000000000000c2"
)

// start is the time of the event with number 0; one a second follows.
var start = time.Date(2026, 1, 2, 3, 0, 0, 123456789, time.UTC)

// made returns the lines first to last of a stream as they are delivered.
// Numbers divisible by 3 are of kind disk, the others cpu.
func made(node, stream string, first, last uint64) *Batch {
	b := &Batch{
		Node: node, Stream: stream, First: first, Last: last, ID: fmt.Sprintf("b-%d", first), Agent: "rea-agent/1.2.3",
		Received: start.Add(time.Hour), Earliest: start.Add(time.Duration(first) * time.Second), Latest: start.Add(time.Duration(last) * time.Second),
		Hosts: []string{"host-" + node[35:]}, Kinds: []string{"cpu", "disk"},
	}
	var lines bytes.Buffer
	for n := first; n <= last; n++ {
		kind := "cpu"
		if n%3 == 0 {
			kind = "disk"
		}
		fmt.Fprintf(&lines, `{"v":1,"time":%q,"node":%q,"hostname":%q,"stream":%q,"seq":%d,"kind":%q,%q:{"n":%d}}`+"\n",
			start.Add(time.Duration(n)*time.Second).Format(time.RFC3339Nano), node, b.Hosts[0], stream, n, kind, kind, n)
	}
	b.Lines = lines.Bytes()
	return b
}

func zstd(b *Batch) *Batch {
	b.Frames = wire.NewDictionaryCompressor().Append(nil, b.Lines)
	return b
}

func mustPut(t *testing.T, e engine, b *Batch, want uint64) {
	t.Helper()
	if high, err := e.Put(t.Context(), b); err != nil || high != want {
		t.Fatalf("put %d to %d: high %d, %v; want %d", b.First, b.Last, high, err, want)
	}
}

// kept returns the numbers of what f wants, in the order of the answer, as runs.
func kept(t *testing.T, e engine, f Filter) string {
	t.Helper()
	var runs []string
	var first, last uint64
	flush := func() {
		if first > 0 {
			runs = append(runs, fmt.Sprintf("%d-%d", first, last))
		}
	}
	_, err := e.Events(t.Context(), f, func(l *wire.Line) error {
		if l.Seq != last+1 || first == 0 {
			flush()
			first = l.Seq
		}
		last = l.Seq
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	flush()
	return strings.Join(runs, " ")
}

func host(t *testing.T, e engine, node string) Host {
	t.Helper()
	hosts, err := e.Hosts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		if h.Node == node {
			return h
		}
	}
	t.Fatalf("no host %s in %v", node, hosts)
	return Host{}
}

// testEngine is the suite. open opens the same place again and again; the
// engine that it opened before is closed by then.
func testEngine(t *testing.T, open func(t *testing.T, place string) engine) {
	fresh := func(t *testing.T) engine {
		e := open(t, t.TempDir())
		t.Cleanup(func() { e.Close() })
		return e
	}

	t.Run("an empty engine answers with nothing", func(t *testing.T) {
		e := fresh(t)
		if got := kept(t, e, Filter{}); got != "" {
			t.Error(got)
		}
		if got := kept(t, e, Filter{Limit: 5}); got != "" {
			t.Error(got)
		}
		if hosts, err := e.Hosts(t.Context()); err != nil || len(hosts) != 0 {
			t.Errorf("%v, %v", hosts, err)
		}
	})

	t.Run("lines come back as they were, also after a restart", func(t *testing.T) {
		place := t.TempDir()
		e := open(t, place)
		b := zstd(made(nodeA, stream1, 1, 10))
		mustPut(t, e, b, 10)
		mustPut(t, e, made(nodeA, stream1, 11, 12), 12)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = open(t, place)
		defer e.Close()
		var got bytes.Buffer
		if _, err := e.Events(t.Context(), Filter{}, func(l *wire.Line) error { got.Write(l.Raw); return nil }); err != nil {
			t.Fatal(err)
		}
		want := string(b.Lines) + string(made(nodeA, stream1, 11, 12).Lines)
		if d := cmp.Diff(want, got.String()); d != "" {
			t.Error(d)
		}
	})

	t.Run("a repeat is answered and not kept", func(t *testing.T) {
		e := fresh(t)
		for range 3 {
			mustPut(t, e, made(nodeA, stream1, 1, 10), 10)
		}
		mustPut(t, e, zstd(made(nodeA, stream1, 3, 7)), 10) // in other cuts
		if got := kept(t, e, Filter{}); got != "1-10" {
			t.Error(got)
		}
		if h := host(t, e, nodeA); h.Events != 10 || h.Missing != 0 || h.Conflicts != 0 {
			t.Errorf("%+v", h)
		}
	})

	t.Run("of an overlap only the new lines are kept", func(t *testing.T) {
		e := fresh(t)
		mustPut(t, e, made(nodeA, stream1, 1, 10), 10)
		mustPut(t, e, zstd(made(nodeA, stream1, 1, 15)), 15)
		mustPut(t, e, made(nodeA, stream1, 11, 16), 16)
		mustPut(t, e, made(nodeA, stream1, 16, 16), 16)
		if got := kept(t, e, Filter{}); got != "1-16" {
			t.Error(got)
		}
	})

	t.Run("a hole is counted, and filled by what comes late", func(t *testing.T) {
		e := fresh(t)
		mustPut(t, e, made(nodeA, stream1, 11, 20), 20)
		mustPut(t, e, made(nodeA, stream1, 31, 40), 40)
		if h := host(t, e, nodeA); h.Missing != 20 || h.Events != 20 {
			t.Errorf("%+v", h)
		}
		mustPut(t, e, made(nodeA, stream1, 4, 6), 40)         // inside the first hole
		mustPut(t, e, made(nodeA, stream1, 4, 6), 40)         // again
		mustPut(t, e, zstd(made(nodeA, stream1, 15, 35)), 40) // over the second one
		mustPut(t, e, made(nodeA, stream1, 9, 9), 40)         // one number
		mustPut(t, e, made(nodeA, stream1, 8, 41), 41)        // two holes and the end
		if got := kept(t, e, Filter{}); got != "11-20 31-40 4-6 21-30 9-9 8-8 10-10 41-41" {
			t.Error(got)
		}
		if h := host(t, e, nodeA); h.Missing != 4 || h.Events != 37 {
			t.Errorf("%+v", h)
		}
		mustPut(t, e, made(nodeA, stream1, 1, 41), 41)
		if h := host(t, e, nodeA); h.Missing != 0 || h.Events != 41 {
			t.Errorf("%+v", h)
		}
	})

	t.Run("other content under kept numbers is refused", func(t *testing.T) {
		e := fresh(t)
		mustPut(t, e, made(nodeA, stream1, 1, 10), 10)
		other := func(first, last uint64) *Batch {
			b := made(nodeA, stream1, first, last)
			b.Lines = bytes.Replace(b.Lines, []byte(`"n":7`), []byte(`"n":8`), 1)
			return b
		}
		for _, b := range []*Batch{other(1, 10), other(5, 8), other(7, 7), other(7, 12)} {
			if high, err := e.Put(t.Context(), b); !errors.Is(err, ErrConflict) || high != 10 {
				t.Errorf("put %d to %d: %d, %v", b.First, b.Last, high, err)
			}
		}
		if got := kept(t, e, Filter{}); got != "1-10" {
			t.Error(got)
		}
		if h := host(t, e, nodeA); h.Conflicts != 4 || h.Events != 10 {
			t.Errorf("%+v", h)
		}
		mustPut(t, e, other(8, 12), 12) // without the line in question
	})

	t.Run("streams and nodes count by themselves", func(t *testing.T) {
		e := fresh(t)
		mustPut(t, e, made(nodeA, stream1, 1, 5), 5)
		mustPut(t, e, made(nodeA, stream2, 1, 3), 3)
		mustPut(t, e, made(nodeB, stream1, 1, 2), 2)
		if got := kept(t, e, Filter{}); got != "1-5 1-3 1-2" {
			t.Error(got)
		}
	})

	t.Run("the greatest numbers are numbers", func(t *testing.T) {
		e := fresh(t)
		mustPut(t, e, made(nodeA, stream1, wire.MaxSeq-1, wire.MaxSeq), wire.MaxSeq)
		mustPut(t, e, made(nodeA, stream2, wire.MaxSeq, wire.MaxSeq), wire.MaxSeq)
		mustPut(t, e, made(nodeA, stream2, wire.MaxSeq, wire.MaxSeq), wire.MaxSeq)
		if h := host(t, e, nodeA); h.Missing < wire.MaxSeq || h.Events != 3 {
			t.Errorf("%+v", h)
		}
	})

	t.Run("a filter finds what it describes", func(t *testing.T) {
		e := fresh(t)
		mustPut(t, e, made(nodeA, stream1, 1, 6), 6)
		mustPut(t, e, made(nodeB, stream1, 1, 6), 6)
		mustPut(t, e, made(nodeA, stream1, 7, 12), 12)
		at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
		for name, c := range map[string]struct {
			f    Filter
			want string
		}{
			"a host":             {Filter{Host: "host-b"}, "1-6"},
			"a node":             {Filter{Host: nodeA}, "1-12"},
			"half a host":        {Filter{Host: "host"}, ""},
			"a kind":             {Filter{Kinds: []string{"disk"}, Host: nodeA}, "3-3 6-6 9-9 12-12"},
			"kinds":              {Filter{Kinds: []string{"cpu", "disk"}, Host: nodeA}, "1-12"},
			"another kind":       {Filter{Kinds: []string{"agent"}}, ""},
			"half a kind":        {Filter{Kinds: []string{"c"}}, ""},
			"since":              {Filter{Since: at(5)}, "5-6 5-12"},
			"until":              {Filter{Until: at(2)}, "1-2 1-2"},
			"both":               {Filter{Since: at(4), Until: at(8), Host: nodeA}, "4-8"},
			"a nanosecond later": {Filter{Since: at(12).Add(1)}, ""},
			"the last":           {Filter{Limit: 8}, "5-12"},
			"the last of a host": {Filter{Limit: 2, Host: "host-b"}, "5-6"},
			"more than there is": {Filter{Limit: 100, Host: "host-b"}, "1-6"},
			"the last disks":     {Filter{Limit: 3, Kinds: []string{"disk"}}, "6-6 9-9 12-12"},
		} {
			if got := kept(t, e, c.f); got != c.want {
				t.Errorf("%s: got %q, want %q", name, got, c.want)
			}
		}
	})

	t.Run("many batches are found and counted from the end", func(t *testing.T) {
		e := fresh(t)
		for n := range uint64(600) {
			mustPut(t, e, made(nodeA, stream1, n+1, n+1), n+1)
		}
		for limit, want := range map[int]string{0: "1-600", 1: "600-600", 255: "346-600", 257: "344-600", 599: "2-600", 601: "1-600"} {
			if got := kept(t, e, Filter{Limit: limit}); got != want {
				t.Errorf("limit %d: %s", limit, got)
			}
		}
	})

	t.Run("who follows sees what comes, once", func(t *testing.T) {
		e := fresh(t)
		mustPut(t, e, made(nodeA, stream1, 1, 5), 5)
		var seen []uint64
		follow := func(after Position) Position {
			after, err := e.Events(t.Context(), Filter{After: after}, func(l *wire.Line) error { seen = append(seen, l.Seq); return nil })
			if err != nil {
				t.Fatal(err)
			}
			return after
		}
		version := func() int64 {
			v, err := e.Version(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		at, before := follow(0), version()
		if before != version() {
			t.Error("the version changed though nothing was put")
		}
		mustPut(t, e, made(nodeA, stream1, 6, 7), 7)
		if before == version() {
			t.Error("the version did not change though a batch was put")
		}
		follow(follow(at))
		if d := cmp.Diff([]uint64{1, 2, 3, 4, 5, 6, 7}, seen); d != "" {
			t.Error(d)
		}
	})

	t.Run("a host is what was heard of it last", func(t *testing.T) {
		e := fresh(t)
		mustPut(t, e, made(nodeA, stream1, 1, 3), 3)
		late := made(nodeA, stream1, 4, 5)
		late.Hosts, late.Kinds, late.Agent = []string{"host-a", "renamed"}, []string{"agent"}, "rea-agent/2"
		late.Received = late.Received.Add(time.Minute)
		mustPut(t, e, late, 5)
		want := Host{
			Node: nodeA, Host: "renamed", Agent: "rea-agent/2", Kinds: []string{"agent", "cpu", "disk"}, Events: 5,
			FirstSeen: start.Add(time.Hour).Truncate(time.Microsecond), LastSeen: start.Add(time.Hour + time.Minute).Truncate(time.Microsecond),
			LastEvent: start.Add(5 * time.Second).Truncate(time.Microsecond),
		}
		if d := cmp.Diff(want, host(t, e, nodeA)); d != "" {
			t.Error(d)
		}
	})

	t.Run("an error of the caller ends the answer", func(t *testing.T) {
		e := fresh(t)
		mustPut(t, e, made(nodeA, stream1, 1, 3), 3)
		stop, calls := errors.New("enough"), 0
		if _, err := e.Events(t.Context(), Filter{}, func(*wire.Line) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
			t.Errorf("%d calls, %v", calls, err)
		}
	})

	t.Run("many writers at once lose and repeat nothing", func(t *testing.T) {
		e := fresh(t)
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				stream := fmt.Sprintf("%032x", w%4) // two writers each
				for n := range uint64(20) {
					if _, err := e.Put(context.Background(), made(nodeA, stream, n*5+1, n*5+5)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		seen := map[string]int{}
		if _, err := e.Events(t.Context(), Filter{}, func(l *wire.Line) error { seen[fmt.Sprint(string(l.Stream), l.Seq)]++; return nil }); err != nil {
			t.Fatal(err)
		}
		for k, n := range seen {
			if n != 1 {
				t.Errorf("%s is there %d times", k, n)
			}
		}
		if h := host(t, e, nodeA); len(seen) != 400 || h.Events != 400 || h.Missing != 0 {
			t.Errorf("%d kept, %+v", len(seen), h)
		}
	})
}
