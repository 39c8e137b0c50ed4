// Command hostile is a bench, not a program: make hostile runs its tests, which
// send a server what no agent sends, and measure from outside what that costs it.
package main

func main() {}
