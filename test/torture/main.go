// Command torture runs the torture bench and prints what came of it.
package main

func main() {}
