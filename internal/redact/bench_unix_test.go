//go:build unix

package redact

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

const logText = `Nov 23 10:11:12 lab-7 kubelet[1234]: I1123 10:11:12.345678    1234 reconciler.go:224] "operationExecutor.VerifyControllerAttachedVolume started for volume \"config\" (UniqueName: \"kubernetes.io/configmap/7f3a9d0c-5b6e-4f1a\") pod \"coredns-abc\" "
An account was successfully logged on. Subject: Security ID: S-1-5-18 Account Name: LAB-7$ Logon Type: 5
10.0.0.7 - - [23/Nov/2026:10:11:12 +0000] "GET /api/v1/items?page=2&sort=asc HTTP/1.1" 200 5120 "-" "Mozilla/5.0 (X11; Linux x86_64)"
{"level":"info","ts":"2026-11-23T10:11:12Z","caller":"server/main.go:42","msg":"request finished","status":200,"duration":0.0123,"path":"/healthz"}
`

// The speed is told in processor time too, which a busy machine does not change.
func BenchmarkHarmless(b *testing.B) {
	text := strings.Repeat(logText, 8)
	if clean, kinds := Secrets(text); clean != text {
		b.Fatal(kinds)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	before := processorTime()
	for b.Loop() {
		Secrets(text)
	}
	b.ReportMetric(float64(b.N)*float64(len(text))/1e6/(processorTime()-before).Seconds(), "MB/cpu-s")
}

// Texts that are made to be slow: each of these was, or could be, looked through
// from each of its words on.
func BenchmarkWorst(b *testing.B) {
	for _, piece := range []string{
		"auth=", "sk-", "eyJ", "eyJ.", "thin:", "cookie:", "://", "://a:b/", "password=", "password='", `password=\"`, "<password>", "</password>", "--password ", "/home/", `\Users\`, "PuTTY-User-Key-File-",
		"-----BEGIN RSA PRIVATE KEY-----", "net use * ", "sqlplus a;", "mysql -p", "bearer ", "0Q~", "a;", "password=a,", "d -_ ", ".Gaaaaa", "AKIA", "password={{", "sessionid=", "1:AA", "curl -u ", "LS0tLS1CRUdJTi",
	} {
		b.Run(piece, func(b *testing.B) {
			text := strings.Repeat(piece, 256<<10/len(piece))
			c := New(Options{PII: true})
			b.SetBytes(int64(len(text)))
			before := processorTime()
			for b.Loop() {
				c.Apply("process", "x", Text, text)
				c.Apply("process", "x", Path, text)
			}
			b.ReportMetric(2*float64(b.N)*float64(len(text))/1e6/(processorTime()-before).Seconds(), "MB/cpu-s")
		})
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
