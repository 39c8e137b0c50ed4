//go:build !linux

package main

// easeTimers is for Linux; elsewhere timers are coarse already.
func easeTimers() {}
