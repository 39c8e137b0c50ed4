// Package redacttest makes texts with secrets in them, and texts without, for
// tests of whatever must let none through. Nothing in it was ever a secret: each is
// put together from its prefix and random characters when a test runs.
package redacttest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
)

// A Planted is a line with a secret in it.
type Planted struct {
	Kind   string // what sort of secret, in words of this package
	Line   string
	Secret string // what must not be found: the part that is random
	Shell  bool   // the line is a command line
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
	alnum  = lower + upper + digits
	word   = alnum + "-_"
)

// A maker makes random texts.
type maker struct{ *rand.Rand }

func (m maker) chars(set string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = set[m.IntN(len(set))]
	}
	return string(b)
}

// body is what follows the prefix of a token: n characters, with a letter of both
// cases and a digit.
func (m maker) body(n int) string { return "a7Q" + m.chars(alnum, n-3) }
func (m maker) hex(n int) string  { return "c4" + m.chars("0123456789abcdef", n-2) }
func (m maker) b64(n int) string {
	return base64.StdEncoding.EncodeToString([]byte(m.chars(word, n)))
}

// password is one that people and programs make up, without white space.
func (m maker) password() string {
	switch m.IntN(4) {
	case 0:
		return m.chars(lower, 6) + m.chars(digits, 3)
	case 1:
		return m.chars(alnum, 7) + m.chars("!#^*~+?", 1) + m.chars(alnum, 5)
	case 2:
		return m.chars(upper, 1) + m.chars(lower, 7) + "!" + m.chars(digits, 4)
	}
	return m.chars(alnum, 20)
}

func (m maker) pick(list ...string) string { return list[m.IntN(len(list))] }

// around puts a token into a line as logs have it.
func (m maker) around(token string) string {
	return fmt.Sprintf(m.pick(
		"using %s for the remote", "remote rejected %s: not found", `{"level":"warn","msg":"login with %s failed","n":3}`,
		"+ export THING=%s", "env THING='%s' ./deploy.sh", "X-Thing: %s", "GET https://api.example.org/v1/x?y=%s&z=1 HTTP/1.1",
		"<thing>%s</thing>", "(%s)", "thing:%s, other: 5", `\"thing\":\"%s\"`, `line one\n%s\nline three`, "%s", "%s is what was used.",
		`E1123 10:11:12.123456 7 auth.go:12] "cannot log in" err="bad %s"`, "cat <<< %s | xargs", `["a","%s"]`, "used\t%s\tonce",
	), token)
}

