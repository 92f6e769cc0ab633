//! The formats of /metrics, as far as this suite can read them; the black-box checks read all of them with Prometheus' own
//! parsers.

mod support;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use support::otlp::{Answer, Way, export, request, span};
use support::{Launch, QUICK, Reply, Server};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

fn in_format(server: &Server, accept: &str) -> Reply {
    server.ask("GET", "/metrics", &[("accept", accept)])
}

/// A flow of 0.15 s and one of 0.2 s, both in the bucket up to 0.25 s, and a push.
fn observe_two_flows(server: &Server) {
    let lasting = |trace: u8, milliseconds: u64| {
        let span = span(trace, 1);
        Span { end_time_unix_nano: span.start_time_unix_nano + milliseconds * 1_000_000, ..span }
    };
    let (quick, slow) = (lasting(1, 150), lasting(2, 200));
    assert_eq!(export(server, Way::Grpc, &request("shop", vec![quick, slow])), Answer::Accepted);
    server.push(&json!({"id": "1", "name": "order", "life_span": 0}));
    server.until("all is closed", |page| page.sum("flow_latency_seconds_count", &[]) == 3.0);
}

#[test]
fn openmetrics_has_its_own_names_of_counters_creation_times_and_an_end() {
    let server = Server::quick("");
    observe_two_flows(&server);
    let reply = in_format(&server, OPENMETRICS);
    assert_eq!(
        reply.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
    );
    let text = reply.text();
    assert!(text.ends_with("\n# EOF\n"));
    for line in [
        "# TYPE flow_closed counter\n",
        "# TYPE flow_latency_seconds histogram\n# UNIT flow_latency_seconds seconds\n# HELP flow_latency_seconds ",
        "flow_closed_total{flow=\"order\",outcome=\"ok\",reason=\"quiet\"} 1\n",
        "flow_closed_created{flow=\"order\",outcome=\"ok\",reason=\"quiet\"} 1",
        "flow_latency_seconds_created{flow=\"trace\",",
        "# TYPE latency_aggregator_requests counter\n",
    ] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
    assert!(!text.contains("flow_open_created"), "a gauge has no beginning");
}

#[test]
fn an_exemplar_is_the_slowest_of_its_bucket_and_a_scrape_changes_nothing() {
    let server = Server::quick("");
    observe_two_flows(&server);
    let exemplars = || {
        let text = in_format(&server, OPENMETRICS).text();
        let lines = text.lines().filter(|line| line.contains(" # {"));
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    let lines = exemplars();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let expected = format!("le=\"0.25\"}} 2 # {{trace_id=\"{}\"}} 0.2 1", "02".repeat(16));
    assert!(
        lines[0].starts_with("flow_latency_seconds_bucket{flow=\"trace\",") && lines[0].contains(&expected)
    );
    assert_eq!(exemplars(), lines);
    let text = in_format(&server, "text/plain").text();
    assert!(!text.contains(" # {"), "the old format has none");
}

#[test]
fn protobuf_is_a_list_of_families_each_behind_its_length() {
    for histograms in ["classic", "native", "both"] {
        let server = Launch::config(QUICK).args(&["--metrics.histograms", histograms]).start();
        observe_two_flows(&server);
        let reply = in_format(&server, PROTOBUF);
        assert_eq!(reply.header("content-type"), format!("{PROTOBUF}; escaping=underscores"));
        let mut rest = &reply.body[..];
        let mut names = Vec::new();
        while !rest.is_empty() {
            let length = prost::decode_length_delimiter(&mut rest).expect("a length");
            let (family, after) = rest.split_at(length);
            let name_length = usize::from(family[1]);
            assert_eq!(family[0], 0x0a, "the first field is the name");
            names.push(String::from_utf8(family[2..2 + name_length].to_vec()).expect("a name"));
            rest = after;
        }
        assert_eq!(names[0], "flow_latency_seconds");
        let text = in_format(&server, "").text();
        let in_text: Vec<String> = text
            .lines()
            .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned()))
            .collect();
        assert_eq!(names, in_text, "the same families as in the text");
    }
}

#[test]
fn plain_names_are_the_same_however_the_client_wants_others_escaped() {
    let server = Server::quick("");
    for asked in ["underscores", "values", "allow-utf-8", "dots"] {
        let reply = in_format(&server, &format!("text/plain; version=1.0.0; escaping={asked}"));
        assert!(reply.header("content-type").ends_with(&format!("; escaping={asked}")));
        assert!(reply.text().contains("\nflow_open{"), "{asked}");
    }
}

#[test]
fn a_promise_is_a_bound_and_a_stage_may_have_its_own_buckets() {
    let flows = "flows: [{name: checkout, match: 'true', slo: {latency: 700ms, objective: 99}, buckets: [0.5, 1], \
                 stage_buckets: {shop: [0.1, 0.2]}}]\n";
    let server = Server::quick(flows);
    assert_eq!(export(&server, Way::Grpc, &request("shop", vec![span(1, 1)])), Answer::Accepted);
    let page = server.until("it is closed", |page| page.sum("flow_latency_seconds_count", &[]) == 1.0);
    let bounds = |family: &str| {
        let samples = page.samples(&format!("{family}_bucket"), &[("flow", "checkout")]);
        let mut bounds: Vec<String> = samples
            .iter()
            .filter_map(|sample| sample.labels.iter().find(|(name, _)| *name == "le"))
            .map(|(_, bound)| bound.clone())
            .collect();
        bounds.sort();
        bounds.dedup();
        bounds
    };
    assert_eq!(bounds("flow_latency_seconds"), ["+Inf", "0.5", "0.7", "1.0"]);
    assert_eq!(bounds("flow_stage_seconds"), ["+Inf", "0.1", "0.2"]);
}
