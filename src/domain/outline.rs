//! The shape of an instance: its events, which stages were entered, what is still missing.
//!
//! An [`Outline`] is what remains of an instance's events when it is folded to a stub, and is built from the events
//! themselves while they are kept; both are then judged by the same [`Outline::seen`].

mod family;
mod stored;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use smallvec::smallvec;

use super::critical_path::{CriticalPath, Spent, Step, Timed, critical_path};
use super::event::{Event, Flags, Identity, Kind, View};
use super::few::Few;
use super::flow::{Boundary, Flow, Measure};
use super::footprint;
use super::ids::SpanId;
use super::result::{PathStep, Skew, Transition};
use super::skew::{Edge, Misplaced, align, is_misplaced};
use super::summary::told;
use super::time::EventTime;
pub use family::Family;

/// One event, without what is shared and without what it says for labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its span id; none for a push.
    pub span: SpanId,
    /// Its parent's span id, or none.
    pub parent: SpanId,
    /// Earliest moment.
    pub start: EventTime,
    /// Latest moment.
    pub end: EventTime,
    /// What tells its service apart from others, as in [`Facts`](super::event::Facts).
    pub origin: u32,
    /// Which of the traces of its instance it is in; 0 where there is only one.
    pub member: u16,
    /// Index into the outline's list of stages.
    pub stage: u16,
    /// How it takes part in its trace.
    pub kind: Kind,
    /// What else the sender said.
    pub flags: Flags,
    /// Whether it is an event of the flow, not only a link between others.
    pub counts: bool,
}

/// The shape of an instance as seen by one flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    nodes: Vec<Node>,
    /// Where each identity is; only for outlines too large to search one by one.
    #[expect(clippy::box_collection, reason = "most have none, and are kept by the million")]
    index: Option<Box<HashMap<Identity, usize>>>,
    has_root: bool,
    stages: Vec<Arc<str>>,
    /// Sorted.
    handovers: Vec<Handover>,
    signals: Signals,
    /// Events beyond the cap are not in `nodes`: who is missing can no longer be told.
    overflowed: bool,
}

/// A link between two traces of one instance: a span took up what another had handed over. Each end is a trace of the
/// instance and a span in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handover {
    /// Who took it up.
    pub to: (u16, SpanId),
    /// Who handed it over.
    pub from: (u16, SpanId),
}

impl Handover {
    /// Stands for a trace that is not at hand.
    pub const ELSEWHERE: u16 = u16::MAX;

    /// A span of the only trace took up work of a trace that is not at hand.
    pub fn from_elsewhere(span: SpanId) -> Self {
        Handover { to: (0, span), from: (Self::ELSEWHERE, SpanId::NONE) }
    }
}

/// A critical path with its stages, and what was odd about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StagePath {
    /// From the end to the start; the events and stages are places in the outline, or the stages in the summary where the
    /// events are not known.
    pub steps: Vec<PathStep>,
    /// Where clocks disagree, each in which trace.
    pub skews: Vec<(u16, Skew)>,
    /// Parents that led in a circle.
    pub cycles: u64,
}

/// What single events say about the flow as a whole. Joining is idempotent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Signals {
    start: bool,
    ends: u32,
    ends_in_error: u32,
    finals: bool,
    push_error: bool,
    error_if: bool,
    has_error_if: bool,
    pushes: bool,
    spans: bool,
}

/// How far an instance has come, by the words of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What the flow requires has begun; true when it requires nothing.
    pub started: bool,
    /// Bit k: the k-th `end` alternative has been seen.
    pub ends: u32,
    /// A push said that it is the last.
    pub finals: bool,
    /// Bit k: the k-th expected stage has been seen.
    pub expected: u64,
    /// The span without a parent that starts first; without one, the earliest whose parent is missing.
    pub root: Option<Node>,
    /// Whether a push has come.
    pub pushes: bool,
    /// Whether a span has come.
    pub spans: bool,
    /// Whose parent has not come.
    pub missing_parent: MissingParent,
    /// A PRODUCER span has no consumer yet.
    pub unanswered: bool,
    /// A span is linked to a trace of which nothing has come.
    pub awaits_link: bool,
    /// `error_if` holds, or what stands in for it.
    pub error: bool,
}

