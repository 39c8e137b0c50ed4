package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// The exit codes, from BSD's sysexits.h.
const (
	OK          = 0
	Usage       = 64 // the command line is wrong
	Data        = 65 // what was read is wrong
	Unavailable = 69 // something that is needed is not there
	Internal    = 70 // a fault of the program
	IO          = 74 // reading or writing went wrong
	Permission  = 77
	Config      = 78 // the configuration is wrong
)

// An Error ends the program with a code, and can say how to get on.
type Error struct {
	Code int
	Err  error
	Fix  string // a sentence without a stop; may be empty
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Fail makes an error of a code that says how to get on.
func Fail(code int, err error, fix string) error { return &Error{Code: code, Err: err, Fix: fix} }

// Code returns the exit code of an error: that of the Error in it, OK for nil, IO
// where standard output takes nothing, and Internal for one that nobody gave a code.
func Code(err error) int {
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok && e.Path == os.Stdout.Name() {
		return IO
	}
	return Internal
}

func usagef(fix, format string, args ...any) error {
	return Fail(Usage, fmt.Errorf(format, args...), fix)
}
