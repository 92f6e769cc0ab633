//! Stories that the contract tells, of instances that are one trace or the pushes to one id.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod world;

use std::time::Duration;

use serde_json::json;
use world::*;

/// From the gateway's start to the end of shipping, or of a cancellation.
const CHECKOUT: &str = r#"
- name: checkout
  match: 'resource.attributes["service.name"] == "gateway"'
  start: {stage: gateway}
  end:
    - {stage: shipping}
    - {when: 'span.name == "OrderCancelled"', outcome: error}
  expect: [gateway, payment, shipping]
"#;

// ---------------------------------------------------------------------------------------------------------------
// Spans come when they end, children before parents.

#[test]
fn a_root_of_30_seconds_is_one_observation_of_30_seconds_though_its_child_came_at_once() {
    for (said, child) in [
        ("nothing", span("gateway", 2, 0.0, 0.1).under(1)),
        ("local", span("gateway", 2, 0.0, 0.1).under(1).local()),
        ("a remote parent", Span { flags: 0x300, ..span("cart", 2, 0.0, 0.1).under(1).server() }),
    ] {
        let mut world = World::with("");
        world.at(0.1).receive(&[child]);
        world.at(30.0).receive(&[span("gateway", 1, 0.0, 30.0).server()]);
        world.at(700.0);
        assert_eq!(world.story(), ["trace ok root 30s at 40s"], "flags say {said}");
    }
}

#[test]
fn a_handler_of_60_seconds_ends_the_flow_with_its_own_end_though_its_inner_span_came_first() {
    let mut world = World::with(CHECKOUT);
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server()]);
    world.at(5.0).receive(&[span("shipping", 6, 2.0, 2.1).client().under(5)]);
    world.at(62.0).receive(&[span("shipping", 5, 2.0, 62.0).consumer().under(1)]);
    check(world.at(700.0), &["checkout ok end 62s at 72s"]);
}

#[test]
fn a_service_downstream_that_exports_5_seconds_after_the_root_is_not_late() {
    let mut world = World::with("");
    world
        .at(1.0)
        .receive(&[span("gateway", 2, 0.1, 0.9).client().under(1), span("gateway", 1, 0.0, 1.0).server()]);
    world.at(6.0).receive(&[span("payment", 3, 0.2, 0.8).server().under(2)]);
    check(world.at(700.0), &["trace ok root 1s at 16s"]);
    assert_eq!(world.late(), [""; 0]);
    assert_eq!(world.only().notes.events, 3);
}

#[test]
fn a_trace_whose_parent_never_comes_ends_after_the_wait_with_its_earliest_orphan_as_root() {
    let mut world = World::with("");
    world.at(1.0).receive(&[
        span("payment", 3, 0.5, 1.0).client().under(2),
        span("payment", 2, 0.4, 1.0).server().under(1).failed().named("charge"),
    ]);
    check(world.at(60.5), &[]);
    check(world.at(700.0), &["trace error quiet 0.6s at 61s"]);
    assert!(world.only().notes.orphan_root);
    assert_eq!(world.label("root_name"), "charge");
    assert_eq!(world.label("root_service"), "payment");
}

#[test]
fn a_local_parent_is_still_running_and_is_awaited_until_the_maximum_age() {
    let mut world = World::with("");
    world.at(1.0).receive(&[span("batch", 2, 0.0, 1.0).under(1).local()]);
    check(world.at(700.0), &["trace truncated max_age unobserved at 601s"]);
}

#[test]
fn the_linger_starts_again_with_each_new_event_and_not_with_a_repeated_one() {
    let mut world = World::with(CHECKOUT);
    let shipped = span("shipping", 2, 1.0, 2.0).server().under(1);
    world.at(2.0).receive(&[span("gateway", 1, 0.0, 2.0).server(), shipped.clone()]);
    world.at(8.0).receive(&[span("payment", 3, 0.5, 0.7).server().under(1)]);
    world.at(15.0).receive(&[shipped]);
    check(world.at(700.0), &["checkout ok end 2s at 18s"]);
    assert_eq!((world.total.duplicates, world.total.conflicts), (1, 0));
}

#[test]
fn evidence_that_no_longer_holds_at_the_deadline_does_not_end_a_flow() {
    let mut world = World::with("");
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server()]);
    // Its parent is still running.
    world.at(5.0).receive(&[span("payment", 3, 0.2, 0.4).client().under(2).local()]);
    check(world.at(30.0), &[]);
    world.receive(&[span("payment", 2, 0.1, 30.0).server().under(1)]);
    check(world.at(700.0), &["trace ok root 30s at 40s"]);
}

// ---------------------------------------------------------------------------------------------------------------
// Queues.

#[test]
fn a_consumer_without_instrumentation_delays_the_flow_and_does_no_harm_to_its_outcome() {
    let mut world = World::with("");
    world
        .at(1.0)
        .receive(&[span("gateway", 2, 0.5, 0.6).producer().under(1), span("gateway", 1, 0.0, 1.0).server()]);
    check(world.at(60.5), &[]);
    check(world.at(700.0), &["trace ok root 1s at 61s"]);
    assert!(world.only().notes.unanswered);
}

#[test]
fn a_consumer_that_outlives_the_root_counts() {
    let mut world = World::with("");
    world
        .at(1.0)
        .receive(&[span("gateway", 2, 0.5, 0.6).producer().under(1), span("gateway", 1, 0.0, 1.0).server()]);
    world.at(45.0).receive(&[span("worker", 3, 40.0, 45.0).consumer().under(2)]);
    check(world.at(700.0), &["trace ok root 45s at 55s"]);
    assert_eq!(world.stages(), "gateway 1 0, worker 5 40");
}

#[test]
fn an_idle_poll_before_its_message_was_sent_does_not_lengthen_the_flow() {
    let poll = || span("worker", 3, 0.0, 12.0).consumer().under(2);
    let order =
        || [span("gateway", 1, 10.0, 11.0).server(), span("gateway", 2, 10.5, 10.6).producer().under(1)];
    for (first, second) in [(vec![poll()], order().to_vec()), (order().to_vec(), vec![poll()])] {
        let mut world = World::with("");
        world.at(12.0).receive(&first);
        world.at(13.0).receive(&second);
        check(world.at(700.0), &["trace ok root 2s at 23s"]);
        assert_eq!(world.stages(), "gateway 1 0, worker 1.5 0.5");
    }
}

