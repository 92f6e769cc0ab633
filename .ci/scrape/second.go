package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// secondOpinion is the same reply as expfmt of prometheus/common reads it. It has no code in
// common with Prometheus' own parsers, and it shows a native histogram as it was sent.
type secondOpinion struct {
	families []*dto.MetricFamily
	complete bool
}

// newSecondOpinion is empty of a format that expfmt does not read, and what was read before an
// error stays.
func newSecondOpinion(got *reply) (*secondOpinion, error) {
	opinion := &secondOpinion{}
	var format expfmt.Format
	switch got.format {
	case text004:
		format = expfmt.FmtText
	case protobuf:
		format = expfmt.FmtProtoDelim
	default:
		return opinion, nil
	}
	decoder := expfmt.NewDecoder(bytes.NewReader(got.body), format)
	for {
		family := &dto.MetricFamily{}
		err := decoder.Decode(family)
		if errors.Is(err, io.EOF) {
			opinion.complete = true
			return opinion, nil
		}
		if err != nil {
			return opinion, fmt.Errorf("expfmt: %w", err)
		}
		opinion.families = append(opinion.families, family)
	}
}

func (o *secondOpinion) lint() (problems []string) {
	found, err := promlint.NewWithMetricFamilies(o.families).Lint()
	if err != nil {
		return []string{"promlint: " + err.Error()}
	}
	for _, problem := range found {
		problems = append(problems, fmt.Sprintf("promlint: %s: %s", problem.Metric, problem.Text))
	}
	return problems
}

// checkHistograms is about what Prometheus' own parser repairs or drops before it can be seen.
func (o *secondOpinion) checkHistograms() (problems []string) {
	for _, family := range o.families {
		for _, metric := range family.Metric {
			if metric.Histogram == nil {
				continue
			}
			name := labelsOf(family.GetName(), metric).String()
			problems = append(problems, prefixed(name, checkAsSent(metric.Histogram))...)
		}
	}
	return problems
}

func checkAsSent(sent *dto.Histogram) (problems []string) {
	if sent.Schema != nil || len(sent.PositiveSpan)+len(sent.NegativeSpan) > 0 {
		problems = checkNativeAsSent(sent)
	}
	exemplars := slices.Clone(sent.Exemplars)
	for _, bucket := range sent.Bucket {
		if bucket.Exemplar != nil {
			exemplars = append(exemplars, bucket.Exemplar)
		}
	}
	for _, one := range exemplars {
		if one.GetTimestamp().GetSeconds() == 0 {
			problems = append(problems, fmt.Sprintf("exemplar of %v has no timestamp", one.GetValue()))
		}
	}
	return problems
}

func checkNativeAsSent(sent *dto.Histogram) (problems []string) {
	if sent.SampleCountFloat != nil || len(sent.PositiveCount) > 0 {
		return []string{"is a float histogram"}
	}
	if err := nativeOf(sent).Validate(); err != nil {
		problems = append(problems, fmt.Sprintf("as sent: %v", err))
	}
	spans := len(sent.PositiveSpan) + len(sent.NegativeSpan)
	if spans == 0 && sent.GetZeroThreshold() == 0 && sent.GetZeroCount() == 0 {
		problems = append(problems, "has a schema, but Prometheus takes it for a classic histogram without a span")
	}
	return problems
}

func nativeOf(sent *dto.Histogram) *histogram.Histogram {
	return &histogram.Histogram{
		Schema:          sent.GetSchema(),
		ZeroThreshold:   sent.GetZeroThreshold(),
		ZeroCount:       sent.GetZeroCount(),
		Count:           sent.GetSampleCount(),
		Sum:             sent.GetSampleSum(),
		PositiveSpans:   spansOf(sent.PositiveSpan),
		NegativeSpans:   spansOf(sent.NegativeSpan),
		PositiveBuckets: sent.PositiveDelta,
		NegativeBuckets: sent.NegativeDelta,
	}
}

