package trust

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/metric"
	"github.com/rea-agent/rea/internal/status"
)

// kept is a Keeper of an agent's certificates in a folder, in a bubble.
type kept struct {
	*Keeper
	t       *testing.T
	dir     string
	log     bytes.Buffer
	metrics metric.Set
	changed int
}

func (k *kept) path(name string) string { return filepath.Join(k.dir, name) }

// generate makes certificates that are valid at the time of the bubble.
func (k *kept) generate() string {
	k.t.Helper()
	dir := k.t.TempDir()
	if _, err := identity.Generate(dir, nil); err != nil {
		k.t.Fatal(err)
	}
	return dir
}

func (k *kept) put(from string, names ...string) {
	k.t.Helper()
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(k.path(name), b, 0o600)
		}
		if err != nil {
			k.t.Fatal(err)
		}
	}
}

func keep(t *testing.T, every time.Duration, patient bool, before func(*kept)) (*kept, error) {
	t.Helper()
	k := &kept{t: t}
	k.dir = k.generate()
	if before != nil {
		before(k)
	}
	keeper, err := New(Options{
		Use: "client", Every: every, Patient: patient, Metrics: &k.metrics, Log: slog.New(slog.NewTextHandler(&k.log, nil)),
		Changed: func(*identity.Set) { k.changed++ },
		Load: func() (*identity.Set, []string, error) {
			c := identity.Client{CAFile: k.path("ca.crt"), CertFile: k.path("agent.crt"), KeyFile: k.path("agent.key"), Verify: true}
			s, err := identity.LoadClient(c)
			return s, []string{c.CAFile, c.CertFile, c.KeyFile}, err
		},
	})
	if err != nil {
		return nil, err
	}
	k.Keeper = keeper
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { _ = k.Run(ctx) })
	t.Cleanup(func() { cancel(); wait.Wait() })
	k.after(10 * every)
	return k, nil
}

func (k *kept) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (k *kept) says(word string) int { return strings.Count(k.log.String(), word) }

func (k *kept) metric(line string) bool {
	var b bytes.Buffer
	if _, err := k.metrics.WriteTo(&b); err != nil {
		k.t.Fatal(err)
	}
	return strings.Contains(b.String(), line+"\n")
}

func TestHalfARotationIsNotTakenAndSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := keep(t, time.Second, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		was, other := k.Set(), k.generate()
		k.put(other, "agent.crt") // its key is to come
		k.after(time.Minute)
		if k.Set() != was || k.changed != 0 {
			t.Error("a certificate without its key was taken")
		}
		if n := k.says("what changed is not taken"); n != 1 {
			t.Errorf("said %d times:\n%s", n, k.log.String())
		}
		if r := k.Report(); r.State != status.Degraded || !strings.Contains(r.LastError, "does not belong to the certificate") {
			t.Errorf("%+v", r)
		}
		if !k.metric(`rea_tls_reload_success{what="certificates"} 0`) {
			t.Error("the metric does not say so")
		}
		k.put(other, "agent.key", "ca.crt")
		k.after(5 * time.Second)
		if k.Set().Same(was) || k.changed != 1 {
			t.Errorf("the whole was not taken: %d changes", k.changed)
		}
		if r := k.Report(); r.State != status.OK || r.LastError != "" || len(r.Expires) != 2 {
			t.Errorf("%+v", r)
		}
		if k.says("can be taken again") != 1 || k.says("other certificates are in use") != 1 || !k.metric(`rea_tls_reload_success{what="certificates"} 1`) {
			t.Error(k.log.String())
		}
	})
}

func TestAReloadWithoutAChangeChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := keep(t, time.Second, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		k.Reload()
		k.after(time.Second)
		if k.changed != 0 || k.log.Len() > 0 {
			t.Errorf("%d changes\n%s", k.changed, k.log.String())
		}
	})
}

func TestCertificatesThatExpireAreSaidAndReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := keep(t, 24*time.Hour, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		was, expired := k.Set(), t.TempDir()
		if err := os.CopyFS(expired, os.DirFS(k.dir)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(was.Leaf.NotAfter))
		k.after(48 * time.Hour)
		if k.says("NOTHING CAN BE DELIVERED") < 1 || k.Report().State != status.Degraded {
			t.Errorf("%+v\n%s", k.Report(), k.log.String())
		}
		k.put(k.generate(), "agent.crt", "agent.key", "ca.crt")
		k.after(5 * 24 * time.Hour)
		fresh := k.Set()
		if fresh.Same(was) || k.says("valid again") != 1 || k.Report().State != status.OK {
			t.Errorf("%+v\n%s", k.Report(), k.log.String())
		}
		k.put(expired, "agent.crt", "agent.key", "ca.crt")
		k.after(5 * 24 * time.Hour)
		if k.Set() != fresh || !strings.Contains(k.Report().LastError, "expired") {
			t.Errorf("what has expired was taken: %+v", k.Report())
		}
	})
}

func TestOnlyThePatientBeginWithWhatIsNotValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		expire := func(k *kept) {
			b, err := os.ReadFile(k.path("agent.crt"))
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode(b)
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Until(c.NotAfter) + time.Hour)
		}
		if _, err := keep(t, time.Second, false, expire); !errors.Is(err, identity.ErrTime) {
			t.Fatalf("began with %v", err)
		}
		k, err := keep(t, time.Second, true, expire)
		if err != nil {
			t.Fatal(err)
		}
		if k.says("NOTHING CAN BE DELIVERED") != 1 {
			t.Error(k.log.String())
		}
		was := k.Set()
		k.Reload()
		k.after(time.Second)
		if k.Set() != was || k.State() == nil {
			t.Error("the same was loaded again")
		}
	})
}

// State returns why the last try failed.
func (k *kept) State() error { return k.live.State().Err }
