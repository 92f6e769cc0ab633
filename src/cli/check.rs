//! `check`: what a config means, and what in it looks like a mistake.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::access;
use crate::app::tight_limits;
use crate::config::{self, Config, Override};
use crate::domain::flow::{Boundary, Flow, Labels};
use crate::mapping::flows::FlowConfig;

/// Checks the file and prints what was understood, and what it would make of recorded traces.
pub(super) fn run(
    file: &Path,
    overrides: &[Override],
    traces: &[PathBuf],
    mut out: impl Write,
) -> anyhow::Result<()> {
    let loaded = config::load(Some(file), overrides)?;
    super::log_filter(&loaded.config.log)?;
    let compiled = loaded.compile()?;
    access::check(&loaded)?;
    writeln!(out, "{}: ok", file.display())?;
    for (setting, address) in loaded.config.addresses() {
        let tls = if loaded.config.tls.covers(setting) { ", TLS" } else { "" };
        writeln!(out, "  {setting:<16} {address}{tls}")?;
    }
    writeln!(out, "{} flows, in the order in which they are tried:", compiled.flows.len())?;
    for flow in &compiled.flows {
        describe(flow, loaded.flows.get(flow.id.place as usize), &mut out)?;
    }
    let mut warnings = exposed(&loaded.config);
    warnings.extend(tight_limits(&loaded.config));
    warnings.extend(shadowed(&loaded.flows));
    warnings.extend(compiled.flows.iter().filter_map(|flow| short_buckets(flow)));
    for warning in &warnings {
        writeln!(out, "warning: {warning}")?;
    }
    if traces.is_empty() { Ok(()) } else { super::replay::count(loaded, traces, out) }
}

fn describe(flow: &Flow, config: Option<&FlowConfig>, out: &mut impl Write) -> std::io::Result<()> {
    let matches = match config.map(|config| &config.matches) {
        Some(Some(condition)) => condition.as_str(),
        Some(None) => "only pushes that name it",
        None => "every trace that no flow above takes",
    };
    writeln!(out, "- {}: {matches}", flow.name)?;
    let start = flow.start.as_ref().map_or("its earliest event".to_owned(), boundary);
    let ends: Vec<String> = flow.ends.iter().map(|end| boundary(&end.boundary)).collect();
    let end = if ends.is_empty() { "its latest event".to_owned() } else { ends.join(" or ") };
    writeln!(out, "    from {start} to {end}")?;
    if !flow.expect.is_empty() {
        writeln!(out, "    expects {}", flow.expect.join(", "))?;
    }
    let times = &flow.timers;
    writeln!(
        out,
        "    over {} after its end is seen, or {} after its last event, or {} after its first",
        humantime::format_duration(times.linger),
        humantime::format_duration(times.quiet_period),
        humantime::format_duration(times.max_age)
    )?;
    if let Labels::Declared(rules) = &flow.labels {
        let names: Vec<&str> = rules.iter().map(|rule| &*rule.name).collect();
        if !names.is_empty() {
            writeln!(out, "    labels {}", names.join(", "))?;
        }
    }
    Ok(())
}

fn boundary(boundary: &Boundary) -> String {
    match (&boundary.stage, boundary.conditional) {
        (Some(stage), false) => format!("stage {stage}"),
        (Some(stage), true) => format!("a condition in stage {stage}"),
        (None, _) => "a condition".to_owned(),
    }
}

/// What is open to everybody, as far as addresses are numbers.
fn exposed(config: &Config) -> Vec<String> {
    let addresses = config.addresses().into_iter();
    let numbers: Vec<_> =
        addresses.filter_map(|(setting, text)| Some((setting, text.parse().ok()?))).collect();
    access::exposures(config, &numbers)
}

/// Flows that no span can reach, because an earlier flow takes all that they match.
fn shadowed(flows: &[FlowConfig]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (place, later) in flows.iter().enumerate() {
        let Some(condition) = &later.matches else { continue };
        let takes_all = |earlier: &&FlowConfig| {
            earlier.matches.as_ref().is_some_and(|taken| {
                let (taken, condition) = (taken.trim(), condition.trim());
                let narrows = || condition.strip_prefix(taken).is_some_and(|rest| rest.starts_with(" and "));
                let has_or = |text: &str| text.contains(" or ");
                taken == "true" || taken == condition || (narrows() && !has_or(condition) && !has_or(taken))
            })
        };
        if let Some(earlier) = flows[..place].iter().find(takes_all) {
            warnings.push(format!(
                "flow {:?} is shadowed: {:?} comes first and takes all that it matches",
                later.name, earlier.name
            ));
        }
    }
    warnings
}

fn short_buckets(flow: &Flow) -> Option<String> {
    let last = *flow.buckets.get()?.last()?;
    let max_age = flow.timers.max_age.as_secs_f64();
    (last < max_age).then(|| {
        format!(
            "flow {:?}: its buckets end at {last} s, before max_age ({max_age} s): quantiles beyond are cut off",
            &*flow.name
        )
    })
}
