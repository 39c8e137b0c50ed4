//go:build !linux && !windows

package proc

import (
	"errors"
	"fmt"
)

type held struct{}

// nowhere is a system whose processes this package cannot read.
type nowhere struct{}

func newSystem(Config) system { return nowhere{} }

func (nowhere) scan(*table) error {
	return fmt.Errorf("read processes: %w", errors.ErrUnsupported)
}

func (nowhere) details(_ []*process, _ *table, errs []string) []string { return errs }
func (nowhere) forget(*process)                                        {}
func (nowhere) cpus() (int, error)                                     { return 0, errors.ErrUnsupported }
func (nowhere) states() []state                                        { return nil }
func (nowhere) close()                                                 {}