#[test]
fn a_consumer_is_clipped_in_a_stub_as_well_whichever_of_the_two_came_first() {
    let flow = "
- name: import
  match: 'span.name == \"import\"'
  end: {when: 'span.name == \"done\"'}
  linger: 3s
";
    let poll = span("worker", 3, 0.0, 12.0).consumer().under(2);
    let producer = span("loader", 2, 10.0, 10.5).producer().under(1);
    for (first, second) in [(&poll, &producer), (&producer, &poll)] {
        let mut world = World::with(flow);
        world.at(13.0).receive(&[span("loader", 1, 10.0, 11.0).named("import")]);
        world.at(30.0).receive(std::slice::from_ref(first));
        world.at(50.0).receive(std::slice::from_ref(second));
        world.at(70.0).receive(&[span("worker", 4, 11.0, 12.0).under(3).named("done")]);
        check(world.at(700.0), &["import ok end 2s at 73s"]);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// How flows end.

#[test]
fn a_cancelled_order_is_an_error_without_waiting_for_what_will_never_come() {
    let mut world = World::with(CHECKOUT);
    world.at(2.0).receive(&[
        span("gateway", 2, 1.9, 2.0).under(1).named("OrderCancelled"),
        span("gateway", 1, 0.0, 2.0).server(),
    ]);
    check(world.at(700.0), &["checkout error end 2s at 12s"]);
    let missing: Vec<&str> = world.only().missing_stages.iter().map(|stage| &**stage).collect();
    assert_eq!(missing, ["payment", "shipping"]);
}

#[test]
fn a_gap_of_one_hour_before_the_end_is_one_observation_and_a_stub_meanwhile() {
    let flow = format!("{CHECKOUT}  max_age: 2h\n");
    let mut world = World::with(&flow);
    world.at(0.5).receive(&[span("payment", 3, 0.2, 0.4).server().under(1)]);
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server()]);
    world.at(30.0);
    assert_eq!(world.aggregator.population().stubs, 1);
    world.at(3600.0).receive(&[span("shipping", 2, 3590.0, 3600.0).server().under(1)]);
    check(world.at(9000.0), &["checkout ok end 3600s at 3610s"]);
    assert_eq!(world.stages(), "gateway 1 0, payment 0.2 0.2, shipping 10 3590");
    assert_eq!(world.aggregator.population().stubs, 0);
}

#[test]
fn a_flow_that_is_never_finished_is_incomplete_and_says_what_is_missing() {
    for (on_incomplete, expected) in [
        ("inf", "checkout incomplete max_age +Inf(600s) at 601s"),
        ("elapsed", "checkout incomplete max_age 600s at 601s"),
        ("drop", "checkout incomplete max_age unobserved at 601s"),
    ] {
        let mut world = World::with(&format!("{CHECKOUT}  on_incomplete: {on_incomplete}\n"));
        world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server()]);
        check(world.at(2000.0), &[expected]);
        let missing: Vec<&str> = world.only().missing_stages.iter().map(|stage| &**stage).collect();
        assert_eq!(missing, ["payment", "shipping"]);
    }
}

#[test]
fn the_sum_of_an_incomplete_flow_rises_by_its_extent_where_that_is_longer_than_its_age() {
    let mut world = World::with(CHECKOUT);
    world.at(1000.0).receive(&[span("gateway", 1, 0.0, 1000.0).server()]);
    check(world.at(2000.0), &["checkout incomplete max_age +Inf(1000s) at 1600s"]);
}

#[test]
fn without_an_end_a_flow_ends_when_all_expected_stages_were_entered() {
    let flow = "
- name: checkout
  match: 'IsRootSpan()'
  expect: [gateway, payment]
";
    let mut world = World::with(flow);
    world.at(2.0).receive(&[
        span("gateway", 1, 0.0, 2.0).server(),
        // Inside of payment, and no entry to it: its parent is in the same stage, or has not come.
        span("payment", 3, 0.5, 0.6).client().under(2),
    ]);
    check(world.at(40.0), &[]);
    world.receive(&[span("payment", 2, 0.4, 40.0).server().under(1)]);
    check(world.at(700.0), &["checkout ok expect 40s at 50s"]);
}

#[test]
fn any_of_several_ends_ends_the_flow_and_the_latest_end_seen_counts() {
    let flow = "
- name: order
  match: 'IsRootSpan()'
  end:
    - {stage: shipping}
    - {stage: pickup}
    - {stage: shipping, when: 'span.name == \"lost\"', outcome: error}
";
    let root = || span("gateway", 1, 0.0, 1.0).server();
    for (ending, expected) in [
        (vec![span("shipping", 2, 1.0, 3.0).server().under(1)], "order ok end 3s at 13s"),
        (vec![span("pickup", 2, 1.0, 4.0).server().under(1)], "order ok end 4s at 13s"),
        (
            vec![
                span("shipping", 2, 1.0, 2.0).server().under(1),
                span("pickup", 3, 1.0, 2.5).server().under(1),
            ],
            "order ok end 2.5s at 13s",
        ),
        (vec![span("shipping", 2, 1.0, 3.0).server().under(1).named("lost")], "order error end 3s at 13s"),
        (vec![span("shipping", 2, 1.0, 3.0).server().under(1).failed()], "order error end 3s at 13s"),
        // Lost, but not in shipping.
        (
            vec![span("payment", 2, 1.0, 3.0).server().under(1).named("lost")],
            "order incomplete max_age +Inf(600s) at 603s",
        ),
    ] {
        let mut world = World::with(flow);
        world.at(3.0).receive(&[root()]).receive(&ending);
        check(world.at(700.0), &[expected]);
    }
}

#[test]
fn at_chooses_which_moment_of_a_boundary_counts() {
    for (start, end, expected) in [
        ("", "", "9s"),
        (", at: start", ", at: end", "9s"),
        (", at: end", "", "7s"),
        ("", ", at: start", "5s"),
        (", at: end", ", at: start", "3s"),
    ] {
        let flow = format!(
            "
- name: order
  match: 'IsRootSpan()'
  start: {{stage: gateway{start}}}
  end: {{stage: shipping{end}}}
"
        );
        let mut world = World::with(&flow);
        world.at(10.0).receive(&[
            span("gateway", 1, 1.0, 3.0).server(),
            span("shipping", 2, 6.0, 10.0).server().under(1),
        ]);
        check(world.at(700.0), &[&format!("order ok end {expected} at 20s")]);
    }
}

#[test]
fn the_root_can_be_all_that_is_measured() {
    let flow = "
- name: checkout
  match: 'IsRootSpan()'
  measure: root
";
    let mut world = World::with(flow);
    world
        .at(20.0)
        .receive(&[span("gateway", 1, 2.0, 5.0).server(), span("worker", 2, 3.0, 20.0).server().under(1)]);
    check(world.at(700.0), &["checkout ok root 3s at 30s"]);
}

