package server

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/wire"
)

// Config is the whole configuration of a server: one field for each section of
// the file. docs/configuration.md tells what the keys mean, in the words of Keys.
type Config struct {
	Server  ServerSection
	TLS     TLSSection
	Enroll  EnrollSection
	Limits  LimitsSection
	Status  StatusSection
	Logging LoggingSection
}

// ServerSection is [server].
type ServerSection struct {
	Listen  string // host:port
	DataDir string
}

// TLSSection is [tls].
type TLSSection struct {
	CertFile, KeyFile, ClientCAFile string

	DenylistFile string // "": nobody is denied
}

// EnrollSection is [enroll].
type EnrollSection struct {
	Listen string        // host:port; "": no machine can enrol
	PKIDir string        // the folder of the authority; "": nothing is issued
	Life   time.Duration // of the certificates of agents
}

// LimitsSection is [limits]: how much a client may ask of the server.
type LimitsSection struct {
	MaxBodyBytes     int64 // of a request, as it comes
	MaxDecodedBytes  int64 // of a request, decompressed
	MaxLineBytes     int64
	MaxLinesPerBatch int
	MaxConnections   int
	MaxInFlight      int           // requests being worked on; more are answered 503
	ReadTimeout      time.Duration // a whole request
	WriteTimeout     time.Duration // a whole answer
	IdleTimeout      time.Duration // between requests of a connection
}

// StatusSection is [status].
type StatusSection struct {
	Enabled bool
	Port    int // on 127.0.0.1
}

// LoggingSection is [logging].
type LoggingSection struct {
	Level string // debug, info, warn, error
}

// DefaultFile is where the configuration is looked for when none is named.
func DefaultFile() string { return configFile(runtime.GOOS, os.Getenv("ProgramData")) }

// Default is the configuration of a server that nobody configured. It lacks the
// certificates, without which ValidateServing refuses it.
func Default() Config { return defaults(runtime.GOOS, os.Getenv("ProgramData")) }

func configFile(goos, programData string) string {
	if goos == "windows" {
		return windowsFolder(programData) + `\server.toml`
	}
	return "/etc/rea/server.toml"
}

func windowsFolder(programData string) string {
	if programData == "" {
		programData = `C:\ProgramData`
	}
	return programData + `\REA-Server`
}

func defaults(goos, programData string) Config {
	data := "/var/lib/rea-server"
	if goos == "windows" {
		data = windowsFolder(programData)
	}
	return Config{
		Server: ServerSection{Listen: "127.0.0.1:8443", DataDir: data},
		Enroll: EnrollSection{Life: 7 * 24 * time.Hour},
		Limits: LimitsSection{
			MaxBodyBytes:     4 << 20,
			MaxDecodedBytes:  32 << 20,
			MaxLineBytes:     1 << 20,
			MaxLinesPerBatch: 100_000,
			MaxConnections:   1024,
			MaxInFlight:      64,
			ReadTimeout:      30 * time.Second,
			WriteTimeout:     30 * time.Second,
			IdleTimeout:      2 * time.Minute,
		},
		Status:  StatusSection{Port: 9101},
		Logging: LoggingSection{Level: "info"},
	}
}

// Spec is how the configuration is loaded into c for a command that reads what
// is stored.
func (c *Config) Spec() config.Spec {
	return config.Spec{Keys: c.Keys(), Validate: c.Validate, Env: "REA_SERVER_"}
}

// ServingSpec is how it is loaded for the command that receives.
func (c *Config) ServingSpec() config.Spec {
	s := c.Spec()
	s.Validate = c.ValidateServing
	return s
}

// Keys binds every key of the file to its field of c, in the order of the
// documentation. What c holds is the default.
func (c *Config) Keys() []config.Key {
	s, t := &c.Server, &c.TLS
	keys := []config.Key{
		{Name: "server.listen", Value: config.Address(&s.Listen),
			Usage: "Where agents are received, host:port. An empty host is every address of the machine."},
		{Name: "server.data_dir", Value: config.Path(&s.DataDir, "the path of a folder"),
			Usage: "The folder of what was received. One server, one folder."},

		{Name: "tls.cert_file", Value: config.Path(&t.CertFile, "the path of a PEM file"),
			Usage: "The certificate that the server shows, PEM; needed to receive."},
		{Name: "tls.key_file", Value: config.Path(&t.KeyFile, "the path of a PEM file"),
			Usage: "Its key, PEM; nobody else may read the file."},
		{Name: "tls.client_ca_file", Value: config.Path(&t.ClientCAFile, "the path of a PEM file"),
			Usage: "The certificate authority that agents' certificates must come from, PEM; needed to receive."},
		{Name: "tls.denylist_file", Value: config.Path(&t.DenylistFile, "the path of a file"),
			Usage: "Who is not let in although an authority vouches for them, a JSON object a line, as rea-server pki revoke writes it. Looked at every second; it closes connections, too."},
	}
	keys = append(keys, c.enrollKeys()...)
	keys = append(keys, c.limitKeys()...)
	keys = append(keys,
		config.Key{Name: "status.enabled", Value: config.Bool(&c.Status.Enabled),
			Usage: "Serve /healthz and /metrics, on 127.0.0.1 only."},
		config.Key{Name: "status.port", Value: config.Int(&c.Status.Port, 1, 65535),
			Usage: "The port of that listener."})
	return append(keys, config.Key{Name: "logging.level", Value: config.Enum(&c.Logging.Level, "debug", "info", "warn", "error"),
		Usage: "How much the server's log on standard error tells."})
}

