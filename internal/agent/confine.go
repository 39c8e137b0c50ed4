package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/rea-agent/rea/internal/confine"
	"github.com/rea-agent/rea/internal/status"
)

// ErrKernel is that the kernel cannot confine the agent, which has to be.
var ErrKernel = confine.ErrKernel

// A confinement is what the agent took from itself.
type confinement struct {
	report status.Confinement
	writes []string // folders in which it may write
	needs  []string // files that are read again while it runs, and could be then
}

// Confine takes from the process what the agent does not need, for ever and for
// every thread: it is for a program that does nothing else. It is called after
// New, which opens, and before Run. file is where the configuration is, or "". An
// error closes the agent.
func (a *Agent) Confine(file string) error {
	mode := a.o.Config.Agent.Landlock
	if mode == "off" {
		a.confined.report.State = status.Unconfined
		a.o.Log.Warn(`the agent is not confined: landlock = "off" in [agent]`)
		return nil
	}
	rules, needs := rulesOf(&a.o.Config, file, os.Geteuid() == 0)
	s, err := rules.Apply(mode == "require")
	a.confined.report.ABI = s.ABI
	switch {
	case err != nil && mode == "require":
		return errors.Join(err, a.output.close())
	case err != nil:
		a.confined.report.State = status.Unconfined
		a.o.Log.Warn("the agent is not confined", "error", err.Error())
	case !s.File:
		a.confined.report.State = status.Unavailable
		if runtime.GOOS == "linux" {
			a.o.Log.Warn("the agent is not confined: the kernel has no Landlock, or it was not enabled at boot")
		}
	default:
		a.confined.report.State = status.Confined
		if !s.TCP {
			a.confined.report.State = status.ConfinedFiles
		}
		a.confined.writes = rules.Write
		a.confined.needs = slices.DeleteFunc(needs, func(path string) bool { return readable(path) != nil })
		a.o.Log.Info("confined by Landlock", "abi", s.ABI, "files", s.File, "tcp", s.TCP)
	}
	return nil
}

// readable says why a file cannot be read. What is no file is not opened, which
// could wait for ever.
func readable(path string) error {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err == nil {
		_ = f.Close() // nothing was done with it
	}
	return err
}

// reportConfinement reports how far the agent is confined, and degrades it where
// it can no longer read a file. A right is to a file or a folder and not to a
// name: what takes the place of a file that was given alone is another one.
func (a *Agent) reportConfinement(r *status.Report, worse func(status.State, string, ...any)) {
	if a.confined.report.State == "" {
		return // this program does not confine it
	}
	report := a.confined.report
	for _, path := range a.confined.needs {
		if errors.Is(readable(path), fs.ErrPermission) {
			worse(status.Degraded, "%s was replaced since the agent confined itself, or its mode changed, and cannot be read any more: start the agent again", path)
		}
	}
	if why := a.confinedRenewal(a.loaded.Load()); why != "" {
		worse(status.Degraded, "%s", why)
	}
	r.Confinement = &report
}

// confinedRenewal says why a confined agent could not write the certificate that it
// is to renew, or "". What it may write is settled at its start, and renewal can be
// switched on, and another file be named, later.
func (a *Agent) confinedRenewal(t *TLSSection) string {
	state := a.confined.report.State
	if t == nil || !t.Renew || state != status.Confined && state != status.ConfinedFiles {
		return ""
	}
	dir := filepath.Dir(t.ClientCert)
	switch {
	case slices.ContainsFunc(a.confined.writes, func(w string) bool { return strings.HasPrefix(written(dir)+"/", w+"/") }):
		return ""
	case top(dir):
		return fmt.Sprintf("tls.renew is on, but the agent is confined, and never to a folder at the top like %s: move client_cert into a folder of its own, and start the agent again", dir)
	}
	return fmt.Sprintf("tls.renew is on for %s, where the agent may not write, since it confined itself before: start the agent again", t.ClientCert)
}

