package server

import (
	"errors"
	"path/filepath"

	"github.com/rea-agent/rea/internal/access"
	"github.com/rea-agent/rea/internal/identity"
)

// ErrAccess is that others could read or change what the server relies on.
var ErrAccess = access.ErrAccess

// Examine refuses files and folders of the configuration that others could
// change, or a key that others could read, and tells all of them. file is where
// the configuration is, or "". It is for who runs the server, before Run. What is
// read again later is examined again then.
func Examine(c *Config, file string) error {
	errs := []error{
		access.Guarded("server certificate", c.TLS.CertFile),
		access.Secret("server key", c.TLS.KeyFile),
		access.Guarded("client certificate authority", c.TLS.ClientCAFile),
		access.Folder("data folder", c.Server.DataDir),
	}
	if list := c.TLS.DenylistFile; list != "" {
		errs = append(errs, access.Guarded("denylist", list))
	}
	if dir := c.Enroll.PKIDir; dir != "" {
		errs = append(errs,
			access.Folder("folder of the authority", dir),
			access.Secret("key of the authority", filepath.Join(dir, identity.CAKey)))
	}
	if file != "" {
		errs = append(errs, access.Guarded("configuration", file))
	}
	return errors.Join(errs...)
}
