// Command peer is net/http: `peer server PORT LOG`, `peer client BASE COUNT`, `peer load URL SECONDS` and
// `peer chain PORT LOG UP KIND`.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	if len(os.Args) == 6 && os.Args[1] == "chain" {
		chain(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	}
	if len(os.Args) != 4 {
		log.Fatal("usage: peer server PORT LOG | peer client BASE COUNT | peer load URL SECONDS | peer chain PORT LOG UP KIND")
	}
	switch os.Args[1] {
	case "server":
		serve(os.Args[2], os.Args[3])
	case "load":
		load(os.Args[2], os.Args[3])
	default:
		ask(os.Args[2], os.Args[3])
	}
}

// load asks for URL from 16 goroutines, as fast as they can, and prints how often it was answered with 200.
func load(url, text string) {
	seconds, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var answered atomic.Uint64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for time.Now().Before(end) {
				answer, err := client.Get(url)
				if err != nil || answer.StatusCode != 200 {
					log.Fatal(answer, err)
				}
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				answered.Add(1)
			}
		})
	}
	all.Wait()
	fmt.Println(answered.Load())
}

func serve(port, path string) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	handle := func(w http.ResponseWriter, r *http.Request) {
		_, client, _ := net.SplitHostPort(r.RemoteAddr)
		words := strings.Split(r.URL.Path, "/")
		status, number := 200, 0
		if len(words) > 2 {
			number, _ = strconv.Atoi(words[2])
		}
		switch words[1] {
		case "status":
			status = number
			w.WriteHeader(status)
			if status != 204 && status != 304 {
				io.WriteString(w, words[2])
			}
		case "echo":
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.Write(body)
		case "fixed":
			w.Header().Set("Content-Length", words[2])
			io.WriteString(w, strings.Repeat("x", number))
		case "chunked":
			io.WriteString(w, strings.Repeat("x", number/2))
			w.(http.Flusher).Flush()
			io.WriteString(w, strings.Repeat("x", number-number/2))
		}
		fmt.Fprintf(file, "%s %s %d %s\n", r.Method, r.URL.Path, status, client)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, http.HandlerFunc(handle)))
}

func ask(base, text string) {
	count, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	show := func(method, path string, body string) {
		var from io.Reader
		if body != "" {
			from = strings.NewReader(body)
		}
		request, err := http.NewRequest(method, base+path, from)
		if err != nil {
			log.Fatal(err)
		}
		answer, err := client.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		bytes, err := io.ReadAll(answer.Body)
		if err != nil {
			log.Fatal(err)
		}
		answer.Body.Close()
		fmt.Println(method, path, answer.StatusCode, len(bytes))
	}
	statuses := []int{200, 404, 500, 503, 204, 304}
	for i := 0; i < count; i++ {
		show("GET", fmt.Sprintf("/fixed/%d", i), "")
		show("GET", fmt.Sprintf("/chunked/%d", i), "")
		show("POST", "/echo", strings.Repeat("y", i+1))
		show("GET", fmt.Sprintf("/status/%d", statuses[i%6]), "")
	}
}
