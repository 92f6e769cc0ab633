use super::intervals::Intervals;
use super::names::{MAX_NAME_BYTES, NameError, check_label_name, check_metric_name, overlap};
use super::time::{Arrival, EventTime, nanoseconds};
use std::time::Duration;

fn time(nanoseconds: u64) -> EventTime {
    EventTime::from_unix_nanoseconds(nanoseconds)
}

fn intervals(of: &[(u64, u64)]) -> Intervals {
    let mut intervals = Intervals::default();
    for &(start, end) in of {
        intervals.add(time(start), time(end));
    }
    intervals
}

#[test]
fn intervals_that_overlap_or_touch_are_one_in_any_order() {
    for (one, other) in [
        (&[(0, 2), (5, 7)][..], &[(5, 7), (0, 2)][..]),
        (&[(0, 2), (2, 4)], &[(0, 4)]),
        (&[(0, 2), (5, 7), (1, 6)], &[(0, 7)]),
        (&[(0, 9), (3, 4)], &[(0, 9)]),
        (&[(3, 4), (0, 9), (3, 4)], &[(0, 9)]),
        (&[(4, 4), (4, 4)], &[(4, 4)]),
        (&[(0, 1), (4, 5), (8, 9), (1, 8)], &[(0, 9)]),
        (&[(0, u64::MAX), (7, 8)], &[(0, u64::MAX)]),
    ] {
        assert_eq!(intervals(one), intervals(other), "{one:?}");
    }
}

#[test]
fn intervals_know_their_total_length_and_their_beginning() {
    for (of, length, earliest) in [
        (&[][..], 0, None),
        (&[(3, 3)], 0, Some(3)),
        (&[(5, 7), (0, 2)], 4, Some(0)),
        (&[(0, 4), (2, 6)], 6, Some(0)),
        (&[(0, u64::MAX)], u64::MAX, Some(0)),
    ] {
        let intervals = intervals(of);
        assert_eq!(intervals.nanoseconds(), length, "{of:?}");
        assert_eq!(intervals.earliest(), earliest.map(time), "{of:?}");
    }
}

#[test]
fn the_narrowest_gaps_are_lost_first() {
    let all = [(0, 1), (10, 11), (13, 14), (15, 16), (30, 31)];
    for (limit, expected, lost) in [
        (5, &[(0, 1), (10, 11), (13, 14), (15, 16), (30, 31)][..], 0),
        (4, &[(0, 1), (10, 11), (13, 16), (30, 31)], 1),
        (3, &[(0, 1), (10, 16), (30, 31)], 2),
        (2, &[(0, 16), (30, 31)], 3),
        (1, &[(0, 31)], 4),
        (0, &[(0, 31)], 4),
    ] {
        let mut coarse = intervals(&all);
        assert_eq!(coarse.coarsen(limit), lost, "limit {limit}");
        assert_eq!(coarse, intervals(expected), "limit {limit}");
    }
}

#[test]
fn metric_names_are_well_formed_and_nobody_elses() {
    let longest = "a".repeat(MAX_NAME_BYTES);
    let too_long = "a".repeat(MAX_NAME_BYTES + 1);
    for (name, expected) in [
        ("order", Ok(())),
        ("_order:rate5m", Ok(())),
        ("flows_done", Ok(())),
        ("upper", Ok(())),
        (&longest, Ok(())),
        (&too_long, Err(NameError::Malformed)),
        ("", Err(NameError::Malformed)),
        ("2nd", Err(NameError::Malformed)),
        ("order-time", Err(NameError::Malformed)),
        ("bestellung_f\u{fc}r", Err(NameError::Malformed)),
        ("order\n", Err(NameError::Malformed)),
        ("flow_latency_seconds", Err(NameError::Reserved)),
        ("latency_aggregator_up", Err(NameError::Reserved)),
        ("__name__", Err(NameError::Reserved)),
        ("up", Err(NameError::Reserved)),
        ("process_order", Ok(())),
        ("scrape_shop", Ok(())),
        ("process_threads", Err(NameError::Reserved)),
        ("process_cpu_seconds", Err(NameError::Reserved)),
        ("process_cpu_seconds_total", Err(NameError::Reserved)),
        ("scrape_duration_seconds", Err(NameError::Reserved)),
    ] {
        assert_eq!(check_metric_name(name), expected, "{name}");
    }
}

#[test]
fn label_names_are_well_formed_and_nobody_elses() {
    for (name, expected) in [
        ("tenant", Ok(())),
        ("_tenant2", Ok(())),
        ("flows", Ok(())),
        ("", Err(NameError::Malformed)),
        ("2nd", Err(NameError::Malformed)),
        ("a:b", Err(NameError::Malformed)),
        ("a.b", Err(NameError::Malformed)),
        ("le", Err(NameError::Reserved)),
        ("flow", Err(NameError::Reserved)),
        ("stage", Err(NameError::Reserved)),
        ("outcome", Err(NameError::Reserved)),
        ("__name__", Err(NameError::Reserved)),
    ] {
        assert_eq!(check_label_name(name), expected, "{name}");
    }
}

#[test]
fn names_overlap_when_one_is_a_form_of_the_other_or_both_share_one() {
    for (one, other, expected) in [
        ("order", "order", true),
        ("order", "order_count", true),
        ("order", "order_total", true),
        ("order", "order_created", true),
        ("order", "orders", false),
        ("order", "order_paid", false),
        ("order_sum", "order_count", false),
        ("order", "order_bucket_sum", false),
    ] {
        assert_eq!(overlap(one, other), expected, "{one} {other}");
        assert_eq!(overlap(other, one), expected, "{other} {one}");
    }
}

#[test]
fn no_timestamp_and_no_wait_overflows() {
    let (epoch, last) = (time(0), time(u64::MAX));
    assert_eq!(epoch.nanoseconds_since(last), 0);
    assert_eq!(last.nanoseconds_since(epoch), u64::MAX);
    assert_eq!(last.plus(Duration::MAX), last);
    assert_eq!(epoch.minus(Duration::MAX), epoch);
    assert_eq!(nanoseconds(Duration::MAX), u64::MAX);
    let end_of_time = Arrival::since_origin(Duration::MAX);
    assert_eq!(end_of_time.plus(Duration::MAX), end_of_time);
    assert_eq!(Arrival::ORIGIN.since(end_of_time), Duration::ZERO);
}
