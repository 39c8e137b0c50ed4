package agent

import (
	"context"
	"crypto/x509"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/enroll"
	"github.com/rea-agent/rea/internal/identity"
	"github.com/rea-agent/rea/internal/trust"
	"github.com/rea-agent/rea/internal/wire"
)

// An Enrolment says how a machine becomes an agent, an Enrolled what came of it.
type (
	Enrolment = enroll.Options
	Enrolled  = enroll.Enrolled
	FileError = identity.FileError
)

// What keeps a machine from becoming an agent.
var (
	ErrAsked       = identity.ErrAsked
	ErrToken       = identity.ErrToken
	ErrStranger    = identity.ErrStranger
	ErrIssued      = identity.ErrIssued
	ErrServer      = enroll.ErrServer
	ErrUnreachable = enroll.ErrUnreachable
	ErrNotEnrolled = enroll.ErrRefused
	ErrServerBusy  = enroll.ErrBusy
)

// enrolTime is how long enrolling may take.
const enrolTime = 30 * time.Second

// Enrol makes this machine an agent.
func Enrol(ctx context.Context, o Enrolment) (*Enrolled, error) {
	o.Timeout = enrolTime
	return enroll.Enroll(ctx, o)
}

// KeyKinds are the kinds of keys that can be made.
func KeyKinds() []string { return []string{identity.ECDSA, identity.Ed25519} }

// DefaultIdentity is the folder of what makes this machine an agent. It is beside
// the queue, not the configuration: the agent writes there.
func DefaultIdentity() string { return identityFolder(runtime.GOOS, os.Getenv("ProgramData")) }

func identityFolder(goos, programData string) string {
	if goos == "windows" {
		return windowsFolder(programData) + `\identity`
	}
	return "/var/lib/rea/identity"
}

// renewer renews the certificate in use, while the configuration says so.
func (a *Agent) renewer(k *trust.Keeper, client *http.Client) *enroll.Renewer {
	return enroll.NewRenewer(enroll.RenewerOptions{
		Current: func() (*x509.Certificate, string) {
			if t := a.loaded.Load(); t.Renew {
				return k.Set().Leaf, t.ClientCert
			}
			return nil, ""
		},
		Written: k.Reload,
		Client:  client, URL: strings.TrimSuffix(a.o.Config.Networking.Endpoint, "/") + wire.RenewPath, Agent: "rea-agent/" + a.o.Version,
		Metrics: a.metrics, Log: a.o.Log,
	})
}
