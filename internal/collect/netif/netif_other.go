//go:build !linux && !windows

package netif

import (
	"errors"
	"time"
)

type system struct{}

func newSystem() *system { return &system{} }

func (*system) read(time.Time, *sample) error { return errors.ErrUnsupported }
