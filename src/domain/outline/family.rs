//! Who is whose parent among the events of an outline, and who took up whose work.

use std::collections::HashMap;

use super::{Handover, MissingParent, Node};
use crate::domain::event::{Flags, Kind};
use crate::domain::few::Few;
use crate::domain::ids::SpanId;

/// Who is whose parent in an outline.
#[derive(Debug)]
pub struct Family {
    /// For each node: where its parent is, if it names one and it has come. No instance has more than
    /// `u32` can number.
    parents: Few<Option<u32>>,
    /// Who took up whose work over a link, as (to, from), where both have come. Sorted.
    takers: Vec<(usize, usize)>,
    pub(super) missing: MissingParent,
    /// Whether spans of one trace have the same id.
    shares_ids: bool,
}

/// Zipkin-style shared ids: the client's side of a call by its id, inside of which the server's side happened.
pub(super) struct Calls(HashMap<(u16, SpanId), usize>);

impl Calls {
    fn of(nodes: &[Node]) -> Self {
        let calls =
            nodes.iter().enumerate().filter(|(_, node)| node.kind == Kind::Client && node.span.is_some());
        // Of several the first in the order of the events.
        Calls(calls.rev().map(|(index, node)| (node.place(), index)).collect())
    }

    /// The call that the event at `index` served under the same id.
    pub(super) fn of_served(&self, nodes: &[Node], index: usize) -> Option<usize> {
        let node = &nodes[index];
        self.0.get(&node.place()).copied().filter(|_| node.kind == Kind::Server)
    }
}

impl Family {
    pub(super) fn of(nodes: &[Node], handovers: &[Handover]) -> Self {
        let directory = Directory::of(nodes);
        let find = |wanted: (u16, SpanId)| directory.find(nodes, wanted);
        let mut parents: Few<Option<u32>> = Few::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            // Siblings often stand side by side.
            let same = index
                .checked_sub(1)
                .filter(|&before| (nodes[before].member, nodes[before].parent) == (node.member, node.parent));
            parents.push(match same {
                Some(before) => parents[before],
                None => find((node.member, node.parent)).map(|place| place as u32),
            });
        }
        let taker = |handover: &Handover| find(handover.to).zip(find(handover.from));
        let mut takers: Vec<(usize, usize)> = handovers.iter().filter_map(taker).collect();
        takers.sort_unstable();
        let missing = nodes
            .iter()
            .zip(&parents)
            .filter(|(node, parent)| node.parent.is_some() && parent.is_none())
            .map(|(node, _)| {
                let local = node.flags.has(Flags::PARENT_IS_LOCAL);
                if local { MissingParent::Local } else { MissingParent::Remote }
            })
            .max();
        let shares_ids = directory.has_shared_ids(nodes);
        Family { parents, takers, missing: missing.unwrap_or(MissingParent::None), shares_ids }
    }

    /// Where the parent of the event at `index` is, if it names one and it has come.
    pub(super) fn parent(&self, index: usize) -> Option<usize> {
        self.parents[index].map(|parent| parent as usize)
    }

    /// Whose work the event at `index` took up.
    pub(super) fn taken_by(&self, index: usize) -> impl Iterator<Item = usize> {
        let first = self.takers.partition_point(|(to, _)| *to < index);
        self.takers[first..].iter().take_while(move |(to, _)| *to == index).map(|(_, from)| *from)
    }

    /// Of those whose work the event at `index` took up the one that ended last.
    pub(super) fn taken(&self, nodes: &[Node], index: usize) -> Option<usize> {
        self.taken_by(index).max_by_key(|&from| (nodes[from].end, nodes[from].span))
    }

    /// The calls whose ids the spans that serve them share, if there are any.
    pub(super) fn calls(&self, nodes: &[Node]) -> Option<Calls> {
        self.shares_ids.then(|| Calls::of(nodes))
    }

    /// The queues, as (from, to): PRODUCER to CONSUMER, and every link.
    pub(super) fn queues(&self, nodes: &[Node]) -> Vec<(usize, usize)> {
        let consumers = nodes.iter().enumerate().filter(|(_, node)| node.kind == Kind::Consumer);
        let by_parent = consumers.filter_map(|(index, _)| Some((self.parent(index)?, index)));
        let by_parent = by_parent.filter(|(parent, _)| nodes[*parent].kind == Kind::Producer);
        by_parent.chain(self.takers.iter().map(|(to, from)| (*from, *to))).collect()
    }

    pub(super) fn root(&self, nodes: &[Node]) -> Option<usize> {
        let spans = || nodes.iter().enumerate().filter(|(_, node)| node.kind != Kind::Push);
        let rank = |&(_, node): &(usize, &Node)| (node.start, node.span, node.kind, node.identity());
        // Where traces are linked, the ones that took work up are not where it began.
        let took = |index: &usize| self.taken_by(*index).next().is_some();
        let roots = || spans().filter(|(_, node)| node.is_root());
        let beginning = roots().filter(|(index, _)| !took(index)).min_by_key(rank);
        let true_root = beginning.or_else(|| roots().min_by_key(rank));
        let orphan = || spans().filter(|&(index, _)| self.parents[index].is_none()).min_by_key(rank);
        true_root.or_else(orphan).map(|(index, _)| index)
    }

    pub(super) fn is_entry(&self, nodes: &[Node], index: usize) -> bool {
        let node = &nodes[index];
        node.enters_alone()
            || self
                .parent(index)
                .is_some_and(|parent| nodes[parent].counts && nodes[parent].stage != node.stage)
    }

    /// Whether a PRODUCER has no child that took its work: a CONSUMER, or anything in another stage.
    pub(super) fn unanswered(&self, nodes: &[Node]) -> bool {
        if nodes.iter().all(|node| node.kind != Kind::Producer) {
            return false;
        }
        let mut answered = vec![false; nodes.len()];
        for (_, from) in &self.takers {
            answered[*from] = true;
        }
        for (node, parent) in nodes.iter().zip(&self.parents) {
            if let Some(parent) = parent.map(|parent| parent as usize) {
                let other_stage = node.counts && nodes[parent].counts && node.stage != nodes[parent].stage;
                answered[parent] |= node.kind == Kind::Consumer || other_stage;
            }
        }
        nodes.iter().zip(&answered).any(|(node, answered)| {
            let holds = !node.flags.has(Flags::IGNORED) && !node.flags.has(Flags::FORWARDS);
            node.kind == Kind::Producer && holds && !answered
        })
    }
}

