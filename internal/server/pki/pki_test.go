package pki

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rea-agent/rea/internal/identity"
)

const node = "0190d1c0-0000-7000-8000-000000000001"

func initial(t *testing.T) *Folder {
	t.Helper()
	f, err := Init(filepath.Join(t.TempDir(), "pki"), "example.org", identity.ECDSA, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *Folder) list(t *testing.T) []Issued {
	t.Helper()
	list, err := List(f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestWhatIsIssuedIsInTheRegister(t *testing.T) {
	f := initial(t)
	dir := t.TempDir()
	agent, err := f.IssueAgent(node, identity.Ed25519, filepath.Join(dir, "agent"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.IssueServer([]string{"rea.test", "127.0.0.1"}, identity.ECDSA, filepath.Join(dir, "server"), time.Hour); err != nil {
		t.Fatal(err)
	}
	list := f.list(t)
	if len(list) != 2 || list[0].Serial != agent.Serial || list[0].Node != node || list[0].Role != Agent ||
		list[1].Role != Server || strings.Join(list[1].Names, " ") != "rea.test 127.0.0.1" {
		t.Errorf("%+v", list)
	}
	for _, name := range []string{filepath.Join(f.Dir, "ca.key"), filepath.Join(dir, "agent", "agent.key"), filepath.Join(dir, "server", "server.key")} {
		if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if _, err := f.IssueAgent(node, identity.ECDSA, filepath.Join(dir, "agent"), time.Hour); !errors.Is(err, fs.ErrExist) || len(f.list(t)) != 2 {
		t.Errorf("overwrites: %v, or issues what nobody gets", err)
	}
	if _, err := Init(f.Dir, "x", identity.ECDSA, time.Hour); !errors.Is(err, fs.ErrExist) {
		t.Errorf("makes the authority anew: %v", err)
	}
}

func TestTheRegisterSurvivesACrashInALine(t *testing.T) {
	f := initial(t)
	issue := func(i int) {
		if _, err := f.IssueAgent(node, identity.ECDSA, filepath.Join(t.TempDir(), "a"), time.Hour); err != nil {
			t.Fatal(i, err)
		}
	}
	issue(1)
	file, err := os.OpenFile(f.path(Register), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	file.WriteString(`{"serial":"12`)
	file.Close()
	if n := len(f.list(t)); n != 1 {
		t.Errorf("%d are listed", n)
	}
	issue(2)
	if n := len(f.list(t)); n != 2 {
		t.Errorf("%d are listed", n)
	}
}

func TestManyIssueAtOnce(t *testing.T) {
	f := initial(t)
	var wg sync.WaitGroup
	for range 8 {
		out := t.TempDir()
		wg.Go(func() {
			if _, err := f.IssueAgent(identity.NewNode(), identity.ECDSA, filepath.Join(out, "a"), time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	serials := map[string]bool{}
	for _, i := range f.list(t) {
		serials[i.Serial] = true
	}
	if len(serials) != 8 {
		t.Errorf("%d serial numbers", len(serials))
	}
}

func TestARevocationIsInTheDenylist(t *testing.T) {
	f := initial(t)
	out := t.TempDir()
	made, err := f.IssueAgent(node, identity.ECDSA, out, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	set, err := identity.LoadClient(identity.Client{CertFile: filepath.Join(out, "agent.crt"), KeyFile: filepath.Join(out, "agent.key")})
	if err != nil {
		t.Fatal(err)
	}
	shown := []*x509.Certificate{set.Leaf}
	own := filepath.Join(t.TempDir(), "own.jsonl")
	for _, c := range []struct {
		which, file string
		foreign     bool
		want        error
	}{
		{which: made.Serial},
		{which: node},
		{which: strings.ToUpper(made.Serial), file: own},
		{which: "1234", want: ErrUnknown},
		{which: "0190d1c0-0000-7000-8000-00000000000b", want: ErrUnknown},
		{which: "nobody", want: ErrUnknown, foreign: true},
	} {
		if _, err := Revoke(f.Dir, c.which, "lost", c.file, c.foreign); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.which, err)
		}
		file := c.file
		if file == "" {
			file = f.path(Revoked)
		}
		d, err := identity.LoadDenylist(file)
		if err != nil {
			t.Fatal(err)
		}
		if e := d.Denies(shown); e == nil || e.Reason != "lost" {
			t.Errorf("%s: %+v", c.which, e)
		}
	}
	if _, err := Revoke(f.Dir, "1234", "", own, true); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(own, []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Revoke(f.Dir, node, "", own, false); err == nil {
		t.Error("a file that is no denylist was replaced")
	}
}

func TestToRevokeACertificateSaysWhatItsHolderHasBesides(t *testing.T) {
	f := initial(t)
	var serials []string
	for _, c := range []struct {
		of   string
		life time.Duration
	}{{node, time.Hour}, {node, time.Hour}, {node, time.Nanosecond}, {identity.NewNode(), time.Hour}} {
		made, err := f.IssueAgent(c.of, identity.ECDSA, t.TempDir(), c.life)
		if err != nil {
			t.Fatal(err)
		}
		serials = append(serials, made.Serial)
	}
	for _, c := range []struct {
		which, agent string
		others       []string
	}{
		{serials[0], node, serials[1:2]},
		{serials[1], node, nil},
		{node, "", nil},
		{serials[0], "", nil}, // since the agent is revoked
	} {
		r, err := Revoke(f.Dir, c.which, "", "", false)
		if err != nil || r.Agent != c.agent || !slices.Equal(r.Others, c.others) {
			t.Errorf("%s: %+v, %v; want %q, %v", c.which, r, err, c.agent, c.others)
		}
	}
	if r, err := Revoke(f.Dir, "1234", "", "", true); err != nil || r.Agent != "" {
		t.Errorf("%+v, %v", r, err)
	}
}
