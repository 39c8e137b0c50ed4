package agent

import (
	"errors"

	"github.com/rea-agent/rea/internal/access"
)

// ErrAccess is that others could read or change what the agent relies on.
var ErrAccess = access.ErrAccess

// Examine refuses files and folders of the configuration that others could
// change, or keys that others could read, and tells all of them. file is where
// the configuration is, or "". It is for who runs the agent, before New. What is
// read again later is examined again then.
func Examine(c *Config, file string) error {
	var errs []error
	if file != "" {
		errs = append(errs, access.Guarded("configuration", file))
	}
	if c.Logging.Mode == "file" {
		errs = append(errs, access.Guarded("events file", c.Logging.FilePath))
	}
	if c.Redact.HashKeyFile != "" {
		errs = append(errs, access.Secret(hashKey, c.Redact.HashKeyFile))
	}
	if c.Networking.Enabled {
		errs = append(errs, access.Folder("queue", c.Networking.QueueDir))
		for _, f := range []struct {
			what, file string
			check      func(what, file string) error
		}{
			{"certificate authority", c.TLS.CAFile, access.Guarded},
			{"client certificate", c.TLS.ClientCert, access.Guarded},
			{"client key", c.TLS.ClientKey, access.Secret},
		} {
			if f.file != "" {
				errs = append(errs, f.check(f.what, f.file))
			}
		}
	}
	return errors.Join(errs...)
}
