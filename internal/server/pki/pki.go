// Package pki is the certificate authority of a server in a folder: its
// certificate and key, a register of what it issued, and a denylist.
//
//	ca.crt         the certificate
//	ca.key         its key; who has it can make agents
//	issued.jsonl   an Issued a line, in the order of issue
//	revoked.jsonl  an identity.Denial a line, as [tls] denylist_file takes it
//	tokens.jsonl   a JoinToken a line, without its secret
//	lock           held by who changes something
//
// A certificate is in the register, durably, before anybody has it: there may be
// some in it that nobody got, but none out there that it does not know.
package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rea-agent/rea/internal/durable"
	"github.com/rea-agent/rea/internal/identity"
)

// The files beside those of the authority.
const (
	Register = "issued.jsonl"
	Revoked  = "revoked.jsonl"
	lock     = "lock"
)

// The roles of certificates.
const (
	Agent  = "agent"
	Server = "server"
)

// An Issued is a certificate as the register has it.
type Issued struct {
	Serial    string    `json:"serial"`
	Role      string    `json:"role"`
	Node      string    `json:"node,omitempty"`  // of an agent
	Names     []string  `json:"names,omitempty"` // of a server
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	SPKI      string    `json:"spki"`
	Issued    time.Time `json:"issued"`
}

// A Folder is an authority in a folder.
type Folder struct {
	Dir       string
	Authority *identity.Authority
}

// Init makes an authority for the organisation in the folder dir. It never
// overwrites.
func Init(dir, org, kind string, life time.Duration) (*Folder, error) {
	a, err := identity.NewAuthority(org, kind, life)
	if err != nil {
		return nil, err
	}
	if err := a.Save(dir); err != nil {
		return nil, err
	}
	f := &Folder{dir, a}
	for _, name := range []string{Register, Revoked} {
		if err := durable.WriteFile(f.path(name), nil, 0o644); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Open opens the authority in the folder dir, to sign.
func Open(dir string) (*Folder, error) {
	a, err := identity.LoadAuthority(filepath.Join(dir, identity.CAFile), filepath.Join(dir, identity.CAKey))
	if err != nil {
		return nil, err
	}
	return &Folder{dir, a}, nil
}

func (f *Folder) path(name string) string { return filepath.Join(f.Dir, name) }

// A Made is a certificate with its key in files.
type Made struct {
	Issued
	Dir   string   `json:"dir"`
	Files []string `json:"files"`
}

// IssueAgent makes a key and a certificate for an agent and writes both, and the
// authority's certificate, into the folder out.
func (f *Folder) IssueAgent(node, kind, out string, life time.Duration) (*Made, error) {
	return f.issue(identity.AgentFile, kind, out, func(public crypto.PublicKey) (*x509.Certificate, error) {
		return f.Authority.SignAgent(public, node, life)
	})
}

// IssueServer is IssueAgent for a server that is called by names.
func (f *Folder) IssueServer(names []string, kind, out string, life time.Duration) (*Made, error) {
	return f.issue(identity.ServerFile, kind, out, func(public crypto.PublicKey) (*x509.Certificate, error) {
		return f.Authority.SignServer(public, names, life)
	})
}

func (f *Folder) issue(what, kind, out string, sign func(crypto.PublicKey) (*x509.Certificate, error)) (*Made, error) {
	if err := identity.Vacant(out, what); err != nil {
		return nil, err
	}
	key, err := identity.NewKey(kind)
	if err != nil {
		return nil, err
	}
	cert, err := sign(key.Public())
	if err != nil {
		return nil, err
	}
	issued, err := f.enter(cert)
	if err != nil {
		return nil, err
	}
	files, err := f.Authority.SavePair(out, what, cert, key)
	if err != nil {
		return nil, err
	}
	return &Made{issued, out, files}, nil
}

// Sign makes a certificate for an agent that made its key itself. Of the request
// only the key is taken.
func (f *Folder) Sign(csr *x509.CertificateRequest, node string, life time.Duration) (*x509.Certificate, error) {
	cert, err := f.Authority.Sign(csr, node, life)
	if err != nil {
		return nil, err
	}
	if _, err := f.enter(cert); err != nil {
		return nil, err
	}
	return cert, nil
}

// enter puts a certificate into the register.
func (f *Folder) enter(cert *x509.Certificate) (Issued, error) {
	i := Issued{
		Serial: identity.Serial(cert), Role: Server, Names: identity.Names(cert), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		SPKI: identity.SPKI(cert), Issued: time.Now().UTC().Truncate(time.Second),
	}
	if node, err := identity.Node(cert); err == nil {
		i.Role, i.Node = Agent, node
	}
	line, err := json.Marshal(i)
	if err != nil {
		return i, fmt.Errorf("write the register: %w", err)
	}
	return i, f.alone(func() error { return appendLine(f.path(Register), append(line, '\n')) })
}

// alone does something that changes the folder while nobody else does.
func (f *Folder) alone(do func() error) error {
	l, err := durable.Lock(f.path(lock))
	for end := time.Now().Add(lockTime); errors.Is(err, durable.ErrLocked) && time.Now().Before(end); l, err = durable.Lock(f.path(lock)) {
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Dir, err)
	}
	return errors.Join(do(), l.Close())
}

// lockTime is how long another one may take to change something.
const lockTime = 10 * time.Second

// appendLine appends a line durably. What a crash left of another one, which was
// never answered for, is cut off.
func appendLine(name string, line []byte) error {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("write the register: %w", err)
	}
	end, err := lastLine(file)
	if err == nil {
		err = file.Truncate(end)
	}
	if err == nil {
		_, err = file.WriteAt(line, end)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write the register: %w", err)
	}
	return nil
}

