package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// The cap on buckets that clients of Prometheus commonly set.
const maxNativeBuckets = 160

// metric is what one label set of a histogram has: buckets, sum and count, or a native histogram,
// or both.
type metric struct {
	name       string // with the labels, for messages
	buckets    []bucket
	sum, count *sample
	native     *sample
}

type bucket struct {
	upper  float64
	sample *sample
}

// metricsOf also says whether the lines of each label set are together.
func metricsOf(family *family) (metrics []*metric, together bool) {
	known := map[string]*metric{}
	together = true
	previous := ""
	for index := range family.samples {
		sample := &family.samples[index]
		key := labels.NewBuilder(sample.labels).Set(labels.MetricName, family.name).Del(labels.BucketLabel).Labels().String()
		one, found := known[key]
		if !found {
			one = &metric{name: key}
			known[key] = one
			metrics = append(metrics, one)
		}
		together = together && (!found || previous == key)
		previous = key
		one.take(family.name, sample)
	}
	return metrics, together
}

func (m *metric) take(family string, sample *sample) {
	switch sample.name() {
	case family:
		m.native = sample
	case family + "_sum":
		m.sum = sample
	case family + "_count":
		m.count = sample
	case family + "_bucket":
		m.buckets = append(m.buckets, bucket{upperOf(sample), sample})
	}
}

// upperOf is NaN when there is no number, which then is out of order.
func upperOf(sample *sample) float64 {
	upper, err := strconv.ParseFloat(sample.labels.Get(labels.BucketLabel), 64)
	if err != nil {
		return math.NaN()
	}
	return upper
}

func checkHistograms(decoded *exposition) (problems []string) {
	for _, family := range decoded.families {
		if family.kind != model.MetricTypeHistogram {
			continue
		}
		metrics, together := metricsOf(family)
		if decoded.format.isOpenMetrics() && !together {
			problems = append(problems, fmt.Sprintf("histogram %s mixes the lines of its label sets", family.name))
		}
		for _, one := range metrics {
			problems = append(problems, prefixed(one.name, one.check(decoded.format))...)
		}
	}
	return problems
}

func (m *metric) check(format *format) (problems []string) {
	if m.native == nil || len(m.buckets) > 0 {
		problems = m.checkClassic(format)
	}
	if m.native != nil {
		problems = append(problems, checkNative(m.native.native)...)
	}
	if m.native != nil && len(m.buckets) > 0 {
		problems = append(problems, m.checkAgreement()...)
	}
	return problems
}

func (m *metric) checkClassic(format *format) (problems []string) {
	complain := func(message string, arguments ...any) {
		problems = append(problems, fmt.Sprintf(message, arguments...))
	}
	previous := bucket{math.Inf(-1), &sample{}}
	for _, bucket := range m.buckets {
		if !(bucket.upper > previous.upper) {
			complain("bucket %v comes behind bucket %v", bucket.upper, previous.upper)
		}
		if bucket.sample.value < previous.sample.value {
			complain("bucket %v has %v, and the one before it %v", bucket.upper, bucket.sample.value, previous.sample.value)
		}
		if bucket.sample.value != math.Trunc(bucket.sample.value) {
			complain("bucket %v has %v", bucket.upper, bucket.sample.value)
		}
		previous = bucket
	}
	if !math.IsInf(previous.upper, 1) {
		complain("has no bucket +Inf")
	}
	switch {
	case m.count == nil:
		complain("has no count")
	case m.count.value != previous.sample.value:
		complain("count is %v, and the last bucket %v", m.count.value, previous.sample.value)
	}
	problems = append(problems, m.checkSum(format)...)
	return append(problems, m.checkSpelling(format)...)
}

// checkSum knows that OpenMetrics has no sum where values can be negative.
func (m *metric) checkSum(format *format) []string {
	negative := len(m.buckets) > 0 && m.buckets[0].upper < 0
	switch {
	case negative && m.sum != nil && format.isOpenMetrics():
		return []string{"has a sum although there is a negative bucket"}
	case negative:
		return nil
	case m.sum == nil:
		return []string{"has no sum"}
	case !(m.sum.value >= 0) || math.IsInf(m.sum.value, 1):
		return []string{fmt.Sprintf("sum is %v", m.sum.value)}
	}
	return nil
}

// checkSpelling says which numbers of a text are not as Prometheus itself writes them. Another
// spelling of `le` is another series as soon as another format is scraped.
func (m *metric) checkSpelling(format *format) (problems []string) {
	if !format.isText() {
		return nil
	}
	for _, bucket := range m.buckets {
		canonical := fmt.Sprintf(`le="%s"`, labels.FormatOpenMetricsFloat(bucket.upper))
		if !hasLabel(bucket.sample.spelling, canonical) {
			problems = append(problems, fmt.Sprintf("%s should have %s", bucket.sample.spelling, canonical))
		}
	}
	if !format.isOpenMetrics() {
		return problems
	}
	integers := []*sample{m.count}
	for _, bucket := range m.buckets {
		integers = append(integers, bucket.sample)
	}
	for _, sample := range integers {
		if sample == nil {
			continue
		}
		if _, err := strconv.ParseUint(sample.digits, 10, 64); err != nil {
			problems = append(problems, fmt.Sprintf("%s %s should be digits", sample.spelling, sample.digits))
		}
	}
	return problems
}

// hasLabel finds a label that is first or behind a comma. That the same text may be in the value
// of another label does not matter: the parser has found the label, this is about its spelling.
func hasLabel(spelling, label string) bool {
	return strings.Contains(spelling, "{"+label) || strings.Contains(spelling, ","+label)
}

// checkNative is about what is valid, and wrong all the same.
func checkNative(native *histogram.Histogram) (problems []string) {
	if !(native.Sum >= 0) || math.IsInf(native.Sum, 1) {
		problems = append(problems, fmt.Sprintf("sum is %v", native.Sum))
	}
	if buckets := len(native.PositiveBuckets) + len(native.NegativeBuckets); buckets > maxNativeBuckets {
		problems = append(problems, fmt.Sprintf("%d buckets are more than %d", buckets, maxNativeBuckets))
	}
	return problems
}

// checkAgreement says where the classic and the native buckets of one reply cannot have come from
// the same values: a classic bucket holds at least the native ones below its bound, and at most
// also the one that its bound is in.
func (m *metric) checkAgreement() (problems []string) {
	for _, bucket := range m.buckets {
		below, within := countsUpTo(m.native.native, bucket.upper)
		if bucket.sample.value < below || bucket.sample.value > within {
			problems = append(problems, fmt.Sprintf("bucket %v has %v, and the native histogram %v to %v",
				bucket.upper, bucket.sample.value, below, within))
		}
	}
	return problems
}

// countsUpTo is how many values are for certain not above `upper`, and how many may be.
func countsUpTo(native *histogram.Histogram, upper float64) (certain, possible float64) {
	buckets := native.ToFloat(nil).AllBucketIterator()
	for buckets.Next() {
		bucket := buckets.At()
		if bucket.Upper <= upper {
			certain += bucket.Count
		}
		if bucket.Lower < upper {
			possible += bucket.Count
		}
	}
	return certain, possible
}
