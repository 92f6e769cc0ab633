//! `latency-aggregator load` against the program itself, in every protocol and layout.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod support;

use support::{Finished, Launch, Server};

/// Runs a short load; `extra` are further arguments.
fn load(server: &Server, protocol: &str, extra: &[&str]) -> Finished {
    let address = match protocol {
        "grpc" => server.otlp_grpc(),
        "http" => server.otlp_http(),
        _ => server.http(),
    };
    let (url, metrics) = (format!("http://{address}"), format!("http://{}/metrics", server.http()));
    let arguments =
        ["load", "--protocol", protocol, "--url", &url, "--metrics", &metrics, "--duration", "300ms"];
    Launch::bare().args(&arguments).args(extra).run()
}

/// The number before a word of the output.
fn number(output: &str, before: &str) -> u64 {
    let words: Vec<&str> = output.split_whitespace().collect();
    let place = words.iter().position(|word| *word == before).unwrap_or_else(|| panic!("{before}: {output}"));
    words[place - 1].parse().unwrap()
}

#[test]
fn every_protocol_and_layout_is_accepted_and_counted_once() {
    let server = Server::quick("");
    let mut sent = 0;
    for (protocol, extra) in [
        ("grpc", &["--layout", "adjacent", "--in-flight", "3"][..]),
        ("grpc", &["--layout", "interleaved", "--gzip"]),
        ("http", &["--layout", "split", "--connections", "2", "--in-flight", "2"]),
        ("http", &["--gzip", "--spans", "1000", "--rate", "20"]),
        ("push", &["--trace-spans", "3"]),
    ] {
        let ended = load(&server, protocol, extra);
        assert_eq!(ended.code, Some(0), "{protocol} {extra:?}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("acknowledged  p50 "), "{}", ended.stdout);
        assert!(!ended.stdout.contains("refused"), "{}", ended.stdout);
        sent += number(&ended.stdout, "events");
    }
    let page = server.until_settled();
    assert_eq!(page.sum("latency_aggregator_events_received_total", &[]), sent as f64);
    // Each trace is whole, whatever way it came.
    assert_eq!(
        page.sum("flow_closed_total", &[("flow", "trace"), ("outcome", "ok"), ("reason", "root")]),
        page.sum("flow_closed_total", &[("flow", "trace")])
    );
    assert!(page.sum("flow_closed_total", &[("flow", "load"), ("reason", "final")]) > 0.0);
}

#[test]
fn what_is_refused_is_told_by_its_status() {
    let server = Server::quick("limits: {request_bytes: 2000}\n");
    for (protocol, status) in [("grpc", "grpc-status"), ("http", "413")] {
        let ended = load(&server, protocol, &["--spans", "100", "--rate", "20"]);
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("refused") && ended.stdout.contains(status), "{}", ended.stdout);
        assert_eq!(number(&ended.stdout, "events"), 0);
    }
}

#[test]
fn without_a_receiver_it_fails_and_says_where_it_wanted_to_connect() {
    let ended = Launch::bare().args(&["load", "--url", "http://127.0.0.1:1", "--duration", "1s"]).run();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("cannot connect to 127.0.0.1:1"), "{}", ended.stderr);
    let ended = Launch::bare().args(&["load", "--rate", "0"]).run();
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("more than 0"), "{}", ended.stderr);
}
