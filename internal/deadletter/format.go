package deadletter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	version    = 1
	maxLine    = 1 << 20 // what a line of an agent can be
	maxReason  = 4 << 10 // a server may answer anything
	maxHead    = 64 << 10
	maxFile    = maxHead + maxLine + 2
	maxSeq     = 1<<63 - 1
	maxLane    = 32
	streamSize = 32
)

// A head is the first line of a file.
type head struct {
	V      int       `json:"v"`
	Time   time.Time `json:"time"`
	Lane   string    `json:"lane"`
	Stream string    `json:"stream"`
	Seq    uint64    `json:"seq"`
	Status int       `json:"status"`
	Reason string    `json:"reason"`
	CRC    uint32    `json:"crc32c"` // of the line
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns the bytes of the file of l.
func encode(l *Letter) ([]byte, error) {
	line := bytes.TrimSuffix(l.Line, []byte("\n"))
	if err := l.check(); err != nil {
		return nil, err
	}
	h := head{version, l.Time.UTC(), l.Lane, l.Stream, l.Seq, l.Status, clip(l.Reason), crc32.Checksum(line, castagnoli)}
	b, err := json.Marshal(&h)
	if err != nil {
		return nil, err
	}
	b = append(b, '\n')
	b = append(b, line...)
	return append(b, '\n'), nil
}

// decode reads what encode wrote.
func decode(b []byte) (Letter, error) {
	first, line, ok := bytes.Cut(b, []byte("\n"))
	if !ok || len(line) == 0 || line[len(line)-1] != '\n' {
		return Letter{}, errors.New("the letter is cut off")
	}
	line = line[:len(line)-1]
	if len(first) > maxHead {
		return Letter{}, errors.New("the head is too long")
	}
	var h head
	if err := json.Unmarshal(first, &h); err != nil {
		return Letter{}, fmt.Errorf("the head is damaged: %w", err)
	}
	if h.V != version {
		return Letter{}, fmt.Errorf("the letter is of version %d, this program knows version %d", h.V, version)
	}
	l := Letter{Time: h.Time, Lane: h.Lane, Stream: h.Stream, Seq: h.Seq, Status: h.Status, Reason: h.Reason, Line: line}
	if err := l.check(); err != nil {
		return Letter{}, fmt.Errorf("the head is damaged: %w", err)
	}
	if crc32.Checksum(line, castagnoli) != h.CRC {
		return Letter{}, errors.New("the line is damaged")
	}
	return l, nil
}

// check says what is wrong with a letter that is to be written, or was read.
func (l *Letter) check() error {
	line := bytes.TrimSuffix(l.Line, []byte("\n"))
	switch {
	case bytes.IndexByte(line, '\n') >= 0:
		return errors.New("it has more than one line")
	case len(line) > maxLine:
		return fmt.Errorf("a line of %d bytes is longer than %d", len(line), maxLine)
	}
	return l.checkPlace()
}

// checkPlace sees that lane, stream and number make the name of a file, and of
// one in this folder.
func (l *Letter) checkPlace() error {
	const lower, digits = "abcdefghijklmnopqrstuvwxyz", "0123456789"
	switch {
	case l.Lane == "" || len(l.Lane) > maxLane || strings.Trim(l.Lane, lower+digits+"-") != "":
		return fmt.Errorf("%q is no lane", l.Lane)
	case len(l.Stream) != streamSize || strings.Trim(l.Stream, digits+"abcdef") != "":
		return fmt.Errorf("%q is no stream", l.Stream)
	case l.Seq < 1 || l.Seq > maxSeq:
		return fmt.Errorf("%d is no number of an event", l.Seq)
	}
	return nil
}

// clip cuts a reason, and makes it valid UTF-8, so that JSON keeps it as it is.
func clip(s string) string {
	if len(s) > maxReason {
		n := maxReason
		for n > maxReason-utf8.UTFMax && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
