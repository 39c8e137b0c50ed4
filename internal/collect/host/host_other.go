//go:build !linux && !windows

package host

import "errors"

type source struct{}

func newSource() *source { return nil }

func (*source) read(*Reading) error { return errors.ErrUnsupported }
