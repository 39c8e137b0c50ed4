package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/identity"
)

// certified is a configuration with certificates of its own.
func certified(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	if _, err := identity.Generate(dir, nil); err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.Networking.Enabled, c.Networking.Endpoint = true, "https://127.0.0.1:1"
	c.TLS.CAFile, c.TLS.ClientCert, c.TLS.ClientKey = filepath.Join(dir, "ca.crt"), filepath.Join(dir, "agent.crt"), filepath.Join(dir, "agent.key")
	return c
}

func TestWhatAReloadTakesOfTheConfiguration(t *testing.T) {
	first, other := certified(t), certified(t)
	var log bytes.Buffer
	now, broken := first, error(nil)
	f := &follower{first: true, agent: &Agent{o: Options{
		Config: first, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Reload: func() (Config, string, error) { return now, "agent.toml", broken },
	}}}
	set, files, err := f.load()
	if err != nil || strings.Join(files, " ") != "agent.toml "+first.TLS.CAFile+" "+first.TLS.ClientCert+" "+first.TLS.ClientKey {
		t.Fatal(files, err)
	}

	now.TLS.SPKIPins = []string{identity.SPKI(set.Leaf)}
	pinned, _, err := f.load()
	if err != nil || pinned.Same(set) || log.Len() > 0 {
		t.Errorf("pins: %v\n%s", err, log.String())
	}

	now.Collectors.TopNProcs, now.Status.Enabled = 3, true
	for range 2 {
		if again, _, err := f.load(); err != nil || !again.Same(pinned) {
			t.Errorf("other keys: %v", err)
		}
	}
	if n := strings.Count(log.String(), "collectors.top_n_procs status.enabled"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}

	now.TLS = other.TLS
	if _, files, err := f.load(); err == nil || !strings.Contains(err.Error(), "start it anew to give it another name") || files[1] != other.TLS.CAFile {
		t.Errorf("another name: %v, %q", err, files)
	}

	broken = errors.New("line 7 is wrong")
	if _, files, err := f.load(); !errors.Is(err, broken) || len(files) != 4 {
		t.Errorf("a broken configuration: %v, %q", err, files)
	}
}

func TestACertificateComesAndGoesWithAStart(t *testing.T) {
	with := certified(t)
	without := with
	without.TLS.ClientCert, without.TLS.ClientKey = "", ""
	for _, c := range []struct {
		was, is Config
		want    string
	}{
		{without, with, "was started without one"},
		{with, without, "there is no client certificate any more"},
		{without, without, ""},
	} {
		now := c.was
		f := &follower{first: true, agent: &Agent{o: Options{
			Config: c.was, Log: slog.New(slog.DiscardHandler), Reload: func() (Config, string, error) { return now, "agent.toml", nil },
		}}}
		if _, _, err := f.load(); err != nil {
			t.Fatal(err)
		}
		now = c.is
		if _, _, err := f.load(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestAnAgentWithoutCertificatesSaysWhatAReloadDoesNotTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "agent.toml")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("1")
		var log bytes.Buffer
		now, broken, hangup := Default(), error(nil), make(chan os.Signal)
		a := &Agent{output: new(output), o: Options{
			Config: now, Log: slog.New(slog.NewTextHandler(&log, nil)), Hangup: hangup,
			Reload: func() (Config, string, error) { return now, file, broken },
		}}
		ctx, end := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { a.follow(ctx) })
		said := func(what string, times int) {
			t.Helper()
			synctest.Wait()
			if n := strings.Count(log.String(), what); n != times {
				t.Errorf("%q is said %d times, want %d:\n%s", what, n, times, log.String())
			}
		}
		hangup <- syscall.SIGHUP
		said("level=", 0)

		now.Collectors.TopNProcs = 3
		for range 2 {
			hangup <- syscall.SIGHUP
			said("collectors.top_n_procs", 1)
		}
		now.Status.Enabled = true
		write("22")
		time.Sleep(3 * trustInterval)
		said("status.enabled", 1)

		broken = errors.New("line 7 is wrong")
		for range 2 {
			hangup <- syscall.SIGHUP
			said("line 7 is wrong", 1)
		}
		broken = nil
		hangup <- syscall.SIGHUP
		said("can be read again", 1)
		end()
		run.Wait()
	})
}