// rulesOf lists what the agent needs after its start, and those files among it
// that it reads again. A new collector that reads
// a file of its own adds it here; one that executes a program, like journalctl,
// would need its program and libraries under rights to execute, which confine does
// not have so far, and /dev/null.
func rulesOf(c *Config, file string, root bool) (r confine.Rules, needs []string) {
	r.Read = []string{"/proc", "/sys", "/usr/share/zoneinfo", "/run/host/container-manager", "/run/systemd/container"}
	system := []string{"/etc/os-release", "/usr/lib/os-release", "/etc/localtime", "/etc/timezone", "/etc/passwd"}
	var named []string
	if key := c.Redact.HashKeyFile; key != "" {
		named = append(named, key)
	}
	if file != "" {
		named = append(named, file)
	}
	if c.Logging.Mode == "file" {
		r.Write = append(r.Write, written(filepath.Dir(c.Logging.FilePath)))
	}
	if c.Networking.Enabled {
		r.Write = append(r.Write, written(c.Networking.QueueDir))
		system = append(system, "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")
		r.Connect = ports(&c.Networking)
		for _, f := range []string{c.TLS.CAFile, c.TLS.ClientCert, c.TLS.ClientKey} {
			if f != "" {
				named = append(named, f)
			}
		}
		if dir := filepath.Dir(c.TLS.ClientCert); c.TLS.Renew && !top(dir) { // top ones hold too much of others
			r.Write = append(r.Write, written(dir))
		}
		if c.TLS.CAFile == "" {
			r.Read = append(r.Read, authorities()...)
		}
	}
	if c.Status.Enabled {
		r.Bind = []uint16{uint16(c.Status.Port)}
	}
	for _, f := range named {
		r.Read = append(r.Read, around(f)...)
	}
	r.Read = append(r.Read, settings(system, root)...)
	slices.Sort(r.Read)
	r.Read = slices.Compact(r.Read)
	return r, append(named, system...)
}

// settings returns how the system's settings can be read for as long as the agent
// runs. They are replaced, not changed, when a network or an account comes and
// goes, so the right has to be to their folder. There a user without rights of
// its own may read what everybody may. Root could read all of it, keys and the
// hashes of passwords, so it gets the files alone.
func settings(files []string, root bool) []string {
	var read []string
	if !root {
		read = append(read, "/etc")
	}
	for _, f := range files {
		for _, path := range around(f) {
			if root || filepath.Dir(path) != "/etc" {
				read = append(read, path)
			}
		}
	}
	return read
}

// around returns what must be readable so that a file can be read again after it
// was replaced: the folder that it is in, and that of what it links to. Folders at
// the top, as /etc and /root, hold too much of others: there it is the file alone.
func around(file string) []string {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil
	}
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		real = file // not there yet
	}
	var places []string
	if dir := filepath.Dir(file); real != file && !top(dir) {
		places = append(places, dir) // the link may become a file
	}
	if dir := filepath.Dir(real); !top(dir) {
		return append(places, dir)
	}
	return append(places, real)
}

func top(dir string) bool { return filepath.Dir(dir) == "/" }

// written returns the folder that dir is, which is there, without links.
func written(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}

// authorities returns where Go looks for the system's certificate authorities
// (crypto/x509, root_linux.go), and where what lies there links to.
func authorities() []string {
	read := []string{
		"/etc/ssl/certs", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem", "/etc/pki/tls/certs", "/etc/pki/tls/cacert.pem",
		"/etc/pki/ca-trust/extracted", "/etc/ca-certificates", "/var/lib/ca-certificates",
		"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/system/etc/security/cacerts",
	}
	if f := os.Getenv("SSL_CERT_FILE"); f != "" {
		read = append(read, around(f)...)
	}
	return append(read, filepath.SplitList(os.Getenv("SSL_CERT_DIR"))...)
}

// ports returns the TCP ports that sending connects to: the server's or that of
// the proxy before it, and that of DNS, which falls back to TCP.
func ports(n *NetworkingSection) []uint16 {
	target, err := url.Parse(n.Endpoint)
	if err != nil {
		return nil
	}
	if p := proxyOf(n, target); p != nil {
		target = p
	}
	port := target.Port()
	if port == "" {
		port = map[string]string{"http": "80", "socks5": "1080"}[target.Scheme]
	}
	if port == "" {
		port = "443"
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil
	}
	list := []uint16{uint16(number)}
	if _, err := netip.ParseAddr(target.Hostname()); err != nil {
		list = append(list, 53)
	}
	return list
}

// proxyOf returns the proxy that requests to target go through, or nil.
func proxyOf(n *NetworkingSection, target *url.URL) *url.URL {
	if n.Proxy != "" {
		p, _ := url.Parse(n.Proxy) // as httpClient did, which refused another one
		return p
	}
	p, _ := http.ProxyFromEnvironment(&http.Request{URL: target})
	return p
}
