//! The critical path against hand-drawn cases, and its exactness on random forests of spans.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use latency_aggregator::domain::critical_path::{Spent, Step, Timed, coarse_path, critical_path};
use latency_aggregator::domain::time::EventTime;
use proptest::prelude::*;

fn at(millisecond: u64) -> EventTime {
    EventTime::from_unix_nanoseconds(millisecond * 1_000_000)
}

/// A span from `start` to `end` in milliseconds, below the span at `parent`.
fn span(start: u64, end: u64, parent: Option<usize>) -> Timed {
    Timed::inside_of(parent, at(start), at(end))
}

/// `w2` for 2 ms of waiting, `0` `1` ... for the work of a span, with its milliseconds: latest first.
fn drawn(steps: &[Step]) -> String {
    let draw = |step: &Step| {
        let milliseconds = step.nanoseconds() / 1_000_000;
        match step.spent {
            Spent::Working(event) => format!("{event}:{milliseconds}"),
            Spent::Waiting(event) => format!("wait {event}:{milliseconds}"),
            Spent::Unknown => format!("unknown:{milliseconds}"),
        }
    };
    steps.iter().map(draw).collect::<Vec<_>>().join(" ")
}

fn check(what: &str, spans: &[Timed], last: usize, (from, to): (u64, u64), expected: &str) {
    let path = critical_path(spans, last, at(from), at(to));
    assert_eq!(drawn(&path.steps), expected, "{what}");
}

#[test]
fn sequential_children_are_all_on_the_path() {
    let spans = [span(0, 100, None), span(10, 40, Some(0)), span(50, 90, Some(0))];
    check("two children in turn", &spans, 0, (0, 100), "0:10 2:40 0:10 1:30 0:10");
}

#[test]
fn of_parallel_children_only_the_later_ending_is_on_the_path() {
    let spans = [span(0, 100, None), span(10, 80, Some(0)), span(20, 90, Some(0))];
    check("two children at once", &spans, 0, (0, 100), "0:10 2:70 0:20");
}

#[test]
fn a_small_overlap_is_a_matter_of_clocks() {
    // 1 % of 1000 ms is the 10 ms allowed at most.
    let spans = [span(0, 1000, None), span(100, 505, Some(0)), span(500, 900, Some(0))];
    check("5 ms of overlap", &spans, 0, (0, 1000), "0:100 2:400 1:400 0:100");
    let spans = [span(0, 1000, None), span(100, 511, Some(0)), span(500, 900, Some(0))];
    check("11 ms of overlap", &spans, 0, (0, 1000), "0:100 2:400 0:500");
}

#[test]
fn a_child_that_outlives_its_parent_is_cut_unless_it_ends_the_flow() {
    let spans = [span(0, 100, None), span(50, 150, Some(0))];
    check("measured by the root", &spans, 0, (0, 100), "1:50 0:50");
    check("measured to the end", &spans, 1, (0, 150), "1:100 0:50");
}

#[test]
fn a_child_after_its_parent_waited_for_its_turn() {
    let spans = [span(0, 50, None), span(80, 100, Some(0))];
    check("a queue of 30 ms", &spans, 1, (0, 100), "1:20 wait 1:30 0:50");
}

#[test]
fn fan_out_leads_back_through_the_producer_of_the_last_consumer() {
    let spans = [span(0, 30, None), span(10, 20, Some(0)), span(25, 60, Some(1)), span(40, 100, Some(1))];
    check("two consumers", &spans, 3, (0, 100), "3:60 wait 3:20 1:10 0:10");
}

#[test]
fn without_a_parent_the_path_goes_on_in_what_ended_before() {
    let spans = [span(0, 40, None), span(60, 100, None)];
    check("two roots", &spans, 1, (0, 100), "1:40 wait 1:20 0:40");
    let spans = [span(0, 200, None), span(10, 40, None), span(60, 100, None)];
    check("something was active meanwhile", &spans, 2, (0, 100), "2:40 unknown:20 1:30 0:10");
}

#[test]
fn parents_in_a_circle_are_cut_and_counted() {
    let spans = [span(0, 40, Some(1)), span(50, 100, Some(0))];
    let path = critical_path(&spans, 1, at(0), at(100));
    assert_eq!(drawn(&path.steps), "1:50 wait 1:10 0:40");
    let spans = [span(20, 40, Some(1)), span(50, 100, Some(0))];
    let path = critical_path(&spans, 1, at(0), at(100));
    assert_eq!((drawn(&path.steps).as_str(), path.cycles), ("1:50 wait 1:10 0:20 unknown:20", 1));
}

#[test]
fn only_what_lies_between_start_and_end_of_the_flow_counts() {
    let spans = [span(0, 100, None), span(10, 40, Some(0)), span(50, 90, Some(0))];
    check("from inside the first child to the end of the second", &spans, 2, (20, 90), "2:40 0:10 1:20");
}

#[test]
fn a_stub_has_stages_and_gaps() {
    let intervals = [(at(0), at(30)), (at(50), at(80)), (at(70), at(100))];
    let path = coarse_path(&intervals, at(0), at(100));
    assert_eq!(drawn(&path.steps), "2:30 1:20 wait 1:20 0:30");
}

/// Random forests; the list is in an order that depends on content only.
fn forests() -> impl Strategy<Value = Vec<Timed>> {
    let event = (0u64..2_000, 0u64..600, any::<prop::sample::Index>(), prop::bool::weighted(0.8));
    prop::collection::vec(event, 1..40).prop_map(|events| {
        let count = events.len();
        let timed = |(start, length, parent, has_parent): (u64, u64, prop::sample::Index, bool)| {
            let [start, end] = [start, start + length].map(EventTime::from_unix_nanoseconds);
            Timed::inside_of(has_parent.then(|| parent.index(count)), start, end)
        };
        events.into_iter().map(timed).collect()
    })
}

/// The steps lead from the end of the latency to its start, without gap or overlap.
fn check_exact(steps: &[Step], from: EventTime, to: EventTime) {
    let mut reached = to;
    for step in steps {
        assert_eq!(step.to, reached);
        assert!(step.from < step.to);
        reached = step.from;
    }
    assert_eq!(reached, from.min(to));
    let sum: u64 = steps.iter().map(Step::nanoseconds).sum();
    assert_eq!(sum, to.nanoseconds_since(from));
}

proptest! {
    #[test]
    fn the_steps_sum_to_the_latency_to_the_nanosecond(spans in forests(), cut in 0u64..100) {
        let last = (0..spans.len()).max_by_key(|&place| (spans[place].end, place)).unwrap();
        let from = spans.iter().map(|span| span.start).min().unwrap();
        let from = EventTime::from_unix_nanoseconds(from.unix_nanoseconds() + cut);
        let path = critical_path(&spans, last, from, spans[last].end);
        check_exact(&path.steps, from.min(spans[last].end), spans[last].end);
        // Nobody works when he is not there.
        for step in &path.steps {
            if let Spent::Working(event) = step.spent {
                prop_assert!(step.from >= spans[event].start);
                prop_assert!(step.to <= spans[event].end);
            }
        }
    }

    #[test]
    fn the_steps_of_a_stub_sum_to_its_latency(spans in forests()) {
        let intervals: Vec<_> = spans.iter().map(|span| (span.start, span.end)).collect();
        let from = intervals.iter().map(|interval| interval.0).min().unwrap();
        let to = intervals.iter().map(|interval| interval.1).max().unwrap();
        check_exact(&coarse_path(&intervals, from, to).steps, from, to);
    }
}
