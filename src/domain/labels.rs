//! Which of the values that different services report a label takes.
//!
//! Joining a candidate is idempotent and commutative, as long as no more than [`MAX_CANDIDATES`] distinct values
//! come: the choice depends on the events, never on the order of their arrival.

mod stored;

use std::cmp::Ordering;
use std::sync::Arc;

use smallvec::SmallVec;

use super::event::{Event, Kind, View};
use super::flow::{Flow, LabelRule, Labels, Pick};
use super::footprint;
use super::ids::SpanId;
use super::time::EventTime;

/// How many distinct values of one label an instance remembers. When there are more, those go that the label's rule
/// needs least, so that the choice stays the same; only a `join` then lacks some.
pub const MAX_CANDIDATES: usize = 16;

/// How many labels an instance has at most that its pushes name: as many as one push may. Of more the first by name are
/// taken.
pub const MAX_PUSHED: usize = 32;

/// Where a candidate stands among others: by event start, then span id, then service; of pushes by the name of the stage.
type Rank = (EventTime, SpanId, u32, Option<Arc<str>>);

fn rank(event: &Event) -> Rank {
    let stage = (event.kind == Kind::Push).then(|| Arc::clone(&event.facts.service));
    let origin = if stage.is_some() { 0 } else { event.facts.origin };
    (event.start, event.span, origin, stage)
}

/// A label's name and value.
pub type Label = (Arc<str>, Arc<str>);

/// The candidates of every label of an instance. Those that pushes name are in the order of their names, and one more of
/// them than may be, which tells that there are too many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates(Vec<(Arc<str>, OfLabel)>);

/// The candidates of one label. Most labels have one.
type OfLabel = SmallVec<[Candidate; 1]>;

/// One distinct value and where it was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    value: Arc<str>,
    first: Rank,
    last: Rank,
    /// The first report by an event without a parent.
    root: Option<Rank>,
}

impl Candidate {
    /// Takes in another report of the same value.
    fn report(&mut self, event: &Event) {
        let rank = rank(event);
        if !event.parent.is_some() && self.root.as_ref().is_none_or(|known| rank < *known) {
            self.root = Some(rank.clone());
        }
        if rank < self.first {
            self.first = rank.clone();
        }
        if rank > self.last {
            self.last = rank;
        }
    }

    /// Takes in other reports of the same value.
    fn merge(&mut self, other: Candidate) {
        self.root = match (self.root.take(), other.root) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
        if other.first < self.first {
            self.first = other.first;
        }
        if other.last > self.last {
            self.last = other.last;
        }
    }
}

impl Candidates {
    /// What they take in memory beside themselves, in bytes; their texts are their events' as well.
    pub fn bytes(&self) -> usize {
        let elsewhere = self.0.iter().filter(|(_, values)| values.spilled());
        let elsewhere = elsewhere.map(|(_, values)| footprint::array::<Candidate>(values.capacity()));
        footprint::array::<(Arc<str>, OfLabel)>(self.0.capacity()) + elsewhere.sum::<usize>()
    }

    /// What the texts take, if nobody else has them any more.
    pub(super) fn text_bytes(&self) -> usize {
        let values = self.0.iter().flat_map(|(_, values)| values).map(|candidate| &candidate.value);
        footprint::texts(values, &[])
    }

    /// Takes in what one event says.
    pub fn join(&mut self, flow: &Flow, event: &Event, view: &View) {
        match &flow.labels {
            Labels::Declared(rules) => {
                for (rule, value) in rules.iter().zip(&view.labels) {
                    if let Some(value) = value {
                        if self.0.is_empty() {
                            self.0.reserve_exact(rules.len());
                        }
                        self.offer(&rule.name, value, event, rule.pick);
                    }
                }
            }
            Labels::Union => {
                for (name, value) in event.facts.push.iter().flat_map(|push| &push.labels) {
                    if let Some(place) = self.place_of_pushed(name) {
                        self.offer_at(place, value, event, Pick::Last);
                    }
                }
            }
        }
    }

    fn offer(&mut self, name: &Arc<str>, value: &Arc<str>, event: &Event, rule: Pick) {
        let known = self.0.iter().position(|(known, _)| Arc::ptr_eq(known, name) || known == name);
        let place = known.unwrap_or_else(|| {
            self.0.push((Arc::clone(name), OfLabel::new()));
            self.0.len() - 1
        });
        self.offer_at(place, value, event, rule);
    }

    /// Where a label is that a push names, if there is room for it. Which labels there is room for depends on their names
    /// alone.
    fn place_of_pushed(&mut self, name: &Arc<str>) -> Option<usize> {
        match self.0.binary_search_by(|(known, _)| known.cmp(name)) {
            Ok(place) => Some(place),
            Err(place) if place > MAX_PUSHED => None,
            Err(place) => {
                self.0.insert(place, (Arc::clone(name), OfLabel::new()));
                self.0.truncate(MAX_PUSHED + 1);
                Some(place)
            }
        }
    }

