package server

import (
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/rea-agent/rea/internal/trouble"
)

// complaints writes to the log what net/http reports as lines of text, each
// reason once while it goes on.
type complaints struct {
	log *slog.Logger

	mu    sync.Mutex
	seen  map[string]*trouble.Trouble // by reason; guarded by mu
	began time.Time                   // of the time for which lines are counted
	lines int
}

// mostLines is how much is said in trouble.Every: a reason may quote the client,
// who can make it a new one each time.
const mostLines = 30

// maxReasons bounds what is remembered: some reasons quote the client.
const maxReasons = 100

// errorLog takes what net/http says by itself: handshakes that failed, mostly.
func errorLog(l *slog.Logger) *log.Logger {
	return log.New(newComplaints(l), "", 0)
}

func newComplaints(l *slog.Logger) *complaints {
	return &complaints{log: l, seen: map[string]*trouble.Trouble{}}
}

func (c *complaints) Write(p []byte) (int, error) {
	text := shown(strings.TrimSpace(string(p)))
	rest, isTLS := strings.CutPrefix(text, "http: TLS handshake error from ")
	client, reason, ok := strings.Cut(rest, ": ")
	switch {
	case !isTLS || !ok:
		if c.said(text) {
			c.log.Warn("http server", "message", text)
		}
	case reason == "EOF" || strings.HasSuffix(reason, "connection reset by peer"):
		c.log.Debug("client hung up in the TLS handshake", "client", client) // looked whether the port is open
	case c.said(reason):
		c.log.Warn("client refused in the TLS handshake", "client", client, "reason", reason)
	}
	return len(p), nil
}

// shown makes harmless to look at what may quote a client: its certificate, say.
func shown(s string) string {
	const most = 1000
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s[:min(len(s), most)])
}

// said reports whether the reason is to be said.
func (c *complaints) said(reason string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.seen[reason]
	if t == nil {
		if len(c.seen) >= maxReasons {
			clear(c.seen)
		}
		t = new(trouble.Trouble)
		c.seen[reason] = t
	}
	if !t.Failed(reason) {
		return false
	}
	if now := time.Now(); now.Sub(c.began) > trouble.Every {
		c.began, c.lines = now, 0
	}
	c.lines++
	if c.lines == mostLines+1 {
		c.log.Warn("clients are refused for more reasons than are said here for some minutes")
	}
	return c.lines <= mostLines
}
