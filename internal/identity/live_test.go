package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// following is a Live of the content of a file, which must not be "bad".
type following struct {
	*Live[string]
	t     *testing.T
	file  string
	loads atomic.Int64
}

func follow(t *testing.T, text string) *following {
	t.Helper()
	f := &following{t: t, file: filepath.Join(t.TempDir(), "file")}
	f.write(text)
	live, err := NewLive(func() (string, []string, error) {
		f.loads.Add(1)
		b, err := os.ReadFile(f.file)
		if err == nil && string(b) == "bad" {
			err = errors.New("it is bad")
		}
		return string(b), []string{f.file, ""}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Live = live
	return f
}

func (f *following) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.file, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// run runs it in the bubble, looking each second, until the test ends.
func (f *following) run() {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Run(ctx, time.Second, func() {}) }()
	f.t.Cleanup(func() { cancel(); <-done })
	f.after(5 * time.Second) // what is new is loaded twice
}

func (f *following) after(d time.Duration) string {
	time.Sleep(d)
	synctest.Wait()
	return f.Value()
}

func TestAChangeIsLoadedWhenTheFileStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, "one")
		f.run()
		before := f.loads.Load()
		if got := f.after(time.Hour); got != "one" || f.loads.Load() != before {
			t.Errorf("%q, loaded %d times more without a change", got, f.loads.Load()-before)
		}
		f.write("half")
		if got := f.after(time.Second); got != "one" {
			t.Errorf("%q was loaded while it was being written", got)
		}
		f.write("two")
		if got := f.after(time.Second); got != "one" {
			t.Errorf("%q was loaded while it was being written", got)
		}
		if got := f.after(time.Second); got != "two" {
			t.Errorf("%q, want two", got)
		}
	})
}

func TestAFileThatNeverStandsStillIsLoadedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, "")
		f.run()
		before := f.loads.Load()
		for n := range 20 {
			f.write(string(make([]byte, n+1)))
			f.after(time.Second)
		}
		if n := f.loads.Load() - before; n < 4 || n > 7 {
			t.Errorf("loaded %d times in 20 s", n)
		}
	})
}

func TestTheLastGoodOneStaysUntilAnotherLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, "one")
		f.run()
		f.write("bad")
		if got := f.after(5 * time.Second); got != "one" || f.State().Err == nil {
			t.Errorf("%q, %+v", got, f.State())
		}
		loaded := f.State().Loaded
		if err := os.Remove(f.file); err != nil {
			t.Fatal(err)
		}
		if got := f.after(5 * time.Second); got != "one" || !errors.Is(f.State().Err, os.ErrNotExist) || f.State().Loaded != loaded {
			t.Errorf("%q, %+v", got, f.State())
		}
		f.write("two")
		if got := f.after(5 * time.Second); got != "two" || f.State().Err != nil || f.State().Loaded == loaded {
			t.Errorf("%q, %+v", got, f.State())
		}
	})
}

func TestAReloadDoesNotWaitForAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, "one")
		f.run()
		f.write("two")
		f.Reload()
		if got := f.after(0); got != "two" {
			t.Errorf("%q", got)
		}
	})
}

func TestAChangeOfTheModeIsAChange(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("SKIP modes are not told there")
	}
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, "one")
		f.run()
		before := f.loads.Load()
		if err := os.Chmod(f.file, 0o640); err != nil {
			t.Fatal(err)
		}
		if f.after(5 * time.Second); f.loads.Load() != before+1 {
			t.Errorf("loaded %d times more, want once", f.loads.Load()-before)
		}
	})
}

func TestAnotherContentOfTheSameTimeAndSizeIsAChangeWhileItIsNew(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	at := time.Now()
	see := func(g glimpse, text string) glimpse {
		if err := errors.Join(os.WriteFile(name, []byte(text), 0o600), os.Chtimes(name, at, at)); err != nil {
			t.Fatal(err)
		}
		return g.again()
	}
	one := see(glimpse{name: name}, "one")
	if two := see(one, "two"); same([]glimpse{one}, []glimpse{two}) {
		t.Error("the change was not seen")
	}
	at = at.Add(-time.Hour)
	old := see(one, "old")
	if !old.old || see(old, "new") != old {
		t.Error("an old file was read again")
	}
}

// What took the place of an old file can have its size, mode and time: those of
// what cp -p or tar restored, say.
func TestAnotherFileOfTheSameTimeAndSizeIsAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, "one")
		at := time.Now().Add(-time.Hour)
		dress := func(name string) {
			t.Helper()
			if err := os.Chtimes(name, at, at); err != nil {
				t.Fatal(err)
			}
		}
		dress(f.file)
		f.run()
		next := f.file + ".new"
		if err := os.WriteFile(next, []byte("two"), 0o600); err != nil {
			t.Fatal(err)
		}
		dress(next)
		if err := os.Rename(next, f.file); err != nil {
			t.Fatal(err)
		}
		if got := f.after(5 * time.Second); got != "two" {
			t.Errorf("%q", got)
		}
	})
}

func TestSetsAreLoadedThatAreNotValidNow(t *testing.T) {
	from, to := valid()
	ca := authority(t)
	expired := issue(t, &ca, agentTemplate(), from.Add(-time.Hour), from)
	s, err := LoadClient(Client{CAFile: ca.cert, CertFile: expired.cert, KeyFile: expired.key, Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check(time.Now()); !errors.Is(err, ErrTime) {
		t.Errorf("now: %v", err)
	}
	if err := s.Check(from.Add(-time.Minute)); err != nil {
		t.Errorf("when it was valid: %v", err)
	}
	own, cas := s.Expiry(time.Now())
	if d := own.Sub(from); d > 0 || d < -2*time.Second {
		t.Errorf("expires %v, want %v", own, from)
	}
	if d := cas.Sub(to); d > time.Minute || d < -time.Minute {
		t.Errorf("authority expires %v, want %v", cas, to)
	}
}

func TestASetAdmitsWhoItsAuthoritiesVouchFor(t *testing.T) {
	from, to := valid()
	ca, other := authority(t), authority(t)
	server := issue(t, &ca, serverTemplate(), from, to)
	set, err := LoadServer(Server{CertFile: server.cert, KeyFile: server.key, ClientCAFile: ca.cert})
	if err != nil {
		t.Fatal(err)
	}
	agent := issue(t, &ca, agentTemplate(), from, to).issuer.cert
	stranger := issue(t, &other, agentTemplate(), from, to).issuer.cert
	if err := set.Admits(chain(agent), time.Now()); err != nil {
		t.Error(err)
	}
	if err := set.Admits(chain(agent), to.Add(time.Minute)); err == nil {
		t.Error("admits a certificate that has expired")
	}
	if err := set.Admits(chain(stranger), time.Now()); err == nil {
		t.Error("admits a certificate of another authority")
	}
}

func chain(certs ...*x509.Certificate) []*x509.Certificate { return certs }
