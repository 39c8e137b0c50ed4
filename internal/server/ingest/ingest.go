// Package ingest receives batches, POST /ingest, and how far streams have come,
// POST /resume.
//
// Who sends is read from the verified certificate, never from what is sent; where
// the operator wants it so, a client without one may name itself (Names).
// Nothing is believed of a request and nothing of it is held in memory that was
// not reserved first: its headers, size, compression and every line are checked
// (package wire), and only a whole batch that is right goes to the Store. 200
// is answered after the Store has it durably. A refusal says why, and which
// line is at fault; docs/wire.md has the table.
//
// Two things are known across requests: which processes of agents used a stream,
// so that two that live are told apart (lineages), and how many agents were told
// to come again, so that they do not all come at once (pacer).
package ingest

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/trouble"
	"github.com/rea-agent/rea/internal/wire"
)

// A Batch is what was received: lines First to Last of a stream, checked, and
// what they are about.
type Batch struct {
	Node, Stream string
	First, Last  uint64
	ID           string
	Agent        string // what the agent says it is; printable ASCII
	Received     time.Time
	Earliest     time.Time
	Latest       time.Time
	Hosts        []string
	Kinds        []string
	Lines        []byte // NDJSON
	Frames       []byte // the same as it came, if that was zstd

	Assigned   uint64     // the highest number of the stream that an event has
	Superseded bool       // a process came after this one, and now this one again
	Unproven   bool       // no certificate says that it is of Node
	Gaps       []wire.Gap // what the gap events among Lines declare, in their order
}

// A Resume is how far a stream has come.
type Resume struct {
	Node, Stream string
	Assigned     uint64 // 0 before the first event
	Superseded   bool   // as in Batch
	Unproven     bool   // likewise
	Received     time.Time
}

// A Store keeps batches. Put returns once b is durable, with the highest number
// that is kept of its stream, and keeps no line twice. Its error is ErrConflict
// where lines are kept with other content, ErrSuperseded where some are new and b
// is Superseded, ErrProven where b is Unproven and its node has shown a certificate;
// then it has kept nothing of b. Any other one means: try again later. b is
// borrowed until Put returns.
//
// Resume returns once r is noted durably, with the highest number kept and the
// highest that was told of before. It has ErrProven, too.
type Store interface {
	Put(ctx context.Context, b *Batch) (high uint64, err error)
	Resume(ctx context.Context, r *Resume) (high, assigned uint64, err error)
}

// The errors of a Store that agents are told.
var (
	ErrConflict   = errors.New("two agents use this stream, as when a machine was cloned: its numbers are kept with other content")
	ErrSuperseded = errors.New("two agents use this stream, as when a machine was cloned: the other one came later")
	ErrProven     = errors.New("this agent has shown a certificate before: nobody delivers for it without one")
)

// Names say who sends.
type Names struct {
	Certified func(*x509.Certificate) (string, error) // the agent of a verified certificate

	// Claimed returns nil where a client without a certificate may deliver as the
	// node that it names; nil itself: it may not, whatever it names. An error that
	// is ErrNotAllowed is the client's fault, any other one the server's.
	Claimed func(ctx context.Context, node string) error
	// Address names a client without a certificate by where it comes from.
	Address func(*http.Request) string
}

// ErrNotAllowed says that a client may not deliver without a certificate.
var ErrNotAllowed = errors.New("not without a certificate")

// Limits bound what clients may ask.
type Limits struct {
	Body     int // bytes of a request
	Decoded  int // and decompressed
	Ratio    int // decompressed bytes for each byte of the body, above ratioFrom
	Window   int // bytes, of zstd
	Line     int // bytes
	Depth    int // of objects and lists in a line
	Members  int // of an object
	Lines    int // in a batch
	InFlight int // requests being worked on, once their bodies are there
	Memory   int // bytes of all requests; at least Body and Decoded together

	BodyRate int           // bytes a second that a body must come with, after a grace
	BodyTime time.Duration // for the whole of it
}

// A Watch is told what happens. What is nil is not told.
type Watch struct {
	Metrics *metric.Set
	Refused func(r *http.Request, reason string)
	Took    func(r *http.Request, bytes int) // of a body, decompressed where it was
}

// perNode bounds the requests of one node at a time: it has two streams, and may
// be starting anew. perAddress bounds those without certificates of an address,
// behind which there can be a site.
const (
	perNode    = 4
	perAddress = 4 * perNode
)

