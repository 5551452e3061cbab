// A recursive-descent parser of nested brackets, for deep_levels.py. A goroutine's stack grows by being copied.
//
// Prints the seconds of each parse, the peak of the resident set, and the resident set a second later (MiB).
package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

type node struct{ children []*node }

func parse(text []byte, at int) (*node, int) {
	made := &node{}
	at++
	for text[at] == '[' {
		var child *node
		child, at = parse(text, at)
		made.children = append(made.children, child)
	}
	return made, at + 1
}

func mebibytes(field string) float64 {
	text, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, field+":") {
			kib, _ := strconv.ParseFloat(strings.Fields(line)[1], 64)
			return kib / 1024
		}
	}
	return 0
}

func main() {
	levels, _ := strconv.Atoi(os.Args[1])
	debug.SetMaxStack(1 << 32)
	text := append(bytes.Repeat([]byte("["), levels), bytes.Repeat([]byte("]"), levels)...)
	var seconds [2]float64
	for i := range seconds {
		begun := time.Now()
		root, _ := parse(text, 0)
		seconds[i] = time.Since(begun).Seconds()
		if len(root.children) != 1 {
			panic("not parsed")
		}
	}
	time.Sleep(time.Second)
	fmt.Printf("{\"seconds\": [%g, %g], \"peak_mib\": %g, \"after_mib\": %g}\n",
		seconds[0], seconds[1], mebibytes("VmHWM"), mebibytes("VmRSS"))
}
