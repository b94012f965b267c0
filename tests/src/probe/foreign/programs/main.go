// A server and a client on Go's net/http: `serve PORT`, `ask METHOD PATH… -- BASE…`.
package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

const page = "a page that is somewhat longer than what takes its place\n"

func main() {
	if os.Args[1] == "serve" {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(":"+os.Args[2], http.HandlerFunc(serve)))
		os.Exit(1)
	}
	var asked []string
	bases := os.Args[2:]
	for i, word := range os.Args[2:] {
		if word == "--" {
			asked, bases = os.Args[2:2+i], os.Args[3+i:]
			break
		}
	}
	for _, base := range bases {
		for i := 0; i < len(asked); i += 2 {
			if err := ask(asked[i], base+asked[i+1]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	switch r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:] {
	case "page":
		io.WriteString(w, page)
	case "large":
		w.Header().Set("Content-Length", "300000")
		io.WriteString(w, strings.Repeat("x", 300000))
	case "chunks":
		for i := 0; i < 10; i++ {
			io.WriteString(w, strings.Repeat("y", 200))
			w.(http.Flusher).Flush()
		}
	default:
		http.NotFound(w, r)
	}
}

func ask(method, url string) error {
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader("hello")
	}
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	came, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	or := func(value string) string {
		if value == "" {
			return "-"
		}
		return value
	}
	fmt.Printf("%d\t%s\t%s\t%s\n", response.StatusCode, or(response.Header.Get("Content-Length")),
		or(response.Header.Get("X-New")), base64.StdEncoding.EncodeToString(came))
	return nil
}
