package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rea-agent/rea/internal/durable"
)

// replaced are files of which each has two contents, one put in the place of the
// other as whoever renews certificates does it.
type replaced struct {
	pair, ca, denylist string
	texts              map[string][2]string
}

func newReplaced(t *testing.T) *replaced {
	t.Helper()
	from, to := valid()
	one, other := authority(t), authority(t)
	pair := func(ca *party) string {
		p := issue(t, ca, agentTemplate(), from, to)
		return read(t, p.key) + read(t, p.cert)
	}
	denial := `{"node":"` + uuid + `"}` + "\n"
	dir := t.TempDir()
	r := &replaced{pair: filepath.Join(dir, "agent.pem"), ca: filepath.Join(dir, "ca.crt"), denylist: filepath.Join(dir, "denylist")}
	r.texts = map[string][2]string{
		r.pair:     {pair(&one), pair(&other)},
		r.ca:       {read(t, one.cert), strings.Repeat(read(t, other.cert), 20)},
		r.denylist: {denial, strings.Repeat(denial, 500)},
	}
	for name := range r.texts {
		if err := r.put(name, 0); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *replaced) put(name string, which int) error {
	err := os.WriteFile(name+".new", []byte(r.texts[name][which]), 0o600)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	for durable.IsOfTheMoment(err) { // who reads without a pause is in the way
		err = os.Rename(name+".new", name)
	}
	return err
}

// load loads all three, and sees that each is one of its two contents.
func (r *replaced) load() error {
	set, err := LoadClient(Client{CAFile: r.ca, CertFile: r.pair, KeyFile: r.pair, Verify: true})
	if err != nil {
		return err
	}
	denied, err := LoadDenylist(r.denylist)
	if err != nil {
		return err
	}
	if n := len(set.cas.certs); n != 1 && n != 20 {
		return errors.New("a part of the authorities was loaded")
	}
	if n := len(denied.All()); n != 1 && n != 500 {
		return errors.New("a part of the denylist was loaded")
	}
	return nil
}

func TestFilesThatAreReplacedAreLoadedWhole(t *testing.T) {
	r := newReplaced(t)
	var done atomic.Bool
	var writer sync.WaitGroup
	writer.Go(func() {
		defer done.Store(true)
		names := [...]string{r.pair, r.ca, r.denylist}
		for n := range 1000 {
			if err := r.put(names[n%len(names)], (n/len(names)+1)%2); err != nil {
				t.Errorf("replace a file the %dth time: %v", n, err)
				return
			}
		}
	})
	defer writer.Wait()
	for loads := 1; ; loads++ {
		last := done.Load()
		if err := r.load(); err != nil {
			t.Fatalf("the %dth time: %v", loads, err)
		}
		if last {
			t.Logf("loaded %d times", loads)
			return
		}
	}
}
