//! What a stock Prometheus, an orchestrator and the ancestor's users read from the program.

mod support;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use support::exposition::Page;
use support::otlp::{Answer, Way, export, request, span, unix_nanos};
use support::{Launch, PATIENT, QUICK, Server, client, eventually, gunzip, gzip, send};
use tokio::time::Instant;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[test]
fn the_content_type_is_exact_whatever_is_accepted() {
    let server = Server::patient("");
    for accept in [
        "",
        "*/*",
        "text/plain",
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "image/png",
        "nonsense;;;q=x",
        "\u{1}",
    ] {
        let headers: &[(&str, &str)] =
            if accept.is_ascii() && accept != "\u{1}" { &[("accept", accept)] } else { &[] };
        let reply = server.ask("GET", "/metrics", headers);
        assert_eq!((reply.status, reply.header("content-type")), (200, TEXT), "{accept:?}");
        Page::parse(&reply.text());
    }
}

#[test]
fn the_page_is_compressed_for_those_who_ask() {
    let server = Server::patient("");
    for (accept, compressed) in [
        ("gzip", true),
        ("gzip, deflate", true),
        ("deflate, gzip;q=0.5", true),
        ("*", true),
        ("gzip;q=0", false),
        ("gzip;Q=0, *", false),
        ("*;q=0.1, identity", true),
        ("identity", false),
        ("br", false),
        ("", false),
    ] {
        let reply = server.ask("GET", "/metrics", &[("accept-encoding", accept)]);
        assert_eq!((reply.status, reply.header("content-type")), (200, TEXT), "{accept:?}");
        let encoding = reply.header("content-encoding");
        if accept == "*" && encoding.is_empty() {
            // It may be compressed; it need not.
            continue;
        }
        assert_eq!(encoding, if compressed { "gzip" } else { "" }, "{accept:?}");
        let body = if compressed { gunzip(&reply.body) } else { reply.body };
        Page::parse(&String::from_utf8(body).expect("text"));
    }
}

#[test]
fn the_names_of_encodings_have_no_case() {
    let server = Server::patient("");
    let reply = server.ask("GET", "/metrics", &[("accept-encoding", "GZip")]);
    assert_eq!(reply.header("content-encoding"), "gzip");
    let push = gzip(json!({"id": "1", "name": "order"}).to_string().as_bytes());
    let headers = [("content-type", "application/json"), ("content-encoding", "GZip")];
    assert_eq!(server.push_with(&headers, push).status, 200);
    let reply = server.post_otlp("/v1/traces", &headers, gzip(b"{}"));
    assert_eq!(reply.status, 200);
}

#[test]
fn head_has_the_headers_of_get_and_other_methods_are_refused() {
    let server = Server::patient("");
    eventually("it is ready", || server.get("/readyz").status == 200);
    for path in ["/metrics", "/health", "/livez", "/readyz"] {
        let get = server.get(path);
        let head = server.ask("HEAD", path, &[]);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        for method in ["POST", "PUT", "DELETE"] {
            let reply = server.ask(method, path, &[("content-type", "application/json")]);
            assert_eq!(reply.status, 405, "{method} {path}");
            let allow = reply.header("allow");
            assert!(allow.contains("GET") && allow.contains("HEAD"), "{method} {path}: {allow}");
        }
    }
}

#[test]
fn health_is_what_the_ancestor_answers() {
    let server = Server::patient("");
    let reply = server.get("/health");
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").starts_with("application/json"));
    assert_eq!(reply.json(), json!({"status": 200, "version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(server.get("/livez").status, 200);
    eventually("it is ready", || server.get("/readyz").status == 200);
}

#[test]
fn the_metrics_may_have_an_address_of_their_own() {
    let server = Launch::config(QUICK).args(&["--listen.metrics", "127.0.0.1:0"]).start();
    let own = server.address_of("listen.metrics").expect("a start-up line names it");
    assert_ne!(own, server.http());
    let url = format!("http://{own}/metrics");
    let reply = send(&client(), "GET", &url, &[], Vec::new());
    assert_eq!((reply.status, reply.header("content-type")), (200, TEXT));
    Page::parse(&reply.text());
    assert_eq!(server.get("/metrics").status, 404, "they are not at the push address then");
    let url = format!("http://{own}/");
    let push = json!({"id": "1", "name": "order"}).to_string();
    let reply = send(&client(), "POST", &url, &[("content-type", "application/json")], push.into_bytes());
    assert_eq!(reply.status, 404, "and no pushes at theirs");
}

#[test]
fn as_many_scrapes_at_once_as_may_be_succeed_and_others_are_told_to_come_again() {
    let server = Server::patient("");
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..5).for_each(|_| drop(server.scrape())));
        }
    });
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let reply = server.get("/metrics");
                    match reply.status {
                        200 => assert!(reply.text().contains("latency_aggregator_build_info")),
                        503 => {
                            assert_eq!(reply.header("retry-after"), "1");
                            refused.fetch_add(1, Relaxed);
                        }
                        other => panic!("{other}"),
                    }
                }
            });
        }
    });
    let counted = server.scrape().sum("latency_aggregator_scrapes_refused_total", &[]);
    assert_eq!(counted, refused.into_inner() as f64);
}

