package queue

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/rea-agent/rea/internal/durable"
)

const cursorName = "cursor"

// A cursor is the file that remembers the mark. It has two slots; the one that
// is known to be on the disk is never written, so a torn write costs the newer
// mark alone. It is guarded by Queue.reading.
type cursor struct {
	dir        folder
	file       file // nil until the first write
	exists     bool
	generation uint64 // of the newest slot
	slot       int64  // that holds it
	durable    bool   // the newest slot is on the disk
	begun      bool   // the file is whole: a mark was durable in it
	torn       bool   // the other slot is damaged, and the disk may bring back what stood in it
}

// load reads the newest mark. There is none, without an error, if the file is
// missing or both slots are damaged.
func (c *cursor) load() (m mark, found bool, err error) {
	f, err := openAgain(c.dir, cursorName)
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, false, nil
	}
	c.exists = true
	if err != nil {
		return mark{}, false, fmt.Errorf("open cursor: %w", err)
	}
	var b [slotSize]byte
	valid := 0
	for slot := range int64(2) {
		err := readAgain(f, b[:], slot*slotGap)
		if durable.IsOfTheMoment(err) {
			return mark{}, false, errors.Join(fmt.Errorf("read cursor: %w", err), f.Close())
		}
		if err != nil {
			continue // a slot that was never written, or is lost
		}
		got, generation, ok := decodeMark(b[:])
		if ok {
			valid++
		}
		if ok && (!found || generation > c.generation) {
			m, found = got, true
			c.generation, c.slot = generation, slot
		}
	}
	// Of two that hold the newer may be in the cache alone, and the older is
	// durable; where one was torn, the other one is. The very first may be in the
	// cache alone, too.
	size, err := f.Size()
	c.begun, c.durable = found && size >= cursorSize, valid == 1 && c.generation > 1
	c.torn = valid == 1
	return m, found, errors.Join(err, f.Close())
}

// write puts m into the file. It outlives the process; only sync makes it
// outlive the machine.
func (c *cursor) write(m mark) error {
	if err := c.open(); err != nil {
		return err
	}
	if c.begun && c.generation == 1 { // there is no other slot to fall back on
		if err := c.sync(); err != nil {
			return err
		}
	}
	slot, generation := c.slot, c.generation+1
	if c.durable {
		slot = 1 - slot
	}
	if !c.begun { // load must not take it for one that had another before it
		slot, generation = 0, 1
	}
	b := m.append(make([]byte, 0, slotSize), generation)
	if !c.begun { // all of the file, so that a full disk does not stop the second slot
		b = append(b, make([]byte, cursorSize-slotSize)...)
	}
	if _, err := c.file.WriteAt(b, slot*slotGap); err != nil {
		return c.fail("write", err)
	}
	c.generation, c.slot, c.durable = generation, slot, false
	return nil
}

// sync makes the newest mark durable.
func (c *cursor) sync() error {
	if c.durable {
		return nil
	}
	if err := c.open(); err != nil {
		return err
	}
	if err := c.file.Sync(); err != nil {
		return c.fail("sync", err)
	}
	c.durable, c.begun = true, c.generation > 0
	return nil
}

// settle makes m durable in both slots: then the damage of either cannot bring
// back what is deleted next.
func (c *cursor) settle(m mark) error {
	for range 2 {
		if err := c.write(m); err != nil {
			return err
		}
		if err := c.sync(); err != nil {
			return err
		}
	}
	return nil
}

// open opens the file for writing, and makes it.
func (c *cursor) open() (err error) {
	if c.file != nil {
		return nil
	}
	if c.exists {
		c.file, err = c.dir.Open(cursorName, true)
	} else {
		c.file, err = c.dir.Create(cursorName)
	}
	if err != nil {
		return fmt.Errorf("open cursor: %w", err)
	}
	c.exists = true
	return nil
}

// fail gives the descriptor up: what it failed to write may be gone from the
// cache too. The slot that was durable before still is.
func (c *cursor) fail(what string, err error) error {
	err = errors.Join(fmt.Errorf("%s cursor: %w", what, err), c.file.Close())
	c.file = nil
	return err
}

func (c *cursor) close() error {
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	c.file = nil
	return err
}
