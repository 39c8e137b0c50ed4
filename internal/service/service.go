// Package service installs the agent as a service of the system, asks about it,
// and removes it: with the service control manager of Windows, or with systemd.
//
// What it makes can be seen and has a name: a service REA in services.msc, or a
// unit rea-agent.service. Both start with the system, are restarted by it after a
// fault, and run as an account of their own that may do little. [Uninstall]
// removes all that [Install] made; data stays unless it is to go.
//
// The steps of one system are in service_windows.go and service_linux.go. How the
// agent talks with who started it is not here: it is the program's.
package service

import (
	"crypto/sha1" //nolint:gosec // what Windows makes the SID of a service with
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/rea-agent/rea/internal/access"
)

// The names that people and other programs see.
const (
	Name        = "REA"               // of the Windows service, and of its event source
	Unit        = "rea-agent.service" // of systemd
	DisplayName = "REA Endpoint Agent"
	Description = "Reads what this machine does and delivers it to the server named in its configuration. https://github.com/rea-agent/rea"
)

// What a caller tells apart.
var (
	ErrInstalled = errors.New("the service is installed already")
	ErrAbsent    = errors.New("the service is not installed")
	ErrForeign   = errors.New("somebody else's")             // a folder that was there
	ErrWritable  = access.ErrAccess                          // by others: the program
	ErrManager   = errors.New("there is no service manager") // to ask
	ErrFailed    = errors.New("the service does not do it")  // start, or stop
)

// Options are how the service is installed.
type Options struct {
	Program     string // the executable, an absolute path
	DisplayName string // "": DisplayName
	Config      string // an absolute path; "": the default file
	Account     string // "": one of its own
}

// A Report tells what was made or removed. A warning is a step without which the
// service works, with less.
type Report struct {
	Done     []string `json:"done"`
	Warnings []string `json:"warnings,omitempty"`
}

func (r *Report) did(format string, args ...any) {
	r.Done = append(r.Done, fmt.Sprintf(format, args...))
}

func (r *Report) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// A State is what the service does.
type State string

// The states of a service, whatever the system calls them.
const (
	Absent   State = "not installed"
	Stopped  State = "stopped"
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Failed   State = "failed"
)

// A Status is what the system says of the service.
type Status struct {
	Name    string `json:"name"`
	State   State  `json:"state"`
	PID     int    `json:"pid,omitempty"`
	Starts  string `json:"starts,omitempty"` // when: "with the system"
	Account string `json:"account,omitempty"`
	Command string `json:"command,omitempty"`
	Code    int    `json:"exit_code,omitempty"` // of the last run, where it failed
}

// virtualSID returns the SID of a Windows service, which is also that of its own
// account NT SERVICE\name: the SHA-1 of the name in capitals. It is known before
// there is a service.
func virtualSID(name string) string {
	units := utf16.Encode([]rune(strings.ToUpper(name)))
	text := make([]byte, 0, 2*len(units))
	for _, u := range units {
		text = binary.LittleEndian.AppendUint16(text, u)
	}
	sum := sha1.Sum(text) //nolint:gosec // it is a name and protects nothing
	sid := "S-1-5-80"
	for part := sum[:]; len(part) > 0; part = part[4:] {
		sid += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(part))
	}
	return sid
}

// folderList is the list of rights that a folder of the service is made with, in
// the language of security descriptors: the administrators own it; SYSTEM and
// they may do everything, the service reads, or changes what is below; nobody
// else, and nothing comes from above. sid is empty for SYSTEM itself.
func folderList(sid string, change bool) string {
	const read, modify = "0x1200a9", "0x1301bf" // what icacls calls RX and M
	list := "O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
	switch {
	case sid == "":
		return list
	case change:
		return list + "(A;OICI;" + modify + ";;;" + sid + ")"
	}
	return list + "(A;OICI;" + read + ";;;" + sid + ")"
}
