//go:build !linux && !windows

package status

// residentBytes knows nothing: getrusage(2) tells only the most there ever was.
func residentBytes() (float64, bool) { return 0, false }
