//! A JSON push to an event: the ancestor's fields, read strictly where it matters and kindly where it does not.
//!
//! Null counts as absent, unknown fields are named in a warning, everything else that is wrong is refused with a
//! message that says what would be right. A refused push leaves nothing behind.

mod value;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;
use opentelemetry::trace::TraceId as OtelTraceId;

use super::admission::TimeLimits;
use super::facts::cut;
use super::flows::{TRACE_FLOW, check_buckets};
use super::spelling::closest;
use crate::domain::catalog::{CannotCreate, Catalog};
use crate::domain::event::{Event, Facts, Flags, Incoming, Kind, Matches, PushFacts, View};
use crate::domain::flow::{Flow, Keys, Labels, Origin};
use crate::domain::footprint::Held;
use crate::domain::ids::{Key, SpanId, TraceId};
use crate::domain::labels::Label;
use crate::domain::names::{check_label_name, check_metric_name};
use crate::domain::time::{EventTime, Now};
pub use value::{Object, Value};

/// What bounds a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushLimits {
    /// How far from now `created_at` may be.
    pub time: TimeLimits,
    /// Label and stage values are cut to this many bytes.
    pub value_bytes: usize,
}

/// A push as an event, and what the sender should know.
#[derive(Debug)]
pub struct MappedPush {
    /// The event and its instance.
    pub incoming: Incoming,
    /// What is odd, as (kind for the metric, message).
    pub warnings: Vec<(&'static str, String)>,
    /// Values that were cut.
    pub truncated: u64,
}

/// Why a push is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushError {
    /// The push itself is wrong: sending it again is no use.
    Invalid(String),
    /// Pushes have created as many flows as they may.
    TooManyFlows(String),
}

impl PushError {
    /// What is wrong and what to do.
    pub fn message(&self) -> &str {
        match self {
            PushError::Invalid(message) | PushError::TooManyFlows(message) => message,
        }
    }
}

/// The longest help text; longer ones are cut.
pub const MAX_HELP_BYTES: usize = 1024;
/// The longest instance key.
pub const MAX_ID_BYTES: usize = 256;
/// The most labels of one push.
pub const MAX_LABELS: usize = 32;
/// The longest quiet period or tombstone that a push may ask for.
const MAX_WAIT: Duration = Duration::from_secs(366 * 24 * 3600);
/// How long a push's tombstone lives unless it says otherwise: the ancestor's default.
const TIME_TO_LIVE: Duration = Duration::from_secs(30);

/// The fields of a push; `force_registry_update` is the ancestor's and does nothing.
const FIELDS: [&str; 13] = [
    "id",
    "name",
    "help",
    "life_span",
    "stage",
    "buckets",
    "label_values",
    "const_labels",
    "time_to_live",
    "created_at",
    "final",
    "status",
    "force_registry_update",
];

