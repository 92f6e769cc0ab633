//! A store, seen from outside: what goes on after a process has ended, in whichever way, and what is said when it cannot.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod support;

use std::path::Path;

use serde_json::json;
use support::exposition::Page;
use support::{Launch, QUICK, Server};
use tempfile::TempDir;

/// What comes of `order`.
const OK: &[(&str, &str)] = &[("flow", "order"), ("outcome", "ok")];

fn config(store: &Path, more: &str) -> String {
    format!("{QUICK}{more}\nstore: {{path: '{}'}}\nshutdown: {{linger: 0s}}\n", store.display())
}

fn start(store: &TempDir, more: &str) -> Server {
    let server = Launch::config(&config(store.path(), more)).start();
    support::eventually("it is ready", || server.get("/readyz").status == 200);
    server
}

fn push(server: &Server, id: &str, stage: &str, last: bool) {
    let reply =
        server.push(&json!({"id": id, "name": "order", "stage": stage, "final": last, "life_span": 3600}));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

fn closed(page: &Page) -> f64 {
    page.sum("flow_latency_seconds_count", OK)
}

#[test]
fn what_was_acknowledged_outlives_a_kill_and_is_counted_once() {
    let store = tempfile::tempdir().unwrap();
    for fsync in ["always", "20ms", "never"] {
        let store = store.path().join(fsync);
        let start = || Launch::config(&config(&store, "")).args(&["--store.fsync", fsync]).start();
        let server = start();
        push(&server, "1", "placed", false);
        push(&server, "2", "placed", true);
        let before = server.until("one is closed", |page| closed(page) == 1.0);
        // Dropped, it is killed.
        drop(server);
        let server = start();
        let after = server.scrape();
        assert_eq!(closed(&after), 1.0, "{fsync}");
        assert_eq!(after.sum("flow_open", &[("flow", "order")]), 1.0);
        assert_eq!(
            after.sum("latency_aggregator_events_received_total", &[]),
            before.sum("latency_aggregator_events_received_total", &[])
        );
        // Sent again, as clients do that have not heard.
        push(&server, "2", "placed", true);
        push(&server, "1", "placed", false);
        push(&server, "1", "shipped", true);
        let page = server.until("both are closed", |page| closed(page) == 2.0);
        assert_eq!(page.sum("latency_aggregator_late_events_total", &[]), 1.0);
        assert_eq!(page.sum("latency_aggregator_events_duplicate_total", &[]), 1.0);
    }
}

#[test]
fn what_is_open_when_the_program_is_told_to_end_is_not_evicted() {
    let store = tempfile::tempdir().unwrap();
    let mut server = start(&store, "");
    push(&server, "1", "placed", false);
    server.terminate();
    assert_eq!(server.exit_code(), Some(0), "{}", server.logs());
    let server = start(&store, "");
    push(&server, "1", "shipped", true);
    let page = server.until("it is closed", |page| closed(page) == 1.0);
    assert_eq!(page.sum("flow_closed_total", &[("outcome", "evicted")]), 0.0);
    assert_eq!(
        page.sum("latency_aggregator_store_recovered_entries", &[]),
        0.0,
        "a state was written at the end"
    );
}

#[test]
fn start_timestamps_stay_and_begin_anew_where_buckets_are_others() {
    let store = tempfile::tempdir().unwrap();
    let flows = |buckets: &str| {
        format!("flows: [{{name: order, buckets: {buckets}}}, {{name: other, end: [{{stage: b}}]}}]")
    };
    let began = |server: &Server, flow: &str| {
        let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
        let text = server.ask("GET", "/metrics", &accept).text();
        let start = format!("flow_latency_seconds_created{{flow=\"{flow}\",outcome=\"ok\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned)).expect("it has begun")
    };
    let server = start(&store, &flows("[1, 2]"));
    push(&server, "1", "placed", true);
    server.until("it is closed", |page| closed(page) == 1.0);
    let before = (began(&server, "order"), began(&server, "other"));
    drop(server);
    let server = start(&store, &flows("[1, 2]"));
    assert_eq!((began(&server, "order"), began(&server, "other")), before);
    assert_eq!(closed(&server.scrape()), 1.0);
    drop(server);
    let server = start(&store, &flows("[1, 2, 3]"));
    assert_ne!(began(&server, "order"), before.0);
    assert_eq!(began(&server, "other"), before.1);
    assert_eq!(closed(&server.scrape()), 0.0);
    drop(server);
    let server = start(&store, &flows("[1, 2, 3]"));
    assert_ne!(began(&server, "order"), before.0);
    assert_eq!(closed(&server.scrape()), 0.0);
}

#[test]
fn other_limits_are_taken_and_what_was_counted_stays() {
    let store = tempfile::tempdir().unwrap();
    let server = start(&store, "limits: {events_per_instance: 5}");
    push(&server, "1", "placed", true);
    push(&server, "2", "placed", false);
    server.until("it is closed", |page| closed(page) == 1.0);
    drop(server);
    for _ in 0..2 {
        let server = start(&store, "limits: {events_per_instance: 1}");
        let page = server.scrape();
        assert_eq!((closed(&page), page.sum("flow_open", &[("flow", "order")])), (1.0, 1.0));
    }
}

#[test]
fn a_family_that_is_asked_for_later_is_there_for_flows_that_were_there_before() {
    let store = tempfile::tempdir().unwrap();
    let shares = |page: &Page| page.sum("flow_critical_path_share_seconds_count", &[("flow", "order")]);
    let mut orders = 0;
    for (setting, are_shown) in [("false", false), ("true", true), ("false", false)] {
        let launch = Launch::config(&config(store.path(), ""));
        let server = launch.args(&["--metrics.critical_path_histogram", setting]).start();
        support::eventually("it is ready", || server.get("/readyz").status == 200);
        orders += 1;
        for (stage, last) in [("placed", false), ("shipped", true)] {
            push(&server, &orders.to_string(), stage, last);
        }
        let page = server.until("it is closed", |page| closed(page) == f64::from(orders));
        assert_eq!(shares(&page) > 0.0, are_shown, "{}", page.interesting());
    }
}

#[test]
fn a_second_process_is_told_that_the_folder_is_taken() {
    let store = tempfile::tempdir().unwrap();
    let first = start(&store, "");
    let second = Launch::config(&config(store.path(), "")).run();
    assert_ne!(second.code, Some(0));
    assert!(second.stderr.contains("another process uses the store"), "{}", second.stderr);
    drop(first);
}

#[test]
fn a_torn_tail_is_cut_off_and_counted() {
    let store = tempfile::tempdir().unwrap();
    let server = start(&store, "");
    push(&server, "1", "placed", false);
    drop(server);
    let log = std::fs::read_dir(store.path()).unwrap().map(|file| file.unwrap().path());
    let log = log.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap();
    let mut content = std::fs::read(&log).unwrap();
    content.extend([9, 0, 0, 0, 1, 2, 3]);
    std::fs::write(&log, content).unwrap();
    let server = start(&store, "");
    let page = server.scrape();
    assert_eq!(page.sum("latency_aggregator_store_cut_bytes_total", &[]), 7.0);
    assert_eq!(page.sum("flow_open", &[("flow", "order")]), 1.0);
    assert!(server.logs().contains("was cut off"), "{}", server.logs());
}

#[test]
fn a_store_of_which_nothing_can_be_read_is_put_aside_and_said_so() {
    let store = tempfile::tempdir().unwrap();
    let server = start(&store, "");
    push(&server, "1", "placed", true);
    server.until("it is closed", |page| closed(page) == 1.0);
    drop(server);
    for file in std::fs::read_dir(store.path()).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "state") {
            std::fs::write(file, "nothing").unwrap();
        }
    }
    let server = start(&store, "");
    assert_eq!(closed(&server.scrape()), 0.0);
    assert!(server.logs().contains("counters begin anew at 0"), "{}", server.logs());
    assert!(store.path().join("damaged").exists());
}

#[test]
fn without_room_requests_are_refused_and_metrics_stay_up() {
    let store = tempfile::tempdir().unwrap();
    let more_than_there_is = u64::MAX / 2;
    let server = Launch::config(&config(store.path(), ""))
        .args(&["--store.free_bytes", &more_than_there_is.to_string()])
        .start();
    support::eventually("it is felt", || server.get("/readyz").status == 503);
    let reply = server.push(&json!({"id": "1", "name": "order"}));
    assert_eq!((reply.status, reply.json()["retryable"].clone()), (503, json!(true)));
    let page = server.scrape();
    assert_eq!(page.sum("latency_aggregator_store_up", &[]), 0.0);
    assert_eq!(page.sum("latency_aggregator_requests_refused_total", &[("reason", "store")]), 1.0);
}

#[test]
fn a_folder_may_be_named_by_a_flag() {
    let server = Launch::config(QUICK).args(&["--data", "kept"]).start();
    assert!(server.scrape().sum("latency_aggregator_store_bytes", &[]) > 0.0);
}
