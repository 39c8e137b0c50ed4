package redact

import "strings"

const (
	pemBegin  = "-----BEGIN "
	pemEnd    = "-----END "
	pemBase64 = "LS0tLS1CRUdJTi" // pemBegin in base64
)

// pem deals with a block of PEM: where it holds a private key all of it goes,
// and where its end was cut off, all that can still be part of it.
func (c *scan) pem(i int) int {
	s := c.s
	label := i + len(pemBegin)
	end := label
	for end < len(s) && end-label < 64 && (is(s[end], upper|digit) || s[end] == ' ') {
		end++
	}
	if !strings.Contains(s[label:end], "PRIVATE KEY") || !strings.HasPrefix(s[end:], "-----") {
		return end
	}
	stop := len(s)
	if at := strings.Index(s[end:], pemEnd); at >= 0 {
		stop = end + at + len(pemEnd)
		for stop < len(s) && (is(s[stop], upper|digit) || s[stop] == ' ') {
			stop++
		}
		stop = span(s, stop, dash)
	}
	c.hit(i, stop, "private-key")
	return stop
}

// pem64 deals with a block of PEM in base64, as kubeconfig files have it.
func (c *scan) pem64(i int) int {
	end := span(c.s, i, alnum|base64)
	switch rest := c.s[i+len(pemBase64) : end]; {
	case strings.HasPrefix(rest, "BSU0Eg"), // RSA
		strings.HasPrefix(rest, "BQUklWQVRF"),   // PRIVATE
		strings.HasPrefix(rest, "BFQyBQ"),       // EC P
		strings.HasPrefix(rest, "BPUEVOU1NI"),   // OPENSSH
		strings.HasPrefix(rest, "BFTkNSWVBURU"), // ENCRYPTED
		strings.HasPrefix(rest, "BEU0Eg"):       // DSA
		c.hit(i, end, "private-key")
	}
	return end
}

// putty deals with a PPK file: what follows Private-Lines, and the MAC. i is the
// first - of PuTTY-User-Key-File.
func (c *scan) putty(i int) int {
	if c.notPuTTY {
		return i
	}
	at := strings.Index(c.s[i:], "Private-Lines: ")
	if at < 0 {
		c.notPuTTY = true
		return i
	}
	from := span(c.s, i+at+len("Private-Lines: "), digit)
	if from < len(c.s) {
		c.hit(from, len(c.s), "private-key")
	}
	return len(c.s)
}
