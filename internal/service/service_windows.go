package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode/utf16"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/rea-agent/rea/internal/access"
)

const (
	ownAccount = `NT SERVICE\` + Name
	sourceKey  = `SYSTEM\CurrentControlSet\Services\EventLog\Application\` + Name

	// What may be read of the event logs is what this group may (winnt.h,
	// DOMAIN_ALIAS_RID_EVENT_LOG_READERS_GROUP). Its name depends on the language.
	eventLogReaders = "S-1-5-32-573"

	// preshutdown is how long the system waits for the service before it stops
	// others, when the machine is shut down.
	preshutdown = 30 * time.Second

	resetAfter = 24 * time.Hour // without a fault, the count of faults begins anew
)

// recovery is what the system does after the first, the second and any further
// fault.
var recovery = []mgr.RecoveryAction{
	{Type: mgr.ServiceRestart, Delay: 5 * time.Second},
	{Type: mgr.ServiceRestart, Delay: time.Minute},
	{Type: mgr.NoAction},
}

// privileges is all that the service's account keeps of those that Windows gives
// to accounts of services, among which is that to act as others.
var privileges = []string{"SeChangeNotifyPrivilege"}

// Install makes the folder, the service and its event source. What it made is
// removed again where it fails. It does not start the service.
func Install(_ context.Context, o Options) (*Report, error) {
	i := &installation{o: o, folder: dataFolder()}
	if err := i.run(); err != nil {
		for _, undo := range i.undo {
			err = errors.Join(err, undo())
		}
		return nil, err
	}
	return &i.report, nil
}

// An installation is on its way. undo are the ways back, the last one first.
type installation struct {
	o      Options
	folder string
	report Report
	undo   []func() error
}

func (i *installation) run() error {
	if err := access.Guarded("program", i.o.Program); err != nil {
		return err
	}
	account, sid, err := accountOf(i.o.Account)
	if err != nil {
		return err
	}
	m, err := connect(windows.SC_MANAGER_CONNECT | windows.SC_MANAGER_CREATE_SERVICE)
	if err != nil {
		return err
	}
	defer func() { _ = m.Disconnect() }() // nothing is left to do
	if s, err := open(m, windows.SERVICE_QUERY_STATUS); err == nil {
		return errors.Join(ErrInstalled, s.Close())
	} else if !errors.Is(err, ErrAbsent) {
		return err
	}
	if err := i.folders(sid); err != nil {
		return err
	}
	if err := i.config(); err != nil {
		return err
	}
	if err := i.source(); err != nil {
		return err
	}
	return i.service(m, account, sid)
}

// folders makes those of the data. The service may read what is in the first,
// where its configuration is, and change what is in the others.
func (i *installation) folders(sid string) error {
	for _, name := range []string{"", "queue", "logs", "identity"} {
		path := filepath.Join(i.folder, name)
		made, err := makeFolder(path, folderList(sid, name != ""), sid)
		if err != nil {
			return err
		}
		if made {
			i.undo = append([]func() error{func() error { return os.Remove(path) }}, i.undo...)
		}
	}
	i.report.did("folder %s", i.folder)
	return nil
}

// firstConfig is for a machine that has none: a service has no standard output,
// where events go otherwise.
const firstConfig = `# Written when the service was installed. rea-agent config show --origin says what
# is in force; docs/configuration.md tells what can stand here.
[logging]
mode = "file"
`

// config writes a first configuration where the default one is to be used and is
// not there.
func (i *installation) config() error {
	if i.o.Config != "" {
		return nil
	}
	path := filepath.Join(i.folder, "agent.toml")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write a first configuration: %w", err)
	}
	i.undo = append([]func() error{func() error { return os.Remove(path) }}, i.undo...)
	if _, err = f.WriteString(firstConfig); err != nil {
		return errors.Join(fmt.Errorf("write a first configuration: %w", err), f.Close())
	}
	i.report.did("configuration %s", path)
	return f.Close()
}

// source registers the event source. What an earlier one left is taken over.
func (i *installation) source() error {
	if k, err := registry.OpenKey(registry.LOCAL_MACHINE, sourceKey, registry.QUERY_VALUE); err == nil {
		_ = k.Close() // nothing was done with it
		if err := eventlog.Remove(Name); err != nil {
			return fmt.Errorf("remove the event source %s: %w", Name, err)
		}
	}
	if err := eventlog.InstallAsEventCreate(Name, eventlog.Info|eventlog.Warning|eventlog.Error); err != nil {
		return fmt.Errorf("register the event source %s: %w", Name, err)
	}
	i.undo = append([]func() error{func() error { return eventlog.Remove(Name) }}, i.undo...)
	i.report.did("event source %s", Name)
	return nil
}

func (i *installation) service(m *mgr.Mgr, account, sid string) error {
	display := i.o.DisplayName
	if display == "" {
		display = DisplayName
	}
	s, err := m.CreateService(Name, i.o.Program, mgr.Config{
		StartType: mgr.StartAutomatic, DelayedAutoStart: true, ErrorControl: mgr.ErrorNormal,
		ServiceStartName: account, DisplayName: display, Description: Description,
	}, arguments(&i.o)...)
	if err != nil {
		return fmt.Errorf("create the service %s: %w", Name, err)
	}
	defer s.Close()
	i.undo = append([]func() error{s.Delete}, i.undo...)
	if err := s.SetRecoveryActions(recovery, uint32(resetAfter/time.Second)); err != nil {
		return fmt.Errorf("set what happens after a fault: %w", err)
	}
	// The rest makes it better, and some of it needs a newer Windows.
	if err := s.SetRecoveryActionsOnNonCrashFailures(true); err != nil {
		i.report.warn("it is restarted after a crash only, not after an end with an error: %v", err)
	}
	if err := setPreshutdown(s.Handle); err != nil {
		i.report.warn("it is not told first when the machine shuts down: %v", err)
	}
	if err := setPrivileges(s.Handle); err != nil {
		i.report.warn("its account keeps more privileges than it needs: %v", err)
	}
	i.report.did("service %s (%s), as %s", Name, display, account)
	if sid == "" {
		return nil // SYSTEM reads all logs
	}
	if err := changeMembers(procAddMembers, sid, windows.ERROR_MEMBER_IN_ALIAS); err != nil {
		i.report.warn("the account is not in the group Event Log Readers (%s), and cannot read the log Security: %v", eventLogReaders, err)
		return nil
	}
	i.report.did("member of the group Event Log Readers (%s)", eventLogReaders)
	return nil
}

// arguments are what the service's program is started with.
func arguments(o *Options) []string {
	if o.Config == "" {
		return []string{"run"}
	}
	return []string{"run", "--config", o.Config}
}

// accountOf returns the account as the service control manager wants it, and its
// SID, or "" for SYSTEM. Accounts with a password cannot be had: those that
// Windows keeps itself need none.
func accountOf(name string) (account, sid string, err error) {
	switch strings.ToLower(strings.TrimPrefix(strings.ToLower(name), `nt authority\`)) {
	case "", strings.ToLower(ownAccount):
		return ownAccount, virtualSID(Name), nil
	case "localsystem", "system":
		return "LocalSystem", "", nil
	case "localservice":
		return `NT AUTHORITY\LocalService`, "S-1-5-19", nil
	case "networkservice":
		return `NT AUTHORITY\NetworkService`, "S-1-5-20", nil
	}
	found, _, _, err := windows.LookupSID("", name)
	if err != nil {
		return "", "", fmt.Errorf("account %q: %w", name, err)
	}
	return name, found.String(), nil
}

// dataFolder is where configuration, queue and logs are.
func dataFolder() string {
	path, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, 0)
	if err != nil {
		path = `C:\ProgramData`
	}
	return filepath.Join(path, Name)
}

// makeFolder makes the folder with that list of rights, and reports whether it
// did. Everybody may make folders in ProgramData: one that was there is taken
// over only from those whom it may belong to, and if it leads nowhere else. It
// is held by a handle meanwhile, so that what was examined is what is changed.
func makeFolder(path, list, sid string) (made bool, err error) {
	sd, err := windows.SecurityDescriptorFromString(list)
	if err != nil {
		return false, fmt.Errorf("rights of %s: %w", path, err)
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return false, err
	}
	sa := windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(sa)) // as CreateDirectory wants it
	err = windows.CreateDirectory(name, &sa)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		return false, &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(name, windows.READ_CONTROL|windows.WRITE_DAC|windows.WRITE_OWNER|windows.FILE_READ_ATTRIBUTES, share, nil,
		windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		return false, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	err = takeOver(h, sd, sid)
	if err != nil {
		err = fmt.Errorf("folder %s: %w", path, err)
	}
	return false, errors.Join(err, windows.CloseHandle(h))
}

// takeOver gives the folder the owner and the list of sd, if it is one and may be
// ours.
func takeOver(h windows.Handle, sd *windows.SECURITY_DESCRIPTOR, sid string) error {
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return err
	}
	if info.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 {
		return fmt.Errorf("it is a link or a reparse point, %w: find out who put it there, and remove it", ErrForeign)
	}
	if info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY == 0 {
		return fmt.Errorf("it is a file, %w: find out who put it there, and remove it", ErrForeign)
	}
	now, err := windows.GetSecurityInfo(h, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("read its owner: %w", err)
	}
	owner, _, err := now.Owner()
	if err != nil {
		return fmt.Errorf("read its owner: %w", err)
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fmt.Errorf("account of this process: %w", err)
	}
	if !owner.IsWellKnown(windows.WinLocalSystemSid) && !owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) && !owner.Equals(user.User.Sid) && owner.String() != sid {
		return fmt.Errorf("it belongs to %s, %w: find out who made it, and remove it", owner, ErrForeign)
	}
	heir, _, err := sd.Owner()
	if err != nil {
		return err
	}
	list, _, err := sd.DACL()
	if err != nil {
		return err
	}
	const what = windows.OWNER_SECURITY_INFORMATION | windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION
	if err := windows.SetSecurityInfo(h, windows.SE_FILE_OBJECT, what, heir, nil, list, nil); err != nil {
		return fmt.Errorf("set its rights: %w", err)
	}
	return nil
}

// setPreshutdown sets how long the system waits when it tells the service first
// that the machine shuts down (SERVICE_PRESHUTDOWN_INFO).
func setPreshutdown(h windows.Handle) error {
	info := struct{ timeout uint32 }{uint32(preshutdown / time.Millisecond)}
	// unsafe.Pointer rule 1: the structure that the level stands for.
	return windows.ChangeServiceConfig2(h, windows.SERVICE_CONFIG_PRESHUTDOWN_INFO, (*byte)(unsafe.Pointer(&info)))
}

// setPrivileges takes all others from the service's token
// (SERVICE_REQUIRED_PRIVILEGES_INFO).
func setPrivileges(h windows.Handle) error {
	block := utf16.Encode([]rune(strings.Join(privileges, "\x00") + "\x00\x00"))
	info := struct{ names *uint16 }{&block[0]}
	// unsafe.Pointer rule 1: the structure that the level stands for.
	return windows.ChangeServiceConfig2(h, windows.SERVICE_CONFIG_REQUIRED_PRIVILEGES_INFO, (*byte)(unsafe.Pointer(&info)))
}

var (
	netapi         = windows.NewLazySystemDLL("netapi32.dll")
	procAddMembers = netapi.NewProc("NetLocalGroupAddMembers")
	procDelMembers = netapi.NewProc("NetLocalGroupDelMembers")
)

// changeMembers puts sid into the group Event Log Readers, or out of it. fine is
// what the call says where nothing is to be done.
func changeMembers(call *windows.LazyProc, sid string, fine syscall.Errno) error {
	group, err := windows.StringToSid(eventLogReaders)
	if err != nil {
		return err
	}
	name, _, _, err := group.LookupAccount("")
	if err != nil {
		return fmt.Errorf("name of the group: %w", err)
	}
	groupName, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return err
	}
	member, err := windows.StringToSid(sid)
	if err != nil {
		return err
	}
	if err := call.Find(); err != nil {
		return err
	}
	info := struct{ sid *windows.SID }{member} // LOCALGROUP_MEMBERS_INFO_0
	// unsafe.Pointer rule 4: converted in the call; info and what it points to
	// live until it returns.
	code, _, _ := call.Call(0, uintptr(unsafe.Pointer(groupName)), 0, uintptr(unsafe.Pointer(&info)), 1)
	if code != 0 && syscall.Errno(code) != fine {
		return syscall.Errno(code)
	}
	return nil
}

// Uninstall stops and removes the service and all that Install made, and with
// purge also what is in its folder.
func Uninstall(ctx context.Context, purge bool) (*Report, error) {
	var r Report
	m, err := connect(windows.SC_MANAGER_CONNECT)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Disconnect() }() // nothing is left to do
	s, err := open(m, windows.SERVICE_QUERY_STATUS|windows.SERVICE_QUERY_CONFIG|windows.SERVICE_STOP|windows.DELETE)
	switch {
	case errors.Is(err, ErrAbsent) && purge: // what an earlier one left
	case err != nil:
		return nil, err
	default:
		if err := remove(ctx, m, s, &r); err != nil {
			return nil, err
		}
	}
	if err := eventlog.Remove(Name); err == nil {
		r.did("event source %s", Name)
	} else if !errors.Is(err, registry.ErrNotExist) {
		return &r, fmt.Errorf("remove the event source %s: %w", Name, err)
	}
	if purge {
		if err := removeData(dataFolder()); err != nil {
			return &r, err
		}
		r.did("folder %s, with all that was in it", dataFolder())
	}
	return &r, nil
}

// remove stops the service, takes its account out of the group, and deletes it.
func remove(ctx context.Context, m *mgr.Mgr, s *mgr.Service, r *Report) error {
	c, err := settingsOf(s.Handle)
	if err == nil {
		err = stop(ctx, s)
	}
	if err != nil {
		return errors.Join(err, s.Close())
	}
	if _, sid, err := accountOf(c.account); err == nil && sid != "" {
		if err := changeMembers(procDelMembers, sid, windows.ERROR_MEMBER_NOT_IN_ALIAS); err != nil {
			r.warn("the account may still be in the group Event Log Readers (%s): %v", eventLogReaders, err)
		} else {
			r.did("membership in the group Event Log Readers (%s)", eventLogReaders)
		}
	}
	if err := errors.Join(s.Delete(), s.Close()); err != nil {
		return fmt.Errorf("delete the service %s: %w", Name, err)
	}
	// It is gone when nobody has a handle of it any more, as services.msc may. It
	// does not run, so what else there is to remove need not wait for that long.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = await(ctx, func() (bool, error) {
		left, err := open(m, windows.SERVICE_QUERY_STATUS)
		if err == nil {
			err = left.Close()
		}
		if errors.Is(err, ErrAbsent) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		r.warn("the service %s is marked for deletion, and goes when programs like services.msc that look at it are closed: %v", Name, err)
		return nil
	}
	r.did("service %s", Name)
	return nil
}

// removeData removes the folder and what is in it, but follows no link: Go's
// RemoveAll removes those as they are.
func removeData(folder string) error {
	info, err := os.Lstat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("folder %s: it is a link or a file, %w", folder, ErrForeign)
	}
	return os.RemoveAll(folder)
}

// Start starts the service, and returns when it runs.
func Start(ctx context.Context) error {
	s, done, err := reach(windows.SERVICE_QUERY_STATUS | windows.SERVICE_START)
	if err != nil {
		return err
	}
	defer done()
	if err := s.Start(); err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
		return fmt.Errorf("start the service %s: %w", Name, err)
	}
	return await(ctx, func() (bool, error) {
		now, err := s.Query()
		if err != nil {
			return false, err
		}
		if now.State == svc.Stopped {
			return false, fmt.Errorf("%w: it ended with code %d at once; the event log Application says why, under %s", ErrFailed, codeOf(&now), Name)
		}
		return now.State == svc.Running, nil
	})
}

// Stop stops the service, and returns when it has stopped.
func Stop(ctx context.Context) error {
	s, done, err := reach(windows.SERVICE_QUERY_STATUS | windows.SERVICE_STOP)
	if err != nil {
		return err
	}
	defer done()
	return stop(ctx, s)
}

func stop(ctx context.Context, s *mgr.Service) error {
	if _, err := s.Control(svc.Stop); err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return fmt.Errorf("stop the service %s: %w", Name, err)
	}
	return await(ctx, func() (bool, error) {
		now, err := s.Query()
		return err == nil && now.State == svc.Stopped, err
	})
}

// Reload has the service read its configuration and certificates again.
func Reload(context.Context) error {
	s, done, err := reach(windows.SERVICE_QUERY_STATUS | windows.SERVICE_PAUSE_CONTINUE) // what ParamChange wants
	if err != nil {
		return err
	}
	defer done()
	if _, err := s.Control(svc.ParamChange); err != nil {
		return fmt.Errorf("reload the service %s: %w", Name, err)
	}
	return nil
}

var states = map[svc.State]State{
	svc.Stopped: Stopped, svc.StartPending: Starting, svc.Running: Running, svc.StopPending: Stopping,
	svc.ContinuePending: Running, svc.PausePending: Running, svc.Paused: Running,
}

// Query asks for the state of the service. Everybody may.
func Query(context.Context) (Status, error) {
	status := Status{Name: Name, State: Absent}
	s, done, err := reach(windows.SERVICE_QUERY_STATUS | windows.SERVICE_QUERY_CONFIG)
	if errors.Is(err, ErrAbsent) {
		return status, nil
	}
	if err != nil {
		return status, err
	}
	defer done()
	now, err := s.Query()
	if err != nil {
		return status, fmt.Errorf("ask for the state of %s: %w", Name, err)
	}
	c, err := settingsOf(s.Handle)
	if err != nil {
		return status, fmt.Errorf("ask for the settings of %s: %w", Name, err)
	}
	status.State, status.PID, status.Code = states[now.State], int(now.ProcessId), codeOf(&now)
	if status.State == Stopped && status.Code != 0 {
		status.State = Failed
	}
	status.Account, status.Command, status.Starts = c.account, c.command, c.starts
	return status, nil
}

// settings are those that a service was made with.
type settings struct{ account, command, starts string }

// settingsOf asks for them one by one: mgr.Service.Config has none of them where
// one is not to be had.
func settingsOf(h windows.Handle) (settings, error) {
	buf := make([]byte, 8<<10) // the most that there is, says QueryServiceConfig
	var n uint32
	// unsafe.Pointer rule 1: the buffer begins with the structure, and what that
	// points to is in the buffer too, which is alive while c is.
	c := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(unsafe.SliceData(buf)))
	if err := windows.QueryServiceConfig(h, c, uint32(len(buf)), &n); err != nil {
		return settings{}, err
	}
	s := settings{account: windows.UTF16PtrToString(c.ServiceStartName), command: windows.UTF16PtrToString(c.BinaryPathName), starts: "by hand"}
	switch c.StartType {
	case mgr.StartAutomatic:
		s.starts = "with the system"
		var delayed windows.SERVICE_DELAYED_AUTO_START_INFO
		// unsafe.Pointer rule 1: the structure that the level stands for.
		err := windows.QueryServiceConfig2(h, windows.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, (*byte)(unsafe.Pointer(&delayed)), uint32(unsafe.Sizeof(delayed)), &n)
		if err == nil && delayed.IsDelayedAutoStartUp != 0 {
			s.starts = "with the system, delayed"
		}
	case mgr.StartDisabled:
		s.starts = "never, it is disabled"
	}
	return s, nil
}

// codeOf returns the code that a service ended with: its own, or the system's. One
// that was never started has none.
func codeOf(now *svc.Status) int {
	switch syscall.Errno(now.Win32ExitCode) {
	case windows.ERROR_SERVICE_SPECIFIC_ERROR:
		return int(now.ServiceSpecificExitCode)
	case windows.ERROR_SERVICE_NEVER_STARTED:
		return 0
	}
	return int(now.Win32ExitCode)
}

// connect opens the service control manager with no more rights than needed.
func connect(rights uint32) (*mgr.Mgr, error) {
	h, err := windows.OpenSCManager(nil, nil, rights)
	if err != nil {
		return nil, fmt.Errorf("open the service control manager: %w", err)
	}
	return &mgr.Mgr{Handle: h}, nil
}

func open(m *mgr.Mgr, rights uint32) (*mgr.Service, error) {
	name, err := windows.UTF16PtrFromString(Name)
	if err != nil {
		return nil, err
	}
	h, err := windows.OpenService(m.Handle, name, rights)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return nil, ErrAbsent
	}
	if err != nil {
		return nil, fmt.Errorf("open the service %s: %w", Name, err)
	}
	return &mgr.Service{Name: Name, Handle: h}, nil
}

// reach opens the service. done closes it, and has nothing to say.
func reach(rights uint32) (s *mgr.Service, done func(), err error) {
	m, err := connect(windows.SC_MANAGER_CONNECT)
	if err != nil {
		return nil, nil, err
	}
	if s, err = open(m, rights); err != nil {
		return nil, nil, errors.Join(err, m.Disconnect())
	}
	return s, func() { _, _ = s.Close(), m.Disconnect() }, nil
}

// await asks until it is done, or ctx ends.
func await(ctx context.Context, done func() (bool, error)) error {
	const often = 100 * time.Millisecond
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrFailed, context.Cause(ctx))
		case <-time.After(often):
		}
	}
}
