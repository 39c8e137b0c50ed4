// Package wine tells a test whether the Windows that it runs on is Wine, which
// differs from Windows in places. What REA does is never bent to that: a test says
// by name what Wine cannot show.
package wine

import "testing"

// Differs skips the test under Wine, with what Wine does otherwise.
func Differs(t testing.TB, how string) {
	t.Helper()
	if Running() {
		t.Skip("Wine differs from Windows: " + how)
	}
}
