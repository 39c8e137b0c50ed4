//go:build !linux

package confine

import (
	"errors"
	"testing"
)

func TestOnlyLinuxConfines(t *testing.T) {
	if s, err := (Rules{}).Apply(false); err != nil || s != (State{}) {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := (Rules{}).Apply(true); !errors.Is(err, ErrKernel) {
		t.Errorf("got %v, want ErrKernel", err)
	}
}
