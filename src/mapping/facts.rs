//! What the flows' rules say about a span: found out once for each distinct combination of the values that they read and
//! of the answers to what they only ask.
//!
//! Invariant: the cache is an optimisation only. It is bounded, and emptying it changes no result.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;

use super::condition::{
    Condition, Path, PathTable, Question, Slot, Slots, Value, ValueExpression, text_up_to,
};
use crate::domain::event::{Facts, Matches, View};
use crate::domain::footprint::Held;
use crate::domain::ids::FlowId;

/// What is read of each span, and what follows from it.
#[derive(Debug)]
pub struct SpanRules {
    table: PathTable,
    flows: Vec<FlowRule>,
    ignore: Vec<Condition>,
    built_in: Option<BuiltIn>,
    /// The configs under which instances may have been opened, the one in force last.
    generations: Vec<Generation>,
    service: Slot,
    name: Slot,
    /// Business keys. They are read of each span, since their values are many.
    keys: Vec<KeyRule>,
    /// How many of the paths the interned outcome depends on; what comes behind is read for keys and links only.
    interned: usize,
    operations: Vec<Slot>,
    /// By the paths that the interned outcome depends on: what is asked about the value, where it matters for nothing else.
    questions: Vec<Option<Box<[Question]>>>,
    /// By path: whether its value is the same for all spans of a resource and a scope.
    lasting: Vec<bool>,
    index: PathIndex,
    /// Label and stage values are cut to this many bytes.
    value_bytes: usize,
    cache: DashMap<Box<[u8]>, Interned, foldhash::quality::RandomState>,
    texts: Mutex<Texts>,
    truncated: AtomicU64,
}

/// Names, stages and label values that have been read lately, so that equal ones are nearly always one: whoever compares them
/// need not look at them, and they take their room once.
type Texts = HashSet<Arc<str>, foldhash::quality::RandomState>;

/// How many of them are kept at most. When there are as many, those go that nobody else has, and all if that is not enough.
const MOST_TEXTS: usize = 4096;

/// The places of paths among those that are read.
#[derive(Debug, Default)]
pub struct PathIndex {
    /// Attributes by the length of their key, which tells most of them apart.
    resource: Vec<Vec<(Box<str>, usize)>>,
    span: Vec<Vec<(Box<str>, usize)>>,
    /// Everything else.
    pub fields: Vec<(usize, Path)>,
}

impl PathIndex {
    fn of(paths: &[Path]) -> Self {
        let mut index = PathIndex::default();
        let add = |lengths: &mut Vec<Vec<(Box<str>, usize)>>, key: &str, slot: usize| {
            lengths.resize_with(lengths.len().max(key.len() + 1), Vec::new);
            lengths[key.len()].push((key.into(), slot));
        };
        for (slot, path) in paths.iter().enumerate() {
            match path {
                Path::ResourceAttribute(key) => add(&mut index.resource, key, slot),
                Path::SpanAttribute(key) => add(&mut index.span, key, slot),
                field => index.fields.push((slot, field.clone())),
            }
        }
        index
    }

    /// The slot of a resource's attribute, if it is read.
    pub fn resource_attribute(&self, key: &[u8]) -> Option<usize> {
        find(&self.resource, key)
    }

    /// The slot of a span's attribute, if it is read.
    pub fn span_attribute(&self, key: &[u8]) -> Option<usize> {
        find(&self.span, key)
    }
}

fn find(lengths: &[Vec<(Box<str>, usize)>], key: &[u8]) -> Option<usize> {
    let known = lengths.get(key.len())?.iter().find(|(known, _)| known.as_bytes() == key);
    known.map(|(_, slot)| *slot)
}

/// With more questions a value is kept as it is: the answers are kept as bits.
const MAX_QUESTIONS: usize = 64;

/// Facts and whether an `ignore` condition holds.
pub type Interned = (Arc<Facts>, bool);

/// How many distinct combinations are kept; with more, all are read again.
const CACHE_ENTRIES: usize = 32_768;
/// The longest combination that is kept: longer ones hardly come twice, and would make the cache as large as requests.
pub const CACHED_BYTES: usize = 1024;

