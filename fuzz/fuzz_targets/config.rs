//! Config files: each is either refused with a place in it, or makes a pipeline by which traces can be replayed.

#![no_main]

use latency_aggregator::assembly::build_pipeline;
use latency_aggregator::config::{self, ConfigError};
use latency_aggregator_fuzz::replay;
use libfuzzer_sys::fuzz_target;

/// Soon after 1970, when replays take place: no limit of a config makes them too old or too new.
const TRACES: &[u8] = include_bytes!("../trace.json");

fuzz_target!(|text: &str| {
    match config::load_text("config.yaml", text).and_then(|loaded| build_pipeline(&loaded)) {
        Ok((pipeline, _)) => replay(TRACES, &pipeline),
        Err(error) => check_error(&error, text),
    }
});

fn check_error(error: &ConfigError, text: &str) {
    let ConfigError::At { line, column, problem, .. } = error else { panic!("no place: {error}") };
    // A carriage return by itself ends a line of YAML, and the end of the text may be what is wrong.
    let lines = 1 + text.matches(['\r', '\n']).count();
    assert!((1..=lines).contains(line), "no such line: {error}");
    assert!(*column >= 1, "no such column: {error}");
    assert!(!problem.is_empty(), "no problem: {error}");
}
