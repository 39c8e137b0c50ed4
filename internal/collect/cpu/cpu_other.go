//go:build !linux && !windows

package cpu

import "errors"

type source struct{}

func newSource() *source { return nil }

func (*source) read(*Reading) error { return errors.ErrUnsupported }
