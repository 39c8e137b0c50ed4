package trouble

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTroubleIsSaidWhenItBeginsChangesAndLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr Trouble
		for i, c := range []struct {
			after time.Duration
			text  string
			said  bool
		}{
			{0, "refused", true},
			{time.Second, "refused", false},
			{time.Second, "timeout", true},
			{time.Second, "timeout", false},
			{time.Second, "refused", false}, // by turns
			{Every, "timeout", true},
		} {
			time.Sleep(c.after)
			if said := tr.Failed(c.text); said != c.said {
				t.Errorf("step %d: said %v, want %v", i, said, c.said)
			}
		}
		if text, n := tr.Now(); text != "timeout" || n != 6 {
			t.Errorf("now %q %d", text, n)
		}
		if n, d := tr.Worked(); n != 6 || d != Every+4*time.Second {
			t.Errorf("worked after %d failures and %v", n, d)
		}
		if n, _ := tr.Worked(); n != 0 {
			t.Errorf("trouble ended twice")
		}
		if !tr.Failed("timeout") {
			t.Errorf("the same failure after a recovery was not said")
		}
	})
}
