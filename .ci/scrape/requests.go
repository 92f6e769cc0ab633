package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
)

// format is one of the ways to write metrics down, with the Content-Type that names it.
type format struct {
	name        string
	contentType string // without the name of the escaping scheme
	escaping    presence
}

type presence int

const (
	optional presence = iota
	required
)

// A Content-Type has to be spelled exactly so: Prometheus 3 refuses a reply whose type it does not
// know. The formats from before there was escaping may name the scheme.
var (
	text004  = &format{"text 0.0.4", "text/plain; version=0.0.4; charset=utf-8", optional}
	text100  = &format{"text 1.0.0", "text/plain; version=1.0.0; charset=utf-8", required}
	om001    = &format{"OpenMetrics 0.0.1", "application/openmetrics-text; version=0.0.1; charset=utf-8", optional}
	om100    = &format{"OpenMetrics 1.0.0", "application/openmetrics-text; version=1.0.0; charset=utf-8", required}
	protobuf = &format{
		"protobuf",
		"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
		required,
	}
	formats = []*format{text004, text100, om001, om100, protobuf}
)

func (f *format) isText() bool        { return f != protobuf }
func (f *format) isOpenMetrics() bool { return f == om001 || f == om100 }
func (f *format) hasExemplars() bool  { return f.isOpenMetrics() || f == protobuf }

// formatOf finds the format and the escaping scheme that a Content-Type names.
func formatOf(contentType string) (*format, string, error) {
	base, scheme, named := strings.Cut(contentType, "; escaping=")
	for _, format := range formats {
		if format.contentType != base {
			continue
		}
		if format.escaping == required && !named {
			return nil, "", fmt.Errorf("Content-Type %q does not name the escaping scheme", contentType)
		}
		if named && !slices.Contains(schemes, scheme) {
			return nil, "", fmt.Errorf("Content-Type %q names an escaping scheme that does not exist", contentType)
		}
		return format, scheme, nil
	}
	return nil, "", fmt.Errorf("Content-Type %q is not spelled as any of the formats'", contentType)
}

var schemes = []string{model.AllowUTF8, model.EscapeUnderscores, model.EscapeDots, model.EscapeValues}

// request is one way to ask.
type request struct {
	name     string
	accept   string    // "" sends no Accept
	encoding string    // "" sends no Accept-Encoding
	expected []*format // any of them will do
	scheme   string    // the escaping scheme that the reply has to name if its format names one
}

// The text 0.0.4 that all others are compared with, and the order in which they are asked for.
var textRequest = request{
	name:     "text",
	accept:   acceptOf(model.AllowUTF8, config.PrometheusText0_0_4),
	encoding: "identity",
	expected: []*format{text004},
}

// allRequests are what a Prometheus sends with each single scrape protocol, with both of its lists
// of them, with each escaping scheme, and what other clients send.
func allRequests() []request {
	var all []request
	for _, encoding := range []string{"identity", "gzip"} {
		for _, asked := range protocolRequests() {
			asked.encoding = encoding
			asked.name += ", " + encoding
			all = append(all, asked)
		}
	}
	all = append(all, schemeRequests()...)
	return append(all, otherClients()...)
}

// A server need not know the formats that hardly anybody asks for, since every Prometheus also
// takes text 0.0.4.
func protocolRequests() []request {
	single := func(protocol config.ScrapeProtocol, expected ...*format) request {
		return request{
			name:     string(protocol),
			accept:   acceptOf(model.AllowUTF8, protocol),
			expected: expected,
			scheme:   schemeAsked(protocol, model.AllowUTF8),
		}
	}
	list := func(name string, protocols []config.ScrapeProtocol, expected *format) request {
		return request{
			name:     name,
			accept:   acceptOf(model.AllowUTF8, protocols...),
			expected: []*format{expected},
			scheme:   schemeAsked(protocols[0], model.AllowUTF8),
		}
	}
	return []request{
		single(config.PrometheusProto, protobuf),
		single(config.OpenMetricsText1_0_0, om100),
		single(config.OpenMetricsText0_0_1, om001, om100, text004),
		single(config.PrometheusText1_0_0, text100, text004),
		single(config.PrometheusText0_0_4, text004),
		list("Prometheus' default", config.DefaultScrapeProtocols, om100),
		list("Prometheus with native histograms", config.DefaultProtoFirstScrapeProtocols, protobuf),
	}
}

// Names that need no escaping are the same in each scheme, as Prometheus' own client library has it.
func schemeRequests() []request {
	var all []request
	for _, scheme := range schemes {
		all = append(all,
			request{
				name:     "OpenMetrics with escaping=" + scheme,
				accept:   acceptOf(scheme, config.OpenMetricsText1_0_0),
				expected: []*format{om100},
				scheme:   scheme,
			},
			request{
				name:     "text 1.0.0 with escaping=" + scheme,
				accept:   acceptOf(scheme, config.PrometheusText1_0_0),
				expected: []*format{text100, text004},
				scheme:   scheme,
			})
	}
	return all
}

func otherClients() []request {
	browser := "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
	// Debian's Prometheus, from before there was escaping.
	rest := "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
	old := "application/openmetrics-text;version=1.0.0," + rest
	oldNative := "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited," +
		"application/openmetrics-text;version=1.0.0;q=0.8," + rest
	return []request{
		{name: "no Accept", expected: []*format{text004}},
		{name: "curl", accept: "*/*", expected: []*format{text004}},
		{name: "a browser", accept: browser, encoding: "gzip, deflate", expected: []*format{text004}},
		{name: "gzip refused", accept: "*/*", encoding: "gzip;q=0", expected: []*format{text004}},
		{name: "an Accept that cannot be read", accept: ";;,q=,/;q=x", expected: []*format{text004}},
		{
			name: "Prometheus 2", accept: old, encoding: "gzip",
			expected: []*format{om100}, scheme: model.EscapeUnderscores,
		},
		{
			name: "Prometheus 2 with native histograms", accept: oldNative, encoding: "gzip",
			expected: []*format{protobuf}, scheme: model.EscapeUnderscores,
		},
	}
}

// acceptOf is the Accept that a Prometheus with these scrape protocols sends.
func acceptOf(scheme string, protocols ...config.ScrapeProtocol) string {
	var values []string
	weight := len(config.ScrapeProtocolsHeaders) + 1
	for _, protocol := range protocols {
		value := config.ScrapeProtocolsHeaders[protocol]
		if namesScheme(protocol) {
			value += ";" + model.EscapingKey + "=" + scheme
		}
		values = append(values, fmt.Sprintf("%s;q=0.%d", value, weight))
		weight--
	}
	return strings.Join(append(values, fmt.Sprintf("*/*;q=0.%d", weight)), ",")
}

func namesScheme(protocol config.ScrapeProtocol) bool {
	return protocol == config.PrometheusText1_0_0 || protocol == config.OpenMetricsText1_0_0
}

// schemeAsked is what a protocol asks for: without a word about it, underscores.
func schemeAsked(protocol config.ScrapeProtocol, scheme string) string {
	if namesScheme(protocol) {
		return scheme
	}
	return model.EscapeUnderscores
}
