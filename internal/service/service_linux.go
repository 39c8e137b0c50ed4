package service

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rea-agent/rea/internal/access"
)

// template is the unit as packages install it; packaging/systemd has a copy.
//
//go:embed rea-agent.service
var template string

const (
	unitFile = "/etc/systemd/system/" + Unit
	ownUser  = "rea" // as the template says
)

// dataFolders are what purging removes.
var dataFolders = []string{"/var/lib/rea", "/var/log/rea", "/etc/rea"}

// A machine is where the service is installed. Tests lay out another one.
type machine struct {
	root string // "" of this one
	run  func(ctx context.Context, stdin, name string, args ...string) (string, error)
	uid  int
}

func thisMachine() *machine { return &machine{run: command, uid: os.Geteuid()} }

// command runs a program and returns what it printed; where it fails, its words
// are the error's.
func command(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0")
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		err = fmt.Errorf("%w: %s is not there", ErrManager, name)
	case err != nil && words.Len() > 0:
		err = fmt.Errorf("%s %s: %s: %w", name, strings.Join(args, " "), strings.Join(strings.Fields(words.String()), " "), err)
	case err != nil:
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return out.String(), err
}

// Install makes the user and the unit, and has systemd start it with the system.
// What it made is removed again where it fails, but for the user. It does not
// start the service.
func Install(ctx context.Context, o Options) (*Report, error) { return thisMachine().install(ctx, o) }

func (m *machine) install(ctx context.Context, o Options) (*Report, error) {
	if err := m.mayChange(); err != nil {
		return nil, err
	}
	if err := access.Guarded("program", o.Program); err != nil {
		return nil, err
	}
	// A package installs its own where this one would hide it.
	for _, file := range []string{unitFile, "/usr/lib/systemd/system/" + Unit, "/lib/systemd/system/" + Unit} {
		if _, err := os.Lstat(m.root + file); !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(fmt.Errorf("%w: %s", ErrInstalled, file), err)
		}
	}
	text, err := unit(&o)
	if err != nil {
		return nil, err
	}
	var r Report
	user := o.Account
	if user == "" {
		user = ownUser
		line := "u " + ownUser + ` - "` + DisplayName + `" ` + dataFolders[0] + "\n"
		if _, err := m.run(ctx, line, "systemd-sysusers", "-"); err != nil {
			return nil, fmt.Errorf("make the user %s: %w", ownUser, err)
		}
		r.did("user %s", ownUser)
	}
	if err := m.writeUnit(text); err != nil {
		return nil, err
	}
	if _, err = m.run(ctx, "", "systemctl", "daemon-reload"); err == nil {
		_, err = m.run(ctx, "", "systemctl", "enable", Unit)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(m.root+unitFile))
	}
	r.did("unit %s, as %s", unitFile, user)
	return &r, nil
}

