//! One instance explained: by the API while the program runs, and by `replay` from recorded traces.

mod support;

use std::time::SystemTime;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Link;
use serde_json::{Value, json};
use support::exposition::Page;
use support::otlp::{Answer, Way, attribute, export, request, span, unix_nanos};
use support::{Finished, Launch, PATIENT, QUICK, Server};

/// From the gateway over a queue to shipping.
const CHECKOUT: &str = r#"
flows:
  - name: checkout
    match: 'resource.attributes["service.name"] == "gateway" and span.name == "POST /orders"'
    expect: [gateway, payment, shipping]
    labels: {tenant: 'span.attributes["tenant"]'}
"#;

/// Services and their spans of an order, as (service, id, parent, kind, name, from, to), in seconds after its start.
const ORDER: [(&str, u8, u8, i32, &str, f64, f64); 6] = [
    ("gateway", 1, 0, 2, "POST /orders", 0.0, 0.5),
    ("gateway", 2, 1, 3, "charge", 0.1, 0.3),
    ("payment", 3, 2, 2, "POST /charge", 0.15, 0.25),
    ("gateway", 4, 1, 4, "orders send", 0.4, 0.45),
    ("shipping", 5, 4, 5, "orders process", 2.45, 3.0),
    ("shipping", 6, 5, 1, "print label", 2.5, 2.9),
];

/// The order's spans by service, its start so long ago.
fn order(trace: u8, start_unix_nanos: u64) -> Vec<(&'static str, Span)> {
    let time = |seconds: f64| start_unix_nanos + (seconds * 1e9).round() as u64;
    let made = |(service, id, parent, kind, name, from, to): (&'static str, u8, u8, i32, &str, f64, f64)| {
        let made = Span {
            parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
            name: name.to_owned(),
            kind,
            start_time_unix_nano: time(from),
            end_time_unix_nano: time(to),
            attributes: if id == 1 { vec![attribute("tenant", "blue")] } else { Vec::new() },
            ..span(trace, id)
        };
        (service, made)
    };
    ORDER.into_iter().map(made).collect()
}

/// One line of the Collector's file exporter for each span.
fn lines(spans: &[(&str, Span)]) -> String {
    let line = |(service, span): &(&str, Span)| {
        serde_json::to_string(&request(service, vec![span.clone()])).expect("it can be written") + "\n"
    };
    spans.iter().map(line).collect()
}

/// Years ago.
const LONG_AGO: u64 = 1_500_000_000_000_000_000;

#[track_caller]
fn json_of(finished: &Finished) -> Value {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    serde_json::from_str(&finished.stdout).expect("it is JSON")
}

/// The critical path as (stage, kind, name, milliseconds).
fn path(instance: &Value) -> Vec<(String, String, String, f64)> {
    let text = |step: &Value, key: &str| step[key].as_str().expect("it is text").to_owned();
    let steps = instance["critical_path"].as_array().expect("it is a list");
    let step = |step: &Value| {
        let milliseconds = (step["seconds"].as_f64().expect("it is a number") * 1e6).round() / 1e3;
        (text(step, "stage"), text(step, "kind"), text(step, "name"), milliseconds)
    };
    steps.iter().map(step).collect()
}

fn check_order(instance: &Value) {
    assert_eq!(instance["flow"], "checkout");
    assert_eq!((&instance["outcome"], &instance["reason"]), (&json!("ok"), &json!("expect")), "{instance}");
    assert_eq!(instance["latency_seconds"], 3.0);
    assert_eq!(instance["matched_by"], "the span \"POST /orders\" of \"gateway\"");
    assert_eq!(instance["labels"], json!([{"name": "tenant", "value": "blue"}]));
    let expected = [
        ("gateway", "work", "POST /orders", 100.0),
        ("gateway", "work", "charge", 50.0),
        ("payment", "work", "POST /charge", 100.0),
        ("gateway", "work", "charge", 50.0),
        ("gateway", "work", "POST /orders", 100.0),
        ("gateway", "work", "orders send", 50.0),
        ("shipping", "wait", "orders process", 2000.0),
        ("shipping", "work", "orders process", 50.0),
        ("shipping", "work", "print label", 400.0),
        ("shipping", "work", "orders process", 100.0),
    ];
    let expected = expected.map(|(stage, kind, name, ms)| (stage.into(), kind.into(), name.into(), ms));
    assert_eq!(path(instance), expected);
    assert_eq!(
        instance["stages"],
        json!([
            {"stage": "gateway", "inside_seconds": 0.5, "offset_seconds": 0.0},
            {"stage": "payment", "inside_seconds": 0.1, "offset_seconds": 0.15},
            {"stage": "shipping", "inside_seconds": 0.55, "offset_seconds": 2.45},
        ])
    );
    assert_eq!(instance["transitions"], json!([{"from": "gateway", "to": "shipping", "seconds": 2.0}]));
    assert_eq!(instance["events"].as_array().map(Vec::len), Some(6));
}

