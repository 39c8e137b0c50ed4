package store

import (
	"bytes"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rea-agent/rea/internal/wire"
)

// with replaces the lines of b that have these numbers by gap events with these
// bodies.
func with(b *Batch, bodies map[uint64]string) *Batch {
	var lines bytes.Buffer
	number := b.First
	for line := range bytes.Lines(b.Lines) {
		if body, ok := bodies[number]; ok {
			line = fmt.Appendf(nil, `{"v":1,"time":"2026-01-02T03:00:00Z","node":%q,"hostname":"host-x","stream":%q,"seq":%d,"kind":"gap","gap":%s}`+"\n", b.Node, b.Stream, number, body)
		}
		lines.Write(line)
		number++
	}
	b.Lines, b.Gaps = lines.Bytes(), nil
	b.Kinds = append(b.Kinds, "gap")
	s := wire.NewScanner(wire.DefaultLimits)
	for s.Reset(b.Lines); s.Scan(); {
		if g, ok := gapOf(s.Line()); ok {
			b.Gaps = append(b.Gaps, g)
		}
	}
	if err := s.Err(); err != nil {
		panic(err)
	}
	return b
}

func numbered(cause, stream string, first, last uint64) string {
	return fmt.Sprintf(`{"cause":%q,"count":1,"stream":%q,"first":%d,"last":%d}`, cause, stream, first, last)
}

