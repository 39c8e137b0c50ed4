package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/durable"
)

// A Denial refuses the certificate with a serial number, all with a key, or all
// of an agent. One of the three is there; where there are more, each refuses.
type Denial struct {
	Time   time.Time `json:"time,omitzero"`
	Serial string    `json:"serial,omitempty"` // hexadecimal
	SPKI   string    `json:"spki,omitempty"`   // base64 of the SHA-256 of the SubjectPublicKeyInfo
	Node   string    `json:"node,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// A Denylist is who is not let in although an authority vouches for them.
type Denylist struct {
	list   []Denial
	serial map[string]*Denial
	spki   map[string]*Denial
	node   map[string]*Denial
}

// Serial writes a certificate's serial number as denials have it.
func Serial(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

// SPKI returns the base64 of the SHA-256 of a certificate's public key, as pins
// and denials have it.
func SPKI(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// LoadDenylist reads a file with a Denial a line, as JSON. Empty lines and those
// that begin with # mean nothing. A line that is not understood is an error, since
// passing over it would let somebody in.
func LoadDenylist(name string) (*Denylist, error) {
	const what = "denylist"
	info, err := os.Stat(name)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxFile) {
		return nil, &FileError{what, name, fmt.Sprintf("is no file of at most %d MiB", maxFile>>20), "name the right file, and take out what has expired", nil}
	}
	b, err := durable.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &FileError{what, name, "does not exist", "correct the path, or make an empty file", err}
	case errors.Is(err, fs.ErrPermission):
		return nil, &FileError{what, name, "may not be read", "make it readable for the account that this program runs as", err}
	case err != nil:
		return nil, &FileError{what, name, "cannot be read", err.Error(), err}
	}
	if err := guarded(what, name); err != nil { // who can write it lets in and shuts out
		return nil, err
	}
	d := &Denylist{}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		entry, err := parseDenial(line)
		if err != nil {
			return nil, &FileError{what, name, fmt.Sprintf("has a mistake in line %d", n), err.Error(), err}
		}
		d.add(entry)
	}
	return d, nil
}

func parseDenial(line []byte) (d Denial, err error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return d, errors.New("want one object a line")
	}
	if d.Serial == "" && d.SPKI == "" && d.Node == "" {
		return d, errors.New("want serial, spki or node")
	}
	if d.Serial != "" {
		if d.Serial, err = ParseSerial(d.Serial); err != nil {
			return d, err
		}
	}
	if d.SPKI != "" {
		if _, err := parsePins([]string{d.SPKI}); err != nil {
			return d, err
		}
		d.SPKI = strings.TrimPrefix(d.SPKI, "sha256/")
	}
	if d.Node != "" && !isUUID(d.Node) {
		return d, fmt.Errorf("node %q %w", d.Node, ErrNode)
	}
	return d, nil
}

// ParseSerial reads a serial number as other programs write it: hexadecimal, of
// either case, with colons and zeros before it.
func ParseSerial(s string) (string, error) {
	n, ok := new(big.Int).SetString(strings.ReplaceAll(s, ":", ""), 16)
	if !ok || n.Sign() <= 0 || len(s) > 100 {
		return "", fmt.Errorf("%q is no serial number, which is hexadecimal", s)
	}
	return n.Text(16), nil
}

// ParseNode sees that s can name an agent.
func ParseNode(s string) (string, error) {
	if !isUUID(s) {
		return "", fmt.Errorf("%q %w", s, ErrNode)
	}
	return s, nil
}

func (d *Denylist) add(e Denial) {
	if d.serial == nil {
		d.serial, d.spki, d.node = map[string]*Denial{}, map[string]*Denial{}, map[string]*Denial{}
	}
	d.list = append(d.list, e)
	if e.Serial != "" {
		d.serial[e.Serial] = &e
	}
	if e.SPKI != "" {
		d.spki[e.SPKI] = &e
	}
	if e.Node != "" {
		d.node[e.Node] = &e
	}
}

// All returns the denials in the order of the file.
func (d *Denylist) All() []Denial { return d.list }

// Denies returns why who shows these certificates is refused, or nil.
func (d *Denylist) Denies(shown []*x509.Certificate) *Denial {
	if d == nil || len(d.list) == 0 {
		return nil
	}
	for _, c := range shown {
		node, err := Node(c)
		if err != nil {
			node = ""
		}
		if e := d.DeniesIssued(Serial(c), SPKI(c), node); e != nil {
			return e
		}
	}
	return nil
}

// DeniesIssued is Denies for one certificate of which these are known.
func (d *Denylist) DeniesIssued(serial, spki, node string) *Denial {
	for _, e := range []*Denial{d.serial[serial], d.spki[spki], d.node[node]} {
		if e != nil {
			return e
		}
	}
	return nil
}
