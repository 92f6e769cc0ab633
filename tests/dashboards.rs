//! The dashboard and the rules of examples/: that they name what exists, and what the commands make of them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Value, json};
use support::otlp::{Answer, Way, export, request, span};
use support::{Launch, Server};

const DASHBOARD: &str = include_str!("../examples/dashboard.json");
const RULES: &str = include_str!("../examples/rules.yml");

/// What selects the flows everywhere in the rules.
const EVERY_FLOW: &str = r#"flow=~".+""#;

/// Two flows, of which one promises something.
const SHOP: &str = r"
flows:
  - {name: checkout, expect: [placed, shipped], slo: {latency: 1s, objective: 99}}
  - {name: re.fund}
";

/// Metrics that this test cannot make appear, and why.
const ELSEWHERE: [(&str, &str); 2] = [
    ("flow_clock_skew_seconds", "needs clocks that disagree"),
    ("latency_aggregator_secrets_last_reload_successful", "needs certificates or tokens"),
];

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

fn rules(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The panels that are no rows.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["panels"]).filter(|panel| panel["type"] != "row")
}

fn dashboard_queries(dashboard: &Value) -> Vec<String> {
    let targets = panels(dashboard).flat_map(|panel| list(&panel["targets"]));
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

fn all_rules(rules: &Value) -> impl Iterator<Item = &Value> {
    list(&rules["groups"]).flat_map(|group| list(&group["rules"]))
}

fn rule_queries(rules: &Value) -> Vec<String> {
    all_rules(rules).map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect()
}

/// Metrics as a query names them, each with the selectors behind it.
fn metrics(query: &str) -> Vec<(String, String)> {
    let metric =
        Regex::new(r"\b((?:flow_|latency_aggregator_|process_|job_flow:)[a-zA-Z0-9_:]+)(\{[^}]*\})?")
            .unwrap();
    let selectors =
        |found: &regex::Captures<'_>| found.get(2).map_or(String::new(), |text| text.as_str().into());
    metric.captures_iter(query).map(|found| (found[1].to_owned(), selectors(&found))).collect()
}

fn printed(launch: Launch, command: &str) -> String {
    let finished = launch.args(&[command]).run();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{command}");
    finished.stdout
}

/// A server on whose page every family has a series, but those that are [`ELSEWHERE`].
fn server_with_data() -> Server {
    let server = Server::quick(SHOP);
    let push = |stage: &str, is_final: bool| {
        let push = json!({"id": "1", "name": "checkout", "stage": stage, "final": is_final});
        assert_eq!(server.push(&push).status, 200);
    };
    push("placed", false);
    push("shipped", true);
    assert_eq!(export(&server, Way::Grpc, &request("shop", vec![span(1, 1)])), Answer::Accepted);
    server.until_settled();
    push("paid", false);
    server
}

#[test]
fn every_metric_of_the_dashboard_and_the_rules_exists() {
    let page = server_with_data().scrape();
    let rules = rules(RULES);
    let recorded = all_rules(&rules).filter_map(|rule| rule["record"].as_str().map(str::to_owned));
    let shown = page.families.iter().map(|family| family.name.clone());
    let known: BTreeSet<String> = shown.chain(recorded).collect();
    for (name, why) in ELSEWHERE {
        assert!(!known.contains(name), "{name} is there, so it need not be excepted: {why}");
    }
    let mut used = 0;
    for query in [dashboard_queries(&dashboard()), rule_queries(&rules)].concat() {
        for (name, _) in metrics(&query) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let exists = known.contains(&name) || family.is_some_and(|family| known.contains(family));
            let family = family.unwrap_or(&name);
            assert!(exists || ELSEWHERE.iter().any(|(name, _)| *name == family), "{name} of {query}");
            used += 1;
        }
    }
    assert!(used > 100, "only {used} metrics found");
}

