package rig

import "testing"

func TestAnAddressIsGivenOnce(t *testing.T) {
	given := map[string]bool{}
	for range 1000 {
		address := FreeAddress(t)
		if given[address] {
			t.Fatalf("%s is given twice", address)
		}
		given[address] = true
	}
}