#[test]
fn error_if_replaces_the_status_of_the_root() {
    let flow = |error_if: &str| format!("- {{name: checkout, match: 'IsRootSpan()'{error_if}}}");
    let by_kind = ", error_if: 'span.status.code == STATUS_CODE_ERROR and span.kind == SPAN_KIND_SERVER'";
    let root = || span("gateway", 1, 0.0, 1.0).server();
    let inner = || span("payment", 2, 0.1, 0.9).under(1);
    for (error_if, spans, outcome) in [
        ("", [root(), inner().failed()], "ok"),
        ("", [root().failed(), inner()], "error"),
        (by_kind, [root(), inner().failed()], "ok"),
        (by_kind, [root(), inner().server().failed()], "error"),
        (", error_if: 'span.name == \"retry\"'", [root().failed(), inner()], "ok"),
    ] {
        let mut world = World::with(&flow(error_if));
        world.at(1.0).receive(&spans);
        check(world.at(700.0), &[&format!("checkout {outcome} root 1s at 11s")]);
    }
}

#[test]
fn a_span_that_ends_before_it_starts_counts_as_skew_and_lasts_no_time() {
    let mut world = World::with("");
    world
        .at(5.0)
        .receive(&[span("gateway", 1, 0.0, 5.0).server(), span("payment", 2, 4.0, 3.0).server().under(1)]);
    check(world.at(700.0), &["trace ok root 5s at 15s"]);
    assert_eq!(world.only().notes.skewed, 1);
    assert_eq!(world.stages(), "gateway 5 0, payment 0 3");
}

#[test]
fn an_end_before_the_start_is_counted_and_not_observed() {
    let mut world = World::with(CHECKOUT);
    world
        .at(9.0)
        .receive(&[span("gateway", 1, 5.0, 6.0).server(), span("shipping", 2, 1.0, 2.0).server().under(1)]);
    check(world.at(700.0), &["checkout ok end unobserved at 19s"]);
    assert!(world.only().notes.reversed);
    assert_eq!(world.stages(), "");
}

// ---------------------------------------------------------------------------------------------------------------
// Restarts, losses, late events.

#[test]
fn a_flow_whose_beginning_a_restart_may_have_lost_is_an_orphan_and_not_a_short_observation() {
    for (flows, expected) in [
        ("", "trace orphan quiet unobserved at 65s"),
        (
            "- {name: order, match: 'span.name == \"ship\"', end: {stage: shipping}}",
            "order orphan end unobserved at 15s",
        ),
        (
            "- {name: order, match: 'span.name == \"ship\"', start: {stage: gateway}, end: {stage: shipping}}",
            "order orphan max_age unobserved at 605s",
        ),
        (CHECKOUT, "trace orphan quiet unobserved at 65s"),
    ] {
        let mut world = World::just_started(flows);
        world.at(5.0).receive(&[span("shipping", 2, 4.0, 5.0).server().under(1).named("ship")]);
        check(world.at(700.0), &[expected]);
    }
}

#[test]
fn a_flow_that_began_after_a_restart_is_observed_as_ever() {
    let mut world = World::just_started("");
    world.at(5.0).receive(&[span("gateway", 1, 4.0, 5.0).server()]);
    check(world.at(700.0), &["trace ok root 1s at 15s"]);
}

#[test]
fn a_beginning_cannot_be_lost_when_the_maximum_age_has_passed_since_the_start() {
    let mut world = World::just_started("");
    world.at(601.0).receive(&[span("shipping", 2, 600.0, 601.0).server().under(1)]);
    check(world.at(1000.0), &["trace ok quiet 1s at 661s"]);
}

#[test]
fn a_late_span_is_counted_and_changes_nothing_and_its_trace_is_remembered() {
    let mut world = World::with("");
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server()]);
    world.at(100.0).receive(&[span("worker", 2, 0.5, 8.0).server().under(1)]);
    assert_eq!(world.late(), ["worker 89s late, 7s longer"]);
    // A late event renews the tombstone: 5 minutes from here.
    world.at(399.0).receive(&[span("worker", 3, 0.2, 0.3).server().under(1)]);
    assert_eq!(world.late()[1], "worker 388s late, 0s longer");
    // Another hour only the key is remembered.
    world.at(399.0 + 300.0 + 3590.0);
    assert_eq!(world.aggregator.population().tombstones, 0);
    world.receive(&[span("gateway", 1, 0.0, 1.0).server()]);
    assert_eq!(world.late()[2], "gateway");
    check(world.at(6000.0), &["trace ok root 1s at 11s"]);
    assert_eq!(world.total.opened, 1);
}

#[test]
fn a_late_event_would_have_lengthened_only_what_is_measured() {
    for (case, spans, expected) in [
        ("an end", span("shipping", 4, 1.0, 9.0).server().under(1), "shipping 20s late, 6s longer"),
        ("a start", span("gateway", 4, 0.5, 2.0).under(1), "gateway 20s late, 0.5s longer"),
        ("neither", span("audit", 4, 0.0, 30.0).server().under(1), "audit 20s late, 0s longer"),
    ] {
        let mut world = World::with(CHECKOUT);
        world.at(3.0).receive(&[
            span("gateway", 1, 1.0, 2.0).server(),
            span("shipping", 2, 1.5, 3.0).server().under(1),
        ]);
        world.at(33.0).receive(&[spans]);
        assert_eq!(world.late(), [expected], "{case}");
    }
}

#[test]
fn a_repeated_event_of_a_closed_instance_is_late() {
    let mut world = World::with("");
    let root = span("gateway", 1, 0.0, 1.0).server();
    world.at(1.0).receive(std::slice::from_ref(&root));
    world.at(21.0).receive(&[root]);
    assert_eq!(world.late(), ["gateway 10s late, 0s longer"]);
    assert_eq!(world.total.duplicates, 0);
}

#[test]
fn a_pushed_id_is_late_within_its_time_to_live_and_a_new_instance_after_it() {
    let push =
        |stage: &str| json!({"id": "7", "name": "order", "stage": stage, "life_span": 5, "time_to_live": 20});
    let mut world = World::with("");
    world.push(&[push("placed")]);
    check(world.at(6.0), &["order ok quiet 0s at 5s"]);
    world.at(15.0).push(&[push("paid")]);
    assert_eq!(world.late(), ["paid 10s late, 15s longer"]);
    // Renewed at 15 s, and again at 34 s: gone at 54 s.
    world.at(34.0).push(&[push("placed")]);
    assert_eq!((world.late().len(), world.total.opened), (2, 1));
    world.at(54.0).push(&[push("placed")]);
    check(world.at(100.0), &["order ok quiet 0s at 5s", "order ok quiet 0s at 59s"]);
    assert_eq!(world.late().len(), 2);
}

// ---------------------------------------------------------------------------------------------------------------
// Pushes.

