//! Stories of instances that consist of several traces: joined by links, by batches, or by a business key's value; and
//! of flows that are `also` there.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod world;

use latency_aggregator::domain::result::Closed;
use proptest::prelude::*;
use serde_json::json;
use world::*;

/// A request that puts a message on a queue: spans 1 and 2 of a trace.
fn placed(trace: u32, from: f64) -> [Span; 2] {
    [
        span("gateway", 1, from, from + 0.5).server().named("POST /orders").of_trace(trace),
        span("gateway", 2, from + 0.3, from + 0.4).producer().under(1).of_trace(trace),
    ]
}

/// What was closed, without what depends on when.
fn results(world: &World) -> Vec<String> {
    let line = |(_, closed): &(f64, Closed)| {
        format!(
            "{} {:?} {} {:?} {:?} {:?} {:?} {:?} {:?}",
            closed.flow.name,
            closed.key,
            closed.outcome.as_str(),
            closed.latency,
            closed.labels,
            closed.stages,
            path(closed),
            transitions(closed),
            closed.notes,
        )
    };
    let mut lines: Vec<String> = world.closed.iter().map(line).collect();
    lines.sort();
    lines
}

// ---------------------------------------------------------------------------------------------------------------
// Links.

#[test]
fn a_trace_that_is_linked_to_another_is_one_instance_with_it_whichever_came_first() {
    let consumed = span("shipping", 3, 5.4, 7.0).consumer().of_trace(2).linked_to(1, 2);
    let mut worlds = [World::with(""), World::with("")];
    worlds[0].at(0.5).receive(&placed(1, 0.0)).at(7.0).receive(std::slice::from_ref(&consumed)).at(700.0);
    worlds[1].at(7.0).receive(&[consumed]).at(8.0).receive(&placed(1, 0.0)).at(700.0);
    check(&worlds[0], &["trace ok root 7s at 17s"]);
    check(&worlds[1], &["trace ok root 7s at 18s"]);
    for world in &worlds {
        let closed = world.only();
        assert_eq!(transitions(closed), ["gateway shipping 5"]);
        assert_eq!(path(closed), ["gateway work 0.4", "shipping work 1.6", "shipping wait 5"]);
        assert_eq!(world.label("root_name"), "POST /orders");
        assert_eq!((closed.notes.events, world.total.opened, world.total.merged), (3, 2, 1));
        assert!(!closed.notes.unanswered, "the consumer has come");
    }
}

#[test]
fn traces_linked_one_after_the_other_are_one_instance() {
    let mut world = World::with("");
    world.at(1.0).receive(&[
        span("c", 1, 5.0, 6.0).consumer().of_trace(3).linked_to(2, 2),
        span("a", 1, 0.0, 1.0).server().of_trace(1),
        span("b", 1, 2.0, 3.0).consumer().of_trace(2).linked_to(1, 1),
        span("b", 2, 2.5, 2.6).producer().under(1).of_trace(2),
    ]);
    check(world.at(700.0), &["trace ok root 6s at 11s"]);
    assert_eq!(transitions(world.only()), ["a b 1", "b c 2.4"]);
    assert_eq!(path(world.only()), ["a work 1", "b work 0.6", "b wait 1", "c work 1", "c wait 2.4"]);
}

#[test]
fn a_fan_out_ends_with_the_last_consumer() {
    let mut world = World::with("");
    world.at(0.5).receive(&placed(1, 0.0));
    world.at(3.0).receive(&[span("mail", 1, 1.0, 3.0).consumer().of_trace(2).linked_to(1, 2)]);
    world.at(9.0).receive(&[span("shipping", 1, 2.0, 9.0).consumer().of_trace(3).linked_to(1, 2)]);
    check(world.at(700.0), &["trace ok root 9s at 19s"]);
    assert_eq!(transitions(world.only()), ["gateway mail 0.6", "gateway shipping 1.6"]);
}

#[test]
fn a_batch_ends_each_of_its_instances_and_is_observed_once() {
    let batch = || {
        let mut receive = span("billing", 1, 7.0, 9.0).consumer().of_trace(9);
        for trace in 1..=3 {
            receive = receive.linked_to(trace, 2);
        }
        [receive, span("billing", 2, 7.5, 8.5).client().under(1).of_trace(9)]
    };
    let mut worlds = [World::with(""), World::with("")];
    for trace in 1..=3 {
        worlds[0].at(f64::from(trace)).receive(&placed(trace, f64::from(trace)));
    }
    worlds[0].at(9.0).receive(&batch()).at(700.0);
    worlds[1].at(9.0).receive(&batch());
    for trace in 1..=3 {
        worlds[1].receive(&placed(trace, f64::from(trace)));
    }
    worlds[1].at(700.0);
    for world in &worlds {
        let mut story = world.story();
        story.sort();
        assert_eq!(
            story,
            [
                "trace ok root 6s at 19s",
                "trace ok root 7s at 19s",
                "trace ok root 8s at 19s",
                "trace shared root unobserved at 19s",
            ]
        );
        let inside: Vec<u64> = world
            .closed
            .iter()
            .flat_map(|(_, closed)| &closed.stages)
            .filter(|stage| *stage.name == *"billing")
            .filter_map(|stage| stage.inside)
            .collect();
        assert_eq!(inside, [2_000_000_000], "the tail's stage is observed once");
        let first =
            world.closed.iter().find(|(_, closed)| path(closed).contains(&"billing wait 5.6".to_owned()));
        assert_eq!(transitions(&first.unwrap().1), ["gateway billing 5.6"]);
    }
    assert_eq!(results(&worlds[0]), results(&worlds[1]));
}

#[test]
fn links_on_several_spans_of_a_trace_make_it_a_batch_whenever_they_come() {
    let one = span("billing", 2, 5.0, 6.0).consumer().under(1).of_trace(9).linked_to(1, 2);
    let other = span("billing", 3, 6.0, 7.0).consumer().under(1).of_trace(9).linked_to(2, 2);
    let poll = span("billing", 1, 4.0, 7.0).of_trace(9);
    let mut worlds = [World::with(""), World::with("")];
    worlds[0].at(0.5).receive(&placed(1, 0.0)).receive(&placed(2, 0.0)).at(7.0);
    worlds[0].receive(&[one.clone(), other.clone(), poll.clone()]).at(700.0);
    worlds[1].at(7.0).receive(&[one]).receive(&placed(1, 0.0)).at(9.0).receive(&[other]);
    worlds[1].receive(&placed(2, 0.0)).receive(&[poll]).at(700.0);
    assert_eq!(worlds[0].closed.len(), 3);
    assert_eq!(results(&worlds[0]), results(&worlds[1]));
}

#[test]
fn a_batch_of_which_one_instance_is_over_before_ends_the_other() {
    let mut world = World::with("");
    world.at(0.5).receive(&[span("gateway", 1, 0.0, 0.5).server().of_trace(1)]);
    world.at(20.0).receive(&placed(2, 19.0));
    let batch = span("billing", 1, 20.0, 21.0).consumer().of_trace(9).linked_to(1, 1).linked_to(2, 2);
    world.at(21.0).receive(&[batch]);
    check(
        world.at(700.0),
        &["trace ok root 0.5s at 10.5s", "trace ok root 2s at 31s", "trace shared root unobserved at 31s"],
    );
}

