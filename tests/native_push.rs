//! The push API, as the ancestor's clients and shell scripts use it, and as no client should.

mod support;

use std::sync::OnceLock;

use serde_json::{Value, json};
use support::exposition::{Page, label_names};
use support::otlp::{Answer, Way, attribute, export, request, span};
use support::{Launch, PATIENT, QUICK, Reply, Server, Wire, gzip, zstd};

const JSON: (&str, &str) = ("content-type", "application/json");

/// What the ancestor's Go client sends for a stage: all fields, those that were not set as Go's zero values.
fn go_payload(id: &str, name: &str, stage: &str, help: &str, life_span: f64) -> String {
    format!(
        r#"{{"id":"{id}","name":"{name}","help":"{help}","life_span":{life_span},"stage":"{stage}","buckets":null,"label_values":null,"const_labels":null,"time_to_live":0,"created_at":"0001-01-01T00:00:00Z","force_registry_update":false}}"#
    )
}

/// A date, a number of seconds from when the tests began: differences of dates are exact.
fn date(offset_seconds: f64) -> String {
    static BEGAN: OnceLock<jiff::Timestamp> = OnceLock::new();
    let offset = jiff::SignedDuration::from_secs_f64(offset_seconds);
    (*BEGAN.get_or_init(jiff::Timestamp::now) + offset).to_string()
}

fn events(page: &Page, what: &str) -> f64 {
    page.sum(&format!("latency_aggregator_events_{what}_total"), &[])
}

#[track_caller]
fn check_ok(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.header("content-type").starts_with("application/json"), "{reply:?}");
    let body = reply.json();
    assert!(body.is_object(), "the ancestor's client decodes an object: {body}");
    assert_eq!(body["status"], "ok", "{body}");
    body
}

/// A refusal: its code, and a body that says why in words and that there is no point in trying again.
#[track_caller]
fn check_refused(reply: &Reply, code: u16) -> String {
    assert_eq!(reply.status, code, "{}", reply.text());
    assert!(reply.header("content-type").starts_with("application/json"), "{reply:?}");
    let body = reply.json();
    assert_eq!(body["retryable"], false, "{body}");
    let error = body["error"].as_str().expect("a message");
    assert!(!error.is_empty());
    error.to_owned()
}

