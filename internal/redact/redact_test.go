package redact

import (
	"strings"
	"testing"
)

func TestSecretsGoAndTheRestStays(t *testing.T) {
	const M = Mark
	for _, c := range []struct{ in, want, kinds string }{
		{"plain words", "plain words", ""},
		{"token expired", "token expired", ""},
		{"invalid token: signature is invalid", "invalid token: signature is invalid", ""},
		{"--password=hunter2 --v", "--password=" + M + " --v", "password"},
		{"--password hunter2 --v", "--password " + M + " --v", "password"},
		{`{"api_key": "abc", "b": 1}`, `{"api_key": "` + M + `", "b": 1}`, "api-key"},
		{`{\"password\":\"a \\\"b\\\" c\",\"x\":1}`, `{\"password\":\"` + M + `\",\"x\":1}`, "password"},
		{`["--password","hunter2","--v"]`, `["--password","` + M + `","--v"]`, "password"},
		{"Authorization: Bearer abc.def rest", "Authorization: " + M + " rest", "authorization"},
		{"DB_PASSWORD=a;Server=b", "DB_PASSWORD=" + M + ";Server=b", "password"},
		{"get https://u:p@ss@host/x?y", "get https://u:" + M + "@host/x?y", "url-password"},
		{"https://host:8443/x@y", "https://host:8443/x@y", ""},
		{"password=", "password=", ""},
		{"password=${DB_PASSWORD} x", "password=${DB_PASSWORD} x", ""},
		{`password="my long phrase" x`, `password="` + M + `" x`, "password"},
		{"sudo: alice : TTY=pts/0 ; PWD=/srv ; USER=root ; COMMAND=/usr/bin/mysql -phunter2 db", "sudo: alice : TTY=pts/0 ; PWD=/srv ; USER=root ; COMMAND=/usr/bin/mysql -p" + M + " db", "command-password"},
		{"docker run -p 80:80 nginx", "docker run -p 80:80 nginx", ""},
		{"docker login -u bob -p hunter2 reg", "docker login -u bob -p " + M + " reg", "command-password"},
		{"curl -u bob:hunter2 https://h/", "curl -u bob:" + M + " https://h/", "user-password"},
		{`net use \\srv\c$ /user:CORP\bob hunter2`, `net use \\srv\c$ /user:CORP\bob ` + M, "command-password"},
		{`cmdkey /add:srv /user:bob /pass:hunter2`, `cmdkey /add:srv /user:bob /pass:` + M, "password"},
		{`ConvertTo-SecureString "hunter 2" -AsPlainText -Force`, `ConvertTo-SecureString "` + M + `" -AsPlainText -Force`, "secure-string"},
		{"Authorization: Bearer", "Authorization: " + M, "authorization"},
		{"<Password>hunter2</Password>", "<Password>" + M + "</Password>", "password"},
		{"machine h login bob password hunter2", "machine h login bob password " + M, "netrc-password"},
		{"CREATE USER x IDENTIFIED BY 'hunter2'", "CREATE USER x IDENTIFIED BY '" + M + "'", "sql-password"},
		{"key AKIA" + "ABCDEFGH12345678 used", "key " + M + " used", "aws-access-key"},
		{"x ghp_" + strings.Repeat("aB3", 12) + ".", "x " + M + ".", "github-token"},
		{"rhost= password= user=x", "rhost= password= user=x", ""},
		{"--password=a,b;c --v", "--password=" + M + " --v", "password"},
		{"Cookie: a=b; c=d", "Cookie: " + M, "cookie"},
		{"std::token::x", "std::token::x", ""},
	} {
		got, kinds := Secrets(c.in)
		if got != c.want || kinds != c.kinds {
			t.Errorf("%q\n became %q (%s)\n   want %q (%s)", c.in, got, kinds, c.want, c.kinds)
		}
		if again, kinds := Secrets(got); again != got || kinds != "" {
			t.Errorf("%q became %q and then %q (%s)", c.in, got, again, kinds)
		}
	}
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

func TestPersonalDataGoesByField(t *testing.T) {
	const gone = "(removed)"
	p := New(Options{PII: true})
	k := New(Options{PII: true, Key: testKey})
	alice := k.hash("alice")
	for _, c := range []struct {
		kind, field   string
		class         Class
		in            string
		removed, hash string // without a key, and with one
	}{
		{"process", "user", Account, "alice", gone, alice},
		{"process", "user", Account, "Alice", gone, alice},
		{"process", "user", Account, `CORP\alice`, gone, `CORP\` + alice},
		{"process", "user", Account, "alice@corp.example", gone, alice + "@corp.example"},
		{"process", "user", Account, "root", "root", "root"},
		{"process", "command_line", Command, "ls /home/alice", gone, gone},
		{"process", "executable", Path, "/home/alice/bin/x", "/home/" + Mark + "/bin/x", "/home/" + alice + "/bin/x"},
		{"agent", "reason", Text, "open /home/alice/x: no", "open /home/" + Mark + "/x: no", "open /home/" + alice + "/x: no"},
		{"agent", "reason", Text, `C:\Users\Alice\x and C:\Users\Public\y`, `C:\Users\` + Mark + `\x and C:\Users\Public\y`, `C:\Users\` + alice + `\x and C:\Users\Public\y`},
		{"agent", "reason", Text, `{"p":"C:\\Users\\alice\\x"}`, `{"p":"C:\\Users\\` + Mark + `\\x"}`, `{"p":"C:\\Users\\` + alice + `\\x"}`},
		{"agent", "reason", Text, "GET https://h/home/page", "GET https://h/home/page", "GET https://h/home/page"},
		{"eventlog", "SubjectUserName", Text, "alice", gone, alice},
		{"eventlog", "TargetUserName", Text, "LAB-7$", "LAB-7$", "LAB-7$"},
		{"eventlog", "SubjectUserSid", Text, "S-1-5-18", "S-1-5-18", "S-1-5-18"},
		{"eventlog", "SubjectUserSid", Text, "S-1-5-21-1-2-3-1001", gone, k.hash("S-1-5-21-1-2-3-1001")},
		{"eventlog", "SubjectUserName", Text, `NT AUTHORITY\SYSTEM`, `NT AUTHORITY\SYSTEM`, `NT AUTHORITY\SYSTEM`},
		{"eventlog", "IpAddress", Text, "10.0.0.7", "10.0.0.7", "10.0.0.7"},
		{"eventlog", "WorkstationName", Text, "LAB-7", "LAB-7", "LAB-7"},
		{"eventlog", "CommandLine", Text, "net user bob x /add", gone, gone},
		{"eventlog", "Password", Text, "hunter2", Mark, Mark},
		{"eventlog", "ElevatedToken", Text, "%%1842", "%%1842", "%%1842"},
		{"journal", "_CMDLINE", Text, "sleep 1", gone, gone},
		{"journal", "_UID", Text, "1000", "1000", "1000"},
		{"journal", "USER_ID", Text, "alice", gone, alice},
	} {
		for i, policy := range []*Policy{p, k} {
			got, keep, _ := policy.Apply(c.kind, c.field, c.class, c.in)
			if !keep {
				got = gone
			}
			if want := [...]string{c.removed, c.hash}[i]; got != want {
				t.Errorf("%s.%s %q became %q, want %q", c.kind, c.field, c.in, got, want)
			}
			if again, _, _ := policy.Apply(c.kind, c.field, c.class, got); keep && again != got {
				t.Errorf("%s.%s %q became %q and then %q", c.kind, c.field, c.in, got, again)
			}
		}
	}
}

func TestARuleGoesBeforeAllElse(t *testing.T) {
	rules := []Rule{{"process", "user", Keep}, {"process", "command_line", Keep}, {"eventlog", "IpAddress", Hash}, {"eventlog", "subject_user_name", Remove}, {"agent", "reason", Remove}}
	for _, key := range [][]byte{nil, testKey} {
		p := New(Options{PII: true, Commands: true, Key: key, Rules: rules})
		if got, keep, _ := p.Apply("process", "user", Account, "alice"); got != "alice" || !keep {
			t.Errorf("process.user=keep gave %q, %v", got, keep)
		}
		if got, keep, kinds := p.Apply("process", "command_line", Command, "net user bob hunter2"); got != "net user bob "+Mark || !keep || kinds == "" {
			t.Errorf("process.command_line=keep gave %q, %v: secrets go even so", got, keep)
		}
		if got, keep, _ := p.Apply("eventlog", "IpAddress", Text, "10.0.0.7"); keep != (key != nil) || keep && !hashed(got) {
			t.Errorf("eventlog.IpAddress=hash gave %q, %v with the key %q", got, keep, key)
		}
		for _, account := range []string{"alice", "SYSTEM"} {
			if _, keep, _ := p.Apply("eventlog", "SubjectUserName", Text, account); keep {
				t.Errorf("eventlog.subject_user_name=remove kept the SubjectUserName %s", account)
			}
		}
		if !p.Reads("process", "user", Account) || p.Reads("agent", "reason", Text) {
			t.Error("Reads does not follow the rules")
		}
	}
}

func TestTheHashIsTheSameOnEveryMachineWithTheKey(t *testing.T) {
	// HMAC-SHA-256 of "alice", as anybody can compute it:
	// printf alice | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
	const want = "h:433deb45467e4e53dbaba594c88bc3a2"
	if got := New(Options{PII: true, Key: testKey}).hash("Alice"); got != want {
		t.Errorf("the hash is %s, want %s", got, want)
	}
	if other := New(Options{PII: true, Key: []byte(strings.Repeat("other key ", 4))}).hash("alice"); other == want {
		t.Error("another key gives the same hash")
	}
}

func TestTextWithoutSecretsCostsNoMemory(t *testing.T) {
	p := New(Options{PII: true})
	text := "Started Session 5 of User root; path /srv/x key: value --verbose"
	if n := testing.AllocsPerRun(100, func() { p.Apply("eventlog", "Message", Text, text) }); n != 0 {
		t.Errorf("%v allocations for a text in which there is nothing", n)
	}
}
