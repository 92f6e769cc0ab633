//! Flags and environment to a command: settings by the one naming rule, read off the list of settings.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command as Clap};
use serde_json::{Map, Value};

use crate::config::{Override, Setting, settings};
use crate::load::{Layout, Plan, Protocol};
use crate::tls::client::Credentials;

/// What to do.
#[derive(Debug)]
pub(super) enum Command {
    Serve { config: Option<PathBuf>, overrides: Vec<Override> },
    Check { file: PathBuf, overrides: Vec<Override>, traces: Vec<PathBuf> },
    Replay { config: Option<PathBuf>, overrides: Vec<Override>, files: Vec<PathBuf>, as_json: bool },
    Push { url: String, shown: CredentialFiles, push: Value },
    Load { plan: Plan, shown: CredentialFiles, metrics: Option<String> },
    Dashboard { config: Option<PathBuf>, overrides: Vec<Override> },
    Rules { config: Option<PathBuf>, overrides: Vec<Override> },
}

/// Where a client finds whom to trust and what to show of itself.
#[derive(Debug)]
pub(super) struct CredentialFiles {
    pub(super) ca: Option<PathBuf>,
    pub(super) token: Option<PathBuf>,
}

/// Where the program looks for its config unless it is told.
const DEFAULT_FILE: &str = "config.yaml";

/// Reads the arguments of the process; a wrong one ends it with a message and code 2.
pub(super) fn parse() -> Command {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("check", matches)) => {
            let file: &PathBuf = matches.get_one("file").expect("clap requires it");
            Command::Check {
                file: file.clone(),
                overrides: overrides(matches),
                traces: paths(matches, "traces"),
            }
        }
        Some(("replay", matches)) => Command::Replay {
            config: config(matches),
            overrides: overrides(matches),
            files: paths(matches, "trace"),
            as_json: matches.get_one::<String>("output").is_some_and(|format| format == "json"),
        },
        Some(("push", matches)) => push(matches),
        Some(("load", matches)) => load(matches),
        Some(("dashboard", matches)) => {
            Command::Dashboard { config: config(matches), overrides: overrides(matches) }
        }
        Some(("rules", matches)) => Command::Rules { config: config(matches), overrides: overrides(matches) },
        Some((_, matches)) => serve(matches),
        None => serve(&matches),
    }
}

fn serve(matches: &ArgMatches) -> Command {
    Command::Serve { config: config(matches), overrides: overrides(matches) }
}

fn config(matches: &ArgMatches) -> Option<PathBuf> {
    let named: Option<PathBuf> = matches.get_one::<PathBuf>("config").cloned();
    named.or_else(|| Path::new(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE)))
}

fn paths(matches: &ArgMatches, argument: &str) -> Vec<PathBuf> {
    matches.get_many::<PathBuf>(argument).into_iter().flatten().cloned().collect()
}

/// Environment first, flags over it.
fn overrides(matches: &ArgMatches) -> Vec<Override> {
    let mut overrides = Override::from_environment(|name| std::env::var(name).ok());
    for Setting { path, .. } in settings() {
        if let Some(value) = matches.get_one::<String>(&path) {
            overrides.push(Override::from_flag(&path, value));
        }
    }
    overrides.extend(data(matches));
    overrides
}

/// `--data`, from where we are.
fn data(matches: &ArgMatches) -> Option<Override> {
    let data: &PathBuf = matches.try_get_one("data").ok()??;
    let path = std::path::absolute(data).unwrap_or_else(|_| data.clone());
    Some(Override {
        path: "store.path".to_owned(),
        value: path.to_string_lossy().into_owned(),
        origin: "flag --data".to_owned(),
    })
}

pub(super) fn command() -> Clap {
    let config = || {
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("The config file; default: config.yaml if it is there, else the built-in defaults")
    };
    let data = || {
        Arg::new("data")
            .long("data")
            .value_name("DIR")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A folder in which open flows and counters outlive the process: --store.path from here")
    };
    let file = Arg::new("file").value_name("FILE").required(true).value_parser(clap::value_parser!(PathBuf));
    let settings_help = "Every setting of config.yaml is also a flag of the same name, such as \
                         --listen.http 127.0.0.1:0, and an environment variable, such as \
                         LATENCY_AGGREGATOR_LISTEN_HTTP. Flags win over variables, variables over the file.";
    Clap::new("latency-aggregator")
        .about("End-to-end latency of business flows, from OTLP traces and JSON pushes to Prometheus")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(settings_help)
        .args_conflicts_with_subcommands(true)
        .arg(config())
        .arg(data())
        .args(setting_arguments())
        .subcommand(
            Clap::new("serve")
                .about("Receives events and serves metrics; what happens without a command, too")
                .after_help(settings_help)
                .arg(config())
                .arg(data())
                .args(setting_arguments()),
        )
        .subcommand(
            Clap::new("check")
                .about("Checks a config file, and prints what it means and what looks like a mistake")
                .arg(file)
                .arg(traces())
                .args(setting_arguments()),
        )
        .subcommand(
            Clap::new("replay")
                .about("Shows what recorded traces would become: each instance explained, and the metrics")
                .after_help(settings_help)
                .arg(config())
                .arg(output())
                .arg(trace_files())
                .args(setting_arguments()),
        )
        .subcommand(push_command())
        .subcommand(load_command())
        .subcommand(
            Clap::new("dashboard")
                .about("Prints a dashboard for Grafana, with the flows of the config to choose from")
                .arg(config())
                .args(setting_arguments()),
        )
        .subcommand(
            Clap::new("rules")
                .about("Prints alerts for Prometheus, for the flows of the config")
                .arg(config())
                .args(setting_arguments()),
        )
}

