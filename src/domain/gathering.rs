//! The open instances of a group of joined traces, seen as one: when it is over and what it measured.
//!
//! Knows which traces are joined from [`joining`](super::joining), and how an instance is judged from
//! [`completion`]; here both meet. Invariant: the result depends on the events and links of the traces
//! only, not on the order in which traces are added, as long as none of them was folded.

use std::collections::HashMap;
use std::sync::Arc;

use super::completion::{self, Clocks, Verdict};
use super::event::{Event, Flags};
use super::flow::{Flow, Origin};
use super::ids::{FlowId, Key, SpanId, TraceId};
use super::instance::{Body, Instance, Joints, Rules, SeenAs};
use super::joining::Group;
use super::outline::{Handover, Outline, Progress};
use super::result::{Finished, Forecast, Reason};
pub use super::stub::EndingAs;
use super::stub::{Ending, Own, Stub};
use super::summary::{Counts, Extent};
use super::time::Arrival;

/// How a trace takes part in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is part of this instance and of no other.
    Whole,
    /// Some of its spans are: those that belong to the value by which the instance is found.
    Part,
    /// It is the tail of several instances.
    Tail,
}

/// The traces of a group, as `flow` sees them.
#[derive(Debug)]
pub struct Gathering {
    flow: Arc<Flow>,
    key: Key,
    clocks: Option<Clocks>,
    /// When the first of its own traces began, and of those that are parts of it.
    first: [Option<Arrival>; 2],
    events: Vec<Event>,
    /// How each trace takes part, by its number.
    roles: Vec<Role>,
    /// Whether there may be more of them than are known.
    is_cut: bool,
    stubs: Vec<(u16, Stub)>,
    numbers: HashMap<TraceId, u16>,
    traces: Vec<Key>,
    /// Which span took up the work of which span of which trace.
    links: Vec<((u16, SpanId), (TraceId, SpanId))>,
    awaits_link: bool,
    missed_link: bool,
}

/// The flow of a group: that of a trace that was folded, for folding decides; or else the first in file order that a
/// push names; or else the first that an event matches. Of traces that were opened under different configs the one that
/// was opened first decides.
pub fn flow_of(seen: impl Iterator<Item = SeenAs>) -> Option<Arc<Flow>> {
    let rank =
        |seen: &SeenAs| (seen.choice, seen.flow.origin != Origin::Configured, seen.generation, seen.flow.id);
    seen.min_by_key(rank).map(|seen| seen.flow)
}

impl Gathering {
    /// A group without its traces.
    pub fn new(flow: Arc<Flow>, group: &Group) -> Self {
        Gathering {
            flow,
            key: group.key.clone(),
            clocks: None,
            first: [None; 2],
            events: Vec::new(),
            roles: Vec::new(),
            is_cut: false,
            stubs: Vec::new(),
            numbers: HashMap::new(),
            traces: Vec::new(),
            links: Vec::new(),
            awaits_link: group.awaits_link,
            missed_link: group.missed_link,
        }
    }

    /// Adds the open trace found by `key`; the ones that are part of no other instance come first.
    pub fn add(&mut self, key: &Key, instance: &Instance, role: Role) {
        let member = u16::try_from(self.roles.len()).unwrap_or(Handover::ELSEWHERE - 1);
        self.roles.push(role);
        self.traces.push(key.clone());
        self.join_clocks(&instance.clocks(), role);
        self.numbers.extend(key.trace().map(|trace| (trace, member)));
        let joints = instance.joints();
        let links = joints.into_iter().flat_map(Joints::links);
        self.links.extend(links.map(|(span, trace, from)| ((member, span), (trace, from))));
        self.is_cut |= instance.is_cut();
        match (instance.body(), role) {
            (_, Role::Part) => {
                let share = self.share(instance);
                self.events.extend(share.into_iter().map(|event| Event { member, ..event }));
            }
            (Body::Detailed { events }, Role::Whole | Role::Tail) => {
                self.events.extend(events.iter().map(|event| Event { member, ..event.clone() }));
            }
            (Body::Stub(stub), Role::Whole | Role::Tail) => self.stubs.push((member, (**stub).clone())),
        }
    }

    /// An instance is as old as the oldest of its own traces, and last heard of when anything of it was.
    fn join_clocks(&mut self, new: &Clocks, role: Role) {
        let place = match role {
            Role::Whole => Some(0),
            Role::Part => Some(1),
            Role::Tail => None,
        };
        if let Some(place) = place {
            let known = self.first[place].unwrap_or(new.first);
            self.first[place] = Some(known.min(new.first));
        }
        let Some(clocks) = &mut self.clocks else {
            self.clocks = Some(*new);
            return;
        };
        if new.life_span.is_some() && (clocks.life_span.is_none() || new.last >= clocks.last) {
            clocks.life_span = new.life_span;
        }
        clocks.last = clocks.last.max(new.last);
    }

    /// The events of a divided trace that have to do with this instance; those that belong to other values only hold
    /// the rest together.
    fn share(&self, instance: &Instance) -> Vec<Event> {
        let Some((events, division)) = instance.divided() else { return Vec::new() };
        let share = |place: usize| {
            let event = &events[place];
            let belongs = division.home(event.span) == Some(&self.key);
            let flags = event.flags.with(Flags::IGNORED.when(!belongs));
            Event { flags, ..event.clone() }
        };
        division.share(&self.key).map(share).collect()
    }

    fn handovers(&self) -> Vec<Handover> {
        let resolve = |(to, (trace, span)): &((u16, SpanId), (TraceId, SpanId))| {
            Some(Handover { to: *to, from: (*self.numbers.get(trace)?, *span) })
        };
        self.links.iter().filter_map(resolve).collect()
    }