#[test]
fn a_life_span_of_0_closes_at_once_and_with_the_whole_request() {
    let stage = |stage: &str, second: f64| json!({"id": "7", "name": "order", "stage": stage, "life_span": 0, "created_at": at(second)});
    let mut world = World::with("");
    world.at(5.0).push(&[stage("placed", 1.0), stage("shipped", 3.0), stage("paid", 2.0)]);
    check(&world, &["order ok quiet 2s at 5s"]);
    assert_eq!(world.stages(), "paid - 1, placed - 0, shipped - 2");
}

#[test]
fn a_life_span_replaces_the_quiet_period_from_its_push_on() {
    let push = |stage: &str, life_span: serde_json::Value| json!({"id": "7", "name": "order", "stage": stage, "life_span": life_span});
    let mut world = World::with("");
    world.push(&[push("placed", json!(60))]);
    world.at(50.0).push(&[push("paid", json!(2.5))]);
    world.at(52.0).push(&[push("shipped", json!(null))]);
    check(world.at(100.0), &["order ok quiet 52s at 62s"]);
}

#[test]
fn a_final_push_ends_the_flow_and_an_error_of_any_stage_is_the_flows() {
    let push = |stage: &str, second: f64| {
        json!({"id": "7", "name": "order", "stage": stage, "life_span": 300,
        "created_at": at(second)})
    };
    let mut failed = push("paid", 2.0);
    failed["status"] = json!("error");
    let mut last = push("shipped", 4.0);
    last["final"] = json!(true);
    let mut world = World::with("");
    world.at(5.0).push(&[push("placed", 1.0), failed, last]);
    check(world.at(700.0), &["order error final 3s at 15s"]);
}

#[test]
fn a_repeated_push_changes_nothing_but_keeps_the_earliest_time_and_may_still_end_the_flow() {
    let push = |stage: &str, second: f64| {
        json!({"id": "7", "name": "order", "stage": stage, "life_span": 100,
        "created_at": at(second)})
    };
    let mut world = World::with("");
    world.at(9.0).push(&[
        push("placed", 2.0),
        push("shipped", 8.0),
        push("placed", 5.0),
        push("placed", 1.0),
    ]);
    assert_eq!((world.total.new, world.total.duplicates, world.total.conflicts), (2, 2, 0));
    let mut last = push("shipped", 8.0);
    last["final"] = json!(true);
    world.at(20.0).push(&[last]);
    check(world.at(700.0), &["order ok final 7s at 30s"]);
}

#[test]
fn the_later_stage_says_what_the_labels_of_a_pushed_flow_are() {
    let push = |stage: &str, second: f64, labels: serde_json::Value| json!({"id": "7", "name": "order", "stage": stage, "created_at": at(second), "label_values": labels});
    let mut world = World::with("");
    world.at(9.0).push(&[
        push("shipped", 3.0, json!({"carrier": "dhl", "tenant": "b"})),
        push("placed", 1.0, json!({"tenant": "a", "source": "web"})),
    ]);
    world.at(60.0);
    let labels: Vec<(&str, &str)> =
        world.only().labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(labels, [("carrier", "dhl"), ("source", "web"), ("tenant", "b")]);
    assert!(world.only().notes.label_conflict);
}

#[test]
fn a_push_and_spans_with_the_same_key_meet_in_one_instance() {
    let flow = "
- name: checkout
  match: 'span.name == \"other\"'
  end: {stage: delivered}
  labels: {carrier: 'span.attributes[\"carrier\"]'}
";
    let uuid = {
        let hexadecimal = hexadecimal(1).to_uppercase();
        let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hexadecimal[range].to_owned());
        parts.join("-")
    };
    for id in [hexadecimal(1), uuid] {
        let spans = [span("gateway", 1, 0.0, 1.0).server()];
        let push = [json!({"id": id, "name": "checkout", "stage": "delivered", "created_at": at(8.0),
            "label_values": {"carrier": "dhl"}})];
        for spans_first in [true, false] {
            let mut world = World::with(flow);
            world.at(8.0);
            if spans_first {
                world.receive(&spans).push(&push);
            } else {
                world.push(&push).receive(&spans);
            }
            check(world.at(700.0), &["checkout ok end 8s at 18s"]);
            assert_eq!(world.stages(), "delivered - 8, gateway 1 0");
            assert_eq!(world.label("carrier"), "dhl");
        }
    }
}

#[test]
fn a_push_switches_the_root_rule_off() {
    let flow = "- {name: checkout, match: 'IsRootSpan()', quiet_period: 30s}";
    let push = json!({"id": hexadecimal(1), "name": "checkout", "stage": "billing", "created_at": at(1.0)});
    let mut world = World::with(flow);
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server()]).push(&[push]);
    check(world.at(700.0), &["checkout ok quiet 1s at 31s"]);
}

#[test]
fn pushes_of_one_stage_to_two_flows_of_one_trace_are_two_events() {
    let flows = "
- {name: checkout, end: {stage: none}}
- {name: payment}
";
    let push =
        |name: &str, second: f64| json!({"id": hexadecimal(1), "name": name, "created_at": at(second)});
    for order in [["checkout", "payment"], ["payment", "checkout"]] {
        let mut world = World::with(flows);
        world.at(3.0).push(&[push(order[0], 2.0), push(order[1], 1.0)]);
        assert_eq!((world.total.new, world.total.duplicates), (2, 0));
        check(world.at(700.0), &["checkout incomplete max_age +Inf(600s) at 603s"]);
        assert_eq!(world.only().notes.foreign, 1);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Which flow an instance belongs to, and its labels.

const TWO_FLOWS: &str = "
- {name: first, match: 'span.name == \"one\"'}
- {name: second, match: 'span.name == \"two\"', end: {when: 'span.name == \"done\"'}}
";

#[test]
fn the_first_flow_in_file_order_wins_whatever_the_order_of_arrival() {
    let one = span("payment", 2, 0.2, 0.4).server().under(1).named("one");
    let two = span("gateway", 1, 0.0, 1.0).server().named("two");
    for (earlier, later) in [(&one, &two), (&two, &one)] {
        let mut world = World::with(TWO_FLOWS);
        world.at(1.0).receive(std::slice::from_ref(earlier));
        world.at(3.0).receive(std::slice::from_ref(later));
        check(world.at(700.0), &["first ok root 1s at 13s"]);
    }
}

#[test]
fn a_match_that_comes_after_folding_is_counted_and_changes_nothing() {
    let mut world = World::with(TWO_FLOWS);
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server().named("two")]);
    world.at(20.0).receive(&[span("payment", 2, 0.2, 0.4).server().under(1).named("one")]);
    assert_eq!(world.total.after_folding, 1);
    world.at(30.0).receive(&[span("payment", 3, 0.2, 25.0).server().under(1).named("done")]);
    check(world.at(700.0), &["second ok end 25s at 40s"]);
}