/// Through how many events that do not count an event is looked for inside of which another one happened.
const MAX_IGNORED: usize = 64;

/// The strongest hold among events whose parent has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingParent {
    /// All parents are there.
    None,
    /// One is missing that may be in another process, and may be lost.
    Remote,
    /// One is missing that is in the same process, and so is still running.
    Local,
}

impl Outline {
    /// What it takes in memory beside itself, in bytes.
    pub fn bytes(&self) -> usize {
        footprint::array::<Node>(self.nodes.capacity())
            + self.index.as_ref().map_or(0, |index| {
                footprint::array::<HashMap<Identity, usize>>(1)
                    + footprint::table::<Identity, usize>(index.capacity())
            })
            + footprint::array::<Arc<str>>(self.stages.capacity())
            + footprint::array::<Handover>(self.handovers.capacity())
    }

    /// How many events beyond the cap are kept of a trace of which it is not known yet what it is.
    pub const MOST_BEYOND: usize = 64;
    /// How many distinct stages one instance may have beside [`Self::FURTHER_STAGES`].
    pub const MAX_STAGES: usize = 256;
    /// The stage that stands for all that found no room.
    pub const FURTHER_STAGES: &str = "(further stages)";
    /// From this many events on, an index finds repeated ones.
    const INDEX_FROM: usize = 32;

    /// The shape of `events` as `flow` sees them; `is_cut`: there may be more.
    pub fn of(flow: &Flow, events: &[Event], is_cut: bool) -> Self {
        let nodes = Vec::with_capacity(events.len());
        let mut outline = Outline { nodes, overflowed: is_cut, ..Outline::default() };
        for event in events {
            outline.push(flow, event);
        }
        outline
    }

    /// Gives back the room that it does not need, to be kept for long.
    pub fn shrink_to_fit(&mut self) {
        self.nodes.shrink_to_fit();
        self.stages.shrink_to_fit();
    }

    /// The same with links between the traces.
    #[must_use]
    pub fn with_handovers(mut self, mut handovers: Vec<Handover>) -> Self {
        handovers.sort_unstable();
        handovers.dedup();
        self.handovers = handovers;
        self
    }

    /// Adds an event that is not in the outline yet.
    pub fn push(&mut self, flow: &Flow, event: &Event) {
        let node = self.node(flow, event);
        self.add(node);
    }

    /// Notes one more link.
    pub fn add_handover(&mut self, handover: Handover) {
        if let Err(place) = self.handovers.binary_search(&handover) {
            self.handovers.insert(place, handover);
        }
    }

    /// Takes in the outline of a whole trace, as one more trace of the instance.
    pub fn absorb(&mut self, member: u16, other: &Outline) {
        let stages: Vec<u16> = other.stages.iter().map(|stage| self.stage_index(stage)).collect();
        for node in &other.nodes {
            let stage = stages.get(usize::from(node.stage)).copied().unwrap_or_default();
            self.add(Node { member, stage, ..*node });
        }
        self.signals.merge(other.signals);
        self.overflowed |= other.overflowed;
    }

    /// Takes in what an event beyond the cap says, without keeping a place for it, unless it is the first root, or the first
    /// that enters its stage, or does so in error: what the flow waits for may come last.
    pub fn push_beyond_cap(&mut self, flow: &Flow, event: &Event, cap: usize) {
        self.overflowed = true;
        let node = self.node(flow, event);
        // All of them that were kept beyond the cap are among the last, and so are not searched for among all.
        let most = 2 * self.stages.len() + 1;
        let last = || self.nodes.iter().rev().take(most);
        let says_the_same =
            |known: &Node| known.enters_as(&node) && (known.is_in_error() || !node.is_in_error());
        // One that is replaced later may say something else then.
        let has_room = self.nodes.len() <= cap + Self::MOST_BEYOND + most;
        let is_entry = has_room && node.counts && node.enters_alone() && !last().any(says_the_same);
        if is_entry || (node.is_root() && !self.has_root) {
            self.add(node);
        }
    }

