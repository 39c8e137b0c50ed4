package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/queue"
	"github.com/rea-agent/rea/internal/ship"
)

// nodeFile is in the queue's folder and says as whose events they lie there.
const nodeFile = "node"

// adopt makes the events that lie in the queues those of this node, if they were
// written under another name: a server takes from an agent only its own. They go
// out in new streams. A kill in between repeats this at the next start.
//
// What the old name had not delivered is missing in its streams for ever; nobody
// can declare it there, since the server believes the new certificate only for
// the new name. Losses that were not declared are declared without numbers.
func (a *Agent) adopt(lanes []*lane) error {
	path := filepath.Join(a.o.Config.Networking.QueueDir, nodeFile)
	was, err := durable.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("whose events lie in the queue: %w", err)
	}
	old := string(bytes.TrimSpace(was))
	if old == a.node {
		return nil
	}
	if old != "" {
		a.ledger.Disown()
		for _, l := range lanes {
			if err := a.adoptLane(l, old); err != nil {
				return fmt.Errorf("queue of %s: make the events of node %s those of %s: %w", l.name, old, a.node, err)
			}
		}
	}
	if err := a.ledger.Save(); err != nil { // else it would speak for the old node after a kill
		return err
	}
	if err := durable.WriteFile(path, []byte(a.node+"\n"), 0o600); err != nil {
		return fmt.Errorf("note whose events lie in the queue: %w", err)
	}
	return nil
}

func (a *Agent) adoptLane(l *lane, old string) error {
	var moved ship.Moved
	q := l.queue.Load()
	renewed, err := q.Renew(func(fresh *queue.Queue) (err error) {
		if moved, err = ship.Move(context.Background(), q, fresh, a.node); err != nil {
			return err
		}
		for _, loss := range q.Losses() {
			m := missing(q, loss)
			m.Stream, m.First, m.Last = "", 0, 0
			if err := a.ledger.Add(m); err != nil {
				return err
			}
		}
		q.Declared()
		return nil
	})
	if renewed != nil {
		l.switchTo(renewed)
	}
	if err != nil {
		return err
	}
	a.o.Log.Warn("this agent has another node id than before: what it had not delivered goes out under the new one, in a new stream",
		"lane", l.name, "was", old, "is", a.node, "events", moved.Events, "unreadable", moved.Torn)
	return nil
}
