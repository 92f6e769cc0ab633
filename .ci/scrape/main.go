// scrapecheck reads /metrics as Prometheus would, in every format and encoding that a current
// Prometheus can ask for, and says what is wrong with the replies.
//
//	scrapecheck URL...
//
// The replies are decoded by Prometheus' own parsers and a second time by expfmt of
// prometheus/common, so none of the code that reads them is ours. Then each is checked by itself
// (replies.go, families.go, histograms.go, exemplars.go), and all are compared with each other,
// series by series (compare.go).
//
// It prints one line of counts for each URL that is all right and ends with status 0. Else it
// prints what is wrong and ends with status 1.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Beyond this many different problems of one URL, more of them do not help.
const maxPrinted = 30

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: scrapecheck URL...")
		os.Exit(2)
	}
	status := 0
	for _, url := range os.Args[1:] {
		counts, problems := check(url)
		if len(problems) == 0 {
			fmt.Printf("%s: ok %s\n", url, counts)
			continue
		}
		status = 1
		printProblems(os.Stdout, url, problems)
	}
	os.Exit(status)
}

// printProblems knows that each begins with the name of its reply. What is wrong in many replies is
// printed once.
func printProblems(output io.Writer, url string, problems []string) {
	var texts []string
	replies := map[string][]string{}
	for _, problem := range problems {
		reply, text, _ := strings.Cut(problem, ": ")
		if replies[text] == nil {
			texts = append(texts, text)
		}
		replies[text] = append(replies[text], reply)
	}
	fmt.Fprintf(output, "%s: %d problems\n", url, len(texts))
	for _, text := range texts[:min(len(texts), maxPrinted)] {
		in := replies[text]
		fmt.Fprintf(output, "  %s\n    in %d replies, first in %s\n", text, len(in), in[0])
	}
	if more := len(texts) - maxPrinted; more > 0 {
		fmt.Fprintf(output, "  and %d more\n", more)
	}
}

// A gauge that goes up and down, such as the open files, can look by chance as if a format had
// another value, but not each time.
const rounds = 8

// check asks for everything, and until nothing is wrong again, up to `rounds` times. What is wrong
// with one reply counts the first time, a difference between replies only when it is there each time.
func check(url string) (counts, []string) {
	var differences []string
	for round := range rounds {
		scrapes, problems := scrapeAll(url)
		if len(problems) > 0 {
			return counts{}, problems
		}
		found, compared := compareAll(scrapes)
		if round == 0 {
			differences = found
		}
		differences = slices.DeleteFunc(differences, func(difference string) bool {
			return !slices.Contains(found, difference)
		})
		if len(differences) == 0 {
			return count(scrapes, compared), nil
		}
	}
	return counts{}, differences
}
