//! Which names metrics and labels may have, and which of them get in each other's way.
//!
//! Source: Prometheus data model and naming practices; design rule: nothing that a client sends can break the scrape.

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// Not of the form `[a-zA-Z_:][a-zA-Z0-9_:]*`, or longer than [`MAX_NAME_BYTES`].
    Malformed,
    /// Taken by the program itself or by Prometheus.
    Reserved,
}

impl NameError {
    /// What is wrong, and what would be right.
    pub fn as_str(self) -> &'static str {
        match self {
            NameError::Malformed => "use up to 128 letters, digits and underscores, with no digit first",
            NameError::Reserved => "it is reserved; choose another one",
        }
    }
}

/// The longest metric or label name.
pub const MAX_NAME_BYTES: usize = 128;

/// The forms that a metric's name reserves beside itself.
const DERIVED: [&str; 5] = ["_bucket", "_sum", "_count", "_total", "_created"];

/// Families that are ours.
const RESERVED_METRIC_PREFIXES: [&str; 3] = ["flow_", "latency_aggregator_", "__"];
/// Those of the process.
const OF_THE_PROCESS: [&str; 7] = [
    "process_cpu_seconds",
    "process_open_fds",
    "process_max_fds",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
];
/// Others that are not of a client's making: what Prometheus adds to each scrape and for alerts. Not all
/// that begin as they do, for a flow may well be called `process_order`.
const RESERVED_METRICS: [&str; 12] = [
    "up",
    "ALERTS",
    "ALERTS_FOR_STATE",
    "target_info",
    "otel_scope_info",
    "scrape_duration_seconds",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_body_size_bytes",
];

/// Labels that the program or Prometheus sets.
const RESERVED_LABELS: [&str; 8] =
    ["le", "quantile", "flow", "stage", "outcome", "reason", "result", "otel_metric_overflow"];

/// Whether a metric is one of the process, or of a name that gets in the way of one.
pub fn is_of_the_process(name: &str) -> bool {
    OF_THE_PROCESS.iter().any(|taken| overlap(name, taken))
}

/// Checks the name of a metric that a push creates.
pub fn check_metric_name(name: &str) -> Result<(), NameError> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    check_form(name, |c| first(c) || c.is_ascii_digit(), first)?;
    let reserved = RESERVED_METRICS.iter().any(|taken| overlap(name, taken))
        || is_of_the_process(name)
        || RESERVED_METRIC_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if reserved { Err(NameError::Reserved) } else { Ok(()) }
}

/// Checks the name of a label that a client or the config sets.
pub fn check_label_name(name: &str) -> Result<(), NameError> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    check_form(name, |c| first(c) || c.is_ascii_digit(), first)?;
    if name.starts_with("__") || RESERVED_LABELS.contains(&name) { Err(NameError::Reserved) } else { Ok(()) }
}

fn check_form(
    name: &str,
    rest: impl Fn(char) -> bool,
    first: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    let well_formed =
        name.chars().next().is_some_and(first) && name.chars().all(rest) && name.len() <= MAX_NAME_BYTES;
    if well_formed { Ok(()) } else { Err(NameError::Malformed) }
}

/// Whether two metrics cannot stand side by side: the same name, or one is a derived form of the other.
pub fn overlap(one: &str, other: &str) -> bool {
    let derives =
        |base: &str, name: &str| name.strip_prefix(base).is_some_and(|suffix| DERIVED.contains(&suffix));
    let forms = |name: &str| DERIVED.iter().map(move |suffix| format!("{name}{suffix}")).collect::<Vec<_>>();
    one == other
        || derives(one, other)
        || derives(other, one)
        || forms(one).iter().any(|form| forms(other).contains(form))
}