    fn add(&mut self, node: Node) {
        self.has_root |= node.is_root();
        if let Some(index) = &mut self.index {
            index.insert(node.identity(), self.nodes.len());
        }
        self.nodes.push(node);
    }

    /// The place of the event with the same identity, if it is in the outline.
    pub fn find(&mut self, event: &Event) -> Option<usize> {
        let identity = event.identity();
        if self.nodes.len() < Self::INDEX_FROM {
            return self.nodes.iter().position(|node| node.identity() == identity);
        }
        let nodes = &self.nodes;
        let index = self.index.get_or_insert_with(|| {
            Box::new(nodes.iter().enumerate().map(|(place, node)| (node.identity(), place)).collect())
        });
        index.get(&identity).copied()
    }

    /// What is known of the event at a place.
    pub fn at(&self, place: usize) -> &Node {
        &self.nodes[place]
    }

    /// Puts another report of an event in the place of the one that is known.
    pub fn replace(&mut self, place: usize, flow: &Flow, event: &Event) {
        self.nodes[place] = self.node(flow, event);
    }

    /// The stages, as nodes and steps of the critical path number them.
    pub fn stages(&self) -> &[Arc<str>] {
        &self.stages
    }

    /// The same, of an outline that is needed no longer.
    pub fn into_stages(self) -> Vec<Arc<str>> {
        self.stages
    }

