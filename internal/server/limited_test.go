package server

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
)

func TestOneAddressCannotHoldAllConnections(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitConnections(tcp, 2*perAddress)
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var first net.Conn
	for range perAddress {
		defer dial().Close()
		first = <-accepted
	}
	refused := dial()
	defer refused.Close()
	if _, err := refused.Read(make([]byte, 1)); err == nil {
		t.Error("one more than an address may have was served")
	}
	first.Close()
	first.Close() // as net/http does
	defer dial().Close()
	(<-accepted).Close()
}

func TestReasonsThatAreNewEachTimeDoNotFillTheLog(t *testing.T) {
	var log strings.Builder
	c := newComplaints(slog.New(slog.NewTextHandler(&log, nil)))
	for i := range 1000 {
		fmt.Fprintf(c, "http: TLS handshake error from 192.0.2.1:1: tls: client offers %d\n", i)
	}
	if n := strings.Count(log.String(), "\n"); n != mostLines+1 {
		t.Errorf("%d lines", n)
	}
}
