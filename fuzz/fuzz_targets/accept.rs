//! `Accept`: whatever is asked for, the answer is one of the formats there are, and nothing of the header is in it.

#![no_main]

use latency_aggregator::metrics::exposition::Format;
use libfuzzer_sys::fuzz_target;

const ESCAPINGS: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];
const WITH_ESCAPING: [&str; 3] = [
    "text/plain; version=1.0.0; charset=utf-8",
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
];

fuzz_target!(|accept: &str| {
    let given = Format::negotiate(accept);
    let content_type = given.content_type();
    let is_known = given == Format::TEXT
        || WITH_ESCAPING.iter().any(|known| {
            ESCAPINGS.iter().any(|escaping| content_type == format!("{known}; escaping={escaping}"))
        });
    assert!(is_known, "{content_type}");
    // What is named without a quality is wanted at least as much as anything that may come behind it.
    if given != Format::TEXT {
        assert_eq!(Format::negotiate(&format!("{content_type},{accept}")), given);
    }
});