#[test]
fn a_link_to_a_trace_that_never_comes_is_waited_for_and_does_no_harm() {
    let mut world = World::with("");
    world.at(1.0).receive(&[span("shipping", 1, 0.0, 1.0).consumer().linked_to(5, 5)]);
    check(world.at(700.0), &["trace ok root 1s at 61s"]);
    assert!(world.only().notes.unseen_link);
}

#[test]
fn a_link_to_an_instance_that_is_over_is_counted_and_the_trace_stands_alone() {
    let mut world = World::with("");
    world.at(0.5).receive(&[span("gateway", 1, 0.0, 0.5).server()]);
    world.at(30.0).receive(&[span("shipping", 1, 29.0, 30.0).consumer().of_trace(2).linked_to(1, 1)]);
    check(world.at(700.0), &["trace ok root 0.5s at 10.5s", "trace ok root 1s at 40s"]);
    assert!(world.closed[1].1.notes.missed_link);
    assert_eq!(world.total.merged, 0);
}

#[test]
fn links_count_where_work_is_taken_up_and_nowhere_else() {
    let linked = |inner: Span| {
        let mut world = World::with("");
        world.at(0.5).receive(&[span("gateway", 1, 0.0, 0.5).server()]);
        let root = span("worker", 1, 3.0, 4.0).server().of_trace(2);
        world.receive(&[root, inner.under(1).of_trace(2).linked_to(1, 1)]).at(700.0);
        world.closed.len() == 1
    };
    assert!(!linked(span("worker", 2, 3.1, 3.2)));
    assert!(!linked(span("worker", 2, 3.1, 3.2).client()));
    assert!(linked(span("worker", 2, 3.1, 3.2).consumer()));
    assert!(linked(span("worker", 2, 3.1, 3.2).client().saying("messaging.operation.type", "receive")));
    assert!(linked(span("worker", 2, 3.1, 3.2).saying("messaging.operation", "process")));
    assert!(!linked(span("worker", 2, 3.1, 3.2).saying("messaging.operation.type", "send")));
}

#[test]
fn a_producer_that_forwards_what_others_produced_does_not_wait_for_a_consumer() {
    let mut world = World::with("");
    world.at(1.0).receive(&[
        span("gateway", 1, 0.0, 1.0).server(),
        span("gateway", 2, 0.1, 0.2).producer().under(1),
        span("gateway", 3, 0.5, 0.6).producer().under(1).linked_to(1, 2),
    ]);
    world.at(2.0).receive(&[span("shipping", 4, 1.5, 2.0).consumer().under(2)]);
    check(world.at(700.0), &["trace ok root 2s at 12s"]);
}

#[test]
fn a_linked_consumer_that_polled_before_there_was_work_begins_with_its_producer() {
    let mut world = World::with("");
    world.at(101.0).receive(&placed(1, 100.0));
    world.receive(&[span("shipping", 1, 0.0, 101.0).consumer().of_trace(2).linked_to(1, 2)]);
    check(world.at(700.0), &["trace ok root 1s at 111s"]);
}

#[test]
fn traces_that_were_folded_before_the_other_side_came_are_joined_all_the_same() {
    let mut world = World::with("");
    world.at(0.5).receive(&placed(1, 0.0));
    world.at(30.0);
    assert_eq!(world.aggregator.population().stubs, 1);
    world.receive(&[
        span("shipping", 1, 0.0, 30.0).consumer().of_trace(2).linked_to(1, 2),
        span("shipping", 2, 29.0, 30.0).client().under(1).of_trace(2),
    ]);
    check(world.at(700.0), &["trace ok root 30s at 40s"]);
    assert_eq!(world.stages(), "gateway 0.5 0, shipping 29.7 0.3");
    assert!(world.only().notes.coarse_path);
}

#[test]
fn a_linked_trace_that_waits_for_its_producer_as_a_stub_is_clipped_when_it_comes() {
    let mut world = World::with("");
    world.at(30.0).receive(&[span("shipping", 1, 0.0, 30.0).consumer().of_trace(2).linked_to(1, 2)]);
    world.at(50.0);
    assert_eq!(world.aggregator.population().stubs, 1);
    world.receive(&placed(1, 20.0));
    check(world.at(700.0), &["trace ok root 10s at 60s"]);
    assert_eq!(world.stages(), "gateway 0.5 0, shipping 9.7 0.3");
}

#[test]
fn more_traces_than_an_instance_may_have_are_counted_and_stand_alone() {
    let mut world = World::new("", &[], Caps { traces_per_instance: 3, ..NO_CAPS });
    world.at(0.5).receive(&placed(1, 0.0));
    for trace in 2..=8 {
        world.receive(&[span("mail", 1, 0.2, 0.5).consumer().of_trace(trace).linked_to(1, 2)]);
    }
    world.at(700.0);
    assert_eq!(world.closed.len() as u64 + world.total.merged, 8);
    assert_eq!(world.total.merged, 2, "{:?}", world.story());
    assert!(world.total.joints_over_limit >= 4);
}

#[test]
fn at_shutdown_what_is_joined_ends_together() {
    let mut world = World::with("");
    world.at(0.5).receive(&placed(1, 0.0));
    world.receive(&[span("shipping", 1, 0.4, 0.5).consumer().of_trace(2).linked_to(1, 2)]);
    world.receive(&placed(3, 0.0));
    let batch = span("billing", 1, 0.4, 0.5).consumer().of_trace(9).linked_to(3, 2).linked_to(4, 2);
    world.receive(&[batch]).shut_down();
    let mut story = world.story();
    story.sort();
    assert_eq!(
        story,
        [
            "trace ok root 0.5s at 0.5s",
            "trace ok root 0.5s at 0.5s",
            "trace shared shutdown unobserved at 0.5s",
        ]
    );
    assert_eq!(world.total.merged, 1);
}

// ---------------------------------------------------------------------------------------------------------------
// Business keys.

const ORDERS: &str = r#"
- name: orders
  match: 'span.attributes["order.id"] != nil'
  key: ['span.attributes["order.id"]', trace_id]
  end: {stage: shipping}
"#;

#[test]
fn traces_that_share_a_value_are_one_instance() {
    let mut world = World::with(ORDERS);
    world.at(1.0).receive(&[
        span("gateway", 1, 0.0, 1.0).server().of_trace(1).saying("order.id", "17"),
        span("gateway", 2, 0.2, 0.8).client().under(1).of_trace(1),
    ]);
    world.at(2.0).receive(&[span("gateway", 1, 1.5, 2.0).server().of_trace(2).saying("order.id", "18")]);
    world
        .at(300.0)
        .receive(&[span("shipping", 1, 290.0, 300.0).server().of_trace(3).saying("order.id", "17")]);
    check(world.at(700.0), &["orders ok end 300s at 310s", "orders incomplete max_age +Inf(600s) at 602s"]);
    assert_eq!(world.closed[0].1.notes.events, 3, "also the one without the attribute");
    assert_eq!(path(&world.closed[0].1), ["gateway work 1", "shipping work 10", "shipping wait 289"]);
}