/// The conditions and expressions of one flow.
#[derive(Debug)]
pub struct FlowRule {
    /// The flow.
    pub id: FlowId,
    /// The id of its first version.
    pub home: FlowId,
    /// Whether it sees every trace beside the flow that takes the trace.
    pub also: bool,
    /// Which spans it matches.
    pub matches: Option<Condition>,
    /// The stage of a span; default: its service.
    pub stage: Option<ValueExpression>,
    /// The `when` of its `start`.
    pub start: Option<Condition>,
    /// The `when` of each `end` alternative.
    pub ends: Vec<Option<Condition>>,
    /// Its `error_if`.
    pub error_if: Option<Condition>,
    /// Where the candidates of its labels come from.
    pub labels: Vec<ValueExpression>,
}

/// One business key of a flow.
#[derive(Debug, Clone)]
pub struct KeyRule {
    /// The id of the flow's first version.
    pub flow: FlowId,
    /// Its place among the flow's keys.
    pub rank: u8,
    /// Where its value stands.
    pub value: ValueExpression,
    /// Whether the flow is one that is `also` there.
    pub also: bool,
}

/// Which flows the config of one generation has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// How often the config had been reloaded.
    pub number: u32,
    /// Its flows in file order; the built-in flow comes last, if it is on.
    pub flows: Vec<FlowId>,
}

/// What the built-in flow reads.
#[derive(Debug)]
struct BuiltIn {
    /// Its versions of which instances may be open.
    versions: Vec<FlowId>,
    name: Slot,
    route: Slot,
    /// Current and former name of the HTTP method (OpenTelemetry semantic conventions 1.23 renamed it).
    methods: [Slot; 2],
}

impl SpanRules {
    /// Rules over the paths of `table`; `built_in` are the versions of the flow that takes the rest.
    pub fn new(
        mut table: PathTable,
        flows: Vec<FlowRule>,
        ignore: Vec<Condition>,
        built_in: Vec<FlowId>,
        generations: Vec<Generation>,
    ) -> Self {
        let service = table.slot(Path::ResourceAttribute("service.name".into()));
        let name = table.slot(Path::SpanName);
        let built_in = (!built_in.is_empty()).then(|| BuiltIn {
            versions: built_in,
            name,
            route: table.slot(Path::SpanAttribute("http.route".into())),
            methods: ["http.request.method", "http.method"]
                .map(|key| table.slot(Path::SpanAttribute(key.into()))),
        });
        SpanRules {
            table,
            flows,
            ignore,
            built_in,
            generations,
            service,
            name,
            keys: Vec::new(),
            interned: 0,
            operations: Vec::new(),
            questions: Vec::new(),
            lasting: Vec::new(),
            index: PathIndex::default(),
            value_bytes: 256,
            cache: DashMap::default(),
            texts: Mutex::default(),
            truncated: AtomicU64::new(0),
        }
    }

    /// Adds the business keys, which `read` reads into the table.
    pub fn with_keys<E>(
        mut self,
        read: impl FnOnce(&mut PathTable) -> Result<Vec<KeyRule>, E>,
    ) -> Result<Self, E> {
        self.interned = self.table.paths().len();
        self.questions = self.find_questions();
        self.keys = read(&mut self.table)?;
        // Current and former name (OpenTelemetry semantic conventions 1.26 renamed it).
        self.operations = ["messaging.operation.type", "messaging.operation"]
            .map(|key| self.table.slot(Path::SpanAttribute(key.into())))
            .into();
        self.index = PathIndex::of(self.table.paths());
        let is_lasting =
            |path: &Path| matches!(path, Path::ResourceAttribute(_) | Path::ScopeName | Path::ScopeVersion);
        self.lasting = self.table.paths().iter().map(is_lasting).collect();
        Ok(self)
    }

    /// What is asked about each value that is only asked about. Paths and the like are of endless variety, and it would be
    /// of no use to tell spans apart by them.
    fn find_questions(&self) -> Vec<Option<Box<[Question]>>> {
        let mut questions: Vec<Option<Vec<Question>>> = vec![Some(Vec::new()); self.interned];
        let built_in = self.built_in.iter();
        let read =
            built_in.flat_map(|built_in| [built_in.name, built_in.route].into_iter().chain(built_in.methods));
        let values = self.flows.iter().flat_map(|rule| rule.stage.iter().chain(&rule.labels));
        let read = read.chain(values.filter_map(ValueExpression::slot)).chain([self.service, self.name]);
        read.for_each(|slot| questions[slot.index()] = None);
        let of_flows = self.flows.iter().flat_map(|rule| {
            let single = [&rule.matches, &rule.start, &rule.error_if];
            single.into_iter().chain(&rule.ends).flatten()
        });
        for condition in of_flows.chain(&self.ignore) {
            condition.questions(&mut |slot, question| {
                let known = &mut questions[slot.index()];
                match (known.as_mut(), question) {
                    (Some(all), Some(question)) if all.len() < MAX_QUESTIONS => all.push(question),
                    _ => *known = None,
                }
            });
        }
        questions.into_iter().map(|questions| questions.map(Vec::into_boxed_slice)).collect()
    }

