// Counts the words of files, each in a goroutine of its own, and waits for ten timers at once.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

func words(name string) (int, error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	count := 0
	for scanner.Scan() {
		count += len(strings.Fields(scanner.Text()))
	}
	return count, scanner.Err()
}

func main() {
	failed := false
	counts := make([]string, len(os.Args)-1)
	var all sync.WaitGroup
	for i, name := range os.Args[1:] {
		all.Add(1)
		go func() {
			defer all.Done()
			count, err := words(name)
			counts[i] = fmt.Sprintf("%d %s", count, name)
			if err != nil {
				counts[i] = err.Error()
				failed = true
			}
		}()
	}
	all.Wait()
	fmt.Println(strings.Join(counts, "\n"))
	start := time.Now()
	ended := make(chan int)
	for i := range 10 {
		go func() {
			time.Sleep(time.Duration(20-i) * time.Millisecond)
			ended <- i
		}()
	}
	sum := 0
	for range 10 {
		sum += <-ended
	}
	fmt.Println("timers", sum, time.Since(start) >= 20*time.Millisecond, os.Getenv("LEVEL"))
	if failed {
		os.Exit(1)
	}
}
