//go:build !linux

package confine

import "fmt"

// ABI returns 0: Landlock is of Linux.
func ABI() int { return 0 }

// Apply does nothing on this system; with require it returns ErrKernel.
func (r Rules) Apply(require bool) (State, error) {
	if require {
		return State{}, fmt.Errorf("%w: Landlock is of Linux", ErrKernel)
	}
	return State{}, nil
}
