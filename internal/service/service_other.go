//go:build !windows && !linux

package service

import (
	"context"
	"errors"
)

// Install, and what else is here, is for Windows and Linux.
func Install(context.Context, Options) (*Report, error) { return nil, errors.ErrUnsupported }

// Uninstall is for Windows and Linux.
func Uninstall(context.Context, bool) (*Report, error) { return nil, errors.ErrUnsupported }

// Start is for Windows and Linux.
func Start(context.Context) error { return errors.ErrUnsupported }

// Stop is for Windows and Linux.
func Stop(context.Context) error { return errors.ErrUnsupported }

// Reload is for Windows and Linux.
func Reload(context.Context) error { return errors.ErrUnsupported }

// Query is for Windows and Linux.
func Query(context.Context) (Status, error) {
	return Status{Name: Unit, State: Absent}, errors.ErrUnsupported
}
