//! What the documents promise: every config sample loads, every option and every metric that exists is described.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use latency_aggregator::assembly::build_pipeline;
use latency_aggregator::config;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

fn load(text: &str) -> config::Loaded {
    config::load_text("sample", text).unwrap()
}

#[test]
fn every_config_sample_of_the_readme_loads() {
    let samples = blocks(&read("README.md"), "yaml");
    assert!(!samples.is_empty());
    for sample in samples {
        let loaded = load(&sample);
        assert!(!loaded.flows.is_empty(), "{sample}");
        build_pipeline(&loaded).unwrap();
    }
}

#[test]
fn every_metric_on_the_page_is_described_in_the_readme_and_the_other_way_round() {
    let (pipeline, _) =
        build_pipeline(&load("flows: [{name: a, slo: {latency: 1s, objective: 99}}]\n")).unwrap();
    let families = pipeline.snapshot(pipeline.now());
    let shown: BTreeSet<String> = families.iter().map(|family| family.name.to_string()).collect();
    let readme = read("README.md");
    for name in shown.iter().filter(|name| !name.starts_with("process_")) {
        let short = name.trim_start_matches("latency_aggregator_");
        assert!(readme.contains(&format!("`{short}")), "{name} is not described");
    }
    for family in
        ["flow_latency_seconds", "flow_slo_total", "flow_slo_objective_ratio", "flow_overdue", "flow_open"]
    {
        assert!(shown.contains(family), "{family} is described, but not shown");
    }
}

#[test]
fn every_setting_group_is_described_in_the_readme() {
    let readme = read("README.md");
    for config::Setting { path: setting, .. } in config::settings() {
        let group = format!("{}.*", setting.split('.').next().unwrap());
        assert!(
            readme.contains(&format!("`{setting}")) || readme.contains(&group),
            "{setting} is not described"
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = read(document);
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
            assert!(target.starts_with("http") || path.exists(), "{document} links to {target}");
        }
    }
}
