package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"

	"github.com/rea-agent/rea/internal/cli"
	"github.com/rea-agent/rea/internal/service"
)

const (
	// drain is how long a stopping service may take. What it has not delivered by
	// then is in the queue, which survives an end at any moment.
	drain = 25 * time.Second

	// The service control manager believes a service that starts or stops for this
	// long after it last heard of it.
	hint = 15 * time.Second
)

// supervised runs the program for who started it. The service control manager
// waits 30 s at boot for a service to answer, so nothing slow is done before.
func supervised(run func(context.Context, *supervisor) int) int {
	if len(os.Args) < 2 || os.Args[1] != "run" || !startedByServices() {
		return console(run)
	}
	err := svc.Run(service.Name, handler(run))
	switch {
	case errors.Is(err, windows.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT):
		return console(run)
	case err != nil:
		return cli.Unavailable
	}
	return cli.OK // the service control manager has the code
}

// startedByServices reports whether the parent process has the name of the service
// control manager. Whether it is the manager, connecting to it tells; that alone
// would do, but can take seconds where there is none.
func startedByServices() bool {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return true
	}
	defer func() { _ = windows.CloseHandle(snapshot) }() // it was only read
	parent := uint32(os.Getppid())
	var p windows.ProcessEntry32
	p.Size = uint32(unsafe.Sizeof(p)) // as Process32First wants it
	for err := windows.Process32First(snapshot, &p); err == nil; err = windows.Process32Next(snapshot, &p) {
		if p.ProcessID == parent {
			return strings.EqualFold(windows.UTF16ToString(p.ExeFile[:]), "services.exe")
		}
	}
	return false
}

// A handler is the service as the control manager knows it.
type handler func(context.Context, *supervisor) int

// Execute runs the agent and answers the control manager until the agent ends.
func (run handler) Execute(_ []string, requests <-chan svc.ChangeRequest, statuses chan<- svc.Status) (specific bool, code uint32) {
	log, closeLog := openLog()
	defer closeLog()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ready, reloads, done := make(chan struct{}, 1), make(chan os.Signal, 1), make(chan int, 1)
	now := svc.Status{State: svc.StartPending, WaitHint: uint32(hint / time.Millisecond)}
	statuses <- now
	go func() {
		done <- run(ctx, &supervisor{ready: func() { ready <- struct{}{} }, reloads: reloads, log: log, mute: true})
	}()
	progress := time.NewTicker(hint / 5)
	defer progress.Stop()
	var late <-chan time.Time
	for {
		select {
		case code := <-done:
			return code != 0, uint32(code)
		case <-late:
			return true, cli.Unavailable
		case <-ready:
			if now.State == svc.StartPending {
				now = svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptPreShutdown | svc.AcceptParamChange}
			}
		case <-progress.C:
			if now.State == svc.Running {
				continue
			}
			now.CheckPoint++
		case r := <-requests:
			switch r.Cmd {
			case svc.Stop, svc.PreShutdown, svc.Shutdown:
				stop()
				if late == nil {
					late = time.After(drain)
				}
				now = svc.Status{State: svc.StopPending, WaitHint: uint32(hint / time.Millisecond)}
			case svc.ParamChange:
				select {
				case reloads <- syscall.SIGHUP:
				default: // one is on its way
				}
			}
		}
		statuses <- now
	}
}

// openLog returns where the agent's own log goes: what is a warning or worse to
// the event log Application. A service has no standard error.
func openLog() (w io.Writer, done func()) {
	l, err := eventlog.Open(service.Name)
	if err != nil {
		return io.Discard, func() {}
	}
	return events{l}, func() { _ = l.Close() } // nobody is left to be told
}

// An eventReporter is an event source.
type eventReporter interface {
	Warning(id uint32, text string) error
	Error(id uint32, text string) error
}

// The numbers of our events in the event log.
const (
	warningEvent = 2
	errorEvent   = 3
)

// events writes lines of the agent's log that matter to the event log.
type events struct{ log eventReporter }

// Write takes one line, as slog and the program itself write.
func (e events) Write(line []byte) (int, error) {
	var record struct{ Level slog.Level }
	text := strings.TrimSpace(string(line))
	var err error
	switch {
	case json.Unmarshal(line, &record) != nil || record.Level >= slog.LevelError: // the program's last words are no JSON
		err = e.log.Error(errorEvent, text)
	case record.Level >= slog.LevelWarn:
		err = e.log.Warning(warningEvent, text)
	}
	if err != nil {
		return 0, err
	}
	return len(line), nil
}