func spansOf(sent []*dto.BucketSpan) (spans []histogram.Span) {
	for _, span := range sent {
		spans = append(spans, histogram.Span{Offset: span.GetOffset(), Length: span.GetLength()})
	}
	return spans
}

// restoreExemplars gives native histograms the exemplars that they were sent with. In a family
// with several of them the parser of Prometheus 3.16 begins to read the exemplars of each one only
// behind as many as the ones before it had.
func (o *secondOpinion) restoreExemplars(decoded *exposition) {
	sent := map[string][]*dto.Exemplar{}
	for _, family := range o.families {
		for _, metric := range family.Metric {
			sent[labelsOf(family.GetName(), metric).String()] = metric.Histogram.GetExemplars()
		}
	}
	for _, family := range decoded.families {
		for index := range family.samples {
			if sample := &family.samples[index]; sample.native != nil {
				sample.exemplars = exemplarsOf(sent[sample.key()])
			}
		}
	}
}

func exemplarsOf(sent []*dto.Exemplar) (exemplars []exemplar.Exemplar) {
	for _, one := range sent {
		builder := labels.NewBuilder(labels.EmptyLabels())
		for _, pair := range one.Label {
			builder.Set(pair.GetName(), pair.GetValue())
		}
		exemplars = append(exemplars, exemplar.Exemplar{
			Labels: builder.Labels(),
			Value:  one.GetValue(),
			Ts:     one.GetTimestamp().AsTime().UnixMilli(),
			HasTs:  one.Timestamp != nil,
		})
	}
	return exemplars
}

// differences is where the two parsers do not agree on a reply.
func (o *secondOpinion) differences(first *exposition) (problems []string) {
	if !o.complete {
		return nil
	}
	ours, theirs := first.points(), o.values()
	for _, key := range slices.Sorted(maps.Keys(ours)) {
		value, found := theirs[key]
		if !found || !same(value, ours[key].value) {
			problems = append(problems, fmt.Sprintf("%s is %v to Prometheus, and %v to expfmt", key, ours[key].value, value))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(theirs)) {
		if _, found := ours[key]; !found {
			problems = append(problems, fmt.Sprintf("%s is %v to expfmt, and not there to Prometheus", key, theirs[key]))
		}
	}
	return problems
}

// values are all series, with those that a text has of a histogram.
func (o *secondOpinion) values() map[string]float64 {
	all := map[string]float64{}
	for _, family := range o.families {
		for _, metric := range family.Metric {
			addValues(all, family.GetName(), metric)
		}
	}
	return all
}

func addValues(all map[string]float64, name string, metric *dto.Metric) {
	key := func(suffix string, more ...string) string { return labelsOf(name+suffix, metric, more...).String() }
	switch {
	case metric.Counter != nil:
		all[key("")] = metric.Counter.GetValue()
	case metric.Gauge != nil:
		all[key("")] = metric.Gauge.GetValue()
	case metric.Untyped != nil:
		all[key("")] = metric.Untyped.GetValue()
	case metric.Histogram != nil:
		sent := metric.Histogram
		count := float64(sent.GetSampleCount())
		all[key("_sum")] = sent.GetSampleSum()
		all[key("_count")] = count
		all[key("_bucket", labels.BucketLabel, "+Inf")] = count
		for _, bucket := range sent.Bucket {
			upper := labels.FormatOpenMetricsFloat(bucket.GetUpperBound())
			all[key("_bucket", labels.BucketLabel, upper)] = float64(bucket.GetCumulativeCount())
		}
	}
}

// labelsOf is the label set of a metric with a name, and with more labels if there are.
func labelsOf(name string, metric *dto.Metric, more ...string) labels.Labels {
	builder := labels.NewBuilder(labels.FromStrings(append(more, labels.MetricName, name)...))
	for _, pair := range metric.Label {
		builder.Set(pair.GetName(), pair.GetValue())
	}
	return builder.Labels()
}

// same also holds for two values that are not numbers.
func same(a, b float64) bool {
	return a == b || math.IsNaN(a) && math.IsNaN(b)
}
