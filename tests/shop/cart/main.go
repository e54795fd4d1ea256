// Command cart keeps an order in Redis and asks the next service.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
)

func peer(name string) (string, string) {
	who, where, found := strings.Cut(os.Getenv(name), "=")
	if !found {
		log.Fatalf("%s is not NAME=ADDRESS:PORT", name)
	}
	return who, where
}

func keep(store, order string) error {
	connection, err := net.Dial("tcp", store)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := fmt.Fprintf(connection, "SET order:%s cart\r\n", order); err != nil {
		return err
	}
	answer, err := bufio.NewReader(connection).ReadString('\n')
	if err == nil && answer != "+OK\r\n" {
		err = fmt.Errorf("redis said %q", answer)
	}
	return err
}

func main() {
	next, address := peer("SHOP_NEXT")
	store, stored := peer("SHOP_STORE")
	// Lines are appended in one write each, so requests need no lock.
	told, err := os.OpenFile(os.Getenv("SHOP_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	fail := func(w http.ResponseWriter, err error) {
		log.Print(err)
		http.Error(w, err.Error(), http.StatusBadGateway)
	}
	http.HandleFunc("/orders/", func(w http.ResponseWriter, r *http.Request) {
		order := strings.TrimPrefix(r.URL.Path, "/orders/")
		fmt.Fprintf(told, "%s %s\n", order, store)
		if err := keep(stored, order); err != nil {
			fail(w, err)
			return
		}
		request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+address+r.URL.Path, nil)
		if err != nil {
			fail(w, err)
			return
		}
		if trace := r.Header.Get("traceparent"); trace != "" {
			request.Header.Set("traceparent", trace)
		}
		answer, err := client.Do(request)
		if err != nil {
			fail(w, err)
			return
		}
		defer answer.Body.Close()
		fmt.Fprintf(told, "%s %s %d\n", order, next, answer.StatusCode)
		w.WriteHeader(answer.StatusCode)
		io.Copy(w, answer.Body)
	})
	log.Fatal(http.ListenAndServe(os.Getenv("SHOP_LISTEN"), nil))
}
