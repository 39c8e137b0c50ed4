package agent

import (
	"encoding/base64"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/rea-agent/rea/internal/collect/proc"
	"github.com/rea-agent/rea/internal/config"
	"github.com/rea-agent/rea/internal/wire"
)

// Config is the whole configuration of an agent: one field for each section of
// the file. docs/configuration.md tells what the keys mean, in the words of Keys.
type Config struct {
	Agent      AgentSection
	Redact     RedactSection
	Collectors CollectorsSection
	Logging    LoggingSection
	Status     StatusSection
	Networking NetworkingSection
	TLS        TLSSection
}

// AgentSection is [agent].
type AgentSection struct {
	NodeID        string // "auto", or the name to report under
	BatchInterval time.Duration
	MaxEventBytes int
	RedactPII     bool
	Landlock      string // auto, off, require
}

// RedactSection is [redact].
type RedactSection struct {
	HashKeyFile string   // "": accounts are removed
	Fields      []string // kind.field=action
}

// CollectorsSection is [collectors] and the sections below it.
type CollectorsSection struct {
	TopNProcs     int
	RedactCmdline bool
	EventLogSection

	CPU, Memory, Disk, Network, Process, Host CollectorSection
}

// CollectorSection is [collectors.cpu] and the like.
type CollectorSection struct {
	Enabled           bool
	Interval, Timeout time.Duration
}

// LoggingSection is [logging]: where events are written on this machine, and
// how much the agent tells of itself.
type LoggingSection struct {
	Mode           string // stdout, file, none
	FilePath       string
	RotateBytes    int64         // 0: not by size
	RotateInterval time.Duration // 0: not by time
	RotateKeep     int
	Compression    string // none, gzip: of files rotated away
	Level          string // debug, info, warn, error
}

// StatusSection is [status].
type StatusSection struct {
	Enabled bool
	Port    int // on 127.0.0.1
}

// NetworkingSection is [networking].
type NetworkingSection struct {
	Enabled           bool
	Endpoint          string // https://host:port
	Protocol          string // rea
	Compression       string // zstd, none
	RetryBudget       int    // tries a minute
	Backoff           config.Range
	Timeout           time.Duration
	Proxy             string // "": none
	QueueDir          string
	QueueMaxBytes     int64
	QueueMinFreeBytes int64 // 0: not looked at
}

// TLSSection is [tls].
type TLSSection struct {
	Verify     bool
	CAFile     string // "": the system's certificate authorities
	ClientCert string
	ClientKey  string
	SPKIPins   []string // base64 of SHA-256
	Renew      bool     // ClientCert and ClientKey, which are one file
}

// DefaultFile is where the configuration is looked for when none is named.
func DefaultFile() string { return configFile(runtime.GOOS, os.Getenv("ProgramData")) }

// Default is the configuration of an agent that nobody configured: it collects
// everything, writes it to standard output and sends nothing.
func Default() Config { return defaults(runtime.GOOS, os.Getenv("ProgramData")) }

func configFile(goos, programData string) string {
	if goos == "windows" {
		return windowsFolder(programData) + `\agent.toml`
	}
	return "/etc/rea/agent.toml"
}

func windowsFolder(programData string) string {
	if programData == "" {
		programData = `C:\ProgramData`
	}
	return programData + `\REA`
}

func defaults(goos, programData string) Config {
	queue, file := "/var/lib/rea/queue", "/var/log/rea/events.ndjson"
	if goos == "windows" {
		queue = windowsFolder(programData) + `\queue`
		file = windowsFolder(programData) + `\logs\events.ndjson`
	}
	every := func(interval time.Duration) CollectorSection {
		return CollectorSection{Enabled: true, Interval: interval, Timeout: 5 * time.Second}
	}
	return Config{
		Agent:  AgentSection{NodeID: "auto", BatchInterval: time.Second, MaxEventBytes: 256 << 10, RedactPII: true, Landlock: "auto"},
		Redact: RedactSection{Fields: []string{}},
		Collectors: CollectorsSection{
			TopNProcs:       10,
			RedactCmdline:   true,
			EventLogSection: defaultEventLog(),
			CPU:             every(10 * time.Second),
			Memory:          every(10 * time.Second),
			Disk:            every(30 * time.Second),
			Network:         every(10 * time.Second),
			Process:         every(10 * time.Second),
			Host:            every(5 * time.Minute),
		},
		Logging: LoggingSection{
			Mode: "stdout", FilePath: file, RotateBytes: 64 << 20, RotateKeep: 5, Compression: "none", Level: "info",
		},
		Status: StatusSection{Port: 9100},
		Networking: NetworkingSection{
			Protocol:          "rea",
			Compression:       "zstd",
			RetryBudget:       60,
			Backoff:           config.Range{Min: 500 * time.Millisecond, Max: 5 * time.Second},
			Timeout:           30 * time.Second,
			QueueDir:          queue,
			QueueMaxBytes:     1 << 30,
			QueueMinFreeBytes: 256 << 20,
		},
		TLS: TLSSection{Verify: true, SPKIPins: []string{}},
	}
}

