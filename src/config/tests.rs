//! The config file in the repository, the settings' names, and what wrong configs are told.

use std::collections::HashSet;
use std::path::Path;

use super::*;

/// The error of a config, without the name of its file.
fn error_of(text: &str) -> String {
    let error = match load_text("config.yaml", text) {
        Err(error) => error,
        Ok(loaded) => loaded.compile().unwrap_err(),
    };
    let text = error.to_string();
    text.split_once(": ").map_or(text.clone(), |(place, rest)| {
        let numbers: Vec<&str> = place.rsplit(':').take(2).collect();
        format!("{}:{} {rest}", numbers[1], numbers[0])
    })
}

#[test]
fn the_config_file_in_the_repository_shows_the_defaults_and_all_of_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yaml");
    let shown = load(Some(&path), &[]).unwrap();
    assert_eq!(shown.config, Config::default());
    assert!(shown.flows.is_empty());
    let text = std::fs::read_to_string(path).unwrap();
    let tree: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    for Setting { path: setting, .. } in settings() {
        let place = setting.split('.').try_fold(&tree, |node, key| node.get(key));
        assert!(place.is_some(), "{setting} is not shown");
    }
}

#[test]
fn no_two_settings_share_a_variable() {
    let variables: HashSet<String> =
        settings().iter().map(|setting| setting.path.replace('.', "_")).collect();
    assert_eq!(variables.len(), settings().len());
    assert!(settings().iter().any(|setting| setting.path == "listen.otlp_grpc"));
}

#[test]
fn settings_come_from_the_environment_and_flags_in_this_order() {
    let environment = |name: &str| match name {
        "APPLICATION_PORT" => Some("8080".to_owned()),
        "LOG_LEVEL" => Some("DEBUG".to_owned()),
        "LATENCY_AGGREGATOR_LIMITS_INSTANCES" => Some("5".to_owned()),
        "LATENCY_AGGREGATOR_TRACE_FLOW" => Some("false".to_owned()),
        "LATENCY_AGGREGATOR_LISTEN_OTLP_GRPC" => Some("null".to_owned()),
        "LATENCY_AGGREGATOR_INCLUDE" => Some("[]".to_owned()),
        _ => None,
    };
    let mut overrides = Override::from_environment(environment);
    overrides.push(Override::from_flag("limits.instances", "7"));
    overrides.push(Override::from_flag("defaults.linger", "3s"));
    let config = load(None, &overrides).unwrap().config;
    assert_eq!(config.listen.http, "0.0.0.0:8080");
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.limits.instances, 7);
    assert_eq!(config.defaults.linger, Duration::from_secs(3));
    assert!(!config.trace_flow);
    assert_eq!(config.listen.otlp_grpc, None);
}

#[test]
fn a_wrong_setting_names_the_flag_that_gave_it() {
    let error = load(None, &[Override::from_flag("limits.instances", "many")]).unwrap_err().to_string();
    assert!(error.starts_with("flag --limits.instances: cannot set limits.instances: "), "{error}");
}

#[test]
fn mistakes_are_refused_with_their_place() {
    for (text, expected) in [
        ("flwos: []\n", "1:1 "),
        ("listen:\n  htpp: a:1\n", "2:3 "),
        ("limits: {instances: many}\n", "1:21 "),
        ("flows:\n- name: a\n  match: 'span.nme == \"x\"'\n", "3:16 flow \"a\": match: found"),
        ("flows:\n- name: a\n  match: 'true'\n- name: a\n", "4:3 flow \"a\": name: there is a flow"),
        ("flows:\n- name: trace\n", "2:3 flow \"trace\": name: this is the built-in"),
        ("flows:\n- name: a\n  end: {stage: b, when: 'span.kind = 1'}\n", "3:36 flow \"a\": end[0].when: "),
        ("flows:\n- name: a\n  labels: {flow: 'span.name'}\n", "3:3 flow \"a\": labels.flow: "),
        ("flows:\n- name: a\n  buckets: [2, 1]\n", "3:3 flow \"a\": buckets: bucket bounds must rise"),
        ("flows:\n- name: a\n  slo: {latency: 1s, objective: 100}\n", "3:3 flow \"a\": slo.objective: "),
        ("flows:\n- name: a\n  key: span.attributs[\"order.id\"]\n", "3:13 flow \"a\": key: found"),
        ("flows:\n- name: a\n  key: [trace_id, span.name]\n", "3:3 flow \"a\": key: `trace_id` comes last"),
        ("ignore: ['span.name ==']\n", "1:"),
        ("include: [more.yaml]\n", "1:1 include: \"more.yaml\": only a file can include others"),
        ("listen: {http: \"${env:LATENCY_AGGREGATOR_NO_SUCH_VARIABLE}\"}\n", "1:17 the environment variable"),
    ] {
        let error = error_of(text);
        assert!(error.starts_with(expected), "{text}\nexpected: {expected}\nactual:   {error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Some(Path::new("no/such/file.yaml")), &[]).unwrap_err().to_string();
    assert_eq!(error, "cannot read the config file no/such/file.yaml");
}

#[test]
fn included_flows_come_behind_in_the_order_of_their_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("flows.d")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("main.yaml", "flows: [{name: first}]\ninclude: ['flows.d/*.yaml']\n");
    write("flows.d/b.yaml", "flows: [{name: third}]\n");
    write("flows.d/a.yaml", "flows: [{name: second}]\n");
    let loaded = load(Some(&folder.path().join("main.yaml")), &[]).unwrap();
    let names: Vec<&str> = loaded.flows.iter().map(|flow| flow.name.as_str()).collect();
    assert_eq!(names, ["first", "second", "third"]);
    assert!(loaded.compile().is_ok());
}

#[test]
fn equal_configs_have_equal_fingerprints_and_others_have_others() {
    let fingerprint = |text: &str| load_text("config.yaml", text).unwrap().fingerprint;
    assert_eq!(fingerprint("trace_flow: true\n"), fingerprint("# the default\ntrace_flow: true\n"));
    assert_ne!(fingerprint("trace_flow: true\n"), fingerprint("trace_flow: false\n"));
    assert_ne!(fingerprint("flows: [{name: a}]\n"), fingerprint("flows: [{name: b}]\n"));
}

#[test]
fn a_config_is_the_same_after_it_was_stored() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("main.yaml", "flows: [{name: first}]\ninclude: [a.yaml, '*.yml']\nmetrics: {zero_first: 3s}\n");
    write("a.yaml", "flows: [{name: second}, {name: third}]\n");
    write("b.yml", "flows: [{name: '$${env:fourth}'}]\n");
    let overrides = [Override::from_flag("limits.instances", "7")];
    let loaded = load(Some(&folder.path().join("main.yaml")), &overrides).unwrap();
    drop(folder);
    let restored = load_stored(&loaded.to_bytes()).unwrap();
    assert_eq!((&restored.config, &restored.flows), (&loaded.config, &loaded.flows));
    assert_eq!(restored.fingerprint, loaded.fingerprint);
    assert_eq!(restored.to_bytes(), loaded.to_bytes());
    assert!(load_stored(b"nonsense").is_err());
}
