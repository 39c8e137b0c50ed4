package eventlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"

	"github.com/rea-agent/rea/internal/durable"
)

// A position is up to where a channel was handed over.
type position struct {
	Bookmark string `json:"bookmark"`       // as Windows renders it; "" before the oldest record
	Next     uint64 `json:"next,omitempty"` // the id of the record that is to follow; 0 where not known
	Lost     bool   `json:"lost,omitempty"` // there was another, and nobody was told that it is gone
}

// cursors are the positions of all channels, and the file that they are kept in.
// It is replaced as a whole, so a crash leaves the old or the new.
type cursors struct {
	path  string // "": they last as long as the process
	write func(name string, data []byte, perm fs.FileMode) error

	changed chan struct{} // has a value when there is something to save

	saving sync.Mutex // held while the file is written, so that no older state comes last

	mu      sync.Mutex
	all     map[string]position // by the channel's name in lower case
	dirty   bool
	damaged bool // the file was, so channels that are not in all have lost their positions
}

// cursorFile is the JSON of the file.
type cursorFile struct {
	Version  int                 `json:"version"`
	Lost     bool                `json:"lost,omitempty"` // so are the positions of all other channels
	Channels map[string]position `json:"channels"`
}

// openCursors reads the file at path, which need not be there. If it is damaged
// every position is lost, and err says why. If it cannot be read for a reason that
// may pass there are no cursors: they would replace it.
func openCursors(path string) (*cursors, error) {
	c := &cursors{path: path, write: durable.WriteFile, changed: make(chan struct{}, 1), all: map[string]position{}}
	if path == "" {
		return c, nil
	}
	err := durable.Load(path, c.decode)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	err = fmt.Errorf("read the positions in the event log: %w", err)
	if !errors.Is(err, durable.ErrDamaged) {
		return nil, err
	}
	c.damaged = true
	c.changedLocked() // nobody else has c
	return c, err
}

func (c *cursors) decode(text []byte) error {
	var f cursorFile
	if err := json.Unmarshal(text, &f); err != nil {
		return err
	}
	if f.Version != 1 {
		return fmt.Errorf("version %d is not known", f.Version)
	}
	if f.Channels != nil {
		c.all = f.Channels
	}
	c.damaged = f.Lost
	return nil
}

// get returns the position of a channel; known is false if it never had one.
func (c *cursors) get(channel string) (p position, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := strings.ToLower(channel)
	if p, known = c.all[key]; !known && c.damaged {
		p, known = position{Lost: true}, true
		c.all[key] = p
		c.changedLocked()
	}
	return p, known
}

// complete says that all channels were asked for that there were when the file was
// damaged: those that come later never had a position.
func (c *cursors) complete() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.damaged {
		c.damaged = false
		c.changedLocked()
	}
}

// advance takes in what is known to have been handed over since the positions were
// written down. The bookmarks stay where they are: what follows on them is read,
// and left out up to there.
func (c *cursors) advance(h Handed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for channel, next := range h {
		if p, known := c.all[channel]; (known || c.damaged) && next > p.Next {
			p.Next, p.Lost = next, false
			c.all[channel] = p
			c.changedLocked()
		}
	}
}

// set notes a position, which is in the file after the next save.
func (c *cursors) set(channel string, p position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[strings.ToLower(channel)] = p
	c.changedLocked()
}

func (c *cursors) changedLocked() {
	c.dirty = true
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// save writes the file if it does not say all that is known. Positions that are
// set while it is written wait for the next time.
func (c *cursors) save() error {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	if !c.dirty || c.path == "" {
		c.mu.Unlock()
		return nil
	}
	f := cursorFile{Version: 1, Lost: c.damaged, Channels: maps.Clone(c.all)}
	c.dirty = false
	c.mu.Unlock()
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false) // bookmarks are XML, and people may want to read them
	e.SetIndent("", "  ")
	err := e.Encode(f)
	if err == nil {
		err = c.write(c.path, text.Bytes(), 0o600)
	}
	if err != nil {
		c.mu.Lock()
		c.changedLocked()
		c.mu.Unlock()
		return fmt.Errorf("save the positions in the event log: %w", err)
	}
	return nil
}

// recordOf returns the record id that a bookmark names, 0 if it names none:
//
//	<BookmarkList><Bookmark Channel='Security' RecordId='4711' IsCurrent='true'/></BookmarkList>
func recordOf(bookmark string) uint64 {
	_, rest, ok := strings.Cut(bookmark, "RecordId=")
	if !ok || rest == "" {
		return 0
	}
	id, _, _ := strings.Cut(rest[1:], rest[:1])
	n, err := number(id)
	if err != nil {
		return 0
	}
	return n
}