    /// Number of events that have a place.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no event has a place.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn node(&mut self, flow: &Flow, event: &Event) -> Node {
        let view = event.facts.view(flow.id).filter(|_| !event.flags.has(Flags::IGNORED));
        if let Some(view) = view {
            self.signals.join(flow, event, view);
        }
        // Those that are no events of the flow are there all the same.
        self.signals.pushes |= event.kind == Kind::Push;
        self.signals.spans |= event.kind != Kind::Push;
        let stage = view.map_or(0, |view| self.stage_index(&view.stage));
        Node {
            span: event.span,
            parent: event.parent,
            start: event.start,
            end: event.end,
            origin: event.facts.origin,
            member: event.member,
            stage,
            kind: event.kind,
            flags: event.flags,
            counts: view.is_some(),
        }
    }

    fn stage_index(&mut self, stage: &Arc<str>) -> u16 {
        let known = self.stages.iter().position(|known| Arc::ptr_eq(known, stage) || known == stage);
        let index = known.unwrap_or_else(|| {
            let name =
                if self.stages.len() < Self::MAX_STAGES { stage } else { &Arc::from(Self::FURTHER_STAGES) };
            if self.stages.len() <= Self::MAX_STAGES {
                self.stages.push(Arc::clone(name));
            }
            self.stages.len() - 1
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    fn progress(&self, family: &Family, flow: &Flow) -> Progress {
        let root = family.root(&self.nodes).map(|index| self.nodes[index]);
        let (entered, entered_in_error) =
            if flow.names_stages() { self.entered(family) } else { Default::default() };
        let in_stages = |name: &Arc<str>, flags: &[bool]| {
            self.stages.iter().zip(flags).any(|(stage, flag)| *flag && stage == name)
        };
        let mut ends = self.signals.ends;
        let mut ends_in_error = self.signals.ends_in_error;
        for (bit, alternative) in flow.ends.iter().enumerate() {
            if let Some(stage) = stage_alone(&alternative.boundary) {
                ends |= u32::from(in_stages(stage, &entered)) << bit;
                ends_in_error |= u32::from(in_stages(stage, &entered_in_error)) << bit;
            }
            if alternative.is_error {
                ends_in_error |= ends & (1 << bit);
            }
        }
        let expected = (flow.expect.iter().enumerate())
            .fold(0, |bits, (bit, stage)| bits | u64::from(in_stages(stage, &entered)) << bit);
        let started = match &flow.start {
            None => true,
            Some(boundary) => {
                self.signals.start || stage_alone(boundary).is_some_and(|stage| in_stages(stage, &entered))
            }
        };
        Progress {
            started,
            ends,
            finals: self.signals.finals,
            expected,
            root,
            pushes: self.signals.pushes,
            spans: self.signals.spans,
            // Whose parent was dropped is not missing; the root never is dropped, and comes last.
            missing_parent: if self.overflowed && self.has_root {
                MissingParent::None
            } else {
                family.missing
            },
            unanswered: !self.overflowed && family.unanswered(&self.nodes),
            awaits_link: false,
            error: self.error(root, ends_in_error, flow),
        }
    }

    /// Of each stage: whether it was entered, and whether by an event in error.
    fn entered(&self, family: &Family) -> (Vec<bool>, Vec<bool>) {
        let mut entered = vec![false; self.stages.len()];
        let mut entered_in_error = vec![false; self.stages.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            if node.counts && family.is_entry(&self.nodes, index) {
                entered[usize::from(node.stage)] = true;
                entered_in_error[usize::from(node.stage)] |= node.is_in_error();
            }
        }
        (entered, entered_in_error)
    }

    fn error(&self, root: Option<Node>, ends_in_error: u32, flow: &Flow) -> bool {
        let ended_as_error = (flow.ends.iter().enumerate())
            .any(|(bit, alternative)| alternative.is_error && ends_in_error & (1 << bit) != 0);
        let by_status = if self.signals.has_error_if {
            self.signals.error_if
        } else {
            ends_in_error != 0 || root.is_some_and(|root| root.counts && root.flags.has(Flags::ERROR))
        };
        by_status || ended_as_error || self.signals.push_error
    }

    /// The critical path of a latency. The events must be in an order that depends on their content only.
    pub fn critical_path(&self, family: &Family, flow: &Flow, from: EventTime, to: EventTime) -> StagePath {
        let counting = self.counting();
        let node = |place: usize| counting.node(place);
        let stage = |place: usize| &self.stages[usize::from(self.nodes[node(place)].stage)];
        let mut timed = self.timed(family, &counting);
        let ends_flow = |place: &usize| {
            let in_end_stage = flow.ends.iter().any(|end| end.boundary.stage.as_ref() == Some(stage(*place)));
            (in_end_stage, timed[*place].end == to, *place)
        };
        let root = || family.root(&self.nodes).and_then(|root| counting.place(root));
        let by_root = if flow.measure == Measure::Root { root() } else { None };
        let at_the_end = |place: &usize| timed[*place].end == to || timed[*place].start == to;
        let last = by_root.or_else(|| (0..timed.len()).filter(at_the_end).max_by_key(ends_flow));
        let skews = self.align(flow, &counting, &mut timed);
        let path = match last {
            Some(last) => critical_path(&timed, last, from, to),
            None => CriticalPath { steps: smallvec![Step { from, to, spent: Spent::Unknown }], cycles: 0 },
        };
        let whose = |place: usize| (self.nodes[node(place)].stage, Some(node(place)));
        StagePath { steps: told(&path.steps, whose), skews, cycles: path.cycles }
    }

    /// Where clocks disagree, each in which trace.
    pub fn skews(&self, family: &Family, flow: &Flow) -> Vec<(u16, Skew)> {
        let counting = self.counting();
        self.align(flow, &counting, &mut self.timed(family, &counting))
    }

    fn counting(&self) -> Counting {
        if self.nodes.iter().all(|node| node.counts) {
            return Counting::All(self.nodes.len());
        }
        Counting::These((0..self.nodes.len()).filter(|&node| self.nodes[node].counts).collect())
    }

    /// When the events of the flow were at work, and which has caused which.
    fn timed(&self, family: &Family, counting: &Counting) -> Few<Timed> {
        let calls = family.calls(&self.nodes);
        let parent_of = |node: usize| {
            let call = calls.as_ref().and_then(|calls| calls.of_served(&self.nodes, node));
            call.or_else(|| family.parent(node))
        };
        let is_asynchronous = |parent: usize, node: usize| {
            (self.nodes[parent].kind, self.nodes[node].kind) == (Kind::Producer, Kind::Consumer)
        };
        // What does not count stands between others all the same, but not between what waits and what is not waited for.
        let enclosing = |node: usize| {
            let mut inner = node;
            for _ in 0..MAX_IGNORED {
                let parent = parent_of(inner)?;
                match counting.place(parent) {
                    Some(place) => return Some((place, is_asynchronous(parent, inner))),
                    None if is_asynchronous(parent, inner) => return None,
                    None => inner = parent,
                }
            }
            None
        };
        let timed = |place: usize| {
            let node = counting.node(place);
            let end = self.nodes[node].end;
            let parent = enclosing(node);
            let taken = family.taken(&self.nodes, node).and_then(|from| counting.place(from));
            let (place, is_asynchronous) = parent.or_else(|| Some((taken?, true))).unzip();
            Timed {
                start: self.work_start(family, node).min(end),
                end,
                parent: place,
                is_asynchronous: is_asynchronous.unwrap_or_default(),
                cause: taken.or(parent.map(|(parent, _)| parent)),
            }
        };
        (0..counting.len()).map(timed).collect()
    }

    /// Moves what lies outside of the call that it served; returns what that was.
    fn align(&self, flow: &Flow, counting: &Counting, timed: &mut [Timed]) -> Vec<(u16, Skew)> {
        let node = |place: usize| &self.nodes[counting.node(place)];
        // Most clocks agree, and nothing need be moved.
        let is_moved = |place: usize| {
            timed[place].parent.is_some_and(|parent| {
                edge(node(parent), node(place)) == Edge::Served && is_misplaced(&timed[parent], &timed[place])
            })
        };
        if !(0..timed.len()).any(is_moved) {
            return Vec::new();
        }
        let parents: Vec<Option<usize>> = timed.iter().map(|span| span.parent).collect();
        let edge =
            |place: usize| parents[place].map_or(Edge::Other, |parent| edge(node(parent), node(place)));
        let misplaced = align(timed, edge, flow.max_clock_skew);
        let skew = |misplaced: &Misplaced| {
            let from = parents[misplaced.span].unwrap_or(misplaced.span);
            let [from, to] = [from, misplaced.span].map(node);
            let stage = |node: &Node| Arc::clone(&self.stages[usize::from(node.stage)]);
            let (nanoseconds, corrected) = (misplaced.nanoseconds, misplaced.moved);
            (to.member, Skew { from: stage(from), to: stage(to), nanoseconds, corrected, is_shared: false })
        };
        misplaced.iter().map(skew).collect()
    }

    /// The longest way between each two stages: over queues, and from push to push.
    pub fn transitions(&self, family: &Family) -> Vec<Transition> {
        let mut longest: BTreeMap<(u16, u16), u64> = BTreeMap::new();
        let mut note = |from: &Node, to: &Node, nanoseconds: u64| {
            let known = longest.entry((from.stage, to.stage)).or_default();
            *known = nanoseconds.max(*known);
        };
        // Most traces have no queue and no push, and need not be looked at for more.
        let has_queues =
            !self.handovers.is_empty() || self.nodes.iter().any(|node| node.kind == Kind::Producer);
        if !has_queues && !self.signals.pushes {
            return Vec::new();
        }
        if has_queues {
            for (from, to) in family.queues(&self.nodes) {
                let (from, to) = (&self.nodes[from], &self.nodes[to]);
                if from.counts && to.counts {
                    note(from, to, to.start.nanoseconds_since(from.end));
                }
            }
        }
        let is_push = |node: &&Node| node.kind == Kind::Push && node.counts;
        let mut pushes: Vec<&Node> =
            if self.signals.pushes { self.nodes.iter().filter(is_push).collect() } else { Vec::new() };
        pushes.sort_by_key(|push| (push.start, &self.stages[usize::from(push.stage)]));
        for pair in pushes.windows(2).filter(|pair| pair[0].stage != pair[1].stage) {
            note(pair[0], pair[1], pair[1].start.nanoseconds_since(pair[0].start));
        }
        let name = |stage: u16| Arc::clone(&self.stages[usize::from(stage)]);
        let transition =
            |((from, to), nanoseconds)| Transition { from: name(from), to: name(to), nanoseconds };
        let mut transitions: Vec<Transition> = longest.into_iter().map(transition).collect();
        transitions.sort_by(|a, b| (&a.from, &a.to).cmp(&(&b.from, &b.to)));
        transitions
    }

    /// Who is whose parent, as things stand, and how far the instance has come by that.
    pub fn seen(&self, flow: &Flow) -> (Family, Progress) {
        let family = Family::of(&self.nodes, &self.handovers);
        let progress = self.progress(&family, flow);
        (family, progress)
    }

    /// From when on the event at `place` had work to do.
    fn work_start(&self, family: &Family, place: usize) -> EventTime {
        let node = &self.nodes[place];
        let first = family.taken_by(place).map(|from| self.nodes[from].start).min();
        let producer = family.parent(place).filter(|_| node.kind == Kind::Consumer);
        match (first, producer) {
            (Some(first), _) => node.start.max(first),
            (None, Some(producer)) => self.nodes[producer].clips(node.start),
            (None, None) => node.start,
        }
    }

    /// Whether the start of an event has to be looked up: a CONSUMER may have polled long before there was work.
    pub fn may_have_waited(&self, event: &Event) -> bool {
        let is_consumer = event.kind == Kind::Consumer && event.parent.is_some();
        is_consumer || self.took_up(event)
    }

    /// Whether an event took up work over a link, from a trace that is at hand or not.
    pub fn took_up(&self, event: &Event) -> bool {
        self.handovers_to(event).next().is_some()
    }

    fn handovers_to(&self, event: &Event) -> impl Iterator<Item = &Handover> {
        let to = (event.member, event.span);
        let first = self.handovers.partition_point(|handover| handover.to < to);
        self.handovers[first..].iter().take_while(move |handover| handover.to == to)
    }

    /// From when on those had work to do that took up work over a link: the start of whoever handed it over first.
    pub fn starts_of_handovers(&self) -> HashMap<(u16, SpanId), EventTime> {
        if self.handovers.is_empty() {
            return HashMap::new();
        }
        let mut starts: HashMap<(u16, SpanId), Option<EventTime>> =
            self.handovers.iter().map(|handover| (handover.from, None)).collect();
        for node in &self.nodes {
            if let Some(start) = starts.get_mut(&(node.member, node.span)) {
                *start = Some(start.map_or(node.start, |known| known.min(node.start)));
            }
        }
        let mut first: HashMap<(u16, SpanId), EventTime> = HashMap::new();
        for handover in &self.handovers {
            if let Some(start) = starts[&handover.from] {
                let known = first.entry(handover.to).or_insert(start);
                *known = start.min(*known);
            }
        }
        first
    }

    /// From when on a CONSUMER, or whoever took up work of another trace, had work to do: the start of whoever made
    /// it, or its own when its parent is no PRODUCER. `None` while neither has come.
    pub fn consumer_start(&self, consumer: &Event) -> Option<EventTime> {
        if !self.took_up(consumer) {
            return self.start_by_parent(consumer);
        }
        let handed_over = self.handovers_to(consumer).map(|handover| handover.from);
        let starts = handed_over.flat_map(|from| {
            let is_origin = move |node: &&Node| (node.member, node.span) == from;
            self.nodes.iter().filter(is_origin).map(|node| node.start)
        });
        starts.min().map(|first| consumer.start.max(first))
    }

    /// The same, by the parent alone.
    pub fn start_by_parent(&self, consumer: &Event) -> Option<EventTime> {
        let is_parent = |node: &&Node| node.place() == (consumer.member, consumer.parent);
        let parents = self.nodes.iter().filter(is_parent).filter(|_| consumer.kind == Kind::Consumer);
        parents.map(|parent| parent.clips(consumer.start)).max()
    }

    /// The same for all consumers at once: by the parent's place, the start of a producer.
    pub fn parents_of_consumers(&self) -> HashMap<(u16, SpanId), Option<EventTime>> {
        let mut parents = HashMap::new();
        if self.nodes.iter().any(|node| node.kind == Kind::Consumer) {
            for node in self.nodes.iter().filter(|node| node.span.is_some()) {
                let producer = (node.kind == Kind::Producer).then_some(node.start);
                let known = parents.entry((node.member, node.span)).or_insert(producer);
                *known = (*known).max(producer);
            }
        }
        parents
    }
}

impl Node {
    /// Whether it is a span without a parent.
    fn is_root(&self) -> bool {
        self.kind != Kind::Push && !self.parent.is_some()
    }

    /// Whether its stage is entered by it, whatever its parent is.
    fn enters_alone(&self) -> bool {
        self.kind == Kind::Push || self.kind.is_entry() || !self.parent.is_some()
    }

    /// Whether the same stage as another one's is entered by it, whatever its parent is.
    fn enters_as(&self, other: &Node) -> bool {
        self.counts && self.stage == other.stage && self.enters_alone()
    }

    fn is_in_error(&self) -> bool {
        self.flags.has(Flags::ERROR)
    }

    /// What tells it apart from the others.
    fn identity(&self) -> Identity {
        Identity::new(self.span, self.kind, self.origin, self.flags)
    }

    /// Its trace and span id.
    fn place(&self) -> (u16, SpanId) {
        (self.member, self.span)
    }

    /// Zipkin-style shared ids: the side that serves is the parent of what happens inside. The lowest is it.
    fn as_parent(&self) -> impl Ord {
        (self.kind != Kind::Server, self.kind, self.identity())
    }

    /// The start of this node's consumer: not before this node's, if it is a PRODUCER.
    fn clips(&self, start: EventTime) -> EventTime {
        if self.kind == Kind::Producer { start.max(self.start) } else { start }
    }
}

impl Signals {
    fn merge(&mut self, other: Signals) {
        *self = Signals {
            start: self.start | other.start,
            ends: self.ends | other.ends,
            ends_in_error: self.ends_in_error | other.ends_in_error,
            finals: self.finals | other.finals,
            push_error: self.push_error | other.push_error,
            error_if: self.error_if | other.error_if,
            has_error_if: self.has_error_if | other.has_error_if,
            pushes: self.pushes | other.pushes,
            spans: self.spans | other.spans,
        };
    }

    fn join(&mut self, flow: &Flow, event: &Event, view: &View) {
        let in_error = event.flags.has(Flags::ERROR);
        let in_stage = |boundary: &Boundary| boundary.stage.as_ref().is_none_or(|stage| *stage == view.stage);
        self.start |= view.start && flow.start.as_ref().is_some_and(in_stage);
        for (bit, alternative) in flow.ends.iter().enumerate() {
            if view.ends & (1 << bit) != 0 && in_stage(&alternative.boundary) {
                self.ends |= 1 << bit;
                self.ends_in_error |= u32::from(in_error) << bit;
            }
        }
        self.error_if |= view.error == Some(true);
        self.has_error_if |= view.error.is_some();
        if event.kind == Kind::Push {
            self.push_error |= in_error;
            self.finals |= event.flags.has(Flags::FINAL);
        }
    }
}

/// What a span has to do with its parent, as far as clocks are concerned. Only a call that another service serves
/// tells whether they agree: its parent waits for it.
fn edge(parent: &Node, node: &Node) -> Edge {
    match (parent.kind, node.kind) {
        (Kind::Client, Kind::Server) if parent.origin != node.origin => Edge::Served,
        _ if parent.origin == node.origin && parent.member == node.member => Edge::SameClock,
        _ => Edge::Other,
    }
}

/// The stage of a boundary that asks for nothing but a stage.
fn stage_alone(boundary: &Boundary) -> Option<&Arc<str>> {
    boundary.stage.as_ref().filter(|_| !boundary.conditional)
}

/// The events of the flow among the nodes of an outline, which are counted by places.
enum Counting {
    /// All nodes, which are so many.
    All(usize),
    /// These nodes.
    These(Vec<usize>),
}

impl Counting {
    fn len(&self) -> usize {
        match self {
            Counting::All(count) => *count,
            Counting::These(nodes) => nodes.len(),
        }
    }

    fn node(&self, place: usize) -> usize {
        match self {
            Counting::All(_) => place,
            Counting::These(nodes) => nodes[place],
        }
    }

    /// `None` for a node that does not count.
    fn place(&self, node: usize) -> Option<usize> {
        match self {
            Counting::All(_) => Some(node),
            Counting::These(nodes) => nodes.binary_search(&node).ok(),
        }
    }
}