#[test]
fn few_events_are_kept_whole_while_they_wait() {
    let mut world = World::new(TWO_FLOWS, &[], Caps { fold_from: 3, ..NO_CAPS });
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server().named("two")]);
    world.at(20.0).receive(&[span("payment", 2, 0.2, 0.4).server().under(1).named("one")]);
    assert_eq!((world.total.after_folding, world.aggregator.population().stubs), (0, 0));
    check(world.at(40.0), &["first ok root 1s at 30s"]);
    assert!(!world.only().notes.coarse_path);

    let mut world = World::new(TWO_FLOWS, &[], Caps { fold_from: 3, ..NO_CAPS });
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server().named("two")]);
    for (second, id) in [(20.0, 2), (40.0, 3)] {
        assert_eq!(world.aggregator.population().stubs, 0);
        world.at(second).receive(&[span("payment", id, 0.2, 0.4).server().under(1)]);
    }
    assert_eq!(world.at(60.0).aggregator.population().stubs, 1);
    world.receive(&[span("payment", 4, 0.2, 25.0).server().under(1).named("done")]);
    check(world.at(700.0), &["second ok end 25s at 70s"]);
    assert!(world.only().notes.coarse_path);
}

#[test]
fn few_events_are_folded_if_what_their_spans_said_takes_more() {
    let flows = "[{name: checkout, match: 'true', labels: {note: 'span.attributes[\"note\"]'}}]";
    for (characters, stubs) in [(4000, 1), (4, 0)] {
        let note: &'static str = "x".repeat(characters).leak();
        let mut world = World::new(flows, &[], Caps { fold_from: 100, ..NO_CAPS });
        let spans = (2..10).map(|id| span("worker", id, 0.0, 0.1).server().under(1).saying("note", note));
        world.receive(&spans.collect::<Vec<_>>());
        assert_eq!(world.at(25.0).aggregator.population().stubs, stubs, "{characters}");
    }
}

#[test]
fn what_no_flow_wants_is_the_built_in_flows_labelled_by_its_root() {
    let mut world = World::with(TWO_FLOWS);
    world.at(1.0).receive(&[
        span("cart", 2, 0.1, 0.2).server().under(1).named("GET /cart"),
        span("gateway", 1, 0.0, 1.0)
            .server()
            .named("POST")
            .saying("http.request.method", "POST")
            .saying("http.route", "/orders"),
    ]);
    check(world.at(700.0), &["trace ok root 1s at 11s"]);
    assert_eq!(world.label("root_name"), "POST /orders");
    assert_eq!(world.label("root_service"), "gateway");
}

#[test]
fn ignored_spans_are_no_events_and_a_trace_whose_root_is_ignored_is_none() {
    let ignore = [r#"span.attributes["url.path"] == "/healthz""#];
    let mut world = World::new("", &ignore, NO_CAPS);
    world.at(1.0).receive(&[
        span("gateway", 2, 0.1, 0.2).under(1),
        span("gateway", 1, 0.0, 1.0).server().saying("url.path", "/healthz"),
    ]);
    check(world.at(30.0), &[]);
    assert_eq!(world.unmatched, [(1, 1)]);
    // Inside of a trace that counts it is left out of bounds and stages.
    world.receive(&[
        span("gateway", 1, 20.0, 21.0).server().of_trace(2),
        span("probe", 2, 19.0, 29.0).under(1).saying("url.path", "/healthz").of_trace(2),
    ]);
    check(world.at(700.0), &["trace ok root 1s at 40s"]);
    assert_eq!((world.only().notes.events, world.only().notes.ignored), (1, 1));
}

#[test]
fn each_pick_rule_chooses_among_services_by_event_time_and_never_by_arrival() {
    let spans = [
        span("gateway", 1, 1.0, 9.0).server().saying("n", "10").saying("t", "b"),
        // Its clock is ahead: it starts before its parent.
        span("payment", 2, 0.5, 2.0).server().under(1).saying("n", "9").saying("t", "a"),
        span("shipping", 3, 5.0, 9.0).server().under(1).saying("n", "200").saying("t", "c"),
        span("shipping", 4, 6.0, 7.0).under(3),
    ];
    for (pick, attribute, expected) in [
        ("first", "n", "9"),
        ("last", "n", "200"),
        ("root", "n", "10"),
        ("max", "n", "200"),
        ("min", "n", "9"),
        ("join", "n", "10,200,9"),
        ("max", "t", "c"),
        ("min", "t", "a"),
        ("join", "t", "a,b,c"),
        ("first", "missing", "none"),
    ] {
        let flow = format!(
            "
- name: checkout
  match: 'IsRootSpan()'
  labels: {{label: {{from: 'span.attributes[\"{attribute}\"]', pick: {pick}, default: none}}}}
"
        );
        for reversed in [false, true] {
            let mut spans = spans.to_vec();
            if reversed {
                spans.reverse();
            }
            let mut world = World::with(&flow);
            world.at(9.0);
            spans.chunks(1).for_each(|one| {
                world.receive(one);
            });
            world.at(700.0);
            assert_eq!(world.label("label"), expected, "{pick} of {attribute}, reversed: {reversed}");
            let disagree = !["join", "root"].contains(&pick) && attribute != "missing";
            assert_eq!(world.only().notes.label_conflict, disagree, "{pick} of {attribute}");
        }
    }
}

#[test]
fn an_open_instance_is_overdue_once_it_has_taken_longer_than_was_promised() {
    let flow = format!("{CHECKOUT}  slo: {{latency: 5s, objective: 99.9}}\n");
    let mut world = World::with(&flow);
    let overdue = |world: &World| world.total.overdue_change.each().map(|(_, change)| change).sum::<i64>();
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server()]);
    world.receive(&[span("gateway", 1, 0.0, 1.0).server().of_trace(2)]);
    for (second, expected) in [(5.5, 0), (6.5, 2), (30.0, 2)] {
        assert_eq!(overdue(world.at(second)), expected, "at {second} s");
    }
    world.receive(&[span("shipping", 2, 1.0, 30.0).server().under(1)]);
    assert_eq!(overdue(world.at(45.0)), 1);
    check(world.at(700.0), &["checkout ok end 30s at 40s", "checkout incomplete max_age +Inf(600s) at 601s"]);
    assert_eq!(overdue(&world), 0);
}

