//! `replay`: what recorded traces would have become, and `check --traces`: how many each flow would take.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::assembly::build_pipeline;
use crate::config::{self, Loaded, Override};
use crate::domain::names::is_of_the_process;
use crate::explain::Explanation;
use crate::metrics::exposition;
use crate::metrics::snapshot::{Family, Value};
use crate::pipeline::Pipeline;
use crate::recent::Ended;
use crate::replay::Recording;
use crate::replay::files::TraceFile;

/// What `replay` prints as JSON.
#[derive(Debug, Serialize)]
struct Report {
    instances: Vec<Explanation>,
    spans: Spans,
    /// The metrics of the flows, as /metrics shows them.
    metrics: String,
}

/// Where the spans of the files went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Spans {
    read: u64,
    rejected: u64,
    unmatched: u64,
    ignored: u64,
    repeated: u64,
    late: u64,
    over_limit: u64,
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spans { rejected, unmatched, ignored, repeated, late, over_limit, .. } = self;
        write!(f, "{unmatched} of no flow, {ignored} ignored, {repeated} repeated, {late} late, ")?;
        write!(f, "{over_limit} over a limit, {rejected} rejected")
    }
}

/// A recording that has been replayed to its end.
struct Replayed {
    /// In the order in which they were closed.
    ended: Vec<Arc<Ended>>,
    spans: Spans,
    families: Vec<Family>,
}

/// Replays the files and prints what came of them.
pub(super) fn run(
    config: Option<&Path>,
    overrides: &[Override],
    files: &[PathBuf],
    as_json: bool,
    mut out: impl Write,
) -> anyhow::Result<()> {
    let Replayed { ended, spans, families } = replay(config::load(config, overrides)?, files)?;
    let instances: Vec<Explanation> =
        ended.iter().map(|ended| Explanation::of_closed(&ended.closed, ended.at)).collect();
    let metrics = exposition::text(&families);
    if as_json {
        serde_json::to_writer_pretty(&mut out, &Report { instances, spans, metrics })?;
        return writeln!(out).context("writing to standard output");
    }
    for instance in &instances {
        writeln!(out, "{instance}")?;
    }
    writeln!(out, "{} instances of {} spans; {spans}\n", instances.len(), spans.read)?;
    write!(out, "{metrics}")?;
    Ok(())
}

/// Prints how many spans and instances of the files each flow would take.
pub(super) fn count(mut loaded: Loaded, files: &[PathBuf], mut out: impl Write) -> anyhow::Result<()> {
    // Nobody asks for the events of a count.
    loaded.config.api.recent_events = 0;
    let flows: Vec<String> = loaded.compile()?.flows.iter().map(|flow| flow.name.to_string()).collect();
    let Replayed { ended, spans, .. } = replay_with(loaded, files)?;
    let mut counts: BTreeMap<&str, (u64, u64, BTreeMap<&str, u64>)> = BTreeMap::new();
    for ended in &ended {
        let (instances, events, outcomes) = counts.entry(&ended.closed.flow.name).or_default();
        *instances += 1;
        *events += ended.closed.notes.events;
        *outcomes.entry(ended.closed.outcome.as_str()).or_default() += 1;
    }
    writeln!(out, "Of {} spans in {} files:", spans.read, files.len())?;
    for flow in &flows {
        let (instances, events, outcomes) = counts.remove(flow.as_str()).unwrap_or_default();
        let outcomes: Vec<String> =
            outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        writeln!(out, "- {flow}: {events} spans, {instances} instances {}", outcomes.join(", "))?;
    }
    writeln!(out, "- {spans}")?;
    Ok(())
}

fn replay(loaded: Loaded, files: &[PathBuf]) -> anyhow::Result<Replayed> {
    let mut loaded = loaded;
    loaded.config.api.recent_events = usize::MAX;
    replay_with(loaded, files)
}

fn replay_with(mut loaded: Loaded, files: &[PathBuf]) -> anyhow::Result<Replayed> {
    // Old traces are fine, and all that becomes of them is wanted.
    loaded.config.ingest.max_future = Duration::MAX;
    loaded.config.ingest.max_past = Duration::MAX;
    loaded.config.api.recent = usize::MAX;
    // So is all that is kept for that.
    loaded.config.limits.memory_bytes = Some(usize::MAX);
    loaded.config.limits.instances = usize::MAX;
    let (pipeline, _) = build_pipeline(&loaded)?;
    let mut recording = Recording::default();
    for path in files {
        let file = TraceFile::open(path)?;
        let bar = bar(file.size(), "reading");
        recording.read(file, &pipeline, |file| bar.set_position(file.bytes_read()))?;
        bar.finish_and_clear();
    }
    let (read, rejected) = recording.spans();
    let bar = bar(Some(1000), "replaying");
    recording.replay(&pipeline, |done| bar.set_position((done * 1000.0) as u64));
    bar.finish_and_clear();
    Ok(outcome(&pipeline, read, rejected))
}

fn outcome(pipeline: &Pipeline, read: u64, rejected: u64) -> Replayed {
    let mut ended = pipeline.take_recent();
    ended.sort_by(|a, b| {
        (a.at, &a.closed.key, a.closed.flow.id).cmp(&(b.at, &b.closed.key, b.closed.flow.id))
    });
    let mut families = pipeline.snapshot(pipeline.now());
    let count = |name: &str| {
        let series = families.iter().filter(|family| *family.name == *name).flat_map(|family| &family.series);
        let value = |value: &Value| match value {
            Value::Float(value) => *value as u64,
            Value::Integer(value) => *value,
            Value::Nanoseconds(_) | Value::Histogram(_) => 0,
        };
        series.map(|series| value(&series.value)).sum()
    };
    let spans = Spans {
        read,
        rejected,
        unmatched: count("latency_aggregator_events_unmatched_total"),
        ignored: count("latency_aggregator_events_ignored_total"),
        repeated: count("latency_aggregator_events_duplicate_total"),
        late: count("latency_aggregator_late_events_total"),
        over_limit: count("latency_aggregator_events_over_limit_total"),
    };
    families
        .retain(|family| !family.name.starts_with("latency_aggregator_") && !is_of_the_process(&family.name));
    Replayed { ended, spans, families }
}

/// A progress bar on standard error, shown if that is a terminal.
fn bar(length: Option<u64>, what: &'static str) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let style = ProgressStyle::with_template("{msg:>10} [{bar:40}] {percent}% {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    bar
}
