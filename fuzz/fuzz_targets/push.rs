//! Native push: every body is answered with JSON, what was accepted and what was refused are all that was offered,
//! and the page shows as much.

#![no_main]

use std::sync::Arc;

use latency_aggregator::pipeline::Pipeline;
use latency_aggregator::receiver::native_http;
use latency_aggregator_fuzz::{check_pipeline, limits, pipeline, post, received};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

const LIMIT_BYTES: usize = 1 << 20;

fuzz_target!(|body: &[u8]| {
    let pipeline = pipeline();
    let first = push(&pipeline, body);
    // What came before meets what it created.
    let second = push(&pipeline, body);
    assert_eq!(first, second, "what was accepted is accepted again");
    assert_eq!(received(&pipeline), 2 * (first.accepted + first.rejected));
    pipeline.close_all(pipeline.now());
    check_pipeline(&pipeline);
});

/// What became of the events of a request; one that was refused as a whole has none.
#[derive(Debug, PartialEq)]
struct Outcome {
    accepted: u64,
    rejected: u64,
}

fn push(pipeline: &Arc<Pipeline>, body: &[u8]) -> Outcome {
    let router = native_http::router(Arc::clone(pipeline), limits(LIMIT_BYTES));
    let answer = post(router, "/", &[("content-type", "application/json")], body.to_vec());
    let reply: Value = serde_json::from_slice(&answer.body).expect("the reply is JSON");
    if answer.status != 200 {
        assert_eq!(answer.status, 400, "{reply}");
        assert!(reply["error"].is_string() && reply["retryable"] == false, "{reply}");
        return Outcome { accepted: 0, rejected: 0 };
    }
    let Ok(offered) = serde_json::from_slice::<Vec<&RawValue>>(body) else {
        assert_eq!(reply["status"], "ok", "{reply}");
        return Outcome { accepted: 1, rejected: 0 };
    };
    let listed = reply["rejected"].as_array().expect("a list").len() as u64;
    let rejected = reply["rejected_total"].as_u64().unwrap_or(listed);
    let accepted = reply["accepted"].as_u64().expect("a number");
    assert_eq!(accepted + rejected, offered.len() as u64, "{reply}");
    assert_eq!(reply["status"] == "ok", rejected == 0, "{reply}");
    Outcome { accepted, rejected }
}