#[test]
fn replay_explains_recorded_traces_however_old_they_are() {
    let spans = order(1, LONG_AGO);
    let year_later = order(2, LONG_AGO + 365 * 86_400 * 1_000_000_000);
    let finished = Launch::config(CHECKOUT)
        .file("traces.json", &(lines(&spans) + &lines(&year_later)))
        .args(&["replay", "--output", "json", "traces.json"])
        .run();
    let report = json_of(&finished);
    let instances = report["instances"].as_array().expect("it is a list");
    assert_eq!(instances.len(), 2);
    for (instance, trace) in instances.iter().zip(["01", "02"]) {
        assert_eq!(instance["key"], trace.repeat(16));
        check_order(instance);
    }
    assert_eq!(instances[0]["started_at"], "2017-07-14T02:40:00Z");
    assert_eq!(report["spans"]["read"], 12);
    let page = Page::parse(report["metrics"].as_str().expect("it is text"));
    assert_eq!(page.sum("flow_latency_seconds_count", &[("flow", "checkout"), ("outcome", "ok")]), 2.0);
    assert_eq!(page.sum("flow_latency_seconds_sum", &[]), 6.0);
}

#[test]
fn replay_and_the_api_say_the_same_of_the_same_trace() {
    let now = unix_nanos(SystemTime::now()) - 4_000_000_000;
    let spans = order(1, now);
    let replayed = Launch::config(CHECKOUT)
        .file("traces.json", &lines(&spans))
        .args(&["replay", "--output", "json", "traces.json"])
        .run();
    let mut replayed = json_of(&replayed);
    let server = Server::quick(CHECKOUT);
    for (service, span) in spans {
        assert_eq!(export(&server, Way::Grpc, &request(service, vec![span])), Answer::Accepted);
    }
    let page = server.until("it is closed", |page| page.sum("flow_latency_seconds_count", &[]) == 1.0);
    let mut told = server.get(&format!("/api/flows/checkout/{}", "01".repeat(16))).json();
    check_order(&told);
    for instance in [&mut told, &mut replayed["instances"][0]] {
        // By the clock of the program, which is an invented one for `replay`.
        let closed_at = instance.as_object_mut().and_then(|instance| instance.remove("closed_at"));
        assert!(closed_at.is_some());
    }
    assert_eq!(told, replayed["instances"][0]);
    let metrics = Page::parse(replayed["metrics"].as_str().expect("it is text"));
    for name in
        ["flow_latency_seconds_sum", "flow_critical_path_seconds_total", "flow_transition_seconds_sum"]
    {
        assert_eq!(metrics.sum(name, &[]), page.sum(name, &[]), "{name}");
    }
}

