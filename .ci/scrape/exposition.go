package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

// exposition is the metrics of one reply, as Prometheus' parser of its format reads them.
type exposition struct {
	name     string // of the request
	format   *format
	families []*family // in the order of the reply
}

// family is what came between the metadata of one name and that of the next. A name whose lines
// are not together has several.
type family struct {
	name         string // as the format has it: that of an OpenMetrics counter is without _total
	metadata     []textparse.Entry
	kind         model.MetricType
	help, unit   string
	samples      []sample
	lateMetadata bool // some came after the first sample
}

// sample is one series, or with a native histogram all of what protobuf says in it.
type sample struct {
	labels    labels.Labels // with the name, without empty ones; Prometheus has made `le` canonical
	spelling  string        // the series as the text has it; "" of protobuf
	value     float64
	digits    string // the value as the text has it
	timed     bool   // has a timestamp of its own
	start     int64  // milliseconds since 1970, 0 if there is none
	exemplars []exemplar.Exemplar
	native    *histogram.Histogram
}

func (s *sample) name() string { return s.labels.Get(labels.MetricName) }

// key identifies the series in all formats.
func (s *sample) key() string { return s.labels.String() }

// decode reads the body to its end.
func decode(got *reply) (decoded *exposition, err error) {
	// Prometheus' parser takes it for granted that spans and buckets are equally many.
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("Prometheus' parser panics: %v", panicked)
		}
	}()
	parser, err := textparse.New(got.body, got.format.contentType, nil, textparse.ParserOptions{
		KeepClassicOnClassicAndNativeHistograms: true,
		OpenMetricsSkipSTSeries:                 true,
	})
	if err != nil {
		return nil, err
	}
	reader := &reader{parser: parser, lines: newLines(got), result: &exposition{name: got.request.name, format: got.format}}
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return reader.result, nil
		}
		if err != nil {
			return nil, fmt.Errorf("Prometheus' parser: %w", err)
		}
		if err := reader.read(entry); err != nil {
			return nil, err
		}
	}
}

// reader turns the entries of a parser into families.
type reader struct {
	parser textparse.Parser
	lines  *lines
	result *exposition
}

func (r *reader) read(entry textparse.Entry) error {
	switch entry {
	case textparse.EntryHelp:
		name, help := r.parser.Help()
		r.described(entry, string(name)).help = string(help)
	case textparse.EntryType:
		name, kind := r.parser.Type()
		r.described(entry, string(name)).kind = kind
	case textparse.EntryUnit:
		name, unit := r.parser.Unit()
		r.described(entry, string(name)).unit = string(unit)
	case textparse.EntrySeries:
		return r.series()
	case textparse.EntryHistogram:
		return r.histogram()
	case textparse.EntryComment:
		return fmt.Errorf("a comment: %q", r.parser.Comment())
	}
	return nil
}

// described is the family that the metadata belongs to.
func (r *reader) described(entry textparse.Entry, name string) *family {
	current := r.current()
	if current == nil || current.name != name {
		current = &family{name: name}
		r.result.families = append(r.result.families, current)
	}
	current.metadata = append(current.metadata, entry)
	current.lateMetadata = current.lateMetadata || len(current.samples) > 0
	return current
}

func (r *reader) current() *family {
	if len(r.result.families) == 0 {
		return nil
	}
	return r.result.families[len(r.result.families)-1]
}

func (r *reader) series() error {
	spelling, timestamp, value := r.parser.Series()
	next := sample{value: value, timed: timestamp != nil}
	if r.result.format.isText() {
		next.spelling = string(spelling)
		next.digits = r.lines.valueOf(next.spelling)
	}
	return r.add(next)
}

func (r *reader) histogram() error {
	series, timestamp, integer, float := r.parser.Histogram()
	if float != nil {
		return fmt.Errorf("%q is a float histogram", series)
	}
	return r.add(sample{native: integer.Copy(), timed: timestamp != nil})
}

// add completes the sample with what both kinds have. The start comes last, because the parser of
// OpenMetrics looks ahead for it.
func (r *reader) add(next sample) error {
	r.parser.Labels(&next.labels)
	next.labels = next.labels.WithoutEmpty()
	if r.current() == nil {
		return fmt.Errorf("%s comes before any metadata", next.key())
	}
	var found exemplar.Exemplar
	for r.parser.Exemplar(&found) {
		next.exemplars = append(next.exemplars, found)
		found = exemplar.Exemplar{}
	}
	next.start = r.parser.StartTimestamp()
	r.current().samples = append(r.current().samples, next)
	return nil
}

// lines finds the lines of a text that the parser's series came from, since the parser does not
// tell how a value is spelled.
type lines struct {
	rest []string
}

func newLines(got *reply) *lines {
	if !got.format.isText() {
		return nil
	}
	return &lines{strings.Split(string(got.body), "\n")}
}

// valueOf expects to be asked for the series in their order.
func (l *lines) valueOf(series string) string {
	for len(l.rest) > 0 {
		line := l.rest[0]
		l.rest = l.rest[1:]
		if after, found := strings.CutPrefix(line, series); found {
			value, _, _ := strings.Cut(strings.TrimSpace(after), " ")
			return value
		}
	}
	return ""
}