    fn offer_at(&mut self, place: usize, value: &Arc<str>, event: &Event, rule: Pick) {
        let candidates = &mut self.0[place].1;
        let is_same = |known: &&mut Candidate| Arc::ptr_eq(&known.value, value) || known.value == *value;
        if let Some(known) = candidates.iter_mut().find(is_same) {
            known.report(event);
            return;
        }
        let rank = rank(event);
        let root = (!event.parent.is_some()).then(|| rank.clone());
        candidates.push(Candidate { value: Arc::clone(value), first: rank.clone(), last: rank, root });
        if candidates.len() > MAX_CANDIDATES {
            let order = by_preference(rule, candidates);
            candidates.remove(order[MAX_CANDIDATES]);
        }
    }

    /// Takes in the candidates of other events of the same instance.
    pub fn merge(&mut self, flow: &Flow, other: Candidates) {
        for (name, theirs) in other.0 {
            let (place, rule) = match &flow.labels {
                Labels::Declared(rules) => {
                    let rule = rules.iter().find(|rule| rule.name == name);
                    let place = self.0.iter().position(|(known, _)| *known == name);
                    (place, rule.map_or(Pick::First, |rule| rule.pick))
                }
                Labels::Union => match self.place_of_pushed(&name) {
                    None => continue,
                    place => (place, Pick::Last),
                },
            };
            let Some(place) = place else {
                self.0.push((name, theirs));
                continue;
            };
            let ours = &mut self.0[place].1;
            for candidate in theirs {
                match ours.iter_mut().find(|known| known.value == candidate.value) {
                    Some(known) => known.merge(candidate),
                    None => ours.push(candidate),
                }
                if ours.len() > MAX_CANDIDATES {
                    let order = by_preference(rule, ours);
                    ours.remove(order[MAX_CANDIDATES]);
                }
            }
        }
    }

    /// The labels of the instance, by the flow's rules, and whether events disagreed about one of them.
    pub fn choose(&self, flow: &Flow) -> (Vec<Label>, bool) {
        match &flow.labels {
            Labels::Declared(rules) => {
                let of = |rule: &LabelRule| self.0.iter().find(|(name, _)| *name == rule.name);
                let disagree = rules
                    .iter()
                    .any(|rule| of(rule).is_some_and(|(_, candidates)| disagree(rule.pick, candidates)));
                let choose = |rule: &LabelRule| {
                    let chosen = of(rule).and_then(|(_, candidates)| pick(rule.pick, candidates));
                    (Arc::clone(&rule.name), chosen.unwrap_or_else(|| Arc::clone(&rule.default)))
                };
                (rules.iter().map(choose).collect(), disagree)
            }
            Labels::Union => {
                let named = self.0.iter().take(MAX_PUSHED);
                let labels = named
                    .filter_map(|(name, candidates)| Some((Arc::clone(name), pick(Pick::Last, candidates)?)));
                let are_too_many = self.0.len() > MAX_PUSHED;
                (labels.collect(), are_too_many || self.0.iter().any(|(_, candidates)| candidates.len() > 1))
            }
        }
    }
}

/// Whether more than one candidate could have been meant.
fn disagree(rule: Pick, candidates: &[Candidate]) -> bool {
    match rule {
        Pick::Join => false,
        Pick::Root => candidates.iter().filter(|candidate| candidate.root.is_some()).count() > 1,
        Pick::First | Pick::Last | Pick::Max | Pick::Min => candidates.len() > 1,
    }
}

fn pick(rule: Pick, candidates: &[Candidate]) -> Option<Arc<str>> {
    if let [only] = candidates {
        return Some(Arc::clone(&only.value));
    }
    if rule == Pick::Join {
        return joined(candidates);
    }
    by_preference(rule, candidates).first().map(|&best| Arc::clone(&candidates[best].value))
}

/// The places of the candidates, the one that the rule wants most first. Two pushes of one stage may have the same
/// time: the value decides then, never the order of arrival.
fn by_preference(rule: Pick, candidates: &[Candidate]) -> Vec<usize> {
    let numbers: Option<Vec<f64>> = candidates
        .iter()
        .map(|candidate| candidate.value.parse::<f64>().ok().filter(|number| !number.is_nan()))
        .collect();
    let by_size = |a: usize, b: usize| {
        let by_number = numbers.as_ref().map_or(Ordering::Equal, |numbers| numbers[a].total_cmp(&numbers[b]));
        by_number.then_with(|| candidates[a].value.cmp(&candidates[b].value))
    };
    let by_first = |a: usize, b: usize| {
        let key = |place: usize| (&candidates[place].first, &candidates[place].value);
        key(a).cmp(&key(b))
    };
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| match rule {
        Pick::First => by_first(a, b),
        Pick::Last => {
            let key = |place: usize| (&candidates[place].last, &candidates[place].value);
            key(b).cmp(&key(a))
        }
        Pick::Root => {
            let key = |place: usize| (candidates[place].root.is_none(), &candidates[place].root);
            key(a).cmp(&key(b)).then_with(|| by_first(a, b))
        }
        Pick::Max => by_size(b, a),
        Pick::Min | Pick::Join => by_size(a, b),
    });
    order
}

fn joined(candidates: &[Candidate]) -> Option<Arc<str>> {
    let mut values: Vec<&str> = candidates.iter().map(|candidate| &*candidate.value).collect();
    values.sort_unstable();
    (!values.is_empty()).then(|| Arc::from(values.join(",")))
}
