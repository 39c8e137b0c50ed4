//go:build !windows

package eventlog

import "errors"

func openSystem() (system, error) { return nil, errors.ErrUnsupported }