/// Reads one push. Creates its flow if it is new, and only if everything else is right.
pub fn map_push(
    push: &Value<'_>,
    catalog: &Catalog,
    limits: &PushLimits,
    now: Now,
) -> Result<MappedPush, PushError> {
    let Value::Object(object) = push else {
        return invalid(format!("a push is a JSON object, but this is {}", kind_of(push)));
    };
    let fields = Fields(object);
    let mut warnings = fields.unknown();
    let mut truncated = 0;
    let id = fields.id()?;
    let (name, known) = fields.name(catalog)?;
    let created = fields.created_at(limits, now)?;
    let life_span = fields.duration("life_span")?;
    let time_to_live =
        fields.duration("time_to_live")?.filter(|time| !time.is_zero()).unwrap_or(TIME_TO_LIVE);
    let flags = Flags::FINAL.when(fields.boolean("final")?).with(Flags::ERROR.when(fields.is_error()?));
    let buckets = fields.buckets()?;
    let help = fields.string("help")?;
    let mut shorten = |text: &str| {
        let (kept, was_cut) = cut(text, limits.value_bytes);
        truncated += u64::from(was_cut);
        Arc::<str>::from(kept)
    };
    let stage = shorten(fields.string("stage")?.unwrap_or_default());
    let labels: Vec<Label> =
        fields.labels()?.into_iter().map(|(name, value)| (Arc::from(name), shorten(value))).collect();

    let flow = known.map_or_else(|| create(name, catalog), Ok)?;
    define(&flow, help, buckets, &mut warnings);
    warn_of_undeclared(&flow, &labels, &mut warnings);
    let view = |flow: &Flow| {
        let labels = declared(flow, &labels);
        View { stage: Arc::clone(&stage), start: false, ends: 0, error: None, labels }
    };
    let earlier = catalog.earlier(flow.home).iter().map(|earlier| (earlier.id, view(earlier))).collect();
    let view = view(&flow);
    let facts = Facts {
        origin: Facts::origin_of(&stage, Some(flow.home)),
        service: Arc::clone(&stage),
        name: Arc::from(""),
        threshold: 0,
        matches: Matches::default(),
        matched_before: Box::default(),
        views: Box::default(),
        push: Some(Box::new(PushFacts {
            flow: flow.id,
            home: flow.home,
            view,
            earlier,
            labels: if flow.labels == Labels::Union { labels.into() } else { Box::default() },
            life_span,
            time_to_live,
        })),
        held: Held::default(),
    };
    let event = Event {
        end: created,
        start: created,
        span: SpanId::NONE,
        parent: SpanId::NONE,
        kind: Kind::Push,
        flags,
        facts: facts.shared(),
        member: 0,
    };
    Ok(MappedPush { incoming: Incoming::new(key(&flow, id), event), warnings, truncated })
}

/// The instance that `id` names: a trace, if it is a trace id and the flow finds its instances by that. (The value of
/// a business key may well be a UUID, too.)
fn key(flow: &Flow, id: &str) -> Key {
    let by_trace = flow.origin == Origin::Configured && flow.keys == Keys::Trace;
    match by_trace.then(|| trace_id(id)).flatten() {
        Some(trace) if flow.also => Key::Also { flow: flow.home, trace },
        Some(trace) => Key::Trace(trace),
        None => Key::Named { flow: flow.home, id: id.into() },
    }
}

/// The trace id that 32 hex digits or a UUID stand for.
pub fn trace_id(id: &str) -> Option<TraceId> {
    let hyphens = [8, 13, 18, 23];
    let is_uuid = id.len() == 36
        && id.bytes().enumerate().all(|(place, byte)| (byte == b'-') == hyphens.contains(&place));
    let digits: String = if is_uuid { id.replace('-', "") } else { id.to_owned() };
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let parsed = OtelTraceId::from_hex(&digits).ok()?;
    (parsed != OtelTraceId::INVALID).then(|| TraceId(parsed.to_bytes()))
}

fn create(name: &str, catalog: &Catalog) -> Result<Arc<Flow>, PushError> {
    catalog.pushed(name).map_err(|error| match error {
        CannotCreate::TooMany => PushError::TooManyFlows(format!(
            "cannot create the flow {name:?}: pushes have created as many flows as push.flows allows"
        )),
        CannotCreate::Overlaps(other) => PushError::Invalid(format!(
            "name {name:?} gets in the way of the metric {other:?}, which reserves its forms with _bucket, _sum, \
             _count, _total and _created: choose another name"
        )),
    })
}

