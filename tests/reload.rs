//! Configs that change while the program runs: what is open goes on, what is wrong changes nothing, and nothing is lost.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use latency_aggregator::assembly::build_pipeline;
use latency_aggregator::config;
use latency_aggregator::domain::instance::Rules;
use latency_aggregator::domain::time::{Arrival, EventTime, Now};
use latency_aggregator::mapping::otlp::{SpanFields, Text, TraceVisitor, Value};
use latency_aggregator::mapping::push::map_push;
use latency_aggregator::mapping::spans::SpanMapper;
use latency_aggregator::metrics::snapshot::{self, Family};
use latency_aggregator::metrics::{Received, Transport};
use latency_aggregator::pipeline::Pipeline;
use latency_aggregator::reload::{Outcome, Reloader, Source};
use latency_aggregator::secrets::{Follow, Look};
use serde_json::json;
use support::{Launch, PATIENT, eventually};
use tempfile::TempDir;

/// When all spans start.
const NOON: u64 = 1_750_000_000_000_000_000;

/// A program without its sockets, with a config file and invented time.
struct Program {
    folder: TempDir,
    pipeline: Arc<Pipeline>,
    reloader: Reloader,
}

fn at(seconds: f64) -> Now {
    let arrival = Arrival::since_origin(Duration::from_secs_f64(seconds));
    Now { arrival, wall: EventTime::from_unix_nanoseconds(NOON).plus(Duration::from_secs_f64(seconds)) }
}

impl Program {
    fn new(config: &str) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, format!("metrics: {{zero_first: 0s}}\n{config}")).unwrap();
        let source = Source { path: Some(path.clone()), overrides: Vec::new() };
        let loaded = config::load(Some(&path), &[]).unwrap();
        let (pipeline, history) = build_pipeline(&loaded).unwrap();
        let pipeline = Arc::new(pipeline);
        let reloader = Reloader::new(Arc::clone(&pipeline), source, &loaded, history);
        Program { folder, pipeline, reloader }
    }

    fn write(&self, config: &str) {
        let path = self.folder.path().join("config.yaml");
        std::fs::write(path, format!("metrics: {{zero_first: 0s}}\n{config}")).unwrap();
    }

    fn reload(&mut self, config: &str) -> Outcome {
        self.write(config);
        self.reloader.look(false, at(0.0))
    }

    /// A span of a service, from NOON on; without a parent if `parent` is 0.
    fn span(&self, second: f64, trace: u8, id: u64, parent: u64, service: &str, lasts: f64) {
        send(&self.pipeline, at(second), trace, id, parent, service, lasts);
    }

    fn push(&self, second: f64, push: &serde_json::Value) {
        let in_force = self.pipeline.in_force();
        let now = at(second);
        let text = push.to_string();
        let push = serde_json::from_str(&text).unwrap();
        let mapped = map_push(&push, &in_force.catalog, &self.pipeline.limits, now).unwrap();
        let received = Received { events: 1, ..Received::default() };
        self.pipeline
            .ingest(&in_force, Transport::Push, &received, [mapped.incoming].into_iter().collect(), now)
            .unwrap();
    }

    fn sweep(&self, second: f64) {
        while self.pipeline.sweep(at(second)) {}
    }

    fn page(&self, second: f64) -> Vec<Family> {
        self.pipeline.snapshot(at(second))
    }

    /// The sum of a family's series that have all of these labels; a histogram counts its observations.
    fn value(&self, second: f64, family: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.page(second);
        let Some(family) = page.iter().find(|known| &*known.name == family) else { return f64::NAN };
        let has = |series: &&snapshot::Series| {
            labels
                .iter()
                .all(|(name, value)| series.labels.iter().any(|(n, v)| (&**n, &**v) == (*name, *value)))
        };
        let number = |series: &snapshot::Series| match &series.value {
            snapshot::Value::Float(value) => *value,
            snapshot::Value::Integer(value) => *value as f64,
            snapshot::Value::Histogram(histogram) => histogram.counts.iter().sum::<u64>() as f64,
            other @ snapshot::Value::Nanoseconds(_) => panic!("{other:?}"),
        };
        let series: Vec<f64> = family.series.iter().filter(has).map(number).collect();
        if series.is_empty() { f64::NAN } else { series.iter().sum() }
    }

    fn closed(&self, second: f64, labels: &[(&str, &str)]) -> f64 {
        self.value(second, "flow_closed_total", labels)
    }
}

