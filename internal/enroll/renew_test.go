package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/status"
	"github.com/rea-agent/rea/internal/wire"
)

// machine is an agent whose certificate is renewed, and the server of it, without
// sockets.
type machine struct {
	*Renewer
	t    *testing.T
	ca   *identity.Authority
	file string
	life time.Duration

	mu    sync.Mutex
	leaf  *x509.Certificate
	off   bool
	fails func() error // what comes instead of an answer; nil for an answer
	asked []time.Time
	log   bytes.Buffer
}

func newMachine(t *testing.T, caLife, life time.Duration) *machine {
	t.Helper()
	ca, err := identity.NewAuthority("example.org", identity.ECDSA, caLife)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, ca: ca, life: life, file: filepath.Join(t.TempDir(), PairFile)}
	key, err := identity.NewKey(identity.ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	if m.leaf, err = ca.SignAgent(key.Public(), node, life); err != nil {
		t.Fatal(err)
	}
	m.Renewer = NewRenewer(RenewerOptions{
		Current: m.current, Written: m.written, Client: &http.Client{Transport: m}, URL: "https://rea.test/renew",
		Metrics: new(metric.Set), Log: slog.New(slog.NewTextHandler(&m.log, nil)),
	})
	return m
}

func (m *machine) current() (*x509.Certificate, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return m.leaf, ""
	}
	return m.leaf, m.file
}

// written loads the file, as the agent does.
func (m *machine) written() {
	set, err := identity.LoadClient(identity.Client{CertFile: m.file, KeyFile: m.file, Verify: true})
	if err != nil {
		m.t.Error(err)
		return
	}
	m.mu.Lock()
	m.leaf = set.Leaf
	m.mu.Unlock()
	m.Look()
}

// RoundTrip is the server.
func (m *machine) RoundTrip(r *http.Request) (*http.Response, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, time.Now())
	if m.fails != nil {
		if err := m.fails(); err != nil {
			return nil, err
		}
	}
	var q wire.EnrollRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != wire.RenewPath {
		m.t.Error(r.URL, err)
	}
	csr, err := identity.ParseRequest(q.CSR)
	if err != nil {
		return nil, err
	}
	cert, err := m.ca.Sign(csr, node, m.life)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(wire.Enrolled{Certificates: string(identity.EncodeCertificates(cert))})
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, err
}

// run runs the Renewer for so long.
func (m *machine) run(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	_ = m.Run(ctx)
}

func TestACertificateIsRenewedAtTwoThirdsOfItsLifeForAMonth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, 365*24*time.Hour, 24*time.Hour)
		start := time.Now()
		m.run(30 * 24 * time.Hour)
		last := start
		different := map[time.Duration]bool{}
		for _, at := range m.asked {
			after := at.Sub(last)
			if least, most := 888*time.Minute, 1033*time.Minute; after < least || after > most {
				t.Errorf("renewed %v after the last time, want 24h·(2/3 ± 1/20)", after)
			}
			different[after.Round(time.Minute)] = true
			last = at
		}
		if n := len(m.asked); n < 41 || n > 49 || len(different) < 5 {
			t.Errorf("renewed %d times, after %d different times", n, len(different))
		}
		if m.leaf.NotAfter.Before(time.Now()) {
			t.Error("it has expired")
		}
		if got := m.succeeded.Value(); got != uint64(len(m.asked)) || m.failed.Value() != 0 {
			t.Errorf("counted %d and %d failures", got, m.failed.Value())
		}
	})
}

func TestAServerThatIsAwayIsTriedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, 365*24*time.Hour, 24*time.Hour)
		gone := time.Now().Add(20 * time.Hour)
		m.fails = func() error {
			if time.Now().Before(gone) {
				return errors.New("connection refused")
			}
			return nil
		}
		m.run(19 * time.Hour)
		p := m.Report()
		if p == nil || p.State != status.Degraded || !strings.Contains(p.LastError, "connection refused") || p.Failures == 0 || p.NextTry.IsZero() {
			t.Errorf("%+v", p)
		}
		if n := strings.Count(m.log.String(), "is not renewed"); n == 0 || n > len(m.asked) {
			t.Errorf("said %d times", n)
		}
		m.run(4 * time.Hour)
		if p := m.Report(); p.State != status.OK || p.LastError != "" || p.LastSuccess.IsZero() || m.succeeded.Value() != 1 {
			t.Errorf("%+v", p)
		}
		if n := len(m.asked); n < 8 || n > 30 {
			t.Errorf("tried %d times", n)
		}
	})
}