#[test]
fn a_value_that_is_known_late_counts_as_if_it_had_come_first() {
    let spans = [
        span("gateway", 3, 0.4, 0.5).client().under(1).of_trace(1),
        span("gateway", 1, 0.0, 1.0).server().of_trace(1).saying("order.id", "17"),
        span("shipping", 2, 3.1, 3.2).client().under(1).of_trace(2),
        span("shipping", 1, 3.0, 4.0).server().of_trace(2).saying("order.id", "17"),
    ];
    let mut worlds = [World::with(ORDERS), World::with(ORDERS)];
    worlds[0].at(4.0).receive(&spans).at(700.0);
    worlds[1].at(4.0);
    for span in &spans {
        worlds[1].receive(std::slice::from_ref(span));
    }
    worlds[1].at(700.0);
    check(&worlds[0], &["orders ok end 4s at 14s"]);
    assert_eq!(results(&worlds[0]), results(&worlds[1]));
}

#[test]
fn a_batch_with_several_values_is_divided_among_them() {
    let mut world = World::with(ORDERS);
    for (trace, order) in [(1, "17"), (2, "18")] {
        let placed = span("gateway", 1, f64::from(trace), 3.0).server().of_trace(trace);
        world.at(3.0).receive(&[placed.saying("order.id", order)]);
    }
    world.at(10.0).receive(&[
        span("shipping", 1, 4.0, 10.0).of_trace(9),
        span("shipping", 2, 4.0, 6.0).consumer().under(1).of_trace(9).saying("order.id", "17"),
        span("shipping", 3, 5.0, 5.5).client().under(2).of_trace(9),
        span("shipping", 4, 6.0, 9.0).consumer().under(1).of_trace(9).saying("order.id", "18"),
    ]);
    world.at(700.0);
    let mut story = world.story();
    story.sort();
    assert_eq!(story, ["orders ok end 5s at 20s", "orders ok end 7s at 20s"]);
    assert_eq!(world.divided, (3, 1), "the span around both is of none");
    assert_eq!(world.closed[0].1.notes.events, 1, "events of the batch are counted where it ends");
}

#[test]
fn a_batch_alone_makes_an_instance_of_each_of_its_values() {
    let mut world = World::with(ORDERS);
    world.at(10.0).receive(&[
        span("shipping", 2, 4.0, 6.0).consumer().of_trace(9).saying("order.id", "17"),
        span("shipping", 4, 6.0, 9.0).consumer().of_trace(9).saying("order.id", "18"),
    ]);
    check(world.at(700.0), &["orders ok end 2s at 20s", "orders ok end 3s at 20s"]);
    assert_eq!((world.total.opened, world.total.merged), (3, 1));
}

#[test]
fn without_a_value_the_trace_id_is_the_key_if_it_is_one() {
    for (keys, expected) in
        [(r#"['span.attributes["order.id"]', trace_id]"#, 1), (r#"['span.attributes["order.id"]']"#, 0)]
    {
        let flows = format!(
            r#"[{{name: orders, match: 'resource.attributes["service.name"] == "gateway"', key: {keys}}}]"#
        );
        let mut world = World::with(&flows);
        world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server()]).at(700.0);
        assert_eq!(world.closed.len(), expected, "{keys}");
        assert_eq!(world.unmatched.len(), 1 - expected, "{keys}");
    }
}

#[test]
fn the_first_key_that_has_a_value_counts() {
    let flows = r#"
- name: orders
  match: 'span.attributes["order.id"] != nil or span.attributes["cart.id"] != nil'
  key: ['span.attributes["order.id"]', 'span.attributes["cart.id"]']
"#;
    let mut world = World::with(flows);
    world.at(1.0).receive(&[
        span("a", 1, 0.0, 1.0).of_trace(1).saying("order.id", "17").saying("cart.id", "3"),
        span("b", 1, 0.0, 1.0).of_trace(2).saying("cart.id", "3"),
        span("c", 1, 0.0, 2.0).of_trace(3).saying("cart.id", "3"),
    ]);
    world.at(700.0);
    let mut story = world.story();
    story.sort();
    assert_eq!(story, ["orders ok quiet 1s at 11s", "orders ok quiet 2s at 11s"]);
}

#[test]
fn pushes_to_the_flow_meet_the_traces_by_the_value_also_when_it_is_a_uuid() {
    let order = "6b1f3c52-9d0c-4f6e-8a33-0d6f6c1f2b11";
    let mut world = World::with(ORDERS);
    world.at(0.0).push(&[json!({"id": order, "name": "orders", "stage": "placed"})]);
    world.at(60.0).receive(&[span("shipping", 1, 55.0, 60.0).server().saying("order.id", order)]);
    check(world.at(700.0), &["orders ok end 60s at 70s"]);
}

#[test]
fn what_comes_for_a_value_whose_instance_is_over_is_late_and_opens_no_second_one() {
    let mut world = World::with(ORDERS);
    world.at(1.0).receive(&[span("shipping", 1, 0.0, 1.0).server().of_trace(1).saying("order.id", "17")]);
    world.at(30.0).receive(&[span("shipping", 1, 29.0, 30.0).server().of_trace(2).saying("order.id", "17")]);
    check(world.at(100.0), &["orders ok end 1s at 11s"]);
    assert_eq!(world.late(), ["shipping 29s late, 29s longer"]);
    // Long after the tombstone has gone.
    world
        .at(1000.0)
        .receive(&[span("shipping", 1, 999.0, 1000.0).server().of_trace(3).saying("order.id", "17")]);
    world.at(1100.0);
    assert_eq!(world.closed.len(), 1);
    assert_eq!(world.late()[1..], ["shipping"]);
}

#[test]
fn a_value_on_traces_that_no_flow_matches_joins_nothing() {
    let flows = r#"
- name: orders
  match: 'span.name == "never"'
  key: 'span.attributes["order.id"]'
"#;
    let mut world = World::with(flows);
    world.at(1.0).receive(&[
        span("a", 1, 0.0, 1.0).of_trace(1).saying("order.id", "17"),
        span("b", 1, 0.0, 1.0).of_trace(2).saying("order.id", "17"),
    ]);
    check(world.at(700.0), &["trace ok root 1s at 11s", "trace ok root 1s at 11s"]);
    assert_eq!(world.total.merged, 0);
}

#[test]
fn an_order_of_hours_is_kept_as_stubs() {
    let flows = format!("{ORDERS}  max_age: 10h\n");
    let mut world = World::with(&flows);
    for hour in 0..5 {
        let from = f64::from(hour) * 3600.0;
        world.at(from + 1.0).receive(&[
            span("callback", 1, from, from + 1.0).server().of_trace(hour + 1).saying("order.id", "17"),
            span("callback", 2, from, from + 0.5).client().under(1).of_trace(hour + 1),
        ]);
    }
    world.at(5.0 * 3600.0);
    let population = world.aggregator.population();
    assert_eq!((population.open, population.stubs), (5, 5));
    world.receive(&[span("shipping", 1, 17_999.0, 18_000.0).server().of_trace(9).saying("order.id", "17")]);
    check(world.at(20_000.0), &["orders ok end 18000s at 18010s"]);
    assert_eq!(world.only().notes.events, 11);
}

