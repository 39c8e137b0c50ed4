//go:build !linux && !windows

package agent

import "errors"

func machineID() (string, error) { return "", errors.ErrUnsupported }
