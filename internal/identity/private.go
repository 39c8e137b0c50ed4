package identity

import (
	"errors"

	"github.com/rea-agent/rea/internal/access"
)

// private refuses a key file that others could read or change.
func private(what, name string) error { return fault(what, name, access.Secret(what, name)) }

// guarded refuses a file that others could change: who writes a list of
// authorities decides whom we trust.
func guarded(what, name string) error { return fault(what, name, access.Guarded(what, name)) }

func fault(what, name string, err error) error {
	if err == nil {
		return nil
	}
	if open, ok := errors.AsType[*access.Error](err); ok {
		return &FileError{what, open.Path, open.Problem, open.Remedy, err}
	}
	return &FileError{what, name, "cannot be examined", err.Error(), err}
}