#[test]
fn a_producer_without_the_value_is_joined_by_its_consumers_that_carry_one() {
    let mut world = World::with(ORDERS);
    world.at(0.5).receive(&placed(1, 0.0));
    world.at(5.0).receive(&[span("shipping", 1, 4.0, 5.0)
        .consumer()
        .of_trace(2)
        .linked_to(1, 2)
        .saying("order.id", "17")]);
    check(world.at(700.0), &["orders ok end 5s at 15s"]);
    assert_eq!(world.only().notes.events, 3);
}

#[test]
fn a_trace_before_two_values_stands_by_itself() {
    let mut world = World::with(ORDERS);
    world.at(0.5).receive(&placed(1, 0.0));
    for (trace, order) in [(2, "17"), (3, "18")] {
        let consumer = span("shipping", 1, 4.0, 5.0).consumer().of_trace(trace).linked_to(1, 2);
        world.at(5.0).receive(&[consumer.saying("order.id", order)]);
    }
    world.at(700.0);
    let mut story = world.story();
    story.sort();
    assert_eq!(story[..2], ["orders ok end 1s at 15s", "orders ok end 1s at 15s"]);
    assert_eq!(story.len(), 3);
}

#[test]
fn at_shutdown_a_divided_trace_ends_what_it_is_part_of() {
    let mut world = World::with(ORDERS);
    world.at(10.0).receive(&[
        span("shipping", 1, 4.0, 10.0).of_trace(9),
        span("shipping", 2, 4.0, 6.0).consumer().under(1).of_trace(9).saying("order.id", "17"),
        span("gateway", 4, 6.0, 9.0).server().under(1).of_trace(9).saying("order.id", "18"),
    ]);
    world.shut_down();
    let mut story = world.story();
    story.sort();
    assert_eq!(story, ["orders evicted shutdown unobserved at 10s", "orders ok end 2s at 10s"]);
}

// ---------------------------------------------------------------------------------------------------------------
// Flows that are `also` there.

#[test]
fn a_flow_that_is_also_there_has_instances_of_its_own() {
    let flows = format!(
        "{}{}",
        r#"
- name: picking
  also: true
  match: 'resource.attributes["service.name"] == "warehouse"'
  start: {stage: warehouse}
  end: {stage: shipping}
"#,
        r#"
- name: checkout
  match: 'resource.attributes["service.name"] == "gateway"'
  labels: {who: 'resource.attributes["service.name"]'}
"#
    );
    let mut world = World::with(&flows);
    world.at(5.0).receive(&[
        span("gateway", 1, 0.0, 5.0).server(),
        span("warehouse", 2, 1.0, 2.0).server().under(1),
        span("shipping", 3, 2.5, 4.0).server().under(2),
    ]);
    world.receive(&[span("gateway", 1, 0.0, 5.0).server()]);
    world.at(700.0);
    let mut story = world.story();
    story.sort();
    assert_eq!(story, ["checkout ok root 5s at 15s", "picking ok end 3s at 15s"]);
    assert_eq!(world.total.new, 3, "copies are counted nowhere");
    assert_eq!(world.total.duplicates, 1);
    let events: Vec<u64> = world.closed.iter().map(|(_, closed)| closed.notes.events).collect();
    assert_eq!(events.iter().sum::<u64>(), 3);
}

#[test]
fn a_push_to_a_flow_that_is_also_there_meets_its_view_of_the_trace() {
    let flows = "[{name: picking, also: true, match: 'span.name == \"pick\"'}]";
    let mut world = World::with(flows);
    world.at(1.0).receive(&[span("warehouse", 1, 0.0, 1.0).named("pick")]);
    world.push(&[json!({"id": hexadecimal(1), "name": "picking", "stage": "packed", "created_at": at(3.0)})]);
    world.at(700.0);
    let mut story = world.story();
    story.sort();
    assert_eq!(story, ["picking ok quiet 3s at 11s", "trace ok root 1s at 11s"]);
}

// ---------------------------------------------------------------------------------------------------------------
// What is easily got wrong.

fn sorted(world: &World) -> Vec<String> {
    let mut story = world.story();
    story.sort();
    story
}

/// Observed twice, once the tombstone of the value has been forgotten.
#[test]
fn a_value_of_a_divided_trace_is_closed_once_however_long_the_other_takes() {
    let mut world = World::with(&format!("{ORDERS}  max_age: 10h\n"));
    world.at(10.0).receive(&[
        span("shipping", 2, 4.0, 6.0).consumer().of_trace(9).saying("order.id", "17"),
        span("gateway", 4, 6.0, 9.0).server().of_trace(9).saying("order.id", "18"),
    ]);
    world.wait(40_000);
    assert_eq!(
        sorted(&world),
        ["orders incomplete max_age +Inf(36000s) at 36010s", "orders ok end 2s at 22s"],
    );
}

/// The same in seconds, when tombstones are short of room.
#[test]
fn a_value_of_a_divided_trace_is_closed_once_when_tombstones_are_short() {
    let caps = Caps { tombstones: 0, ..NO_CAPS };
    let mut world = World::new(ORDERS, &[], caps);
    world.at(10.0).receive(&[
        span("shipping", 2, 4.0, 6.0).consumer().of_trace(9).saying("order.id", "17"),
        span("gateway", 4, 6.0, 9.0).server().of_trace(9).saying("order.id", "18"),
    ]);
    world.wait(700);
    assert_eq!(world.closed.len(), 2, "{:?}", world.story());
}

const BY_GATEWAY: &str = r#"
- name: orders
  match: 'resource.attributes["service.name"] == "gateway"'
  key: ['span.attributes["order.id"]', trace_id]
  end: {stage: shipping}
"#;

/// A batch of three, one of whose values no matched trace has: its spans vanish.
#[test]
fn spans_of_a_value_that_no_flow_takes_are_counted_when_a_batch_is_divided() {
    let mut world = World::with(BY_GATEWAY);
    for (trace, order) in [(1, "17"), (2, "18")] {
        world
            .at(3.0)
            .receive(&[span("gateway", 1, 0.0, 3.0).server().of_trace(trace).saying("order.id", order)]);
    }
    world.at(10.0).receive(&[
        span("shipping", 1, 4.0, 10.0).of_trace(9),
        span("shipping", 2, 4.0, 6.0).consumer().under(1).of_trace(9).saying("order.id", "17"),
        span("shipping", 3, 5.0, 7.0).consumer().under(1).of_trace(9).saying("order.id", "18"),
        span("shipping", 4, 6.0, 8.0).consumer().under(1).of_trace(9).saying("order.id", "19"),
    ]);
    world.at(700.0);
    assert_eq!((world.divided, world.total.unmatched), ((2, 1), 1));
}