fn send(pipeline: &Pipeline, now: Now, trace: u8, id: u64, parent: u64, service: &str, lasts: f64) {
    let parent_id = parent.to_be_bytes();
    let in_force = pipeline.in_force();
    let mut mapper = SpanMapper::new(&in_force.rules, pipeline.limits.time, now);
    mapper.resource();
    mapper.resource_attribute("service.name".into(), Value::Str(service.into()));
    mapper.scope(Text::default(), Text::default());
    mapper.span(SpanFields {
        trace_id: &[trace + 1; 16],
        span_id: &id.to_be_bytes(),
        parent_span_id: if parent == 0 { &[] } else { &parent_id },
        name: "work".into(),
        kind: 2,
        start_time_unix_nano: NOON,
        end_time_unix_nano: NOON + (lasts * 1e9) as u64,
        ..SpanFields::default()
    });
    let events = mapper.finish().events;
    let received = Received { events: 1, ..Received::default() };
    pipeline.ingest(&in_force, Transport::Grpc, &received, events, now).unwrap();
}

const CHECKOUT: &str = r#"flows: [{name: checkout, match: 'resource.attributes["service.name"] == "gateway"', end: {stage: shipping}}]"#;
/// The same flow, whose end has another name.
const RENAMED: &str = r#"flows: [{name: checkout, match: 'resource.attributes["service.name"] == "gateway"', end: {stage: parcel}}]"#;

#[test]
fn what_is_open_keeps_the_rules_under_which_it_opened() {
    let mut program = Program::new(CHECKOUT);
    program.span(1.0, 1, 2, 1, "gateway", 1.0);
    assert_eq!(program.reload(RENAMED), Outcome::Taken);
    program.span(2.0, 2, 2, 1, "gateway", 1.0);
    for trace in [1, 2] {
        program.span(3.0, trace, 3, 2, "shipping", 3.0);
        program.span(3.0, trace, 1, 0, "gateway", 4.0);
    }
    program.sweep(20.0);
    let ended = [("flow", "checkout"), ("outcome", "ok"), ("reason", "end")];
    assert_eq!(program.closed(20.0, &ended), 1.0, "the one that was open before");
    assert_eq!(program.value(20.0, "flow_open", &[("flow", "checkout")]), 1.0, "the other one has not ended");
    program.span(21.0, 2, 4, 2, "parcel", 5.0);
    program.sweep(40.0);
    assert_eq!(program.closed(40.0, &ended), 2.0);
    assert_eq!(program.value(40.0, "flow_open", &[("flow", "checkout")]), 0.0);
}

#[test]
fn a_trace_whose_flow_is_known_last_belongs_to_the_flow_of_its_time() {
    let mut program = Program::new(CHECKOUT);
    // The root, by which the flow is found, comes last.
    program.span(1.0, 1, 3, 2, "shipping", 3.0);
    let others = r#"flows: [{name: parcels, match: 'resource.attributes["service.name"] == "shipping"'}]"#;
    assert_eq!(program.reload(others), Outcome::Taken);
    program.span(2.0, 2, 3, 0, "shipping", 3.0);
    program.span(3.0, 1, 2, 0, "gateway", 4.0);
    program.sweep(30.0);
    assert_eq!(program.closed(30.0, &[("flow", "checkout"), ("reason", "end")]), 1.0);
    assert_eq!(program.closed(30.0, &[("flow", "parcels"), ("reason", "root")]), 1.0);
    // Its series are gone when everybody has seen them.
    program.sweep(31.0 + 601.0);
    assert!(program.closed(640.0, &[("flow", "checkout")]).is_nan());
    assert_eq!(program.closed(640.0, &[("flow", "parcels"), ("reason", "root")]), 1.0);
}

