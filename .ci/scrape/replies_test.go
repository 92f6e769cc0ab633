package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// Nothing is wrong with these two. Each case below breaks one thing in one of them.
const (
	soundText = `# HELP shop_orders_total Orders.
# TYPE shop_orders_total counter
shop_orders_total{shop="a"} 3
shop_orders_total{shop="b\n\"c\\"} 0
# HELP shop_open Open orders.
# TYPE shop_open gauge
shop_open -1.5
# HELP shop_latency_seconds Latency.
# TYPE shop_latency_seconds histogram
shop_latency_seconds_bucket{shop="a",le="0.5"} 1
shop_latency_seconds_bucket{shop="a",le="10.0"} 3
shop_latency_seconds_bucket{shop="a",le="+Inf"} 4
shop_latency_seconds_sum{shop="a"} 99.25
shop_latency_seconds_count{shop="a"} 4
shop_latency_seconds_bucket{shop="b",le="0.5"} 0
shop_latency_seconds_bucket{shop="b",le="10.0"} 0
shop_latency_seconds_bucket{shop="b",le="+Inf"} 0
shop_latency_seconds_sum{shop="b"} 0
shop_latency_seconds_count{shop="b"} 0
`
	soundOpenMetrics = `# TYPE shop_orders counter
# HELP shop_orders Orders.
shop_orders_total{shop="a"} 3.0 # {trace_id="0123456789abcdef0123456789abcdef"} 1.0 1700000001.5
shop_orders_created{shop="a"} 1700000000.25
# TYPE shop_latency_seconds histogram
# UNIT shop_latency_seconds seconds
# HELP shop_latency_seconds Latency.
shop_latency_seconds_bucket{shop="a",le="0.5"} 1 # {trace_id="0123456789abcdef0123456789abcdef",span_id="0123456789abcdef"} 0.5 1700000001.5
shop_latency_seconds_bucket{shop="a",le="10.0"} 3
shop_latency_seconds_bucket{shop="a",le="+Inf"} 4 # {trace_id="0123456789abcdef0123456789abcdef"} 88.0 1700000001.5
shop_latency_seconds_sum{shop="a"} 99.25
shop_latency_seconds_count{shop="a"} 4
shop_latency_seconds_created{shop="a"} 1700000000.25
shop_latency_seconds_bucket{shop="b",le="0.5"} 0
shop_latency_seconds_bucket{shop="b",le="10.0"} 0
shop_latency_seconds_bucket{shop="b",le="+Inf"} 0
shop_latency_seconds_sum{shop="b"} 0.0
shop_latency_seconds_count{shop="b"} 0
shop_latency_seconds_created{shop="b"} 1700000000.25
# EOF
`
)

type breakage struct {
	name     string
	old, new string
	complain string // in one of the problems; "" expects none
}