#[test]
fn every_query_of_a_flow_selects_its_flows() {
    // The program's own metrics that have a label `flow`.
    let own = [
        "late_extension_seconds_bucket",
        "orphan_roots_total",
        "unanswered_producers_total",
        "unseen_links_total",
        "missed_links_total",
        "uncertain_latencies_total",
        "reversed_flows_total",
        "label_conflicts_total",
    ];
    let is_of_a_flow = |name: &str| {
        let own_name = name.strip_prefix("latency_aggregator_");
        name.starts_with("flow_")
            || name.starts_with("job_flow:")
            || own_name.is_some_and(|name| own.contains(&name))
    };
    let check = |queries: Vec<String>, selects: &str| {
        for query in &queries {
            for (name, selectors) in metrics(query).into_iter().filter(|(name, _)| is_of_a_flow(name)) {
                assert!(selectors.contains(selects), "{name}{selectors} lacks {selects} in {query}");
            }
        }
    };
    check(rule_queries(&rules(RULES)), EVERY_FLOW);
    check(dashboard_queries(&dashboard()), r#"flow=~"$flow""#);
    for query in dashboard_queries(&dashboard()) {
        for (name, selectors) in metrics(&query) {
            assert!(selectors.starts_with(r#"{job=~"$job", instance=~"$instance""#), "{name} in {query}");
        }
    }
}

#[test]
fn every_panel_says_what_it_shows_and_has_a_place_of_its_own() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for (x, y) in
            (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(x < 24 && places.insert((x, y)), "{title}: its place is taken");
        }
    }
    for panel in panels(&dashboard) {
        let (title, kind) = (&panel["title"], panel["type"].as_str().unwrap());
        assert!(["timeseries", "heatmap", "table", "bargauge"].contains(&kind), "{title} is a {kind}");
        assert!(panel["description"].as_str().unwrap().len() > 10, "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        for target in list(&panel["targets"]) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expression = target["expr"].as_str().unwrap();
            let is_instant = target["instant"] == true;
            assert_eq!(is_instant, kind == "table" || kind == "bargauge", "{title}: {expression}");
            assert!(is_instant || !expression.contains("$__range]"), "{title}: {expression}");
        }
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_described_in_the_readme() {
    let (rules, readme) = (rules(RULES), include_str!("../README.md"));
    for alert in all_rules(&rules).filter(|rule| rule["alert"].is_string()) {
        let name = alert["alert"].as_str().unwrap();
        assert!(readme.contains(&format!("`{name}`")), "{name} is not described");
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(alert["for"].is_string(), "{name} has no `for`");
        for annotation in ["summary", "description"] {
            assert!(
                alert["annotations"][annotation].as_str().unwrap().len() > 20,
                "{name} lacks its {annotation}"
            );
        }
    }
}

#[test]
fn without_flows_the_commands_print_the_files() {
    for config in ["", "trace_flow: false\n"] {
        assert_eq!(printed(Launch::config(config), "dashboard"), DASHBOARD);
        assert_eq!(printed(Launch::config(config), "rules"), RULES);
    }
    assert_eq!(printed(Launch::bare(), "rules"), RULES);
}

#[test]
fn a_narrowed_dashboard_offers_the_flows_of_the_config_and_is_else_the_same() {
    let mut narrowed: Value = serde_json::from_str(&printed(Launch::config(SHOP), "dashboard")).unwrap();
    assert_eq!(narrowed["title"], "Business flows: checkout and 2 more");
    let is_flow = |variable: &&mut Value| variable["name"] == "flow";
    let flow = narrowed["templating"]["list"].as_array_mut().unwrap().iter_mut().find(is_flow).unwrap();
    assert_eq!((&flow["type"], &flow["query"]), (&json!("custom"), &json!("checkout,re.fund,trace")));
    assert_eq!(
        (&flow["multi"], &flow["includeAll"], &flow["allValue"]),
        (&json!(true), &json!(true), &json!(null))
    );
    let values: Vec<&Value> = list(&flow["options"]).map(|option| &option["value"]).collect();
    assert_eq!(values, ["$__all", "checkout", "re.fund", "trace"]);

    let mut file = dashboard();
    *flow = file["templating"]["list"].as_array_mut().unwrap().iter_mut().find(is_flow).unwrap().take();
    file["templating"]["list"] = narrowed["templating"]["list"].clone();
    narrowed["title"] = file["title"].clone();
    assert_eq!(narrowed, file);
}

#[test]
fn narrowed_rules_select_the_flows_of_the_config_and_promises_only_where_there_are_any() {
    let text = printed(Launch::config(SHOP), "rules");
    assert!(text.lines().next().unwrap().ends_with("for these flows: checkout, re.fund, trace."), "{text}");
    let (narrowed, file) = (rules(&text), rules(RULES));
    for (narrowed, file) in list(&narrowed["groups"]).zip(list(&file["groups"])) {
        assert_eq!(narrowed["name"], file["name"]);
        let promises = file["name"].as_str().unwrap().starts_with("flow-slo");
        let selects = if promises { r#"flow=~"checkout""# } else { r#"flow=~"checkout|re\\.fund|trace""# };
        for (narrowed, file) in list(&narrowed["rules"]).zip(list(&file["rules"])) {
            let mut expected = file.clone();
            expected["expr"] = file["expr"].as_str().unwrap().replace(EVERY_FLOW, selects).into();
            assert_eq!(*narrowed, expected);
        }
    }
    assert_eq!(all_rules(&narrowed).count(), all_rules(&file).count());

    let unpromising = rules(&printed(Launch::config("flows: [{name: a}]\ntrace_flow: false\n"), "rules"));
    let groups: Vec<&Value> = list(&unpromising["groups"]).map(|group| &group["name"]).collect();
    assert_eq!(groups, ["flow-alerts", "latency-aggregator"]);
}

#[test]
fn flows_of_included_files_count_and_settings_may_come_as_flags() {
    let launch = Launch::config("include: [more.yaml]\n").file("more.yaml", "flows: [{name: refund}]\n");
    let finished = launch.args(&["rules", "--trace_flow", "false"]).run();
    assert!(finished.stdout.contains(r#"flow=~"refund""#), "{finished:?}");
    assert!(!finished.stdout.contains(EVERY_FLOW));
}

#[test]
fn what_cannot_be_printed_is_refused_with_the_reason() {
    let awkward = "flows: [{name: 'a : b'}]\n";
    for (config, command, says) in [
        ("flows: [{nme: a}]\n", "dashboard", "config.yaml:1"),
        ("flows: [{name: a, match: 'x'}]\n", "rules", "config.yaml:1"),
        (awkward, "dashboard", "a : b"),
    ] {
        let finished = Launch::config(config).args(&[command]).run();
        assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
        assert!(finished.stdout.is_empty() && finished.stderr.contains(says), "{finished:?}");
    }
    assert!(printed(Launch::config(awkward), "rules").contains(r#"flow=~"a : b|trace""#));
}
