// Clients that publish one message at a time and wait until it is durable, with each engine's usual Go library.
//
// They warm up, print "warm", wait for a line on standard input, run, and print one JSON line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"sync"
	"time"
)

// publisher sends one message and returns when the server has confirmed it.
type publisher interface {
	publish(ctx context.Context, value []byte) error
	close()
}

// shape is what the command line asks for.
type shape struct {
	engine     string
	address    string
	topic      string
	clients    int
	partitions int
}

// answer is the last line of output.
type answer struct {
	Records uint64  `json:"records"`
	Seconds float64 `json:"seconds"`
	P50Us   float64 `json:"p50_us"`
	P99Us   float64 `json:"p99_us"`
}

func main() {
	var asked shape
	var bytes, warmMs, measureMs int
	flag.StringVar(&asked.engine, "engine", "kafka", "kafka, rabbitmq, rabbitmq-channels or nats")
	flag.StringVar(&asked.address, "address", "127.0.0.1:9092", "host:port")
	flag.StringVar(&asked.topic, "topic", "bench", "topic, queue or subject")
	flag.IntVar(&asked.clients, "clients", 64, "clients, each with one message in flight")
	flag.IntVar(&asked.partitions, "partitions", 1, "client i writes to partition i modulo this (kafka)")
	flag.IntVar(&bytes, "bytes", 1024, "bytes of each message")
	flag.IntVar(&warmMs, "warm-ms", 2000, "warm-up in milliseconds")
	flag.IntVar(&measureMs, "measure-ms", 6000, "measured milliseconds")
	flag.Parse()

	value := make([]byte, bytes)
	rand.New(rand.NewSource(1)).Read(value)
	publishers, err := connect(asked)
	if err == nil {
		err = runTwice(publishers, value, time.Duration(warmMs)*time.Millisecond, time.Duration(measureMs)*time.Millisecond)
	}
	for _, one := range publishers {
		one.close()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "waiting: %s: %v\n", asked.engine, err)
		os.Exit(1)
	}
}

func connect(asked shape) ([]publisher, error) {
	switch asked.engine {
	case "kafka":
		return connectKafka(asked)
	case "rabbitmq":
		return connectRabbit(asked, asked.clients)
	case "rabbitmq-channels":
		return connectRabbit(asked, 1)
	case "nats":
		return connectNats(asked)
	}
	return nil, fmt.Errorf("unknown engine")
}

func runTwice(publishers []publisher, value []byte, warm, measure time.Duration) error {
	if _, err := run(publishers, value, warm); err != nil {
		return err
	}
	fmt.Println("warm")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return fmt.Errorf("no word to go: %w", err)
	}
	result, err := run(publishers, value, measure)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// run lets every publisher send for a while; the first error stops all.
func run(publishers []publisher, value []byte, duration time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), duration+time.Minute)
	defer cancel()
	waits := make([][]int64, len(publishers))
	errs := make([]error, len(publishers))
	start := time.Now()
	var all sync.WaitGroup
	for index, one := range publishers {
		all.Add(1)
		go func() {
			defer all.Done()
			for time.Since(start) < duration {
				sent := time.Now()
				if err := one.publish(ctx, value); err != nil {
					errs[index] = err
					cancel()
					return
				}
				waits[index] = append(waits[index], time.Since(sent).Nanoseconds())
			}
		}()
	}
	all.Wait()
	seconds := time.Since(start).Seconds()
	var merged []int64
	for index := range publishers {
		if errs[index] != nil {
			return answer{}, errs[index]
		}
		merged = append(merged, waits[index]...)
	}
	sort.Slice(merged, func(i, j int) bool { return merged[i] < merged[j] })
	if len(merged) == 0 {
		return answer{}, fmt.Errorf("nothing was confirmed")
	}
	at := func(share float64) float64 { return float64(merged[int(share*float64(len(merged)-1))]) / 1e3 }
	return answer{uint64(len(merged)), seconds, at(0.5), at(0.99)}, nil
}