/// The rules of before are evaluated for as long as an instance may need them, and no longer.
#[test]
fn what_serves_nobody_any_more_is_dropped_once() {
    let mut program = Program::new(CHECKOUT);
    program.write(RENAMED);
    assert_eq!(program.reloader.look(false, at(100.0)), Outcome::Taken);
    assert_eq!(program.reloader.earlier_versions(), 1);
    let generation = |program: &Program| program.pipeline.in_force().catalog.generation();
    assert_eq!(program.reloader.look(false, at(699.0)), Outcome::Unchanged, "max_age is 10 minutes");
    assert_eq!((program.reloader.earlier_versions(), generation(&program)), (1, 1));
    assert_eq!(program.reloader.look(false, at(700.0)), Outcome::Unchanged);
    assert_eq!((program.reloader.earlier_versions(), generation(&program)), (0, 2));
    for second in [1300.0, 2000.0, 9000.0] {
        assert_eq!(program.reloader.look(true, at(second)), Outcome::Unchanged);
        assert_eq!(generation(&program), 2, "there is nothing left to drop");
    }
    let since = program.value(1.0, "latency_aggregator_config_last_reload_success_timestamp_seconds", &[]);
    assert_eq!(since, NOON as f64 / 1e9 + 100.0, "dropping is no reload");
}

#[test]
fn pushes_to_a_changed_flow_meet_what_was_pushed_before() {
    let before =
        "flows: [{name: order, end: {stage: shipped}, labels: {shop: {from: 'span.attributes[\"shop\"]'}}}]";
    let after = "flows: [{name: order, end: {stage: delivered}, labels: {area: {from: 'span.attributes[\"area\"]'}, shop: {from: 'span.attributes[\"shop\"]'}}}]";
    let mut program = Program::new(before);
    let push = |id: &str, stage: &str| json!({"id": id, "name": "order", "stage": stage, "label_values": {"shop": "5", "area": "north"}});
    program.push(1.0, &push("17", "placed"));
    assert_eq!(program.reload(after), Outcome::Taken);
    program.push(2.0, &push("18", "placed"));
    program.push(3.0, &push("17", "shipped"));
    program.push(3.0, &push("18", "shipped"));
    program.sweep(20.0);
    let ended = [("flow", "order"), ("reason", "end"), ("shop", "5")];
    assert_eq!(program.closed(20.0, &ended), 1.0, "17, whose flow ends with its shipping");
    program.push(21.0, &push("18", "delivered"));
    program.sweep(40.0);
    assert_eq!(program.closed(40.0, &ended), 2.0);
    assert_eq!(program.closed(40.0, &[("flow", "order"), ("area", "north")]), 1.0, "18 has the new label");
    // A push that is sent again is known, whichever config it came by first.
    program.push(22.0, &push("19", "placed"));
    assert_eq!(program.reload(&after.replace("delivered", "handed over")), Outcome::Taken);
    program.push(22.0, &push("19", "placed"));
    assert_eq!(program.value(22.0, "latency_aggregator_events_duplicate_total", &[]), 1.0);
    program.push(41.0, &push("17", "shipped"));
    assert_eq!(program.value(41.0, "latency_aggregator_late_events_total", &[("flow", "order")]), 1.0);
}

