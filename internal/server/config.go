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

	ClientAuth   string // require, optional
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
	MaxRatio         int   // of the two
	MaxWindowBytes   int64 // of zstd
	MaxLineBytes     int64
	MaxLinesPerBatch int
	MaxDepth         int   // of objects and lists within each other
	MaxMembers       int   // of an object
	MaxMemoryBytes   int64 // of all requests together
	MaxInFlight      int   // requests being worked on; more are answered 503

	MaxConnections         int
	MaxConnectionsPerAgent int
	MaxPending             int           // connections without a request so far
	MaxPendingPerAddress   int           // of these
	HandshakeTimeout       time.Duration // until there is one
	MaxRequestsPerSecond   int           // of an agent
	MaxBytesPerSecond      int64         // of an agent, decompressed
	SlowAfter, CutAfter    int           // offences

	MaxHeaderBytes int64
	HeaderTimeout  time.Duration // a request's head
	MinBodyRate    int64         // bytes a second of a body that takes its time
	ReadTimeout    time.Duration // a whole request
	WriteTimeout   time.Duration // a whole answer
	IdleTimeout    time.Duration // between requests of a connection
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
		TLS:    TLSSection{ClientAuth: "require"},
		Enroll: EnrollSection{Life: 7 * 24 * time.Hour},
		Limits: LimitsSection{
			MaxBodyBytes:     wire.BatchBytes,
			MaxDecodedBytes:  wire.BatchBytes,
			MaxRatio:         200,
			MaxWindowBytes:   1 << 20,
			MaxLineBytes:     wire.MaxLine,
			MaxLinesPerBatch: 100_000,
			MaxDepth:         wire.DefaultLimits.Depth,
			MaxMembers:       wire.DefaultLimits.Members,
			MaxMemoryBytes:   256 << 20,
			MaxInFlight:      64,
			MaxHeaderBytes:   16 << 10,
			HeaderTimeout:    10 * time.Second,
			MinBodyRate:      4 << 10,
			ReadTimeout:      30 * time.Second,
			WriteTimeout:     30 * time.Second,
			IdleTimeout:      2 * time.Minute,

			MaxConnections: 2048, MaxConnectionsPerAgent: 8, MaxPending: 1024, MaxPendingPerAddress: 128, HandshakeTimeout: 10 * time.Second,
			MaxRequestsPerSecond: 500, MaxBytesPerSecond: 64 << 20, SlowAfter: 20, CutAfter: 40,
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
		{Name: "tls.client_auth", Value: config.Enum(&t.ClientAuth, "require", "optional"),
			Usage: `Whether agents must show a certificate. With "optional" whoever reaches the server can deliver in the name of any agent that has never shown one.`},
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
	return append([]config.Key{
		{Name: "limits.max_body_bytes", Value: config.Bytes(&l.MaxBodyBytes, 2*wire.MaxLine, 1<<30),
			Usage: "The largest request as it comes; a larger one is answered 413, and the agent splits it."},
		{Name: "limits.max_decoded_bytes", Value: config.Bytes(&l.MaxDecodedBytes, 2*wire.MaxLine, 4<<30),
			Usage: "The largest request when decompressed. Agents send no larger ones than the default."},
		{Name: "limits.max_ratio", Value: config.Int(&l.MaxRatio, 10, 1_000_000),
			Usage: "How many times larger a request may be decompressed, above 1 MiB; more is answered 413."},
		{Name: "limits.max_window_bytes", Value: config.Bytes(&l.MaxWindowBytes, 256<<10, 8<<20),
			Usage: "The largest window of zstd, which is memory that reading takes. Agents have 256 KiB."},
		{Name: "limits.max_line_bytes", Value: config.Bytes(&l.MaxLineBytes, wire.MaxLine, 64<<20),
			Usage: "The longest event."},
		{Name: "limits.max_lines_per_batch", Value: config.Int(&l.MaxLinesPerBatch, wire.RecordLines, 10_000_000),
			Usage: "The most events of a request."},
		{Name: "limits.max_depth", Value: config.Int(&l.MaxDepth, wire.DefaultLimits.Depth, wire.MostDepth),
			Usage: "How deep objects and lists of an event may stand within each other."},
		{Name: "limits.max_members", Value: config.Int(&l.MaxMembers, wire.DefaultLimits.Members, wire.MostMembers),
			Usage: "The most members of one object of an event."},
		{Name: "limits.max_memory_bytes", Value: config.Bytes(&l.MaxMemoryBytes, 16<<20, 1<<40),
			Usage: "The memory of all requests together, taken before they are read; more is answered 503."},
		{Name: "limits.max_in_flight", Value: config.Int(&l.MaxInFlight, 1, 100_000),
			Usage: "The most requests worked on at a time; more are answered 503 and told when to come again."},
	}, append(l.clientKeys(), l.timeKeys()...)...)
}