#[test]
fn a_scrape_changes_nothing() {
    let server = Server::patient("");
    server.push(&json!({"id": "1", "name": "order"}));
    let moving = ["process_"];
    assert_eq!(server.scrape().without(&moving), server.scrape().without(&moving));
}

const CHECKOUT: &str = "
flows:
  - name: checkout
    help: Time to check out
    match: 'span.name == \"POST /orders\"'
    expect: [shop, mail]
    slo: {latency: 1s, objective: 99.9}
    buckets: [0.5, 1, 600]
";

#[test]
fn closed_label_sets_are_there_at_zero_from_the_start() {
    let server = Server::patient(CHECKOUT);
    let page = server.scrape();
    let flow = ("flow", "checkout");
    for outcome in ["ok", "error", "incomplete"] {
        let labels = [flow, ("outcome", outcome)];
        assert_eq!(page.only("flow_latency_seconds_count", &labels).value, 0.0);
    }
    // Those that can be: with stages to expect, nothing ages out as truncated.
    for (outcome, reason) in [
        ("ok", "expect"),
        ("error", "expect"),
        ("ok", "final"),
        ("incomplete", "max_age"),
        ("orphan", "max_age"),
        ("evicted", "shutdown"),
    ] {
        let labels = [flow, ("outcome", outcome), ("reason", reason)];
        assert_eq!(page.only("flow_closed_total", &labels).value, 0.0);
    }
    for result in ["good", "bad"] {
        assert_eq!(page.only("flow_slo_total", &[flow, ("result", result)]).value, 0.0);
    }
    for stage in ["shop", "mail"] {
        assert_eq!(page.only("flow_missing_stage_total", &[flow, ("stage", stage)]).value, 0.0);
    }
    for gauge in ["flow_open", "flow_last_closed_timestamp_seconds"] {
        assert_eq!(page.only(gauge, &[flow]).value, 0.0, "{gauge}");
    }
}

#[test]
fn an_objective_is_measured_from_the_start() {
    let server = Launch::config(QUICK)
        .file("config.yaml", &format!("{QUICK}{CHECKOUT}"))
        .args(&["--defaults.max_age", "5s"])
        .start();
    let flow = ("flow", "checkout");
    let page = server.scrape();
    for result in ["good", "bad"] {
        assert_eq!(page.only("flow_slo_total", &[flow, ("result", result)]).value, 0.0);
    }
    assert_eq!(page.only("flow_slo_objective_ratio", &[flow]).value, 0.999);
    assert_eq!(page.only("flow_overdue", &[flow]).value, 0.0);
    let now = SystemTime::now();
    let slow = Span { start_time_unix_nano: unix_nanos(now - Duration::from_secs(2)), ..span(2, 1) };
    for (service, span) in [("shop", span(1, 1)), ("mail", span(1, 2)), ("shop", slow), ("mail", span(2, 2))]
    {
        assert_eq!(export(&server, Way::Grpc, &request(service, vec![span])), Answer::Accepted);
    }
    let incomplete = request("shop", vec![span(3, 1)]);
    assert_eq!(export(&server, Way::Grpc, &incomplete), Answer::Accepted);
    server.until("the one without its mail is overdue", |page| page.sum("flow_overdue", &[flow]) == 1.0);
    let page = server.until_settled();
    for (result, expected) in [("good", 1.0), ("bad", 2.0)] {
        let found = page.sum("flow_slo_total", &[flow, ("result", result)]);
        assert_eq!(found, expected, "{result}: {}", page.interesting());
    }
    assert_eq!(page.sum("flow_overdue", &[flow]), 0.0);
}

#[test]
fn the_programs_own_closed_label_sets_are_there_at_zero_from_the_start() {
    let page = Server::patient(CHECKOUT).scrape();
    let mut missing: Vec<&str> = Vec::new();
    for name in [
        "events_received_total",
        "events_rejected_total",
        "events_duplicate_total",
        "events_conflict_total",
        "events_unmatched_total",
        "events_over_limit_total",
        "sampled_spans_total",
        "label_conflicts_total",
        "series_overflow_total",
        "open_instances",
        "tombstones",
        "late_seconds_count",
        "close_lag_seconds_count",
    ] {
        let samples = page.samples(&format!("latency_aggregator_{name}"), &[]);
        if samples.is_empty() {
            missing.push(name);
        }
        assert!(samples.iter().all(|sample| sample.value == 0.0), "{name}: {samples:?}");
    }
    assert!(missing.is_empty(), "not there: {missing:?}");
    assert_eq!(
        page.only("latency_aggregator_build_info", &[("version", env!("CARGO_PKG_VERSION"))]).value,
        1.0
    );
    assert!(page.sum("process_resident_memory_bytes", &[]) > 0.0);
}

