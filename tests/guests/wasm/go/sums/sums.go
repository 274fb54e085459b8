// A library: what it exports is called.
package main

import "sort"

var seen []int

//go:wasmexport median
func median(number int64) int64 {
	seen = append(seen, int(number))
	sort.Ints(seen)
	return int64(seen[len(seen)/2])
}

func main() {}