// A Handler serves IngestPath and ResumePath.
type Handler struct {
	store  Store
	names  Names
	log    *slog.Logger
	limits Limits
	watch  Watch
	memory budget
	work   sync.Pool // of *work
	bodies bodies

	keeping  trouble.Trouble // of the Store
	unproven *metric.Counter
	pace     *pacer
	lines    lineages

	mu       sync.Mutex
	total    int                         // requests that have their body; guarded by mu
	flying   map[string]int              // requests by node, by node and stream, and by address; guarded by mu
	troubles map[string]*trouble.Trouble // of nodes that were refused; guarded by mu
	voices   map[string]voice            // by node; guarded by mu
}

// New returns a Handler.
func New(store Store, names Names, limits Limits, watch Watch, log *slog.Logger) *Handler {
	h := &Handler{
		store: store, names: names, log: log, limits: limits, watch: watch, memory: budget{free: limits.Memory}, pace: newPacer(rand.Float64),
		lines: lineages{list: map[string]*lineage{}}, flying: map[string]int{}, troubles: map[string]*trouble.Trouble{}, voices: map[string]voice{},
	}
	h.unproven = watch.Metrics.Counter("rea_batches_unproven_total", "Batches that were kept without a certificate that says whose they are.")
	h.work.New = func() any { return newWork(limits) }
	for _, reason := range Reasons {
		h.count(reason)
	}
	watch.Metrics.Func("rea_request_memory_bytes", "Memory that requests have reserved.", func() float64 { return float64(h.memory.used()) })
	watch.Metrics.Func("rea_request_memory_limit_bytes", "Memory that all requests together may reserve.", func() float64 { return float64(limits.Memory) })
	return h
}

// Reasons are those of refusals, as they are counted. docs/wire.md says which
// limit each is of.
var Reasons = []string{
	"method", "content_type", "encoding", "no_length", "body_bytes", "head", "lines", "certificate", "unproven",
	"stream_busy", "node_busy", "in_flight", "memory", "body_slow", "zstd", "window", "decoded_bytes", "ratio", "frames",
	"line_bytes", "depth", "members", "duplicate", "text", "number", "envelope", "json",
	"node", "numbers", "announced", "variety", "gap", "gaps", "conflict", "store", "bug",
}

func (h *Handler) count(reason string) *metric.Counter {
	return h.watch.Metrics.Counter("rea_requests_refused_total", "Requests that were refused, by reason.", "reason", reason)
}

// A refusal is an answer other than 200.
type refusal struct {
	status int
	reason string        // one of Reasons
	line   int           // at fault; 0 where none is
	retry  time.Duration // when to come again, at least; 0 where that would not help
	load   bool          // the server has too much to do, so come later than that
	high   uint64
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }

func refuse(status int, reason, format string, args ...any) *refusal {
	return &refusal{status: status, reason: reason, err: fmt.Errorf(format, args...)}
}

// busy is a refusal of something that will be possible in a while.
func busy(reason string, format string, args ...any) *refusal {
	return &refusal{status: http.StatusTooManyRequests, reason: reason, retry: time.Second, err: fmt.Errorf(format, args...)}
}

// overload is a refusal for want of room that all agents share.
func overload(reason string, retry time.Duration, format string, args ...any) *refusal {
	no := refuse(http.StatusServiceUnavailable, reason, format, args...)
	no.retry = retry
	no.load = true
	return no
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.survive(w, r)
	serve := h.receive
	if r.URL.Path == wire.ResumePath {
		serve = h.resume
	}
	from, a, err := serve(w, r)
	if err == nil {
		h.pace.done(time.Now())
		answer(w, http.StatusOK, a)
		return
	}
	var no *refusal
	if !errors.As(err, &no) {
		no = &refusal{status: http.StatusInternalServerError, reason: "bug", err: err}
	}
	h.refused(r, from, no)
	if no.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	if r.ContentLength < 0 || no.reason == "body_bytes" {
		w.Header().Set("Connection", "close") // or the HTTP server would wait for what it is not going to read
	}
	if no.load {
		no.retry = max(no.retry, h.pace.later(time.Now()))
	}
	if no.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((no.retry+time.Second-1)/time.Second)))
	}
	answer(w, no.status, wire.Answer{Last: no.high, Error: clip(no.err.Error()), Line: no.line})
}