// Spec is how the configuration is loaded into c.
func (c *Config) Spec() config.Spec {
	return config.Spec{Keys: c.Keys(), Validate: c.Validate, Env: "REA_", NotEnv: "REA_SERVER_"}
}

// Keys binds every key of the file to its field of c, in the order of the
// documentation. What c holds is the default.
func (c *Config) Keys() []config.Key {
	keys := c.agentKeys()
	keys = append(keys, c.redactKeys()...)
	keys = append(keys, c.collectorKeys()...)
	keys = append(keys, c.outputKeys()...)
	return append(keys, c.deliveryKeys()...)
}

func (c *Config) agentKeys() []config.Key {
	a := &c.Agent
	return []config.Key{
		{Name: "agent.node_id", Value: config.Text(&a.NodeID, `"auto", or 1 to 128 letters, digits and - _ . :`, nodeID),
			Usage: `The name that this machine reports under. "auto" takes it from client_cert, which is the one that a server believes, or derives it from the machine's id.`},
		{Name: "agent.batch_interval_ms", Value: config.Millis(&a.BatchInterval, 100*time.Millisecond, time.Minute),
			Usage: "The least time between two batches of measurements to the server; what is read in between goes together. On the disk it is at once."},
		{Name: "agent.max_event_bytes", Value: config.Int(&a.MaxEventBytes, 1<<10, wire.MaxLine),
			Usage: "The longest line of an event; a longer one is cut inside its longest texts and marked truncated."},
		{Name: "agent.redact_pii", Value: config.Bool(&a.RedactPII),
			Usage: "Leave out user names, home folders and what else tells of a person; with redact.hash_key_file, a keyed hash stands for a name. Passwords, tokens and keys are left out in any case."},
		{Name: "agent.landlock", Value: config.Enum(&a.Landlock, "auto", "off", "require"),
			Usage: `Confine the agent on Linux to the files and ports that it needs: "auto" as far as the kernel can, "require" not to start where it cannot confine both. Read at the start only.`},
	}
}

func (c *Config) collectorKeys() []config.Key {
	s := &c.Collectors
	keys := []config.Key{
		{Name: "collectors.top_n_procs", Value: config.Int(&s.TopNProcs, 0, proc.MaxTopN),
			Usage: "How many processes are listed by CPU, and as many by memory."},
		{Name: "collectors.redact_cmdline", Value: config.Bool(&s.RedactCmdline),
			Usage: "Leave out the command lines of processes."},
	}
	keys = append(keys, s.EventLogSection.keys()...)
	for _, source := range []struct {
		name, tells string
		section     *CollectorSection
	}{
		{"cpu", "processors", &s.CPU},
		{"memory", "memory", &s.Memory},
		{"disk", "file systems and disks", &s.Disk},
		{"network", "network interfaces", &s.Network},
		{"process", "processes", &s.Process},
		{"host", "the machine and its system", &s.Host},
	} {
		at := "collectors." + source.name + "."
		keys = append(keys,
			config.Key{Name: at + "enabled", Value: config.Bool(&source.section.Enabled),
				Usage: "Read " + source.tells + "."},
			config.Key{Name: at + "interval_ms", Value: config.Millis(&source.section.Interval, 100*time.Millisecond, 24*time.Hour),
				Usage: "How often to read " + source.tells + "."},
			config.Key{Name: at + "timeout_ms", Value: config.Millis(&source.section.Timeout, 10*time.Millisecond, 10*time.Minute),
				Usage: "How long one reading may take before it is given up and reported."})
	}
	return keys
}

