package main

import (
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// The text of what soundFamilies has, and the same in OpenMetrics.
const (
	sameText = `# HELP shop_orders_total Orders.
# TYPE shop_orders_total counter
shop_orders_total 3
# HELP shop_latency_seconds Latency.
# TYPE shop_latency_seconds histogram
shop_latency_seconds_bucket{le="1.0"} 2
shop_latency_seconds_bucket{le="10.0"} 4
shop_latency_seconds_bucket{le="+Inf"} 5
shop_latency_seconds_sum 5
shop_latency_seconds_count 5
`
	sameOpenMetrics = `# HELP shop_orders Orders.
# TYPE shop_orders counter
shop_orders_total 3.0
shop_orders_created 1700000000.25
# HELP shop_latency_seconds Latency.
# TYPE shop_latency_seconds histogram
shop_latency_seconds_bucket{le="1.0"} 2 # {trace_id="0123456789abcdef0123456789abcdef"} 1.0 1700000000.25
shop_latency_seconds_bucket{le="10.0"} 4
shop_latency_seconds_bucket{le="+Inf"} 5
shop_latency_seconds_sum 5.0
shop_latency_seconds_count 5
shop_latency_seconds_created 1700000000.25
# EOF
`
)

func TestFormatsAreCompared(t *testing.T) {
	for _, one := range []breakage{
		{"nothing", "", "", ""},
		{"another value", "orders_total 3.0", "orders_total 4.0", "is 4, and 3 in text"},
		{"another bucket", `le="10.0"} 4`, `le="10.0"} 3`, "is 3, and 4 in text"},
		{"a series less", "shop_orders_total 3.0\nshop_orders_created 1700000000.25\n", "", "is missing"},
		{"a bucket less", "shop_latency_seconds_bucket{le=\"10.0\"} 4\n", "", "is missing"},
		{"a series more", "# EOF", "# HELP a A.\n# TYPE a gauge\na 1\n# EOF", "is not in text"},
		{"another label", "orders_total 3.0", `orders_total{a="b"} 3.0`, `shop_orders_total"} is missing`},
		{"another type", "shop_orders counter", "shop_orders gauge", "in text"},
		{"another help text", "Latency.", "Latencies.", "in text"},
		{"another start", "shop_orders_created 1700000000.25", "shop_orders_created 1700000000.5", "started at"},
		{"a start that is rounded", "shop_orders_created 1700000000.25", "shop_orders_created 1700000000.249", ""},
		{"another exemplar", `"} 1.0 1700000000.25`, `"} 0.5 1700000000.25`, "exemplars"},
		{"another time of an exemplar", `"} 1.0 1700000000.25`, `"} 1.0 1700000000.5`, "exemplars"},
		{"another trace", `trace_id="0`, `trace_id="1`, "exemplars"},
		{"no exemplar", ` # {trace_id="0123456789abcdef0123456789abcdef"} 1.0 1700000000.25`, "", "exemplars"},
	} {
		t.Run(one.name, func(t *testing.T) {
			if !strings.Contains(sameOpenMetrics, one.old) {
				t.Fatalf("there is no %q to break", one.old)
			}
			text := decoded(t, text004, sameText)
			other := decoded(t, om100, strings.Replace(sameOpenMetrics, one.old, one.new, 1))
			binary := decodedReply(t, encoded(t, soundFamilies()))
			differences, compared := compareAll([]*exposition{text, binary, other, text})
			expectProblem(t, differences, one.complain)
			if compared == 0 {
				t.Error("nothing was compared")
			}
		})
	}
}

func TestWhatChangesMeanwhileIsNotCompared(t *testing.T) {
	before := decoded(t, text004, strings.Replace(sameText, "total 3", "total 2", 1))
	after := decoded(t, text004, strings.Replace(sameText, "total 3", "total 4", 1))
	other := decoded(t, om100, sameOpenMetrics)
	differences, _ := compareAll([]*exposition{before, other, after})
	expectProblem(t, differences, "")
}

func TestANativeHistogramIsComparedWithoutClassicBuckets(t *testing.T) {
	text, openMetrics := decoded(t, text004, sameText), decoded(t, om100, sameOpenMetrics)
	compareWith := func(damage func(*dto.Histogram)) []string {
		families := soundFamilies()
		families[1].Metric[0].Histogram.Bucket = nil
		damage(families[1].Metric[0].Histogram)
		binary := decodedReply(t, encoded(t, families))
		differences, _ := compareAll([]*exposition{text, binary, openMetrics, text})
		return differences
	}
	// It has no exemplar of 1, as the text has, but it may have more.
	expectProblem(t, compareWith(func(*dto.Histogram) {}), "exemplars of")
	expectProblem(t, compareWith(func(histogram *dto.Histogram) {
		histogram.Exemplars = append(histogram.Exemplars, traceExemplar(1))
	}), "")
	expectProblem(t, compareWith(func(histogram *dto.Histogram) {
		*histogram.SampleCount++
		*histogram.ZeroCount++
	}), `shop_latency_seconds_count"} is 6, and 5 in text`)
	expectProblem(t, compareWith(func(histogram *dto.Histogram) { *histogram.SampleSum++ }), "is 6, and 5 in text")
}

// The second parser sees a reply of its own here, so that the two disagree.
func TestTheParsersAreCompared(t *testing.T) {
	first := decoded(t, text004, sameText)
	for _, one := range []breakage{
		{"nothing", "", "", ""},
		{"another value", "orders_total 3", "orders_total 4", "is 3 to Prometheus, and 4 to expfmt"},
		{"a series more", "shop_orders_total 3\n", "shop_orders_total 3\nshop_orders_total{a=\"b\"} 3\n", "not there to Prometheus"},
		{"a series less", "shop_orders_total 3\n", "", "is 3 to Prometheus"},
	} {
		t.Run(one.name, func(t *testing.T) {
			body := strings.Replace(sameText, one.old, one.new, 1)
			second, err := newSecondOpinion(&reply{request{}, text004, []byte(body)})
			if err != nil {
				t.Fatal(err)
			}
			expectProblem(t, second.differences(first), one.complain)
		})
	}
}

func decoded(t *testing.T, format *format, body string) *exposition {
	return decodedReply(t, &reply{request{name: "test"}, format, []byte(body)})
}

func decodedReply(t *testing.T, got *reply) *exposition {
	t.Helper()
	result, problems := inspect(got)
	if result == nil {
		t.Fatal(problems)
	}
	return result
}
