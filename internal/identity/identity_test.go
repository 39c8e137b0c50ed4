package identity

import (
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
)

const uuid = "0190d1c0-0000-7000-8000-000000000001"

func withURIs(t testing.TB, uris ...string) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = append(c.URIs, u)
	}
	return c
}

func TestNodeReadsTheAgentsURI(t *testing.T) {
	for _, uris := range [][]string{
		{"spiffe://rea/agent/" + uuid},
		{"spiffe://corp.example.org/agent/" + uuid},
		{"tag:microsoft.com,2022-09-14:sid:S-1-5-21", "spiffe://rea/agent/" + uuid},
	} {
		if got, err := Node(withURIs(t, uris...)); err != nil || got != uuid {
			t.Errorf("%v: %q, %v", uris, got, err)
		}
	}
}

func TestNodeRefuses(t *testing.T) {
	for name, uris := range map[string][]string{
		"no URI":               nil,
		"another scheme":       {"https://rea/agent/" + uuid},
		"two agents":           {"spiffe://rea/agent/" + uuid, "spiffe://rea/agent/" + uuid},
		"a server":             {"spiffe://rea/server/" + uuid},
		"no organisation":      {"spiffe:///agent/" + uuid},
		"a longer path":        {"spiffe://rea/agent/" + uuid + "/x"},
		"a query":              {"spiffe://rea/agent/" + uuid + "?x"},
		"a fragment":           {"spiffe://rea/agent/" + uuid + "#x"},
		"a user":               {"spiffe://me@rea/agent/" + uuid},
		"a port":               {"spiffe://rea:1/agent/" + uuid},
		"capitals":             {"spiffe://rea/agent/" + strings.ToUpper(uuid)},
		"an escaped letter":    {"spiffe://rea/agent/%30" + uuid[1:]},
		"a short UUID":         {"spiffe://rea/agent/" + uuid[1:]},
		"a way up":             {"spiffe://rea/agent/../agent/" + uuid},
		"a newline at the end": {"spiffe://rea/agent/" + uuid + "%0a"},
	} {
		if got, err := Node(withURIs(t, uris...)); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestLoopbackIsThisMachineOnly(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST.": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "[::1]": true, "::ffff:127.0.0.1": true,
		"": false, "0.0.0.0": false, "::": false, "10.0.0.1": false, "localhost.example.org": false, "127.0.0.1.example.org": false,
	} {
		if got := Loopback(host); got != want {
			t.Errorf("Loopback(%q) = %v", host, got)
		}
	}
}

func FuzzNode(f *testing.F) {
	f.Add("spiffe://rea/agent/" + uuid)
	f.Add("spiffe://rea/agent/%30" + uuid[1:])
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		if got, err := Node(&x509.Certificate{URIs: []*url.URL{u}}); err == nil && (len(got) != 36 || strings.ContainsAny(got, "/.%\\ \n")) {
			t.Errorf("%q names %q", s, got)
		}
	})
}
