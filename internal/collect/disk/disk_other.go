//go:build !linux && !windows

package disk

import (
	"errors"
	"time"
)

type system struct{}

func newSystem() *system { return &system{} }

func (*system) read(time.Time, *sample) error { return errors.ErrUnsupported }

func (*system) kind(string) string { return "" }

func measure(*volume) (usage, error) { return usage{}, errors.ErrUnsupported }
