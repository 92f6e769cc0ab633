//! What the spans of an instance say about other instances: links to the traces whose work they took up, and the values of
//! business keys.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use super::{Body, Instance, Rules};
use crate::domain::division::Division;
use crate::domain::event::Event;
use crate::domain::footprint;
use crate::domain::ids::{FlowId, Key, SpanId, TraceId};
use crate::domain::joining::{Claim, Joint, chosen_values, value_key};

/// What the spans of an instance say about where its trace belongs, and what has become of that.
#[derive(Debug, Default)]
pub(in crate::domain) struct Joints {
    /// Each with the span that says it.
    pub(super) all: BTreeSet<(Joint, SpanId)>,
    /// How many there are, however many spans say the same.
    pub(super) distinct: usize,
    /// The instances that it was part of and that have been observed.
    pub(in crate::domain) observed: BTreeSet<Key>,
    /// The first flow of these.
    pub(in crate::domain) observed_flow: Option<FlowId>,
    /// Whether traces of different values are connected with it.
    pub(super) is_contested: bool,
    /// What follows from all this, until it changes: what it claims, and how its events are divided.
    pub(super) claim: OnceLock<Arc<Claim>>,
    pub(super) division: OnceLock<Division>,
}

impl Joints {
    /// What they take in memory, in bytes, roughly: trees are half full at least.
    pub(super) fn bytes(&self) -> usize {
        let claim = if self.claim.get().is_some() { footprint::array::<Claim>(1) } else { 0 };
        let places = (self.all.len() + self.observed.len()).next_multiple_of(11);
        footprint::array::<Joints>(1) + footprint::array::<(Joint, SpanId)>(places) + claim
    }

    /// To be called whenever they change, or the events or the flow to which they belong.
    pub(super) fn changed(&mut self) {
        self.claim = OnceLock::new();
        self.division = OnceLock::new();
    }

    /// The links: which span took up the work of which span of which trace.
    pub(in crate::domain) fn links(&self) -> impl Iterator<Item = (SpanId, TraceId, SpanId)> {
        self.all.iter().filter_map(|(joint, span)| match joint {
            Joint::Link { trace, span: from } => Some((*span, *trace, *from)),
            Joint::Value { .. } => None,
        })
    }

    pub(super) fn is_linked(&self, span: SpanId) -> bool {
        self.links().any(|(linked, ..)| linked == span)
    }
}

impl Instance {
    /// What it says about where its trace belongs; `key` is its own.
    pub fn claim(&self, key: &Key) -> Arc<Claim> {
        let matched = self.matched;
        let Some(joints) = &self.joints else {
            return Arc::new(Claim { matched, ..Claim::default() });
        };
        let claim = || {
            let claim = Claim::of(key, matched, joints.all.iter().map(|(joint, _)| joint));
            Arc::new(Claim { is_contested: joints.is_contested, ..claim })
        };
        Arc::clone(joints.claim.get_or_init(claim))
    }

    /// Takes note that traces of different values are connected with it.
    pub fn contest(&mut self) {
        let joints = self.joints.get_or_insert_default();
        joints.is_contested = true;
        joints.changed();
    }

    /// How many joints it keeps, how many are said to be distinct, and how many are.
    #[cfg(test)]
    pub fn joints_kept(&self) -> (usize, usize, usize) {
        let Some(joints) = &self.joints else { return (0, 0, 0) };
        let distinct: BTreeSet<&Joint> = joints.all.iter().map(|(joint, _)| joint).collect();
        (joints.all.len(), joints.distinct, distinct.len())
    }

    /// Whether it says anything about other instances.
    pub fn has_joints(&self) -> bool {
        self.joints.is_some()
    }

    /// Takes note of what a span of it says about where its trace belongs. `new` takes what no other span has said;
    /// returns how many joints there was no room for.
    pub fn join(
        &mut self,
        span: SpanId,
        joints: &[Joint],
        limit: usize,
        rules: &impl Rules,
        new: &mut Vec<Joint>,
    ) -> u64 {
        // What a span beyond the cap says takes no room either.
        let is_full = self.len() >= rules.events_per_instance();
        let known = self.joints.get_or_insert_default();
        known.changed();
        let mut refused = 0;
        for joint in joints {
            let of_others = (joint.clone(), SpanId::NONE)..=(joint.clone(), SpanId(u64::MAX));
            let is_new = known.all.range(of_others).next().is_none();
            if (is_new && known.distinct >= limit) || is_full {
                refused += 1;
                continue;
            }
            if is_new {
                known.distinct += 1;
                new.push(joint.clone());
            }
            known.all.insert((joint.clone(), span));
        }
        refused
    }

    /// Takes note that an instance that it was part of has been observed.
    pub fn settle_with(&mut self, observed: Key, flow: FlowId) {
        let joints = self.joints.get_or_insert_default();
        joints.observed.insert(observed);
        joints.observed_flow = Some(joints.observed_flow.map_or(flow, |known| known.min(flow)));
    }

    /// Takes back what it says about `target`; returns how many joints that were.
    pub fn disown(&mut self, key: &Key, target: &Key) -> u64 {
        let Some(joints) = &mut self.joints else { return 0 };
        let before = joints.all.len();
        joints.changed();
        joints.all.retain(|(joint, _)| joint.target(key) != *target);
        let mut said: Vec<&Joint> = joints.all.iter().map(|(joint, _)| joint).collect();
        // They are sorted by what they say.
        said.dedup();
        joints.distinct = said.len();
        (before - joints.all.len()) as u64
    }

    pub(in crate::domain) fn joints(&self) -> Option<&Joints> {
        self.joints.as_deref()
    }

    /// Whether it was part of the instance found by `key` when that was observed.
    pub fn was_observed_with(&self, key: &Key) -> bool {
        self.joints.as_ref().is_some_and(|joints| joints.observed.contains(key))
    }

    /// The first flow of the instances that it was part of and that have been observed.
    pub fn observed_flow(&self) -> Option<FlowId> {
        self.joints.as_ref().and_then(|joints| joints.observed_flow)
    }

    /// Its events, and how they are divided among the values of its business key; none if it is folded, for what was
    /// folded cannot be divided any more; it was over a cap.
    pub(in crate::domain) fn divided(&self) -> Option<(&[Event], &Division)> {
        let (Body::Detailed { events }, Some(joints)) = (&self.body, &self.joints) else { return None };
        let divide = || {
            let said = || joints.all.iter().map(|(joint, _)| joint);
            let chosen: BTreeSet<_> = chosen_values(self.matched, said()).collect();
            let value_of = |(joint, span): &(Joint, SpanId)| match joint {
                Joint::Value { flow, rank, value } if chosen.contains(&(*flow, *rank, value)) => {
                    Some((*span, value_key(*flow, value)))
                }
                _ => None,
            };
            let values: Vec<(SpanId, Key)> = joints.all.iter().filter_map(value_of).collect();
            Division::of(events, &values)
        };
        Some((events, joints.division.get_or_init(divide)))
    }
}
