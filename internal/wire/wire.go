// Package wire is what the agent and the server must agree on: the headers of a
// batch, the answer to it, the compression of its body and the rules for its
// lines. docs/wire.md draws it.
//
// A batch is a run of numbered lines of one stream. Its headers (Batch) say
// which; its body is NDJSON, plain or as concatenated zstd frames. The server
// answers every request with an Answer, and with status 200 only when the batch
// is durable.
//
// The Compressor is the agent's and small; the Decompressor and the Scanner
// read bytes of strangers, and nothing in them grows with what the stranger
// claims.
package wire

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// Where agents post: batches, and what they know and ask of a stream (Resume).
const (
	IngestPath = "/ingest"
	ResumePath = "/resume"
)

// The media type of a batch, and its content coding unless it is plain.
const (
	ContentType = "application/x-ndjson"
	Zstd        = "zstd"
)

// Schema is the schema version of lines that this protocol carries.
const Schema = 1

// MaxSeq is the greatest number that a line can have: stores count in 64 bits
// with a sign.
const MaxSeq = math.MaxInt64

// What an agent's line and record can be. A batch has at least one record, which
// cannot be split on its way, so every server must take as much.
const (
	MaxLine     = 1 << 20   // bytes, the newline included
	RecordBytes = 256 << 10 // of lines, where it is not a single longer one
	RecordLines = 10_000    // more than fit into RecordBytes
)

// BatchBytes is the most that an agent puts into one request, decoded, where one
// record is not larger. A server may take less, and then gets smaller batches.
const BatchBytes = 2 << 20

// The headers of a batch, in canonical form.
const (
	headerStream   = "Rea-Stream"
	headerFirst    = "Rea-First"
	headerLast     = "Rea-Last"
	headerBatch    = "Rea-Batch"
	headerSchema   = "Rea-Schema"
	headerAssigned = "Rea-Assigned"
	headerInstance = "Rea-Instance"
	headerNode     = "Rea-Node" // of an agent without a certificate

	headerDictionaries = "Rea-Dictionaries" // of an answer
)

// A Batch says which lines a request carries: numbers First to Last of Stream,
// without holes.
type Batch struct {
	Stream      string // 32 hexadecimal digits in lower case
	First, Last uint64 // 1 and up, First ≤ Last
	ID          string // names this batch in the logs of both sides: 1 to 64 of A-Z a-z 0-9 - _ .
	Schema      int    // the "v" of every line
	Assigned    uint64 // the highest number of Stream that an event has; Last or more
	Instance    string // of the agent's process, 32 hexadecimal digits; "" from a tool
}

// A Resume tells the server how far a stream has come, and asks how much of it
// the server keeps. It is a request with headers alone.
type Resume struct {
	Stream   string // as in Batch, and so the others
	Assigned uint64 // 0 before the first event
	Instance string
}

// SetHeader writes the batch and the content type of its body to h.
func (b Batch) SetHeader(h http.Header) {
	h.Set("Content-Type", ContentType)
	h.Set(headerStream, b.Stream)
	h.Set(headerFirst, strconv.FormatUint(b.First, 10))
	h.Set(headerLast, strconv.FormatUint(b.Last, 10))
	h.Set(headerBatch, b.ID)
	h.Set(headerSchema, strconv.Itoa(b.Schema))
	h.Set(headerAssigned, strconv.FormatUint(b.Assigned, 10))
	if b.Instance != "" {
		h.Set(headerInstance, b.Instance)
	}
}

// SetHeader writes the question to h.
func (r Resume) SetHeader(h http.Header) {
	h.Set(headerStream, r.Stream)
	h.Set(headerAssigned, strconv.FormatUint(r.Assigned, 10))
	h.Set(headerInstance, r.Instance)
}