const TRACE_FORMATS: &str = "OTLP as JSON or protobuf, lines of the Collector's file exporter, or Jaeger's JSON export, \
                             also compressed; - is standard input";

fn trace_files() -> Arg {
    Arg::new("trace")
        .value_name("TRACE")
        .required(true)
        .num_args(1..)
        .value_parser(clap::value_parser!(PathBuf))
        .help(format!("Files of traces: {TRACE_FORMATS}"))
}

fn traces() -> Arg {
    Arg::new("traces")
        .long("traces")
        .value_name("TRACE")
        .num_args(1..)
        .action(ArgAction::Append)
        .value_parser(clap::value_parser!(PathBuf))
        .help(format!(
            "Files of traces, to see how many spans and instances each flow would take: {TRACE_FORMATS}"
        ))
}

fn output() -> Arg {
    Arg::new("output")
        .long("output")
        .value_name("FORMAT")
        .value_parser(["text", "json"])
        .default_value("text")
        .help("How to print it")
}

fn setting_arguments() -> Vec<Arg> {
    let argument = |setting: Setting| {
        // Flags live as long as the process.
        let path: &'static str = setting.path.leak();
        let help = format!("Default: {}", setting.value);
        Arg::new(path)
            .long(path)
            .value_name("VALUE")
            .help(help)
            .help_heading("Settings")
            .hide_short_help(true)
    };
    settings().into_iter().map(argument).collect()
}

/// Fields of a push that are text.
const TEXTS: [(&str, &str); 5] = [
    ("id", "Which run of the flow the event belongs to"),
    ("name", "The name of the flow and of its metric"),
    ("stage", "The step of the flow"),
    ("created_at", "When it happened, such as 2026-01-31T12:00:00Z; default: now"),
    ("status", "ok or error"),
];
/// Fields of a push that are numbers.
const NUMBERS: [(&str, &str); 2] = [
    ("life_span", "Seconds without another event after which the flow is over"),
    ("time_to_live", "Seconds for which late events are recognised after that"),
];
/// Fields of a push that map names to texts.
const MAPS: [(&str, &str); 2] = [
    ("label_values", "A label, as NAME=VALUE; may be repeated"),
    ("const_labels", "The same, as the ancestor had it"),
];

fn credential_arguments() -> [Arg; 2] {
    let file = |name: &'static str, variable: &'static str| {
        Arg::new(name).long(name).env(variable).value_name("FILE").value_parser(clap::value_parser!(PathBuf))
    };
    [
        file("ca", "LATENCY_AGGREGATOR_CA")
            .help("For an https URL: certificates of the authorities that may have signed the server's"),
        file("token-file", "LATENCY_AGGREGATOR_TOKEN_FILE").help("A file whose first token is sent along"),
    ]
}

fn credential_files(matches: &ArgMatches) -> CredentialFiles {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    CredentialFiles { ca: path("ca"), token: path("token-file") }
}

fn push_command() -> Clap {
    let flag =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).value_name("VALUE");
    let required = |argument: Arg| {
        let is_required = matches!(argument.get_id().as_str(), "id" | "name");
        argument.required(is_required)
    };
    Clap::new("push")
        .about("Sends one event, for shell scripts; flags have the names of the push API's fields")
        .arg(
            Arg::new("url")
                .long("url")
                .env("LATENCY_AGGREGATOR_URL")
                .default_value("http://127.0.0.1:7070")
                .help("Where to send it"),
        )
        .args(credential_arguments())
        .args(TEXTS.map(|(name, help)| required(flag(name, help))))
        .arg(
            Arg::new("help_text")
                .long("help-text")
                .value_name("VALUE")
                .help("The field help: what the metric is about"),
        )
        .args(NUMBERS.map(|(name, help)| flag(name, help).value_parser(clap::value_parser!(f64))))
        .args(MAPS.map(|(name, help)| flag(name, help).action(ArgAction::Append).value_parser(parse_label)))
        .arg(
            flag("buckets", "Bucket bounds in seconds, such as 0.1,1,10")
                .value_delimiter(',')
                .value_parser(clap::value_parser!(f64)),
        )
        .arg(Arg::new("final").long("final").action(ArgAction::SetTrue).help("This event ends the flow"))
}

