package main

import (
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// What Prometheus' own client library exposes has to be all right.
func TestTheOfficialClientLibraryPasses(t *testing.T) {
	server := httptest.NewServer(promhttp.HandlerFor(registry(t), promhttp.HandlerOpts{
		EnableOpenMetrics:                   true,
		EnableOpenMetricsTextCreatedSamples: true,
	}))
	defer server.Close()

	found, problems := check(server.URL)

	expectProblem(t, problems, "")
	if found.classic == 0 || found.native == 0 || found.both == 0 || found.exemplars == 0 || found.starts == 0 {
		t.Errorf("not all was there: %s", found)
	}
	if found.comparisons < found.series*(found.replies-3) {
		t.Errorf("not all was compared: %s", found)
	}
}

// No bound is a whole number, because the library writes le="1" where Prometheus reads le="1.0".
var bounds = []float64{0.5, 2.5, 12.5}

func registry(t *testing.T) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	orders := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shop_orders_total", Help: "Orders."}, []string{"shop"})
	open := prometheus.NewGauge(prometheus.GaugeOpts{Name: "shop_open", Help: "Open orders."})
	classic := newHistogram("shop_classic_seconds", bounds, 0)
	native := newHistogram("shop_native_seconds", nil, 1.1)
	both := newHistogram("shop_both_seconds", bounds, 1.1)
	for _, collector := range []prometheus.Collector{orders, open, classic, native, both} {
		if err := registry.Register(collector); err != nil {
			t.Fatal(err)
		}
	}
	exemplar := prometheus.Labels{"trace_id": "0123456789abcdef0123456789abcdef", "span_id": "0123456789abcdef"}
	orders.WithLabelValues("quote \" backslash \\ newline \n end").(prometheus.ExemplarAdder).AddWithExemplar(2, exemplar)
	orders.WithLabelValues("").Add(0)
	open.Set(-0.1)
	for _, histogram := range []*prometheus.HistogramVec{classic, native, both} {
		histogram.WithLabelValues("empty")
		for _, value := range []float64{0, 0.1, 0.5, 0.5001, 7, 1e6} {
			histogram.WithLabelValues("full").(prometheus.ExemplarObserver).ObserveWithExemplar(value, exemplar)
		}
	}
	return registry
}

func newHistogram(name string, bounds []float64, factor float64) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:                           name,
		Help:                           "Latency.",
		Buckets:                        bounds,
		NativeHistogramBucketFactor:    factor,
		NativeHistogramMaxBucketNumber: maxNativeBuckets,
		NativeHistogramMaxExemplars:    10,
	}, []string{"shop"})
}

// What differs once is a change, what differs each time is not.
func TestADifferenceHasToBeThereInEachRound(t *testing.T) {
	// The proportion of the replies that lie is the same, only who gets them changes.
	requests := len(allRequests()) + 2
	for name, lies := range map[string]func(count int) bool{
		"changing": func(count int) bool { return count == 5 },
		"lasting":  func(count int) bool { return count%requests == 5 },
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := check(lyingServer(t, lies).URL)
			if name == "changing" {
				expectProblem(t, problems, "")
			} else {
				expectProblem(t, problems, "in text")
			}
		})
	}
}

// lyingServer lets a gauge have another value in the replies with certain numbers.
func lyingServer(t *testing.T, lies func(count int) bool) *httptest.Server {
	count := 0
	value := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shop_open", Help: "Open orders."}, func() float64 {
		count++
		if lies(count - 1) {
			return math.Pi
		}
		return 1
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(value)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	t.Cleanup(server.Close)
	return server
}

func TestHeadersAndEncodingsAreChecked(t *testing.T) {
	const known = "text/plain; version=0.0.4; charset=utf-8"
	for name, one := range map[string]struct {
		accepts, encoding string
		status            int
		types             []string
		replyEncoding     string
		body, complain    string
	}{
		"sound":                    {types: []string{known}, body: "x"},
		"an error":                 {status: 503, types: []string{known}, complain: "status 503"},
		"no type":                  {types: []string{""}, complain: "is not spelled"},
		"two types":                {types: []string{known, known}, complain: "2 Content-Types"},
		"another spelling":         {types: []string{"text/plain;version=0.0.4;charset=utf-8"}, complain: "is not spelled"},
		"no charset":               {types: []string{"text/plain; version=0.0.4"}, complain: "is not spelled"},
		"an unknown scheme":        {types: []string{known + "; escaping=rot13"}, complain: "does not exist"},
		"a known scheme":           {types: []string{known + "; escaping=underscores"}},
		"no scheme where required": {types: []string{om100.contentType}, complain: "does not name the escaping scheme"},
		"not what was asked":       {types: []string{om100.contentType + "; escaping=underscores"}, complain: "not what was asked for"},
		"gzip unasked":             {types: []string{known}, replyEncoding: "gzip", complain: `Content-Encoding "gzip", not ""`},
		"gzip refused":             {encoding: "gzip;q=0", types: []string{known}, replyEncoding: "gzip", complain: `"gzip", not ""`},
		"gzip missing":             {encoding: "gzip", types: []string{known}, complain: `Content-Encoding "", not "gzip"`},
		"gzip that is none":        {encoding: "gzip", types: []string{known}, replyEncoding: "gzip", body: "x", complain: "not gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
				writer.Header()["Content-Type"] = one.types
				if one.replyEncoding != "" {
					writer.Header().Set("Content-Encoding", one.replyEncoding)
				}
				writer.WriteHeader(max(one.status, http.StatusOK))
				_, _ = writer.Write([]byte(one.body))
			}))
			defer server.Close()

			_, err := fetch(server.URL, request{encoding: one.encoding, expected: []*format{text004}})

			var problems []string
			if err != nil {
				problems = []string{err.Error()}
			}
			expectProblem(t, problems, one.complain)
		})
	}
}

func TestTheSchemeHasToBeTheOneThatWasAskedFor(t *testing.T) {
	asked := request{expected: []*format{om100}, scheme: "allow-utf-8"}
	for scheme, complain := range map[string]string{"allow-utf-8": "", "underscores": "the scheme asked for is allow-utf-8"} {
		_, err := checkType([]string{om100.contentType + "; escaping=" + scheme}, asked)
		var problems []string
		if err != nil {
			problems = []string{err.Error()}
		}
		expectProblem(t, problems, complain)
	}
}

func TestGzipIsReadToItsEnd(t *testing.T) {
	sound := gzipped(t, "metrics")
	for name, one := range map[string]struct {
		body     []byte
		complain string
	}{
		"sound":       {sound, ""},
		"cut":         {sound[:len(sound)-4], "not gzip"},
		"two members": {append(gzipped(t, "a"), gzipped(t, "b")...), "something follows"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := gunzip(one.body)
			var problems []string
			if err != nil {
				problems = []string{err.Error()}
			}
			expectProblem(t, problems, one.complain)
		})
	}
}

func TestAnUnreachableServerIsAProblem(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	client.Timeout = time.Second
	_, problems := check(server.URL)
	expectProblem(t, problems, "refused")
}