func (c *Config) outputKeys() []config.Key {
	l, s := &c.Logging, &c.Status
	return []config.Key{
		{Name: "logging.mode", Value: config.Enum(&l.Mode, "stdout", "file", "none"),
			Usage: `Where events are written on this machine, apart from being sent; "none" needs networking.`},
		{Name: "logging.file_path", Value: config.Path(&l.FilePath, "the path of a file"),
			Usage: `The file that mode "file" writes.`},
		{Name: "logging.rotate_bytes", Value: config.Bytes(&l.RotateBytes, 0, 1<<40),
			Usage: "The size at which the file is put aside and a new one begun; 0 does not look at the size."},
		{Name: "logging.rotate_interval_ms", Value: config.Millis(&l.RotateInterval, 0, 366*24*time.Hour),
			Usage: "The age at which the file is put aside; 86400000 is a day, 0 does not look at the age."},
		{Name: "logging.rotate_keep", Value: config.Int(&l.RotateKeep, 1, 1000),
			Usage: "How many files put aside are kept; the oldest go."},
		{Name: "logging.compression", Value: config.Enum(&l.Compression, "none", "gzip"),
			Usage: "How files put aside are compressed."},
		{Name: "logging.level", Value: config.Enum(&l.Level, "debug", "info", "warn", "error"),
			Usage: "How much the agent's own log on standard error tells."},

		{Name: "status.enabled", Value: config.Bool(&s.Enabled),
			Usage: "Serve /healthz and /metrics, on 127.0.0.1 only."},
		{Name: "status.port", Value: config.Int(&s.Port, 1, 65535),
			Usage: "The port of that listener."},
	}
}

func (c *Config) deliveryKeys() []config.Key {
	n, t := &c.Networking, &c.TLS
	return []config.Key{
		{Name: "networking.enabled", Value: config.Bool(&n.Enabled),
			Usage: "Keep events in the queue on disk and send them to a server."},
		{Name: "networking.endpoint", Value: config.URL(&n.Endpoint, "the address of the server: https://host:port", "https"),
			Usage: "The server, https://host:port. The agent adds /ingest itself."},
		{Name: "networking.protocol", Value: config.Enum(&n.Protocol, "rea").Refuse("otlp", "is not in this version"),
			Usage: "What is spoken with the server; this version has the protocol of rea-server only."},
		{Name: "networking.compression", Value: config.Enum(&n.Compression, "zstd", "none"),
			Usage: "How batches are compressed, in the queue and on the wire."},
		{Name: "networking.retry_budget", Value: config.Int(&n.RetryBudget, 1, 10_000),
			Usage: "How many tries a minute a server that does not answer is given at most. Nothing is given up when they are spent."},
		{Name: "networking.backoff_ms", Value: config.MillisRange(&n.Backoff, time.Millisecond, time.Hour),
			Usage: `The pause before another try, "least..most"; it doubles from one to the other and is drawn at random.`},
		{Name: "networking.timeout_ms", Value: config.Millis(&n.Timeout, 100*time.Millisecond, 10*time.Minute),
			Usage: "How long one request may take."},
		{Name: "networking.proxy", Secret: true, Value: config.URL(&n.Proxy, "the address of a proxy: http://host:port", "http", "https", "socks5"),
			Usage: "The proxy to go through, http://, https:// or socks5://, with user:password@ where it wants them. Empty takes it from HTTPS_PROXY and NO_PROXY, if these are set."},
		{Name: "networking.queue_dir", Value: config.Path(&n.QueueDir, "the path of a folder"),
			Usage: "The folder of the queue. One agent, one folder."},
		{Name: "networking.queue_max_bytes", Value: config.Bytes(&n.QueueMaxBytes, 1<<20, 1<<40),
			Usage: "How large the queue may grow. When it is full the oldest events go, and a gap event says so."},
		{Name: "networking.queue_min_free_bytes", Value: config.Bytes(&n.QueueMinFreeBytes, 0, 1<<40),
			Usage: "How much of the disk the queue leaves free for others; 0 does not look."},

		{Name: "tls.verify", Value: config.Bool(&t.Verify),
			Usage: "Check the server's certificate against the certificate authority. Can be off only with pins, or for a server on this machine."},
		{Name: "tls.ca_file", Value: config.Path(&t.CAFile, "the path of a PEM file"),
			Usage: "The certificate authority of the server, PEM. Empty takes those of the system."},
		{Name: "tls.client_cert", Value: config.Path(&t.ClientCert, "the path of a PEM file"),
			Usage: "The certificate that this agent shows, PEM. Without one only a server with client_auth = \"optional\" takes its events, under the name that the agent says."},
		{Name: "tls.client_key", Value: config.Path(&t.ClientKey, "the path of a PEM file"),
			Usage: "Its key, PEM; nobody else may read the file."},
		{Name: "tls.spki_pins", Value: config.Strings(&t.SPKIPins, "a list of public keys, each the base64 of a SHA-256", spkiPin),
			Usage: "The public keys (base64 of the SHA-256 of the SubjectPublicKeyInfo) of which one must stand in the server's chain, on top of the check. Give two, for the change of one."},
		{Name: "tls.renew", Value: config.Bool(&t.Renew),
			Usage: "Get another certificate from the server, for a new key, when two thirds of the life of this one are over. client_cert and client_key are then one file, as rea-agent enroll writes it, which is replaced."},
	}
}