func mustAccounts(t *testing.T, r *Reader, host string) Accounts {
	t.Helper()
	a, err := r.Accounts(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// account returns the books of one stream of nodeA.
func account(t *testing.T, r *Reader, stream string) Account {
	t.Helper()
	for _, a := range mustAccounts(t, r, "").Streams {
		if a.Node == nodeA && a.Stream == stream {
			return a
		}
	}
	t.Fatalf("no stream %s", stream)
	return Account{}
}

func opened(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestEveryNumberIsReceivedDeclaredWaitingOrUndeclared(t *testing.T) {
	s := opened(t)
	b := made(nodeA, stream1, 11, 20) // 1 to 10 are a hole
	b.Assigned = 25
	with(b, map[uint64]string{
		12: numbered("queue_full", stream1, 3, 5),
		13: numbered("damaged", stream1, 5, 6),     // 5 was declared before
		14: numbered("damaged", stream1, 11, 11),   // is received
		15: numbered("disk_full", stream1, 24, 30), // beyond what is assigned
		16: `{"cause":"too_large","count":2,"source":"eventlog"}`,
		17: `{"cause":"too_large","count":9223372036854775807,"source":"eventlog"}`,
	})
	mustPut(t, s, b, 20)
	mustPut(t, s, b, 20)
	received := b.Received.Truncate(time.Microsecond)
	want := Account{
		Node: nodeA, Host: "host-a", Stream: stream1, Assigned: 30, Received: 10, Declared: 11, Waiting: 3, Undeclared: 6,
		Causes: map[string]uint64{"queue_full": 3, "damaged": 1, "disk_full": 7}, DeclaredReceived: 1, Repeats: 1,
		Missing: []Range{{1, 2, received, false}, {7, 10, received, false}, {21, 23, received, true}},
	}
	if d := cmp.Diff(want, account(t, s.Reader, stream1)); d != "" {
		t.Error(d)
	}
	all := mustAccounts(t, s.Reader, "host-a")
	if d := cmp.Diff([]Unnumbered{{nodeA, "too_large", "eventlog", wire.MaxSeq}}, all.Unnumbered); d != "" {
		t.Error(d)
	}
	if h := host(t, s, nodeA); h.Declared != 11 || h.Missing != 6 {
		t.Errorf("%+v", h)
	}
	if other := mustAccounts(t, s.Reader, "host-b"); len(other.Streams)+len(other.Unnumbered) != 0 {
		t.Errorf("of another host: %+v", other)
	}
}

func TestAGapMayComeBeforeItsStreamAndBeTaken(t *testing.T) {
	s := opened(t)
	mustPut(t, s, with(made(nodeA, stream1, 1, 3), map[uint64]string{2: numbered("queue_full", stream2, 1, 8)}), 3)
	mustPut(t, s, made(nodeB, stream2, 4, 4), 4) // of another node: its own
	want := Account{Node: nodeA, Host: "host-a", Stream: stream2, Assigned: 8, Declared: 8, Causes: map[string]uint64{"queue_full": 8}}
	if d := cmp.Diff(want, account(t, s.Reader, stream2)); d != "" {
		t.Error(d)
	}
	mustPut(t, s, made(nodeA, stream2, 7, 10), 10)
	want.Assigned, want.Received, want.Declared, want.DeclaredReceived, want.Causes = 10, 4, 6, 2, map[string]uint64{"queue_full": 6}
	if d := cmp.Diff(want, account(t, s.Reader, stream2)); d != "" {
		t.Error(d)
	}
}

func TestSumsOfAbsurdClaimsStillBalance(t *testing.T) {
	s := opened(t)
	for n := range uint64(4) {
		stream := fmt.Sprintf("%032x", n)
		mustPut(t, s, with(made(nodeA, stream, 1, 1), map[uint64]string{1: numbered("queue_full", stream, 1, wire.MaxSeq)}), 1)
	}
	all := mustAccounts(t, s.Reader, "")
	for _, a := range all.Streams {
		if !a.Balanced() || a.Received+a.Declared != a.Assigned {
			t.Errorf("%+v", a)
		}
	}
	total := all.Total()
	if Sum(total.Received, total.Declared) != total.Assigned || total.Received != 4 || total.Causes["queue_full"] != total.Declared || all.Unbalanced() != 0 {
		t.Errorf("%+v", total)
	}
	if h := host(t, s, nodeA); h.Declared < wire.MaxSeq || h.Missing != 0 {
		t.Errorf("%+v", h)
	}
}

func TestResumeTellsAndNotes(t *testing.T) {
	s := opened(t)
	ask := func(assigned uint64, superseded bool, after time.Duration) string {
		t.Helper()
		high, told, err := s.Resume(t.Context(), &Resume{Node: nodeA, Stream: stream1, Assigned: assigned, Superseded: superseded, Received: start.Add(time.Hour + after)})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(high, " ", told)
	}
	step := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	step("a stream that is not known", ask(0, false, 0), "0 0")
	step("nothing was told yet", ask(5, false, 0), "0 0")
	step("5 were told", ask(0, false, 0), "0 5")
	b := made(nodeA, stream1, 1, 3)
	b.Assigned = 9
	mustPut(t, s, b, 3)
	step("a batch told of 9", ask(7, false, 0), "3 9")
	step("less is told", ask(12, true, 0), "3 9")
	step("by a process that was superseded", ask(9, false, 5*time.Second), "3 9")
	if h := host(t, s, nodeA); !h.LastSeen.Equal(start.Add(time.Hour).Truncate(time.Microsecond)) {
		t.Errorf("5 s later the host was seen %s", h.LastSeen)
	}
	ask(9, false, 11*time.Second)
	if h := host(t, s, nodeA); !h.LastSeen.Equal(start.Add(time.Hour + 11*time.Second).Truncate(time.Microsecond)) {
		t.Errorf("11 s later the host was seen %s", h.LastSeen)
	}
	a := account(t, s.Reader, stream1)
	if a.Assigned != 9 || a.Waiting != 6 || len(a.Missing) != 1 || a.Missing[0].First != 4 || !a.Missing[0].Since.Equal(b.Received.Truncate(time.Microsecond)) {
		t.Errorf("%+v", a)
	}
}

func TestAHeartbeatThatSaysNothingNewWritesNothing(t *testing.T) {
	s := opened(t)
	mustPut(t, s, made(nodeA, stream1, 1, 3), 3)
	reader, err := OpenReader(filepath.Dir(fileOf(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	before, err := reader.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, _, err := s.Resume(t.Context(), &Resume{Node: nodeA, Stream: stream1, Assigned: 3, Received: start.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := reader.Version(t.Context()); err != nil || after != before {
		t.Errorf("version %d became %d, %v", before, after, err)
	}
}

func fileOf(t *testing.T, s *Store) (name string) {
	t.Helper()
	if err := s.db.QueryRow("SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&name); err != nil {
		t.Fatal(err)
	}
	return name
}

// What is refused leaves no trace but a count: 409 means that nothing was kept.
func TestOfARefusedBatchNothingIsKept(t *testing.T) {
	changed := func(b *Batch, number uint64) *Batch {
		b.Lines = bytes.Replace(b.Lines, fmt.Appendf(nil, `"n":%d}`, number), []byte(`"n":0}`), 1)
		return b
	}
	superseded := func(b *Batch) *Batch {
		b.Superseded = true
		return b
	}
	gap := map[uint64]string{26: numbered("queue_full", stream2, 1, 8), 27: `{"cause":"too_large","count":2}`}
	for _, c := range []struct {
		name  string
		batch *Batch
		clone bool
	}{
		{"other content at the begin", changed(with(made(nodeA, stream1, 11, 27), gap), 11), false},
		{"in the middle", changed(with(made(nodeA, stream1, 1, 27), gap), 15), false},
		{"in the middle, all else fills a hole", changed(made(nodeA, stream1, 5, 24), 12), false},
		{"at the end", changed(made(nodeA, stream1, 1, 20), 20), false},
		{"new, of a superseded process", superseded(with(made(nodeA, stream1, 26, 27), gap)), true},
		{"partly new, of a superseded process", superseded(made(nodeA, stream1, 15, 27)), true},
		{"into a hole, of a superseded process", superseded(made(nodeA, stream1, 3, 3)), true},
		{"other content, of a superseded process", superseded(changed(made(nodeA, stream1, 15, 15), 15)), false},
	} {
		s := opened(t)
		mustPut(t, s, made(nodeA, stream1, 11, 25), 25)
		before, events := mustAccounts(t, s.Reader, ""), kept(t, s, Filter{})
		c.batch.Assigned = 99
		high, err := s.Put(t.Context(), c.batch)
		if !errors.Is(err, ErrConflict) || errors.Is(err, ErrSuperseded) != c.clone || high != 25 {
			t.Errorf("%s: %d, %v", c.name, high, err)
		}
		if d := cmp.Diff(before, mustAccounts(t, s.Reader, ""), cmpopts.IgnoreFields(Account{}, "Conflicts", "Clones")); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		if got := kept(t, s, Filter{}); got != events {
			t.Errorf("%s: kept %s, before it was %s", c.name, got, events)
		}
		if a := account(t, s.Reader, stream1); a.Conflicts+a.Clones != 1 || (a.Clones == 1) != c.clone {
			t.Errorf("%s: %+v", c.name, a)
		}
	}
}

func TestARepeatOfASupersededProcessIsAnswered(t *testing.T) {
	s := opened(t)
	mustPut(t, s, made(nodeA, stream1, 1, 10), 10)
	b := made(nodeA, stream1, 3, 7)
	b.Superseded, b.Assigned = true, 99
	mustPut(t, s, b, 10)
	if a := account(t, s.Reader, stream1); a.Assigned != 10 || a.Repeats != 1 || a.Clones != 0 {
		t.Errorf("%+v", a)
	}
}

func TestAConflictStopsNobodyElseOfItsTransaction(t *testing.T) {
	s := opened(t)
	mustPut(t, s, made(nodeA, stream1, 1, 10), 10)
	bad := made(nodeA, stream1, 1, 10)
	bad.Lines = bytes.Replace(bad.Lines, []byte(`"n":7`), []byte(`"n":8`), 1)
	s.writer <- struct{}{} // nobody writes yet, so that both wait
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Put(t.Context(), bad); !errors.Is(err, ErrConflict) {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if high, err := s.Put(t.Context(), made(nodeB, stream1, 1, 10)); err != nil || high != 10 {
			t.Error(high, err)
		}
	})
	wg.Go(func() {
		if _, _, err := s.Resume(t.Context(), &Resume{Node: nodeB, Stream: stream2, Assigned: 4, Received: start}); err != nil {
			t.Error(err)
		}
	})
	for n := 0; n < 3; {
		s.mu.Lock()
		n = len(s.waiting)
		s.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	s.writeWaiting() // gives the token back
	wg.Wait()
	if got := kept(t, s, Filter{}); got != "1-10 1-10" {
		t.Errorf("kept %s", got)
	}
}

// cells are the numbers that the model counts: small ones, a huge run that no
// history divides, and the last ones.
const (
	smallest = 40
	tail     = 5
)

// model is one stream, number by number: that at index n stands for n+1, except
// that index smallest stands for a huge run and those behind for the end.
type model struct {
	kept     [smallest + 1 + tail]bool
	cause    [smallest + 1 + tail]string
	assigned int // how many cells
	high     int
	repeats  uint64
}

// lastOf returns the last number of a cell, and firstOf its first.
func lastOf(cell int) uint64 {
	if cell < smallest {
		return uint64(cell) + 1
	}
	return wire.MaxSeq - uint64(smallest+tail-cell)
}

func firstOf(cell int) uint64 {
	if cell == 0 {
		return 1
	}
	return lastOf(cell-1) + 1
}

func (m *model) account(a Account) Account {
	for c := range m.assigned {
		n := lastOf(c) - firstOf(c) + 1
		switch {
		case m.kept[c]:
			a.Received += n
			if m.cause[c] != "" {
				a.DeclaredReceived += n
			}
		case m.cause[c] != "":
			a.Declared += n
			if a.Causes == nil {
				a.Causes = map[string]uint64{}
			}
			a.Causes[m.cause[c]] += n
		case c < m.high:
			a.Undeclared += n
		default:
			a.Waiting += n
		}
	}
	if m.assigned > 0 {
		a.Assigned = lastOf(m.assigned - 1)
	}
	a.Repeats = m.repeats
	return a
}

// history changes a store and a model of it at random.
type history struct {
	t       *testing.T
	rand    *rand.Rand
	store   *Store
	streams map[string]*model // by stream, of nodeA
	bodies  map[string]map[uint64]string
	lost    uint64
	log     []string
}

func (h *history) step() {
	stream := []string{stream1, stream2}[h.rand.IntN(2)]
	if h.rand.IntN(8) == 0 {
		h.resume(stream)
		return
	}
	h.batch(stream)
}

func (h *history) of(stream string) *model {
	if h.streams[stream] == nil {
		h.streams[stream], h.bodies[stream] = &model{}, map[uint64]string{}
	}
	return h.streams[stream]
}

func (h *history) resume(stream string) {
	m, cells := h.of(stream), h.rand.IntN(smallest)
	told := uint64(0)
	if cells > 0 {
		told = lastOf(cells - 1)
	}
	h.log = append(h.log, fmt.Sprintf("resume %s %d", stream[30:], told))
	if _, _, err := h.store.Resume(h.t.Context(), &Resume{Node: nodeA, Stream: stream, Assigned: told, Received: start}); err != nil {
		h.t.Fatal(err)
	}
	m.assigned = max(m.assigned, cells)
}

// batch delivers a run of small numbers, or rarely the last ones. What a number
// holds is decided when it is first sent.
func (h *history) batch(stream string) {
	m, bodies := h.of(stream), h.bodies[stream]
	first := h.rand.IntN(smallest)
	last := min(smallest-1, first+h.rand.IntN(12))
	if h.rand.IntN(60) == 0 {
		first, last = smallest+1+h.rand.IntN(tail), smallest+tail
	}
	isNew := false
	gaps := map[uint64]string{}
	for c := first; c <= last; c++ {
		if _, sent := bodies[firstOf(c)]; !sent {
			bodies[firstOf(c)] = h.body()
		}
		if body := bodies[firstOf(c)]; body != "" {
			gaps[firstOf(c)] = body
		}
		isNew = isNew || !m.kept[c]
	}
	b := with(made(nodeA, stream, firstOf(first), lastOf(last)), gaps)
	assigned := max(last+1, min(smallest, last+h.rand.IntN(6)))
	b.Assigned = lastOf(assigned - 1)
	b.Superseded = h.rand.IntN(6) == 0
	h.log = append(h.log, fmt.Sprintf("put %s %d-%d of %d superseded %v %v", stream[30:], b.First, b.Last, b.Assigned, b.Superseded, gaps))
	_, err := h.store.Put(h.t.Context(), b)
	if refused := b.Superseded && isNew; refused != errors.Is(err, ErrConflict) || !refused && err != nil {
		h.t.Fatalf("%v\n%s", err, strings.Join(h.log, "\n"))
	}
	if err != nil {
		return
	}
	if !b.Superseded {
		m.assigned = max(m.assigned, assigned)
	}
	if !isNew {
		m.repeats++
		return
	}
	for c := first; c <= last; c++ {
		if !m.kept[c] {
			m.kept[c] = true
			h.declare(bodies[firstOf(c)])
		}
	}
	m.high = max(m.high, last+1)
}

// body makes a gap now and then: "cause stream first last" as cells are what
// declare reads back.
func (h *history) body() string {
	if h.rand.IntN(4) > 0 {
		return ""
	}
	cause := []string{"queue_full", "damaged", "disk_full"}[h.rand.IntN(3)]
	if h.rand.IntN(6) == 0 {
		return `{"cause":"too_large","count":3}`
	}
	first := h.rand.IntN(smallest)
	last := min(smallest-1, first+h.rand.IntN(8))
	switch h.rand.IntN(40) {
	case 0:
		last = smallest // over the huge run
	case 1:
		first, last = 0, smallest+tail
	case 2:
		first, last = smallest, smallest+h.rand.IntN(tail+1)
	}
	stream := []string{stream1, stream2, strings.Repeat("0", 32)}[h.rand.IntN(3)]
	return fmt.Sprintf(`{"cause":%q,"count":%d,"stream":%q,"first":%d,"last":%d}`, cause, 1+h.rand.Uint64N(wire.MaxSeq), stream, firstOf(first), lastOf(last))
}

func (h *history) declare(body string) {
	if body == "" {
		return
	}
	g, err := wire.ParseGap(&wire.Line{Body: []byte(body)})
	if err != nil {
		h.t.Fatal(err)
	}
	if g.First == 0 {
		h.lost += g.Count
		return
	}
	m := h.of(g.Stream)
	for c := range m.cause {
		if g.First <= firstOf(c) && lastOf(c) <= g.Last {
			m.assigned = max(m.assigned, c+1)
			if m.cause[c] == "" {
				m.cause[c] = g.Cause
			}
		}
	}
}

func (h *history) check() {
	h.t.Helper()
	got := mustAccounts(h.t, h.store.Reader, "")
	want := []Account{}
	for _, a := range got.Streams {
		if h.streams[a.Stream] == nil {
			h.t.Fatalf("stream %s is not in the model", a.Stream)
		}
		var named uint64
		for _, r := range a.Missing {
			named += r.Last - r.First + 1
		}
		if len(a.Missing) < maxRanges && named != a.Waiting+a.Undeclared {
			h.t.Fatalf("%+v names %d numbers", a, named)
		}
		want = append(want, h.streams[a.Stream].account(Account{Node: a.Node, Host: a.Host, Stream: a.Stream, Clones: a.Clones, Missing: a.Missing}))
	}
	if d := cmp.Diff(want, got.Streams, cmpopts.EquateEmpty()); d != "" || len(got.Streams) != len(h.streams) {
		h.t.Fatalf("%d of %d streams: %s\n%s", len(got.Streams), len(h.streams), d, strings.Join(h.log, "\n"))
	}
	var lost uint64
	for _, u := range got.Unnumbered {
		lost += u.Events
	}
	if lost != h.lost {
		h.t.Fatalf("%d are lost without numbers, want %d", lost, h.lost)
	}
	for _, a := range got.Streams {
		if a.Received+a.Declared+a.Waiting+a.Undeclared != a.Assigned {
			h.t.Fatalf("%+v does not add up", a)
		}
	}
}

var (
	histories   = flag.Int("store.histories", 12, "how many random histories the books are checked with")
	historySeed = flag.Uint64("store.seed", 0, "the seed of a run that is to be repeated; 0 for a new one")
)

func TestTheBooksAreThoseOfANaiveModel(t *testing.T) {
	seed := *historySeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-store.seed=%d", seed)
	for n := range *histories {
		dir := t.TempDir()
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		h := &history{t: t, rand: rand.New(rand.NewPCG(seed, uint64(n))), store: s, streams: map[string]*model{}, bodies: map[string]map[uint64]string{}}
		for range 30 {
			h.step()
		}
		h.check()
		audit, err := s.Audit(t.Context(), "", true, nil)
		if err != nil || audit.Damaged != 0 || audit.Batches == 0 {
			t.Fatalf("%+v, %v", audit, err)
		}
		// The ledger of a database that had none is the same.
		if _, err := s.db.Exec(toVersion1); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if h.store, err = Open(dir); err != nil {
			t.Fatal(err)
		}
		h.forgetTold()
		h.check()
		h.store.Close()
	}
}

// What makes of a database one of an earlier version.
const (
	toVersion2 = "DROP TABLE proven; ALTER TABLE hosts DROP COLUMN unproven; PRAGMA user_version = 2;"
	toVersion1 = toVersion2 + "DROP TABLE declared; DROP TABLE unnumbered; ALTER TABLE streams DROP COLUMN told; ALTER TABLE streams DROP COLUMN told_at; " +
		"ALTER TABLE streams DROP COLUMN clones; PRAGMA user_version = 1;"
)

// forgetTold takes out of the model what version 1 did not keep: what agents told
// beyond what they delivered and declared.
func (h *history) forgetTold() {
	for _, m := range h.streams {
		m.assigned = m.high
		for c := range m.cause {
			if m.cause[c] != "" {
				m.assigned = max(m.assigned, c+1)
			}
		}
	}
}

func TestADatabaseWithoutALedgerGetsOneFromItsGapEvents(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	bad := func(body string) string { return strings.Replace(body, `"count":1`, `"count":-1`, 1) }
	mustPut(t, s, with(made(nodeA, stream1, 5, 9), map[uint64]string{6: numbered("queue_full", stream1, 1, 3)}), 9)
	b := with(made(nodeA, stream1, 10, 12), map[uint64]string{10: bad(numbered("queue_full", stream1, 4, 4)), 11: `{"cause":"too_large","count":2,"source":"cpu"}`})
	mustPut(t, s, b, 12)
	mustPut(t, s, with(made(nodeA, stream1, 13, 13), map[uint64]string{13: numbered("damaged", stream1, 4, 4)}), 13)
	if _, err := s.db.Exec("UPDATE bodies SET body = x'00' WHERE id = 3; " + toVersion1); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := OpenReader(dir); err == nil || !strings.Contains(err.Error(), "start rea-server once") {
		t.Errorf("a reader before the server: %v", err)
	}
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := account(t, s.Reader, stream1)
	a.Missing = nil
	want := Account{Node: nodeA, Host: "host-a", Stream: stream1, Assigned: 13, Received: 9, Declared: 3, Undeclared: 1, Causes: map[string]uint64{"queue_full": 3}}
	if d := cmp.Diff(want, a); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Unnumbered{{nodeA, "too_large", "cpu", 2}}, mustAccounts(t, s.Reader, "").Unnumbered); d != "" {
		t.Error(d)
	}
	if audit, err := s.Audit(t.Context(), "", true, nil); err != nil || audit.Damaged != 1 || audit.Damage[0].First != 13 {
		t.Errorf("%+v, %v", audit, err)
	}
}

func TestAuditFindsDamage(t *testing.T) {
	exec := func(statement string, args ...any) func(*testing.T, *sql.DB) {
		return func(t *testing.T, db *sql.DB) {
			if _, err := db.Exec("PRAGMA foreign_keys = OFF"); err != nil {
				t.Fatal(err)
			}
			if r, err := db.Exec(statement, args...); err != nil {
				t.Fatal(err)
			} else if n, _ := r.RowsAffected(); n != 1 {
				t.Fatalf("%d rows changed", n)
			}
		}
	}
	frames := func(b *Batch) []byte { return zstd(b).Frames }
	flipped := zstd(made(nodeA, stream1, 11, 20)).Frames
	flipped[len(flipped)/2] ^= 1
	forged := made(nodeA, stream1, 11, 20)
	forged.Lines = bytes.Replace(forged.Lines, []byte(`"n":15`), []byte(`"n":51`), 1)
	for name, c := range map[string]struct {
		spoil func(*testing.T, *sql.DB)
		want  string // of full audits
		quick bool   // found without the bodies
	}{
		"nothing":           {func(*testing.T, *sql.DB) {}, "", false},
		"a flipped bit":     {exec("UPDATE bodies SET body = ? WHERE id = 2", flipped), "11-20 its body cannot be decoded", false},
		"another content":   {exec("UPDATE bodies SET body = ? WHERE id = 2", frames(forged)), "11-20 its lines are not those that were kept", false},
		"another sum":       {exec("UPDATE batches SET sha256 = x'00' WHERE id = 2"), "11-20 its lines are not those that were kept", false},
		"fewer lines":       {exec("UPDATE bodies SET body = ? WHERE id = 2", frames(made(nodeA, stream1, 11, 19))), "its body ends before number 20", false},
		"more lines":        {exec("UPDATE bodies SET body = ? WHERE id = 2", frames(made(nodeA, stream1, 11, 21))), "line 11 is number 21", false},
		"another stream":    {exec("UPDATE bodies SET body = ? WHERE id = 2", frames(made(nodeA, stream2, 11, 20))), "of stream " + stream2, false},
		"another node":      {exec("UPDATE bodies SET body = ? WHERE id = 2", frames(made(nodeB, stream1, 11, 20))), "of node " + nodeB, false},
		"no JSON":           {exec("UPDATE bodies SET body = ? WHERE id = 2", wire.NewCompressor().Append(nil, []byte("x\n"))), "line 1", false},
		"no body":           {exec("DELETE FROM bodies WHERE id = 2"), "11-20 it has no body", false},
		"no row":            {exec("DELETE FROM batches WHERE id = 2"), "20 events are kept, but the books say 30", true},
		"a row of others":   {exec("UPDATE batches SET last = 22 WHERE id = 2"), "21-30 the row has numbers of the one before it", true},
		"a row without any": {exec("UPDATE batches SET last = 10 WHERE id = 2"), "the row ends before it begins", true},
		"a lost hole":       {exec("UPDATE streams SET high = 31 WHERE id = 1"), "30 events are kept, but the books say 31", true},
	} {
		s := opened(t)
		for n := range uint64(3) {
			mustPut(t, s, made(nodeA, stream1, n*10+1, n*10+10), n*10+10)
		}
		mustPut(t, s, made(nodeB, stream1, 1, 10), 10)
		c.spoil(t, s.db)
		for _, bodies := range []bool{true, false} {
			a, err := s.Audit(t.Context(), nodeA, bodies, nil)
			if err != nil {
				t.Fatal(name, err)
			}
			var found []string
			for _, d := range a.Damage {
				found = append(found, fmt.Sprintf("%d-%d %s", d.First, d.Last, d.What))
			}
			want := c.want
			if !bodies && !c.quick {
				want = ""
			}
			if (len(found) > 0) != (want != "") || !strings.Contains(strings.Join(found, "; "), want) || a.Damaged != uint64(len(found)) {
				t.Errorf("%s: %q, want %q", name, found, want)
			}
		}
		if a, err := s.Audit(t.Context(), nodeB, true, nil); err != nil || a.Damaged != 0 || a.Batches != 1 || a.Events != 10 {
			t.Errorf("%s: of the other node: %+v, %v", name, a, err)
		}
	}
}

func TestOverlapsAreFoundWithoutAScan(t *testing.T) {
	s := opened(t)
	for _, table := range []string{"holes", "declared", "batches"} {
		rows, err := s.db.Query("EXPLAIN QUERY PLAN "+overlap("first, last", table), 1, 5, 6)
		if err != nil {
			t.Fatal(err)
		}
		var plan []string
		for rows.Next() {
			var detail string
			var a, b, c int
			if err := rows.Scan(&a, &b, &c, &detail); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, detail)
		}
		rows.Close()
		if got := strings.Join(plan, "; "); strings.Contains(got, "SCAN "+table) || !strings.Contains(got, "first>? AND first<?") {
			t.Errorf("%s: %s", table, got)
		}
	}
}

func TestWithoutIsWhatIsLeft(t *testing.T) {
	for want, others := range map[string][]span{
		"[{5 9}]":             nil,
		"[]":                  {{1, 20}},
		"[{7 9}]":             {{1, 6}},
		"[{5 6}]":             {{7, 20}},
		"[{5 5} {7 7} {9 9}]": {{6, 6}, {8, 8}},
		"[{6 8}]":             {{5, 5}, {9, 9}},
	} {
		if got := fmt.Sprint(without(span{5, 9}, others)); got != want {
			t.Errorf("%v: %s, want %s", others, got, want)
		}
	}
	if got := without(span{1, wire.MaxSeq}, []span{{1, wire.MaxSeq}}); len(got) != 0 {
		t.Error(got)
	}
}
