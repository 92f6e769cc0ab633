//! The settings of the program: read from a file, then from the environment, then from flags, and checked as a
//! whole before anything else happens.
//!
//! One naming rule: the setting `listen.http` is the flag `--listen.http` and the variable
//! `LATENCY_AGGREGATOR_LISTEN_HTTP`. Invariant: what comes out of [`Loaded::compile`] needs no further checks.

mod file;
mod overrides;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use file::{ConfigError, Loaded};
pub use overrides::{Override, Setting, settings, settings_of};

use crate::mapping::flows::{Defaults, FlowConfig, MIN_SAMPLING_RATIO};
use crate::metrics::Histograms;

/// All settings. Field docs name the default's meaning; config.yaml shows every default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Which addresses speak TLS, and with what.
    pub tls: Tls,
    /// Who has to show a token.
    pub auth: Auth,
    /// What to log.
    pub log: Log,
    /// What holds for every flow that does not say otherwise.
    pub defaults: Defaults,
    /// The flows, the first match wins. Only in files.
    #[serde(skip_serializing)]
    pub flows: Vec<serde_saphyr::Spanned<FlowConfig>>,
    /// Files with more flows, as paths or patterns relative to the config file; in the order of their names.
    pub include: Vec<String>,
    /// Spans for which one of these conditions holds are dropped.
    pub ignore: Vec<String>,
    /// Whether the built-in flow `trace` takes the traces that no other flow takes.
    pub trace_flow: bool,
    /// Which events are accepted.
    pub ingest: Ingest,
    /// Native push.
    pub push: Push,
    /// What /metrics shows.
    pub metrics: Metrics,
    /// What the API explains.
    pub api: Api,
    /// Bounds of what is kept.
    pub limits: Limits,
    /// What outlives the process.
    pub store: Store,
    /// How a changed config is noticed.
    pub reload: Reload,
    /// How the program ends.
    pub shutdown: Shutdown,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: Listen::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            log: Log::default(),
            defaults: Defaults::default(),
            flows: Vec::new(),
            include: Vec::new(),
            ignore: DEFAULT_IGNORE.map(str::to_owned).to_vec(),
            trace_flow: true,
            ingest: Ingest::default(),
            push: Push::default(),
            metrics: Metrics::default(),
            api: Api::default(),
            limits: Limits::default(),
            store: Store::default(),
            reload: Reload::default(),
            shutdown: Shutdown::default(),
        }
    }
}

/// Health, readiness, metrics and ping endpoints, and gRPC's health service.
const DEFAULT_IGNORE: [&str; 4] = [
    r#"IsMatch(span.attributes["url.path"], "^/(health|healthz|livez|readyz|ready|live|metrics|ping)/?$")"#,
    r#"IsMatch(span.attributes["http.target"], "^/(health|healthz|livez|readyz|ready|live|metrics|ping)/?$")"#,
    r#"IsMatch(span.attributes["http.route"], "^/(health|healthz|livez|readyz|ready|live|metrics|ping)/?$")"#,
    r#"span.attributes["rpc.service"] == "grpc.health.v1.Health""#,
];

/// `listen`: addresses as `host:port`; port 0 picks a free one, which the start-up lines name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Native push, health, and /metrics unless `metrics` names another address.
    pub http: String,
    /// /metrics and health at an address of their own; null: at `http`.
    pub metrics: Option<String>,
    /// OTLP over gRPC; null switches it off.
    pub otlp_grpc: Option<String>,
    /// OTLP over HTTP; null switches it off.
    pub otlp_http: Option<String>,
    /// The path of OTLP over HTTP; a slash behind it makes no difference.
    pub otlp_http_path: String,
    /// Web pages that may send OTLP over HTTP from a browser: origins, of which one part may be `*`.
    pub cors_origins: Vec<String>,
}

impl Default for Listen {
    fn default() -> Self {
        Listen {
            http: "127.0.0.1:7070".to_owned(),
            metrics: None,
            otlp_grpc: Some("127.0.0.1:4317".to_owned()),
            otlp_http: Some("127.0.0.1:4318".to_owned()),
            otlp_http_path: "/v1/traces".to_owned(),
            cors_origins: Vec::new(),
        }
    }
}

/// `tls`: paths of PEM files, relative to the config file; they are read again when `reload` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The certificate, and those between it and one that clients trust; null: no TLS.
    pub certificate: Option<String>,
    /// Its private key, not encrypted.
    pub key: Option<String>,
    /// Certificates of authorities: clients must show a certificate that one of them has signed. Null: clients need none.
    pub client_ca: Option<String>,
    /// Which addresses speak TLS once there is a certificate; the others stay as they are.
    pub listeners: Vec<Listener>,
}

impl Default for Tls {
    fn default() -> Self {
        Tls { certificate: None, key: None, client_ca: None, listeners: Listener::ALL.to_vec() }
    }
}

