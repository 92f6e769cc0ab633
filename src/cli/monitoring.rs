//! `dashboard` and `rules`: the files of examples/ that watch flows, narrowed to those of a config.
//!
//! The files serve every config as they are, and are printed as they are for one without flows.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::config::{self, Override};
use crate::domain::flow::Flow;

const DASHBOARD: &str = include_str!("../../examples/dashboard.json");
const RULES: &str = include_str!("../../examples/rules.yml");

/// Selects the flows everywhere in [`RULES`].
const EVERY_FLOW: &str = r#"flow=~".+""#;
/// Begins the names of those groups of [`RULES`] that are about promises.
const PROMISES: &str = "- name: flow-slo-";

/// Prints a dashboard in which exactly the flows of the config can be chosen.
pub(super) fn dashboard(
    config: Option<&Path>,
    overrides: &[Override],
    mut out: impl Write,
) -> anyhow::Result<()> {
    let flows = flows(config, overrides)?;
    let text = if flows.is_empty() { DASHBOARD.to_owned() } else { narrowed_dashboard(&flows)? };
    out.write_all(text.as_bytes()).context("writing to standard output")
}

/// Prints rules that look at the flows of the config only, and at the promises of those that promise something.
pub(super) fn rules(
    config: Option<&Path>,
    overrides: &[Override],
    mut out: impl Write,
) -> anyhow::Result<()> {
    let flows = flows(config, overrides)?;
    let text = if flows.is_empty() { RULES.to_owned() } else { narrowed_rules(&flows) };
    out.write_all(text.as_bytes()).context("writing to standard output")
}

/// The flows of the config, and the built-in one behind them; none if the config names none, for then pushes make them.
fn flows(config: Option<&Path>, overrides: &[Override]) -> anyhow::Result<Vec<Arc<Flow>>> {
    let loaded = config::load(config, overrides)?;
    let compiled = loaded.compile()?;
    Ok(if loaded.flows.is_empty() { Vec::new() } else { compiled.flows })
}

fn narrowed_dashboard(flows: &[Arc<Flow>]) -> anyhow::Result<String> {
    let names = flows.iter().map(|flow| listed(&flow.name)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut dashboard: Value = serde_json::from_str(DASHBOARD).context("reading the dashboard")?;
    dashboard["title"] = match flows {
        [only] => format!("Business flows: {}", only.name),
        [first, others @ ..] => format!("Business flows: {} and {} more", first.name, others.len()),
        [] => "Business flows".to_owned(),
    }
    .into();
    let variables = dashboard["templating"]["list"].as_array_mut().context("the dashboard has variables")?;
    let flow = variables.iter_mut().find(|variable| variable["name"] == "flow");
    let flow = flow.context("the dashboard has a variable for the flow")?;
    let all = json!({"text": "All", "value": "$__all", "selected": true});
    let each = flows.iter().map(|flow| json!({"text": *flow.name, "value": *flow.name, "selected": false}));
    let options: Value = [all].into_iter().chain(each).collect();
    *flow = json!({
        "type": "custom",
        "name": "flow",
        "label": flow["label"],
        "description": flow["description"],
        "query": names.join(","),
        "options": options,
        "current": flow["current"],
        "multi": true,
        "includeAll": true,
        "hide": 0,
        "skipUrlSync": false,
    });
    Ok(format!("{dashboard:#}\n"))
}

/// A name as it stands in Grafana's lists, of which `text : value` and commas are the syntax.
fn listed(name: &str) -> anyhow::Result<String> {
    let is_plain = name.trim() == name && !name.contains(" : ") && !name.contains(['\\', '\n']);
    ensure!(is_plain, "flow {name:?}: no list in Grafana can hold this name");
    Ok(name.replace(',', "\\,"))
}

/// The first paragraph says what the file is, and every group is one.
fn narrowed_rules(flows: &[Arc<Flow>]) -> String {
    let all = selector(flows.iter());
    let promising = selector(flows.iter().filter(|flow| flow.slo.is_some()));
    let names: Vec<String> = flows.iter().map(|flow| escaped(&flow.name)).collect();
    let narrowed = RULES.split("\n\n").skip(1).filter_map(|paragraph| {
        let selector = if paragraph.contains(PROMISES) { &promising } else { &all };
        Some(paragraph.replace(EVERY_FLOW, selector.as_ref()?))
    });
    let head = format!(
        "# Alerts for Prometheus that latency-aggregator {} printed for these flows: {}.",
        env!("CARGO_PKG_VERSION"),
        names.join(", ")
    );
    [head].into_iter().chain(narrowed).collect::<Vec<_>>().join("\n\n")
}

/// What selects these flows; nothing without any.
fn selector<'a>(flows: impl Iterator<Item = &'a Arc<Flow>>) -> Option<String> {
    let names: Vec<String> = flows.map(|flow| regex::escape(&flow.name)).collect();
    (!names.is_empty()).then(|| format!("flow=~\"{}\"", escaped(&names.join("|"))))
}

/// A text as it stands between the quotes of a PromQL string, on one line of YAML.
fn escaped(text: &str) -> String {
    let escape = |character: char| match character {
        '"' | '\\' => format!("\\{character}"),
        ' '..='~' => character.to_string(),
        _ if character.is_alphanumeric() => character.to_string(),
        _ => format!("\\U{:08x}", u32::from(character)),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_of_the_rules_is_a_paragraph() {
        let in_paragraph = |text: &str| text.lines().filter(|line| line.starts_with("  - name: ")).count();
        let groups: Vec<usize> = RULES.split("\n\n").map(in_paragraph).collect();
        assert_eq!(groups, [0, 0, 1, 1, 1, 1], "the comment, `groups:` and the groups");
        assert_eq!(RULES.matches(PROMISES).count(), 2);
    }

    #[test]
    fn names_are_escaped_for_the_language_they_stand_in() {
        assert_eq!(escaped(&regex::escape("a.b|\"c\" é\n")), "a\\\\.b\\\\|\\\"c\\\" é\\U0000000a");
        assert_eq!(listed("a,b").expect("a name that can be listed"), "a\\,b");
        for name in ["a : b", " a", "a\\b", "a\nb"] {
            assert!(listed(name).is_err(), "{name:?}");
        }
    }
}