#[test]
fn an_instance_that_changes_its_flow_twice_in_one_request_is_overdue_once() {
    let flows = "
- {name: first, match: 'IsRootSpan()', slo: {latency: 5s, objective: 99.9}, quiet_period: 1m}
- {name: second}
";
    let push = |name: &str| json!({"id": hexadecimal(1), "name": name, "stage": name});
    let mut world = World::with(flows);
    let overdue = |world: &World| world.total.overdue_change.each().map(|(_, change)| change).sum::<i64>();
    world.at(1.0).receive(&[span("worker", 2, 0.0, 1.0).under(1), span("cart", 3, 0.0, 1.0)]);
    assert_eq!(overdue(world.at(8.0)), 1);
    world.push(&[push("second"), push("first")]);
    assert_eq!(overdue(world.at(9.0)), 1);
    world.at(700.0);
    assert_eq!((world.story().len(), overdue(&world)), (1, 0));
}

// ---------------------------------------------------------------------------------------------------------------
// Shutdown and bounds.

#[test]
fn at_shutdown_what_has_ended_closes_normally_and_the_rest_is_evicted() {
    let mut world = World::with(CHECKOUT);
    world
        .at(3.0)
        .receive(&[span("gateway", 1, 0.0, 1.0).server(), span("shipping", 2, 1.0, 3.0).server().under(1)]);
    world.at(4.0).receive(&[span("gateway", 1, 3.0, 4.0).server().of_trace(2)]);
    world.push(&[json!({"id": "7", "name": "job", "final": true}), json!({"id": "8", "name": "job"})]);
    world.at(5.0).shut_down();
    let mut story = world.story();
    story.sort_unstable();
    assert_eq!(
        story,
        [
            "checkout evicted shutdown unobserved at 5s",
            "checkout ok end 3s at 5s",
            "job evicted shutdown unobserved at 5s",
            "job ok final 0s at 5s",
        ]
    );
    assert_eq!(world.aggregator.population().open, 0);
}

#[test]
fn what_senders_cannot_have_kept_while_we_were_down_is_lost() {
    for (seconds, outcome) in
        [(5, "incomplete max_age +Inf(600s) at 603s"), (1800, "orphan max_age unobserved at 603s")]
    {
        let mut world = World::with(CHECKOUT);
        world.at(1.0);
        world.aggregator.grow_older(Duration::from_secs(seconds), world.now().arrival);
        world.at(3.0).receive(&[span("gateway", 1, 0.0, 1.0).under(9)]);
        check(world.at(700.0), &[&format!("checkout {outcome}")]);
    }
}

#[test]
fn events_of_instances_for_which_there_is_no_room_are_counted_and_make_orphans() {
    let caps = Caps { instances: 1, ..NO_CAPS };
    let mut world = World::new("", &[], caps);
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server()]);
    world.at(2.0).receive(&[span("gateway", 1, 1.0, 2.0).server().of_trace(2)]);
    assert_eq!((world.total.opened, world.total.over_limit), (1, 1));
    // The rest of the refused trace comes when there is room again: its beginning was lost.
    world.at(20.0).receive(&[span("worker", 2, 1.5, 20.0).server().under(1).of_trace(2)]);
    check(world.at(700.0), &["trace ok root 1s at 11s", "trace orphan quiet unobserved at 80s"]);
}

#[test]
fn a_root_beyond_the_cap_still_says_which_flow_it_is() {
    let caps = Caps { events_per_instance: 50, ..NO_CAPS };
    let mut world = World::new("[{name: checkout, match: 'span.name == \"POST /orders\"'}]", &[], caps);
    world.at(200.0);
    let spans = (2..70).map(|id| span("worker", id, id as f64, id as f64 + 1.0).server().under(1));
    world.receive(&spans.collect::<Vec<_>>());
    for id in [1, 100] {
        world.receive(&[span("gateway", id, 0.0, 100.0).server().named("POST /orders")]);
    }
    world.receive(&[span("worker", 101, 90.0, 110.0).server().under(1)]);
    check(world.at(700.0), &["checkout ok root 110s at 210s"]);
    assert_eq!((world.total.new, world.total.over_limit), (51, 20));
}

#[test]
fn a_root_that_comes_long_after_the_cap_is_waited_for() {
    let caps = Caps { events_per_instance: 50, ..NO_CAPS };
    let mut world = World::new("[{name: checkout, match: 'span.name == \"POST /orders\"'}]", &[], caps);
    world.at(200.0);
    let spans = (2..70).map(|id| span("worker", id, id as f64, id as f64 + 1.0).under(1));
    world.receive(&spans.collect::<Vec<_>>());
    world.at(240.0).receive(&[span("gateway", 1, 0.0, 240.0).server().named("POST /orders")]);
    check(world.at(700.0), &["checkout ok root 240s at 250s"]);
}

#[test]
fn what_is_missing_beyond_the_cap_holds_nothing_up() {
    for (name, expected) in
        [("POST /orders", "checkout ok root 100s at 210s"), ("GET /", "trace ok root 100s at 210s")]
    {
        let caps = Caps { events_per_instance: 50, ..NO_CAPS };
        let mut world = World::new("[{name: checkout, match: 'span.name == \"POST /orders\"'}]", &[], caps);
        world.at(200.0);
        // Each inside of the one that comes after it.
        for id in (2..80).rev() {
            world.receive(&[span("gateway", id, 10.0, 20.0).under(id - 1).local()]);
        }
        world.receive(&[span("gateway", 1, 0.0, 100.0).server().named(name)]);
        check(world.at(700.0), &[expected]);
    }
}

#[test]
fn a_stage_that_is_entered_beyond_the_cap_ends_a_flow_all_the_same() {
    let caps = Caps { events_per_instance: 50, ..NO_CAPS };
    let mut world = World::new(CHECKOUT, &[], caps);
    world.at(200.0).receive(&[span("gateway", 1, 0.0, 1.0).server()]);
    let spans = (2..70).map(|id| span("payment", id, 1.0, 2.0).server().under(1));
    world.receive(&spans.collect::<Vec<_>>());
    for id in 70..90 {
        world.receive(&[span("shipping", 100 + id, 2.0, 2.5).under(id)]);
        world.receive(&[span("shipping", id, 2.0, 3.0).server().under(1)]);
    }
    // It polled long before there was work for it.
    world.receive(&[span("shipping", 90, -30.0, 3.0).consumer().under(7)]);
    check(world.at(900.0), &["checkout ok end 3s at 210s"]);
}

#[test]
fn an_instance_over_its_cap_is_still_one_observation_with_its_bounds_and_its_root() {
    let caps = Caps { events_per_instance: 50, ..NO_CAPS };
    let mut world = World::new("", &[], caps);
    world.at(200.0);
    for id in 2..200 {
        world.receive(&[span("worker", id, id as f64 - 1.0, id as f64).server().under(1)]);
    }
    world.receive(&[span("gateway", 1, 0.0, 199.5).server().named("root")]);
    assert_eq!((world.total.new, world.total.over_limit), (50, 149));
    check(world.at(2000.0), &["trace ok root 199.5s at 210s"]);
    assert_eq!(world.label("root_name"), "root");
}

