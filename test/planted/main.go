// Command planted does nothing: its tests plant bugs, and want the other tests
// to find each. They run with the build tag torture, by make torture.
package main

func main() {}