    /// What is asked about the value of an interned slot, if it matters for nothing else.
    pub fn questions(&self, slot: usize) -> Option<&[Question]> {
        self.questions.get(slot)?.as_deref()
    }

    /// By slot: whether its value is the same for all spans of a resource and a scope.
    pub fn lasting(&self) -> &[bool] {
        &self.lasting
    }

    /// Where the paths are.
    pub fn index(&self) -> &PathIndex {
        &self.index
    }

    /// How many of the paths, the first ones, the outcome depends on.
    pub fn interned(&self) -> usize {
        self.interned
    }

    /// The business keys.
    pub fn keys(&self) -> &[KeyRule] {
        &self.keys
    }

    /// The flows that are `also` there, by the ids of their first versions.
    pub fn also(&self) -> impl Iterator<Item = FlowId> {
        let mut homes: Vec<FlowId> =
            self.flows.iter().filter(|rule| rule.also).map(|rule| rule.home).collect();
        homes.sort();
        homes.dedup();
        homes.into_iter()
    }

    /// Where it says whether a span takes work off a queue, by the semantic conventions of messaging.
    pub fn operations(&self) -> &[Slot] {
        &self.operations
    }

    /// Sets the length in bytes to which label and stage values are cut.
    #[must_use]
    pub fn with_value_bytes(self, value_bytes: usize) -> Self {
        SpanRules { value_bytes, ..self }
    }

    /// Whether a span can match a configured flow that takes traces, by the config in force or one before it under which
    /// instances may have been opened.
    pub fn may_match(&self) -> bool {
        self.flows.iter().any(|rule| rule.matches.is_some() && !rule.also)
    }

    /// What has to be read of each span, by slot.
    pub fn paths(&self) -> &[Path] {
        self.table.paths()
    }

    /// How many values were cut since the last call.
    pub fn take_truncated(&self) -> u64 {
        self.truncated.swap(0, Relaxed)
    }

    /// What all rules say about a span, if one with the same fingerprint has been seen.
    pub fn known(&self, fingerprint: &[u8]) -> Option<Interned> {
        self.cache.get(fingerprint).map(|known| known.clone())
    }

    /// Forgets what was said of the spans that have been seen: it is found out again.
    pub fn forget_seen(&self) {
        self.cache.clear();
        self.cache.shrink_to_fit();
        *self.texts() = Texts::default();
    }

    /// What all rules say about a span with these values; a `fingerprint` must tell any two of them apart, and without one it
    /// is not remembered.
    pub fn learn(
        &self,
        fingerprint: Option<&[u8]>,
        slots: &Slots<'_, '_>,
        is_entry: bool,
        threshold: u64,
    ) -> Interned {
        let interned = self.evaluate(slots, is_entry, threshold);
        let Some(fingerprint) = fingerprint else { return interned };
        if self.cache.len() >= CACHE_ENTRIES {
            self.cache.clear();
        }
        self.cache.insert(fingerprint.into(), interned.clone());
        interned
    }

    fn evaluate(&self, slots: &Slots<'_, '_>, is_entry: bool, threshold: u64) -> Interned {
        let service = slots.value(self.service).map(|value| self.text(value)).filter(|name| !name.is_empty());
        let service = self.cut(service.as_deref().unwrap_or("unknown_service"));
        // Only people read it: that it was cut is not counted.
        let name = slots.value(self.name).map(|value| self.text(value));
        let name = self.shared(cut(name.as_deref().unwrap_or_default(), self.value_bytes).0);
        let mut views: Vec<(FlowId, View)> =
            self.flows.iter().map(|rule| (rule.id, self.view(rule, slots, &service))).collect();
        if let Some(built_in) = &self.built_in {
            let view = self.built_in_view(built_in, slots, &service, is_entry);
            views.extend(built_in.versions.iter().map(|id| (*id, view.clone())));
        }
        views.sort_by_key(|(flow, _)| *flow);
        let ignored = self.ignore.iter().any(|condition| condition.holds(slots));
        let holds = |rule: &&FlowRule| rule.matches.as_ref().is_some_and(|condition| condition.holds(slots));
        let holding: Vec<&FlowRule> = self.flows.iter().filter(holds).collect();
        let matches = |generation: &Generation| self.matches(generation, &holding);
        let (now, before) = match self.generations.split_last() {
            Some((now, before)) if !ignored => (matches(now), before),
            _ => Default::default(),
        };
        let before = before.iter().map(|generation| (generation.number, matches(generation)));
        let facts = Facts {
            origin: Facts::origin_of(&service, None),
            service,
            name,
            threshold,
            matches: now,
            matched_before: before.collect(),
            views: views.into(),
            push: None,
            held: Held::default(),
        };
        (facts.shared(), ignored)
    }