// What is left of a life of half a minute is ten seconds: there is time for more
// than one try.
func TestAShortLifeHasTimeForSeveralTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, time.Hour, 30*time.Second)
		m.fails = func() error { return errors.New("connection refused") }
		m.run(30 * time.Second)
		if n := len(m.asked); n < 5 || n > 40 {
			t.Errorf("tried %d times", n)
		}
	})
}

func TestTriesAreFewForEverAndInAnAuthoritysLastHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := newMachine(t, 365*24*time.Hour, 24*time.Hour)
		refused.fails = func() error { return errors.New("no") }
		refused.run(10 * 24 * time.Hour) // it has expired for nine days
		if n := len(refused.asked); n > 24*20 {
			t.Errorf("refused: asked %d times", n)
		}
		ends := newMachine(t, 48*time.Hour, 24*time.Hour)
		ends.run(48 * time.Hour)
		if n := len(ends.asked); n > 150 {
			t.Errorf("at the end of the authority: asked %d times", n)
		}
		if !strings.Contains(ends.log.String(), "does the authority?") {
			t.Errorf("nobody is told:\n%s", ends.log.String())
		}
	})
}

func TestRenewalIsSwitchedWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, 365*24*time.Hour, time.Hour)
		m.off = true
		ctx, cancel := context.WithCancel(context.Background())
		go m.Run(ctx)
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		if len(m.asked) != 0 || m.Report() != nil {
			t.Errorf("renewed although it is off: %+v", m.Report())
		}
		m.mu.Lock()
		m.off = false
		m.mu.Unlock()
		m.Look()
		time.Sleep(2 * time.Minute) // it is late, but not in a rush
		synctest.Wait()
		if len(m.asked) != 1 || m.succeeded.Value() != 1 {
			t.Errorf("asked %d times", len(m.asked))
		}
		cancel()
		synctest.Wait()
	})
}

func TestWhatIsWrittenIsNotRenewedAgainBeforeItIsLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, 365*24*time.Hour, 24*time.Hour)
		m.o.Written = func() {} // the program cannot load it
		m.run(24 * time.Hour)
		if n := len(m.asked); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestItEndsAlsoWhileItAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, time.Hour, time.Hour)
		ctx, cancel := context.WithCancel(context.Background())
		m.fails = func() error {
			cancel()
			return ctx.Err()
		}
		_ = m.Run(ctx)
		if m.failed.Value() != 0 || m.Report().State != status.OK {
			t.Errorf("an end is called a failure: %+v", m.Report())
		}
	})
}

func TestWhatAKillLeftOfAPairIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, time.Hour, time.Hour)
		for _, name := range []string{m.file, m.file + ".123.tmp", m.file + ".old"} {
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m.run(time.Minute)
		if got := names(t, filepath.Dir(m.file)); got != "agent.pem agent.pem.old" {
			t.Error(got)
		}
	})
}

func TestACertificateOfAnotherAgentIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, 365*24*time.Hour, time.Hour)
		other, err := m.ca.SignAgent(m.leaf.PublicKey, identity.NewNode(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		m.leaf = other
		m.run(45 * time.Minute)
		if m.failed.Value() == 0 || m.succeeded.Value() != 0 || !strings.Contains(m.log.String(), "it names the agent "+node) {
			t.Errorf("%s", m.log.String())
		}
		if _, err := os.Stat(m.file); err == nil {
			t.Error("it was written")
		}
	})
}

// At any moment at which the machine may stop, or somebody loads the file, it holds
// a pair that belongs together.
func TestTheFileAlwaysHoldsAPairThatBelongsTogether(t *testing.T) {
	m := newMachine(t, time.Hour, time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	renew := func() {
		m.life += time.Second // or it would end no later
		fresh, err := m.renew(ctx, m.leaf, m.file)
		if err != nil {
			t.Error(err)
			return
		}
		m.leaf = fresh
	}
	m.life = 10 * time.Minute
	m.leaf.NotAfter = time.Now()
	renew()
	var reader sync.WaitGroup
	loads := 0
	reader.Go(func() {
		for ; ctx.Err() == nil; loads++ {
			_, err := identity.LoadClient(identity.Client{CertFile: m.file, KeyFile: m.file, Verify: true})
			if runtime.GOOS == "windows" && errors.Is(err, syscall.Errno(32)) { // ERROR_SHARING_VIOLATION, at the moment of the exchange: who loads tries again
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 50 {
		renew()
	}
	cancel()
	reader.Wait()
	if left, _ := filepath.Glob(m.file + "*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	t.Logf("loaded %d times", loads)
}