// ParseBatch reads what SetHeader wrote, and nothing looser: each header stands
// there once, numbers are plain digits.
func ParseBatch(h http.Header) (Batch, error) {
	var p parser
	b := Batch{
		Stream: p.text(h, headerStream, IsStream, wantID),
		First:  p.number(h, headerFirst),
		Last:   p.number(h, headerLast),
		ID:     p.text(h, headerBatch, isBatchID, "1 to 64 letters, digits, hyphens, underscores or dots"),
		Schema: int(p.number(h, headerSchema)),

		Assigned: p.number(h, headerAssigned),
	}
	if len(h[headerInstance]) > 0 {
		b.Instance = p.text(h, headerInstance, IsStream, wantID)
	}
	switch {
	case p.err != nil:
	case b.Last < b.First:
		p.err = fmt.Errorf("header %s: %d is below %s, %d", headerLast, b.Last, headerFirst, b.First)
	case b.Assigned < b.Last:
		p.err = fmt.Errorf("header %s: %d is below %s, %d", headerAssigned, b.Assigned, headerLast, b.Last)
	}
	if p.err != nil {
		return Batch{}, p.err
	}
	return b, nil
}

// ParseResume reads what SetHeader wrote, as strictly as ParseBatch.
func ParseResume(h http.Header) (Resume, error) {
	var p parser
	r := Resume{
		Stream:   p.text(h, headerStream, IsStream[string], wantID),
		Instance: p.text(h, headerInstance, IsStream[string], wantID),
	}
	if v := h[headerAssigned]; len(v) != 1 || v[0] != "0" {
		r.Assigned = p.number(h, headerAssigned)
	}
	if p.err != nil {
		return Resume{}, p.err
	}
	return r, nil
}

// SetNode names the agent that sends, for one that shows no certificate. A server
// believes it only where its operator said so.
func SetNode(h http.Header, node string) { h.Set(headerNode, node) }

// ParseNode reads what SetNode wrote, as strictly as ParseBatch.
func ParseNode(h http.Header) (string, error) {
	var p parser
	return p.text(h, headerNode, isNode, "1 to 128 letters, digits, hyphens, underscores, dots or colons, a letter or digit first"), p.err
}

func isNode(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	return s != "" && len(s) <= 128 && strings.Trim(s[:1], letters) == "" && strings.Trim(s, letters+"._:-") == ""
}

const wantID = "32 hexadecimal digits in lower case"

// parser keeps the first error.
type parser struct{ err error }

func (p *parser) text(h http.Header, name string, ok func(string) bool, want string) string {
	v := h[name]
	switch {
	case p.err != nil:
	case len(v) == 0:
		p.err = fmt.Errorf("header %s is missing", name)
	case len(v) > 1:
		p.err = fmt.Errorf("header %s is there %d times", name, len(v))
	case !ok(v[0]):
		p.err = fmt.Errorf("header %s: want %s", name, want)
	default:
		return v[0]
	}
	return ""
}

func (p *parser) number(h http.Header, name string) uint64 {
	s := p.text(h, name, isNumber, "a whole number from 1 to 9223372036854775807")
	if p.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		p.err = fmt.Errorf("header %s: %w", name, err)
	}
	return n
}

func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != "" && s[0] != '0' && (len(s) < 19 || len(s) == 19 && s <= "9223372036854775807")
}

// IsStream reports whether s has the form of a stream's id.
func IsStream[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 32
}

func isBatchID(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
	return s != "" && len(s) <= 64 && strings.Trim(s, letters) == ""
}

// An Answer is the body of every response, as JSON.
type Answer struct {
	// Last is the highest number of the stream that is kept durably; 0 where
	// the server does not know (it refused the request before it looked).
	Last uint64 `json:"last"`
	// Assigned, in the answer to a Resume, is the highest number of the stream
	// that the server had been told of before this request; what lies between it
	// and Last never came, or not yet.
	Assigned uint64 `json:"assigned,omitempty"`
	// Stream, with status 200, is the stream of the request that this answers, so
	// that answers which got out of step on a connection are not believed. Other
	// receivers may leave it out.
	Stream string `json:"stream,omitempty"`
	// Error says why the batch was not kept; empty with status 200.
	Error string `json:"error,omitempty"`
	// Line is the line at fault, counted from 1; 0 where no single line is.
	Line int `json:"line,omitempty"`
}
