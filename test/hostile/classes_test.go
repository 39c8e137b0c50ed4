//go:build hostile && linux

package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/rea-agent/rea/internal/wire"
)

// A class is one kind of hostile request.
type class struct {
	name   string
	weight int   // its part of all requests
	want   []int // the answers that are right; 0 is a connection that was closed
	wide   int   // how many at a time; 0 for the usual

	request func(p *peer) []byte // what is sent, or
	act     func(p *peer) int    // what is done instead
}

// The usual weights: what costs the server much, what begins with a handshake, and
// what takes the time of the clock are sent less often.
const (
	cheap    = 24
	heavy    = 5
	shake    = 10
	slow     = 1
	decoded  = wire.BatchBytes
	lineRoom = wire.MaxLine
)

const stream = "7f3a00000000000000000000000000c1"

// post returns a request to /ingest for those lines, with more headers.
func post(first, last uint64, more string, body []byte) []byte {
	return append(fmt.Appendf(nil, "POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nRea-Stream: %s\r\nRea-First: %d\r\nRea-Last: %d\r\nRea-Batch: b1\r\nRea-Schema: 1\r\nRea-Assigned: %d\r\nContent-Length: %d\r\n%s\r\n",
		stream, first, last, last, len(body), more), body...)
}

const packed = "Content-Encoding: zstd\r\n"

// frames is post of a compressed body.
func frames(first, last uint64, lines []byte) []byte {
	return post(first, last, packed, wire.NewCompressor().Append(nil, lines))
}

// full is a body just within what may be decoded, of lines that hold the value
// again and again; the last line is wrong, so that all of it is looked at.
func full(p *peer, value string) []byte {
	one := "[" + strings.Repeat(value+",", (lineRoom-1000)/(len(value)+1)) + "0]"
	var b bytes.Buffer
	n := uint64(1)
	for ; b.Len()+lineRoom < decoded; n++ {
		b.WriteString(line(p.node, stream, n, `{"a":`+one+`}`))
	}
	b.WriteString("[]\n")
	return post(1, n, "", b.Bytes()) // not compressed: its ratio would be found first
}

// many returns an object of so many short names.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%x":0`, i)
	}
	return "{" + b.String()[1:] + "}"
}

// small is as many lines as fit, the last one wrong.
func small(p *peer, size int) ([]byte, uint64) {
	var b bytes.Buffer
	n := uint64(1)
	for ; b.Len() < size-1000; n++ {
		b.WriteString(line(p.node, stream, n, `{"n":0}`))
	}
	b.WriteString("[]\n")
	return b.Bytes(), n
}

func bomb(n int) []byte {
	e, err := zstd.NewWriter(nil, zstd.WithWindowSize(256<<10))
	if err != nil {
		panic(err)
	}
	return e.EncodeAll(make([]byte, n), nil)
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i, r := 0, rand.New(rand.NewPCG(1, 1)); i < n; i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}

// static sends the same each time: it is made once for each peer.
func static(make func(p *peer) []byte) func(p *peer) []byte {
	made := map[string][]byte{}
	return func(p *peer) []byte {
		p.b.mu.Lock()
		defer p.b.mu.Unlock()
		if made[p.node] == nil {
			made[p.node] = make(p)
		}
		return made[p.node]
	}
}

// text sends a request that is the same for all.
func text(s string) func(*peer) []byte { return func(*peer) []byte { return []byte(s) } }

// body sends lines that are wrong in one place.
func body(old, with string) func(*peer) []byte {
	return func(p *peer) []byte {
		l := line(p.node, stream, 1, `{"n":0}`)
		return frames(1, 1, []byte(strings.Replace(l, old, with, 1)))
	}
}

// with sends a good line with more headers, or others.
func with(more string) func(*peer) []byte {
	return func(p *peer) []byte { return post(1, 1, more, []byte(line(p.node, stream, 1, `{"n":0}`))) }
}

// instead sends a good line, with a part of the request replaced.
func instead(old, new string) func(*peer) []byte {
	return func(p *peer) []byte {
		return bytes.Replace(post(1, 1, "", []byte(line(p.node, stream, 1, `{"n":0}`))), []byte(old), []byte(new), 1)
	}
}

func zipped(b []byte) func(*peer) []byte {
	return static(func(*peer) []byte { return post(1, 1, packed, b) })
}

// turns sends one after the other.
func turns(list ...string) func(*peer) []byte {
	return func(p *peer) []byte { p.tries++; return []byte(list[p.tries%len(list)]) }
}