/// Nothing of it may be seen anywhere but in the counters of what was refused.
#[track_caller]
fn assert_nothing_was_accepted(server: &Server) {
    let page = server.scrape();
    let accepted = events(&page, "received") - events(&page, "rejected");
    assert_eq!(accepted, 0.0, "{}", page.interesting());
    assert_eq!(page.sum("latency_aggregator_instances_opened_total", &[]), 0.0);
    assert_eq!(page.sum("latency_aggregator_open_instances", &[]), 0.0);
    assert!(page.family("order").is_none());
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn the_ancestors_go_client_pushes_its_order_flow_unchanged() {
    let server = Server::quick("");
    for (stage, help, life_span) in
        [("placed", "Time of an order", 60.0), ("paid", "", 60.0), ("shipped", "", 0.0)]
    {
        check_ok(&server.push_plain(go_payload("1", "order", stage, help, life_span)));
    }
    let page = server.until("the order is observed", |page| page.sum("order_count", &[]) == 1.0);
    assert_eq!(page.family("order").map(|family| family.help.as_str()), Some("Time of an order"));
    let count = page.only("order_count", &[]);
    assert!(count.labels.is_empty(), "neither flow nor outcome: {count:?}");
    assert_eq!(page.sum("flow_latency_seconds_count", &[("flow", "order"), ("outcome", "ok")]), 1.0);
    assert_eq!(
        page.sum("flow_closed_total", &[("flow", "order"), ("outcome", "ok"), ("reason", "quiet")]),
        1.0
    );
}

#[test]
fn a_life_span_of_zero_closes_at_once() {
    let server = Server::patient("");
    check_ok(&server.push_plain(go_payload("1", "order", "only", "Help", 0.0)));
    let page = server.until("it is observed", |page| page.sum("order_count", &[]) == 1.0);
    assert_eq!(page.sum("order_sum", &[]), 0.0);
}

#[test]
fn the_event_times_decide_what_is_measured() {
    let server = Server::quick("");
    let push = |stage: &str, offset: f64, life_span: f64| {
        json!({"id": "1", "name": "order", "stage": stage, "life_span": life_span,
               "created_at": date(offset), "buckets": [1, 5, 60]})
    };
    // Out of order: the last to arrive is not the last that happened.
    for (stage, offset, life_span) in
        [("shipped", -10.0, 60.0), ("placed", -52.5, 60.0), ("paid", -30.0, 0.0)]
    {
        check_ok(&server.push(&push(stage, offset, life_span)));
    }
    let page = server.until("it is observed", |page| page.sum("order_count", &[]) == 1.0);
    assert!((page.only("order_sum", &[]).value - 42.5).abs() < 1e-6, "{}", page.interesting());
    let bounds: Vec<(String, f64)> = page
        .samples("order_bucket", &[])
        .iter()
        .map(|bucket| (bucket.labels["le"].clone(), bucket.value))
        .collect();
    let expected = [("1.0", 0.0), ("5.0", 0.0), ("60.0", 1.0), ("+Inf", 1.0)];
    assert_eq!(bounds, expected.map(|(bound, value)| (bound.to_owned(), value)));
    for (stage, offset) in [("placed", 0.0), ("paid", 22.5), ("shipped", 42.5)] {
        let labels = [("flow", "order"), ("stage", stage)];
        let reached = page.only("flow_stage_offset_seconds_sum", &labels).value;
        assert!((reached - offset).abs() < 1e-6, "{stage}: {reached}");
        let inside = page.sum("flow_stage_seconds_count", &labels);
        assert_eq!(inside, 0.0, "a stage of pushes only has no inside");
    }
}

#[test]
fn every_spelling_of_a_date_is_understood() {
    let server = Server::patient("");
    let base = date(-60.0);
    let plain = base.split(['.', 'Z']).next().expect("a date").to_owned();
    for (number, created_at) in [
        json!(format!("{plain}Z")),
        json!(format!("{plain}.5Z")),
        json!(format!("{plain}.123456789Z")),
        json!(format!("{plain}+00:00")),
        json!(format!("{plain}-00:00")),
        json!(plain.replace('T', "t") + "z"),
        json!("0001-01-01T00:00:00Z"),
        json!("0001-06-30T12:00:00+01:00"),
        Value::Null,
    ]
    .into_iter()
    .enumerate()
    {
        let push = json!({"id": number.to_string(), "name": "order", "created_at": created_at});
        let reply = server.push(&push);
        assert_eq!(reply.status, 200, "{created_at}: {}", reply.text());
    }
}

#[test]
fn null_counts_as_absent_in_every_field_that_may_be_absent() {
    let server = Server::patient("");
    for field in [
        "help",
        "life_span",
        "stage",
        "buckets",
        "label_values",
        "const_labels",
        "time_to_live",
        "created_at",
        "final",
        "status",
        "force_registry_update",
    ] {
        let mut push = json!({"id": field, "name": "order"});
        push[field] = Value::Null;
        let body = check_ok(&server.push(&push));
        assert!(body.get("warnings").is_none(), "{field}: {body}");
    }
    for field in ["id", "name"] {
        let mut push = json!({"id": "1", "name": "order"});
        push[field] = Value::Null;
        let error = check_refused(&server.push(&push), 400);
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn an_unknown_field_is_accepted_with_a_warning_that_names_it() {
    let server = Server::patient("");
    for (field, expected) in [
        ("lifespan", "unknown field `lifespan`, did you mean `life_span`?"),
        ("lable_values", "unknown field `lable_values`, did you mean `label_values`?"),
        ("completely_different", "unknown field `completely_different`"),
    ] {
        let mut push = json!({"id": field, "name": "order"});
        push[field] = json!(5);
        let reply = server.push(&push);
        check_ok(&reply);
        assert!(reply.json().to_string().contains(expected), "{}", reply.text());
    }
    assert_eq!(events(&server.scrape(), "received"), 3.0);
    let body = check_ok(&server.push(&json!({"id": "2", "name": "order", "force_registry_update": true})));
    assert!(!body.to_string().contains("warning"), "the ancestor's field is known: {body}");
}

#[test]
fn an_array_is_answered_with_what_became_of_each() {
    let server = Server::patient("");
    let good = |id: &str| json!({"id": id, "name": "order"});
    let bad = json!({"id": "", "name": "order"});
    for (pushes, status, accepted, rejected) in [
        (json!([]), "ok", 0, vec![]),
        (json!([good("1")]), "ok", 1, vec![]),
        (json!([good("2"), good("3")]), "ok", 2, vec![]),
        (json!([good("4"), bad, good("5"), 7, null, []]), "partial", 2, vec![1, 3, 4, 5]),
        (json!([{"id": "6"}, good("6"), {"id": "7", "name": "a b"}]), "partial", 1, vec![0, 2]),
    ] {
        let reply = server.push(&pushes);
        assert_eq!(reply.status, 200, "{pushes}: {}", reply.text());
        let body = reply.json();
        assert_eq!(body["status"], status, "{pushes}: {body}");
        assert_eq!(body["accepted"], accepted, "{pushes}: {body}");
        let all = body["rejected"].as_array().expect("what was rejected");
        let indices: Vec<u64> = all.iter().filter_map(|one| one["index"].as_u64()).collect();
        assert_eq!(indices, rejected, "{pushes}: {body}");
        let explained = |one: &Value| one["error"].as_str().is_some_and(|error| !error.is_empty());
        assert!(all.iter().all(explained), "{body}");
    }
    let page = server.scrape();
    assert_eq!(page.sum("latency_aggregator_open_instances", &[]), 6.0);
    assert_eq!(events(&page, "rejected"), 6.0, "{}", page.interesting());
    assert_eq!(events(&page, "received"), 12.0);
}

#[test]
fn an_array_of_which_nothing_is_right_is_partial_with_no_accepted_event() {
    let server = Server::patient("");
    let reply = server.push(&json!([{"id": "1"}, {"name": "order"}]));
    let body = reply.json();
    assert_eq!((reply.status, &body["accepted"]), (200, &json!(0)), "{body}");
    assert_eq!(body["rejected"].as_array().map(Vec::len), Some(2), "{body}");
    assert_nothing_was_accepted(&server);
}

#[test]
fn what_is_no_push_is_refused_with_a_reason() {
    let server = Server::patient("");
    let mut wrong = Vec::new();
    for body in [
        "",
        " ",
        "{",
        "}",
        "null",
        "1",
        r#""order""#,
        "{}",
        r#"{"id":"1"}"#,
        r#"{"name":"order"}"#,
        r#"{"id":"1","name":"order"} {"id":"2","name":"order"}"#,
        r#"{"id":"1","name":"order",}"#,
        r#"{"id":1,"name":"order"}"#,
        r#"{"id":"1","name":["order"]}"#,
        r#"{"id":"1","name":"order","life_span":"5"}"#,
        r#"{"id":"1","name":"order","life_span":NaN}"#,
        r#"{"id":"1","name":"order","life_span":Infinity}"#,
        r#"{"id":"1","name":"order","life_span":1e999}"#,
        r#"{"id":"1","name":"order","life_span":-1}"#,
        r#"{"id":"1","name":"order","life_span":1e300}"#,
        r#"{"id":"1","name":"order","time_to_live":-1}"#,
        r#"{"id":"1","name":"order","time_to_live":1e999}"#,
        r#"{"id":"1","name":"order","time_to_live":true}"#,
        r#"{"id":"1","name":"order","stage":5}"#,
        r#"{"id":"1","name":"order","help":5}"#,
        r#"{"id":"1","name":"order","buckets":5}"#,
        r#"{"id":"1","name":"order","buckets":["1"]}"#,
        r#"{"id":"1","name":"order","buckets":[2,1]}"#,
        r#"{"id":"1","name":"order","buckets":[1,1]}"#,
        r#"{"id":"1","name":"order","buckets":[1e999]}"#,
        r#"{"id":"1","name":"order","buckets":[-1,1]}"#,
        r#"{"id":"1","name":"order","label_values":[]}"#,
        r#"{"id":"1","name":"order","label_values":{"a":{}}}"#,
        r#"{"id":"1","name":"order","final":"yes"}"#,
        r#"{"id":"1","name":"order","final":1}"#,
        r#"{"id":"1","name":"order","status":"failed"}"#,
        r#"{"id":"1","name":"order","status":true}"#,
        r#"{"id":"1","name":"order","created_at":5}"#,
        r#"{"id":"1","name":"order","created_at":"yesterday"}"#,
        r#"{"id":"1","name":"order","created_at":"2024-02-30T00:00:00Z"}"#,
        r#"{"id":"1","name":"order","created_at":"2024-01-01T25:00:00Z"}"#,
        r#"{"id":"1","name":"order","created_at":"2024-01-01"}"#,
        r#"{"id":"1","name":"order","created_at":"2024-01-01T00:00:00"}"#,
        r#"{"id":"1","name":"order","created_at":"9999-12-31T23:59:59Z"}"#,
        r#"{"id":"1","name":"order","created_at":"9999-12-31T23:59:59-23:59"}"#,
        r#"{"id":"1","name":"order","created_at":"1970-01-01T00:00:00Z"}"#,
        r#"{"id":"1","name":"order","created_at":"0002-01-01T00:00:00Z"}"#,
        r#"{"id":"1","name":"order","created_at":"-000001-01-01T00:00:00Z"}"#,
        r#"{"id":"1","name":"order","created_at":"99999-01-01T00:00:00Z"}"#,
    ] {
        let reply = server.push_with(&[JSON], body);
        if reply.status == 400 {
            check_refused(&reply, 400);
        } else {
            wrong.push((body, reply.status, reply.text()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let not_utf8 = b"{\"id\":\"\xff\",\"name\":\"order\"}".to_vec();
    check_refused(&server.push_with(&[JSON], not_utf8), 400);
    assert_nothing_was_accepted(&server);
}

#[test]
fn an_empty_date_is_no_date() {
    let server = Server::patient("");
    check_refused(&server.push(&json!({"id": "1", "name": "order", "created_at": ""})), 400);
    assert_nothing_was_accepted(&server);
}

#[test]
fn what_is_nested_without_end_is_refused() {
    let server = Server::patient("");
    for open in ["[", r#"{"id":"#, r#"{"label_values":"#, r#"{"unknown":["#] {
        check_refused(&server.push_with(&[JSON], open.repeat(100_000)), 400);
    }
    assert_nothing_was_accepted(&server);
}

#[test]
fn an_id_has_1_to_256_bytes() {
    let server = Server::patient("");
    for (id, fits) in [
        (String::new(), false),
        ("x".repeat(256), true),
        ("x".repeat(257), false),
        ("é".repeat(128), true),
        ("é".repeat(128) + "x", false),
        ("\u{0}\n\"\\ 🦀".to_owned(), true),
    ] {
        let reply = server.push(&json!({"id": id, "name": "order"}));
        assert_eq!(reply.status, if fits { 200 } else { 400 }, "{} bytes: {}", id.len(), reply.text());
        if !fits {
            assert!(check_refused(&reply, 400).contains("id"));
        }
    }
}

#[test]
fn a_name_is_a_metric_name_that_is_not_taken() {
    let server = Server::patient("");
    for name in [
        "",
        "1order",
        "order flow",
        "order-flow",
        "örder",
        "order\n",
        "order{a=\"b\"}",
        "order\u{0}",
        "flow_latency_seconds",
        "flow_anything",
        "latency_aggregator_events",
        &"x".repeat(10_000),
    ] {
        let error = check_refused(&server.push(&json!({"id": "1", "name": name})), 400);
        assert!(error.contains("name"), "{name:?}: {error}");
    }
    assert_nothing_was_accepted(&server);
    for name in ["Order", "_order", "order_2"] {
        check_ok(&server.push(&json!({"id": "1", "name": name})));
    }
}

#[test]
fn reserved_and_impossible_label_names_are_refused_and_named() {
    let server = Server::patient("");
    for field in ["label_values", "const_labels"] {
        for label in ["le", "flow", "stage", "outcome", "__name__", "__x", "", "1a", "a-b", "a b", "é", "a:b"]
        {
            let mut push = json!({"id": "1", "name": "order"});
            push[field] = json!({label: "x"});
            let error = check_refused(&server.push(&push), 400);
            assert!(error.contains(label), "{field} {label:?}: {error}");
        }
    }
    assert_nothing_was_accepted(&server);
}

#[test]
fn hostile_label_values_and_help_texts_do_not_break_the_page() {
    let server = Server::quick("");
    let values = [
        "a\nb",
        "\"",
        "\\",
        "a\\nb\"}\n# TYPE x counter\nx 1\n",
        "🦀",
        "\u{0}\u{1}\r\t",
        "",
        " ",
        "\u{2028}",
    ];
    for (number, value) in values.iter().enumerate() {
        let push = json!({"id": number.to_string(), "name": "order", "stage": value, "life_span": 0,
                          "help": value, "label_values": {"a": value}});
        check_ok(&server.push(&push));
    }
    server.until("all are observed, each under its value", |page| {
        values.iter().all(|value| {
            let stage = [("flow", "order"), ("stage", value)];
            page.sum("flow_stage_offset_seconds_count", &stage) == 1.0
                && page.sum("order_count", &[("a", value)]) == 1.0
        })
    });
}

#[test]
fn long_values_are_cut_on_a_character() {
    let server = Server::quick("");
    let value = "é".repeat(10_000);
    check_ok(&server.push(&json!({"id": "1", "name": "order", "life_span": 0, "stage": value,
                                  "label_values": {"a": value}})));
    let page = server.until("it is observed", |page| page.sum("order_count", &[]) == 1.0);
    let kept = &page.only("order_count", &[]).labels["a"];
    assert!(kept.len() <= 256 && kept.starts_with("éé"), "{} bytes", kept.len());
}

#[test]
fn bodies_of_10_mb_are_refused_however_they_come() {
    let server = Server::patient("");
    let large = format!("{}{}", r#"{"id":"1","name":"order"}"#, " ".repeat(10_000_000));
    check_refused(&server.push_with(&[JSON], large.clone()), 413);
    check_refused(&server.push_plain(large.clone()), 413);
    for (encoding, body) in [("gzip", gzip(large.as_bytes())), ("zstd", zstd(large.as_bytes()))] {
        check_refused(&server.push_with(&[JSON, ("content-encoding", encoding)], body), 413);
    }
    let mut connection = Wire::connect(server.http());
    connection.write("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..1000 {
        connection.write_if_wanted(format!("2710\r\n{}\r\n", " ".repeat(10_000)));
    }
    connection.write_if_wanted("0\r\n\r\n");
    check_refused(&connection.read_reply(), 413);
    assert_nothing_was_accepted(&server);
}

#[test]
fn pushes_may_be_compressed() {
    let server = Server::patient("");
    for (id, encoding, compress) in [
        ("1", "gzip", gzip as fn(&[u8]) -> Vec<u8>),
        ("2", "zstd", zstd),
        ("3", "deflate", support::deflate),
        ("4", "identity", <[u8]>::to_vec),
    ] {
        let push = json!({"id": id, "name": "order"}).to_string();
        check_ok(&server.push_with(&[JSON, ("content-encoding", encoding)], compress(push.as_bytes())));
    }
    check_refused(&server.push_with(&[JSON, ("content-encoding", "br")], "x"), 415);
    check_refused(&server.push_with(&[JSON, ("content-encoding", "gzip")], "x"), 400);
    assert_eq!(server.scrape().sum("latency_aggregator_open_instances", &[]), 4.0);
}

#[test]
fn what_a_form_or_a_page_of_another_origin_can_send_is_refused() {
    let server = Server::patient("");
    let push = json!({"id": "1", "name": "order"}).to_string();
    let form = server.push_with(&[("content-type", "application/x-www-form-urlencoded")], push.clone());
    let error = check_refused(&form, 415);
    assert!(error.contains("Content-Type: application/json"), "it names the remedy: {error}");
    for content_type in
        ["text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x", "text/json"]
    {
        check_refused(&server.push_with(&[("content-type", content_type)], push.clone()), 415);
    }
    let origin = ("origin", "https://elsewhere.example");
    let reply = server.push_with(&[origin], push.clone());
    assert!((400..500).contains(&reply.status), "{reply:?}");
    check_refused(&reply, reply.status);
    assert_nothing_was_accepted(&server);
    for content_type in ["application/json", "application/json; charset=utf-8"] {
        check_ok(&server.push_with(&[("content-type", content_type)], push.clone()));
    }
    check_ok(&server.push_plain(push));
}

#[test]
fn final_ends_the_flow_and_says_so() {
    let server = Server::quick("");
    check_ok(&server.push(&json!({"id": "1", "name": "order", "stage": "a", "life_span": 300})));
    check_ok(
        &server.push(&json!({"id": "1", "name": "order", "stage": "b", "life_span": 300, "final": true})),
    );
    // The families of a page are read one after the other.
    let page = server.until("it is observed", |page| page.sum("flow_closed_total", &[]) == 1.0);
    let closed = page.only("flow_closed_total", &[("flow", "order"), ("reason", "final")]);
    assert_eq!((closed.value, closed.labels["outcome"].as_str()), (1.0, "ok"));
}

#[test]
fn final_ends_the_flow_even_on_a_repeated_stage() {
    let server = Server::quick("");
    for end in [false, true] {
        check_ok(
            &server.push(&json!({"id": "1", "name": "order", "stage": "a", "life_span": 300, "final": end})),
        );
    }
    let page = server.until("it is observed", |page| page.sum("flow_closed_total", &[]) == 1.0);
    assert_eq!(page.sum("flow_closed_total", &[("reason", "final")]), 1.0);
}

#[test]
fn an_error_of_any_stage_is_the_outcome_and_only_then_there_is_such_a_label() {
    let server = Server::quick("");
    let push = |id: &str, stage: &str, status: &str| {
        let last = stage == "b";
        let life_span = if last { 0 } else { 60 };
        let body =
            json!({"id": id, "name": "order", "stage": stage, "status": status, "life_span": life_span});
        check_ok(&server.push(&body));
    };
    push("1", "a", "ok");
    push("1", "b", "ok");
    let page = server.until("the good one is observed", |page| page.sum("order_count", &[]) == 1.0);
    assert!(page.only("order_count", &[]).labels.is_empty());
    push("2", "a", "error");
    push("2", "b", "ok");
    let page = server.until("the bad one is observed", |page| page.sum("order_count", &[]) == 2.0);
    assert_eq!(page.only("order_count", &[("outcome", "error")]).value, 1.0);
    assert_eq!(page.sum("flow_closed_total", &[("flow", "order"), ("outcome", "error")]), 1.0);
    let good = page
        .samples("order_count", &[])
        .into_iter()
        .find(|sample| sample.labels.get("outcome").is_none_or(|outcome| outcome == "ok"));
    assert_eq!(good.map(|sample| sample.value), Some(1.0));
}

#[test]
fn a_repeated_push_changes_nothing_and_is_counted() {
    let server = Server::quick("");
    let now = date(-5.0);
    let push = json!({"id": "1", "name": "order", "stage": "a", "life_span": 4, "created_at": now});
    for _ in 0..3 {
        check_ok(&server.push(&push));
    }
    let page = server.scrape();
    assert_eq!((events(&page, "received"), events(&page, "duplicate")), (3.0, 2.0));
    assert_eq!(page.sum("latency_aggregator_open_instances", &[]), 1.0);
    let page = server.until_settled();
    assert_eq!((page.sum("order_count", &[]), page.sum("order_sum", &[])), (1.0, 0.0));
    for _ in 0..2 {
        check_ok(&server.push(&push));
    }
    let page =
        server.until("both are late", |page| page.sum("latency_aggregator_late_events_total", &[]) == 2.0);
    assert_eq!(page.sum("order_count", &[]), 1.0, "a late event is never observed");
    assert_eq!(page.sum("latency_aggregator_instances_opened_total", &[]), 1.0);
}

#[test]
fn of_a_repeated_stage_the_earliest_time_is_kept() {
    let server = Server::quick("");
    for (stage, offset, life_span) in [("a", -10.0, 60), ("a", -30.0, 60), ("a", -20.0, 60), ("b", -5.0, 0)] {
        let created_at = date(offset);
        check_ok(&server.push(&json!({"id": "1", "name": "order", "stage": stage, "life_span": life_span,
                                      "created_at": created_at})));
    }
    let page = server.until("it is observed", |page| page.sum("order_count", &[]) == 1.0);
    let latency = page.only("order_sum", &[]).value;
    assert!((latency - 25.0).abs() < 1e-6, "{latency}");
    assert_eq!(events(&page, "duplicate"), 2.0);
}

#[test]
fn an_id_pushed_again_after_its_time_to_live_is_a_new_instance() {
    let server = Server::quick("");
    let push = json!({"id": "1", "name": "order", "life_span": 0, "time_to_live": 0.3});
    check_ok(&server.push(&push));
    server.until("the tombstone has expired", |page| {
        page.sum("order_count", &[]) == 1.0 && page.sum("latency_aggregator_tombstones", &[]) == 0.0
    });
    check_ok(&server.push(&push));
    let page = server.until("it is observed again", |page| page.sum("order_count", &[]) == 2.0);
    assert_eq!(page.sum("latency_aggregator_late_events_total", &[]), 0.0);
}

#[test]
fn one_id_in_two_flows_is_two_instances() {
    let server = Server::patient("");
    for name in ["order", "refund"] {
        check_ok(&server.push(&json!({"id": "1", "name": name})));
    }
    assert_eq!(server.scrape().sum("latency_aggregator_open_instances", &[]), 2.0);
}

#[test]
fn labels_of_all_stages_are_joined_and_the_later_stage_wins() {
    let server = Server::quick("");
    for (stage, offset, life_span, labels) in [
        ("b", -5.0, 60, json!({"x": "late", "only_b": "2"})),
        ("a", -10.0, 0, json!({"x": "early", "only_a": "1"})),
    ] {
        check_ok(&server.push(&json!({"id": "1", "name": "order", "stage": stage, "life_span": life_span,
                                      "created_at": date(offset), "label_values": labels,
                                      "const_labels": {"constant": "c"}})));
    }
    let page = server.until("it is observed", |page| page.sum("order_count", &[]) == 1.0);
    let count = page.only("order_count", &[]);
    for (label, value) in [("x", "late"), ("only_a", "1"), ("only_b", "2"), ("constant", "c")] {
        assert_eq!(count.labels.get(label).map(String::as_str), Some(value), "{label}: {count:?}");
    }
}

#[test]
fn pushes_that_disagree_neither_crash_nor_break_the_page() {
    let server = Server::quick("");
    let close = |id: &str, push: Value| {
        let mut push = push;
        push["id"] = json!(id);
        push["life_span"] = json!(0);
        let reply = server.push(&push);
        server.scrape();
        reply.status
    };
    let pushes = [
        (json!({"name": "order", "help": "First", "buckets": [1, 2], "label_values": {"a": "1"}}), true),
        (json!({"name": "order", "help": "Other", "buckets": [5], "label_values": {"b": "2"}}), true),
        (json!({"name": "order", "buckets": [], "label_values": {"a": "1", "c": "3"}}), true),
        (json!({"name": "order"}), true),
        (json!({"name": "order_count"}), false),
        (json!({"name": "order_total"}), false),
        (json!({"name": "order_bucket"}), false),
        (json!({"name": "order_sum"}), false),
        (json!({"name": "order_created"}), false),
        (json!({"name": "order_seconds"}), true),
        (json!({"name": "refund_count"}), true),
        (json!({"name": "refund"}), false),
    ];
    let mut accepted = 0.0;
    for (number, (push, fits)) in pushes.iter().enumerate() {
        let status = close(&number.to_string(), push.clone());
        assert_eq!(status, if *fits { 200 } else { 400 }, "{push}");
        accepted += f64::from(u8::from(*fits));
    }
    let page = server
        .until("all that fit are observed", |page| page.sum("flow_latency_seconds_count", &[]) == accepted);
    assert_eq!(page.sum("order_count", &[]), 4.0);
    assert_eq!(page.family("order").map(|family| family.help.as_str()), Some("First"));
    let bounds: Vec<&str> = page
        .samples("order_bucket", &[("a", "1")])
        .iter()
        .map(|bucket| bucket.labels["le"].as_str())
        .take(3)
        .collect();
    assert_eq!(bounds, ["1.0", "2.0", "+Inf"], "the first definition wins");
    let names = label_names(&page.samples("order_count", &[]));
    assert!(["a", "b", "c"].iter().all(|name| names.contains(*name)), "{names:?}");
    assert_eq!(page.sum("order_count", &[("b", "2")]), 1.0);
}

/// The counters of the program that grew while `work` was done, without those that every push moves.
fn grown(server: &Server, work: impl FnOnce()) -> Vec<String> {
    let counters = || {
        let page = server.scrape();
        page.without(&["process_", "flow_", "latency_aggregator_requests", "latency_aggregator_events_open"])
    };
    let before = counters();
    work();
    let is_new = |sample: &support::exposition::Sample| !before.contains(sample);
    counters().into_iter().filter(is_new).map(|sample| sample.name).collect()
}

#[test]
fn another_definition_of_a_metric_is_warned_about_and_counted() {
    let server = Server::patient("");
    let push = |id: &str, more: Value| {
        let mut push = json!({"id": id, "name": "order"});
        for (field, value) in more.as_object().expect("fields") {
            push[field] = value.clone();
        }
        check_ok(&server.push(&push))
    };
    push("1", json!({"buckets": [1, 2]}));
    let usual = grown(&server, || {
        let body = push("2", json!({"buckets": [1, 2]}));
        assert!(body.get("warnings").is_none(), "the same definition is none of another: {body}");
    });
    let other = grown(&server, || {
        let body = push("3", json!({"buckets": [1, 3]}));
        assert!(body["warnings"].to_string().contains("buckets"), "{body}");
    });
    assert_ne!(other, usual, "no counter tells of it");
}

#[test]
fn undeclared_labels_of_a_configured_flow_are_ignored_warned_about_and_counted() {
    let server = Server::patient("flows: [{name: checkout}]\n");
    let usual = grown(&server, || {
        check_ok(&server.push(&json!({"id": "1", "name": "checkout"})));
    });
    let other = grown(&server, || {
        let push = json!({"id": "2", "name": "checkout", "label_values": {"undeclared": "x"}});
        let body = check_ok(&server.push(&push));
        assert!(body["warnings"].to_string().contains("undeclared"), "{body}");
    });
    assert_ne!(other, usual, "no counter tells of it");
}

#[test]
fn a_repeated_push_with_other_content_is_warned_about() {
    let server = Server::patient("");
    let push = |value: &str| json!({"id": "1", "name": "order", "stage": "a", "label_values": {"x": value}});
    let body = check_ok(&server.push(&push("1")));
    assert!(body.get("warnings").is_none(), "{body}");
    let other = grown(&server, || {
        check_ok(&server.push(&push("2")));
    });
    assert!(other.iter().any(|name| name.contains("conflict")), "{other:?}");
}

#[test]
fn any_date_in_the_year_1_means_now() {
    let server = Server::patient("");
    for date in ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z", "0001-12-31T23:59:59.999Z"] {
        check_ok(&server.push(&json!({"id": "1", "name": "order", "created_at": date})));
    }
}

#[test]
fn a_push_flow_that_the_config_has_under_another_form_is_refused() {
    let server = Server::quick("flows:\n  - {name: checkout, metric: order}\n");
    for name in ["order_count", "order_bucket", "order"] {
        check_refused(&server.push(&json!({"id": "1", "name": name})), 400);
    }
    check_ok(&server.push(&json!({"id": "1", "name": "checkout", "life_span": 0})));
    let page = server.until("it is observed", |page| page.sum("order_count", &[]) == 1.0);
    assert!(page.family("checkout").is_none(), "{}", page.interesting());
}

#[test]
fn the_ancestors_gauge_is_there_only_when_asked_for() {
    for (config, wanted) in [("", false), ("push: {ancestor_gauge: true}\n", true)] {
        let server = Server::quick(config);
        for (stage, offset, life_span) in [("a", -7.5, 60), ("b", -5.0, 0)] {
            check_ok(
                &server.push(&json!({"id": "1", "name": "order", "stage": stage, "life_span": life_span,
                                          "created_at": date(offset)})),
            );
        }
        let page = server.until("it is observed", |page| page.sum("order_count", &[]) == 1.0);
        let gauge = page.family("order_total");
        assert_eq!(gauge.is_some(), wanted);
        if let Some(gauge) = gauge {
            assert_eq!(gauge.kind, "gauge");
            assert!((gauge.samples[0].value - 2.5).abs() < 1e-6, "{gauge:?}");
        }
    }
}

#[test]
fn pushes_create_at_most_a_hundred_flows() {
    let server = Server::patient("");
    let pushes: Vec<Value> = (0..105).map(|n| json!({"id": "1", "name": format!("flow{n}")})).collect();
    let body = server.push(&json!(pushes)).json();
    assert_eq!(body["accepted"], 100, "{body}");
    let error = body["rejected"][0]["error"].as_str().expect("a message").to_owned();
    assert!(error.contains("100"), "it names the cap: {error}");
    let refused = server.push(&json!({"id": "2", "name": "flow104"}));
    assert!((400..500).contains(&refused.status), "{refused:?}");
    check_ok(&server.push(&json!({"id": "2", "name": "flow0"})));
    let page = server.scrape();
    assert_eq!(page.sum("latency_aggregator_open_instances", &[]), 101.0);
    assert_eq!(page.sum("latency_aggregator_push_flows_refused_total", &[]), 6.0);
    let families = page
        .families
        .iter()
        .filter(|family| family.name.strip_prefix("flow").is_some_and(|rest| rest.parse::<u32>().is_ok()));
    assert!(families.count() <= 100);
}

#[test]
fn a_push_and_spans_with_the_same_key_meet_in_one_instance() {
    let flow = "
flows:
  - name: checkout
    match: 'span.name == \"POST /orders\"'
    expect: [gateway, mail]
    labels: {tenant: 'span.attributes[\"tenant\"]'}
";
    let hex = "ABABABABABABABABABABABABABABABAB";
    let uuid = "abababab-abab-abab-abab-abababababab";
    for id in [hex, uuid] {
        let server = Server::quick(flow);
        check_ok(&server.push(&json!({"id": id, "name": "checkout", "stage": "mail",
                                      "label_values": {"tenant": "t1", "undeclared": "x"}})));
        let mut root = span(0xab, 1);
        root.attributes.push(attribute("unrelated", "x"));
        assert_eq!(export(&server, Way::Grpc, &request("gateway", vec![root])), Answer::Accepted);
        let page = server.until("it is observed", |page| page.sum("flow_latency_seconds_count", &[]) == 1.0);
        let closed = page.only("flow_closed_total", &[("flow", "checkout"), ("reason", "expect")]);
        assert_eq!((closed.value, closed.labels["outcome"].as_str()), (1.0, "ok"), "{id}");
        assert!(!closed.labels.contains_key("undeclared"));
        assert_eq!(page.sum("latency_aggregator_instances_opened_total", &[]), 1.0, "{id}");
        assert!(
            page.family("checkout").is_none(),
            "a configured flow has a histogram of its own only on request"
        );
    }
}

#[test]
fn a_trickle_of_bytes_does_not_confuse_two_requests_on_one_connection() {
    let server = Server::patient("");
    let mut connection = Wire::connect(server.http());
    for id in ["1", "2"] {
        let push = json!({"id": id, "name": "order"}).to_string();
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{push}", push.len());
        for byte in request.as_bytes().chunks(3) {
            connection.write(byte);
        }
        check_ok(&connection.read_reply());
    }
    assert_eq!(server.scrape().sum("latency_aggregator_open_instances", &[]), 2.0);
}

#[test]
fn an_event_too_far_from_now_is_rejected_by_the_limits_of_the_config() {
    let server =
        Launch::config(PATIENT).args(&["--ingest.max_past", "10m", "--ingest.max_future", "10m"]).start();
    for (offset, fits) in [(-500.0, true), (500.0, true), (-700.0, false), (700.0, false)] {
        let reply = server.push(&json!({"id": "1", "name": "order", "created_at": date(offset)}));
        assert_eq!(reply.status, if fits { 200 } else { 400 }, "{offset}: {}", reply.text());
    }
    let page = server.scrape();
    assert_eq!(page.sum("latency_aggregator_open_instances", &[]), 1.0);
}

#[test]
fn other_methods_and_paths_are_refused() {
    let server = Launch::config(QUICK).start();
    for method in ["GET", "PUT", "DELETE"] {
        let reply = server.ask(method, "/", &[]);
        assert_eq!((reply.status, reply.header("allow")), (405, "POST"), "{method}");
    }
    assert_eq!(server.ask("POST", "/push", &[JSON]).status, 404);
    assert_eq!(server.get("/nothing").status, 404);
}

#[test]
fn pushes_from_many_clients_at_once_are_all_counted() {
    let server = Server::patient("");
    std::thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for number in 0..25 {
                    let id = format!("{client}-{number}");
                    check_ok(&server.push(&json!({"id": id, "name": format!("order{}", number % 3),
                                                  "label_values": {format!("l{}", client % 3): "x"}})));
                }
            });
        }
    });
    let page = server.scrape();
    assert_eq!(page.sum("latency_aggregator_open_instances", &[]), 200.0);
    assert_eq!(events(&page, "received"), 200.0);
}

#[test]
fn flows_that_pushes_create_share_room_for_series_and_lose_no_count() {
    let labelled = "flows: [{name: checkout, labels: {n: 'span.attributes[\"n\"]'}}]\n";
    let server = Launch::config(&format!("{QUICK}{labelled}")).args(&["--push.series", "1000"]).start();
    let names = ["order", "refund", "delivery", "checkout"];
    let push = |name: &str, n: u32| json!({"id": format!("{n}"), "name": name, "life_span": 0, "label_values": {"n": format!("{n}")}});
    let pushes = names.iter().flat_map(|name| (0..100).map(|n| push(name, n)));
    assert_eq!(server.push(&pushes.collect::<Vec<_>>().into()).status, 200);
    let page = server.until_settled();
    for name in names {
        assert_eq!(page.sum("flow_latency_seconds_count", &[("flow", name)]), 100.0, "{name}");
    }
    let lines = |name: &str| {
        let samples = page.families.iter().flat_map(|family| &family.samples);
        let of_flow = samples.filter(|sample| sample.labels.get("flow").is_some_and(|flow| flow == name));
        of_flow.filter(|sample| sample.labels.contains_key("n")).count()
    };
    assert!(lines("checkout") > 2000, "a flow of the config has room of its own: {}", lines("checkout"));
    let pushed: usize = names[..3].iter().map(|name| lines(name)).sum();
    assert!((300..=1000).contains(&pushed), "{pushed}");
    let overflow =
        page.sum("latency_aggregator_series_overflow_total", &[("family", "flow_latency_seconds")]);
    assert!((200.0..300.0).contains(&overflow), "{overflow}");
}