// refused says what an agent was refused, once while it goes on.
func (h *Handler) refused(r *http.Request, from sender, no *refusal) {
	h.count(no.reason).Inc()
	if h.watch.Refused != nil {
		h.watch.Refused(r, no.reason)
	}
	stream := r.Header.Get("Rea-Stream")
	t := h.trouble(from.proven())
	if no.status == http.StatusConflict {
		t = h.lines.trouble(lane(from.node, stream), time.Now()) // which the other agent does not end
	}
	if !t.Failed(no.err.Error()) || !h.mayBeSaid(from.proven()) {
		return
	}
	_, times := t.Now()
	who := "node"
	if from.stranger {
		who = "claims_node"
	}
	h.log.Log(r.Context(), level(no.status), "request refused", "status", no.status, "reason", clip(no.err.Error()), "line", no.line, "times", times,
		who, from.node, "client", r.RemoteAddr, "batch", clip(r.Header.Get("Rea-Batch")), "stream", clip(stream))
}

// trouble returns that of a node: as many as there are certificates.
func (h *Handler) trouble(node string) *trouble.Trouble {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.troubles[node]
	if t == nil {
		t = new(trouble.Trouble)
		h.troubles[node] = t
	}
	return t
}

// mostSaid bounds what is said of one node in the time after which a trouble is
// said again: each line that it gets wrong can be wrong in another way.
const mostSaid = 30

// A voice is how much was said of a node.
type voice struct {
	began time.Time
	lines int
}

// mayBeSaid reports whether there is to be another line in the log about a node.
func (h *Handler) mayBeSaid(node string) bool {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.voices[node]
	if now.Sub(v.began) > trouble.Every {
		v = voice{began: now}
	}
	v.lines++
	h.voices[node] = v
	return v.lines <= mostSaid
}

// accepted ends the trouble of a node, if it had any. That of strangers is of all of
// them, and is not ended by one.
func (h *Handler) accepted(node string) {
	if node == "" {
		return
	}
	h.mu.Lock()
	t := h.troubles[node]
	delete(h.troubles, node)
	h.mu.Unlock()
	if t == nil {
		return
	}
	if times, lasted := t.Worked(); times > 0 && h.mayBeSaid(node) {
		h.log.Info("accepted again", "node", node, "refused", times, "after", lasted.Round(time.Millisecond).String())
	}
}

// level is low for what agents get over by themselves.
func level(status int) slog.Level {
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusRequestEntityTooLarge:
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

func answer(w http.ResponseWriter, status int, a wire.Answer) {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err) // a struct of numbers and a string
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	wire.SetDictionaries(w.Header())
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // who is gone comes again with the same batch
}

// survive turns a bug into an answer. There is nothing to undo: what a request
// holds is released by its own defers on the way here.
func (h *Handler) survive(w http.ResponseWriter, r *http.Request) {
	if p := recover(); p != nil {
		h.count("bug").Inc()
		h.log.Error("bug: request ended in panic", "panic", fmt.Sprint(p), "client", r.RemoteAddr, "stack", string(debug.Stack()))
		answer(w, http.StatusInternalServerError, wire.Answer{Error: "the server has a bug; its log tells more"})
	}
}

// receive takes one batch from its head to the Store.
func (h *Handler) receive(rw http.ResponseWriter, r *http.Request) (from sender, a wire.Answer, err error) {
	if from, err = h.who(r); err != nil {
		return from, a, err
	}
	b, instance, err := h.head(r)
	if err != nil {
		return from, a, err
	}
	b.Node, b.Unproven = from.node, from.stranger
	land, err := h.takeOff(from, b.Stream)
	if err != nil {
		return from, a, err
	}
	defer land()
	b.Superseded = h.lines.superseded(lane(from.node, b.Stream), instance, b.Received)
	reserve := h.memory.hold()
	defer reserve.release()
	body, err := h.limits.readBody(&h.bodies, rw, r, &reserve)
	if err != nil {
		return from, a, err
	}
	leave, err := h.enter()
	if err != nil {
		return from, a, err
	}
	defer leave()
	defer h.bodies.keep(body)
	w := h.work.Get().(*work)
	defer w.release(&h.work)
	w.reserve = &reserve
	err = w.read(r, body, b)
	if h.watch.Took != nil {
		h.watch.Took(r, max(len(body), w.decoded))
	}
	if err != nil {
		return from, a, err
	}
	if err := w.check(b); err != nil {
		return from, a, err
	}
	if a.Last, err = h.keep(r.Context(), b); err == nil {
		a.Stream = b.Stream
		h.accepted(from.proven())
		if b.Unproven {
			h.unproven.Inc()
		}
	}
	return from, a, err
}