#[test]
fn replay_reads_jaegers_export_as_it_reads_otlp() {
    let microseconds = |nanos: u64| nanos / 1000;
    let id = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let kinds = [(2, "server"), (3, "client"), (4, "producer"), (5, "consumer"), (1, "internal")];
    let spans: Vec<Value> = order(1, LONG_AGO)
        .iter()
        .map(|(service, span)| {
            let kind = kinds.iter().find(|(kind, _)| *kind == span.kind).expect("it is one of them").1;
            let mut tags = vec![json!({"key": "span.kind", "type": "string", "value": kind})];
            if !span.attributes.is_empty() {
                tags.push(json!({"key": "tenant", "type": "string", "value": "blue"}));
            }
            let parent = id(&span.parent_span_id);
            let reference = json!({"refType": "CHILD_OF", "traceID": id(&span.trace_id), "spanID": parent});
            json!({
                "traceID": id(&span.trace_id), "spanID": id(&span.span_id), "operationName": span.name,
                "references": if parent.is_empty() { json!([]) } else { json!([reference]) },
                "startTime": microseconds(span.start_time_unix_nano),
                "duration": microseconds(span.end_time_unix_nano - span.start_time_unix_nano),
                "tags": tags, "processID": service,
            })
        })
        .collect();
    let process = |service: &str| json!({"serviceName": service, "tags": []});
    let processes = json!({
        "gateway": process("gateway"), "payment": process("payment"), "shipping": process("shipping"),
    });
    let export = json!({"data": [{"traceID": "01".repeat(16), "spans": spans, "processes": processes}]});
    let finished = Launch::config(CHECKOUT)
        .file("jaeger.json", &export.to_string())
        .args(&["replay", "--output", "json", "jaeger.json"])
        .run();
    check_order(&json_of(&finished)["instances"][0]);
}

#[test]
fn replay_tells_people_too() {
    let finished = Launch::config(CHECKOUT)
        .file("traces.json", &lines(&order(1, LONG_AGO)))
        .args(&["replay", "traces.json"])
        .run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for line in [
        "checkout 01010101010101010101010101010101: ok in 3 s, closed by expect\n",
        "  matched by the span \"POST /orders\" of \"gateway\"; 6 events\n",
        "             2 s  wait    shipping  orders process\n",
        "  from gateway to shipping: 2 s\n",
        "1 instances of 6 spans; 0 of no flow, 0 ignored, 0 repeated, 0 late, 0 over a limit, 0 rejected\n",
        "flow_latency_seconds_count{flow=\"checkout\",outcome=\"ok\",tenant=\"blue\"} 1\n",
    ] {
        assert!(finished.stdout.contains(line), "no {line:?} in:\n{}", finished.stdout);
    }
    assert_eq!(finished.stderr, "", "no progress bar where nobody looks");
}

#[test]
fn files_that_cannot_be_replayed_are_named() {
    let cut = lines(&order(1, LONG_AGO));
    for (file, says) in [
        ("missing.json", "missing.json"),
        ("empty.json", "empty.json"),
        ("words.json", "words.json"),
        ("cut.json", "cut.json: line 6"),
    ] {
        let finished = Launch::config(CHECKOUT)
            .file("empty.json", "")
            .file("words.json", "hello")
            .file("cut.json", &cut[..cut.len() - 20])
            .args(&["replay", file])
            .run();
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains(says), "{}", finished.stderr);
    }
    let finished = Launch::bare().args(&["replay"]).run();
    assert_eq!(finished.code, Some(2), "{finished:?}");
}

#[test]
fn check_tells_what_each_flow_would_take_of_recorded_traces() {
    let mut spans = order(1, LONG_AGO);
    spans.extend(order(2, LONG_AGO));
    spans.push((
        "cron",
        Span {
            name: "tick".to_owned(),
            start_time_unix_nano: LONG_AGO,
            end_time_unix_nano: LONG_AGO + 1,
            ..span(9, 9)
        },
    ));
    let finished = Launch::config(CHECKOUT)
        .file("traces.json", &lines(&spans))
        .args(&["check", "config.yaml", "--traces", "traces.json"])
        .run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for line in [
        "Of 13 spans in 1 files:\n",
        "- checkout: 12 spans, 2 instances 2 ok\n",
        "- trace: 1 spans, 1 instances 1 ok\n",
    ] {
        assert!(finished.stdout.contains(line), "no {line:?} in:\n{}", finished.stdout);
    }
}