// tokens are secrets that are known by themselves.
var tokens = map[string]func(maker) (token, secret string){
	"github classic":      bare(func(m maker) (string, string) { return "gh" + m.pick("p", "o", "u", "s", "r") + "_", m.body(36) }),
	"github fine-grained": bare(func(m maker) (string, string) { return "github" + "_pat_", m.body(22) + "_" + m.body(59) }),
	"gitlab":              bare(func(m maker) (string, string) { return m.pick("glpat", "glrt", "gldt", "glptt") + "-", m.body(20) }),
	"slack bot": bare(func(m maker) (string, string) {
		return "xox" + m.pick("b", "p", "a", "s") + "-", m.chars(digits, 12) + "-" + m.chars(digits, 12) + "-" + m.body(24)
	}),
	"slack app": bare(func(m maker) (string, string) {
		return "xa" + "pp-", "1-A0" + m.body(9) + "-" + m.chars(digits, 12) + "-" + m.hex(64)
	}),
	"stripe": bare(func(m maker) (string, string) {
		return m.pick("sk", "rk") + "_" + m.pick("live", "test") + "_", m.body(24)
	}),
	"stripe webhook":       bare(func(m maker) (string, string) { return "wh" + "sec_", m.body(32) }),
	"npm":                  bare(func(m maker) (string, string) { return "np" + "m_", m.body(36) }),
	"pypi":                 bare(func(m maker) (string, string) { return "py" + "pi-AgE", "IcHlwaS5vcmc" + m.body(60) }),
	"rubygems":             bare(func(m maker) (string, string) { return "ruby" + "gems_", m.hex(48) }),
	"openai":               bare(func(m maker) (string, string) { return "sk" + "-", m.pick("", "proj-") + m.body(48) }),
	"anthropic":            bare(func(m maker) (string, string) { return "sk" + "-ant-api03-", m.body(80) }),
	"huggingface":          bare(func(m maker) (string, string) { return "h" + "f_", m.body(34) }),
	"replicate":            bare(func(m maker) (string, string) { return "r" + "8_", m.body(37) }),
	"groq":                 bare(func(m maker) (string, string) { return "gs" + "k_", m.body(52) }),
	"aws access key":       bare(func(m maker) (string, string) { return m.pick("AK", "AS") + "IA", m.chars(upper+"234567", 16) }),
	"google api key":       bare(func(m maker) (string, string) { return "AI" + "za", "Sy" + m.body(33) }),
	"google oauth token":   bare(func(m maker) (string, string) { return "ya" + "29.", m.body(60) }),
	"google client secret": bare(func(m maker) (string, string) { return "GOC" + "SPX-", m.body(28) }),
	"azure client secret":  bare(func(m maker) (string, string) { return "", "aZ" + m.chars(alnum, 1) + "8Q" + "~" + m.body(34) }),
	"digitalocean":         bare(func(m maker) (string, string) { return "do" + m.pick("p", "o", "r") + "_v1_", m.hex(64) }),
	"sendgrid":             bare(func(m maker) (string, string) { return "S" + "G.", m.body(22) + "." + m.body(43) }),
	"mailgun":              bare(func(m maker) (string, string) { return "ke" + "y-", m.hex(32) }),
	"shopify":              bare(func(m maker) (string, string) { return "shp" + m.pick("at", "ss", "ca", "pa") + "_", m.hex(32) }),
	"square":               bare(func(m maker) (string, string) { return "sq0" + "atp-", m.body(22) }),
	"linear":               bare(func(m maker) (string, string) { return "lin" + "_api_", m.body(40) }),
	"notion":               bare(func(m maker) (string, string) { return "nt" + "n_", m.body(46) }),
	"figma":                bare(func(m maker) (string, string) { return "fi" + "gd_", m.body(40) }),
	"vault":                bare(func(m maker) (string, string) { return "hv" + m.pick("s", "b") + ".", m.body(90) }),
	"grafana":              bare(func(m maker) (string, string) { return "gl" + "sa_", m.body(32) + "_" + m.hex(8) }),
	"new relic":            bare(func(m maker) (string, string) { return "NR" + "AK-", m.body(27) }),
	"postman":              bare(func(m maker) (string, string) { return "PM" + "AK-", m.hex(24) + "-" + m.hex(34) }),
	"sentry":               bare(func(m maker) (string, string) { return "snt" + "ryu_", m.hex(64) }),
	"doppler":              bare(func(m maker) (string, string) { return "dp" + ".pt.", m.body(43) }),
	"planetscale":          bare(func(m maker) (string, string) { return "psc" + "ale_tkn_", m.body(43) }),
	"tailscale":            bare(func(m maker) (string, string) { return "ts" + "key-auth-", m.body(11) + "-" + m.body(32) }),
	"docker":               bare(func(m maker) (string, string) { return "dc" + "kr_pat_", m.body(27) }),
	"age": bare(func(m maker) (string, string) {
		return "AGE" + "-SECRET-KEY-1", m.chars("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)
	}),
	"terraform": bare(func(m maker) (string, string) { return m.body(14) + ".atl" + "asv1.", m.body(67) }),
	"atlassian": bare(func(m maker) (string, string) {
		return "ATA" + "TT3", "xFfGF0" + m.body(180) + "=" + m.chars(upper+digits, 8)
	}),
	"telegram bot": bare(func(m maker) (string, string) { return "5" + m.chars(digits, 9) + ":", "AA" + m.body(33) }),
	"discord bot": bare(func(m maker) (string, string) {
		return "M" + m.body(25) + ".", "G" + m.chars(alnum, 5) + "." + m.body(38)
	}),
	"jwt": bare(func(m maker) (string, string) {
		claims := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"` + m.chars(alnum, 24) + `","iat":17321}`))
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + ".", claims + "." + m.body(86)
	}),
}

// bare makes a token of a prefix and what is random behind it.
func bare(f func(maker) (prefix, secret string)) func(maker) (token, secret string) {
	return func(m maker) (string, string) {
		prefix, secret := f(m)
		return prefix + secret, secret
	}
}

// A place is where a password stands, by its surroundings.
type place struct {
	kind   string
	shell  bool
	secret func(maker) string
	lines  []string // with %s where the secret stands
}

var places = []place{
	{"password assigned", false, maker.password, []string{
		"password=%s", "Password: %s", `{"user":"bob","password":"%s","n":1}`, "DB_PASSWORD=%s ./run", `db.password = "%s"`, "passwd: '%s'",
		`{\"password\":\"%s\"}`, "connect user=bob password=%s host=db", "login?user=bob&password=%s&x=1", `PASSPHRASE="%s"`, "pwd = %s", "spring.datasource.password=%s",
		`password => "%s"`, `$password = '%s';`, "mysql_root_password: %s", "kennwort: %s", `"adminPassword" : "%s",`, "password:%s", "'password': b'%s'"}},
	{"password flag", true, maker.password, []string{
		"app --password=%s --v", "app --password %s -v", "app -password %s", `app --db-password "%s"`, "app --admin-pass=%s", `["app","--password","%s"]`, "setup.exe /password:%s /quiet", `app --passphrase '%s' x`}},
	{"token assigned", false, func(m maker) string { return m.body(32) }, []string{
		"token=%s", `{"access_token":"%s","expires_in":3600}`, "refresh_token=%s&grant_type=refresh", "X-Auth-Token: %s", "VAULT_TOKEN=%s vault read x", `token: "%s"`, "--token %s", "registry/:_authToken=%s", "    token: %s", `"sessionToken": "%s"`}},
	{"api key assigned", false, func(m maker) string { return m.hex(32) }, []string{
		"api_key=%s", `"apiKey": "%s"`, "X-Api-Key: %s", "https://api.example.org/x?api_key=%s&y=1", "API key: %s", "--api-key=%s", "DD_API_KEY=%s"}},
	{"client secret", false, func(m maker) string { return m.body(40) }, []string{
		"client_secret=%s", `"clientSecret":"%s"`, "CLIENT_SECRET: %s", "grant_type=client_credentials&client_secret=%s", "SECRET_KEY_BASE=%s", "webhook_secret: %s"}},
	{"aws secret key", false, func(m maker) string { return m.body(40) }, []string{
		"aws_secret_access_key = %s", "AWS_SECRET_ACCESS_KEY=%s", `"SecretAccessKey": "%s"`, "aws_session_token=%s", "aws configure set aws_secret_access_key %s"}},
	{"azure storage key", false, func(m maker) string { return m.b64(64) }, []string{
		"DefaultEndpointsProtocol=https;AccountName=x;AccountKey=%s;EndpointSuffix=core.windows.net",
		"Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=%s", "AccountEndpoint=https://x.documents.azure.com:443/;AccountKey=%s;"}},
	{"azure sas", false, func(m maker) string { return m.body(41) + "%3D" }, []string{
		"https://x.blob.core.windows.net/c/b?sv=2022-11-02&se=2026-12-01&sr=b&sp=r&sig=%s", "upload to https://x.blob.core.windows.net/c?sig=%s&sv=2022-11-02 failed"}},
	{"url password", false, func(m maker) string { return m.chars(alnum, 12) }, []string{
		"postgres://bob:%s@db:5432/x", "fetch https://bob:%s@git.example.org/x.git", "redis://:%s@cache:6379/0", "amqp://bob:%s@mq//", "mongodb+srv://bob:%s@c0.mongodb.net/x?retryWrites=true",
		`proxy "http://bob:%s@proxy:3128"`, "DATABASE_URL=mysql2://bob:%s@h/x", "https://oauth2:%s@gitlab.example.org/x.git", "ftp://bob:%s@h/f", "smb://CORP;bob:%s@h/share"}},
	{"url token", false, func(m maker) string { return m.body(40) }, []string{"git clone https://%s@git.example.org/x.git", "origin https://%s@h.example.org/y (fetch)"}},
	{"bearer", false, func(m maker) string { return m.body(40) }, []string{
		"Authorization: Bearer %s", `-H "Authorization: Bearer %s"`, `{"authorization":"Bearer %s"}`, "authorization: bearer %s", "> Authorization: token %s", "sent Bearer %s to the server", "Proxy-Authorization: Bearer %s"}},
	{"basic", false, func(m maker) string { return "dX" + m.b64(15) }, []string{
		"Authorization: Basic %s", `"Authorization": "Basic %s"`, "sent Basic %s instead", "Proxy-Authorization: Basic %s"}},
	{"digest", false, func(m maker) string { return m.hex(32) }, []string{
		`Authorization: Digest username=bob, realm=x, nonce=1, uri=/, response=%s`, `Authorization: AWS4-HMAC-SHA256 Credential=x/20261123/eu/s3/aws4_request, SignedHeaders=host, Signature=%s`}},
	{"cookie", false, func(m maker) string { return m.hex(32) }, []string{
		"Cookie: theme=dark; session=%s", "Set-Cookie: sid=%s; Path=/; HttpOnly", "< set-cookie: PHPSESSID=%s; path=/", "JSESSIONID=a7%s x"}},
	{"presigned url", false, func(m maker) string { return m.hex(64) }, []string{
		"https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261123T101112Z&X-Amz-Expires=300&X-Amz-Signature=%s", "https://storage.googleapis.com/b/o?X-Goog-Signature=%s&x=1"}},
	{"slack webhook", false, func(m maker) string { return "T0" + m.body(9) + "/B0" + m.body(9) + "/" + m.body(24) }, []string{
		"POST https://hooks." + "slack.com/services/%s 200", `"url":"https://hooks.` + `slack.com/services/%s"`}},
	{"discord webhook", false, func(m maker) string { return "1" + m.chars(digits, 17) + "/" + m.body(68) }, []string{
		"https://discord" + ".com/api/webhooks/%s failed", "post to 'https://discord" + "app.com/api/webhooks/%s'"}},
	{"teams webhook", false, func(m maker) string { return m.hex(36) + "@" + m.hex(36) + "/IncomingWebhook/" + m.hex(32) }, []string{
		"https://corp.webhook." + "office.com/webhookb2/%s", "notify https://outlook." + "office.com/webhook/%s now"}},
	{"mysql -p", true, maker.password, []string{"mysql -u root -p%s db", "/usr/bin/mysqldump --single-transaction -p'%s' db", "sudo: bob : TTY=pts/0 ; PWD=/srv ; USER=root ; COMMAND=/usr/bin/mysql -uroot -p%s", "mysqladmin.exe -p%s status"}},
	{"sshpass", true, maker.password, []string{"sshpass -p %s ssh h", "sshpass -p'%s' scp a h:", "SSHPASS=%s sshpass -e ssh h", "sh -c \"sshpass -p %s rsync a h:\""}},
	{"curl -u", true, maker.password, []string{"curl -u bob:%s https://h/", "curl -s --user bob:%s https://h/", "curl -ubob:%s https://h/", "curl --user=bob:%s x", "curl --proxy-user bob:%s x"}},
	{"docker login", true, maker.password, []string{"docker login -u bob -p %s registry.example.org", "podman login -p %s -u bob r", "az login --service-principal -u x -p %s", "helm registry login -u x -p %s r"}},
	{"known tools", true, maker.password, []string{"redis-cli -h h -a %s ping", "ldapsearch -x -D cn=admin -w %s -b dc=x", "sqlcmd -S h -U sa -P %s -Q x", "psexec.exe \\\\h -u bob -p %s cmd", "smbclient //h/s -U bob%%%s", "mosqui" + "tto_pub -h h -u x -P %s -t t", "plink -pw %s bob@h", "7z a -p%s a.7z f", "zip -P %s a.zip f", "mongosh -u x -p %s", "useradd -p %s bob", "openssl enc -aes-256-cbc -k %s -in f", "curl --oauth2-bearer %s https://x", "echo bob:%s | chpasswd", "PGPASSWORD=%s psql -h h"}},
	{"net use", true, func(m maker) string { return m.chars(alnum, 12) }, []string{`net use \\srv\c$ /user:CORP\bob %s`, `net use Z: \\srv\share %s /user:bob`, `net user bob %s /add`, `C:\Windows\System32\net.exe user bob %s`, `net1 user "bob b" %s /add /domain`}},
	{"windows tools", true, func(m maker) string { return m.chars(alnum, 12) }, []string{`cmdkey /add:srv /user:bob /pass:%s`, `schtasks /create /tn x /ru bob /rp %s`, `wmic /node:h /user:bob /password:%s process list`, `netdom join h /domain:corp /userd:bob /passwordd:%s`, `xfreerdp /v:h /u:bob /p:%s`, `msiexec /i x.msi DB_PASSWORD=%s /qn`, `sc.exe create s binPath= x obj= bob password= %s`}},
	{"calls", false, func(m maker) string { return m.chars(alnum, 12) }, []string{`New-Object PSCredential("bob", "%s")`, `new NetworkCredential('bob','%s')`, `.withPassword("%s")`, `http.Header{"Authorization":[]string{"Bearer %s"}}`, `map[password:%s user:bob]`, `User(name=bob, password=%s)`}},
	{"percent-encoded", false, func(m maker) string { return m.chars(alnum, 12) }, []string{"GET /login?next=%%2Fx%%3Fpassword%%3D%s 200", "redirect=a%%26access_token%%3d%s&x=1"}},
	{"secure string", true, func(m maker) string { return m.chars(alnum, 12) }, []string{`ConvertTo-SecureString "%s" -AsPlainText -Force`, `ConvertTo-SecureString -String '%s' -AsPlainText -Force`, `$p = ConvertTo-SecureString -AsPlainText -Force %s`, `x -Password (ConvertTo-SecureString "%s" -AsPlainText -Force)`}},
	{"openssl pass", true, func(m maker) string { return m.chars(alnum, 12) }, []string{"openssl pkcs12 -in a -passin pass:%s -out b", "openssl rsa -passout pass:%s", "keytool -list -storepass %s -keystore k"}},
	{"connection string", false, func(m maker) string { return m.chars(alnum, 12) }, []string{
		"Server=db;Database=x;User Id=sa;Password=%s;Encrypt=true", "Data Source=db;UID=sa;PWD=%s", "Driver={ODBC};Uid=sa;Pwd=%s;", "jdbc:sqlserver://h;user=sa;password=%s;", "jdbc:mysql://h/x?user=u&password=%s", "host=h user=u password=%s dbname=x", "jdbc:oracle:thin:scott/%s@h:1521:x"}},
	{"sql", false, func(m maker) string { return m.chars(alnum, 12) }, []string{"CREATE USER 'x'@'%%' IDENTIFIED BY '%s'", "ALTER ROLE x WITH PASSWORD '%s'", "create login x with password = '%s'", "SET PASSWORD FOR x = PASSWORD('%s')", "alter user x identified by \"%s\""}},
	{"netrc", false, func(m maker) string { return m.chars(alnum, 12) }, []string{"machine h.example.org login bob password %s", "default login anonymous password %s"}},
	{"xml", false, func(m maker) string { return m.chars(alnum, 12) }, []string{"<password>%s</password>", `<Password xsi:type="xs:string">%s</Password>`, `<add key="DbPassword" value="%s"/>`, `<property name="password" value='%s' />`, "<wsse:Password>%s</wsse:Password>"}},
	{"docker auth", false, func(m maker) string { return "dX" + m.b64(18) }, []string{`{"auths":{"r.example.org":{"auth":"%s"}}}`}},
	{"kubeconfig", false, func(m maker) string { return m.b64(96) }, []string{"client-key-data: %s", "    client-key-data: %s\n    x: y"}},
	{"phrase in quotes", false, func(m maker) string { return m.chars(lower, 6) + " " + m.chars(lower, 5) + " " + m.chars(lower, 7) }, []string{`password="%s" x`, `{"passphrase":"%s"}`, `--password '%s'`, `{\"secret\":\"%s\"}`}},
	{"wifi", false, func(m maker) string { return m.password() }, []string{`ssid="x" psk="%s"`, "wpa_cli set psk=%s", "802-11-wireless-security.psk: %s"}},
	{"private key", false, func(m maker) string { return m.b64(120) }, []string{
		"-----BEGIN " + "RSA PRIVATE KEY-----\n%s\n-----END RSA PRIVATE KEY-----", "-----BEGIN " + "OPENSSH PRIVATE KEY-----\\n%s\\n-----END OPENSSH PRIVATE KEY-----\\n",
		"-----BEGIN " + "PRIVATE KEY-----\n%s", "key: |\n  -----BEGIN " + "EC PRIVATE KEY-----\n  %s\n  -----END EC PRIVATE KEY-----\n", "-----BEGIN " + "PGP PRIVATE KEY BLOCK-----\n\n%s\n-----END PGP PRIVATE KEY BLOCK-----",
		"-----BEGIN " + "ENCRYPTED PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0\n\n%s\n-----END ENCRYPTED PRIVATE KEY-----"}},
	{"putty key", false, func(m maker) string { return m.b64(90) }, []string{"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: x\nPublic-Lines: 1\nAAAA\nPrivate-Lines: 1\n%s\nPrivate-MAC: 0"}},
	{"private key in base64", false, func(m maker) string { return m.b64(90) }, []string{"LS0tLS1CRUdJTi" + "BSU0EgUFJJVkFURSBLRVktLS0tLQo%s", "data: LS0tLS1CRUdJTi" + "BQUklWQVRFIEtFWS0tLS0tCk%s"}},
}

// Secrets returns n lines of every kind, the same for the same seed.
func Secrets(seed uint64, n int) (list []Planted) {
	m := maker{rand.New(rand.NewPCG(seed, 1))}
	for _, kind := range sorted(tokens) {
		for range n {
			token, secret := tokens[kind](m)
			list = append(list, Planted{Kind: kind, Line: m.around(token), Secret: secret})
		}
	}
	for _, p := range places {
		for i := range max(n, len(p.lines)) {
			secret := p.secret(m)
			list = append(list, Planted{Kind: p.kind, Line: fmt.Sprintf(p.lines[i%len(p.lines)], secret), Secret: secret, Shell: p.shell})
		}
	}
	return list
}

func sorted(all map[string]func(maker) (string, string)) (names []string) {
	for name := range all {
		names = append(names, name)
	}
	for i := range names {
		for j := i; j > 0 && names[j] < names[j-1]; j-- {
			names[j], names[j-1] = names[j-1], names[j]
		}
	}
	return names
}

// A Harmless is a line without a secret.
type Harmless struct{ Kind, Line string }

func (m maker) uuid() string {
	h := hex.EncodeToString([]byte(m.chars(alnum, 16)))
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:32]
}