#[test]
fn series_go_on_unless_they_would_mean_something_else() {
    let mut program = Program::new(CHECKOUT);
    let close = |program: &Program, second: f64, trace: u8| {
        program.span(second, trace, 1, 0, "gateway", 1.0);
        program.span(second, trace, 2, 1, "shipping", 0.5);
        program.sweep(second + 30.0);
    };
    let observed = |program: &Program, second: f64| {
        program.value(second, "flow_latency_seconds", &[("flow", "checkout")])
    };
    close(&program, 1.0, 1);
    assert_eq!(observed(&program, 40.0), 1.0);
    // Other timers and another flow in front of it: the same series.
    let other = r#"
flows:
- {name: refund, match: 'resource.attributes["service.name"] == "never"'}
- {name: checkout, match: 'resource.attributes["service.name"] == "gateway"', end: {stage: shipping}, linger: 1s}
"#;
    assert_eq!(program.reload(other), Outcome::Taken);
    assert_eq!(observed(&program, 41.0), 1.0);
    assert_eq!(program.value(41.0, "flow_open", &[("flow", "refund")]), 0.0, "there from the start");
    close(&program, 50.0, 2);
    assert_eq!(observed(&program, 90.0), 2.0);
    // Other buckets: a new beginning, and never two kinds of buckets in one series.
    let created = |program: &Program| {
        let page = program.page(100.0);
        let family = page.iter().find(|family| &*family.name == "flow_latency_seconds").unwrap();
        let is_ours =
            |series: &&snapshot::Series| series.labels.iter().any(|(_, value)| &**value == "checkout");
        let series = family.series.iter().find(is_ours).unwrap();
        let snapshot::Value::Histogram(histogram) = &series.value else { panic!("{series:?}") };
        (series.created, histogram.counts.len())
    };
    let (before, buckets) = created(&program);
    let other = format!(
        "{}\n  buckets: [1, 2, 3]\n",
        r#"
flows:
- name: checkout
  match: 'resource.attributes["service.name"] == "gateway"'
  end: {stage: shipping}"#
    );
    assert_eq!(program.reload(&other), Outcome::Taken);
    let (after, fewer) = created(&program);
    assert_ne!(before, after, "a new start timestamp");
    assert_eq!((buckets > 4, fewer), (true, 4));
    assert_eq!(observed(&program, 101.0), 0.0);
    close(&program, 110.0, 3);
    assert_eq!(observed(&program, 150.0), 1.0);
}

#[test]
fn flows_that_pushes_create_have_the_default_buckets_of_the_config_in_force() {
    let mut program = Program::new("flows: []");
    let order = |name: &str| json!({"id": "1", "name": name, "stage": "sent", "life_span": 100});
    program.push(1.0, &order("before"));
    assert_eq!(program.reload("defaults: {buckets: [1, 2, 3]}\nflows: []"), Outcome::Taken);
    for name in ["before", "after"] {
        program.push(2.0, &order(name));
    }
    program.sweep(900.0);
    let page = program.page(900.0);
    let family = page.iter().find(|family| &*family.name == "flow_latency_seconds").unwrap();
    let buckets = |flow: &str| {
        let is_ours = |series: &&snapshot::Series| series.labels.iter().any(|(_, value)| &**value == flow);
        let series = family.series.iter().find(is_ours).unwrap();
        let snapshot::Value::Histogram(histogram) = &series.value else { panic!("{series:?}") };
        histogram.bounds.len()
    };
    assert_eq!((buckets("before") > 3, buckets("after")), (true, 3));
}

#[test]
fn a_config_that_is_wrong_changes_nothing_and_is_told_once() {
    let mut program = Program::new(CHECKOUT);
    let success =
        |program: &Program| program.value(1.0, "latency_aggregator_config_last_reload_successful", &[]);
    assert_eq!(success(&program), 1.0);
    let wrong = "flows: [{name: a, match: 'span.nam == 1'}]";
    let Outcome::Refused(message) = program.reload(wrong) else { panic!("it is wrong") };
    assert!(message.contains("config.yaml:2:"), "{message}");
    assert_eq!(success(&program), 0.0);
    assert_eq!(program.reloader.look(false, at(0.0)), Outcome::Unchanged, "said already");
    assert!(matches!(program.reloader.look(true, at(0.0)), Outcome::Refused(_)), "somebody asked");
    program.span(1.0, 1, 1, 0, "gateway", 1.0);
    assert_eq!(program.value(2.0, "flow_open", &[("flow", "checkout")]), 1.0, "the old one is in force");
    assert_eq!(program.reload(CHECKOUT), Outcome::Unchanged);
    assert_eq!(success(&program), 1.0, "what is in force is in the file again");
    std::fs::remove_file(program.folder.path().join("config.yaml")).unwrap();
    assert!(matches!(program.reloader.look(false, at(0.0)), Outcome::Refused(_)));
    assert_eq!(success(&program), 0.0);
}