// paths are ways to ask for something else.
func paths() (list []string) {
	for _, path := range []string{
		"/../ingest", "/ingest/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/ingest/", "//ingest", "/ingest%00", "/ingest;x", "/INGEST", "/./ingest", `/..\..\windows`,
		"/ingest/.git/config", "/metrics", "/debug/pprof/heap", "/healthz", "/", "/ingest%2f..%2f..", "/\u202eingest", "/<script>alert(1)</script>",
	} {
		list = append(list, "POST "+strings.ReplaceAll(path, " ", "")+" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	}
	return list
}

func classes() []class {
	empty := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00, 1, 0, 0}
	lastEmpty := append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00}, bytes.Repeat([]byte{0, 0, 0}, 1_300_000)...)
	return []class{
		// Zstd.
		{name: "zstd: 62 MiB of zeros", weight: heavy, want: []int{413}, request: zipped(bomb(64 << 20))},
		{name: "zstd: 4 GiB in many frames", weight: heavy, want: []int{413}, request: zipped(bytes.Repeat(bomb(64<<20), 64))},
		{name: "zstd: just below the ratio", weight: heavy, want: []int{413}, request: zipped(append(wire.NewCompressor().Append(nil, noise(32<<10)), bomb(64<<20)...))},
		{name: "zstd: 2 MiB of empty frames", weight: heavy, want: []int{413}, request: zipped(bytes.Repeat(empty, decoded/len(empty)))},
		{name: "zstd: 2 MiB of empty blocks", weight: heavy, want: []int{413}, request: zipped(lastEmpty)},
		{name: "zstd: 2 MiB of skippable frames", weight: heavy, want: []int{413}, request: zipped(bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, decoded/8))},
		{name: "zstd: a claim of 2^62 bytes", weight: cheap, want: []int{400}, request: zipped([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0})},
		{name: "zstd: a window of 4 MiB", weight: cheap, want: []int{400}, request: zipped([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x60, 1, 0, 0})},
		{name: "zstd: an unknown dictionary", weight: cheap, want: []int{400}, request: zipped([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x40, 7, 1, 0, 0})},
		{name: "zstd: a frame that is cut", weight: cheap, want: []int{400}, request: static(func(p *peer) []byte {
			f := wire.NewCompressor().Append(nil, []byte(line(p.node, stream, 1, many(100))))
			return post(1, 1, packed, f[:len(f)/2])
		})},
		{name: "zstd: noise", weight: cheap, want: []int{400}, request: zipped(noise(2000))},

		// Lines.
		{name: "lines: 2 MiB of names", weight: heavy, want: []int{422}, request: static(func(p *peer) []byte { return full(p, many(256)) })},
		{name: "lines: 2 MiB of numbers", weight: heavy, want: []int{422}, request: static(func(p *peer) []byte { return full(p, "1.7e308") })},
		{name: "lines: 2 MiB of escapes", weight: heavy, want: []int{422}, request: static(func(p *peer) []byte { return full(p, `"\u0041\u00e9"`) })},
		{name: "lines: 2 MiB of lists, 16 deep", weight: heavy, want: []int{422}, request: static(func(p *peer) []byte { return full(p, strings.Repeat("[", 13)+strings.Repeat("]", 13)) })},
		{name: "lines: 2 MiB of short ones", weight: heavy, want: []int{422}, request: static(func(p *peer) []byte { b, n := small(p, decoded); return post(1, n, "", b) })},
		{name: "lines: gaps", weight: heavy, want: []int{413}, request: static(func(p *peer) []byte {
			var b bytes.Buffer
			for n := uint64(1); n <= 2000; n++ {
				l := line(p.node, stream, n, `{"cause":"x","count":1,"m":[`+strings.Repeat("{},", 100)+`0]}`)
				b.WriteString(strings.Replace(strings.Replace(l, `"cpu"`, `"gap"`, 1), `"cpu"`, `"gap"`, 1))
			}
			return frames(1, 2000, b.Bytes())
		})},
		{name: "lines: 100,000 deep", weight: cheap, want: []int{422}, request: body(`{"n":0}`, strings.Repeat(`{"a":`, 100_000))},
		{name: "lines: a name twice", weight: cheap, want: []int{422}, request: body(`"n":0`, `"n":0,"n":0`)},
		{name: "lines: 300 members", weight: cheap, want: []int{422}, request: body(`{"n":0}`, many(300))},
		{name: "lines: bad UTF-8", weight: cheap, want: []int{422}, request: body("lab-7", "lab\xff\xc0\xaf")},
		{name: "lines: giant numbers", weight: cheap, want: []int{422}, request: body(`"n":0`, `"n":`+strings.Repeat("9", 10_000))},
		{name: "lines: beyond floating point", weight: cheap, want: []int{422}, request: body(`"n":0`, `"n":1e999999`)},
		{name: "lines: one of 1.8 MiB", weight: heavy, want: []int{422}, request: static(func(p *peer) []byte {
			return post(1, 1, "", []byte(line(p.node, stream, 1, `"`+string(bytes.Repeat([]byte("x y"), 600_000))+`"`)))
		})},
		{name: "lines: another node", weight: cheap, want: []int{403}, request: func(p *peer) []byte { return frames(1, 1, []byte(line(node(1), stream, 1, "{}"))) }},
		{name: "lines: another stream", weight: cheap, want: []int{422}, request: body(stream, strings.Repeat("0", 32))},
		{name: "lines: another number", weight: cheap, want: []int{422}, request: body(`"seq":1`, `"seq":9223372036854775807`)},
		{name: "lines: names of hosts that are escapes", weight: cheap, want: []int{200, 409}, request: body("lab-7", `\u001b]0;x\u0007\u001b[2J\u202e<script>alert(1)</script>`)},
		{name: "lines: 100 hosts in a batch", weight: cheap, want: []int{422}, request: static(func(p *peer) []byte {
			var b bytes.Buffer
			for n := uint64(1); n <= 100; n++ {
				b.WriteString(strings.Replace(line(p.node, stream, n, "{}"), "lab-7", fmt.Sprint("lab-", n), 1))
			}
			return frames(1, 100, b.Bytes())
		})},

		// Repeats: after the first one nothing of it is new.
		{name: "replays", weight: cheap, want: []int{200}, request: static(func(p *peer) []byte {
			return bytes.ReplaceAll(frames(1, 1, []byte(strings.Replace(line(p.node, stream, 1, `{"n":0}`), stream, strings.Repeat("a", 32), 1))), []byte(stream), []byte(strings.Repeat("a", 32)))
		})},

		// Requests.
		{name: "methods", weight: cheap, want: []int{400, 404, 405}, request: turns(
			"GET /ingest HTTP/1.1\r\nHost: x\r\n\r\n", "PUT /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "DELETE /resume HTTP/1.1\r\nHost: x\r\n\r\n",
			"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", "\x1b[2J /ingest HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("A", 9000)+" /ingest HTTP/1.1\r\nHost: x\r\n\r\n")},
		{name: "paths", weight: cheap, want: []int{400, 404}, request: turns(paths()...)},
		{name: "a body on /resume", weight: cheap, want: []int{400}, request: text("POST /resume HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")},
		{name: "content types and codings", weight: cheap, want: []int{400, 415, 501}, request: func(p *peer) []byte {
			p.tries++
			return [](func(*peer) []byte){instead("application/x-ndjson", "text/html"), with("Content-Encoding: gzip\r\n"), with("Content-Encoding: zstd, zstd\r\n"), with("Transfer-Encoding: gzip, chunked\r\n")}[p.tries%4](p)
		}},
		{name: "chunked", weight: cheap, want: []int{400, 411, 415, 501}, request: turns(
			"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
			"POST /ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
			"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n1;"+strings.Repeat("x", 3000)+"\r\nh\r\n0\r\n\r\n",
			"POST /ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n")},
		{name: "smuggling", weight: cheap, want: []int{400, 411, 415, 501}, request: turns(
			"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
			"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
			"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello", "POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
			"POST /ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", "POST /ingest HTTP/1.1\r\nHost: x\r\n Folded: y\r\n\r\n",
			"POST /ingest HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "POST /ingest HTTP/1.1\r\nRea-Stream: a\x00b\r\nHost: x\r\n\r\n", "POST /ingest HTTP/1.1\r\n\r\n")},
		{name: "lengths that lie", weight: cheap, want: []int{400, 411, 413, 415, 422}, request: func(p *peer) []byte {
			p.tries++
			return instead("Content-Length: ", "Content-Length: "+[]string{"9", "99999999", "9223372036854775807", "-", "0x", "99999999999999999999"}[p.tries%6]+"\r\nX: ")(p)
		}},
		{name: "headers of 1 MiB", weight: heavy, want: []int{0, 431}, request: text("POST /ingest HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n")},
		{name: "65,536 headers", weight: heavy, want: []int{0, 431}, request: text("POST /ingest HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: x\r\n", 1<<16) + "\r\n")},
		{name: "headers of a batch", weight: cheap, want: []int{400, 413}, request: func(p *peer) []byte {
			p.tries++
			pick := [][2]string{
				{"Rea-First: 1", "Rea-First: 18446744073709551616"}, {"Rea-First: 1", "Rea-First: -1"}, {"Rea-Last: 1", "Rea-Last: 9223372036854775807\r\nX: "}, {"Rea-Batch: b1", "Rea-Batch: \x1b[31mred"},
				{"Rea-Batch: b1", "Rea-Batch: ../../etc/passwd"}, {"Rea-Stream: 7f3a", "Rea-Stream: ../a"}, {"Rea-Schema: 1", "Rea-Schema: 2"}, {"Rea-Batch: b1", "Rea-Batch: <script>"},
				{"Rea-Stream: ", "Rea-Stream: x\r\nRea-Stream: "}, {"Rea-Batch: b1", "Rea-Batch: " + strings.Repeat("b", 5000)},
			}[p.tries%10]
			return instead(pick[0], pick[1])(p)
		}},
		{name: "no HTTP", weight: cheap, want: []int{0, 400, 404, 505}, request: turns("hello\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", string(noise(500))+"\r\n\r\n", "POST /ingest HTTP/9.9\r\nHost: x\r\n\r\n", "\r\n\r\n\r\n\r\n\x00\r\n\r\n")},

		// Below HTTP. Each has a connection of its own.
		{name: "no TLS", weight: shake, want: []int{0, 400}, act: func(p *peer) int {
			return p.once(nil, "POST /ingest HTTP/1.1\r\nHost: x\r\n\r\n")
		}},
		{name: "a handshake that is noise", weight: shake, want: []int{0}, act: func(p *peer) int {
			return p.once(nil, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+string(noise(506)))
		}},
		{name: "a handshake without a certificate", weight: shake, want: []int{0}, act: func(p *peer) int {
			c := p.conf.Clone()
			c.Certificates = nil
			return p.once(c, "POST /ingest HTTP/1.1\r\nHost: x\r\n\r\n")
		}},
		{name: "TLS 1.2", weight: shake, want: []int{0}, act: func(p *peer) int {
			c := p.conf.Clone()
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			return p.once(c, "POST /ingest HTTP/1.1\r\nHost: x\r\n\r\n")
		}},

		// Slow ones.
		{name: "slow head", weight: slow, wide: 50, want: []int{0, 408}, act: func(p *peer) int { return p.drip(p.conf, instead("", "")(p), 40, 100*time.Millisecond) }},
		{name: "slow body", weight: slow, wide: 16, want: []int{0, 408}, act: func(p *peer) int {
			b := bytes.ReplaceAll(post(1, 1, "", noise(1000)), []byte(stream), fmt.Appendf(nil, "%032x", rand.Uint64())) // or it would wait for its turn
			return p.drip(p.conf, b, len(b)-900, 100*time.Millisecond)
		}},
		{name: "slow handshake", weight: slow, wide: 50, want: []int{0}, act: func(p *peer) int {
			return p.drip(nil, []byte("\x16\x03\x01\x02\x00"+string(make([]byte, 500))), 1, 100*time.Millisecond)
		}},
	}
}

// once sends text on a connection of its own.
func (p *peer) once(conf *tls.Config, text string) int {
	q := peer{b: p.b, node: p.node, conf: conf, from: p.from}
	defer q.hangUp()
	return q.send([]byte(text))
}

// drip sends the first bytes at once and then one at a time, until the server has
// enough of it.
func (p *peer) drip(conf *tls.Config, b []byte, first int, pause time.Duration) int {
	q := peer{b: p.b, node: p.node, conf: conf, from: p.from}
	if q.dial() != nil {
		return 0
	}
	defer q.hangUp()
	answer := make(chan int, 1)
	go func() {
		_ = q.conn.SetReadDeadline(time.Now().Add(peerTime))
		status := 0
		if text, err := q.read.ReadString('\n'); err == nil {
			fmt.Sscanf(text, "HTTP/1.1 %d", &status)
		}
		answer <- status
	}()
	_, err := q.conn.Write(b[:first])
	for _, c := range b[first:] {
		select {
		case status := <-answer:
			return status
		case <-time.After(pause):
		}
		if err == nil {
			_, err = q.conn.Write([]byte{c})
		}
	}
	return <-answer
}