fn load_command() -> Clap {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        let parser = clap::value_parser!(u32).range(1..=1_000_000);
        Arg::new(name).long(name).value_name("NUMBER").default_value(default).value_parser(parser).help(help)
    };
    Clap::new("load")
        .about("Sends events as fast as they are acknowledged, or at a rate: to size an installation")
        .arg(
            Arg::new("url")
                .long("url")
                .value_name("URL")
                .help("Where to; default: the usual port of the protocol on 127.0.0.1"),
        )
        .args(credential_arguments())
        .arg(
            Arg::new("protocol")
                .long("protocol")
                .value_parser(["grpc", "http", "push"])
                .default_value("grpc")
                .help("OTLP over gRPC, OTLP over HTTP as protobuf, or one push a request"),
        )
        .arg(number("spans", "100", "Spans in a request"))
        .arg(number("trace-spans", "8", "Spans in a trace, or events in a pushed flow"))
        .arg(
            Arg::new("layout")
                .long("layout")
                .value_parser(["adjacent", "interleaved", "split"])
                .default_value("adjacent")
                .help("Whole traces one behind the other, whole traces mixed, or each span in a request of its own"),
        )
        .arg(
            Arg::new("open-traces")
                .long("open-traces")
                .value_name("NUMBER")
                .default_value("0")
                .value_parser(clap::value_parser!(u32))
                .help("With --layout split, traces that are open at once; 0: as few as can be"),
        )
        .arg(Arg::new("gzip").long("gzip").action(ArgAction::SetTrue).help("Compress requests"))
        .arg(number("connections", "4", "Connections"))
        .arg(number("in-flight", "1", "Requests under way on each connection"))
        .arg(
            Arg::new("rate")
                .long("rate")
                .value_name("NUMBER")
                .value_parser(parse_rate)
                .help("Requests a second; default: the next as soon as one is acknowledged"),
        )
        .arg(
            Arg::new("duration")
                .long("duration")
                .value_name("TIME")
                .default_value("10s")
                .value_parser(humantime::parse_duration)
                .help("For how long"),
        )
        .arg(
            Arg::new("metrics")
                .long("metrics")
                .value_name("URL")
                .help("The receiver's metrics page, such as http://127.0.0.1:7070/metrics: checks that each event was counted once"),
        )
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "expected a number of requests a second, more than 0".to_owned())
}

fn load(matches: &ArgMatches) -> Command {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let number = |name: &str| matches.get_one::<u32>(name).map_or(1, |number| *number as usize);
    let (protocol, usual) = match text("protocol") {
        Some("http") => (Protocol::Http, "http://127.0.0.1:4318"),
        Some("push") => (Protocol::Push, "http://127.0.0.1:7070"),
        _ => (Protocol::Grpc, "http://127.0.0.1:4317"),
    };
    let layout = match text("layout") {
        Some("interleaved") => Layout::Interleaved,
        Some("split") => Layout::Split,
        _ => Layout::Adjacent,
    };
    let plan = Plan {
        url: text("url").unwrap_or(usual).to_owned(),
        credentials: Credentials::default(),
        protocol,
        spans: number("spans"),
        trace_spans: number("trace-spans"),
        layout,
        open_traces: number("open-traces"),
        gzip: matches.get_flag("gzip"),
        connections: number("connections"),
        in_flight: number("in-flight"),
        rate: matches.get_one("rate").copied(),
        duration: *matches.get_one("duration").expect("it has a default"),
    };
    Command::Load { plan, shown: credential_files(matches), metrics: text("metrics").map(str::to_owned) }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn push(matches: &ArgMatches) -> Command {
    let mut push = Map::new();
    for (name, _) in TEXTS {
        if let Some(text) = matches.get_one::<String>(name) {
            push.insert(name.to_owned(), text.as_str().into());
        }
    }
    if let Some(help) = matches.get_one::<String>("help_text") {
        push.insert("help".to_owned(), help.as_str().into());
    }
    for (name, _) in NUMBERS {
        if let Some(number) = matches.get_one::<f64>(name) {
            push.insert(name.to_owned(), (*number).into());
        }
    }
    for (name, _) in MAPS {
        if let Some(labels) = matches.get_many::<(String, String)>(name) {
            let labels: Map<String, Value> =
                labels.map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            push.insert(name.to_owned(), labels.into());
        }
    }
    if let Some(bounds) = matches.get_many::<f64>("buckets") {
        push.insert("buckets".to_owned(), bounds.copied().collect::<Vec<f64>>().into());
    }
    if matches.get_flag("final") {
        push.insert("final".to_owned(), true.into());
    }
    let url: &String = matches.get_one("url").expect("it has a default");
    Command::Push { url: url.clone(), shown: credential_files(matches), push: push.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_fit_together() {
        command().debug_assert();
    }
}