// resume takes the word of one stream to the Store, and back that of the Store.
func (h *Handler) resume(_ http.ResponseWriter, r *http.Request) (from sender, a wire.Answer, err error) {
	if from, err = h.who(r); err != nil {
		return from, a, err
	}
	switch {
	case r.Method != http.MethodPost:
		return from, a, refuse(http.StatusMethodNotAllowed, "method", "want POST, not %s", clip(r.Method))
	case r.ContentLength != 0:
		return from, a, refuse(http.StatusBadRequest, "head", "want no body")
	}
	head, err := wire.ParseResume(r.Header)
	if err != nil {
		return from, a, refuse(http.StatusBadRequest, "head", "%w", err)
	}
	land, err := h.takeOff(from, head.Stream)
	if err != nil {
		return from, a, err
	}
	defer land()
	leave, err := h.enter()
	if err != nil {
		return from, a, err
	}
	defer leave()
	now := time.Now()
	superseded := h.lines.superseded(lane(from.node, head.Stream), head.Instance, now)
	a.Last, a.Assigned, err = h.store.Resume(context.WithoutCancel(r.Context()),
		&Resume{Node: from.node, Stream: head.Stream, Assigned: head.Assigned, Superseded: superseded, Unproven: from.stranger, Received: now})
	if errors.Is(err, ErrProven) {
		return from, wire.Answer{}, refuse(http.StatusForbidden, "unproven", "%w", err)
	}
	if err != nil {
		return from, wire.Answer{}, h.broken(err, from.node, "")
	}
	h.whole()
	a.Stream = head.Stream
	return from, a, nil
}

// lane names a stream among those of all nodes.
func lane(node, stream string) string { return node + "/" + stream }

// A sender is who makes a request.
type sender struct {
	node     string
	stranger bool   // shows no certificate, and may be anybody
	address  string // of a stranger
}

// proven returns the node if a certificate says so. What is remembered of nodes is
// of these: strangers could name any number of others.
func (s sender) proven() string {
	if s.stranger {
		return ""
	}
	return s.node
}

// who returns the node that the client's certificate names.
func (h *Handler) who(r *http.Request) (sender, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return h.stranger(r)
	}
	node, err := h.names.Certified(r.TLS.VerifiedChains[0][0])
	if err != nil {
		return sender{}, refuse(http.StatusForbidden, "certificate", "%w", err)
	}
	return sender{node: node}, nil
}

// stranger returns the node that a client without a certificate names, where that
// may be. It is asked before anything is done in that name, or strangers could
// take the places of an agent that has a certificate.
func (h *Handler) stranger(r *http.Request) (sender, error) {
	if h.names.Claimed == nil {
		return sender{}, refuse(http.StatusForbidden, "certificate", "a verified client certificate is needed")
	}
	from := sender{stranger: true, address: h.names.Address(r)}
	node, err := wire.ParseNode(r.Header)
	if err != nil {
		return from, refuse(http.StatusForbidden, "certificate", "a verified client certificate is needed, or the name of a node: %w", err)
	}
	from.node = node
	switch err := h.names.Claimed(r.Context(), node); {
	case errors.Is(err, ErrNotAllowed):
		return from, refuse(http.StatusForbidden, "unproven", "%w", err)
	case err != nil:
		return from, h.broken(err, node, "")
	}
	return from, nil
}

