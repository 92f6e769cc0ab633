//! The command line: starting, refusing to start, checking, pushing and ending.

mod support;

use std::net::TcpListener;

use serde_json::{Value, json};
use support::otlp::{Answer, Way, export, json_answer, json_request, post_json, request, span};
use support::{Finished, Launch, PATIENT, QUICK, Server, Wire, client, eventually, listens, send};

/// A program that must not start: it says why, on standard error alone, and ends with a code that is not zero.
#[track_caller]
fn check_refused(finished: &Finished, says: &[&str]) {
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    assert_eq!(finished.stdout, "", "{finished:?}");
    for text in says {
        assert!(finished.stderr.contains(text), "no {text:?} in:\n{}", finished.stderr);
    }
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

/// Whether a message says `config.yaml:LINE:COLUMN`.
fn names_a_place(message: &str) -> bool {
    let Some((_, place)) = message.split_once("config.yaml:") else { return false };
    let mut numbers = place.split([':', ' ']);
    let mut is_number = || numbers.next().is_some_and(|number| number.parse::<u32>().is_ok());
    is_number() && is_number()
}

#[test]
fn a_wrong_config_is_refused_with_file_line_column_and_key() {
    let cases: [(&str, &[&str]); 16] = [
        ("listen:\n  htttp: 127.0.0.1:0\n", &["config.yaml:2:3", "htttp"]),
        ("listn: {}\n", &["config.yaml:1:1", "listn", "listen"]),
        ("defaults:\n  quiet_period: soon\n", &["config.yaml:2:", "quiet_period"]),
        ("defaults:\n  quiet_period: 10\n", &["config.yaml:2:", "quiet_period"]),
        ("defaults: {max_age: [1]}\n", &["config.yaml:1:", "max_age"]),
        ("trace_flow: maybe\n", &["config.yaml:1:", "trace_flow"]),
        ("push:\n  flows: many\n", &["config.yaml:2:", "flows"]),
        ("limits:\n  instances: -1\n", &["config.yaml:2:", "instances"]),
        ("defaults:\n  buckets: fast\n", &["config.yaml:2:", "buckets"]),
        ("log: {format: xml}\n", &["config.yaml:1:", "format"]),
        ("flows:\n  - match: 'true'\n", &["config.yaml:2", "name"]),
        ("flows:\n  - name: order\n    labels: {le: 'span.name'}\n", &["config.yaml:", "labels", "le"]),
        ("flows:\n  - name: order\n    slo: {latency: 5s, objective: 101}\n", &["config.yaml:", "objective"]),
        ("flows:\n  - name: order\n    macth: 'true'\n", &["config.yaml:3:5", "macth"]),
        ("flows: {}\n", &["config.yaml:1:", "flows"]),
        ("flows:\n - name: [\n", &["config.yaml:"]),
    ];
    check_config_errors(&cases);
}

#[test]
fn a_value_that_only_its_meaning_makes_wrong_is_refused_with_its_place_too() {
    check_config_errors(&[
        ("defaults:\n  buckets: [2, 1]\n", &["config.yaml", "buckets"]),
        ("listen: {http: nowhere}\n", &["config.yaml", "listen.http", "host:port"]),
        ("listen: {http: '127.0.0.1:99999'}\n", &["config.yaml", "listen.http"]),
        ("include: [missing.yaml]\n", &["config.yaml", "missing.yaml"]),
    ]);
}

/// Each config is refused, at a place, and with these words.
#[track_caller]
fn check_config_errors(cases: &[(&str, &[&str])]) {
    let mut wrong = Vec::new();
    for (text, says) in cases {
        let finished = Launch::config(text).args(&["check", "config.yaml"]).run();
        assert!(finished.code.is_some_and(|code| code != 0), "{text}: {finished:?}");
        assert_eq!(finished.stdout, "", "{text}");
        let missing: Vec<&&str> = says.iter().filter(|says| !finished.stderr.contains(**says)).collect();
        if !missing.is_empty() || !names_a_place(&finished.stderr) {
            wrong.push(format!("{text}  lacks {missing:?}, or line and column:\n  {}", finished.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_condition_is_refused_at_its_place_in_the_file() {
    for (text, says) in [
        // The place is that of the mistake, within the expression.
        ("flows:\n  - name: order\n    match: 'span.nme == \"x\"'\n", ["config.yaml:3:", "span.nme"]),
        ("flows:\n  - name: order\n    match: 'span.name = \"x\"'\n", ["config.yaml:3:", "=="]),
        (
            "flows:\n  - name: order\n    match: 'span.kind == SPAN_KIND_SERVR'\n",
            ["config.yaml:3:", "SPAN_KIND_SERVER"],
        ),
        (
            "flows:\n  - name: order\n    match: >-\n      span.name == \"x\" and\n      span.nme == \"y\"\n",
            ["config.yaml:", "span.nme"],
        ),
        (
            "flows:\n  - name: order\n    end:\n      - {when: 'IsMatch(span.name, \"(\")'}\n",
            ["config.yaml:4:", "when"],
        ),
        ("ignore:\n  - 'span.name =='\n", ["config.yaml:2:", "ignore"]),
    ] {
        check_refused(&Launch::config(text).run(), &says);
    }
}

#[test]
fn the_column_of_a_condition_is_that_of_the_mistake() {
    let text = "flows:\n  - name: order\n    match: 'span.name == \"x\" and span.nme == \"y\"'\n";
    let column = text.lines().nth(2).and_then(|line| line.find("nme")).expect("it is there") + 1;
    let start = text.lines().nth(2).and_then(|line| line.find("span.nme")).expect("it is there") + 1;
    let finished = Launch::config(text).run();
    let at = |column: usize| finished.stderr.contains(&format!("config.yaml:3:{column}:"));
    assert!(at(column) || at(start), "neither column {start} nor {column} in:\n{}", finished.stderr);
}

#[test]
fn a_flow_that_is_there_twice_is_refused() {
    let twice = "flows:\n  - {name: order}\n  - {name: order}\n";
    check_refused(&Launch::config(twice).run(), &["config.yaml:3", "order"]);
    let included = Launch::config("flows:\n  - {name: order}\ninclude: [flows.d/*.yaml]\n")
        .file("flows.d/more.yaml", "flows:\n  - {name: order}\n");
    check_refused(&included.run(), &["more.yaml:2", "order"]);
    let overlapping = "flows:\n  - {name: a, metric: order}\n  - {name: b, metric: order_count}\n";
    check_refused(&Launch::config(overlapping).run(), &["config.yaml:3", "order_count"]);
}

#[test]
fn a_variable_that_is_not_set_is_refused_and_one_that_is_set_is_read() {
    let text = "log:\n  level: ${env:LEVEL}\n";
    let finished = Launch::config(text).run();
    check_refused(&finished, &["config.yaml:2:", "LEVEL"]);
    let server =
        Launch::config(&format!("{QUICK}trace_flow: ${{env:TAKE:-true}}\n")).env("TAKE", "false").start();
    assert!(server.scrape().samples("flow_open", &[("flow", "trace")]).is_empty());
}

#[test]
fn a_config_file_that_cannot_be_read_is_refused() {
    let finished = Launch::bare().args(&["--config", "nowhere.yaml"]).run();
    check_refused(&finished, &["nowhere.yaml"]);
    let launch = Launch::bare();
    let folder = launch.folder().display().to_string();
    check_refused(&launch.args(&["--config", &folder]).run(), &[&folder]);
    let finished = Launch::bare().args(&["check", "nowhere.yaml"]).run();
    check_refused(&finished, &["nowhere.yaml"]);
}

#[test]
fn an_unknown_flag_or_command_is_refused_and_the_help_is_named() {
    for arguments in [
        &["--listen.htp", "127.0.0.1:0"][..],
        &["--confg", "x"],
        &["srve"],
        &["serve", "--no-such-flag"],
        &["check"],
        &["push"],
        &["push", "--id", "1"],
        &["--config"],
    ] {
        let finished = Launch::bare().args(arguments).run();
        check_refused(&finished, &["--help"]);
    }
    let finished = Launch::bare().args(&["--listen.htp", "127.0.0.1:0"]).run();
    check_refused(&finished, &["--listen.http"]);
}

#[test]
fn help_and_version_are_told() {
    let finished = Launch::bare().args(&["--help"]).run();
    assert_eq!(finished.code, Some(0));
    for text in ["serve", "check", "push", "--config", "LATENCY_AGGREGATOR_LISTEN_HTTP"] {
        assert!(finished.stdout.contains(text), "{text}");
    }
    let finished = Launch::bare().args(&["--version"]).run();
    assert_eq!(finished.code, Some(0));
    assert!(finished.stdout.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_taken_port_is_one_message_that_names_setting_and_remedy_and_nothing_listens() {
    for setting in ["listen.http", "listen.metrics", "listen.otlp_grpc", "listen.otlp_http"] {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("it has one").to_string();
        let flag = format!("--{setting}");
        let finished = Launch::config(QUICK).args(&[&flag, &address]).run();
        check_refused(&finished, &[setting, &address, &flag]);
        assert_eq!(finished.stderr.matches("error:").count(), 1, "{}", finished.stderr);
    }
}

#[test]
fn a_wrong_setting_from_outside_the_file_is_refused_and_its_origin_named() {
    let finished = Launch::config(QUICK).args(&["--push.flows", "many"]).run();
    check_refused(&finished, &["--push.flows"]);
    let finished = Launch::config(QUICK).env("LATENCY_AGGREGATOR_PUSH_FLOWS", "many").run();
    check_refused(&finished, &["LATENCY_AGGREGATOR_PUSH_FLOWS"]);
    let finished = Launch::config(QUICK).env("APPLICATION_PORT", "a port").run();
    check_refused(&finished, &["APPLICATION_PORT"]);
    let finished = Launch::config(QUICK).args(&["--log.level", "l=o=u=d"]).run();
    check_refused(&finished, &["log.level"]);
}

#[test]
fn check_prints_what_it_understood() {
    let text = "
listen: {http: 127.0.0.1:7171}
defaults: {max_age: 1h}
flows:
  - name: checkout
    match: 'span.name == \"POST /orders\"'
    start: {stage: gateway}
    end: [{stage: shipping}, {when: 'span.name == \"OrderCancelled\"', outcome: error}]
    labels: {tenant: 'span.attributes[\"tenant\"]'}
    slo: {latency: 5s, objective: 99.9}
    buckets: [1, 3600]
  - name: refund
    match: 'span.name == \"POST /refunds\"'
    expect: [gateway, bank]
    buckets: [1, 3600]
";
    let finished = Launch::config(text).args(&["check", "config.yaml"]).run();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    for text in [
        "config.yaml: ok",
        "127.0.0.1:7171",
        "127.0.0.1:4317",
        "127.0.0.1:4318",
        "checkout",
        "POST /orders",
        "gateway",
        "shipping",
        "tenant",
        "refund",
        "bank",
        "trace",
    ] {
        assert!(finished.stdout.contains(text), "no {text:?} in:\n{}", finished.stdout);
    }
    let place = |text: &str| finished.stdout.find(text).expect("it is there");
    assert!(place("- checkout") < place("- refund") && place("- refund") < place("- trace"));
}

#[test]
fn check_of_an_empty_file_shows_the_default_addresses() {
    for text in ["", "{}\n", "# nothing\n"] {
        let finished = Launch::config(text).args(&["check", "config.yaml"]).run();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        for address in ["127.0.0.1:7070", "127.0.0.1:4317", "127.0.0.1:4318"] {
            assert!(finished.stdout.contains(address), "{address}: {}", finished.stdout);
        }
    }
}

#[test]
fn check_warns_about_shadowed_flows_and_short_buckets() {
    let text = "
flows:
  - {name: everything, match: 'true', buckets: [1, 600]}
  - {name: never, match: 'span.name == \"x\"', buckets: [1, 600]}
  - {name: cut, match: 'span.name == \"y\"', buckets: [1, 5]}
";
    let finished = Launch::config(text).args(&["check", "config.yaml"]).run();
    assert_eq!(finished.code, Some(0), "a warning is no error: {finished:?}");
    let warnings: Vec<&str> = finished.stdout.lines().filter(|line| line.starts_with("warning")).collect();
    let about =
        |flow: &str, word: &str| warnings.iter().any(|line| line.contains(flow) && line.contains(word));
    assert!(about("never", "everything"), "{warnings:?}");
    assert!(about("cut", "max_age"), "{warnings:?}");
    assert!(!about("\"everything\": its", ""), "{warnings:?}");
    let fine = "flows:\n  - {name: order, match: 'span.name == \"x\"'}\n";
    let finished = Launch::config(fine).args(&["check", "config.yaml"]).run();
    assert!(!finished.stdout.contains("warning"), "{}", finished.stdout);
}

#[test]
fn check_and_the_start_warn_about_room_that_a_compressed_request_cannot_find() {
    let limits = |bytes_in_flight: u64| {
        format!("{QUICK}limits: {{request_bytes: 5000000, bytes_in_flight: {bytes_in_flight}}}\n")
    };
    for (bytes_in_flight, is_tight) in [(23_388_612, true), (23_388_613, false)] {
        let finished = Launch::config(&limits(bytes_in_flight)).args(&["check", "config.yaml"]).run();
        let warning = "warning: limits.bytes_in_flight (23388612): ";
        assert_eq!(finished.stdout.contains(warning), is_tight, "{finished:?}");
        assert_eq!(finished.stdout.contains("23388613"), is_tight, "{finished:?}");
    }
    let server = Launch::config(&limits(5_000_000)).start();
    support::eventually("it is in the log", || server.logs().contains("limits.bytes_in_flight (5000000)"));
}

#[test]
fn check_refuses_what_serve_refuses_and_binds_nothing() {
    let finished = Launch::config("listn: {}\n").args(&["check", "config.yaml"]).run();
    check_refused(&finished, &["config.yaml:1:1", "listn"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it has one").to_string();
    let finished = Launch::config(QUICK).args(&["check", "config.yaml", "--listen.http", &address]).run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

#[test]
fn push_sends_an_event_with_its_flags() {
    let server = Server::quick("");
    let url = format!("http://{}", server.http());
    let push = |arguments: &[&str]| {
        let arguments = [&["push", "--url", &url, "--name", "order", "--id", "1"], arguments].concat();
        Launch::bare().args(&arguments).run()
    };
    let finished = push(&[
        "--stage",
        "placed",
        "--life_span",
        "60",
        "--help-text",
        "Time of an order",
        "--buckets",
        "1,10",
        "--label_values",
        "tenant=a=b",
        "--label_values",
        "region=eu",
        "--const_labels",
        "site=x",
    ]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    let finished = push(&["--stage", "shipped", "--status", "error", "--time_to_live", "5", "--final"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    let page = server.until("it is observed", |page| page.sum("order_count", &[]) == 1.0);
    let count = page.only("order_count", &[]);
    for (label, value) in [("tenant", "a=b"), ("region", "eu"), ("site", "x"), ("outcome", "error")] {
        assert_eq!(count.labels.get(label).map(String::as_str), Some(value), "{label}: {count:?}");
    }
    assert_eq!(page.family("order").map(|family| family.help.as_str()), Some("Time of an order"));
    assert_eq!(page.samples("order_bucket", &[]).len(), 3);
    assert_eq!(page.sum("flow_closed_total", &[("flow", "order"), ("reason", "final")]), 1.0);
}

#[test]
fn push_tells_why_it_failed_and_ends_with_a_code_that_is_not_zero() {
    let server = Server::quick("");
    let url = format!("http://{}", server.http());
    let refused = Launch::bare().args(&["push", "--url", &url, "--id", "1", "--name", "no name"]);
    check_refused(&refused.run(), &["name"]);
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it has one");
    let nobody = format!("http://{free}");
    let finished = Launch::bare().args(&["push", "--url", &nobody, "--id", "1", "--name", "order"]).run();
    check_refused(&finished, &[&free.to_string()]);
    let finished = Launch::bare().args(&["push", "--url", "nonsense", "--id", "1", "--name", "order"]).run();
    check_refused(&finished, &["--url"]);
    let bad: [&[&str]; 3] =
        [&["--life_span", "soon"], &["--label_values", "tenant"], &["--status", "broken"]];
    for arguments in bad {
        let all = [&["push", "--url", &url, "--id", "1", "--name", "order"], arguments].concat();
        check_refused(&Launch::bare().args(&all).run(), &[]);
    }
    assert_eq!(server.scrape().sum("latency_aggregator_open_instances", &[]), 0.0);
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let config = format!("{QUICK}log: {{format: human}}\npush: {{flows: 1}}\n");
    let flows = |server: &Server| {
        let pushes: Vec<Value> = (0..5).map(|n| json!({"id": "1", "name": format!("order_{n}_x")})).collect();
        server.push(&json!(pushes)).json()["accepted"].as_u64()
    };
    assert_eq!(flows(&Launch::config(&config).start()), Some(1));
    let variable = || Launch::config(&config).env("LATENCY_AGGREGATOR_PUSH_FLOWS", "2");
    assert_eq!(flows(&variable().start()), Some(2));
    assert_eq!(flows(&variable().args(&["--push.flows", "3"]).start()), Some(3));
    assert_eq!(flows(&variable().args(&["serve", "--push.flows=4"]).start()), Some(4));
}

#[test]
fn addresses_may_come_from_the_environment() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it has one");
    let server = Launch::config(QUICK).env("LATENCY_AGGREGATOR_LISTEN_HTTP", &free.to_string()).start();
    assert_eq!(server.http(), free);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn the_ancestors_variables_keep_working() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it has one");
    let port = free.port().to_string();
    let server = Launch::config(QUICK).env("APPLICATION_PORT", &port).env("LOG_LEVEL", "DEBUG").start();
    assert_eq!(server.http().port(), free.port());
    let url = format!("http://{free}/health");
    assert_eq!(send(&client(), "GET", &url, &[], Vec::new()).status, 200);
    // Ours win.
    let server = Launch::config(QUICK)
        .env("APPLICATION_PORT", "1")
        .env("LATENCY_AGGREGATOR_LISTEN_HTTP", "127.0.0.1:0")
        .start();
    assert_ne!(server.http().port(), 1);
    for (level, talks) in [("error", false), ("INFO", true)] {
        let mut server =
            Launch::config(QUICK).env("LOG_LEVEL", level).args(&["--shutdown.linger", "0s"]).start();
        server.terminate();
        assert_eq!(server.exit_code(), Some(0));
        eventually("the logs are as the level says", || server.logs().contains("shut") == talks);
    }
}

#[test]
fn logs_may_be_json_a_line_each_on_standard_error() {
    let mut server = Launch::config(QUICK).args(&["--log.format", "json", "--shutdown.linger", "0s"]).start();
    server.terminate();
    assert_eq!(server.exit_code(), Some(0));
    eventually("the end is logged", || server.logs().contains("shut"));
    for line in server.logs().lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message"] {
            assert!(entry[key].is_string(), "{key}: {line}");
        }
    }
}

#[test]
fn start_up_lines_name_the_ports_that_were_picked_and_one_line_to_try() {
    let server = Server::quick("");
    let mut ports = Vec::new();
    for setting in ["listen.http", "listen.otlp_grpc", "listen.otlp_http"] {
        let address = server.address_of(setting).expect("a line names it");
        assert_ne!(address.port(), 0, "{setting}");
        assert!(listens(address), "{setting}");
        ports.push(address.port());
    }
    ports.dedup();
    assert_eq!(ports.len(), 3);
    assert_eq!(server.address_of("listen.metrics"), None, "it has no address of its own");
    let hint = server.start_up().last().expect("lines");
    assert!(hint.contains("curl") && hint.contains(&server.http().to_string()), "{hint}");
}

#[test]
fn the_line_to_try_works() {
    let server = Server::quick("");
    let hint = server.start_up().last().expect("lines").clone();
    let body = hint.split('\'').find(|part| part.starts_with('{')).expect("a body in quotes");
    let reply = server.push_with(&[("content-type", "application/json")], body);
    assert_eq!(reply.status, 200, "{hint}: {}", reply.text());
}

#[test]
fn a_receiver_may_be_switched_off() {
    let server = Launch::config(
        "listen: {http: '127.0.0.1:0', otlp_grpc: null, otlp_http: null}\ndefaults: {quiet_period: 200ms}\n",
    )
    .start();
    assert_eq!(server.address_of("listen.otlp_grpc"), None);
    assert_eq!(server.address_of("listen.otlp_http"), None);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn without_a_config_file_the_built_in_defaults_hold() {
    // The default addresses may be taken on this machine, so they are replaced and read from the check of a file.
    let server = Launch::bare()
        .args(&["--listen.http", "127.0.0.1:0"])
        .args(&["--listen.otlp_grpc", "127.0.0.1:0", "--listen.otlp_http", "127.0.0.1:0"])
        .start();
    assert_eq!(
        json_answer(&post_json(&server, json_request("0123456789abcdef0123456789abcdef", ""))),
        Answer::Accepted
    );
    let page = server.scrape();
    assert_eq!(page.sum("latency_aggregator_open_instances", &[]), 1.0);
    assert!(!page.samples("flow_open", &[("flow", "trace")]).is_empty(), "the built-in flow is there");
    assert_eq!(server.push(&json!({"id": "1", "name": "order"})).status, 200);
}

#[test]
fn the_config_file_in_the_working_folder_is_found() {
    let server = Launch::config(&format!("{QUICK}trace_flow: false\n")).start();
    assert!(server.scrape().samples("flow_open", &[("flow", "trace")]).is_empty());
}

#[test]
fn included_files_bring_flows_in_the_order_of_their_names() {
    let server = Launch::config(&format!("{QUICK}include: ['flows.d/*.yaml']\n"))
        .file("flows.d/b.yaml", "flows:\n  - {name: second, match: 'true'}\n")
        .file("flows.d/a.yaml", "flows:\n  - {name: first, match: 'span.name == \"POST /orders\"'}\n")
        .start();
    assert_eq!(export(&server, Way::Grpc, &request("shop", vec![span(1, 1)])), Answer::Accepted);
    let page = server.until("it is observed", |page| page.sum("flow_latency_seconds_count", &[]) == 1.0);
    assert_eq!(page.sum("flow_latency_seconds_count", &[("flow", "first")]), 1.0);
    let broken =
        Launch::config("include: ['flows.d/*.yaml']\n").file("flows.d/a.yaml", "flows:\n  - {nam: x}\n");
    check_refused(&broken.run(), &["a.yaml:2:", "nam"]);
}

#[test]
fn sigterm_drains_in_order_and_shows_the_end_on_a_last_scrape() {
    for signal in ["TERM", "INT"] {
        let mut server = Launch::config(PATIENT).args(&["--shutdown.linger", "60s"]).start();
        server.push(&json!({"id": "1", "name": "order", "stage": "a"}));
        assert_eq!(export(&server, Way::Grpc, &request("shop", vec![span(1, 1)])), Answer::Accepted);
        eventually("it is ready", || server.get("/readyz").status == 200);
        server.signal(signal);
        eventually("it is not ready", || server.get("/readyz").status == 503);
        assert_eq!(server.get("/livez").status, 200, "it is alive, still");
        eventually("the receivers are closed", || {
            !listens(server.otlp_grpc()) && !listens(server.otlp_http())
        });
        assert!(server.is_running());
        // Probes are no scrapes, so this one is the last.
        eventually("what was open is closed", || server.logs().contains("closed"));
        let page = server.scrape();
        let evicted = page.only("flow_closed_total", &[("flow", "order"), ("reason", "shutdown")]);
        assert_eq!((evicted.value, evicted.labels["outcome"].as_str()), (1.0, "evicted"), "{signal}");
        assert_eq!(page.sum("latency_aggregator_open_instances", &[]), 0.0);
        assert_eq!(page.sum("flow_latency_seconds_count", &[("flow", "order")]), 0.0);
        assert_eq!(server.exit_code(), Some(0), "{signal}");
        assert!(!server.logs().contains("panicked"), "{}", server.logs());
    }
}

#[test]
fn at_the_end_what_has_ended_closes_as_it_would_have() {
    let mut server = Launch::config(PATIENT).args(&["--shutdown.linger", "60s"]).start();
    server.push(&json!({"id": "1", "name": "order", "stage": "a", "final": true}));
    assert_eq!(export(&server, Way::Grpc, &request("shop", vec![span(1, 1)])), Answer::Accepted);
    server.terminate();
    eventually("what was open is closed", || server.logs().contains("closed"));
    let page = server.scrape();
    for (flow, reason) in [("order", "final"), ("trace", "root")] {
        let labels = [("flow", flow), ("reason", reason), ("outcome", "ok")];
        assert_eq!(page.sum("flow_closed_total", &labels), 1.0, "{flow}: {}", page.interesting());
        assert_eq!(page.sum("flow_latency_seconds_count", &[("flow", flow)]), 1.0, "{flow}");
    }
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_request_under_way_at_the_end_is_finished() {
    let mut server = Launch::config(PATIENT).args(&["--shutdown.linger", "60s"]).start();
    let json = json_request("0123456789abcdef0123456789abcdef", "");
    let (first, rest) = json.split_at(json.len() / 2);
    let mut connection = Wire::connect(server.otlp_http());
    connection.write(format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{first}",
        json.len()
    ));
    // Whether the connection has been accepted shows once it is answered to: so another one goes first through.
    assert_eq!(json_answer(&post_json(&server, "{}")), Answer::Accepted);
    server.terminate();
    eventually("the receiver is closed", || !listens(server.otlp_http()));
    connection.write(rest);
    assert_eq!(json_answer(&connection.read_reply()), Answer::Accepted);
    eventually("what was open is closed", || server.logs().contains("closed"));
    let page = server.scrape();
    assert_eq!(page.sum("latency_aggregator_events_received_total", &[]), 1.0);
    assert_eq!(page.sum("latency_aggregator_instances_closed_total", &[]), 1.0);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn without_a_last_scrape_the_end_comes_after_the_linger() {
    let mut server = Launch::config(PATIENT).args(&["--shutdown.linger", "300ms"]).start();
    server.push(&json!({"id": "1", "name": "order"}));
    server.terminate();
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_request_that_never_ends_does_not_hold_up_the_end() {
    let mut server =
        Launch::config(PATIENT).args(&["--shutdown.linger", "100ms", "--shutdown.grace", "300ms"]).start();
    let mut stalled = Vec::new();
    for address in [server.http(), server.otlp_http()] {
        let mut connection = Wire::connect(address);
        connection.write("POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{");
        stalled.push(connection);
    }
    server.terminate();
    assert_eq!(server.exit_code(), Some(0));
}
