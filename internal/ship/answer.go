package ship

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/rea-agent/rea/internal/wire"
)

const answerBytes = 64 << 10 // more than an Answer has

// post sends b and returns nil only if the server says that it keeps all of it.
func (s *Sender) post(ctx context.Context, b batch) *failure {
	lease := &lease{records: b.records}
	defer lease.release()
	req, err := s.request(ctx, wire.IngestPath, lease.body())
	if err != nil {
		return &failure{reason: "server", err: err}
	}
	req.ContentLength = int64(b.bytes)
	req.GetBody = func() (io.ReadCloser, error) { return lease.body(), nil }
	b.SetHeader(req.Header)
	if b.zstd {
		req.Header.Set("Content-Encoding", wire.Zstd)
	}
	a, f := s.ask(req, b.Stream)
	if f == nil && a.Last < b.Last {
		return &failure{reason: "answer", err: fmt.Errorf("the server keeps numbers up to %d of a batch up to %d", a.Last, b.Last)}
	}
	return f
}

func (s *Sender) request(ctx context.Context, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.o.Endpoint+path, body)
	if err != nil {
		return nil, err
	}
	req.Header["Idempotency-Key"] = nil // a repeat is dropped, so a connection that went stale may be retried
	req.Header.Set("User-Agent", s.o.UserAgent)
	if s.o.Node != "" {
		wire.SetNode(req.Header, s.o.Node)
	}
	return req, nil
}

// ask makes a request for a stream and returns what the server answered with 200.
func (s *Sender) ask(req *http.Request, stream string) (wire.Answer, *failure) {
	resp, err := s.o.Client.Do(req)
	if err != nil {
		return wire.Answer{}, unreachable(err, s.o.Explain)
	}
	defer resp.Body.Close()
	if resp.StatusCode < http.StatusInternalServerError { // else it may be a proxy that answers
		s.dictionaries = wire.ParseDictionaries(resp.Header)
	}
	a, f := judge(resp)
	if f == nil && a.Stream != "" && a.Stream != stream {
		f = &failure{reason: "answer", err: fmt.Errorf("the answer is for the stream %.40q", a.Stream)}
	}
	return a, f
}

// A failure is a try that did not deliver.
type failure struct {
	reason string // the label in rea_batch_errors_total
	err    error
	status int           // of the answer; 0 if there was none
	after  time.Duration // what the server asked for
	slow   bool          // trying soon again cannot help
	quick  bool          // the next try is a smaller one, of which more may be hoped
}

// The reasons of failures, for metrics that exist before the first one.
var reasons = [...]string{"unreachable", "timeout", "tls", "busy", "server", "denied", "conflict", "too_large", "rejected", "answer", "queue"}

func unreachable(err error, explain func(error) string) *failure {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // the log names the endpoint anyway
	}
	if text := explain(err); text != "" {
		return &failure{reason: "tls", err: errors.New(text)}
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op != "dial" {
		err = op.Err // without our port, which is another one every time
	}
	f := &failure{reason: "unreachable", err: err}
	if t := net.Error(nil); errors.As(err, &t) && t.Timeout() {
		f.reason = "timeout"
	}
	return f
}

// judge reads the server's answer.
func judge(resp *http.Response) (a wire.Answer, f *failure) {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if resp.StatusCode == http.StatusOK {
		if err != nil {
			f = &failure{reason: "answer", err: fmt.Errorf("the answer 200 is not of a REA server: %w", err)}
		}
		return a, f
	}
	f = &failure{reason: "server", status: resp.StatusCode, err: fmt.Errorf("the server answered %s: %s", resp.Status, a.Error), after: retryAfter(resp.Header)}
	if a.Line > 0 {
		f.err = fmt.Errorf("the server answered %s: line %d: %s", resp.Status, a.Line, a.Error)
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		f.reason, f.slow = "denied", true
	case http.StatusConflict:
		f.reason = "conflict"
	case http.StatusRequestTimeout:
		f.reason = "timeout"
	case http.StatusRequestEntityTooLarge:
		f.reason = "too_large"
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		f.reason = "busy"
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		f.reason = "rejected"
	}
	return a, f
}

// maxRetryAfter bounds what a server may ask for.
const maxRetryAfter = 10 * time.Minute

// retryAfter reads Retry-After (RFC 9110, section 10.2.3), in seconds or as a date.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(0, time.Until(t)), maxRetryAfter)
	}
	return 0
}
