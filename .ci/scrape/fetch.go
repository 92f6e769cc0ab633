package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// reply is what came for a request, no longer compressed.
type reply struct {
	request request
	format  *format
	body    []byte
}

// The transport must leave the encoding to us.
var client = &http.Client{
	Timeout:   10 * time.Second,
	Transport: &http.Transport{DisableCompression: true},
}

// fetch asks, and checks what can be said before the body is decoded.
func fetch(url string, asked request) (*reply, error) {
	answer, err := send(url, asked)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", answer.Status)
	}
	body, err := bodyOf(answer, asked)
	if err != nil {
		return nil, err
	}
	format, err := checkType(answer.Header.Values("Content-Type"), asked)
	return &reply{asked, format, body}, err
}

// send sends what a Prometheus sends.
func send(url string, asked request) (*http.Response, error) {
	request, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"Accept": asked.accept, "Accept-Encoding": asked.encoding} {
		if value != "" {
			request.Header.Set(name, value)
		}
	}
	request.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", "10")
	return client.Do(request)
}

func bodyOf(answer *http.Response, asked request) ([]byte, error) {
	wanted := ""
	if strings.Contains(asked.encoding, "gzip") && !strings.Contains(asked.encoding, "q=0") {
		wanted = "gzip"
	}
	if encoding := answer.Header.Get("Content-Encoding"); encoding != wanted {
		return nil, fmt.Errorf("Content-Encoding %q, not %q", encoding, wanted)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil || wanted == "" {
		return body, err
	}
	return gunzip(body)
}

// gunzip refuses what follows the first member, since not every client reads that.
func gunzip(compressed []byte) ([]byte, error) {
	source := bytes.NewReader(compressed)
	reader, err := gzip.NewReader(source)
	if err != nil {
		return nil, fmt.Errorf("body is not gzip: %w", err)
	}
	reader.Multistream(false)
	body, err := io.ReadAll(reader)
	if err != nil {
		return nil, fmt.Errorf("body is not gzip: %w", err)
	}
	if source.Len() > 0 {
		return nil, errors.New("something follows the end of the gzip stream")
	}
	return body, nil
}

func checkType(contentTypes []string, asked request) (*format, error) {
	if len(contentTypes) != 1 {
		return nil, fmt.Errorf("%d Content-Types: %q", len(contentTypes), contentTypes)
	}
	format, scheme, err := formatOf(contentTypes[0])
	if err != nil {
		return nil, err
	}
	if !slices.Contains(asked.expected, format) {
		return nil, fmt.Errorf("Content-Type %q is not what was asked for", contentTypes[0])
	}
	if format.escaping == required && scheme != asked.scheme {
		return nil, fmt.Errorf("Content-Type %q, but the scheme asked for is %s", contentTypes[0], asked.scheme)
	}
	return format, nil
}
