package rig

import (
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Patience is how long a bench waits for what must come. It is long: other work
// may have the machine, and only what never comes takes all of it.
const Patience = 3 * time.Minute

// Until waits for something to become true.
func (f Folder) Until(what string, ok func() bool) {
	f.T.Helper()
	f.UntilQuiet(what, func() string {
		if ok() {
			return ""
		}
		return "it is not so"
	})
}

// UntilQuiet waits until there is nothing to complain of.
func (f Folder) UntilQuiet(what string, complaint func() string) {
	f.T.Helper()
	for end := time.Now().Add(Patience); ; {
		began := time.Now()
		text := complaint()
		if text == "" {
			return
		}
		if time.Now().After(end) {
			f.T.Fatalf("waited %v until %s: %s", Patience, what, text)
		}
		// To look may be work; most of the machine is for those that are looked at.
		time.Sleep(max(20*time.Millisecond, time.Since(began)))
	}
}

// given are the addresses that FreeAddress has returned.
var given sync.Map

// FreeAddress returns an address on which nobody listens, outside the range from
// which the system gives ports to connections, and not twice: while a server is
// down nobody else gets its port.
func FreeAddress(t *testing.T) string {
	t.Helper()
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(20_000)))
		if _, taken := given.LoadOrStore(address, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// Answers reports whether somebody listens at an address.
func Answers(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// Page reads a page of a status listener, and returns "" where there is none.
func Page(address, path string) string {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + address + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(text)
}
