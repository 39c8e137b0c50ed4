package eventlog

import (
	"testing"
	"time"
)

// This system's own log, as far as it has one: Wine has none.
func TestTheSystemLogCanBeRead(t *testing.T) {
	s, err := openSystem()
	if err != nil {
		t.Skipf("no event log: %v", err)
	}
	names, err := s.channels()
	if err != nil {
		t.Skipf("the channels cannot be listed: %v", err)
	}
	t.Logf("%d channels", len(names))
	const channel = "System"
	info, err := s.info(channel)
	if err != nil {
		t.Skipf("no log of %s: %v", channel, err)
	}
	t.Logf("%+v", info)
	bookmark, err := s.end(channel)
	if err != nil || (bookmark == "") != (info.count == 0) {
		t.Errorf("the newest record: %q, %v", bookmark, err)
	}
	sub, err := s.subscribe(channel, "", "")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-sub.ready():
	case <-time.After(10 * time.Second):
		t.Error("no signal, though the event is set from the start")
	}
	readSome(t, sub, channel)
	if err := sub.close(); err != nil {
		t.Error(err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

// readSome reads the first records and resumes behind them.
func readSome(t *testing.T, sub subscription, channel string) {
	var p Parser
	r := new(Record)
	n, err := sub.next(5)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		xml, err := sub.xml(i)
		if err != nil {
			t.Fatal(err)
		}
		if p.Parse(xml, r); r.broken || r.Channel != channel || len(r.errors) > 0 {
			t.Errorf("%q: %s", r.errors, xml)
		}
		if _, err := sub.message(i, r.Provider); err != nil {
			t.Logf("message: %v", err)
		}
	}
	if err := sub.mark(n - 1); err != nil {
		t.Fatal(err)
	}
	if b, err := sub.bookmark(); err != nil || recordOf(b) != r.RecordID.V {
		t.Errorf("the bookmark is %q, %v; want record %d", b, err, r.RecordID.V)
	}
}
