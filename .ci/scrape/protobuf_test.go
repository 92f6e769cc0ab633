package main

import (
	"bytes"
	"compress/gzip"
	"math"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func timestamp() *timestamppb.Timestamp {
	return &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 250e6}
}

func traceExemplar(value float64) *dto.Exemplar {
	return &dto.Exemplar{
		Label:     []*dto.LabelPair{{Name: proto.String("trace_id"), Value: proto.String("0123456789abcdef0123456789abcdef")}},
		Value:     proto.Float64(value),
		Timestamp: timestamp(),
	}
}

// soundFamilies is a counter, and a histogram of 0, 1, 2, 2 and infinity in both kinds of buckets.
func soundFamilies() []*dto.MetricFamily {
	return []*dto.MetricFamily{
		{
			Name: proto.String("shop_orders_total"), Help: proto.String("Orders."), Type: dto.MetricType_COUNTER.Enum(),
			Metric: []*dto.Metric{{Counter: &dto.Counter{Value: proto.Float64(3), CreatedTimestamp: timestamp()}}},
		},
		{
			Name: proto.String("shop_latency_seconds"), Help: proto.String("Latency."), Type: dto.MetricType_HISTOGRAM.Enum(),
			Metric: []*dto.Metric{{Histogram: soundHistogram()}},
		},
	}
}

func soundHistogram() *dto.Histogram {
	const overInfinity = 1025 // The bucket of schema 0 that only infinite values are in.
	return &dto.Histogram{
		SampleCount: proto.Uint64(5),
		SampleSum:   proto.Float64(5),
		Bucket: []*dto.Bucket{
			{UpperBound: proto.Float64(1), CumulativeCount: proto.Uint64(2), Exemplar: traceExemplar(1)},
			{UpperBound: proto.Float64(10), CumulativeCount: proto.Uint64(4)},
			{UpperBound: proto.Float64(math.Inf(1)), CumulativeCount: proto.Uint64(5)},
		},
		Schema:        proto.Int32(0),
		ZeroThreshold: proto.Float64(1e-9),
		ZeroCount:     proto.Uint64(1),
		PositiveSpan: []*dto.BucketSpan{
			{Offset: proto.Int32(0), Length: proto.Uint32(2)},
			{Offset: proto.Int32(overInfinity - 2), Length: proto.Uint32(1)},
		},
		PositiveDelta:    []int64{1, 1, -1},
		Exemplars:        []*dto.Exemplar{traceExemplar(0), traceExemplar(2)},
		CreatedTimestamp: timestamp(),
	}
}

func TestProtobufIsChecked(t *testing.T) {
	for name, one := range map[string]struct {
		damage   func(counter *dto.Counter, histogram *dto.Histogram)
		complain string
	}{
		"nothing": {func(*dto.Counter, *dto.Histogram) {}, ""},
		"more in the buckets than counted": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.ZeroCount = proto.Uint64(2) }, "the Count field is 5",
		},
		"a bucket below zero": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.PositiveDelta[2] = -3 }, "observation count of -1",
		},
		"more buckets than spans": {
			func(_ *dto.Counter, histogram *dto.Histogram) {
				histogram.PositiveDelta = append(histogram.PositiveDelta, 0)
			},
			"spans need 3 buckets, have 4",
		},
		"fewer buckets than spans": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.PositiveDelta = histogram.PositiveDelta[:2] },
			"spans need 3 buckets, have 2",
		},
		"spans that go back": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.PositiveSpan[1].Offset = proto.Int32(-1) }, "offset -1",
		},
		"no schema": {
			func(_ *dto.Counter, histogram *dto.Histogram) {
				histogram.Schema = nil
				histogram.PositiveDelta = nil
			},
			"spans need 3 buckets, have 0",
		},
		"a schema that does not exist": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.Schema = proto.Int32(9) }, "schema 9",
		},
		"classic buckets of other values": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.Bucket[0].CumulativeCount = proto.Uint64(3) },
			"bucket 1 has 3, and the native histogram 2 to 2",
		},
		"another count in the classic buckets": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.Bucket[2].CumulativeCount = proto.Uint64(6) },
			"count is 5, and the last bucket 6",
		},
		"no span in an empty histogram": {
			func(_ *dto.Counter, histogram *dto.Histogram) {
				*histogram = dto.Histogram{Schema: proto.Int32(3), CreatedTimestamp: timestamp()}
			},
			"without a span",
		},
		"an empty histogram": {
			func(_ *dto.Counter, histogram *dto.Histogram) {
				*histogram = dto.Histogram{
					Schema: proto.Int32(3), CreatedTimestamp: timestamp(),
					PositiveSpan: []*dto.BucketSpan{{Offset: proto.Int32(0), Length: proto.Uint32(0)}},
				}
			},
			"",
		},
		"too many buckets": {
			func(_ *dto.Counter, histogram *dto.Histogram) {
				*histogram = dto.Histogram{
					SampleCount: proto.Uint64(161), SampleSum: proto.Float64(1), Schema: proto.Int32(8), CreatedTimestamp: timestamp(),
					PositiveSpan:  []*dto.BucketSpan{{Offset: proto.Int32(0), Length: proto.Uint32(161)}},
					PositiveDelta: append([]int64{1}, make([]int64, 160)...),
				}
			},
			"161 buckets are more than 160",
		},
		"a float histogram": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.SampleCountFloat = proto.Float64(5) }, "float histogram",
		},
		"a sum that is no number": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.SampleSum = proto.Float64(math.NaN()) }, "sum is NaN",
		},
		"no start of a histogram": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.CreatedTimestamp = nil }, "has no start timestamp",
		},
		"no start of a counter": {
			func(counter *dto.Counter, _ *dto.Histogram) { counter.CreatedTimestamp = nil }, "has no start timestamp",
		},
		"an exemplar of no value": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.Exemplars[1] = traceExemplar(5) }, "and no such value",
		},
		"an exemplar in another bucket": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.Bucket[1].Exemplar = traceExemplar(1) }, "exemplar of 1 behind 1",
		},
		"no time of a native exemplar": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.Exemplars[1].Timestamp = nil }, "exemplar of 2 has no timestamp",
		},
		"no time of a classic exemplar": {
			func(_ *dto.Counter, histogram *dto.Histogram) { histogram.Bucket[0].Exemplar.Timestamp = nil }, "no timestamp",
		},
		"no time of an exemplar of a counter": {
			func(counter *dto.Counter, _ *dto.Histogram) {
				counter.Exemplar = traceExemplar(1)
				counter.Exemplar.Timestamp = nil
			},
			"no timestamp",
		},
	} {
		t.Run(name, func(t *testing.T) {
			families := soundFamilies()
			one.damage(families[0].Metric[0].Counter, families[1].Metric[0].Histogram)
			_, problems := inspect(encoded(t, families))
			expectProblem(t, problems, one.complain)
		})
	}
}