#[test]
fn a_metric_that_pushes_have_created_is_not_taken_away() {
    let mut program = Program::new(CHECKOUT);
    program.push(1.0, &json!({"id": "1", "name": "parcel", "stage": "sent", "life_span": 100}));
    let Outcome::Refused(message) = program.reload("flows: [{name: a, metric: parcel_total}]") else {
        panic!("it gets in the way")
    };
    assert!(message.contains("parcel") && message.contains("metric"), "{message}");
}

/// A name of a metric is of the flow that has it now, also while the one that had it before is still shown.
#[test]
fn no_two_families_have_one_name_after_a_flow_was_renamed() {
    let before = "flows: [{name: a, metric: checkout_seconds, match: 'span.name != nil'}]";
    let mut program = Program::new(before);
    program.span(1.0, 1, 1, 0, "gateway", 1.0);
    program.sweep(20.0);
    let count = |program: &Program, name: &str| {
        program.page(21.0).iter().filter(|family| &*family.name == name).count()
    };
    assert_eq!(count(&program, "checkout_seconds"), 1);
    assert_eq!(program.reload(&before.replace("name: a", "name: b")), Outcome::Taken);
    program.span(21.0, 2, 1, 0, "gateway", 1.0);
    program.sweep(40.0);
    assert_eq!(count(&program, "checkout_seconds"), 1);
    assert_eq!(program.value(40.0, "checkout_seconds", &[]), 1.0, "that of b");
    assert_eq!(program.closed(40.0, &[("flow", "a")]), 1.0, "which is shown for a while");
    assert_eq!(program.reload("flows: []"), Outcome::Taken);
    assert_eq!(count(&program, "checkout_seconds"), 1, "of both that are gone");
    assert_eq!(program.value(40.0, "checkout_seconds", &[]), 1.0, "that of b, which had it last");
}

/// To Prometheus a label without a value is none: two such series would be one that is there twice.
#[test]
fn what_was_opened_before_a_label_came_or_went_is_counted_with_the_rest() {
    const LABELLED: &str = r#"
flows:
- name: checkout
  match: 'resource.attributes["service.name"] == "gateway"'
  end: {stage: shipping}
  labels: {tenant: 'span.attributes["tenant"]'}
"#;
    for (before, after, expected) in [(CHECKOUT, LABELLED, 4), (LABELLED, CHECKOUT, 3)] {
        let mut program = Program::new(before);
        program.span(1.0, 1, 1, 0, "gateway", 1.0);
        assert_eq!(program.reload(after), Outcome::Taken);
        program.span(2.0, 1, 2, 1, "shipping", 0.5);
        program.span(2.0, 2, 1, 0, "gateway", 1.0);
        program.span(2.0, 2, 2, 1, "shipping", 0.5);
        program.sweep(50.0);
        for name in ["flow_closed_total", "flow_latency_seconds"] {
            let page = program.page(60.0);
            let family = page.iter().find(|family| &*family.name == name).unwrap();
            let ours = family.series.iter().filter(|series| {
                series.labels.iter().any(|(name, value)| (&**name, &**value) == ("flow", "checkout"))
            });
            let is_latency = usize::from(name == "flow_latency_seconds");
            assert!(ours.clone().all(|series| series.labels.len() == expected - is_latency), "{ours:#?}");
        }
        assert_eq!(program.closed(60.0, &[("flow", "checkout"), ("outcome", "ok")]), 2.0);
    }
}

