package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

var passed = []string{"traceparent", "tracestate", "b3", "X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled",
	"X-Amzn-Trace-Id", "X-Request-Id"}

// chain is as chain.py: `peer chain PORT LOG UP`.
func chain(port, path, up string) {
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
	handle := func(w http.ResponseWriter, r *http.Request) {
		words := strings.Split(r.URL.Path, "/")
		count, _ := strconv.Atoi(words[3])
		for k := 0; k < count; k++ {
			get(fmt.Sprintf("/out/%s/%d", words[2], k), r.Header)
			fmt.Fprintf(file, "%s %d\n", words[2], k)
		}
		io.WriteString(w, "ok")
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, http.HandlerFunc(handle)))
}