/// Where in an outline which span is.
enum Directory {
    /// So few that looking through them is the quickest way.
    Few,
    /// The places of the spans by trace and span id.
    Sorted(Vec<usize>),
}

impl Directory {
    /// From this many nodes on they are sorted.
    const SORTED_FROM: usize = 24;

    fn of(nodes: &[Node]) -> Self {
        if nodes.len() < Self::SORTED_FROM { Directory::Few } else { Directory::sorted(nodes) }
    }

    fn sorted(nodes: &[Node]) -> Self {
        let mut by_span: Vec<usize> = (0..nodes.len()).filter(|&index| nodes[index].span.is_some()).collect();
        by_span.sort_unstable_by(|&a, &b| {
            let [a, b] = [&nodes[a], &nodes[b]];
            a.place().cmp(&b.place()).then_with(|| a.as_parent().cmp(&b.as_parent()))
        });
        Directory::Sorted(by_span)
    }

    /// Whether several spans of one trace have the same id.
    fn has_shared_ids(&self, nodes: &[Node]) -> bool {
        match self {
            Directory::Few => nodes.iter().enumerate().any(|(index, node)| {
                node.span.is_some() && nodes[..index].iter().any(|other| other.place() == node.place())
            }),
            Directory::Sorted(by_span) => {
                by_span.windows(2).any(|two| nodes[two[0]].place() == nodes[two[1]].place())
            }
        }
    }

    /// Where a span is, given its trace; of several with one id the one that is a parent to others.
    fn find(&self, nodes: &[Node], wanted: (u16, SpanId)) -> Option<usize> {
        if !wanted.1.is_some() {
            return None;
        }
        match self {
            Directory::Few => {
                let named = nodes.iter().enumerate().filter(|(_, node)| node.place() == wanted);
                let best = named.min_by(|(_, a), (_, b)| a.as_parent().cmp(&b.as_parent()));
                best.map(|(index, _)| index)
            }
            Directory::Sorted(by_span) => {
                let first = by_span.partition_point(|&index| nodes[index].place() < wanted);
                by_span.get(first).copied().filter(|&index| nodes[index].place() == wanted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::time::EventTime;

    fn node((member, span, kind, origin): (u16, u64, u8, u32)) -> Node {
        let kinds = [Kind::Internal, Kind::Server, Kind::Client, Kind::Producer, Kind::Consumer];
        let kind = kinds[usize::from(kind)];
        let [start, end] = [1, 2].map(EventTime::from_unix_nanoseconds);
        let (span, parent, flags) = (SpanId(span), SpanId::NONE, Flags::default());
        Node { span, parent, start, end, origin, member, stage: 0, kind, flags, counts: true }
    }

    proptest! {
        #[test]
        fn a_span_is_found_among_few_and_among_many(
            nodes in prop::collection::vec((0_u16..3, 0_u64..6, 0_u8..5, 0_u32..3).prop_map(node), 0..60),
        ) {
            let sorted = Directory::sorted(&nodes);
            for wanted in (0..3).flat_map(|member| (0..7).map(move |span| (member, SpanId(span)))) {
                let few = Directory::Few.find(&nodes, wanted).map(|place| nodes[place]);
                prop_assert_eq!(few, sorted.find(&nodes, wanted).map(|place| nodes[place]));
            }
        }
    }
}
