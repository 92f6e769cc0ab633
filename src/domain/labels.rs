//! Which of the values that different services report a label takes.
//!
//! Joining a candidate is idempotent and commutative, as long as no more than [`MAX_CANDIDATES`] distinct values
//! come: the choice depends on the events, never on the order of their arrival.

use std::sync::Arc;

use super::event::{Event, View};
use super::flow::{Flow, LabelRule, Labels, Pick};
use super::ids::SpanId;
use super::time::EventTime;

/// How many distinct values of one label an instance remembers; further ones are not considered.
pub const MAX_CANDIDATES: usize = 16;

/// Where a candidate stands among others: by event start, then span id, then service (a push's stage).
type Rank = (EventTime, SpanId, Arc<str>);

/// A label's name and value.
pub type Label = (Arc<str>, Arc<str>);

/// The candidates of every label of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates(Vec<(Arc<str>, Vec<Candidate>)>);

/// One distinct value and where it was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    value: Arc<str>,
    first: Rank,
    last: Rank,
    /// The first report by an event without a parent.
    root: Option<Rank>,
}

impl Candidates {
    /// Takes in what one event says.
    pub fn join(&mut self, flow: &Flow, event: &Event, view: &View) {
        match &flow.labels {
            Labels::Declared(rules) => {
                for (rule, value) in rules.iter().zip(&view.labels) {
                    if let Some(value) = value {
                        self.offer(&rule.name, value, event);
                    }
                }
            }
            Labels::Union => {
                for (name, value) in event.facts.push.iter().flat_map(|push| &push.labels) {
                    self.offer(name, value, event);
                }
            }
        }
    }

    fn offer(&mut self, name: &Arc<str>, value: &Arc<str>, event: &Event) {
        let index = self.0.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.0.push((Arc::clone(name), Vec::new()));
            self.0.len() - 1
        });
        let candidates = &mut self.0[index].1;
        let rank: Rank = (event.start, event.span, Arc::clone(&event.facts.service));
        let root = (!event.parent.is_some()).then(|| rank.clone());
        if let Some(known) = candidates.iter_mut().find(|known| known.value == *value) {
            known.root = match (known.root.take(), root) {
                (Some(old), Some(new)) => Some(old.min(new)),
                (old, new) => old.or(new),
            };
            if rank < known.first {
                known.first = rank;
            } else if rank > known.last {
                known.last = rank;
            }
        } else if candidates.len() < MAX_CANDIDATES {
            candidates.push(Candidate { value: Arc::clone(value), first: rank.clone(), last: rank, root });
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
                let mut labels: Vec<_> = self
                    .0
                    .iter()
                    .filter_map(|(name, candidates)| Some((Arc::clone(name), pick(Pick::Last, candidates)?)))
                    .collect();
                labels.sort();
                (labels, self.0.iter().any(|(_, candidates)| candidates.len() > 1))
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
    // Two pushes of one stage may have the same time: the value decides then, never the order of arrival.
    let first = || candidates.iter().min_by_key(|candidate| (&candidate.first, &candidate.value));
    let chosen = match rule {
        Pick::First => first(),
        Pick::Last => candidates.iter().max_by_key(|candidate| (&candidate.last, &candidate.value)),
        Pick::Root => candidates
            .iter()
            .filter(|candidate| candidate.root.is_some())
            .min_by_key(|candidate| (&candidate.root, &candidate.value))
            .or_else(first),
        Pick::Max => by_size(candidates).last().copied(),
        Pick::Min => by_size(candidates).first().copied(),
        Pick::Join => return joined(candidates),
    };
    chosen.map(|candidate| Arc::clone(&candidate.value))
}

/// Least first: by number where all are numbers, else by text.
fn by_size(candidates: &[Candidate]) -> Vec<&Candidate> {
    let numbers: Option<Vec<f64>> = candidates
        .iter()
        .map(|candidate| candidate.value.parse::<f64>().ok().filter(|number| !number.is_nan()))
        .collect();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| {
        let by_number = numbers.as_ref().map(|numbers| numbers[a].total_cmp(&numbers[b]));
        let by_text = candidates[a].value.cmp(&candidates[b].value);
        by_number.unwrap_or(by_text).then(by_text)
    });
    order.into_iter().map(|index| &candidates[index]).collect()
}

fn joined(candidates: &[Candidate]) -> Option<Arc<str>> {
    let mut values: Vec<&str> = candidates.iter().map(|candidate| &*candidate.value).collect();
    values.sort_unstable();
    (!values.is_empty()).then(|| Arc::from(values.join(",")))
}
