//! What is ended early when there is no room: what costs most for least, with every event still counted once.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod world;

use latency_aggregator::aggregator::Pressure;
use latency_aggregator::domain::result::Outcome;
use serde_json::json;
use world::{Caps, NO_CAPS, World, check, span};

/// With room for so many open instances.
fn world_for(flows: &str, instances: usize) -> World {
    World::new(flows, &[], Caps { instances, ..NO_CAPS })
}

/// Ends instances, a few at a time, until there is room again.
fn make_room(world: &mut World) -> &mut World {
    loop {
        let (effects, more) = world.aggregator.make_room(world.now().arrival, 3, &world.catalog);
        world.take(effects);
        if !more {
            return world;
        }
    }
}

fn open(world: &World) -> u64 {
    world.aggregator.population().open
}

#[test]
fn nothing_is_ended_as_long_as_there_is_room() {
    let mut world = world_for("", 10);
    for trace in 1..=9 {
        world.at(trace as f64 / 10.0).receive(&[span("gateway", 1, 0.0, 0.1).server().of_trace(trace)]);
        let expected = if trace < 8 { Pressure::None } else { Pressure::Refusing };
        assert_eq!(world.aggregator.pressure(), expected, "{trace} open");
        make_room(&mut world);
        assert_eq!(open(&world), trace as u64);
    }
    assert!(world.aggregator.refuses(world.now().arrival));
    world.at(30.0);
    assert_eq!((open(&world), world.aggregator.pressure()), (0, Pressure::None));
    assert!(!world.aggregator.refuses(world.now().arrival));
    assert!(world.closed.iter().all(|(_, closed)| closed.outcome == Outcome::Ok));
}

#[test]
fn what_no_flow_has_taken_goes_first_then_what_only_waits_then_the_heaviest() {
    let flows = "[{name: checkout, match: 'span.name == \"checkout\"'}]";
    let mut world = World::of(flows, &[], Caps { instances: 10, ..NO_CAPS }, false);
    // The two that wait for a parent are past their quiet period by second 25.
    for trace in [1, 2] {
        world.receive(&[span("worker", 2, 0.0, 0.1).server().under(1).of_trace(trace).named("checkout")]);
    }
    world.at(25.0);
    for trace in [3, 4] {
        world.receive(&[span("gateway", 1, 24.0, 24.5).of_trace(trace).named("nobody's").under(9)]);
    }
    for (trace, spans) in [(5, 1), (6, 40), (7, 1), (8, 1), (9, 1), (10, 1)] {
        let spans: Vec<_> = (1..=spans)
            .map(|id| span("gateway", id, 24.0, 24.5).of_trace(trace).named("checkout").under(99))
            .collect();
        world.receive(&spans);
    }
    assert_eq!((open(&world), world.aggregator.pressure()), (10, Pressure::Evicting));
    make_room(&mut world);
    assert_eq!((open(&world), world.aggregator.pressure()), (6, Pressure::None));
    // Two were nobody's, and two waited in vain.
    check(&world, &["checkout evicted capacity unobserved at 25s"; 2]);
    assert!(world.closed.iter().all(|(_, closed)| closed.notes.events == 1));
    assert_eq!(world.unmatched.len(), 2);
    // Of those to which something has come just now the heaviest is the next.
    for trace in 11..=14 {
        world.receive(&[span("gateway", 1, 24.0, 24.5).of_trace(trace).named("checkout").under(99)]);
    }
    make_room(&mut world);
    assert!(world.closed.iter().any(|(_, closed)| closed.notes.events == 40));
}

#[test]
fn an_evicted_instance_shows_its_end_if_it_has_come_and_is_late_for_the_rest() {
    let mut world = world_for("", 2);
    world.receive(&[span("gateway", 1, 0.0, 1.0).server()]);
    // The heavier one.
    let waiting: Vec<_> =
        (2..20).map(|id| span("worker", id, 0.0, 1.0).server().under(1).of_trace(2)).collect();
    world.receive(&waiting);
    assert_eq!(world.aggregator.pressure(), Pressure::Evicting);
    make_room(&mut world);
    world.at(1.0).receive(&[span("gateway", 1, 0.0, 1.0).server().of_trace(2)]);
    world.wait(100);
    assert_eq!(open(&world), 0);
    let outcomes: Vec<Outcome> = world.closed.iter().map(|(_, closed)| closed.outcome).collect();
    assert!(outcomes.contains(&Outcome::Evicted), "{outcomes:?}");
    assert_eq!(world.total.opened, 2, "no second instance of what was evicted");
    assert_eq!(world.late().len(), 1);
}

#[test]
fn joined_traces_are_evicted_as_one() {
    let flows = "[{name: order, match: 'true', key: ['span.attributes[\"order\"]']}]";
    let mut world = world_for(flows, 3);
    for trace in 1..=3 {
        world.receive(&[span("shop", 1, 0.0, 1.0).of_trace(trace).saying("order", "7").under(9)]);
    }
    make_room(&mut world);
    assert_eq!(open(&world), 0, "they are one instance");
    assert_eq!(world.closed.len(), 1);
    assert_eq!(world.closed[0].1.outcome, Outcome::Evicted);
}

#[test]
fn pushes_are_evicted_like_traces() {
    let mut world = world_for("", 4);
    for id in 1..=4 {
        let id = id.to_string();
        world.push(&[json!({"id": id, "name": "job", "life_span": 600, "stage": "begun"})]);
    }
    make_room(&mut world);
    assert_eq!(open(&world), 2);
    check(&world, &["job evicted capacity unobserved at 0s"; 2]);
}

#[test]
fn patience_ends() {
    let mut world = world_for("", 10);
    for trace in 1..=8 {
        world.receive(&[span("worker", 2, 0.0, 0.1).server().under(1).of_trace(trace)]);
    }
    make_room(world.at(29.0));
    assert_eq!((open(&world), world.aggregator.pressure()), (8, Pressure::Refusing));
    make_room(world.at(31.0));
    assert_eq!((open(&world), world.aggregator.pressure()), (6, Pressure::None));
}

#[test]
fn what_is_folded_when_there_is_little_room_takes_less_then() {
    let flows = "[{name: checkout, match: 'true'}]";
    let waiting = |trace: u32, spans: u64| -> Vec<_> {
        let span = |id| span("worker", id, 0.0, 0.1).server().under(1).of_trace(trace);
        (2..2 + spans).map(span).collect()
    };
    for (instances, stubs) in [(100, 8), (10, 1)] {
        let mut world = world_for(flows, instances);
        for trace in 1..=7 {
            world.receive(&waiting(trace, 1));
        }
        world.receive(&waiting(8, 60));
        world.at(25.0);
        let population = world.aggregator.population();
        assert_eq!((population.open, population.stubs), (8, stubs), "room for {instances}");
        world.wait(100);
        check(&world, &["checkout ok quiet 0.1s at 61s"; 8]);
    }
}
