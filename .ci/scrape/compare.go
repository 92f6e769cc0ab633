package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
)

// point is one series as it can be compared in all formats. A native histogram without classic
// buckets is the three series that a text has of it.
type point struct {
	labels labels.Labels
	value  float64
	start  int64
}

func (e *exposition) points() map[string]point {
	points := map[string]point{}
	for _, family := range e.families {
		for _, sample := range family.samples {
			if sample.native == nil {
				points[sample.key()] = point{sample.labels, sample.value, sample.start}
			}
		}
		for _, metric := range nativeOnly(family) {
			for _, one := range pointsOf(metric.native) {
				points[one.labels.String()] = one
			}
		}
	}
	return points
}

func nativeOnly(family *family) []*metric {
	if family.kind != model.MetricTypeHistogram {
		return nil
	}
	metrics, _ := metricsOf(family)
	return slices.DeleteFunc(metrics, func(one *metric) bool {
		return one.native == nil || len(one.buckets) > 0
	})
}

func pointsOf(sample *sample) []point {
	named := func(suffix string) *labels.Builder {
		return labels.NewBuilder(sample.labels).Set(labels.MetricName, sample.name()+suffix)
	}
	count := float64(sample.native.Count)
	return []point{
		{named("_sum").Labels(), sample.native.Sum, sample.start},
		{named("_count").Labels(), count, sample.start},
		{named("_bucket").Set(labels.BucketLabel, "+Inf").Labels(), count, sample.start},
	}
}

// compareAll says where a scrape differs from the first and the last one, which are of the same
// format: what they agree on cannot have been different in between. It also tells how many values
// it has compared.
func compareAll(scrapes []*exposition) (differences []string, compared int) {
	before, after := scrapes[0], scrapes[len(scrapes)-1]
	text := newReference(before, after)
	for _, other := range scrapes[1 : len(scrapes)-1] {
		found, values := text.compare(other)
		compared += values
		found = append(found, compareDescriptions(before, after, other)...)
		differences = append(differences, prefixed(other.name, found)...)
	}
	return append(differences, text.compareExtras(scrapes)...), compared
}

// reference is what the first and the last scrape say.
type reference struct {
	steady map[string]point    // the same in both
	known  map[string]struct{} // in one of them
}

func newReference(before, after *exposition) *reference {
	text := &reference{map[string]point{}, map[string]struct{}{}}
	later := after.points()
	for key, one := range before.points() {
		text.known[key] = struct{}{}
		if other, found := later[key]; found && same(one.value, other.value) {
			text.steady[key] = one
		}
	}
	for key := range later {
		text.known[key] = struct{}{}
	}
	return text
}

