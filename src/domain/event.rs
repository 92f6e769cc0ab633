//! One observation of an instance: a span (an interval) or a push (a point).
//!
//! An [`Event`] is small and many; what many events share (the service, what the flows' rules say about it) is its
//! [`Facts`], interned by whoever maps wire types. The identity rules of repeated events live here and nowhere else.

mod stored;

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::footprint::{self, Held};
use super::ids::{FlowId, Key, SpanId};
use super::joining::Joint;
use super::time::EventTime;

/// How an event takes part in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A span of kind INTERNAL, or of none that we know.
    Internal,
    /// A span that serves a remote call: an entry to its stage.
    Server,
    /// A span that waits for a remote call.
    Client,
    /// A span that puts work on a queue.
    Producer,
    /// A span that takes work off a queue: an entry to its stage.
    Consumer,
    /// A push: a point in time, always an entry to its stage.
    Push,
}

impl Kind {
    /// Whether it is the kind of a span that enters its stage whatever its parent is: it serves a call, or takes work off a queue.
    pub fn is_entry(self) -> bool {
        matches!(self, Kind::Server | Kind::Consumer)
    }
}

/// One observation of an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Latest moment it covers. Compared first: of two events with one identity the later end wins.
    pub end: EventTime,
    /// Earliest moment it covers; equal to `end` for a push. Never after `end`.
    pub start: EventTime,
    /// Its span id; none for a push.
    pub span: SpanId,
    /// The span id of its parent, or none.
    pub parent: SpanId,
    /// How it takes part in its trace.
    pub kind: Kind,
    /// What else the sender said about it.
    pub flags: Flags,
    /// What it shares with many others.
    pub facts: Arc<Facts>,
    /// Which of the traces of its instance it is in; 0 where there is only one.
    pub member: u16,
}

/// An event and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// What its instance is found by.
    pub key: Key,
    /// The event.
    pub event: Event,
    /// What it says about where its trace belongs.
    pub joints: Box<[Joint]>,
}

impl Incoming {
    /// An event that belongs to the instance found by `key` and to nothing else.
    pub fn new(key: Key, event: Event) -> Self {
        Incoming { key, event, joints: Box::default() }
    }
}

/// One-bit properties of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Flags(u8);

impl Flags {
    /// Its status is error.
    pub const ERROR: Flags = Flags(1);
    /// `Span.flags` says that its parent is in the same process.
    pub const PARENT_IS_LOCAL: Flags = Flags(2);
    /// A push with `final: true`.
    pub const FINAL: Flags = Flags(4);
    /// An `ignore` condition holds: it keeps its place in the trace, but is no event of any flow.
    pub const IGNORED: Flags = Flags(8);
    /// It was sent with its end before its start.
    pub const SKEWED: Flags = Flags(16);
    /// A copy for a flow that is `also` there: its home is elsewhere, and it is counted there.
    pub const COPY: Flags = Flags(32);
    /// A PRODUCER that links to the spans that made what it sends: whoever takes that up is linked to those.
    pub const FORWARDS: Flags = Flags(64);

    /// Both sets of properties.
    #[must_use]
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// `self` when `condition` holds, else no property.
    #[must_use]
    pub fn when(self, condition: bool) -> Flags {
        if condition { self } else { Flags(0) }
    }

    /// Whether every property of `other` is set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What many events share: where they come from, and what the rules of each flow say about them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Facts {
    /// `service.name`; for a push, its stage. Part of the event's identity.
    pub service: Arc<str>,
    /// What [`Self::origin_of`] makes of that.
    pub origin: u32,
    /// The span's name, for people; empty for a push.
    pub name: Arc<str>,
    /// Of how many traces the sampler let none through: the rejection threshold of OpenTelemetry's consistent
    /// probability sampling, in units of 2^-56. 0: it said nothing, or let all through.
    pub threshold: u64,
    /// What the event matches.
    pub matches: Matches,
    /// What it matches by the configs before this one under which instances may have been opened.
    pub matched_before: Box<[(u32, Matches)]>,
    /// What each flow's rules say, sorted by flow id; empty for a push.
    pub views: Box<[(FlowId, View)]>,
    /// Set for pushes only.
    pub push: Option<Box<PushFacts>>,
    /// What all this takes; [`Facts::shared`] fills it in.
    pub held: Held,
}

/// What an event matches by the config of one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Matches {
    /// The first flow in file order.
    pub first: Option<FlowId>,
    /// The flows that are `also` there: each with the id of its first version.
    pub also: Box<[(FlowId, FlowId)]>,
}

/// What one flow's rules say about an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct View {
    /// The step of the flow that it belongs to.
    pub stage: Arc<str>,
    /// Whether the `when` of the flow's `start` holds.
    pub start: bool,
    /// Bit k is set when the `when` of the flow's k-th `end` alternative holds.
    pub ends: u32,
    /// Whether the flow's `error_if` holds; `None` when the flow has none.
    pub error: Option<bool>,
    /// Its candidate for each label the flow declares.
    pub labels: Box<[Option<Arc<str>>]>,
}

/// What only a push says.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PushFacts {
    /// The flow it names.
    pub flow: FlowId,
    /// The id of that flow's first version.
    pub home: FlowId,
    /// How that flow sees it.
    pub view: View,
    /// How earlier versions see it of which instances may be open.
    pub earlier: Box<[(FlowId, View)]>,
    /// Its labels, for flows that pushes create: by name, names unique.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Quiet period from this event on; `None` takes the flow's.
    pub life_span: Option<Duration>,
    /// How long its instance's tombstone lives.
    pub time_to_live: Duration,
}

impl Facts {
    /// To be shared by events; what it takes is counted from now on, until the last of them has gone.
    pub fn shared(self) -> Arc<Facts> {
        let held = Held::new(self.bytes());
        Arc::new(Facts { held, ..self })
    }