func TestEachNativeHistogramHasTheExemplarsThatItWasSentWith(t *testing.T) {
	families := soundFamilies()
	other := &dto.Metric{Histogram: soundHistogram(), Label: []*dto.LabelPair{{Name: proto.String("shop"), Value: proto.String("b")}}}
	families[1].Metric = append(families[1].Metric, other)
	for _, metric := range families[1].Metric {
		metric.Histogram.Bucket = nil
	}
	decoded, problems := inspect(encoded(t, families))
	expectProblem(t, problems, "")
	for _, sample := range decoded.families[1].samples {
		if len(sample.exemplars) != 2 || sample.exemplars[1].Value != 2 {
			t.Errorf("%s has %v", sample.key(), sample.exemplars)
		}
	}
}

func TestFamiliesOfProtobufAreChecked(t *testing.T) {
	for name, one := range map[string]struct {
		damage   func(families []*dto.MetricFamily) []*dto.MetricFamily
		complain string
	}{
		"a family in two messages": {
			func(families []*dto.MetricFamily) []*dto.MetricFamily { return append(families, families[0]) }, "are not together",
		},
		"a family in two messages behind each other": {
			func(families []*dto.MetricFamily) []*dto.MetricFamily { return append(families, families[1]) }, "has 2 HELP",
		},
		"no help": {
			func(families []*dto.MetricFamily) []*dto.MetricFamily {
				families[0].Help = nil
				return families
			},
			"no help text",
		},
		"lint": {
			func(families []*dto.MetricFamily) []*dto.MetricFamily {
				families[0].Name = proto.String("shop_orders")
				return families
			},
			"promlint: shop_orders",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := inspect(encoded(t, one.damage(soundFamilies())))
			expectProblem(t, problems, one.complain)
		})
	}
}

func TestBytesThatAreNoProtobufAreAProblem(t *testing.T) {
	sound := encoded(t, soundFamilies())
	sound.body = sound.body[:len(sound.body)-1]
	_, problems := inspect(sound)
	expectProblem(t, problems, "expfmt")
}

func encoded(t *testing.T, families []*dto.MetricFamily) *reply {
	var body bytes.Buffer
	for _, family := range families {
		if _, err := protodelim.MarshalTo(&body, family); err != nil {
			t.Fatal(err)
		}
	}
	return &reply{request{name: "test"}, protobuf, body.Bytes()}
}

func gzipped(t *testing.T, text string) []byte {
	var body bytes.Buffer
	writer := gzip.NewWriter(&body)
	if _, err := writer.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return body.Bytes()
}
