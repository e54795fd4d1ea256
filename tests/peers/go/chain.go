package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

var passed = []string{"traceparent", "tracestate", "b3", "X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled",
	"X-Amzn-Trace-Id", "X-Request-Id"}

// chain is as chain.py: `peer chain PORT LOG UP KIND`. Who calls: `same`, the handler's goroutine; `fan`, a goroutine for
// each call; `pool`, goroutines that the first request starts and that serve all of them; `batch`, a goroutine that the
// first of several requests starts and that calls for all of these, after a while; `late`, a handler under a time limit,
// which net/http runs in a goroutine of its own; `direct`, the handler's goroutine, which writes on connections itself.
func chain(port, path, up, kind string) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	get := func(path string, headers http.Header) {
		request, err := http.NewRequest("GET", up+path, nil)
		if err != nil {
			log.Fatal(err)
		}
		for _, name := range passed {
			if value := headers.Get(name); value != "" {
				request.Header.Set(name, value)
			}
		}
		response, err := client.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	go func() {
		for i := 0; ; i++ {
			time.Sleep(5 * time.Millisecond)
			get(fmt.Sprintf("/bg/%d", i), nil)
			fmt.Fprintf(file, "bg %d\n", i)
		}
	}()
	one := func(id string, k int, headers http.Header) {
		if kind == "direct" && headers.Get("traceparent")+headers.Get("X-Request-Id") == "" {
			direct(strings.TrimPrefix(up, "http://"), fmt.Sprintf("/out/%s/%d", id, k))
		} else {
			get(fmt.Sprintf("/out/%s/%d", id, k), headers)
		}
		fmt.Fprintf(file, "%s %d\n", id, k)
	}
	work := workers()
	later := batches()
	handle := func(w http.ResponseWriter, r *http.Request) {
		words := strings.Split(r.URL.Path, "/")
		count, _ := strconv.Atoi(words[3])
		var all sync.WaitGroup
		all.Add(count)
		for k := 0; k < count; k++ {
			job := func() {
				one(words[2], k, r.Header)
				all.Done()
			}
			switch kind {
			case "fan":
				go job()
			case "pool":
				work(job)
			case "batch":
				later(job)
			default:
				job()
			}
		}
		all.Wait()
		io.WriteString(w, "ok")
	}
	var handler http.Handler = http.HandlerFunc(handle)
	if kind == "late" {
		handler = http.TimeoutHandler(handler, time.Minute, "late")
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, handler))
}

// workers gives jobs to four goroutines, which start with the first.
func workers() func(func()) {
	jobs := make(chan func())
	var once sync.Once
	return func(job func()) {
		once.Do(func() {
			for range 4 {
				go func() {
					for job := range jobs {
						job()
					}
				}()
			}
		})
		jobs <- job
	}
}

// batches does jobs of 2 ms together, in a goroutine that the first of them starts.
func batches() func(func()) {
	var lock sync.Mutex
	var waiting []func()
	return func(job func()) {
		lock.Lock()
		defer lock.Unlock()
		waiting = append(waiting, job)
		if len(waiting) > 1 {
			return
		}
		go func() {
			time.Sleep(2 * time.Millisecond)
			lock.Lock()
			jobs := waiting
			waiting = nil
			lock.Unlock()
			for _, job := range jobs {
				job()
			}
		}()
	}
}

var idle = make(chan net.Conn, 64)

// direct asks on a connection that nobody else has by then.
func direct(address, path string) {
	var conn net.Conn
	select {
	case conn = <-idle:
	default:
		var err error
		if conn, err = net.Dial("tcp", address); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, address)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(io.Discard, response.Body)
	select {
	case idle <- conn:
	default:
		conn.Close()
	}
}