/// An address, by its name under `listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listener {
    /// `listen.http`.
    Http,
    /// `listen.metrics`.
    Metrics,
    /// `listen.otlp_grpc`.
    OtlpGrpc,
    /// `listen.otlp_http`.
    OtlpHttp,
}

impl Listener {
    /// All of them.
    pub const ALL: [Listener; 4] =
        [Listener::Http, Listener::Metrics, Listener::OtlpGrpc, Listener::OtlpHttp];

    /// The setting that names the address.
    pub fn setting(self) -> &'static str {
        match self {
            Listener::Http => "listen.http",
            Listener::Metrics => "listen.metrics",
            Listener::OtlpGrpc => "listen.otlp_grpc",
            Listener::OtlpHttp => "listen.otlp_http",
        }
    }
}

impl Tls {
    /// Whether the address of a setting speaks TLS.
    pub fn covers(&self, setting: &str) -> bool {
        self.certificate.is_some() && self.listeners.iter().any(|listener| listener.setting() == setting)
    }

    fn check(&self) -> Result<(), String> {
        let Tls { certificate, key, client_ca, listeners } = self;
        match (certificate, key) {
            (Some(_), None) => Err("tls.certificate: its private key is missing: set tls.key, too".to_owned()),
            (None, Some(_)) => Err("tls.key: its certificate is missing: set tls.certificate, too".to_owned()),
            (None, None) if client_ca.is_some() => {
                Err("tls.client_ca: clients show certificates over TLS only: set tls.certificate and tls.key, too"
                    .to_owned())
            }
            (Some(_), Some(_)) if listeners.is_empty() => {
                Err("tls.listeners: no address would speak TLS: name some of http, metrics, otlp_grpc, otlp_http"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// `auth`: paths of files with a token a line, relative to the config file; they are read again when `reload` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Who sends events, by push or OTLP, has to show one of these tokens; null: nobody has to.
    pub ingest_token_file: Option<String>,
    /// The same for /metrics and /api.
    pub read_token_file: Option<String>,
}

/// `log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,latency_aggregator=debug`.
    pub level: String,
    /// `human` or `json`.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".to_owned(), format: LogFormat::Human }
    }
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `ingest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// Events that end further ahead of now are rejected.
    #[serde(with = "humantime_serde")]
    pub max_future: Duration,
    /// Events that ended longer ago are rejected.
    #[serde(with = "humantime_serde")]
    pub max_past: Duration,
}

impl Default for Ingest {
    fn default() -> Self {
        Ingest { max_future: Duration::from_secs(300), max_past: Duration::from_secs(24 * 3600) }
    }
}

/// `push`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    /// Whether a pushed flow also shows its last duration as the gauge `NAME_total`, as the ancestor did.
    pub ancestor_gauge: bool,
    /// How many flows pushes may create; pushes that would create more are refused.
    pub flows: usize,
    /// Series with label values of their own of all flows together that pushes create, each bucket being one; further ones
    /// share overflow series.
    pub series: usize,
    /// Bytes of a push or an array of pushes, on the wire and after decompression; larger ones are refused.
    pub request_bytes: usize,
}

impl Default for Push {
    fn default() -> Self {
        Push { ancestor_gauge: false, flows: 100, series: 1_000_000, request_bytes: 4 * 1024 * 1024 }
    }
}

/// `metrics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// For how long a new series shows zero: at least the scrape interval. 0 shows values at once.
    #[serde(with = "humantime_serde")]
    pub zero_first: Duration,
    /// Series with label values of their own, for each family and flow; further ones share an overflow series.
    pub series_per_family: usize,
    /// Whether each stage's share of a latency is also shown as the distribution `flow_critical_path_share_seconds`.
    pub critical_path_histogram: bool,
    /// Values of each label of a family and flow; label sets with further ones share an overflow series.
    pub values_per_label: usize,
    /// Scrapes that may be under way at once; further ones are refused, unless one of these is not being read.
    pub concurrent_scrapes: usize,
    /// A series to which nothing was added for so long goes into the overflow series; 0: never.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// `classic`, `native` or `both`; native ones need the protobuf format.
    pub histograms: Histograms,
    /// By which factor native buckets grow at most.
    pub native_factor: f64,
    /// Native buckets of a histogram; with more of them they become coarser.
    pub native_buckets: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            zero_first: Duration::from_secs(15),
            series_per_family: 2000,
            critical_path_histogram: false,
            values_per_label: 1000,
            concurrent_scrapes: 8,
            idle: Duration::ZERO,
            histograms: Histograms::Classic,
            native_factor: 1.1,
            native_buckets: 160,
        }
    }
}

