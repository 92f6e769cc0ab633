package main

import (
	"fmt"
	"math"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

var (
	traceID = regexp.MustCompile(`^[0-9a-f]{32}$`)
	spanID  = regexp.MustCompile(`^[0-9a-f]{16}$`)
)

func checkExemplars(decoded *exposition) (problems []string) {
	for _, family := range decoded.families {
		for _, sample := range family.samples {
			if len(sample.exemplars) > 0 && !mayHaveExemplars(family, &sample) {
				problems = append(problems, sample.key()+" must not have an exemplar")
			}
			for _, found := range sample.exemplars {
				problems = append(problems, prefixed("exemplar of "+sample.key(), checkExemplar(&found))...)
			}
		}
		if family.kind == model.MetricTypeHistogram {
			problems = append(problems, checkPlaces(family)...)
		}
	}
	return problems
}

func mayHaveExemplars(family *family, sample *sample) bool {
	return family.kind == model.MetricTypeCounter || sample.name() == family.name+"_bucket" || sample.native != nil
}

// checkExemplar says what is wrong with an exemplar wherever it is.
func checkExemplar(found *exemplar.Exemplar) (problems []string) {
	characters := 0
	found.Labels.Range(func(label labels.Label) {
		characters += utf8.RuneCountInString(label.Name) + utf8.RuneCountInString(label.Value)
	})
	if characters > exemplar.ExemplarMaxLabelSetLength {
		problems = append(problems, fmt.Sprintf("%d characters of labels", characters))
	}
	if trace := found.Labels.Get("trace_id"); !traceID.MatchString(trace) {
		problems = append(problems, fmt.Sprintf("trace_id %q", trace))
	}
	if span := found.Labels.Get("span_id"); span != "" && !spanID.MatchString(span) {
		problems = append(problems, fmt.Sprintf("span_id %q", span))
	}
	latest := time.Now().Add(clockTolerance).UnixMilli()
	switch {
	case !found.HasTs:
		problems = append(problems, "no timestamp")
	case found.Ts <= 0 || found.Ts > latest:
		problems = append(problems, fmt.Sprintf("timestamp %d ms", found.Ts))
	}
	return problems
}

// checkPlaces says which exemplars are not in the bucket that their value belongs to.
func checkPlaces(family *family) (problems []string) {
	metrics, _ := metricsOf(family)
	for _, metric := range metrics {
		lower := math.Inf(-1)
		for _, bucket := range metric.buckets {
			for _, found := range bucket.sample.exemplars {
				if !(lower < found.Value && found.Value <= bucket.upper) {
					problems = append(problems, fmt.Sprintf("%s has an exemplar of %v behind %v",
						bucket.sample.key(), found.Value, lower))
				}
			}
			lower = bucket.upper
		}
		if metric.native == nil {
			continue
		}
		for _, found := range metric.native.exemplars {
			if !isInABucket(metric.native.native, found.Value) {
				problems = append(problems, fmt.Sprintf("%s has an exemplar of %v, and no such value", metric.name, found.Value))
			}
		}
	}
	return problems
}

// isInABucket tells whether the histogram counts a value like this one.
func isInABucket(native *histogram.Histogram, value float64) bool {
	buckets := native.ToFloat(nil).AllBucketIterator()
	for buckets.Next() {
		bucket := buckets.At()
		if bucket.Count == 0 {
			continue
		}
		above := bucket.Lower < value || bucket.LowerInclusive && bucket.Lower == value
		below := value < bucket.Upper || bucket.UpperInclusive && value == bucket.Upper
		if above && below {
			return true
		}
	}
	return false
}
