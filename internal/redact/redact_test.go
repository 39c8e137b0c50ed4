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