/// `api`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// How many closed instances of each flow can be explained, the last ones; 0: none.
    pub recent: usize,
    /// Of a closed instance with more events than this no events are kept to explain it with, nor a path of more steps.
    pub recent_events: usize,
}

impl Default for Api {
    fn default() -> Self {
        Api { recent: 100, recent_events: 1000 }
    }
}

/// `limits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of an OTLP request, on the wire and after decompression; larger ones are refused.
    pub request_bytes: usize,
    /// Bytes of all requests that are under way, on the wire and after decompression; further ones are refused.
    pub bytes_in_flight: usize,
    /// Connections of each address, fewer if the process may not have so many files open; further ones are closed.
    pub connections: usize,
    /// Requests under way on one HTTP/2 connection; further ones wait.
    pub streams: u32,
    /// Time for the headers of a request.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// Time for the body of a request.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Time in which an answer has to be taken.
    #[serde(with = "humantime_serde")]
    pub response_timeout: Duration,
    /// How long a connection may stay without a request.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Bytes of all that is kept of open and closed instances; null: half of what the process may have.
    pub memory_bytes: Option<usize>,
    /// Open instances.
    pub instances: usize,
    /// Events kept of one instance, at most 65535; further ones only count for its bounds and stages.
    pub events_per_instance: usize,
    /// Events from which on an instance that only waits is folded to a stub: fewer take less than a stub.
    pub fold_from: usize,
    /// Closed instances of which late events are recognised in detail; the ones that expire first make room.
    pub tombstones: usize,
    /// Closed traces whose keys are remembered for another hour.
    pub remembered: usize,
    /// Traces that links and business keys join to one instance; further ones stand alone.
    pub traces_per_instance: usize,
    /// Links and key values that one trace may carry; further ones are left out.
    pub links_per_trace: usize,
    /// Bytes of a label or stage value; longer ones are cut.
    pub value_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_bytes: 64 * 1024 * 1024,
            bytes_in_flight: 256 * 1024 * 1024,
            connections: 4096,
            streams: 128,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            response_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            memory_bytes: None,
            instances: 10_000_000,
            events_per_instance: 10_000,
            fold_from: 64,
            tombstones: 1_000_000,
            remembered: 1_000_000,
            traces_per_instance: 256,
            links_per_trace: 1024,
            value_bytes: 256,
        }
    }
}

/// Less would be taken by empty tables and what is remembered of the spans that came last.
const MIN_MEMORY_BYTES: usize = 16 * 1024 * 1024;

/// `shutdown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long requests under way may take to finish.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// How long /metrics stays up for a last scrape after that; a scrape ends the wait.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How many scrapes end the wait: as many as there are Prometheus servers.
    pub scrapes: u32,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { grace: Duration::from_secs(10), linger: Duration::from_secs(15), scrapes: 1 }
    }
}

/// `store`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// A folder for open flows and counters, relative to the config file; null: they are kept in memory only.
    pub path: Option<String>,
    /// `always`: a request is on the disk before it is acknowledged. A time: so often. `never`: when the system does it.
    pub fsync: Fsync,
    /// Bytes of log that are read again at a start at most, as long as what is open takes no more.
    pub checkpoint_bytes: usize,
    /// With fewer bytes free nothing is accepted; 0: until the disk is full.
    pub free_bytes: usize,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            path: None,
            fsync: Fsync::Every(Duration::from_secs(1)),
            checkpoint_bytes: 128 * 1024 * 1024,
            free_bytes: 64 * 1024 * 1024,
        }
    }
}

/// `store.fsync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before anything is acknowledged.
    Always,
    /// So often.
    Every(Duration),
    /// Not at all.
    Never,
}

impl Serialize for Fsync {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Fsync::Always => serializer.serialize_str("always"),
            Fsync::Every(interval) => humantime_serde::serialize(interval, serializer),
            Fsync::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for Fsync {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "always" => Ok(Fsync::Always),
            "never" => Ok(Fsync::Never),
            interval => humantime::parse_duration(interval).map(Fsync::Every).map_err(|_| {
                D::Error::custom(format!("{text:?} is none of always, never and a time such as 1s"))
            }),
        }
    }
}

/// `reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// How often the files of the config are read to see whether they have changed; 0: only on SIGHUP.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for Reload {
    fn default() -> Self {
        Reload { interval: Duration::from_secs(10) }
    }
}

