package main

import (
	"fmt"

	"github.com/prometheus/common/model"
)

// counts tells what was there to be checked, so that a caller can see that it was not nothing.
type counts struct {
	replies, families, series      int
	classic, native, both          int // histograms in protobuf
	exemplars, starts, comparisons int
}

func (c counts) String() string {
	return fmt.Sprintf("replies=%d families=%d series=%d classic=%d native=%d both=%d exemplars=%d starts=%d comparisons=%d",
		c.replies, c.families, c.series, c.classic, c.native, c.both, c.exemplars, c.starts, c.comparisons)
}

// count takes the families from the last text, and what a text does not have from protobuf.
func count(scrapes []*exposition, compared int) counts {
	text := scrapes[len(scrapes)-1]
	result := counts{
		replies:     len(scrapes),
		families:    len(text.families),
		series:      len(text.points()),
		comparisons: compared,
	}
	for _, scrape := range scrapes {
		if scrape.format == protobuf {
			result.addExtras(scrape)
			break
		}
	}
	return result
}

func (c *counts) addExtras(decoded *exposition) {
	for _, family := range decoded.families {
		for _, sample := range family.samples {
			c.exemplars += len(sample.exemplars)
			if sample.start != 0 {
				c.starts++
			}
		}
		if family.kind == model.MetricTypeHistogram {
			c.addHistograms(family)
		}
	}
}

func (c *counts) addHistograms(family *family) {
	metrics, _ := metricsOf(family)
	for _, metric := range metrics {
		switch {
		case metric.native == nil:
			c.classic++
		case len(metric.buckets) == 0:
			c.native++
		default:
			c.both++
		}
	}
}