/// A value instance that held nothing leaves a grave of no flow; what comes for it later vanishes.
#[test]
fn what_comes_for_a_value_whose_instance_held_nothing_is_counted() {
    let mut world = World::new(ORDERS, &[r#"span.name == "GET /health""#], NO_CAPS);
    world.at(10.0).receive(&[
        span("shipping", 1, 4.0, 10.0).of_trace(9),
        span("shipping", 2, 4.0, 6.0).named("GET /health").under(1).of_trace(9).saying("order.id", "17"),
        span("shipping", 3, 4.0, 6.0).consumer().under(1).of_trace(9).saying("order.id", "18"),
    ]);
    world.at(700.0);
    world.receive(&[span("shipping", 1, 699.0, 700.0).server().of_trace(10).saying("order.id", "17")]);
    world.at(1500.0);
}

/// The same by a batch that was folded beyond the cap.
#[test]
fn what_comes_for_a_value_of_a_trace_beyond_the_cap_is_counted() {
    let mut world = World::new(ORDERS, &[], Caps { events_per_instance: 2, ..NO_CAPS });
    world.at(10.0).receive(&[
        span("shipping", 2, 4.0, 6.0).consumer().under(1).of_trace(9).saying("order.id", "17"),
        span("shipping", 3, 4.0, 6.0).consumer().under(1).of_trace(9).saying("order.id", "18"),
        span("shipping", 1, 4.0, 10.0).of_trace(9),
    ]);
    world.at(700.0);
    world.receive(&[span("shipping", 1, 699.0, 700.0).server().of_trace(10).saying("order.id", "17")]);
    world.at(1500.0);
}

const TWO_FLOWS: &str = r#"
- name: gates
  match: 'resource.attributes["service.name"] == "gateway"'
- name: orders
  match: 'span.name == "never"'
  key: ['span.attributes["order.id"]', trace_id]
"#;

/// The value counts because a trace of ANOTHER flow carries the attribute, too.
#[test]
fn a_value_does_not_count_because_another_flow_takes_a_trace_that_carries_it() {
    let mut world = World::with(TWO_FLOWS);
    world.at(1.0).receive(&[
        // Open for longer than the others: a PRODUCER without its consumer.
        span("gateway", 1, 0.0, 1.0).producer().of_trace(1).saying("order.id", "17"),
        span("mail", 1, 0.0, 1.0).server().of_trace(2).saying("order.id", "17"),
        span("stock", 1, 0.0, 1.0).server().of_trace(3).saying("order.id", "17"),
    ]);
    world.at(700.0);
    assert_eq!(
        sorted(&world),
        ["gates ok root 1s at 61s", "trace ok root 1s at 11s", "trace ok root 1s at 11s"]
    );
}

/// The instances of a flow that is found by trace id are joined by the key of another flow.
#[test]
fn instances_of_a_flow_without_a_key_are_not_joined_by_the_key_of_another_flow() {
    let mut world = World::with(TWO_FLOWS);
    for trace in [1, 2] {
        world.at(1.0).receive(&placed(trace, 0.0));
        let consumer = span("mail", 1, 0.5, 1.0).consumer().of_trace(trace + 10).linked_to(trace, 2);
        world.receive(&[consumer.saying("order.id", "17")]);
    }
    world.at(700.0);
    assert_eq!(sorted(&world), ["gates ok root 1s at 11s", "gates ok root 1s at 11s"]);
}

/// A value of a later key of a matched trace, which goes by its first key, makes others count.
#[test]
fn a_value_does_not_count_because_a_trace_that_goes_by_another_key_carries_it() {
    let flows = r#"
- name: orders
  match: 'resource.attributes["service.name"] == "gateway"'
  key: ['span.attributes["order.id"]', 'span.attributes["cart.id"]']
"#;
    let mut world = World::with(flows);
    world.at(1.0).receive(&[
        span("gateway", 1, 0.0, 1.0).server().of_trace(1).saying("order.id", "17").saying("cart.id", "3"),
        span("mail", 1, 0.0, 1.0).server().of_trace(2).saying("cart.id", "3"),
        span("stock", 1, 0.0, 1.0).server().of_trace(3).saying("cart.id", "3"),
    ]);
    world.at(700.0);
    assert_eq!(
        sorted(&world),
        ["orders ok quiet 1s at 11s", "trace ok root 1s at 11s", "trace ok root 1s at 11s"]
    );
}

/// The batch of a flow that is found by values only.
#[test]
fn a_batch_without_a_value_is_the_shared_tail_of_a_flow_that_is_found_by_values_only() {
    let flows = r#"
- name: orders
  match: 'resource.attributes["service.name"] == "gateway"'
  key: 'span.attributes["order.id"]'
"#;
    let mut world = World::with(flows);
    for (trace, order) in [(1, "17"), (2, "18")] {
        let [root, producer] = placed(trace, 0.0);
        world.at(1.0).receive(&[root.saying("order.id", order), producer]);
    }
    world.at(2.0).receive(&[span("billing", 1, 1.0, 2.0)
        .consumer()
        .of_trace(9)
        .linked_to(1, 2)
        .linked_to(2, 2)]);
    world.at(700.0);
    let inside = world.closed.iter().flat_map(|(_, closed)| &closed.stages);
    let inside = inside.filter(|stage| *stage.name == *"billing").filter_map(|stage| stage.inside).count();
    assert_eq!(
        world.unmatched,
        [],
        "it was observed with both, so it is of no flow least of all: {:?}",
        world.story()
    );
    assert_eq!(inside, 1, "the tail's stages are observed once");
}

/// A batch that turns out to carry a value after one of its heads has ended takes that value's instance with it.
#[test]
fn an_instance_is_observed_although_a_member_has_been_a_tail_before() {
    let mut world = World::with(ORDERS);
    world.at(0.5).receive(&[span("mail", 1, 0.0, 0.5).server().of_trace(1)]);
    // The other head takes long: its parent is in the same process, and still running.
    world.receive(&[span("mail", 2, 0.0, 0.5).under(1).local().of_trace(2)]);
    world.at(1.0).receive(&[span("stock", 2, 0.5, 1.0)
        .consumer()
        .under(1)
        .of_trace(9)
        .linked_to(1, 1)
        .linked_to(2, 2)]);
    // Head 1 waits for the parent in the batch no longer than parent_wait.
    world.at(200.0);
    assert_eq!(world.closed.len(), 1, "{:?}", world.story());
    world.receive(&[span("stock", 1, 0.5, 200.0).of_trace(9).saying("order.id", "17")]);
    world.receive(&[span("gateway", 1, 190.0, 195.0).server().of_trace(5).saying("order.id", "17")]);
    world.receive(&[span("shipping", 1, 195.0, 200.0).server().of_trace(6).saying("order.id", "17")]);
    world.at(2000.0);
    let orders: Vec<String> = world.story().into_iter().filter(|line| line.starts_with("orders")).collect();
    assert_eq!(orders.len(), 1);
    assert!(orders[0].starts_with("orders ok end"), "{orders:?}");
}

/// A batch all of whose heads were late is not woken.
#[test]
fn a_batch_whose_heads_were_all_late_does_not_wait_for_its_maximum_age() {
    let mut world = World::with(&format!("{ORDERS}  linger: 20s\n  quiet_period: 20s\n"));
    world.at(1.0).receive(&[span("shipping", 1, 0.0, 1.0).server().of_trace(1).saying("order.id", "17")]);
    world.at(30.0);
    assert_eq!(world.closed.len(), 1);
    for trace in [2, 3] {
        let [root, producer] = placed(trace, 29.0);
        world.receive(&[root.saying("order.id", "17"), producer]);
    }
    world.receive(&[span("billing", 1, 29.5, 30.0).consumer().of_trace(9).linked_to(2, 2).linked_to(3, 2)]);
    world.at(1000.0);
    assert_eq!(world.story()[1..], ["trace ok root 0.5s at 50s"]);
}

/// A batch after a divided trace is not woken when that has ended.
#[test]
fn a_batch_after_a_divided_trace_does_not_wait_for_its_maximum_age() {
    let mut world = World::with(ORDERS);
    world.at(10.0).receive(&[
        span("shipping", 2, 4.0, 6.0).consumer().of_trace(9).saying("order.id", "17"),
        span("shipping", 4, 6.0, 9.0).consumer().of_trace(9).saying("order.id", "18"),
    ]);
    world.receive(&[span("gateway", 1, 9.0, 9.5).server().of_trace(1)]);
    world.receive(&[span("billing", 1, 9.5, 10.0).consumer().of_trace(10).linked_to(9, 4).linked_to(1, 1)]);
    world.at(15.0).receive(&[span("shipping", 5, 9.0, 15.0).under(4).of_trace(9)]);
    world.at(1000.0);
    assert!(world.closed.iter().all(|(at, _)| *at <= 70.0), "{:?}", world.story());
}

/// Batches one after the other, more than are followed.
#[test]
fn a_batch_after_too_many_batches_does_not_wait_for_its_maximum_age() {
    let mut world = World::with("");
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server().of_trace(1)]);
    for trace in 2..=12 {
        let from = f64::from(trace) / 10.0;
        world.receive(&[span("worker", 1, from, 1.5)
            .consumer()
            .of_trace(trace)
            .linked_to(trace - 1, 1)
            .linked_to(99, 1)]);
    }
    world.receive(&[span("gateway", 1, 0.0, 1.0).server().of_trace(99)]);
    world.at(1000.0);
    assert!(world.closed.iter().all(|(at, _)| *at <= 70.0), "{:?}", world.story());
}