func TestTextIsChecked(t *testing.T) {
	checkBreakages(t, text004, soundText, []breakage{
		{"nothing", "", "", ""},
		{"no final line feed", "_count{shop=\"b\"} 0\n", "_count{shop=\"b\"} 0", "does not end with"},
		{"carriage returns", " Orders.\n", " Orders.\r\n", "carriage return"},
		{"byte order mark", "# HELP shop_orders_total", "\uFEFF# HELP shop_orders_total", "byte order mark"},
		{"not UTF-8", "Orders.", "\xff", "not UTF-8"},
		{"end of another format", "shop_open -1.5\n", "shop_open -1.5\n# EOF\n", "# EOF"},
		{"cannot be parsed", "shop_open -1.5", "shop_open x", "Prometheus' parser"},
		{"no series", soundText, "# HELP a A.\n# TYPE a gauge\n", "no series"},
		{"a series before all metadata", soundText, "a 1\n", "before any metadata"},
		{"a comment", "# HELP shop_open", "# comment\n# HELP shop_open", "a comment"},
		{"no HELP", "# HELP shop_open Open orders.\n", "", "0 HELP"},
		{"empty help", "Open orders.", "", "no help text"},
		{"no TYPE", "# TYPE shop_open gauge\n", "", "0 TYPE"},
		{"untyped", "shop_open gauge", "shop_open untyped", "of no type"},
		{"two HELP", "# HELP shop_open", "# HELP shop_open Open.\n# HELP shop_open", "2 HELP"},
		{"two TYPE", "# TYPE shop_open", "# TYPE shop_open gauge\n# TYPE shop_open", "2 TYPE"},
		{"late TYPE", "# TYPE shop_open gauge\nshop_open -1.5\n", "shop_open -1.5\n# TYPE shop_open gauge\n", "behind its first"},
		{
			"a family in two places", "shop_orders_total{shop=\"b\\n\\\"c\\\\\"} 0\n# HELP shop_open Open orders.\n# TYPE shop_open gauge\nshop_open -1.5\n",
			"# HELP shop_open O.\n# TYPE shop_open gauge\nshop_open 1\n# HELP shop_orders_total O.\n# TYPE shop_orders_total counter\nshop_orders_total 0\n",
			"family shop_orders_total are not together",
		},
		{"a stray series", "shop_open -1.5", "shop_open -1.5\nother 1", "other is not a name in the gauge"},
		{"a created series", "shop_open -1.5", "shop_open -1.5\nshop_open_created 1", "shop_open_created is not"},
		{"a series twice", "shop_open -1.5", "shop_open -1.5\nshop_open -1.5", "twice"},
		{"a bucket twice in two spellings", `le="10.0"} 3`, "le=\"10.0\"} 3\nshop_latency_seconds_bucket{shop=\"a\",le=\"10\"} 3", "twice"},
		{"a label twice", `{shop="a"} 3`, `{shop="a",shop="a"} 3`, "two labels shop"},
		{"a quoted name", "shop_open -1.5", `{"shop_open",a="b"} -1.5`, ""},
		{"a name with a dot", "shop_open -1.5", `{"shop_open","a.b"="c"} -1.5`, "not valid"},
		{"a timestamp", "shop_open -1.5", "shop_open -1.5 1700000000000", "has a timestamp"},
		{"a negative counter", `{shop="a"} 3`, `{shop="a"} -3`, "is -3"},
		{"a counter that is no number", `{shop="a"} 3`, `{shop="a"} NaN`, "is NaN"},
		{"another spelling of le", `le="10.0"`, `le="10"`, `should have le="10.0"`},
		{"another spelling of infinity", `le="+Inf"`, `le="Inf"`, `should have le="+Inf"`},
		{"le that is no number", `le="10.0"`, `le="ten"`, "comes behind"},
		{"no le", `,le="10.0"`, ``, "comes behind"},
		{"buckets that fall", `le="10.0"} 3`, `le="10.0"} 0`, "has 0, and the one before it 1"},
		{"buckets in disorder", `le="0.5"} 1`, `le="20.0"} 1`, "bucket 10 comes behind bucket 20"},
		{"half a value", `le="10.0"} 3`, `le="10.0"} 3.5`, "bucket 10 has 3.5"},
		{"no last bucket", "shop_latency_seconds_bucket{shop=\"a\",le=\"+Inf\"} 4\n", "", "no bucket +Inf"},
		{"another count", `_count{shop="a"} 4`, `_count{shop="a"} 5`, "count is 5, and the last bucket 4"},
		{"no count", "shop_latency_seconds_count{shop=\"a\"} 4\n", "", "has no count"},
		{"no sum", "shop_latency_seconds_sum{shop=\"a\"} 99.25\n", "", "has no sum"},
		{"a negative sum", "99.25", "-1", "sum is -1"},
		{"an infinite sum", "99.25", "+Inf", "sum is +Inf"},
		{"a sum that is no number", "99.25", "NaN", "sum is NaN"},
		{"lint", "shop_open gauge", "shop_open counter", "promlint"},
		{"what only expfmt refuses", `le="10.0"} 3`, `le="ten"} 3`, "expfmt"},
	})
}

