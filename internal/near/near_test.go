package near

import "testing"

func TestASlipIsSeen(t *testing.T) {
	names := []string{"endpoint", "queue_dir", "mode", "x"}
	for s, want := range map[string]string{
		"endpiont": "endpoint", "endpoin": "endpoint", "queuedir": "queue_dir", "moed": "mode", "y": "x",
		"entirely else": "", "": "x", "modem_speed": "",
	} {
		if got := Name(s, names); got != want {
			t.Errorf("%q is %q, want %q", s, got, want)
		}
	}
}

func FuzzDistance(f *testing.F) {
	f.Add("endpoint", "endpiont")
	f.Fuzz(func(t *testing.T, a, b string) {
		d := distance(a, b)
		if d != distance(b, a) || (d == 0) != (a == b) && max(len(a), len(b)) <= 100 || d > max(len(a), len(b)) {
			t.Errorf("%q %q: %d and %d", a, b, d, distance(b, a))
		}
	})
}