func (c *Config) enrollKeys() []config.Key {
	e := &c.Enroll
	return []config.Key{
		{Name: "enroll.listen", Value: config.Text(&e.Listen, "host:port like :8444, or nothing", maybeAddress),
			Usage: "Where machines with a join token become agents, host:port; empty is nowhere. Anybody can connect there."},
		{Name: "enroll.pki_dir", Value: config.Path(&e.PKIDir, "the path of a folder"),
			Usage: "The folder of the authority, with its key, that issues what agents enrol with and renew. Empty issues nothing."},
		{Name: "enroll.life_ms", Value: config.Millis(&e.Life, 10*time.Second, 825*24*time.Hour),
			Usage: "How long these certificates are valid. Agents renew them after two thirds of it; 604800000 is a week."},
	}
}

func maybeAddress(s string) error {
	_, port, err := net.SplitHostPort(s)
	if _, bad := strconv.ParseUint(port, 10, 16); s != "" && (err != nil || bad != nil) {
		return errors.New("is not host:port")
	}
	return nil
}

// limitKeys has the limits. The least of those on size is what one record of an
// agent can be: a server that takes less would refuse it for ever, and all that
// waits behind it.
func (c *Config) limitKeys() []config.Key {
	l := &c.Limits
	return []config.Key{
		{Name: "limits.max_body_bytes", Value: config.Bytes(&l.MaxBodyBytes, 2*wire.MaxLine, 1<<30),
			Usage: "The largest request as it comes; a larger one is answered 413, and the agent splits it."},
		{Name: "limits.max_decoded_bytes", Value: config.Bytes(&l.MaxDecodedBytes, 2*wire.MaxLine, 4<<30),
			Usage: "The largest request when decompressed."},
		{Name: "limits.max_line_bytes", Value: config.Bytes(&l.MaxLineBytes, wire.MaxLine, 64<<20),
			Usage: "The longest event."},
		{Name: "limits.max_lines_per_batch", Value: config.Int(&l.MaxLinesPerBatch, wire.RecordLines, 10_000_000),
			Usage: "The most events of a request."},
		{Name: "limits.max_connections", Value: config.Int(&l.MaxConnections, 1, 1_000_000),
			Usage: "The most connections at a time; more wait to be accepted. At least the number of agents, where they are many."},
		{Name: "limits.max_in_flight", Value: config.Int(&l.MaxInFlight, 1, 100_000),
			Usage: "The most requests worked on at a time; more are answered 503 and told when to come again."},
		{Name: "limits.read_timeout_ms", Value: config.Millis(&l.ReadTimeout, 100*time.Millisecond, time.Hour),
			Usage: "How long a request may take to come in."},
		{Name: "limits.write_timeout_ms", Value: config.Millis(&l.WriteTimeout, 100*time.Millisecond, time.Hour),
			Usage: "How long an answer may take from the end of the request's head, keeping the batch included."},
		{Name: "limits.idle_timeout_ms", Value: config.Millis(&l.IdleTimeout, 100*time.Millisecond, 24*time.Hour),
			Usage: "How long a connection may be idle between two requests."},
	}
}

// Validate finds the combinations of values that cannot be, whatever the command.
func (c *Config) Validate() []config.Conflict {
	var found []config.Conflict
	add := func(what, fix string, keys ...string) {
		found = append(found, config.Conflict{Keys: keys, What: what, Fix: fix})
	}
	if c.Server.DataDir == "" {
		add("there is no folder for what is received", "name a folder, or leave the key out", "server.data_dir")
	}
	if c.TLS.CertFile != "" && c.TLS.KeyFile == "" {
		add("there is a certificate, but no key of it", "set key_file in [tls]", "tls.cert_file", "tls.key_file")
	}
	if c.TLS.KeyFile != "" && c.TLS.CertFile == "" {
		add("there is a key, but no certificate of it", "set cert_file in [tls]", "tls.key_file", "tls.cert_file")
	}
	if c.Enroll.Listen != "" && c.Enroll.PKIDir == "" {
		add("machines can enrol, but there is no authority to issue certificates", "set pki_dir in [enroll]; rea-server pki init makes one",
			"enroll.listen", "enroll.pki_dir")
	}
	if c.Limits.MaxDecodedBytes < c.Limits.MaxBodyBytes {
		add("a request may be larger as it comes than decompressed", "make max_decoded_bytes at least max_body_bytes",
			"limits.max_decoded_bytes", "limits.max_body_bytes")
	}
	if c.Limits.MaxLineBytes > c.Limits.MaxDecodedBytes {
		add("an event may be longer than a whole request", "make max_line_bytes at most max_decoded_bytes",
			"limits.max_line_bytes", "limits.max_decoded_bytes")
	}
	return found
}

// ValidateServing is Validate, and that there is what a listener needs.
func (c *Config) ValidateServing() []config.Conflict {
	found := c.Validate()
	if c.TLS.CertFile == "" && c.TLS.KeyFile == "" {
		found = append(found, config.Conflict{Keys: []string{"tls.cert_file", "tls.key_file"},
			What: "the server has no certificate to show",
			Fix:  "set cert_file and key_file in [tls]; rea-server certs makes them for a test"})
	}
	if c.TLS.ClientCAFile == "" {
		found = append(found, config.Conflict{Keys: []string{"tls.client_ca_file"},
			What: "the server cannot tell an agent from anybody else",
			Fix:  "set client_ca_file in [tls]; rea-server certs makes one for a test"})
	}
	return found
}