func TestOpenMetricsIsChecked(t *testing.T) {
	checkBreakages(t, om100, soundOpenMetrics, []breakage{
		{"nothing", "", "", ""},
		{"no end", "# EOF\n", "", "0 lines # EOF"},
		{"no line feed behind the end", "# EOF\n", "# EOF", "last line must be it"},
		{"something behind the end", "# EOF\n", "# EOF\nshop_open 1\n", "last line must be it"},
		{"two ends", "# EOF\n", "# EOF\n# EOF\n", "2 lines # EOF"},
		{"a counter without its suffix", "shop_orders_total", "shop_orders", "shop_orders is not a name in the counter"},
		{"the suffix in the family", "# TYPE shop_orders ", "# TYPE shop_orders_total ", "family shop_orders_total"},
		{"a unit that is no suffix", "shop_latency_seconds seconds", "shop_latency_seconds bytes", "Prometheus' parser"},
		{"two units", "# UNIT", "# UNIT shop_latency_seconds seconds\n# UNIT", "2 UNIT"},
		{"a timestamp", `_sum{shop="a"} 99.25`, `_sum{shop="a"} 99.25 1700000000`, "has a timestamp"},
		{"a count with a decimal point", `_count{shop="a"} 4`, `_count{shop="a"} 4.0`, "4.0 should be digits"},
		{"a bucket with a decimal point", `le="10.0"} 3`, `le="10.0"} 3.0`, "3.0 should be digits"},
		{"a big bucket", `le="10.0"} 3`, `le="10.0"} 1e+09`, "1e+09 should be digits"},
		{
			"mixed label sets", "shop_latency_seconds_created{shop=\"a\"} 1700000000.25\n",
			"shop_latency_seconds_created{shop=\"a\"} 1700000000.25\nshop_latency_seconds_bucket{shop=\"c\",le=\"+Inf\"} 0\n" +
				"shop_latency_seconds_sum{shop=\"c\"} 0\nshop_latency_seconds_count{shop=\"a\"} 0\n",
			"mixes the lines",
		},
		{"a sum beside a negative bucket", `shop="b",le="0.5"`, `shop="b",le="-0.5"`, "although there is a negative bucket"},
		{
			"no sum beside a negative bucket", soundOpenMetrics[strings.Index(soundOpenMetrics, "shop_latency_seconds_bucket{shop=\"b\""):],
			"shop_latency_seconds_bucket{shop=\"b\",le=\"-0.5\"} 0\nshop_latency_seconds_bucket{shop=\"b\",le=\"+Inf\"} 0\n" +
				"shop_latency_seconds_count{shop=\"b\"} 0\nshop_latency_seconds_created{shop=\"b\"} 1700000000.25\n# EOF\n",
			"",
		},
		{"no start of a counter", "shop_orders_created{shop=\"a\"} 1700000000.25\n", "", `shop_orders_total", shop="a"} has no start`},
		{"no start of a histogram", "shop_latency_seconds_created{shop=\"b\"} 1700000000.25\n", "", "has no start"},
		{"a start in the future", `shop_orders_created{shop="a"} 1700000000.25`, `shop_orders_created{shop="a"} 91700000000`, "started at 91700000000000 ms"},
		{"a start in milliseconds", `shop_orders_created{shop="a"} 1700000000.25`, `shop_orders_created{shop="a"} 1700000000250`, "started at"},
		{"an exemplar above its bucket", `"} 0.5 1700000001.5`, `"} 0.75 1700000001.5`, "exemplar of 0.75 behind -Inf"},
		{"an exemplar below its bucket", `"} 88.0 1700000001.5`, `"} 10.0 1700000001.5`, "exemplar of 10 behind 10"},
		{"an exemplar of a sum", "99.25", `99.25 # {trace_id="0123456789abcdef0123456789abcdef"} 1.0 1700000001.5`, "must not have an exemplar"},
		{"no time of an exemplar", `0.5 1700000001.5`, `0.5`, "no timestamp"},
		{"a future exemplar", `0.5 1700000001.5`, `0.5 91700000001.5`, "timestamp 91700000001500 ms"},
		{"no trace", `trace_id="0123456789abcdef0123456789abcdef",`, ``, `trace_id ""`},
		{"a trace in upper case", `trace_id="0123456789abcdef0123456789abcdef",`, `trace_id="0123456789ABCDEF0123456789ABCDEF",`, "trace_id"},
		{"a span that is none", `span_id="0123456789abcdef"`, `span_id="1"`, "span_id"},
		{"128 characters", `span_id="0123456789abcdef"`, `é="` + strings.Repeat("é", 87) + `"`, "Prometheus' parser"},
		{"128 characters with a legal name", `span_id="0123456789abcdef"`, `e="` + strings.Repeat("é", 87) + `"`, ""},
		{"129 characters", `span_id="0123456789abcdef"`, `e="` + strings.Repeat("é", 88) + `"`, "129 characters"},
	})
}

func checkBreakages(t *testing.T, format *format, sound string, breakages []breakage) {
	for _, one := range breakages {
		t.Run(one.name, func(t *testing.T) {
			if !strings.Contains(sound, one.old) {
				t.Fatalf("there is no %q to break", one.old)
			}
			body := strings.Replace(sound, one.old, one.new, 1)
			_, problems := inspect(&reply{request{name: "test"}, format, []byte(body)})
			expectProblem(t, problems, one.complain)
		})
	}
}

func expectProblem(t *testing.T, problems []string, complain string) {
	t.Helper()
	all := strings.Join(problems, "\n")
	if complain == "" && len(problems) > 0 {
		t.Errorf("expected no problem, got:\n%s", all)
	}
	if !strings.Contains(all, complain) {
		t.Errorf("expected a problem with %q, got:\n%s", complain, all)
	}
}

func TestProblemsArePrintedOnceAndCut(t *testing.T) {
	problems := []string{"text: no HELP", "protobuf: no HELP"}
	for number := range maxPrinted + 1 {
		problems = append(problems, fmt.Sprintf("text: %d", number))
	}
	var output bytes.Buffer
	printProblems(&output, "URL", problems)
	for _, line := range []string{"URL: 32 problems", "no HELP\n    in 2 replies, first in text\n", "and 2 more"} {
		expectProblem(t, []string{output.String()}, line)
	}
}
