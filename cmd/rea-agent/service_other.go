//go:build !windows

package main

import (
	"context"
	"net"
	"os"
)

// supervised runs the program for who started it, and tells systemd how it fares.
func supervised(run func(context.Context, *supervisor) int) int {
	tell := notifier(os.Getenv("NOTIFY_SOCKET"))
	return console(func(ctx context.Context, s *supervisor) int {
		s.ready = func() { tell("READY=1") }
		context.AfterFunc(ctx, func() { tell("STOPPING=1") })
		return run(ctx, s)
	})
}

// notifier returns how systemd is told of a state (sd_notify(3)). The socket is
// connected now, before the program takes from itself the right to. Where there
// is none, or systemd does not listen, nobody wants to know.
func notifier(socket string) func(state string) {
	if socket == "" {
		return func(string) {}
	}
	if socket[0] == '@' {
		socket = "\x00" + socket[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return func(string) {}
	}
	return func(state string) { _, _ = conn.Write([]byte(state)) } // it has a time-out for who says nothing
}
