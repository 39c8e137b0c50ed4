package agent

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
)

// nodeOf returns the id under which this machine reports: the one configured;
// else the one in the certificate, which is the one that a server believes; else
// one derived from the machine's own id, so that it survives a new
// installation; else, where a machine has none, a random one for this run.
func nodeOf(configured, certified string, machine func() (string, error)) (node, origin string) {
	if configured != "auto" {
		return configured, "configuration"
	}
	if certified != "" {
		return certified, "certificate"
	}
	if id, err := machine(); err == nil && strings.TrimSpace(id) != "" {
		return derive(strings.TrimSpace(id)), "machine id"
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails: it ends the program instead
	return uuid(random[:], 4), "random for this run"
}

// derive makes an id of our own from the machine's id, which identifies the
// machine to everybody and so is not given away (machine-id(5) asks for that).
func derive(machineID string) string {
	h := hmac.New(sha256.New, []byte(machineID))
	h.Write([]byte("rea-agent node id"))
	return uuid(h.Sum(nil), 8)
}

// uuid writes the first 16 bytes as a UUID of that version (RFC 9562).
func uuid(b []byte, version byte) string {
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