    /// What a span matches by the config of a generation; `holding` are the flows whose `match` holds.
    fn matches(&self, generation: &Generation, holding: &[&FlowRule]) -> Matches {
        let rules =
            || generation.flows.iter().filter_map(|flow| holding.iter().find(|rule| rule.id == *flow));
        let built_in = self.built_in.iter().flat_map(|built_in| &built_in.versions);
        let mut built_in = built_in.filter(|version| generation.flows.last() == Some(version));
        let first = rules().find(|rule| !rule.also).map(|rule| rule.id);
        Matches {
            first: first.or_else(|| built_in.next().copied()),
            also: rules().filter(|rule| rule.also).map(|rule| (rule.home, rule.id)).collect(),
        }
    }

    fn view(&self, rule: &FlowRule, slots: &Slots<'_, '_>, service: &Arc<str>) -> View {
        let holds = |condition: &Option<Condition>| {
            condition.as_ref().is_some_and(|condition| condition.holds(slots))
        };
        let stage = rule
            .stage
            .as_ref()
            .map(|stage| stage.value(slots).map(|value| self.text(value)).unwrap_or_default());
        View {
            stage: stage.map_or_else(|| Arc::clone(service), |stage| self.cut(&stage)),
            start: holds(&rule.start),
            ends: rule
                .ends
                .iter()
                .enumerate()
                .fold(0, |bits, (bit, end)| bits | u32::from(holds(end)) << bit),
            error: rule.error_if.as_ref().map(|condition| condition.holds(slots)),
            labels: rule.labels.iter().map(|expression| self.label(expression, slots)).collect(),
        }
    }

    fn label(&self, expression: &ValueExpression, slots: &Slots<'_, '_>) -> Option<Arc<str>> {
        let text = self.text(expression.value(slots)?);
        (!text.is_empty()).then(|| self.cut(&text))
    }

    fn built_in_view(
        &self,
        built_in: &BuiltIn,
        slots: &Slots<'_, '_>,
        service: &Arc<str>,
        is_entry: bool,
    ) -> View {
        let text =
            |slot: Slot| slots.value(slot).map(|value| self.text(value)).filter(|text| !text.is_empty());
        let method = built_in.methods.iter().find_map(|slot| text(*slot));
        let name = match (method, text(built_in.route)) {
            (Some(method), Some(route)) => Some(format!("{method} {route}").into()),
            _ => text(built_in.name),
        };
        // Only what may be taken for the root has a say: the names of inner spans are too many.
        let labels = match is_entry {
            true => vec![name.map(|name| self.cut(&name)), Some(Arc::clone(service))],
            false => vec![None, None],
        };
        View { stage: Arc::clone(service), start: false, ends: 0, error: None, labels: labels.into() }
    }

    /// As much of the text of a value as is kept of it, and a little more if there is more.
    fn text<'v>(&self, value: Value<'v>) -> Cow<'v, str> {
        text_up_to(value, self.value_bytes)
    }

    fn cut(&self, text: &str) -> Arc<str> {
        let (kept, was_cut) = cut(text, self.value_bytes);
        self.truncated.fetch_add(u64::from(was_cut), Relaxed);
        self.shared(kept)
    }

    /// A text, which is the same as the last equal one.
    fn shared(&self, text: &str) -> Arc<str> {
        let mut texts = self.texts();
        if let Some(known) = texts.get(text) {
            return Arc::clone(known);
        }
        if texts.len() >= MOST_TEXTS {
            texts.retain(|text| Arc::strong_count(text) > 1);
            if texts.len() >= MOST_TEXTS / 2 {
                texts.clear();
            }
        }
        let text: Arc<str> = text.into();
        texts.insert(Arc::clone(&text));
        text
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest beginning of `text` with at most `bytes` bytes, and whether that is less than all.
pub fn cut(text: &str, bytes: usize) -> (&str, bool) {
    if text.len() <= bytes {
        return (text, false);
    }
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    (&text[..end], true)
}
