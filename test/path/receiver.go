package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/wire"
)

// startReceiver starts a receiver in a process of its own, which ends with its
// standard input.
func startReceiver(dir string) (endpoint string, end func(), err error) {
	cmd := exec.Command(os.Args[0], "-role", "receive", "-dir", dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	end = func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		end()
		return "", nil, fmt.Errorf("address of the receiver: %w", err)
	}
	return "https://" + strings.TrimSpace(address), end, nil
}

// receive answers agents as a server does, and keeps nothing.
func receive(dir string) error {
	conf, err := identity.ServerTLS(identity.Server{
		CertFile:     filepath.Join(dir, identity.ServerFile),
		KeyFile:      filepath.Join(dir, identity.ServerKey),
		ClientCAFile: filepath.Join(dir, identity.CAFile),
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	r := &receiver{streams: map[string]wire.Answer{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.IngestPath, r.ingest)
	mux.HandleFunc("POST "+wire.ResumePath, r.resume)
	server := &http.Server{Handler: mux, TLSConfig: conf, ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	_ = server.ServeTLS(l, "", "")
	return nil
}

// A receiver remembers how far each stream has come.
type receiver struct {
	mu      sync.Mutex
	streams map[string]wire.Answer
}

func (r *receiver) ingest(w http.ResponseWriter, req *http.Request) {
	b, err := wire.ParseBatch(req.Header)
	if err == nil {
		_, err = io.Copy(io.Discard, req.Body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.streams[b.Stream] = wire.Answer{Last: b.Last, Assigned: b.Assigned}
	r.mu.Unlock()
	answer(w, wire.Answer{Last: b.Last})
}

func (r *receiver) resume(w http.ResponseWriter, req *http.Request) {
	q, err := wire.ParseResume(req.Header)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	a := r.streams[q.Stream]
	r.mu.Unlock()
	answer(w, a)
}

func answer(w http.ResponseWriter, a wire.Answer) {
	wire.SetDictionaries(w.Header())
	_ = json.NewEncoder(w).Encode(a)
}