// lastLine returns where the last whole line of a file ends. A line is far
// shorter than what is read.
func lastLine(file *os.File) (int64, error) {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	from := max(0, size-1<<20)
	tail := make([]byte, size-from)
	if _, err := file.ReadAt(tail, from); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return from + int64(bytes.LastIndexByte(tail, '\n')+1), nil
}

// List returns what the authority in a folder issued, the oldest first.
func List(dir string) ([]Issued, error) {
	name := filepath.Join(dir, Register)
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the register: %w", err)
	}
	var list []Issued
	n := 0
	for line := range bytes.Lines(b) {
		n++
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // a crash cut it off, and what it tells of was never given out
		}
		var i Issued
		if err := json.Unmarshal(line, &i); err != nil {
			return nil, fmt.Errorf("read the register %s: line %d: %w", name, n, err)
		}
		list = append(list, i)
	}
	return list, nil
}

// ErrUnknown says that the register has no such certificate.
var ErrUnknown = errors.New("the authority has issued no such certificate")

// A Revocation is what Revoke denied, and what it left. Agents renew, each time with
// a key of its own, so to deny a certificate does not reach what its holder has got
// by it.
type Revocation struct {
	identity.Denial
	Agent  string   `json:"agent,omitempty"`  // whose the certificate is; "" where the agent is denied, or not known
	Others []string `json:"others,omitempty"` // serial numbers of certificates of Agent that are let in
}

// Revoke denies which, the serial number of a certificate or the name of an agent:
// the certificate and whatever has its key, or the agent with whatever
// certificate. It writes that into the denylist file; "" is the one of the
// folder. Unless foreign, which must be in the register.
func Revoke(dir, which, reason, file string, foreign bool) (Revocation, error) {
	f := &Folder{Dir: dir}
	r := Revocation{Denial: identity.Denial{Time: time.Now().UTC().Truncate(time.Second), Reason: reason}}
	if node, err := identity.ParseNode(which); err == nil {
		r.Node = node
	} else if r.Serial, err = identity.ParseSerial(which); err != nil {
		return r, fmt.Errorf("%q is no serial number and no agent: %w", which, ErrUnknown)
	}
	if !foreign {
		if err := r.find(dir); err != nil {
			return r, err
		}
	}
	if file == "" {
		file = f.path(Revoked)
	}
	err := f.alone(func() error { return deny(file, r.Denial) })
	if err == nil && r.Agent != "" {
		err = r.leave(dir, file)
	}
	return r, err
}

// find sees that the register has what r denies, and adds the key of a certificate
// and whose it is.
func (r *Revocation) find(dir string) error {
	list, err := List(dir)
	if err != nil {
		return err
	}
	for _, i := range list {
		switch {
		case r.Node != "" && i.Node == r.Node:
			return nil
		case r.Serial != "" && i.Serial == r.Serial:
			r.SPKI, r.Agent = i.SPKI, i.Node
			return nil
		}
	}
	return fmt.Errorf("%s%s: %w", r.Serial, r.Node, ErrUnknown)
}

// leave notes what of the agent is let in, as the register and the denylist are now.
func (r *Revocation) leave(dir, file string) error {
	list, err := List(dir)
	if err != nil {
		return err
	}
	denied, err := identity.LoadDenylist(file)
	if err != nil {
		return err
	}
	for _, i := range list {
		if i.Node == r.Agent && time.Now().Before(i.NotAfter) && denied.DeniesIssued(i.Serial, i.SPKI, i.Node) == nil {
			r.Others = append(r.Others, i.Serial)
		}
	}
	if denied.DeniesIssued("", "", r.Agent) != nil {
		r.Agent = ""
	}
	return nil
}

// deny adds d to a denylist. The file is replaced in one step: a server that
// looks at it sees the old list or the new one.
func deny(file string, d identity.Denial) error {
	if _, err := identity.LoadDenylist(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it would be replaced
	}
	b, err := durable.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the denylist: %w", err)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	line, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("write the denylist: %w", err)
	}
	return durable.WriteFile(file, append(append(b, line...), '\n'), 0o644)
}
