// Package status answers on this machine, and to nobody else, how a program
// fares: /healthz for a supervisor, /metrics for Prometheus, / for a reader.
//
// It listens on 127.0.0.1 alone, and answers only requests whose Host is a
// loopback name: a web page that had its own name resolved to 127.0.0.1 (DNS
// rebinding) names another host. Only GET and HEAD are answered; nothing can be
// changed from here.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/metric"
)

const (
	maxConnections = 16
	goodbye        = 2 * time.Second // for requests that run when the server ends
)

// A Server answers on one port of the loopback interface.
type Server struct {
	port     int
	metrics  *metric.Set
	report   func() Report
	listener net.Listener
}

// New returns a Server that tells of metrics and of what report returns. report
// is called by several goroutines at a time.
func New(port int, metrics *metric.Set, report func() Report) *Server {
	return &Server{port: port, metrics: metrics, report: report}
}

// Listen takes the port (any free one for 0), so that Run has only to serve.
func (s *Server) Listen() error {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
	switch {
	case errors.Is(err, inUse):
		return fmt.Errorf("status.port: port %d of 127.0.0.1 is in use by another process: choose another port (%w)", s.port, err)
	case errors.Is(err, forbidden):
		return fmt.Errorf("status.port: port %d of 127.0.0.1 is reserved or needs more rights: choose another port (%w)", s.port, err)
	case err != nil:
		return fmt.Errorf("status.port: %w", err)
	}
	s.listener = limit(l, maxConnections)
	return nil
}

// URL returns where the Server answers, once it listens.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Run listens, if Listen was not called, and serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    8 << 10,
	}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(s.listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve status: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if server.Shutdown(last) != nil {
		_ = server.Close() // a request that is still running has had its time
	}
	<-ended //nolint:errcheck // it is http.ErrServerClosed
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", index)
	mux.HandleFunc("/healthz", s.healthz)
	mux.HandleFunc("/metrics", s.serveMetrics)
	return guard(mux)
}

// guard lets through what a reader on this machine may ask.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		switch {
		case !isLoopback(r.Host):
			http.Error(w, "status is told to this machine only: ask for 127.0.0.1 or localhost", http.StatusForbidden)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "status can only be read", http.StatusMethodNotAllowed)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isLoopback reports whether a Host header, with or without a port, names the
// loopback interface (RFC 6761, section 6.3, for localhost).
func isLoopback(host string) bool {
	if h, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil && port != "" {
			return false
		}
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, "REA\n\n/healthz  how it fares, as JSON: 200 while it works, 503 while it does not\n/metrics  figures for Prometheus\n")
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	report := s.report()
	body, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if report.Status == Failing {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n')) // an error means that nobody listens any more
}

func (s *Server) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = s.metrics.WriteTo(w) // an error means that nobody listens any more
}