func (m maker) sha() string { return m.chars("0123456789abcdef", 40) }
func (m maker) num(n int) string {
	return "1" + m.chars(digits, n-1)
}
func (m maker) name() string { return m.chars(lower, 4+m.IntN(6)) }
func (m maker) ip() string {
	return fmt.Sprintf("10.%d.%d.%d", m.IntN(256), m.IntN(256), m.IntN(256))
}

// harmless are lines as they are met, with $-words that are drawn anew each time.
var harmless = map[string][]string{
	"journal": {
		"Started Session $num of User root.", "Starting Daily apt download activities...", "Reached target Multi-User System.", "$name.service: Main process exited, code=exited, status=1/FAILURE",
		"Failed password for invalid user $name from $ip port $num ssh2", "Accepted publickey for $name from $ip port $num ssh2: ED25519 SHA256:$b43", "pam_unix(sshd:session): session opened for user $name(uid=1000) by (uid=0)",
		"pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=$ip  user=$name", "$name : TTY=pts/0 ; PWD=/srv/$name ; USER=root ; COMMAND=/usr/bin/systemctl restart $name",
		"Connection closed by authenticating user root $ip port $num [preauth]", "DHCPREQUEST for $ip on eth0 to 255.255.255.255 port 67", "audit: type=1400 audit($num.123:45): apparmor=\"DENIED\" operation=\"open\" profile=\"$name\" name=\"/etc/$name\" pid=$num",
		"usb 1-1: New USB device found, idVendor=0bda, idProduct=8153, bcdDevice=30.00", "Out of memory: Killed process $num ($name) total-vm:$numkB, anon-rss:$numkB", "EXT4-fs (sda1): mounted filesystem $uuid r/w with ordered data mode.",
		"systemd-logind: New session $num of user $name.", "cron: (root) CMD (test -x /usr/sbin/anacron || run-parts --report /etc/cron.daily)", "dockerd: time=\"2026-11-23T10:11:12Z\" level=info msg=\"ignoring event\" container=$sha module=libcontainerd",
		"password check failed for user ($name)", "passwd: password expiry information changed.", "kernel: TCP: request_sock_TCP: Possible SYN flooding on port 443. Sending cookies.", "gpg: key $hex16: \"$name\" not changed",
		"sshd: error: Could not load host key: /etc/ssh/ssh_host_dsa_key", "token bucket filter: rate 10mbit burst 5kb latency 70ms", "NetworkManager: <info>  [$num.1] device (eth0): state change: ip-config -> ip-check (reason 'none', sys-iface-state: 'managed')",
	},
	"windows": {
		"An account was successfully logged on. Subject: Security ID: S-1-5-18 Account Name: $NAME$ Account Domain: CORP Logon ID: 0x3E7 Logon Type: 5", "The $name service entered the running state.",
		"Special privileges assigned to new logon. Privileges: SeSecurityPrivilege SeBackupPrivilege SeRestorePrivilege", "A new process has been created. New Process ID: 0x$hex4 New Process Name: C:\\Windows\\System32\\$name.exe Token Elevation Type: %%1936 Mandatory Label: S-1-16-16384",
		"The system has resumed from sleep. Sleep Time: 2026-11-23T10:11:12.$numZ", "Windows Update installed: 2026-11 Cumulative Update for Windows 11 (KB$num)", "An attempt was made to reset an account's password. Target Account: Security ID: S-1-5-18",
		"The password for the account was changed successfully", "Credential Manager credentials were read. Read Operation: Enumerate Credentials", "Faulting application name: $name.exe, version: 10.0.1.2, time stamp: 0x$hex8, faulting module: ntdll.dll, exception code: 0xc0000005",
		"A Kerberos authentication ticket (TGT) was requested. Ticket Options: 0x40810010 Result Code: 0x0 Ticket Encryption Type: 0x12 Pre-Authentication Type: 2", "HKLM\\SYSTEM\\CurrentControlSet\\Services\\$name\\Parameters value set: DWORD (0x00000001)", "<Data Name='ElevatedToken'>%%1842</Data><Data Name='TargetUserName'>SYSTEM</Data>", "Logon GUID: {$uuid} Transited Services: - Package Name (NTLM only): NTLM V2 Key Length: 128",
		"The Open procedure for service \"$name\" in DLL \"C:\\Windows\\system32\\$name.dll\" failed.", "A user account was locked out. Caller Computer Name: $NAME", "Group Policy settings were processed successfully. 5 extensions took $num ms",
	},
	"kubernetes": {
		"I1123 10:11:12.345678    1234 reconciler_common.go:224] \"operationExecutor.VerifyControllerAttachedVolume started for volume \\\"kube-api-access-$hex5\\\" (UniqueName: \\\"kubernetes.io/projected/$uuid-kube-api-access\\\") pod \\\"$name-$hex8-$hex5\\\"\"",
		"E1123 10:11:12.345678 7 reflector.go:147] failed to list *v1.Secret: secrets is forbidden: User \"system:serviceaccount:$name:default\" cannot list resource \"secrets\" in API group \"\"", "MountVolume.SetUp succeeded for volume \"default-token-$hex5\"",
		"Unable to authenticate the request: invalid bearer token, token has expired", "Back-off restarting failed container=$name pod=$name-$hex8-$hex5_default($uuid)", "{\"level\":\"info\",\"ts\":$num.12,\"caller\":\"$name/main.go:42\",\"msg\":\"reconciled\",\"namespace\":\"$name\",\"generation\":3}",
		"Successfully pulled image \"registry.example.org/$name@sha256:$sha$hex8$hex16\" in 2.3s", "time=\"2026-11-23T10:11:12Z\" level=warning msg=\"token: expired\" component=$name", "failed to create secret: secrets \"$name-tls\" already exists", "secretName: $name-tls", "leaderelection: successfully acquired lease kube-system/$name", "certificate signing request csr-$hex5 is approved, waiting to be issued",
		"serviceAccountToken projection for $name expires in 3607s", "http: TLS handshake error from $ip:$num: remote error: tls: bad certificate", "etcdserver: read-only range request \"key:\\\"/registry/pods/$name\\\" \" took too long (123.4ms) to execute",
	},
	"web": {
		"$ip - - [23/Nov/2026:10:11:12 +0000] \"GET /api/v1/items?page=2&sort=asc&id=$uuid HTTP/1.1\" 200 $num \"https://www.example.org/a\" \"Mozilla/5.0 (X11; Linux x86_64)\"", "GET /static/app.$hex8.js 304 12ms", "https://www.example.org:8443/a/b?c=d#e", "upstream https://$ip:8443/$name timed out after 30s",
		"POST /login 401 reason=\"wrong password\" user_agent=curl/8.5", "connect to mailto:bob@example.org failed", "redirect to https://example.org/reset-password?step=2", "ETag: \"$hex16\" Cache-Control: max-age=3600", "ws://$ip:$num/socket opened by $name@example.org", "git@github.com:$name/$name.git is up to date", "proxy http://proxy:3128 used for https://example.org",
		"Content-Security-Policy: default-src 'self'; script-src 'sha256-$b43='", "OPTIONS /oauth/token 204", "GET /users/$num/tokens 200", "ssh://git@$name.example.org:2222/x.git",
	},
	"code": {
		"commit $sha (HEAD -> main, origin/main)", "index $hex8..$hex8 100644", "panic: runtime error: invalid memory address or nil pointer dereference [signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x$hex8]", "goroutine $num [running]:\nmain.(*server).token(0xc000123456, {0x$hex8, 0x5})\n\t/src/$name/main.go:42 +0x1d",
		"java.lang.NullPointerException: Cannot invoke \"String.length()\" because \"token\" is null\n\tat org.example.$name.Auth.check(Auth.java:42)", "Traceback (most recent call last):\n  File \"/usr/lib/python3/$name.py\", line 42, in password\nKeyError: '$name'", "std::token::Parser::next() returned nullptr", "error[E0308]: mismatched types: expected `Token`, found `Option<Token>`",
		"SyntaxError: Unexpected token < in JSON at position 0", "sha256:$sha$hex16$hex8 verified", "go: downloading github.com/$name/$name v1.2.3-0.20260101000000-$hex12", "npm WARN deprecated $name@1.2.3: use npm_config_registry instead", "md5sum $hex16$hex16 file.tar.gz", "sk-$name: module loaded", "task-$num disk-$num risk-$name finished",
		"Build-ID: $name/$b20/$b20", "warning: unused variable: `password`", "def check_password(self, password): return None", "SELECT id, password FROM users WHERE name = ?", "PASS: TestTokenExpired (0.00s)", "ok  	example.org/$name/auth	0.012s	coverage: 81.2% of statements", "pass=312 fail=0 skip=4", "tests: pass: 12 fail: 0",
	},
	"data": {
		"payload $b86 accepted", "blob=$b86 size=$num", "id $uuid parent $uuid trace $hex16$hex16", "checksum: $hex16$hex16$hex16$hex16", "/usr/lib/x86_64-linux-gnu/lib$name.so.$num", "C:\\Program Files\\$name\\bin\\$name.exe", "MAC 52:54:00:12:34:56 address $ip/24", "S-1-5-32-544 and S-1-5-18", "ino=$num dev=8:1 mode=0100644 ouid=0 ogid=0", "ssh-ed25519 $b68 $name@example", "-----BEGIN CERTIFICATE-----\n$b64line\n-----END CERTIFICATE-----", "SHA256:$b43 $name (ED25519)", "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk$b64line",
	},
	"programs": {
		"/usr/bin/docker run -p 8080:80 --name $name -d nginx:1.27", "ssh -p 2222 $name@$ip", "mkdir -p /srv/$name/data", "cp -a /srv/$name /mnt/backup", "mysql -u root -p", "psql -U $name -p 5432 -h $ip", "curl -sS -u $name https://example.org/x", "tar -p -xzf $name.tar.gz", "net use Z: /delete", "net user", "grep -w password /etc/$name.conf", "passwd -l $name", "--password-file=/run/secrets/$name --v", "app --token-file /var/run/$name/token --listen :$num", "helm install $name ./chart -f values.yaml -n $name", "openssl x509 -in cert.pem -noout -dates", "PASSWORD=${DB_PASSWORD} ./run.sh", "export TOKEN=$(cat /run/token)", "password: ********", "password=%DB_PASSWORD%", "app --api-key={{ .Values.key }}",
	},
	"prose": {
		"invalid token: signature is invalid", "password authentication failed for user \"$name\"", "authorization: denied by policy", "token expired at 2026-11-23T10:11:12Z", "no credentials were found", "the secret is not there yet", "error: password required", "access key not found", "wrong password", "missing required field: token", "basic authentication is used", "bearer of the certificate", "max_tokens=4096 temperature=0.7", "session opened", "key: value", "password must have 12 characters", "secret/data/$name was read", "tokens: 512 used", "auth: ok", "signature: valid", "credentials: none", "token=null", "password=true", "\"password\":\"\"", "password: (none)",
	},
}

