package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// scrapeAll asks for the text before and after everything else, so that a comparison knows what
// has changed meanwhile: the first and the last scrape are of the same format.
func scrapeAll(url string) (scrapes []*exposition, problems []string) {
	for _, asked := range slices.Concat([]request{textRequest}, allRequests(), []request{textRequest}) {
		got, err := fetch(url, asked)
		if err != nil {
			problems = append(problems, asked.name+": "+err.Error())
			continue
		}
		decoded, found := inspect(got)
		scrapes = append(scrapes, decoded)
		problems = append(problems, prefixed(asked.name, found)...)
	}
	return scrapes, problems
}

// inspect says what is wrong with one reply by itself.
func inspect(got *reply) (*exposition, []string) {
	problems := checkBytes(got)
	second, err := newSecondOpinion(got)
	if err != nil {
		problems = append(problems, err.Error())
	}
	if broken := second.checkHistograms(); len(broken) > 0 {
		return nil, append(problems, broken...) // Prometheus' code takes for granted that none are.
	}
	decoded, err := decode(got)
	if err != nil {
		return nil, append(problems, err.Error())
	}
	second.restoreExemplars(decoded)
	problems = append(problems, checkFamilies(decoded)...)
	problems = append(problems, checkHistograms(decoded)...)
	problems = append(problems, checkExemplars(decoded)...)
	problems = append(problems, checkStarts(decoded)...)
	problems = append(problems, second.lint()...)
	return decoded, append(problems, second.differences(decoded)...)
}

func prefixed(name string, problems []string) []string {
	var all []string
	for _, problem := range problems {
		all = append(all, name+": "+problem)
	}
	return all
}

// checkBytes says what is wrong with a text that the parsers tolerate.
func checkBytes(got *reply) (problems []string) {
	if !got.format.isText() {
		return nil
	}
	body := got.body
	if !utf8.Valid(body) {
		problems = append(problems, "not UTF-8")
	}
	if bytes.HasPrefix(body, []byte("\uFEFF")) {
		problems = append(problems, "starts with a byte order mark")
	}
	if !bytes.HasSuffix(body, []byte("\n")) {
		problems = append(problems, "the last line does not end with a line feed")
	}
	if bytes.Contains(body, []byte("\r\n")) {
		problems = append(problems, "a line ends with a carriage return")
	}
	return append(problems, checkEnd(got)...)
}

func checkEnd(got *reply) []string {
	ends := 0
	for line := range strings.Lines(string(got.body)) {
		if strings.HasPrefix(line, "# EOF") {
			ends++
		}
	}
	if !got.format.isOpenMetrics() {
		if ends > 0 {
			return []string{"# EOF in a format that has none"}
		}
		return nil
	}
	if ends != 1 || !bytes.HasSuffix(got.body, []byte("\n# EOF\n")) {
		return []string{fmt.Sprintf("%d lines # EOF, and the last line must be it", ends)}
	}
	return nil
}
