//! Clocks of hosts that disagree: what is moved, by how much, and what that does to the critical path.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod world;

use std::time::Duration;

use latency_aggregator::domain::critical_path::Timed;
use latency_aggregator::domain::skew::{Edge, align};
use latency_aggregator::domain::time::EventTime;
use proptest::prelude::*;
use world::*;

/// A start and an end.
type Interval = (u64, u64);

/// Spans as (start, end, parent, edge), moved by at most `limit`: where they are then, and which were misplaced, as
/// (place, nanoseconds, moved).
fn aligned(
    spans: &[(u64, u64, Option<usize>, Edge)],
    limit: u64,
) -> (Vec<Interval>, Vec<(usize, u64, bool)>) {
    let time = EventTime::from_unix_nanoseconds;
    let mut timed: Vec<Timed> = spans
        .iter()
        .map(|&(start, end, parent, _)| Timed::inside_of(parent, time(start), time(end)))
        .collect();
    let misplaced = align(&mut timed, |place| spans[place].3, Duration::from_nanos(limit));
    let moved = timed.iter().map(|span| (span.start.unix_nanoseconds(), span.end.unix_nanoseconds()));
    let misplaced = misplaced.iter().map(|found| (found.span, found.nanoseconds, found.moved));
    (moved.collect(), misplaced.collect())
}

#[test]
fn a_served_call_is_moved_into_the_middle_of_the_call_that_waited_for_it() {
    use Edge::{Other, SameClock, Served};
    let call = (100, 200, None, Other);
    for (what, child, expected, misplaced) in [
        ("it lies within", (110, 190), (110, 190), vec![]),
        ("it ends too late", (150, 210), (120, 180), vec![(1, 30, true)]),
        ("it begins too soon", (50, 110), (120, 180), vec![(1, 70, true)]),
        ("it is elsewhere", (300, 360), (120, 180), vec![(1, 180, true)]),
        ("it is longer, so it was not waited for", (150, 260), (150, 260), vec![]),
        ("it is too far away", (1300, 1360), (1300, 1360), vec![(1, 1180, false)]),
    ] {
        let spans = [call, (child.0, child.1, Some(0), Served), (child.0, child.1, Some(1), SameClock)];
        let (moved, found) = aligned(&spans, 1000);
        assert_eq!(moved, [(100, 200), expected, expected], "{what}");
        assert_eq!(found, misplaced, "{what}");
    }
    // The next host's clock is another one: its call is judged by the moved caller.
    let spans =
        [call, (300, 360, Some(0), Served), (310, 350, Some(1), SameClock), (145, 155, Some(2), Served)];
    let (moved, found) = aligned(&spans, 1000);
    assert_eq!(moved, [(100, 200), (120, 180), (130, 170), (145, 155)]);
    assert_eq!(found, [(1, 180, true)]);
}

#[test]
fn what_nobody_waited_for_is_never_moved() {
    let spans = [
        (100, 200, None, Edge::Other),
        (300, 310, Some(0), Edge::Other),
        (305, 308, Some(1), Edge::SameClock),
    ];
    assert_eq!(aligned(&spans, 1000), (vec![(100, 200), (300, 310), (305, 308)], vec![]));
}

#[test]
fn the_order_of_the_spans_does_not_matter_and_circles_end() {
    let backwards = [
        (310, 350, Some(1), Edge::SameClock),
        (300, 360, Some(2), Edge::Served),
        (100, 200, None, Edge::Other),
    ];
    assert_eq!(aligned(&backwards, 1000).0, [(130, 170), (120, 180), (100, 200)]);
    let circle = [(10, 20, Some(1), Edge::Served), (50, 90, Some(0), Edge::Served)];
    assert_eq!(aligned(&circle, 1000).0.len(), 2);
}

#[test]
fn a_host_whose_clock_is_ahead_does_not_get_time_it_did_not_take() {
    // The payment host is 400 ms ahead: without correction its work would seem to come after the call had ended.
    let spans = [
        span("gateway", 1, 0.0, 1.0).server(),
        span("gateway", 2, 0.1, 0.5).client().under(1),
        span("payment", 3, 0.6, 0.8).server().under(2),
        span("payment", 4, 0.65, 0.75).under(3),
    ];
    let mut world = World::with("");
    world.at(1.0).receive(&spans).at(700.0);
    let closed = world.only();
    assert_eq!(path(closed), ["gateway work 0.8", "payment work 0.2"]);
    let skew = &closed.skews[0];
    assert_eq!(
        (&*skew.from, &*skew.to, skew.nanoseconds, skew.corrected),
        ("gateway", "payment", 400_000_000, true)
    );
    assert_eq!(world.story(), ["trace ok root 1s at 11s"], "what was measured is not moved");

    let flows = "[{name: all, match: 'true', max_clock_skew: 0s}]";
    let mut world = World::with(flows);
    world.at(1.0).receive(&spans).at(700.0);
    assert!(!world.only().skews[0].corrected, "it is counted all the same");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_moved_by_more_than_the_limit_or_changes_its_length(
        spans in proptest::collection::vec((0..1000_u64, 0..300_u64, proptest::option::of(0..12_usize), 0..3_usize), 1..12),
        limit in 0..500_u64,
    ) {
        let count = spans.len();
        let spans: Vec<_> = spans
            .into_iter()
            .map(|(start, length, parent, edge)| {
                let edge = [Edge::SameClock, Edge::Served, Edge::Other][edge];
                (start + 1000, start + 1000 + length, parent.filter(|parent| *parent < count), edge)
            })
            .collect();
        let (moved, _) = aligned(&spans, limit);
        for (before, after) in spans.iter().zip(&moved) {
            prop_assert_eq!(before.1 - before.0, after.1 - after.0);
            prop_assert!(before.0.abs_diff(after.0) <= limit);
        }
        if limit == 0 {
            let unmoved: Vec<_> = spans.iter().map(|span| (span.0, span.1)).collect();
            prop_assert_eq!(moved, unmoved);
        }
    }
}