    /// What it takes in memory, in bytes, while it is shared.
    pub fn bytes_held(&self) -> usize {
        self.held.bytes()
    }

    /// With all its texts, though others may share them: rather too much than too little.
    fn bytes(&self) -> usize {
        const COUNTS: usize = 16;
        let matches = |matches: &Matches| footprint::array::<(FlowId, FlowId)>(matches.also.len());
        let view = |view: &View| {
            footprint::array::<Option<Arc<str>>>(view.labels.len())
                + footprint::texts(view.labels.iter().flatten().chain([&view.stage]), &[&self.service])
        };
        let push = |push: &PushFacts| {
            let labels: usize = push
                .labels
                .iter()
                .map(|(name, value)| footprint::texts([name, value].into_iter(), &[]))
                .sum();
            footprint::array::<PushFacts>(1)
                + view(&push.view)
                + footprint::array::<(FlowId, View)>(push.earlier.len())
                + push.earlier.iter().map(|(_, earlier)| view(earlier)).sum::<usize>()
                + footprint::array::<(Arc<str>, Arc<str>)>(push.labels.len())
                + labels
        };
        footprint::allocated(COUNTS + size_of::<Facts>())
            + footprint::text(&self.service)
            + footprint::text(&self.name)
            + matches(&self.matches)
            + footprint::array::<(u32, Matches)>(self.matched_before.len())
            + self.matched_before.iter().map(|(_, before)| matches(before)).sum::<usize>()
            + footprint::array::<(FlowId, View)>(self.views.len())
            + self.views.iter().map(|(_, of_flow)| view(of_flow)).sum::<usize>()
            + self.push.as_deref().map_or(0, push)
    }

    /// Tells services apart, and stages of pushed flows: half a hash of the service, or of the stage and the flow.
    pub fn origin_of(service: &str, pushed_to: Option<FlowId>) -> u32 {
        let mut hasher = DefaultHasher::new();
        service.hash(&mut hasher);
        pushed_to.hash(&mut hasher);
        (hasher.finish() >> 32) as u32
    }

    /// The first flow that the event matches, for an instance that was opened under the config of this generation: a
    /// trace's own, or (the id of its first version) that of a flow that is `also` there.
    pub fn matched_through(&self, lens: Option<FlowId>, generation: u32) -> Option<FlowId> {
        // Most of the time there has been no other config for a while.
        let before = match &*self.matched_before {
            [] => None,
            before => before.iter().find(|(before, _)| *before == generation),
        };
        let matches = before.map_or(&self.matches, |(_, matches)| matches);
        match lens {
            None => matches.first,
            Some(lens) => matches.also.iter().find(|(home, _)| *home == lens).map(|(_, flow)| *flow),
        }
    }

    /// The version of its flow that a push names, for an instance that was opened under the config of this generation.
    pub fn pushed_to(&self, generation: u32) -> Option<FlowId> {
        let push = self.push.as_deref()?;
        let earlier = push.earlier.iter().map(|(flow, _)| *flow);
        let known = earlier.chain([push.flow]).filter(|flow| flow.generation <= generation);
        Some(known.max_by_key(|flow| flow.generation).unwrap_or(push.flow))
    }

    /// What `flow` says about an event with these facts; `None` for a push to another flow.
    pub fn view(&self, flow: FlowId) -> Option<&View> {
        match &self.push {
            Some(push) if push.flow == flow => Some(&push.view),
            Some(push) => push.earlier.iter().find(|(earlier, _)| *earlier == flow).map(|(_, view)| view),
            None => {
                // Most of the time one flow has something to say.
                if let [(only, view)] = &*self.views {
                    return (*only == flow).then_some(view);
                }
                let place = self.views.binary_search_by_key(&flow, |(flow, _)| *flow).ok()?;
                Some(&self.views[place].1)
            }
        }
    }
}

/// What tells the events of one instance apart, in a size that can be kept of every event. Services and pushed flows are
/// told apart by half a hash, which is plenty beside a span id or among the stages of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    span: SpanId,
    kind: Kind,
    origin: u32,
    is_final: bool,
}

impl Identity {
    /// Of an event with this span id, kind, [`Facts::origin`] and flags.
    pub fn new(span: SpanId, kind: Kind, origin: u32, flags: Flags) -> Self {
        Identity { span, kind, origin, is_final: kind == Kind::Push && flags.has(Flags::FINAL) }
    }
}

impl Event {
    /// What tells it apart from the other events of its instance.
    pub fn identity(&self) -> Identity {
        Identity::new(self.span, self.kind, self.facts.origin, self.flags)
    }

    /// Whether both are reports of the same thing: for spans (span id, kind, service), for pushes (flow, stage, final).
    pub fn same_identity(&self, other: &Event) -> bool {
        let same_push = || {
            let flow = |event: &Event| event.facts.push.as_ref().map(|push| push.home);
            flow(self) == flow(other) && self.flags.has(Flags::FINAL) == other.flags.has(Flags::FINAL)
        };
        self.span == other.span
            && self.kind == other.kind
            && (self.kind != Kind::Push || same_push())
            && (Arc::ptr_eq(&self.facts, &other.facts) || self.facts.service == other.facts.service)
    }

    /// Whether this event replaces `other`, which has the same identity. The choice depends on their content only,
    /// never on which came first: of spans the later end wins, then the earlier start, of pushes the earlier time.
    pub fn replaces(&self, other: &Event) -> bool {
        let by_length = || self.end.cmp(&other.end).then(other.start.cmp(&self.start));
        match self.kind {
            Kind::Push => self < other,
            _ => by_length().then_with(|| self.cmp(other)) == Ordering::Greater,
        }
    }
}