/// Takes in what the push says about its metric; the first word on each matter counts.
fn define(
    flow: &Flow,
    help: Option<&str>,
    buckets: Option<Vec<f64>>,
    warnings: &mut Vec<(&'static str, String)>,
) {
    if let Some(help) = help.filter(|help| !help.is_empty() && flow.origin == Origin::Pushed) {
        flow.help.get_or_init(|| cut(help, MAX_HELP_BYTES).0.into());
    }
    if let Some(buckets) = buckets {
        let known = match flow.origin {
            Origin::Pushed => Some(flow.buckets.get_or_init(|| buckets.as_slice().into())),
            Origin::Configured | Origin::BuiltIn => flow.buckets.get(),
        };
        if known.is_some_and(|known| **known != *buckets) {
            let message = format!("buckets ignored: the flow {:?} has other ones already", &*flow.name);
            warnings.push(("buckets", message));
        }
    }
}

fn warn_of_undeclared(flow: &Flow, labels: &[Label], warnings: &mut Vec<(&'static str, String)>) {
    let Labels::Declared(rules) = &flow.labels else { return };
    for (name, _) in labels.iter().filter(|(name, _)| !rules.iter().any(|rule| rule.name == *name)) {
        let message = format!("label {name:?} ignored: the flow {:?} does not declare it", &*flow.name);
        warnings.push(("label", message));
    }
}

/// The candidates for the labels that a configured flow declares.
fn declared(flow: &Flow, labels: &[Label]) -> Box<[Option<Arc<str>>]> {
    let Labels::Declared(rules) = &flow.labels else {
        return Box::default();
    };
    let of =
        |name: &Arc<str>| labels.iter().find(|(label, _)| label == name).map(|(_, value)| Arc::clone(value));
    rules.iter().map(|rule| of(&rule.name).filter(|value| !value.is_empty())).collect()
}

/// The fields of one push.
struct Fields<'a>(&'a Object<'a>);

impl<'a> Fields<'a> {
    /// The field, unless it is absent or null. The ancestor's decoder did not care about case (Go, `encoding/json`).
    fn get(&self, field: &str) -> Option<&'a Value<'a>> {
        self.0.get_in_any_case(field).filter(|value| !matches!(value, Value::Null))
    }

    fn string(&self, field: &str) -> Result<Option<&'a str>, PushError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => invalid(format!("{field} must be a string, but is {}", kind_of(other))),
        }
    }

    fn boolean(&self, field: &str) -> Result<bool, PushError> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => invalid(format!("{field} must be true or false, but is {}", kind_of(other))),
        }
    }

    fn id(&self) -> Result<&'a str, PushError> {
        match self.string("id")? {
            None | Some("") => {
                invalid("id is missing: it tells which run of the flow the push belongs to".to_owned())
            }
            Some(id) if id.len() > MAX_ID_BYTES => {
                invalid(format!("id has {} bytes, more than the {MAX_ID_BYTES} allowed", id.len()))
            }
            Some(id) => Ok(id),
        }
    }

    /// Also the flow of that name, if there is one already.
    fn name(&self, catalog: &Catalog) -> Result<(&'a str, Option<Arc<Flow>>), PushError> {
        let name = match self.string("name")? {
            None | Some("") => {
                return invalid("name is missing: it is the name of the flow and of its metric".to_owned());
            }
            Some(name) => name,
        };
        let known = catalog.configured(name).map(Arc::clone).or_else(|| catalog.known_push(name));
        if known.is_some() {
            return Ok((name, known));
        }
        if name == TRACE_FLOW {
            return invalid(format!("name {name:?} is the name of the built-in flow: choose another one"));
        }
        match check_metric_name(name) {
            Ok(()) => Ok((name, None)),
            Err(error) => {
                invalid(format!("name {:?} cannot be a metric's name: {}", cut(name, 64).0, error.as_str()))
            }
        }
    }

    /// Seconds, whole or not.
    fn duration(&self, field: &str) -> Result<Option<Duration>, PushError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let wrong =
            || PushError::Invalid(format!("{field} must be a number of seconds, 0 or more, but is {value}"));
        let seconds = value.as_f64().ok_or_else(wrong)?;
        let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        if duration > MAX_WAIT {
            return invalid(format!(
                "{field} is {value} seconds, more than the {} allowed",
                MAX_WAIT.as_secs()
            ));
        }
        Ok(Some(duration))
    }

    fn is_error(&self) -> Result<bool, PushError> {
        match self.string("status")? {
            None | Some("ok" | "") => Ok(false),
            Some("error") => Ok(true),
            Some(other) => {
                invalid(format!("status must be \"ok\" or \"error\", but is {:?}", cut(other, 64).0))
            }
        }
    }

    fn buckets(&self) -> Result<Option<Vec<f64>>, PushError> {
        let list = match self.get("buckets") {
            None => return Ok(None),
            Some(Value::Array(list)) if list.is_empty() => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(other) => {
                return invalid(format!("buckets must be a list of numbers, but is {}", kind_of(other)));
            }
        };
        let number = |value: &Value<'_>| {
            let wrong =
                || PushError::Invalid(format!("buckets must hold numbers, but one is {}", kind_of(value)));
            value.as_f64().ok_or_else(wrong)
        };
        let bounds = list.iter().map(number).collect::<Result<Vec<f64>, PushError>>()?;
        check_buckets(&bounds).map_err(PushError::Invalid)?;
        Ok(Some(bounds))
    }

    /// `label_values` and `const_labels`, by name; where both name a label, `label_values` wins.
    fn labels(&self) -> Result<std::collections::BTreeMap<&'a str, &'a str>, PushError> {
        let mut labels = std::collections::BTreeMap::new();
        for field in ["const_labels", "label_values"] {
            let map = match self.get(field) {
                None => continue,
                Some(Value::Object(map)) => map,
                Some(other) => {
                    return invalid(format!("{field} must map names to strings, but is {}", kind_of(other)));
                }
            };
            for (name, value) in map.iter() {
                if let Err(error) = check_label_name(name) {
                    let name = cut(name, 64).0;
                    return invalid(format!(
                        "{field}: {name:?} cannot be a label's name: {}",
                        error.as_str()
                    ));
                }
                match value {
                    // An empty value and no label are the same to Prometheus.
                    Value::Null => {}
                    Value::String(text) if text.is_empty() => {}
                    Value::String(text) => {
                        labels.insert(name, &**text);
                    }
                    other => {
                        return invalid(format!(
                            "{field}.{name} must be a string, but is {}",
                            kind_of(other)
                        ));
                    }
                }
            }
        }
        if labels.len() > MAX_LABELS {
            return invalid(format!("{} labels are more than the {MAX_LABELS} allowed", labels.len()));
        }
        Ok(labels)
    }

    /// When the event was; now, if the push does not say, or says the year 1 as the ancestor's client does.
    fn created_at(&self, limits: &PushLimits, now: Now) -> Result<EventTime, PushError> {
        let Some(text) = self.string("created_at")? else {
            return Ok(now.wall);
        };
        let too_far = || {
            let text = cut(text, 64).0;
            invalid(format!(
                "created_at {text} is too far from now: ingest.max_past and ingest.max_future bound it"
            ))
        };
        let Ok(time) = text.parse::<Timestamp>() else {
            // The last hours of the year 9999 are a time, but no longer a timestamp.
            if Pieces::parse(text).is_ok_and(|pieces| pieces.offset().is_some() && pieces.time().is_some()) {
                return too_far();
            }
            return invalid(format!(
                "created_at must be a time such as \"2026-01-31T12:00:00Z\" (RFC 3339), but is {:?}",
                cut(text, 64).0
            ));
        };
        let years = text.get(..4).and_then(|years| years.parse::<u16>().ok());
        let second_of_year_2 = -62_104_060_800 * 1_000_000_000;
        if years.is_some() && time.as_nanosecond() < second_of_year_2 {
            return Ok(now.wall);
        }
        let event = EventTime::from_unix_nanoseconds(u64::try_from(time.as_nanosecond()).unwrap_or(0));
        match limits.time.around(now).admit(event) {
            Ok(()) => Ok(event),
            Err(_) => too_far(),
        }
    }

    fn unknown(&self) -> Vec<(&'static str, String)> {
        let is_known = |key: &&str| FIELDS.iter().any(|field| field.eq_ignore_ascii_case(key));
        let unknown = self.0.iter().map(|(key, _)| key).filter(|key| !is_known(key)).take(MAX_LABELS);
        unknown.map(|key| ("unknown_field", unknown_field(cut(key, 64).0))).collect()
    }
}

fn unknown_field(key: &str) -> String {
    // `lifespan` and `lifeSpan` are nearer to `life_span` than their letters say.
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-', ' '], "");
    let same = || FIELDS.iter().copied().find(|field| plain(field) == plain(key));
    match same().or_else(|| closest(key, &FIELDS)) {
        Some(field) => format!("unknown field `{key}`, did you mean `{field}`?"),
        None => format!("unknown field `{key}`"),
    }
}

fn kind_of(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn invalid<T>(message: String) -> Result<T, PushError> {
    Err(PushError::Invalid(message))
}
