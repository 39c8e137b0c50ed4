package status

import (
	"net"
	"sync"
)

// A limited listener has at most so many connections open; more wait in the
// system's backlog.
type limited struct {
	net.Listener
	free   chan struct{} // a token for each connection that is open
	closed chan struct{}
	once   sync.Once
}

func limit(l net.Listener, n int) *limited {
	return &limited{Listener: l, free: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &conn{Conn: c, free: l.free}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type conn struct {
	net.Conn
	free chan struct{}
	once sync.Once
}

func (c *conn) Close() error {
	c.once.Do(func() { <-c.free })
	return c.Conn.Close()
}