/// The same for want of room in the group.
#[test]
fn a_batch_that_finds_no_room_in_its_group_does_not_wait_for_its_maximum_age() {
    let mut world = World::new("", &[], Caps { traces_per_instance: 3, ..NO_CAPS });
    world.at(0.5).receive(&placed(1, 0.0));
    world.receive(&placed(5, 0.0));
    for (trace, of) in [(2, 1), (3, 1), (6, 5), (7, 5)] {
        world.receive(&[span("mail", 1, 0.2, 0.5).consumer().of_trace(trace).linked_to(of, 2)]);
    }
    world.receive(&[span("billing", 1, 0.2, 0.5).consumer().of_trace(9).linked_to(2, 1).linked_to(6, 1)]);
    world.at(1000.0);
    assert!(world.closed.iter().all(|(at, _)| *at <= 70.0), "{:?}", world.story());
}

/// An instance of parts only is as old as the oldest of them.
#[test]
fn an_instance_of_parts_is_as_old_as_the_oldest_of_them() {
    let story = |first: u32, second: u32| {
        let mut world = World::with(&format!("{ORDERS}  expect: [gateway]\n"));
        let batch = |trace: u32, from: f64| {
            [
                span("gateway", 2, from, from + 1.0).consumer().of_trace(trace).saying("order.id", "17"),
                span("gateway", 4, from, from + 1.0).consumer().of_trace(trace).saying("order.id", "18"),
            ]
        };
        world.at(1.0).receive(&batch(first, 0.0));
        world.at(301.0).receive(&batch(second, 300.0));
        world.at(3000.0);
        world.story()
    };
    assert_eq!(story(8, 9), story(9, 8), "whatever their trace ids are");
}

/// Accounting of many values on many spans.
#[test]
fn a_trace_whose_spans_all_carry_the_same_value_is_within_its_limits() {
    let mut world = World::with(ORDERS);
    let spans: Vec<Span> =
        (1..=150).map(|id| span("shipping", id, 0.0, 1.0).server().saying("order.id", "17")).collect();
    world.at(1.0).receive(&spans).at(700.0);
    assert_eq!(world.total.joints_over_limit, 0, "one value is one of the links and key values of a trace");
}

/// What only `also` flows match may be folded.
#[test]
fn a_trace_of_the_built_in_flow_is_folded_when_only_also_flows_match_spans() {
    let mut world = World::with("[{name: picking, also: true, match: 'span.name == \"pick\"'}]");
    world.at(1.0).receive(&[span("warehouse", 2, 0.0, 1.0).under(1).local()]);
    world.at(30.0);
    assert_eq!(world.aggregator.population().stubs, 1);
}

/// Order dependence of shared ids with different parents in a divided trace.
#[test]
fn which_parent_a_shared_span_id_goes_by_does_not_depend_on_arrival() {
    let spans = [
        span("shipping", 1, 0.0, 9.0).of_trace(9).saying("order.id", "17"),
        span("shipping", 2, 0.0, 9.0).of_trace(9).saying("order.id", "18"),
        span("gateway", 3, 1.0, 5.0).client().under(1).of_trace(9),
        span("shipping", 3, 2.0, 4.0).server().under(2).of_trace(9),
    ];
    let story = |spans: Vec<Span>| {
        let mut world = World::with(ORDERS);
        world.at(10.0).receive(&spans).at(700.0);
        let mut lines: Vec<String> =
            world.closed.iter().map(|(_, closed)| format!("{:?} {:?}", closed.key, path(closed))).collect();
        lines.sort();
        lines
    };
    let mut reversed = spans.to_vec();
    reversed.reverse();
    assert_eq!(story(spans.to_vec()), story(reversed));
}

/// What happened in a tail happened once; that it makes the latency of each head uncertain is told by each.
#[test]
fn clocks_that_disagree_in_a_tail_are_observed_once() {
    let mut world = World::with("");
    for trace in [1, 2] {
        world.at(1.0).receive(&placed(trace, 0.0));
    }
    world.at(3.0).receive(&[
        span("billing", 1, 1.0, 2.0).consumer().of_trace(9).linked_to(1, 2).linked_to(2, 2),
        span("billing", 2, 1.1, 1.9).client().under(1).of_trace(9),
        span("ledger", 3, 1.7, 2.3).server().under(2).of_trace(9),
    ]);
    world.at(700.0);
    let skews = || world.closed.iter().flat_map(|(_, closed)| &closed.skews);
    assert_eq!(skews().filter(|skew| !skew.is_shared).count(), 1, "one call does not lie within its caller");
    assert_eq!(skews().filter(|skew| skew.is_shared).count(), 2, "which makes two latencies uncertain");
}

#[test]
fn spans_that_end_before_they_start_are_counted_when_a_trace_is_divided() {
    let mut world = World::with(ORDERS);
    world.at(10.0).receive(&[
        span("shipping", 2, 6.0, 4.0).consumer().of_trace(9).saying("order.id", "17"),
        span("shipping", 4, 6.0, 9.0).consumer().of_trace(9).saying("order.id", "18"),
        span("gateway", 5, 3.0, 9.0).server().of_trace(8).saying("order.id", "17"),
    ]);
    world.at(700.0);
    let skewed: u64 = world.closed.iter().map(|(_, closed)| closed.notes.skewed).sum();
    assert_eq!((skewed, world.divided_skewed), (0, 1), "latency_aggregator_skewed_spans_total");
}

