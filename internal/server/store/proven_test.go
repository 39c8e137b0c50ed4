package store

import (
	"errors"
	"testing"
)

func unproven(b *Batch) *Batch {
	b.Unproven = true
	return b
}

func TestNobodyDeliversForAnAgentThatHasShownACertificate(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrProven) {
			t.Errorf("%s: %v", what, err)
		}
	}
	proven := func(node string, want bool) {
		t.Helper()
		if got, err := s.Proven(t.Context(), node); err != nil || got != want {
			t.Errorf("%s: %v, %v", node, got, err)
		}
	}
	mustPut(t, s, unproven(made(nodeA, stream1, 1, 3)), 3)
	proven(nodeA, false)
	if _, _, err := s.Resume(t.Context(), &Resume{Node: nodeA, Stream: stream2, Received: start}); err != nil { // before its first event
		t.Fatal(err)
	}
	proven(nodeA, true)
	_, err = s.Put(t.Context(), unproven(made(nodeA, stream1, 4, 5)))
	refused("new events", err)
	_, err = s.Put(t.Context(), unproven(made(nodeA, stream1, 1, 3)))
	refused("a repeat", err)
	_, _, err = s.Resume(t.Context(), &Resume{Node: nodeA, Stream: stream1, Assigned: 9, Unproven: true, Received: start})
	refused("a resume", err)
	mustPut(t, s, made(nodeA, stream1, 4, 5), 5)
	mustPut(t, s, unproven(made(nodeB, stream1, 1, 2)), 2)
	for node, want := range map[string]Host{nodeA: {Events: 5, Unproven: 3}, nodeB: {Events: 2, Unproven: 2}} {
		if h := host(t, s, node); h.Events != want.Events || h.Unproven != want.Unproven {
			t.Errorf("%s: %d events, %d of them unproven", node, h.Events, h.Unproven)
		}
	}
	if a := account(t, s.Reader, stream1); a.Assigned != 5 {
		t.Errorf("what was refused is in the books: %+v", a)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	proven(nodeA, true)
	proven(nodeB, false)
}

// One that is refused shares its transaction with others, who are none the worse.
func TestWhatIsRefusedCostsNobodyElseTheirs(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustPut(t, s, made(nodeA, stream1, 1, 1), 1)
	s.writer <- struct{}{} // the disk is busy
	bad, good := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.Put(t.Context(), unproven(made(nodeA, stream1, 2, 2))); bad <- err }()
	go func() { _, err := s.Put(t.Context(), made(nodeB, stream1, 1, 2)); good <- err }()
	for waiting := 0; waiting < 2; {
		s.mu.Lock()
		waiting = len(s.waiting)
		s.mu.Unlock()
	}
	s.writeWaiting()
	if err := <-bad; !errors.Is(err, ErrProven) {
		t.Error(err)
	}
	if err := <-good; err != nil || host(t, s, nodeB).Events != 2 {
		t.Error(err)
	}
}

func TestWhoDeliveredBeforeThereWasAChoiceHadACertificate(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, made(nodeA, stream1, 1, 3), 3)
	if _, err := s.db.Exec(toVersion2); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Put(t.Context(), unproven(made(nodeA, stream1, 4, 4))); !errors.Is(err, ErrProven) {
		t.Error(err)
	}
	if h := host(t, s, nodeA); h.Events != 3 || h.Unproven != 0 {
		t.Errorf("%+v", h)
	}
}