/// A configured flow is gone, and pushes go on with its name.
#[test]
fn pushes_to_a_removed_flow_are_a_flow_of_their_own() {
    let mut program = Program::new("flows: [{name: order, end: {stage: shipped}}]");
    let push = |id: &str, stage: &str| json!({"id": id, "name": "order", "stage": stage, "life_span": 1});
    program.push(1.0, &push("1", "placed"));
    program.push(2.0, &push("1", "shipped"));
    program.sweep(20.0);
    assert_eq!(program.closed(20.0, &[("flow", "order"), ("reason", "end")]), 1.0);
    assert_eq!(program.reload("flows: []"), Outcome::Taken);
    program.push(21.0, &push("2", "placed"));
    program.push(21.5, &push("2", "shipped"));
    program.sweep(40.0);
    assert_eq!(program.value(40.0, "order", &[]), 1.0, "the histogram of its own name");
    program.sweep(40.0 + 700.0);
    assert_eq!(program.value(740.0, "order", &[]), 1.0, "it stays");
}

/// As Kubernetes does it: `config.yaml` is a link through `..data`, which is swapped.
#[test]
fn a_config_map_that_is_swapped_is_noticed() {
    let mut program = Program::new(CHECKOUT);
    let folder = program.folder.path().to_path_buf();
    let version = |name: &str, config: &str| {
        std::fs::create_dir(folder.join(name)).unwrap();
        let text = format!("metrics: {{zero_first: 0s}}\n{config}");
        std::fs::write(folder.join(name).join("config.yaml"), text).unwrap();
    };
    let point_to = |name: &str| {
        std::os::unix::fs::symlink(name, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    version("..1", CHECKOUT);
    version("..2", RENAMED);
    point_to("..1");
    std::fs::remove_file(folder.join("config.yaml")).unwrap();
    std::os::unix::fs::symlink(Path::new("..data/config.yaml"), folder.join("config.yaml")).unwrap();
    assert_eq!(program.reloader.look(false, at(0.0)), Outcome::Unchanged);
    point_to("..2");
    assert_eq!(program.reloader.look(false, at(0.0)), Outcome::Taken);
    assert_eq!(program.reloader.look(false, at(0.0)), Outcome::Unchanged);
}

#[test]
fn a_thousand_reloads_under_load_lose_nothing() {
    let mut program = Program::new(CHECKOUT);
    let (stop, sent, second) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let pipeline = Arc::clone(&program.pipeline);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let n = sent.load(Relaxed);
                // Traces of four spans, in an order of their own, some of which stay without their end.
                let (trace, part) = ((n / 4 % 250) as u8, n % 4);
                let round = n / 1000 * 4;
                let (id, parent, service) = match (trace + part as u8) % 4 {
                    0 => (1, 0, "gateway"),
                    1 => (2, 1, "gateway"),
                    2 => (3, 2, "shipping"),
                    _ => (4, 2, "parcel"),
                };
                let now = at(second.load(Relaxed) as f64 / 10.0);
                send(
                    &pipeline,
                    now,
                    trace,
                    id + round,
                    if parent == 0 { 0 } else { parent + round },
                    service,
                    1.0,
                );
                sent.fetch_add(1, Relaxed);
            }
        });
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let now = second.fetch_add(1, Relaxed);
                pipeline.sweep(at(now as f64 / 10.0));
            }
        });
        for round in 0..1000_u32 {
            let config = match round % 4 {
                0 => RENAMED.to_owned(),
                1 => CHECKOUT.replace("end:", "linger: 1s, end:"),
                2 => format!("trace_flow: {}\n{}", round % 8 == 2, CHECKOUT.replace("checkout", "orders")),
                _ => CHECKOUT.replace("end:", "buckets: [1, 2], end:"),
            };
            assert_eq!(program.reload(&config), Outcome::Taken, "round {round}");
        }
        stop.store(true, Relaxed);
    });
    let end = second.load(Relaxed) as f64 / 10.0;
    program.sweep(end + 2000.0);
    let own = |name: &str| program.value(end, &format!("latency_aggregator_{name}"), &[]).max(0.0);
    let total = own("events_closed_total")
        + own("events_duplicate_total")
        + own("late_events_total")
        + own("events_unmatched_total")
        + own("events_ignored_total")
        + own("events_over_limit_total");
    assert_eq!((own("events_received_total"), own("events_open")), (sent.load(Relaxed) as f64, 0.0));
    assert_eq!(total, sent.load(Relaxed) as f64, "each event is counted once");
    let ended =
        own("instances_closed_total") + own("instances_merged_total") + own("instances_unmatched_total");
    assert_eq!(own("instances_opened_total"), ended, "each instance ends once");
    assert_eq!(program.value(end, "flow_open", &[]), 0.0);
    assert!(own("events_closed_total") > own("events_unmatched_total"), "most of it was measured");
}