/// Three traces of which one is left out of its own group, which has room for three with the push; the last one is in
/// stage `last`.
fn a_group_without_room_for_one(last: &'static str) {
    // Which one is looked at last is chance, so it is tried a few times.
    for _ in 0..40 {
        let mut world = World::new(ORDERS, &[], Caps { traces_per_instance: 3, ..NO_CAPS });
        let placed = json!({"id": "17", "name": "orders", "stage": "placed", "created_at": at(0.5)});
        world.at(1.0).push(&[placed]);
        world.receive(&[
            span("gateway", 1, 0.0, 1.0).server().of_trace(3),
            span("worker", 1, 0.0, 1.0).consumer().of_trace(2).linked_to(3, 1),
            span(last, 1, 0.0, 1.0).consumer().of_trace(1).linked_to(2, 1).saying("order.id", "17"),
        ]);
        world.wait(3000);
        assert_eq!(world.aggregator.population().open, 0, "open for ever");
    }
}

/// At the cap on a group's size a trace may be left out of the very group that is looked at for its sake; when that
/// ends, the trace is looked at again.
#[test]
fn a_trace_that_finds_no_room_in_its_own_group_ends_all_the_same() {
    a_group_without_room_for_one("shipping");
}

/// With no end in sight: the trace that is left out has its turn when the group ends by its age.
#[test]
fn a_trace_that_finds_no_room_in_its_own_group_waits_no_longer_than_that() {
    a_group_without_room_for_one("packing");
}

/// A batch that goes on from a divided trace goes on from nobody knows which part of it.
#[test]
fn a_divided_trace_is_not_looked_at_as_a_head_of_a_batch() {
    let mut world = World::with(ORDERS);
    world.at(10.0).receive(&[
        span("packing", 1, 0.0, 9.0).consumer().of_trace(9).saying("order.id", "17"),
        span("packing", 2, 0.0, 9.0).consumer().of_trace(9).saying("order.id", "18"),
    ]);
    world.at(30.0).receive(&[span("billing", 1, 29.0, 30.0)
        .consumer()
        .of_trace(5)
        .linked_to(9, 1)
        .linked_to(7, 1)]);
    world.at(50.0);
    for (trace, order) in [(3, "17"), (4, "18")] {
        let shipped = span("shipping", 1, 49.0, 50.0).server().of_trace(trace).saying("order.id", order);
        world.receive(&[shipped]);
    }
    world.at(700.0);
    let stages =
        |closed: &Closed| closed.stages.iter().map(|stage| stage.name.to_string()).collect::<Vec<_>>();
    let orders = world.closed.iter().filter(|(_, closed)| &*closed.flow.name == "orders");
    let orders: Vec<_> = orders.map(|(_, closed)| (stages(closed), closed.outcome.as_str())).collect();
    let expected = (vec!["packing".to_owned(), "shipping".to_owned()], "ok");
    assert_eq!(orders, [expected.clone(), expected]);
}

/// A span of a divided trace whose parent is still running may belong to any of its values.
#[test]
fn what_may_belong_to_a_value_holds_its_instance() {
    let flows = r#"[{name: orders, match: 'span.attributes["order.id"] != nil', key: ['span.attributes["order.id"]']}]"#;
    let mut world = World::with(flows);
    let packing = |id, from, to| span("packing", id, from, to).of_trace(9);
    world.at(1.0).receive(&[
        packing(1, 0.0, 1.0).consumer().saying("order.id", "17"),
        packing(2, 0.0, 1.0).consumer().saying("order.id", "18"),
        packing(4, 2.0, 3.0).under(3),
    ]);
    world.at(12.0);
    assert!(world.closed.is_empty(), "the parent of one is missing: {:?}", world.story());
    world.receive(&[packing(3, 1.0, 11.0).under(1)]);
    world.at(700.0);
    assert!(world.story().iter().any(|told| told.starts_with("orders ok quiet 11s")), "{:?}", world.story());
    assert_eq!((world.closed.len(), world.divided.0), (2, 4), "all four spans are somebody's");
}

/// The stage of a flow is not its clock.
#[test]
fn what_runs_in_a_served_call_is_moved_with_it_whatever_stage_it_belongs_to() {
    let run = |stage: &str| {
        let flows = format!("[{{name: calls, match: 'span.name != nil', stage: '{stage}'}}]");
        let mut world = World::with(&flows);
        world.at(3.0).receive(&[
            span("a", 1, 0.0, 1.0).server().named("root"),
            span("a", 2, 0.1, 0.9).client().under(1).named("call"),
            // 500 ms ahead.
            span("b", 3, 0.7, 1.3).server().under(2).named("serve"),
            span("b", 4, 0.7, 1.3).under(3).named("query"),
        ]);
        world.at(700.0);
        let skews: Vec<_> = world.only().skews.iter().map(|skew| skew.nanoseconds).collect();
        let by_service = world
            .only()
            .detail
            .steps
            .iter()
            .map(|step| format!("{:?}", (step.from, step.to)))
            .collect::<Vec<_>>();
        (skews, by_service)
    };
    let by_service = run(r#"resource.attributes["service.name"]"#);
    let by_name = run("span.name");
    assert_eq!(by_service, by_name);
}

/// A push and a value.
#[test]
fn pushes_and_traces_of_a_value_account_for_everything_at_shutdown() {
    let mut world = World::with(ORDERS);
    world.at(0.0).push(&[json!({"id": "17", "name": "orders", "stage": "placed"})]);
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server().of_trace(1).saying("order.id", "17")]);
    world.receive(&[
        span("shipping", 2, 0.0, 1.0).consumer().of_trace(9).saying("order.id", "17"),
        span("shipping", 3, 0.0, 1.0).consumer().of_trace(9).saying("order.id", "18"),
    ]);
    world.shut_down();
    assert_eq!(world.aggregator.population().open, 0);
    assert_eq!(sorted(&world), ["orders ok end 1s at 1s", "orders ok end 1s at 1s"]);
}

/// A divided trace of one flow is taken for a part of another flow's instances, which so become the first flow's.
#[test]
fn a_divided_trace_of_one_flow_is_no_part_of_the_instances_of_another() {
    let flows = r#"
- name: orders
  match: 'resource.attributes["service.name"] == "gateway"'
  key: ['span.attributes["order.id"]', trace_id]
- name: bills
  match: 'resource.attributes["service.name"] == "payment"'
  key: ['span.attributes["order.id"]', trace_id]
"#;
    let mut world = World::with(flows);
    world.at(1.0).receive(&[
        span("gateway", 1, 0.0, 1.0).consumer().of_trace(1).saying("order.id", "17"),
        span("gateway", 2, 0.0, 1.0).consumer().of_trace(1).saying("order.id", "18"),
    ]);
    world.receive(&[span("payment", 1, 0.0, 1.0).server().of_trace(2).saying("order.id", "17")]);
    world.at(700.0);
    assert_eq!(
        sorted(&world),
        ["bills ok quiet 1s at 11s", "orders ok quiet 1s at 11s", "orders ok quiet 1s at 11s"]
    );
}

// ---------------------------------------------------------------------------------------------------------------
// Any order.