// head checks what can be checked before the body is read.
func (h *Handler) head(r *http.Request) (b *Batch, instance string, err error) {
	encoding := r.Header["Content-Encoding"]
	switch {
	case r.Method != http.MethodPost:
		return nil, "", refuse(http.StatusMethodNotAllowed, "method", "want POST, not %s", clip(r.Method))
	case r.Header.Get("Content-Type") != wire.ContentType:
		return nil, "", refuse(http.StatusUnsupportedMediaType, "content_type", "want content type %s", wire.ContentType)
	case len(encoding) > 1 || len(encoding) == 1 && encoding[0] != wire.Zstd:
		return nil, "", refuse(http.StatusUnsupportedMediaType, "encoding", "want content encoding %s, or none", wire.Zstd)
	case r.ContentLength < 0:
		return nil, "", refuse(http.StatusLengthRequired, "no_length", "want a content length")
	case r.ContentLength > int64(h.limits.Body):
		return nil, "", refuse(http.StatusRequestEntityTooLarge, "body_bytes", "body has %d bytes, the limit is %d", r.ContentLength, h.limits.Body)
	}
	head, err := wire.ParseBatch(r.Header)
	switch {
	case err != nil:
		return nil, "", refuse(http.StatusBadRequest, "head", "%w", err)
	case head.Schema != wire.Schema:
		return nil, "", refuse(http.StatusBadRequest, "head", "schema %d is not known here, want %d", head.Schema, wire.Schema)
	case head.Last-head.First >= uint64(h.limits.Lines):
		return nil, "", refuse(http.StatusRequestEntityTooLarge, "lines", "batch has %d lines, the limit is %d", head.Last-head.First+1, h.limits.Lines)
	}
	b = &Batch{
		Stream: head.Stream, First: head.First, Last: head.Last, ID: head.ID,
		Agent: clip(r.UserAgent()), Received: time.Now(),
		Assigned: head.Assigned,
	}
	return b, head.Instance, nil
}

// takeOff counts a request of an agent in, and returns how to count it out.
func (h *Handler) takeOff(from sender, stream string) (land func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	way, there := lane(from.node, stream), "from "+from.address
	switch {
	case h.flying[way] > 0:
		return nil, busy("stream_busy", "another request of this stream is on its way: one at a time")
	case h.flying[from.node] >= perNode:
		return nil, busy("node_busy", "%d requests of this agent are on their way", perNode)
	case from.stranger && h.flying[there] >= perAddress:
		return nil, busy("node_busy", "%d requests without a certificate are on their way from this address", perAddress)
	case h.total >= h.limits.InFlight:
		return nil, h.fullLocked() // before its body is read in vain
	}
	ways := []string{from.node, way}
	if from.stranger {
		ways = append(ways, there)
	}
	h.flyLocked(ways, 1)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.flyLocked(ways, -1)
	}, nil
}

func (h *Handler) flyLocked(ways []string, n int) {
	for _, k := range ways {
		if h.flying[k] += n; h.flying[k] == 0 {
			delete(h.flying, k)
		}
	}
}

// enter counts a request in whose body has come, and returns how to count it
// out. A body that does not come holds up nobody but its own stream.
func (h *Handler) enter() (leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.total >= h.limits.InFlight {
		return nil, h.fullLocked()
	}
	h.total++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.total--
	}, nil
}

func (h *Handler) fullLocked() error {
	return overload("in_flight", 0, "%d requests are on their way", h.total)
}

// keep hands b to the Store. A client that goes away does not stop that: it
// comes again, and then finds its batch kept.
func (h *Handler) keep(ctx context.Context, b *Batch) (uint64, error) {
	high, err := h.store.Put(context.WithoutCancel(ctx), b)
	switch {
	case errors.Is(err, ErrConflict) || errors.Is(err, ErrSuperseded):
		h.whole()
		return 0, &refusal{status: http.StatusConflict, reason: "conflict", high: high, err: err}
	case errors.Is(err, ErrProven):
		h.whole()
		return 0, refuse(http.StatusForbidden, "unproven", "%w", err)
	case err != nil:
		return 0, h.broken(err, b.Node, b.ID)
	}
	h.whole()
	h.log.Debug("batch kept", "node", b.Node, "batch", b.ID, "stream", b.Stream, "first", b.First, "last", b.Last, "bytes", len(b.Lines))
	return high, nil
}

// broken refuses since the Store failed. Why is for the log of the server, not
// for agents.
func (h *Handler) broken(err error, node, batch string) *refusal {
	if h.keeping.Failed(err.Error()) {
		h.log.Error("batches cannot be kept; agents keep them and come again", "error", err, "node", node, "batch", batch)
	}
	return overload("store", 10*time.Second, "the server cannot keep batches now")
}

// whole notes that the Store works.
func (h *Handler) whole() {
	if times, lasted := h.keeping.Worked(); times > 0 {
		h.log.Info("batches are kept again", "failures", times, "after", lasted.Round(time.Millisecond).String())
	}
}

// clip makes foreign text fit for logs and answers: short printable ASCII.
func clip(s string) string {
	const most = 300
	b := []byte(s[:min(len(s), most)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
