package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/rea-agent/rea/internal/event"
)

// The file is two lines of JSON: a head, and what is missing. A machine reads it
// once a start, and people can.
const version = 1

type head struct {
	V   int    `json:"v"`
	CRC uint32 `json:"crc32c"` // of the second line
}

type body struct {
	Stream  string `json:"stream"` // of evidence
	Missing []loss `json:"missing"`
	Ends    []end  `json:"ends,omitempty"`
}

type end struct {
	Stream string `json:"stream"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
}

type loss struct {
	Source string    `json:"source,omitempty"`
	Cause  string    `json:"cause"`
	Stream string    `json:"stream,omitempty"`
	First  uint64    `json:"first,omitempty"`
	Last   uint64    `json:"last,omitempty"`
	Count  uint64    `json:"count"`
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"`
	// The gap event that tells of it is among these numbers; absent: none does.
	ToldFirst uint64 `json:"told_first,omitempty"`
	ToldLast  uint64 `json:"told_last,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns the bytes of the file. What is being told counts as not told.
func (l *Ledger) encode() ([]byte, error) {
	b := body{Stream: l.stream, Missing: []loss{}}
	for _, e := range l.entries {
		b.Missing = append(b.Missing, loss{
			e.Source, e.Cause, e.Stream, e.First, e.Last, e.Count, e.Since.UTC(), e.Until.UTC(), e.told.First, e.told.Last,
		})
	}
	for _, r := range l.ends {
		b.Ends = append(b.Ends, end{r.stream, r.First, r.Last})
	}
	line, err := json.Marshal(&b)
	if err != nil {
		return nil, err
	}
	return seal(line), nil
}

// seal puts the head before a line.
func seal(line []byte) []byte {
	text := fmt.Appendf(nil, `{"v":%d,"crc32c":%d}`+"\n", version, crc32.Checksum(line, castagnoli))
	return append(append(text, line...), '\n')
}

// decode reads what encode wrote.
func (l *Ledger) decode(text []byte) error {
	first, rest, ok := bytes.Cut(text, []byte{'\n'})
	line, end, whole := bytes.Cut(rest, []byte{'\n'})
	var h head
	if err := json.Unmarshal(first, &h); err != nil {
		return fmt.Errorf("its first line: %w", err)
	}
	switch {
	case !ok || !whole || len(end) > 0:
		return errors.New("it is not two lines")
	case h.V != version:
		return fmt.Errorf("its version is %d, this program reads %d", h.V, version)
	case h.CRC != crc32.Checksum(line, castagnoli):
		return errors.New("its checksum is of something else")
	}
	var b body
	if err := json.Unmarshal(line, &b); err != nil {
		return fmt.Errorf("its second line: %w", err)
	}
	var entries []*Entry
	for i, m := range b.Missing {
		e, err := m.entry()
		if err != nil {
			return fmt.Errorf("loss %d: %w", i+1, err)
		}
		entries = append(entries, e)
	}
	var ends []run
	for i, r := range b.Ends {
		if r.Stream == "" || r.First == 0 || r.Last < r.First {
			return fmt.Errorf("end %d: numbers %d to %d of stream %q", i+1, r.First, r.Last, r.Stream)
		}
		ends = append(ends, run{r.Stream, numbers{r.First, r.Last}})
	}
	l.stream, l.entries, l.ends = b.Stream, entries, ends
	if len(ends) == 0 { // of a version that did not write them
		for _, e := range entries {
			l.extend(&e.Missing)
		}
	}
	return nil
}

func (m *loss) entry() (*Entry, error) {
	numbered := m.First != 0 || m.Last != 0 || m.Stream != ""
	switch {
	case m.Cause == "" || m.Count == 0:
		return nil, errors.New("without a cause or a count")
	case numbered && (m.First == 0 || m.Last < m.First || m.Stream == ""), m.ToldLast < m.ToldFirst, m.ToldFirst == 0 && m.ToldLast != 0:
		return nil, fmt.Errorf("numbers %d to %d of stream %q, told in %d to %d", m.First, m.Last, m.Stream, m.ToldFirst, m.ToldLast)
	}
	e := &Entry{Missing: event.Missing{
		Source: m.Source, Cause: m.Cause, Stream: m.Stream, First: m.First, Last: m.Last, Count: m.Count, Since: m.Since, Until: m.Until,
	}}
	if m.ToldFirst != 0 {
		e.state, e.told = told, numbers{m.ToldFirst, m.ToldLast}
	}
	return e, nil
}
