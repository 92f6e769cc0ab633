package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/textparse"
)

// checkFamilies says what is wrong with the order and the names of what was read.
func checkFamilies(decoded *exposition) (problems []string) {
	families, series := map[string]bool{}, map[string]bool{}
	for _, family := range decoded.families {
		if families[family.name] {
			problems = append(problems, fmt.Sprintf("the lines of family %s are not together", family.name))
		}
		families[family.name] = true
		problems = append(problems, checkMetadata(family)...)
		for _, sample := range family.samples {
			// A native histogram has the name that its family has, and no other series can.
			if series[sample.key()] {
				problems = append(problems, fmt.Sprintf("%s is there twice", sample.key()))
			}
			series[sample.key()] = true
			problems = append(problems, checkSample(decoded.format, family, &sample)...)
		}
	}
	if len(series) == 0 {
		problems = append(problems, "there are no series")
	}
	return problems
}

func checkMetadata(family *family) (problems []string) {
	complain := func(message string) {
		problems = append(problems, fmt.Sprintf("family %s %s", family.name, message))
	}
	seen := map[textparse.Entry]int{}
	for _, entry := range family.metadata {
		seen[entry]++
	}
	if seen[textparse.EntryHelp] != 1 {
		complain(fmt.Sprintf("has %d HELP", seen[textparse.EntryHelp]))
	}
	if seen[textparse.EntryType] != 1 {
		complain(fmt.Sprintf("has %d TYPE", seen[textparse.EntryType]))
	}
	if seen[textparse.EntryUnit] > 1 {
		complain(fmt.Sprintf("has %d UNIT", seen[textparse.EntryUnit]))
	}
	if family.help == "" {
		complain("has no help text")
	}
	if family.kind == model.MetricTypeUnknown {
		complain("is of no type")
	}
	if family.lateMetadata {
		complain("has metadata behind its first sample")
	}
	return problems
}

func checkSample(format *format, family *family, sample *sample) (problems []string) {
	if !slices.Contains(namesOf(format, family), sample.name()) {
		problems = append(problems, fmt.Sprintf("%s is not a name in the %s %s", sample.name(), family.kind, family.name))
	}
	if !sample.labels.IsValid(model.LegacyValidation) {
		problems = append(problems, sample.key()+" has a name that is not valid")
	}
	if label, twice := sample.labels.HasDuplicateLabelNames(); twice {
		problems = append(problems, fmt.Sprintf("%s has two labels %s", sample.key(), label))
	}
	if sample.timed {
		problems = append(problems, sample.key()+" has a timestamp")
	}
	if family.kind == model.MetricTypeCounter && !(sample.value >= 0) {
		problems = append(problems, fmt.Sprintf("counter %s is %v", sample.key(), sample.value))
	}
	return problems
}

// namesOf is what the samples of a family may be called. A native histogram is called like its
// family, and is only in protobuf.
func namesOf(format *format, family *family) []string {
	switch family.kind {
	case model.MetricTypeCounter:
		if format.isOpenMetrics() {
			return []string{family.name + "_total"}
		}
		return []string{family.name}
	case model.MetricTypeHistogram:
		names := []string{family.name + "_bucket", family.name + "_sum", family.name + "_count"}
		if !format.isText() {
			names = append(names, family.name)
		}
		return names
	case model.MetricTypeInfo:
		return []string{family.name + "_info"}
	default:
		return []string{family.name}
	}
}

// How far the clock of the server may be ahead of ours.
const clockTolerance = time.Second

// checkStarts says where a start timestamp is missing or cannot be.
func checkStarts(decoded *exposition) (problems []string) {
	latest := time.Now().Add(clockTolerance).UnixMilli()
	for _, family := range decoded.families {
		counts := family.kind == model.MetricTypeCounter || family.kind == model.MetricTypeHistogram
		if !counts || !decoded.format.hasExemplars() {
			continue
		}
		for _, sample := range family.samples {
			switch {
			case sample.start == 0:
				problems = append(problems, sample.key()+" has no start timestamp")
			case sample.start < 0 || sample.start > latest:
				problems = append(problems, fmt.Sprintf("%s started at %d ms", sample.key(), sample.start))
			}
		}
	}
	return problems
}
