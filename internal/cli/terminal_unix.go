//go:build unix

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// terminal asks for the size of the window, which only a terminal has.
func terminal(f *os.File) (columns int, ok bool) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	return int(size.Col), true
}

func paints(*os.File) bool { return true }