#[test]
fn every_metric_that_the_contract_names_has_its_family() {
    let server = Server::quick(CHECKOUT);
    assert_eq!(export(&server, Way::Grpc, &request("shop", vec![span(1, 1)])), Answer::Accepted);
    assert_eq!(export(&server, Way::Grpc, &request("mail", vec![span(1, 2)])), Answer::Accepted);
    let page = server.until("it is observed", |page| page.sum("flow_latency_seconds_count", &[]) == 1.0);
    for (name, kind) in [
        ("flow_latency_seconds", "histogram"),
        ("flow_closed_total", "counter"),
        ("flow_stage_seconds", "histogram"),
        ("flow_stage_offset_seconds", "histogram"),
        ("flow_missing_stage_total", "counter"),
        ("flow_open", "gauge"),
        ("flow_last_closed_timestamp_seconds", "gauge"),
    ] {
        assert_eq!(page.family(name).map(|family| family.kind.as_str()), Some(kind), "{name}");
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs_f64();
    let closed = page.sum("flow_last_closed_timestamp_seconds", &[("flow", "checkout")]);
    assert!((now - closed).abs() < 60.0, "{closed}");
    let bounds: Vec<&str> = page
        .samples("flow_latency_seconds_bucket", &[("flow", "checkout"), ("outcome", "ok")])
        .iter()
        .map(|bucket| bucket.labels["le"].as_str())
        .collect();
    assert_eq!(bounds, ["0.5", "1.0", "600.0", "+Inf"]);
    assert_eq!(page.sum("flow_slo_total", &[("flow", "checkout"), ("result", "good")]), 1.0);
}

#[test]
fn a_new_series_is_zero_first_and_exact_after() {
    let zero_first = Duration::from_secs(3);
    let server = Launch::config(QUICK).args(&["--metrics.zero_first", "3s"]).start();
    let spans = (1..=3).map(|trace| span(trace, 1)).collect();
    assert_eq!(export(&server, Way::Grpc, &request("shop", spans)), Answer::Accepted);
    // When the series was first seen, and when it first had a value.
    let count =
        |page: &Page| page.samples("flow_latency_seconds_count", &[]).first().map(|sample| sample.value);
    let page = server.until("the series is there", |page| count(page).is_some());
    let seen = Instant::now();
    assert_eq!(count(&page), Some(0.0), "it begins at zero");
    assert_eq!(page.sum("flow_latency_seconds_sum", &[]), 0.0);
    let page = server.until("it has its value", |page| count(page) != Some(0.0));
    let waited = seen.elapsed();
    assert_eq!(count(&page), Some(3.0), "totals are exact after");
    assert!((page.sum("flow_latency_seconds_sum", &[]) - 0.3).abs() < 1e-6, "{}", page.interesting());
    // It may have been there for a moment before it was seen.
    assert!(waited > zero_first / 2, "{waited:?}");
}

#[test]
fn the_histogram_of_a_push_shows_at_once() {
    let server = Launch::config(QUICK).args(&["--metrics.zero_first", "1h"]).start();
    server.push(&json!({"id": "1", "name": "order", "life_span": 0}));
    eventually("it shows", || server.scrape().sum("order_count", &[]) == 1.0);
    let page = server.scrape();
    assert_eq!(page.sum("flow_latency_seconds_count", &[("flow", "order")]), 0.0);
    assert_eq!(page.sum("flow_closed_total", &[("flow", "order")]), 0.0);
    assert!(!page.samples("flow_closed_total", &[("flow", "order")]).is_empty());
}

#[test]
fn the_shares_of_the_critical_path_are_a_distribution_for_those_who_ask() {
    for wanted in [false, true] {
        let server = Launch::config(QUICK)
            .args(&["--metrics.critical_path_histogram", if wanted { "true" } else { "false" }])
            .start();
        let spans = (1..=3).map(|trace| span(trace, 1)).collect();
        assert_eq!(export(&server, Way::Grpc, &request("shop", spans)), Answer::Accepted);
        let closed = |page: &Page| page.sum("flow_latency_seconds_count", &[]) == 3.0;
        let page = server.until("all is closed", closed);
        let shares = |suffix: &str| page.sum(&format!("flow_critical_path_share_seconds_{suffix}"), &[]);
        let expected =
            if wanted { (3.0, page.sum("flow_critical_path_seconds_total", &[])) } else { (0.0, 0.0) };
        assert_eq!((shares("count"), shares("sum")), expected);
    }
}

fn sum(page: &Page, name: &str) -> f64 {
    page.sum(&format!("latency_aggregator_{name}"), &[])
}

/// How many events, and how many instances, are counted nowhere or twice. On a page that is read while something is being closed
/// that may be some, for a moment.
fn unaccounted(page: &Page) -> (f64, f64) {
    let received = sum(page, "events_received_total");
    let homes = [
        "events_open",
        "events_closed_total",
        "events_unmatched_total",
        "late_events_total",
        "events_duplicate_total",
        "events_over_limit_total",
        "events_rejected_total",
        "events_ignored_total",
    ];
    let found: f64 = homes.iter().map(|name| sum(page, name)).sum();
    let events = received - found;
    let opened = sum(page, "instances_opened_total");
    let ended =
        ["open_instances", "instances_closed_total", "instances_unmatched_total", "instances_merged_total"];
    let found: f64 = ended.iter().map(|name| sum(page, name)).sum();
    (events, opened - found)
}

/// Requests of all kinds over all ways: good, repeated, bad, ignored, and pushes.
fn mixed_load(server: &Server) {
    let now = SystemTime::now();
    for (trace, way) in (1..=30).zip(Way::ALL.into_iter().cycle()) {
        let root = span(trace, 1);
        let child = Span { parent_span_id: vec![1; 8], status: None, ..span(trace, 2) };
        let bad = Span { trace_id: Vec::new(), ..span(trace, 3) };
        let old = Span { end_time_unix_nano: 5, ..span(trace, 4) };
        let conflict =
            Span { end_time_unix_nano: unix_nanos(now + Duration::from_secs(1)), ..span(trace, 2) };
        let unmatched = Span { name: "other".to_owned(), ..span(trace + 100, 1) };
        let good = request("shop", vec![child.clone(), bad, child, old, unmatched]);
        assert_eq!(export(server, way, &good).rejected(), 2, "{way:?}");
        assert_eq!(export(server, way, &request("mail", vec![root])), Answer::Accepted);
        assert_eq!(export(server, way, &request("shop", vec![conflict])), Answer::Accepted);
        let id = (trace % 10).to_string();
        server.push(&json!([
            {"id": id, "name": "order", "stage": "a", "life_span": 0.2},
            {"id": id, "name": "order", "stage": "a", "life_span": 0.2},
            {"id": id, "name": "order", "stage": "b", "life_span": 0},
            {"id": id, "name": "not a name"},
        ]));
        server.push_plain("{");
    }
}

#[test]
fn what_came_in_is_what_is_open_closed_or_accounted_for() {
    let config = "
trace_flow: false
flows:
  - {name: checkout, match: 'span.name == \"POST /orders\"'}
";
    for base in [QUICK, PATIENT] {
        let server = Launch::config(&format!("{base}{config}")).start();
        mixed_load(&server);
        let is_right = |page: &Page| unaccounted(page) == (0.0, 0.0);
        let page = server.until("each event and instance is counted once", is_right);
        let page = if base == QUICK { server.until_settled() } else { page };
        assert_eq!(unaccounted(&page), (0.0, 0.0), "{}", page.interesting());
        assert_eq!(sum(&page, "events_received_total"), 30.0 * (5.0 + 1.0 + 1.0 + 4.0));
        assert_eq!(sum(&page, "events_rejected_total"), 30.0 * 3.0);
        if base == QUICK {
            assert_eq!(sum(&page, "events_unmatched_total"), 30.0);
            let closed = page.sum("flow_closed_total", &[]);
            assert_eq!(closed, sum(&page, "instances_closed_total"), "{}", page.interesting());
            let observed = page.sum("flow_latency_seconds_count", &[]);
            assert_eq!(observed, closed, "all ended well");
            assert_eq!(page.sum("flow_closed_total", &[("flow", "checkout")]), 30.0);
        }
    }
}

#[test]
fn the_built_in_flow_names_root_service_and_root_name() {
    let server = Server::quick("");
    let child = Span { parent_span_id: vec![1; 8], name: "send".to_owned(), ..span(1, 2) };
    assert_eq!(export(&server, Way::Json, &request("mail", vec![child])), Answer::Accepted);
    assert_eq!(export(&server, Way::Grpc, &request("shop", vec![span(1, 1)])), Answer::Accepted);
    let page = server.until("it is observed", |page| page.sum("flow_latency_seconds_count", &[]) == 1.0);
    let labels =
        [("flow", "trace"), ("outcome", "ok"), ("root_service", "shop"), ("root_name", "POST /orders")];
    assert_eq!(page.only("flow_latency_seconds_count", &labels).value, 1.0);
    assert_eq!(page.only("flow_closed_total", &labels).labels["reason"], "root");
}