// clientKeys has what each client may have, and how often it may ask.
func (l *LimitsSection) clientKeys() []config.Key {
	return []config.Key{
		{Name: "limits.max_connections", Value: config.Int(&l.MaxConnections, 1, 1_000_000),
			Usage: "The most connections at a time. Idle ones give way to new ones. At least the number of agents, where they are many."},
		{Name: "limits.max_connections_per_agent", Value: config.Int(&l.MaxConnectionsPerAgent, 2, 1000),
			Usage: "The most connections of one agent; the oldest gives way. An agent has two."},
		{Name: "limits.max_pending", Value: config.Int(&l.MaxPending, 1, 1_000_000),
			Usage: "The most connections that have not made a request yet, as during the TLS handshake. Those of more than a second give way."},
		{Name: "limits.max_pending_per_address", Value: config.Int(&l.MaxPendingPerAddress, 1, 1_000_000),
			Usage: "The most of these from one IPv4 address, or one IPv6 network of 64 bits."},
		{Name: "limits.handshake_timeout_ms", Value: config.Millis(&l.HandshakeTimeout, 100*time.Millisecond, time.Hour),
			Usage: "How long a new connection may take for the TLS handshake and the head of its first request."},
		{Name: "limits.max_requests_per_second", Value: config.Int(&l.MaxRequestsPerSecond, 1, 1_000_000),
			Usage: "The most requests of one agent a second, four times that at once; more are answered 429."},
		{Name: "limits.max_bytes_per_second", Value: config.Bytes(&l.MaxBytesPerSecond, 1<<20, 1<<40),
			Usage: "The most bytes of one agent a second, decompressed, four times that at once; more are answered 429."},
		{Name: "limits.slow_after", Value: config.Int(&l.SlowAfter, 0, 1_000_000),
			Usage: "After how many offences a client is slowed to one request a second; ten are forgiven a minute. 0 for never."},
		{Name: "limits.cut_after", Value: config.Int(&l.CutAfter, 0, 1_000_000),
			Usage: "After how many it is cut off for some minutes. 0 for never."},
	}
}

// timeKeys has the limits of time, and of a request's head.
func (l *LimitsSection) timeKeys() []config.Key {
	return []config.Key{
		{Name: "limits.max_header_bytes", Value: config.Bytes(&l.MaxHeaderBytes, 4<<10, 1<<20),
			Usage: "The largest head of a request, 4 KiB more or less; a larger one is answered 431."},
		{Name: "limits.header_timeout_ms", Value: config.Millis(&l.HeaderTimeout, 100*time.Millisecond, time.Hour),
			Usage: "How long the head of a request may take to come in."},
		{Name: "limits.min_body_rate", Value: config.Bytes(&l.MinBodyRate, 1, 1<<30),
			Usage: "How many bytes of a body must come a second, after the first 5 s; a slower one is answered 408."},
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
	if c.Limits.MaxMemoryBytes < c.Limits.MaxBodyBytes+c.Limits.MaxDecodedBytes {
		add("the memory of all requests is less than one may need", "make max_memory_bytes at least max_body_bytes and max_decoded_bytes together",
			"limits.max_memory_bytes", "limits.max_body_bytes", "limits.max_decoded_bytes")
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