// writeUnit makes the unit, and never takes what is there.
func (m *machine) writeUnit(text string) error {
	f, err := os.OpenFile(m.root+unitFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return fmt.Errorf("write the unit: %w", err)
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(0o644) // whatever the mask says: everybody may know of it
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the unit: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// mayChange says that only root may, before anything is done by halves.
func (m *machine) mayChange() error {
	if m.uid != 0 {
		return fmt.Errorf("change the services of this machine: %w", syscall.EPERM)
	}
	return nil
}

// unit fills the template in.
func unit(o *Options) (string, error) {
	if strings.ContainsFunc(o.DisplayName+o.Account, func(r rune) bool { return r < ' ' }) {
		return "", errors.New("the name of a service has no control characters")
	}
	config := o.Config
	if config == "" {
		config = "/etc/rea/agent.toml"
	}
	start := quoteUnit(o.Program) + " run"
	if _, err := os.Stat(config); o.Config != "" || err == nil {
		start += " --config " + quoteUnit(config)
	}
	text := replaceLine(template, "ExecStart=", start)
	if o.DisplayName != "" {
		text = replaceLine(text, "Description=", strings.ReplaceAll(o.DisplayName, "%", "%%"))
	}
	if o.Account != "" {
		text = replaceLine(text, "User=", o.Account)
		text = strings.Replace(text, "Group="+ownUser+"\n", "", 1)
	}
	return text, nil
}

func replaceLine(text, key, value string) string {
	before, rest, _ := strings.Cut(text, "\n"+key)
	_, after, _ := strings.Cut(rest, "\n")
	return before + "\n" + key + value + "\n" + after
}

// quoteUnit makes one word of a command line of systemd of s (systemd.service(5)).
func quoteUnit(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`).Replace(s)
	if strings.ContainsAny(s, " \t\"'\\;") {
		return `"` + s + `"`
	}
	return s
}

// Uninstall stops and removes the unit that Install made, and with purge also the
// data, the configuration and the user. Without it the user stays: files that
// belong to nobody would be another one's some day.
func Uninstall(ctx context.Context, purge bool) (*Report, error) {
	return thisMachine().uninstall(ctx, purge)
}

func (m *machine) uninstall(ctx context.Context, purge bool) (*Report, error) {
	if err := m.mayChange(); err != nil {
		return nil, err
	}
	var r Report
	_, err := os.Lstat(m.root + unitFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && purge: // what an earlier one left
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrAbsent
	case err != nil:
		return nil, err
	default:
		if err := m.remove(ctx, &r); err != nil {
			return nil, err
		}
	}
	if purge {
		err = m.purge(ctx, &r)
	}
	return &r, err
}

func (m *machine) remove(ctx context.Context, r *Report) error {
	if _, err := m.run(ctx, "", "systemctl", "disable", "--now", Unit); err != nil {
		return err
	}
	if err := os.Remove(m.root + unitFile); err != nil {
		return err
	}
	if _, err := m.run(ctx, "", "systemctl", "daemon-reload"); err != nil {
		return err
	}
	r.did("unit %s", unitFile)
	return nil
}

func (m *machine) purge(ctx context.Context, r *Report) error {
	for _, folder := range dataFolders {
		if _, err := os.Lstat(m.root + folder); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(m.root + folder); err != nil { // follows no link
			return err
		}
		r.did("folder %s, with all that was in it", folder)
	}
	users, err := os.ReadFile(m.root + "/etc/passwd")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(strings.Split(string(users), "\n"), func(line string) bool { return strings.HasPrefix(line, ownUser+":") }) {
		return nil
	}
	if _, err := m.run(ctx, "", "userdel", ownUser); err != nil {
		r.warn("the user %s stays: %v", ownUser, err)
		return nil
	}
	r.did("user %s", ownUser)
	return nil
}

// Start starts the service, and returns when it runs.
func Start(ctx context.Context) error { return thisMachine().control(ctx, "start") }

// Stop stops the service, and returns when it has stopped.
func Stop(ctx context.Context) error { return thisMachine().control(ctx, "stop") }

// Reload has the service read its configuration and certificates again.
func Reload(ctx context.Context) error { return thisMachine().control(ctx, "reload") }

func (m *machine) control(ctx context.Context, verb string) error {
	status, err := m.query(ctx)
	if err != nil {
		return err
	}
	if status.State == Absent {
		return ErrAbsent
	}
	if err := m.mayChange(); err != nil {
		return err
	}
	if _, err := m.run(ctx, "", "systemctl", verb, Unit); err != nil {
		return fmt.Errorf("%w: %w; journalctl -u %s says why", ErrFailed, err, strings.TrimSuffix(Unit, filepath.Ext(Unit)))
	}
	return nil
}

// Query asks for the state of the service. Everybody may.
func Query(ctx context.Context) (Status, error) { return thisMachine().query(ctx) }

func (m *machine) query(ctx context.Context) (Status, error) {
	status := Status{Name: Unit, State: Absent}
	if _, err := os.Lstat(m.root + "/run/systemd/system"); err != nil {
		return status, fmt.Errorf("%w: systemd does not run on this machine", ErrManager)
	}
	text, err := m.run(ctx, "", "systemctl", "show", Unit, "--property=LoadState,ActiveState,MainPID,UnitFileState,User,ExecStart,ExecMainStatus")
	if err != nil {
		return status, err
	}
	p := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		p[key] = value
	}
	if p["LoadState"] == "not-found" {
		return status, nil
	}
	status.State = unitState(p["ActiveState"])
	status.PID, _ = strconv.Atoi(p["MainPID"]) // 0 where there is none
	if status.State == Failed {
		status.Code, _ = strconv.Atoi(p["ExecMainStatus"])
	}
	status.Account, status.Command = p["User"], commandLine(p["ExecStart"])
	status.Starts = "by hand"
	if p["UnitFileState"] == "enabled" {
		status.Starts = "with the system"
	}
	return status, nil
}

func unitState(active string) State {
	switch active {
	case "active", "reloading":
		return Running
	case "activating":
		return Starting
	case "deactivating":
		return Stopping
	case "failed":
		return Failed
	}
	return Stopped
}

// commandLine finds it in what systemctl show says of ExecStart: { path=… ;
// argv[]=… ; …}.
func commandLine(text string) string {
	_, text, _ = strings.Cut(text, "argv[]=")
	line, _, _ := strings.Cut(text, " ; ")
	return line
}