#[test]
fn tombstones_make_room_and_their_traces_stay_remembered() {
    let caps = Caps { tombstones: 2, ..NO_CAPS };
    let mut world = World::new("", &[], caps);
    for trace in 1..=5 {
        world.receive(&[span("gateway", 1, 0.0, 0.0).server().of_trace(trace)]);
    }
    world.at(20.0);
    assert_eq!(world.aggregator.population().tombstones, 2);
    assert_eq!(world.total.tombstones_evicted, 3);
    for trace in 1..=5 {
        world.receive(&[span("worker", 2, 0.0, 0.0).server().under(1).of_trace(trace)]);
    }
    assert_eq!((world.total.late.len(), world.total.opened), (5, 5));
    assert_eq!(world.total.late.iter().filter(|late| late.lateness.is_none()).count(), 3);
}

#[test]
fn a_sweep_looks_at_what_is_due_and_not_at_what_is_open() {
    let open: u32 = 100_000;
    let mut world = World::with(CHECKOUT);
    let begin = |trace| span("gateway", 1, 0.0, 1.0).server().of_trace(trace);
    world.at(1.0).receive(&(0..open).map(begin).collect::<Vec<_>>());
    world.at(20.0);
    assert_eq!(world.aggregator.population().stubs, u64::from(open));
    let finish = |trace| span("shipping", 2, 1.0, 2.0).server().under(1).of_trace(trace);
    world.receive(&(0..10).map(finish).collect::<Vec<_>>());
    world.at(29.5);
    world.now = Duration::from_secs(30);
    // The limit counts the keys that are looked at, whether they are due or not.
    let (effects, more) = world.aggregator.sweep(world.now().arrival, 11, &world.catalog);
    assert_eq!((effects.finished.len(), more), (10, false));
    assert_eq!(world.aggregator.population().open, u64::from(open) - 10);
}

#[test]
fn a_sweep_that_meets_its_limit_says_so_and_goes_on_where_it_stopped() {
    let mut world = World::with("");
    let root = |trace| span("gateway", 1, 0.0, 1.0).server().of_trace(trace);
    world.receive(&(0..25).map(root).collect::<Vec<_>>());
    world.now = Duration::from_secs(11);
    let mut closed = Vec::new();
    for _ in 0..3 {
        let (effects, more) = world.aggregator.sweep(world.now().arrival, 10, &world.catalog);
        closed.push((effects.finished.len(), more));
    }
    assert_eq!(closed, [(10, true), (10, true), (5, false)]);
}

#[test]
fn a_root_that_comes_long_after_its_children_still_decides_the_flow() {
    let mut world = World::with("- {name: checkout, match: 'span.name == \"POST /orders\"'}");
    world.at(0.2).receive(&[span("gateway", 2, 0.0, 0.1).under(1).local()]);
    world.at(30.0).receive(&[span("gateway", 1, 0.0, 30.0).server().named("POST /orders")]);
    world.at(60.0);
    check(&world, &["checkout ok root 30s at 40s"]);
    assert_eq!(world.total.after_folding, 0);
}

#[test]
fn of_too_many_labels_the_first_by_name_are_taken_in_whatever_order_they_come() {
    let push = |number: usize| {
        json!({"id": "7", "name": "order", "stage": format!("s{number}"), "created_at": at(number as f64),
            "label_values": {format!("label_{number:03}"): "x"}})
    };
    for step in [1, 7, 99] {
        let mut world = World::with("");
        world.at(100.0);
        for place in 0..100 {
            world.push(&[push(place * step % 100)]);
        }
        world.at(700.0);
        let names: Vec<&str> = world.only().labels.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, (0..32).map(|number| format!("label_{number:03}")).collect::<Vec<_>>());
        assert!(world.only().notes.label_conflict);
    }
}

#[test]
fn of_many_label_values_the_one_that_the_rule_wants_is_never_lost() {
    let mut world = World::with("");
    let push = |attempt: u32| {
        let label = format!("{attempt:02}");
        let created = at(f64::from(attempt));
        serde_json::json!({
            "id": "a", "name": "order", "stage": label, "created_at": created, "life_span": 5,
            "label_values": { "attempt": label },
        })
    };
    let pushes: Vec<_> = (0..40).rev().map(push).collect();
    world.now = Duration::from_secs(60);
    world.push(&pushes).at(70.0);
    assert_eq!(world.label("attempt"), "39");

    let mut world = World::with("");
    world.receive(
        &(2..40)
            .map(|id| {
                span(SERVICES[id as usize % 3], id, 0.0, 1.0).under(1).server().named(NAMES[id as usize])
            })
            .collect::<Vec<_>>(),
    );
    world.at(20.0).receive(&[span("gateway", 1, 0.0, 2.0).server().named("POST /orders")]).at(60.0);
    assert_eq!((world.label("root_name"), world.label("root_service")), ("POST /orders", "gateway"));
    assert!(!world.only().notes.label_conflict);
}

const SERVICES: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 40] = [
    "00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12", "13", "14", "15", "16",
    "17", "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32", "33",
    "34", "35", "36", "37", "38", "39",
];

#[test]
fn a_pushed_flow_may_pause_longer_than_max_age_if_its_life_span_says_so() {
    let mut world = World::with("");
    let push = |stage: &str, life_span: Option<u32>| serde_json::json!({ "id": "a", "name": "order", "stage": stage, "life_span": life_span });
    world.push(&[push("placed", Some(3600))]);
    world.at(1800.0).push(&[push("shipped", None)]).at(1900.0);
    check(&world, &["order ok quiet 1800s at 1810s"]);
}

#[test]
fn stages_beyond_the_cap_are_counted_together_and_in_nobody_elses_time() {
    let mut world = World::with("- {name: all, match: 'true', stage: 'span.attributes[\"step\"]'}");
    let steps: Vec<&'static str> = (0..300).map(|step| &*format!("step {step:03}").leak()).collect();
    let spans: Vec<_> =
        steps.iter().zip(1..).map(|(step, id)| span("worker", id, 0.0, 1.0).saying("step", step)).collect();
    world.receive(&spans).at(60.0);
    let stages: Vec<&str> = world.only().stages.iter().map(|stage| &*stage.name).collect();
    assert_eq!(stages.len(), 257);
    assert_eq!(stages[0], "(further stages)");
}

