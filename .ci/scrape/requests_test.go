package main

import (
	"testing"

	"github.com/prometheus/prometheus/config"
)

// The header of a Prometheus 3 with its default settings, as it came to a server.
func TestAcceptIsWhatPrometheusSends(t *testing.T) {
	const expected = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.7," +
		"application/openmetrics-text;version=0.0.1;q=0.6," +
		"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3"
	if accept := acceptOf("allow-utf-8", config.DefaultScrapeProtocols...); accept != expected {
		t.Errorf("got %s", accept)
	}
}