func (r *reference) compare(other *exposition) (differences []string, compared int) {
	points := other.points()
	withoutBuckets := other.withoutBuckets()
	for _, key := range slices.Sorted(maps.Keys(r.steady)) {
		expected := r.steady[key]
		one, found := points[key]
		switch {
		case found && same(one.value, expected.value):
			compared++
		case found:
			differences = append(differences, fmt.Sprintf("%s is %v, and %v in text", key, one.value, expected.value))
		case !withoutBuckets[countKey(expected.labels)]:
			differences = append(differences, key+" is missing")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(points)) {
		if _, known := r.known[key]; !known {
			differences = append(differences, key+" is not in text")
		}
	}
	return differences, compared
}

// withoutBuckets are the histograms that have a native one and no classic buckets, by the names of
// their counts.
func (e *exposition) withoutBuckets() map[string]bool {
	names := map[string]bool{}
	for _, family := range e.families {
		for _, metric := range nativeOnly(family) {
			names[countOf(metric.native)] = true
		}
	}
	return names
}

// countKey is the name of the count that a bucket belongs to, and of all else its own.
func countKey(series labels.Labels) string {
	name, isBucket := strings.CutSuffix(series.Get(labels.MetricName), "_bucket")
	if !isBucket {
		return series.String()
	}
	return labels.NewBuilder(series).Set(labels.MetricName, name+"_count").Del(labels.BucketLabel).Labels().String()
}

func countOf(native *sample) string {
	return labels.NewBuilder(native.labels).Set(labels.MetricName, native.name()+"_count").Labels().String()
}

// compareExtras is about what only some formats have: start timestamps and exemplars. All are
// compared with the first OpenMetrics.
func (r *reference) compareExtras(scrapes []*exposition) (differences []string) {
	first := slices.IndexFunc(scrapes, func(scrape *exposition) bool { return scrape.format.isOpenMetrics() })
	if first < 0 {
		return nil
	}
	for _, scrape := range scrapes {
		if scrape.format.hasExemplars() {
			found := append(r.compareStarts(scrapes[first], scrape), r.compareExemplars(scrapes[first], scrape)...)
			differences = append(differences, prefixed(scrape.name, found)...)
		}
	}
	return differences
}

func (r *reference) compareStarts(first, other *exposition) (differences []string) {
	points, expected := other.points(), first.points()
	for _, key := range slices.Sorted(maps.Keys(r.steady)) {
		one, has := points[key]
		another, had := expected[key]
		if has && had && !near(one.start, another.start) {
			differences = append(differences,
				fmt.Sprintf("%s started at %d ms, and in %s at %d ms", key, one.start, first.name, another.start))
		}
	}
	return differences
}

// compareExemplars does not ask for the bucket, which has been checked. A native histogram without
// buckets may have more.
func (r *reference) compareExemplars(first, other *exposition) (differences []string) {
	found, withoutBuckets := other.exemplars(), other.withoutBuckets()
	for key, expected := range first.exemplars() {
		ours := found[key]
		if withoutBuckets[key] {
			ours = slices.DeleteFunc(slices.Clone(ours), func(one exemplar.Exemplar) bool {
				return !slices.ContainsFunc(expected, func(another exemplar.Exemplar) bool { return alike(one, another) })
			})
		}
		if _, steady := r.steady[key]; steady && !slices.EqualFunc(ours, expected, alike) {
			differences = append(differences,
				fmt.Sprintf("exemplars of %s are %v, and in %s %v", key, found[key], first.name, expected))
		}
	}
	slices.Sort(differences)
	return differences
}

// exemplars are those of each counter, and of each histogram under the name of its count, by value.
func (e *exposition) exemplars() map[string][]exemplar.Exemplar {
	all := map[string][]exemplar.Exemplar{}
	for _, family := range e.families {
		for _, sample := range family.samples {
			if sample.native == nil {
				key := countKey(sample.labels)
				all[key] = append(all[key], sample.exemplars...)
			}
		}
		for _, metric := range nativeOnly(family) {
			all[countOf(metric.native)] = metric.native.exemplars
		}
	}
	for _, exemplars := range all {
		slices.SortFunc(exemplars, func(a, b exemplar.Exemplar) int { return cmp.Compare(a.Value, b.Value) })
	}
	return all
}

func alike(a, b exemplar.Exemplar) bool {
	return labels.Equal(a.Labels, b.Labels) && same(a.Value, b.Value) && near(a.Ts, b.Ts)
}

// One millisecond is lost when seconds with a fraction become milliseconds.
const millisecondsLost = 1

func near(a, b int64) bool {
	return max(a-b, b-a) <= millisecondsLost
}

// compareDescriptions says which types and help texts are not those of the text.
func compareDescriptions(before, after, other *exposition) (differences []string) {
	expected, later := before.descriptions(), after.descriptions()
	for name, found := range other.descriptions() {
		if text, known := expected[name]; known && text == later[name] && text != found {
			differences = append(differences, fmt.Sprintf("family %s is %+q, and %+q in text", name, found, text))
		}
	}
	slices.Sort(differences)
	return differences
}

type description struct{ kind, help string }

// descriptions has a family of counters under the name of its samples.
func (e *exposition) descriptions() map[string]description {
	all := map[string]description{}
	for _, family := range e.families {
		name := family.name
		if e.format.isOpenMetrics() && family.kind == model.MetricTypeCounter {
			name += "_total"
		}
		all[name] = description{string(family.kind), family.help}
	}
	return all
}