func nodeID(s string) error {
	if len(s) == 0 || len(s) > 128 || !alphanumeric(rune(s[0])) ||
		strings.ContainsFunc(s, func(c rune) bool { return !alphanumeric(c) && !strings.ContainsRune("._:-", c) }) {
		return &config.Fault{What: "cannot be the name of a node"}
	}
	return nil
}

func alphanumeric(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func spkiPin(s string) error {
	if sum, err := base64.StdEncoding.DecodeString(s); err != nil || len(sum) != 32 {
		return &config.Fault{
			What: "is not the base64 of a SHA-256",
			Fix:  "take it from: openssl x509 -in server.crt -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64",
		}
	}
	return nil
}

// Validate finds the combinations of values that cannot be.
func (c *Config) Validate() []config.Conflict {
	var found []config.Conflict
	add := func(what, fix string, keys ...string) {
		found = append(found, config.Conflict{Keys: keys, What: what, Fix: fix})
	}
	if c.Networking.Enabled && c.Networking.Endpoint == "" {
		add("networking is on, but there is no server to send to",
			`set endpoint = "https://host:port" in [networking]`, "networking.enabled", "networking.endpoint")
	}
	if c.Networking.Enabled && c.Networking.QueueDir == "" {
		add("networking is on, but the queue has no folder",
			"name a folder, or leave the key out", "networking.queue_dir", "networking.enabled")
	}
	if c.Logging.Mode == "file" && c.Logging.FilePath == "" {
		add("events go to a file, but it has no path",
			"name a file, or leave the key out", "logging.file_path", "logging.mode")
	}
	if c.Logging.Mode == "none" && !c.Networking.Enabled {
		add("events would go nowhere: they are not written, and networking is off",
			`set mode = "stdout" or "file", or enable networking`, "logging.mode", "networking.enabled")
	}
	found = append(found, c.validateRedact()...)
	return append(found, c.validateTLS()...)
}

func (c *Config) validateTLS() []config.Conflict {
	var found []config.Conflict
	t := c.TLS
	if t.ClientCert != "" && t.ClientKey == "" {
		found = append(found, config.Conflict{Keys: []string{"tls.client_cert", "tls.client_key"},
			What: "there is a client certificate, but no key of it", Fix: "set client_key in [tls]"})
	}
	if t.ClientKey != "" && t.ClientCert == "" {
		found = append(found, config.Conflict{Keys: []string{"tls.client_key", "tls.client_cert"},
			What: "there is a client key, but no certificate of it", Fix: "set client_cert in [tls]"})
	}
	if t.Renew && (t.ClientCert == "" || t.ClientCert != t.ClientKey) {
		found = append(found, config.Conflict{Keys: []string{"tls.renew", "tls.client_cert", "tls.client_key"},
			What: "the certificate and its key are not one file, so that they could not be exchanged in one step",
			Fix:  "put both into one file and name it for both, as rea-agent enroll does, or set renew = false"})
	}
	if !t.Verify && len(t.SPKIPins) == 0 && c.Networking.Endpoint != "" && !loopback(c.Networking.Endpoint) {
		found = append(found, config.Conflict{Keys: []string{"tls.verify", "tls.spki_pins", "networking.endpoint"},
			What: "without the check and without pins anybody could be the server",
			Fix:  "set verify = true with ca_file, or add spki_pins"})
	}
	return found
}

// loopback reports whether the endpoint is on this machine. Names other than
// localhost are not looked up: what they stand for can change.
func loopback(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	if host := u.Hostname(); !strings.EqualFold(host, "localhost") {
		addr, err := netip.ParseAddr(host)
		return err == nil && addr.IsLoopback()
	}
	return true
}