/// Spans of a few traces with links and values, so small that they often meet. `is_causal` says which trace may be
/// linked to which.
fn some_spans(is_causal: fn(u32, u32) -> bool) -> impl Strategy<Value = Vec<Span>> {
    let kind = prop_oneof![Just(1), Just(2), Just(4), Just(5)];
    let link = proptest::option::weighted(0.5, (1..6_u32, 1..4_u64));
    let second_link = proptest::option::weighted(0.15, (1..6_u32, 1..4_u64));
    let value = proptest::option::weighted(0.3, prop_oneof![Just("17"), Just("18")]);
    let one = (1..6_u32, 1..4_u64, 0..4_u64, kind, 0..20_u32, 1..20_u32, link, second_link, value).prop_map(
        move |(trace, id, parent, kind, from, length, link, second_link, value)| {
            let from = f64::from(from) / 4.0;
            let service = ["gateway", "payment", "shipping"][(trace % 3) as usize];
            let mut span = span(service, id, from, from + f64::from(length) / 4.0).of_trace(trace);
            span.kind = kind;
            if parent != id {
                span = span.under(parent);
            }
            for (to, id) in [link, second_link].into_iter().flatten() {
                if is_causal(trace, to) {
                    span = span.linked_to(to, id);
                }
            }
            match value {
                Some(value) => span.saying("order.id", value),
                None => span,
            }
        },
    );
    proptest::collection::vec(one, 1..12).prop_map(|mut spans| {
        // One report of each span: which of two conflicting reports counts is told elsewhere.
        spans.sort_by_key(|span| (span.trace, span.id));
        spans.dedup_by_key(|span| (span.trace, span.id));
        spans
    })
}

/// Two flows with a key each, one of which goes by nothing else.
const BY_VALUES_ONLY: &str = r#"
- name: orders
  match: 'resource.attributes["service.name"] == "gateway"'
  key: ['span.attributes["order.id"]', trace_id]
  quiet_period: 100s
  linger: 20s
- name: bills
  match: 'resource.attributes["service.name"] == "payment"'
  key: ['span.attributes["order.id"]']
  quiet_period: 100s
  linger: 20s
"#;

/// Flows that fold nothing, for a folded instance has a coarser critical path: nothing is held for longer than this.
const PATIENT: &str = r#"
- name: orders
  match: 'span.attributes["order.id"] == "17" or span.kind == SPAN_KIND_SERVER'
  key: ['span.attributes["order.id"]', trace_id]
  quiet_period: 100s
  linger: 20s
- name: parts
  also: true
  match: 'resource.attributes["service.name"] == "payment"'
  key: ['span.attributes["order.id"]', trace_id]
  quiet_period: 100s
  linger: 20s
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_time: 60_000, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_batching_gives_the_same_instances(
        (spans, shuffled) in some_spans(|trace, to| to < trace).prop_flat_map(|spans| (Just(spans.clone()), Just(spans).prop_shuffle())),
        size in 1..5_usize,
        flows in prop_oneof![Just(PATIENT), Just(BY_VALUES_ONLY)],
    ) {
        let mut at_once = World::with(flows);
        at_once.at(1.0).receive(&spans).wait(3000);
        let mut piecemeal = World::with(flows);
        for (place, batch) in shuffled.chunks(size).enumerate() {
            piecemeal.at(1.0 + place as f64 / 2.0).receive(batch).receive(batch);
        }
        piecemeal.wait(3000);
        for world in [&at_once, &piecemeal] {
            prop_assert_eq!(world.aggregator.population().open, 0, "everything ends");
            for (_, closed) in &world.closed {
                use latency_aggregator::domain::result::Latency;
                let attributed: u64 = closed.path.iter().map(|share| share.nanoseconds).sum();
                match closed.latency {
                    Latency::Finite(nanoseconds) => prop_assert_eq!(attributed, nanoseconds),
                    Latency::Infinite(_) | Latency::Unobserved => {}
                }
            }
        }
        prop_assert_eq!(results(&at_once), results(&piecemeal));
    }

    #[test]
    fn whatever_is_linked_to_whatever_everything_ends_once(
        spans in some_spans(|_, _| true).prop_shuffle(),
        size in 1..5_usize,
        shuts_down in any::<bool>(),
    ) {
        let mut world = World::with(PATIENT);
        for (place, batch) in spans.chunks(size).enumerate() {
            world.at(1.0 + place as f64 * 30.0).receive(batch).receive(batch);
        }
        if shuts_down {
            world.shut_down();
        }
        // Each step asserts that events and instances are counted once.
        world.wait(3000);
        prop_assert_eq!(world.aggregator.population().open, 0);
        prop_assert_eq!(world.aggregator.population().events, 0);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Whose the time is where traces are joined, or spans are odd.

#[test]
fn what_a_linked_span_did_is_inside_of_its_parent_all_the_same() {
    let mut world = World::with("");
    world.at(6.0).receive(&[
        span("gateway", 1, 0.0, 0.05).server(),
        span("gateway", 2, 0.03, 0.04).producer().under(1),
        span("fn", 1, 2.0, 5.0).server().of_trace(2),
        span("fn", 2, 2.01, 4.99).consumer().under(1).of_trace(2).linked_to(1, 2),
        span("fn", 3, 2.1, 4.9).client().under(2).of_trace(2),
        span("payment", 4, 2.11, 4.89).server().under(3).of_trace(2),
    ]);
    world.at(100.0);
    let path = path(world.only());
    assert!(path.iter().any(|step| step.starts_with("payment work 2.78")), "{path:?}");
}

#[test]
fn nobody_waits_for_what_was_only_handed_on() {
    let mut world = World::with("");
    world.at(21.0).receive(&[
        span("req", 1, 0.0, 10.0).server(),
        span("first", 1, 1.0, 12.0).consumer().of_trace(2).linked_to(1, 1),
        span("second", 1, 11.0, 20.0).consumer().of_trace(3).linked_to(1, 1),
    ]);
    world.at(100.0);
    let path = path(world.only());
    assert_eq!(path, ["req work 10", "second work 9", "second wait 1"], "{path:?}");
}

#[test]
fn an_ignored_span_between_two_others_takes_nothing_from_them() {
    let mut world = World::new("", &[r#"resource.attributes["service.name"] == "envoy""#], NO_CAPS);
    world.at(1.0).receive(&[
        span("gateway", 1, 0.0, 0.1).server(),
        span("gateway", 2, 0.01, 0.09).client().under(1),
        span("envoy", 3, 0.015, 0.085).server().under(2),
        span("payment", 4, 0.02, 0.08).server().under(3),
    ]);
    world.at(100.0);
    assert_eq!(path(world.only()), ["gateway work 0.04", "payment work 0.06"]);
}

#[test]
fn who_serves_a_call_under_its_id_works_inside_of_it() {
    let mut world = World::with("");
    world.at(1.0).receive(&[
        span("gateway", 1, 0.0, 0.1).server(),
        span("gateway", 2, 0.01, 0.09).client().under(1),
        span("payment", 2, 0.02, 0.08).server().under(1),
        span("payment", 3, 0.03, 0.07).client().under(2),
    ]);
    world.at(100.0);
    assert_eq!(path(world.only()), ["gateway work 0.04", "payment work 0.06"]);
}
