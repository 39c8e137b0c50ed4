//go:build torture && linux

package main

func beWriter(args []string) error { return nil }