#[test]
fn the_api_explains_what_an_open_instance_waits_for() {
    let server = Launch::config(&format!("{PATIENT}{CHECKOUT}")).start();
    let now = unix_nanos(SystemTime::now()) - 4_000_000_000;
    for (service, span) in
        order(1, now).into_iter().filter(|(service, span)| *service == "gateway" && span.kind != 3)
    {
        assert_eq!(export(&server, Way::Grpc, &request(service, vec![span])), Answer::Accepted);
    }
    let told = server.get(&format!("/api/flows/checkout/{}", "01".repeat(16))).json();
    assert_eq!(told["state"], "open");
    assert_eq!(told["outcome"], Value::Null);
    assert_eq!(told["latency_seconds"], 0.5, "so far");
    let waits: Vec<&str> =
        told["waits_for"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(
        waits,
        [
            "the consumer of a PRODUCER span, for 1m after its last event",
            "the expected stage \"payment\"",
            "the expected stage \"shipping\"",
        ]
    );
    assert!(told["looked_at_again_in_seconds"].as_f64().is_some_and(|seconds| seconds > 200.0), "{told}");
    // By a UUID, too; and asking changes nothing.
    let by_uuid = server.get("/api/flows/checkout/01010101-0101-0101-0101-010101010101").json();
    assert_eq!(by_uuid["events"], told["events"]);
    let flows = server.get("/api/flows").json();
    assert_eq!(flows["flows"][0]["flow"], "checkout");
    assert_eq!(flows["flows"][0]["open"], 1);
    assert_eq!(flows["flows"][1], json!({"flow": "trace", "origin": "built_in", "open": 0, "recent": []}));
}

#[test]
fn the_api_explains_pushes_and_lists_what_was_closed_last() {
    let server = Launch::config(QUICK).args(&["--api.recent", "2"]).start();
    for id in ["a b/c", "2", "3"] {
        server.push(&json!({"id": id, "name": "order", "stage": "placed", "life_span": 60}));
    }
    let open = server.get("/api/flows/order/a%20b%2Fc").json();
    assert_eq!((&open["state"], &open["key"]), (&json!("open"), &json!("a b/c")));
    for id in ["a b/c", "2", "3"] {
        server.push(&json!({"id": id, "name": "order", "stage": "shipped", "life_span": 0}));
    }
    server.until("all are closed", |page| page.sum("flow_closed_total", &[("flow", "order")]) == 3.0);
    let flows = server.get("/api/flows").json();
    let recent = &flows["flows"][1]["recent"];
    let keys: Vec<&Value> =
        recent.as_array().expect("a list").iter().map(|closing| &closing["key"]).collect();
    assert_eq!(keys, ["3", "2"], "the last one first, no more than two");
    assert_eq!(recent[0]["outcome"], "ok");
    let told = server.get("/api/flows/order/2").json();
    assert_eq!(told["matched_by"], "pushes with its name");
    assert_eq!(told["events"].as_array().map(Vec::len), Some(2));
    for path in ["/api/flows/order/a%20b%2Fc", "/api/flows/nothing/2"] {
        let reply = server.get(path);
        assert_eq!(reply.status, 404);
        assert!(reply.json()["error"].as_str().is_some_and(|error| error.contains("/api/flows")));
    }
}

#[test]
fn the_api_explains_instances_of_several_traces() {
    let server = Server::quick(
        "flows: [{name: orders, match: 'span.attributes[\"order.id\"] != nil', key: 'span.attributes[\"order.id\"]'}]\n",
    );
    let keyed = |trace: u8| Span { attributes: vec![attribute("order.id", "17")], ..span(trace, 1) };
    assert_eq!(export(&server, Way::Grpc, &request("shop", vec![keyed(1)])), Answer::Accepted);
    let link = Link { trace_id: vec![1; 16], span_id: vec![1; 8], ..Link::default() };
    let linked = Span { links: vec![link], kind: 5, ..span(2, 1) };
    assert_eq!(export(&server, Way::Grpc, &request("mail", vec![linked])), Answer::Accepted);
    server.until("it is closed", |page| page.sum("flow_closed_total", &[("flow", "orders")]) == 1.0);
    let told = server.get("/api/flows/orders/17").json();
    assert_eq!(
        told["matched_by"],
        "the span \"POST /orders\" of \"shop\", found by the value of its business key"
    );
    assert_eq!(told["traces"], json!(["01".repeat(16), "02".repeat(16)]));
    let by_trace = server.get(&format!("/api/flows/orders/{}", "02".repeat(16))).json();
    assert_eq!(by_trace, told, "by one of its traces");
}