/// With the sockets and the signal.
#[test]
fn the_running_program_hears_sighup_and_sees_its_file_change() {
    let push = |flow: &str| json!({"id": "1", "name": flow, "stage": "placed"});
    let config = |rest: &str| format!("{PATIENT}{rest}\n");
    let server = Launch::config(&config("reload: {interval: 0s}\nflows: [{name: a}]")).start();
    server.push(&push("a"));
    let open = |flow: &str| server.scrape().sum("flow_open", &[("flow", flow)]);
    let hash = server.scrape().sum("latency_aggregator_config_hash", &[]);
    // Not looked at, for nobody has asked for it.
    server.rewrite_config(&config("reload: {interval: 0s}\nflows: [{name: a}, {name: b}]"));
    assert!(server.scrape().samples("flow_open", &[("flow", "b")]).is_empty());
    server.signal("HUP");
    eventually("the new flow is there", || {
        !server.scrape().samples("flow_open", &[("flow", "b")]).is_empty()
    });
    assert_eq!(open("a"), 1.0, "what is open stays open");
    eventually("it has another hash", || server.scrape().sum("latency_aggregator_config_hash", &[]) != hash);
    // Wrong, and then in need of a restart.
    server.rewrite_config(&config("flows: [{name: a, nonsense: 1}]"));
    server.signal("HUP");
    let succeeded = || server.scrape().sum("latency_aggregator_config_last_reload_successful", &[]);
    eventually("it is refused", || succeeded() == 0.0);
    eventually("the log says why", || server.logs().contains("nonsense"));
    server.rewrite_config(&config("reload: {interval: 100ms}\nflows: [{name: c}]\nlimits: {instances: 7}"));
    server.signal("HUP");
    eventually("it is taken", || succeeded() == 1.0);
    eventually("the log says so", || server.logs().contains("limits.instances, reload.interval"));
    assert_eq!(open("a"), 1.0, "it has still to end");

    let server = Launch::config(&config("reload: {interval: 100ms}\nflows: [{name: a}]")).start();
    server.rewrite_config(&config("reload: {interval: 100ms}\nflows: [{name: d}]"));
    eventually("the new flow is there", || {
        !server.scrape().samples("flow_open", &[("flow", "d")]).is_empty()
    });
}

/// A secret whose reading panics, until it is mended.
#[derive(Debug, Default)]
struct Faulty(AtomicBool);

impl Follow for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn look(&self) -> Look {
        assert!(self.0.load(Relaxed), "a bug");
        Look::Same
    }
}

#[test]
fn a_bug_in_reloading_is_counted_and_not_the_end_of_it() {
    let mut program = Program::new("trace_flow: false\n");
    let faulty = Arc::new(Faulty::default());
    program.reloader = program.reloader.with_secrets(vec![Arc::<Faulty>::clone(&faulty)]);
    let shown = |program: &Program| {
        let panics = program.value(0.0, "latency_aggregator_task_panics_total", &[("task", "reload")]);
        (panics, program.value(0.0, "latency_aggregator_config_last_reload_successful", &[]))
    };
    assert_eq!(shown(&program), (0.0, 1.0));
    program.reloader.look_at_all(false);
    assert_eq!(shown(&program), (1.0, 1.0), "the config is none the worse for a bug about secrets");
    faulty.0.store(true, Relaxed);
    program.write("flows: [{name: a}]\n");
    program.reloader.look_at_all(false);
    assert_eq!(shown(&program), (1.0, 1.0));
    assert!(program.pipeline.in_force().catalog.fixed().iter().any(|flow| &*flow.name == "a"));
}