    fn progress(&self) -> Progress {
        let mut outline = Outline::of(&self.flow, &self.events, self.is_cut).with_handovers(self.handovers());
        for (member, stub) in &self.stubs {
            outline.absorb(*member, &stub.outline);
        }
        let (_, progress) = outline.seen(&self.flow);
        Progress { awaits_link: self.awaits_link, ..progress }
    }

    fn clocks(&self) -> Clocks {
        let never = Clocks { first: Arrival::ORIGIN, last: Arrival::ORIGIN, life_span: None };
        let clocks = self.clocks.unwrap_or(never);
        let first = self.first[0].or(self.first[1]).unwrap_or(clocks.first);
        Clocks { first, ..clocks }
    }

    /// Whether it is over at `now`, and else when to look again.
    pub fn judge(&self, now: Arrival) -> Verdict {
        completion::decide(&self.flow, &self.key, &self.progress(), &self.clocks(), now)
    }

    /// What shows at `now` that it has ended, if anything does.
    pub fn ended(&self, now: Arrival) -> Option<Reason> {
        completion::ended(&self.flow, &self.key, &self.progress(), &self.clocks(), now)
    }

    /// Its flow.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// What it would be if it ended now, and what it waits for; none if no flow takes it.
    pub fn forecast(self, now: Arrival, rules: &impl Rules) -> Option<Forecast> {
        let clocks = self.clocks();
        let until = match self.judge(now) {
            Verdict::Wait { until, .. } => until,
            Verdict::Close(_) => now,
        };
        let awaits = completion::awaits(&self.flow, &self.progress());
        let end = End { reason: Reason::Quiet, now, loss: Arrival::ORIGIN, due: now };
        match self.close(end, EndingAs::Forecast, rules).0 {
            Finished::Closed(closed) => Some(Forecast { closed, awaits, clocks, until }),
            Finished::Unmatched { .. } | Finished::Divided { .. } => None,
        }
    }

    /// Ends the group. Also returns what its latency covered in event time.
    pub fn close(mut self, end: End, role: EndingAs, rules: &impl Rules) -> (Finished, Extent) {
        let clocks = self.clocks();
        let flow = Arc::clone(&self.flow);
        let handovers = self.handovers();
        let own = self.own(&handovers);
        let mut stub = Stub::exact(&flow, std::mem::take(&mut self.events), self.is_cut, handovers);
        for (member, folded) in self.stubs {
            stub.absorb(&flow, member, folded);
        }
        if let Some(own) = own {
            stub.observe_only(own);
        }
        let ending = Ending {
            reason: end.reason,
            now: end.now,
            loss: end.loss,
            due: end.due,
            role,
            awaits_link: self.awaits_link,
            missed_link: self.missed_link && role != EndingAs::Tail,
            traces: self.traces,
        };
        stub.conclude(flow, self.key, &clocks, ending, None, rules)
    }

    /// What is to be observed and counted with this instance, if that is not all of it: stages of tails are observed
    /// once, with the tail, and events are counted once, where their trace ends.
    fn own(&self, handovers: &[Handover]) -> Option<Own> {
        if self.roles.iter().all(|role| *role == Role::Whole) {
            return None;
        }
        let role = |member: u16| self.roles[usize::from(member)];
        let mut counts = Counts::default();
        for event in self.events.iter().filter(|event| role(event.member) == Role::Whole) {
            counts.add(&self.flow, event);
        }
        let events = self.events.iter().filter(|event| role(event.member) != Role::Tail).cloned().collect();
        let mut own = Stub::exact(&self.flow, events, self.is_cut, handovers.to_vec());
        for (member, stub) in self.stubs.iter().filter(|(member, _)| role(*member) == Role::Whole) {
            let mut stub = stub.clone();
            stub.settle(&self.flow);
            counts.merge(stub.summary.counts);
            own.absorb(&self.flow, *member, stub);
        }
        own.settle(&self.flow);
        let tails = (0..).zip(&self.roles).filter(|(_, role)| **role == Role::Tail);
        let tails = tails.map(|(member, _)| member).collect();
        Some(Own { stages: own.summary.stages, counts, tails })
    }
}

/// How and when a group ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: Reason,
    /// When.
    pub now: Arrival,
    /// The last time at which events may have been lost.
    pub loss: Arrival,
    /// When it should have been.
    pub due: Arrival,
}

/// The end of a divided trace, after the instances it was part of: its events by what became of them. Events of an
/// instance that was over before are handed out; they came too late for it.
pub fn end_divided(instance: &Instance) -> (Finished, Vec<(Key, Event)>) {
    let empty = Joints::default();
    let joints = instance.joints().unwrap_or(&empty);
    let flow_id = joints.observed_flow.unwrap_or(FlowId::NONE);
    let Some((events, division)) = instance.divided() else {
        let total = instance.events();
        return (Finished::Divided { events: total, unmatched: 0, ignored: 0, skewed: 0 }, Vec::new());
    };
    let (mut observed, mut unmatched, mut ignored, mut skewed) = (0, 0, 0, 0);
    let mut late = Vec::new();
    for event in events.iter().filter(|event| !event.flags.has(Flags::COPY)) {
        let home = division.home(event.span);
        if event.flags.has(Flags::IGNORED) {
            ignored += 1;
        } else if let Some(home) = home.filter(|home| !joints.observed.contains(home)) {
            late.push((home.clone(), event.clone()));
        } else if home.is_some() && event.facts.view(flow_id).is_some() {
            observed += 1;
            skewed += u64::from(event.flags.has(Flags::SKEWED));
        } else {
            unmatched += 1;
        }
    }
    (Finished::Divided { events: observed, unmatched, ignored, skewed }, late)
}