#[test]
fn a_queue_of_twenty_seconds_is_waiting_and_nobodys_work() {
    let mut world = World::with("");
    let spans = [
        span("gateway", 1, 0.0, 0.5).server().named("POST /orders"),
        span("gateway", 2, 0.3, 0.4).producer().under(1),
        // It began to poll long before there was anything to do.
        span("shipping", 3, 20.4, 22.0).consumer().under(2),
        span("shipping", 4, 20.5, 21.5).client().under(3),
    ];
    world.at(22.0).receive(&spans).at(60.0);
    check(&world, &["trace ok root 22s at 32s"]);
    assert_eq!(path(world.only()), ["gateway work 0.4", "shipping work 1.6", "shipping wait 20"]);
    assert_eq!(transitions(world.only()), ["gateway shipping 20"]);
}

#[test]
fn the_path_of_pushes_is_the_wait_for_each_stage() {
    let mut world = World::with("");
    let push = |stage: &str, second: f64| json!({ "id": "1", "name": "order", "stage": stage, "life_span": 2, "created_at": at(second) });
    world.at(5.0).push(&[push("shipped", 4.0), push("placed", 0.0), push("paid", 1.0)]).at(20.0);
    assert_eq!(path(world.only()), ["paid wait 1", "shipped wait 3"]);
    assert_eq!(transitions(world.only()), ["paid shipped 3", "placed paid 1"]);
}

#[test]
fn a_stub_has_a_path_by_stages_and_what_never_ended_has_none() {
    let mut world = World::with(CHECKOUT);
    world.receive(&[span("gateway", 1, 0.0, 1.0).server().named("POST /orders")]);
    world.at(100.0).receive(&[span("shipping", 2, 98.0, 100.0).server().under(1)]).at(700.0);
    assert_eq!(path(&world.closed[0].1), ["gateway work 1", "shipping work 2", "shipping wait 97"]);
    assert!(world.closed[0].1.notes.coarse_path);

    let mut world = World::with(CHECKOUT);
    world.receive(&[span("gateway", 1, 0.0, 1.0).server().named("POST /orders")]).at(1000.0);
    assert_eq!(world.only().outcome.as_str(), "incomplete");
    assert_eq!(path(world.only()), [" unknown 600"]);
}

// ---------------------------------------------------------------------------------------------------------------
// Sampling.

#[test]
fn an_instance_stands_for_those_that_were_sampled_away_if_that_is_wanted() {
    for (how, state, expected) in [
        ("", "ot=th:c", 1),
        ("sampling: weight", "", 1),
        ("sampling: weight", "ot=th:0", 1),
        ("sampling: weight", "ot=th:c", 4),
        ("sampling: weight", "vendor=1,ot=rv:2;th:8", 2),
        ("{sampling: weight, sampling_ratio: 0.1}", "", 10),
        ("{sampling: weight, sampling_ratio: 0.1}", "ot=th:8", 2),
        ("sampling: weight", "ot=th:ffffffffffffff", 1_000_000),
    ] {
        let how = how.trim_matches(['{', '}']);
        let separator = if how.is_empty() { "" } else { ", " };
        let mut world = World::with(&format!("[{{name: all, match: 'true'{separator}{how}}}]"));
        world.at(1.0).receive(&[
            span("gateway", 1, 0.0, 1.0).server(),
            span("gateway", 2, 0.0, 0.5).under(1).sampled(state),
        ]);
        assert_eq!(world.at(60.0).only().weight, expected, "{how} {state}");
    }
}

#[test]
fn weights_that_are_no_whole_numbers_are_right_on_the_whole() {
    let mut world = World::with("[{name: all, match: 'true', sampling: weight, sampling_ratio: 0.3}]");
    for trace in 1..=3000 {
        world.now = std::time::Duration::from_secs(1);
        world.receive(&[span("gateway", 1, 0.0, 1.0).server().of_trace(trace)]);
    }
    world.at(20.0);
    let weights: Vec<u64> = world.closed.iter().map(|(_, closed)| closed.weight).collect();
    assert!(weights.iter().all(|weight| [3, 4].contains(weight)));
    let sum = weights.iter().sum::<u64>() as f64;
    assert!((sum / 10_000.0 - 1.0).abs() < 0.02, "{sum}");
}

// ---------------------------------------------------------------------------------------------------------------
// What is found by looking through few is found by an index among many.

/// A root with so many calls, each of them served by another service and with one span inside.
fn wide_trace(calls: u64) -> Vec<Span> {
    let mut spans = vec![span("gateway", 1, 0.0, 9.0).server()];
    for call in 0..calls {
        let (id, from) = (10 * (call + 1), call as f64 / 100.0);
        spans.push(span("gateway", id, from, from + 0.5).client().under(1));
        spans.push(span("payment", id + 1, from + 0.1, from + 0.4).server().under(id));
        spans.push(span("payment", id + 2, from + 0.2, from + 0.3).under(id + 1));
    }
    spans
}

#[test]
fn an_instance_knows_its_events_again_after_it_has_been_looked_at() {
    for calls in [1, 9, 12, 40] {
        let spans = wide_trace(calls);
        let mut world = World::with("");
        // One more span keeps it from ending when it is looked at.
        world.at(9.0).receive(&spans).at(15.0).receive(&[span("gateway", 2, 0.0, 8.0).under(1)]);
        world.at(20.0).receive(&spans);
        assert_eq!((world.total.duplicates, world.total.conflicts), (spans.len() as u64, 0), "{calls} calls");
        let longer = Span { to: 0.45, ..spans[2].clone() };
        world.receive(&[longer]);
        assert_eq!(world.total.conflicts, 1, "{calls} calls");
        assert_eq!(world.at(100.0).only().notes.events, spans.len() as u64 + 1, "{calls} calls");
    }
}

#[test]
fn it_makes_no_difference_in_which_order_spans_came_and_whether_an_instance_was_looked_at_before_it_ended() {
    for calls in [1, 7, 8, 40] {
        let spans = wide_trace(calls);
        let reversed: Vec<Span> = spans.iter().rev().cloned().collect();
        // By the sweep, which has just looked at it; and by the end of the program, which has not.
        let mut swept = World::with("");
        swept.at(9.0).receive(&spans).at(100.0);
        let mut shut_down = World::with("");
        shut_down.at(9.0).receive(&reversed).shut_down();
        let (a, b) = (swept.only(), shut_down.only());
        assert_eq!((a.latency, a.reason, a.notes), (b.latency, b.reason, b.notes), "{calls} calls");
        assert_eq!((&a.stages, &a.path, &a.labels), (&b.stages, &b.path, &b.labels), "{calls} calls");
        assert_eq!((&a.transitions, &a.detail), (&b.transitions, &b.detail), "{calls} calls");
        assert_eq!(a.path.iter().map(|share| share.nanoseconds).sum::<u64>(), 9_000_000_000);
    }
}
