// Package confine takes from a process what it does not need, for the rest of
// its life: on Linux by Landlock (https://docs.kernel.org/userspace-api/landlock.html).
//
// What [Rules] list is left, everything else of the kinds that the kernel can
// restrict is refused with EACCES, whatever the rights of the account, and for
// every thread and every child. Nothing may be executed. There is no way back.
//
// What was opened before stays open. Landlock does not restrict looking at a
// file's size and mode (stat), at the room on a disk (statfs), changing a mode,
// or UDP; before ABI 4 it does not restrict TCP. A process that is confined can
// no longer read of others what only a debugger may: of /proc/PID that is io,
// fd and exe.
package confine

import "errors"

// ErrKernel is that the kernel cannot confine as far as is required.
var ErrKernel = errors.New("the kernel cannot confine it")

// RequiredABI is the version of Landlock that restricts files and TCP, Linux 6.7.
const RequiredABI = 4

// Rules are what is left.
type Rules struct {
	Read  []string // files, and folders with all below; what is missing is passed over
	Write []string // folders in which files and folders may be made, changed, removed and read

	Connect []uint16 // TCP ports, of any address
	Bind    []uint16 // TCP ports
}

// A State says how far the process is confined.
type State struct {
	ABI  int  // of the kernel; 0 if it has no Landlock
	File bool // what can be read, written and executed
	TCP  bool // where to connect and what to listen at
}