impl Config {
    /// What no single setting can know is wrong. Messages name the setting.
    fn check(&self) -> Result<(), String> {
        for (setting, address) in self.addresses() {
            check_address(setting, address)?;
        }
        self.tls.check()?;
        let path = &self.listen.otlp_http_path;
        if !path.starts_with('/')
            || path.len() < 2
            || path.ends_with('/')
            || path.contains(['{', '}', '?', '#', ' '])
        {
            return Err(format!("listen.otlp_http_path: {path:?} is no path such as /v1/traces"));
        }
        let at_least_one = [
            ("limits.request_bytes", self.limits.request_bytes),
            ("push.request_bytes", self.push.request_bytes),
            ("limits.connections", self.limits.connections),
            ("limits.streams", self.limits.streams as usize),
            ("limits.instances", self.limits.instances),
            ("limits.events_per_instance", self.limits.events_per_instance),
            ("limits.traces_per_instance", self.limits.traces_per_instance),
            ("metrics.series_per_family", self.metrics.series_per_family),
            ("metrics.values_per_label", self.metrics.values_per_label),
            ("metrics.concurrent_scrapes", self.metrics.concurrent_scrapes),
            ("metrics.native_buckets", self.metrics.native_buckets),
            ("store.checkpoint_bytes", self.store.checkpoint_bytes),
        ];
        if let Some((setting, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{setting}: must be at least 1"));
        }
        let timeouts = [
            ("limits.header_timeout", self.limits.header_timeout),
            ("limits.body_timeout", self.limits.body_timeout),
            ("limits.response_timeout", self.limits.response_timeout),
            ("limits.idle_timeout", self.limits.idle_timeout),
        ];
        if let Some((setting, _)) = timeouts.iter().find(|(_, timeout)| timeout.is_zero()) {
            return Err(format!("{setting}: must be more than 0s"));
        }
        if matches!(self.store.fsync, Fsync::Every(interval) if interval.is_zero()) {
            return Err("store.fsync: must be more than 0s; `always` syncs before each answer".to_owned());
        }
        let largest = self.limits.request_bytes.max(self.push.request_bytes);
        if self.limits.bytes_in_flight < largest {
            return Err(format!(
                "limits.bytes_in_flight: must be at least as much as one request may have ({largest})"
            ));
        }
        if !(MIN_SAMPLING_RATIO..=1.0).contains(&self.defaults.sampling_ratio) {
            return Err(format!("defaults.sampling_ratio: must be between {MIN_SAMPLING_RATIO} and 1"));
        }
        if self.metrics.native_factor <= 1.0 || !self.metrics.native_factor.is_finite() {
            return Err("metrics.native_factor: must be more than 1".to_owned());
        }
        if self.limits.memory_bytes.is_some_and(|bytes| bytes < MIN_MEMORY_BYTES) {
            return Err(format!("limits.memory_bytes: must be at least {MIN_MEMORY_BYTES}"));
        }
        if self.limits.value_bytes < 8 {
            return Err("limits.value_bytes: must be at least 8".to_owned());
        }
        if self.limits.events_per_instance > usize::from(u16::MAX) {
            return Err(format!("limits.events_per_instance: must be at most {}", u16::MAX));
        }
        // Two numbers of traces stand for others.
        if self.limits.traces_per_instance > usize::from(u16::MAX - 1) {
            return Err(format!("limits.traces_per_instance: must be at most {}", u16::MAX - 1));
        }
        crate::mapping::flows::check_buckets(self.defaults.buckets.bounds())
            .map_err(|message| format!("defaults.buckets: {message}"))
    }

    /// The addresses to listen on, by setting.
    pub fn addresses(&self) -> Vec<(&'static str, &str)> {
        let Listen { http, metrics, otlp_grpc, otlp_http, .. } = &self.listen;
        let optional = [
            ("listen.metrics", metrics.as_deref()),
            ("listen.otlp_grpc", otlp_grpc.as_deref()),
            ("listen.otlp_http", otlp_http.as_deref()),
        ];
        let optional = optional.into_iter().filter_map(|(setting, address)| Some((setting, address?)));
        [("listen.http", http.as_str())].into_iter().chain(optional).collect()
    }
}

fn check_address(setting: &str, address: &str) -> Result<(), String> {
    let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let is_address = address.parse::<SocketAddr>().is_ok();
    match port {
        _ if is_address => Ok(()),
        Some((host, _)) if !host.is_empty() && !host.contains(['/', ':', ' ']) => Ok(()),
        _ => Err(format!("{setting}: {address:?} is not of the form host:port, such as 127.0.0.1:7070")),
    }
}

/// The settings of the file at `path`, or the defaults; then those of `overrides`, later ones over earlier ones.
pub fn load(path: Option<&Path>, overrides: &[Override]) -> Result<Loaded, ConfigError> {
    file::load(path, overrides)
}

/// The settings of a text that need not be a file: `name` stands for it in errors. It cannot include files.
pub fn load_text(name: &str, text: &str) -> Result<Loaded, ConfigError> {
    file::load_text(name, text)
}

/// The settings that [`Loaded::to_bytes`] wrote.
pub fn load_stored(bytes: &[u8]) -> Result<Loaded, ConfigError> {
    file::load_stored(bytes)
}

#[cfg(test)]
mod tests;