// Lines returns n lines of every kind without a secret, the same for the same seed.
func Lines(seed uint64, n int) (list []Harmless) {
	m := maker{rand.New(rand.NewPCG(seed, 2))}
	for _, kind := range []string{"journal", "windows", "kubernetes", "web", "code", "data", "programs", "prose"} {
		for i := range n {
			list = append(list, Harmless{kind, m.fill(harmless[kind][i%len(harmless[kind])])})
		}
	}
	return list
}

// fill draws the $-words of a line.
func (m maker) fill(line string) string {
	for _, f := range []struct {
		word string
		draw func() string
	}{
		{"$b64line", func() string { return "MIIB" + m.chars(alnum+"+/", 60) }},
		{"$b86", func() string { return m.chars(alnum+"+/", 86) + "==" }}, {"$b68", func() string { return "AAAAC3NzaC1lZDI1NTE5AAAAI" + m.chars(alnum+"+/", 43) }},
		{"$b43", func() string { return m.chars(alnum+"+/", 43) }}, {"$b20", func() string { return m.chars(alnum, 20) }},
		{"$hex16", func() string { return m.chars("0123456789abcdef", 16) }}, {"$hex12", func() string { return m.chars("0123456789abcdef", 12) }},
		{"$hex8", func() string { return m.chars("0123456789abcdef", 8) }}, {"$hex5", func() string { return m.chars("0123456789abcdef", 5) }}, {"$hex4", func() string { return m.chars("0123456789abcdef", 4) }},
		{"$uuid", m.uuid}, {"$sha", m.sha}, {"$num", func() string { return m.num(5) }}, {"$ip", m.ip}, {"$name", m.name},
		{"$NAME", func() string { return strings.ToUpper(m.name()) }},
	} {
		for strings.Contains(line, f.word) {
			line = strings.Replace(line, f.word, f.draw(), 1)
		}
	}
	return line
}
