//! One run of a flow while it is open: takes events in, answers when it is over, and becomes its result.
//!
//! Invariant: the result depends on the set of its events only. Arrival order and repetition decide nothing but
//! when it closes, unless a cap was met.

mod joints;
mod likeness;
mod stored;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::completion::{self, Clocks, Verdict};
use super::event::{Event, Flags, Identity, Kind};
use super::flow::{Flow, Origin};
use super::footprint;
use super::ids::{FlowId, Key};
use super::outline::{Family, Outline, Progress};
use super::result::{Finished, Reason};
use super::stub::{Ending, EndingAs, Stub, sort_by_time};
use super::summary::Extent;
use super::time::Arrival;
use super::tombstone::Tombstone;
pub(super) use joints::Joints;
pub use likeness::Likeness;

/// What an instance has to know of the world around it.
pub trait Rules {
    /// The flow with this id.
    fn flow(&self, id: FlowId) -> Arc<Flow>;
    /// Stands in for the flow of a trace that none has matched yet: default timers, nothing required.
    fn unmatched(&self) -> &Arc<Flow>;
    /// Whether a span can match a configured flow.
    fn spans_may_match(&self) -> bool;
    /// How many events one instance keeps.
    fn events_per_instance(&self) -> usize;
    /// From how many events on an instance that only waits is folded.
    fn fold_from(&self) -> usize;
    /// Of how many events at most the result of an instance has them, to be explained by.
    fn explained_events(&self) -> usize;
    /// How often the config has been reloaded.
    fn generation(&self) -> u32;
}

/// An open instance.
#[derive(Debug)]
pub struct Instance {
    /// The flow it belongs to as far as is known; fixed when it is folded.
    flow: Arc<Flow>,
    /// The configured flow that its own events match or name, as the id of that one's first version.
    matched: Option<FlowId>,
    /// The config under which it was opened, which it keeps to.
    generation: u32,
    /// Whether a push named its flow.
    pinned: bool,
    /// Whether a report that its flow was chosen by may have been replaced.
    flow_is_stale: bool,
    /// When its first event came, and its last new one.
    first: Arrival,
    last: Arrival,
    /// Whether a span has come.
    spans: bool,
    body: Body,
    /// What its spans say about where its trace belongs.
    joints: Option<Box<Joints>>,
    /// What few instances have.
    extra: Option<Box<Extra>>,
    /// The flow that is `also` there and for which this is a view of the trace; that of none otherwise.
    lens: FlowId,
    /// Whether it is known to have taken longer than its users were promised.
    overdue: bool,
    /// Whether anything new has come since [`Self::take_news`].
    has_news: bool,
    /// How often anything has changed that it is judged by.
    changes: u16,
    /// What it took in memory when that was reckoned last.
    weight: u32,
    /// How many events are counted as its own. The aggregator's business, as what follows; kept here to have it in one place.
    pub counted_events: u32,
    /// Whether it is counted as a stub.
    pub counted_as_stub: bool,
    /// When it may be over.
    pub due: Arrival,
    /// The latest moment for which the aggregator has an entry in its calendar.
    pub planned: Arrival,
    /// When the aggregator will look at it next: when it is due, or sooner to see whether it is overdue.
    pub wake: Arrival,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Detailed { events: Vec<Event> },
    Stub(Box<Stub>),
}

/// What only pushes bring, and only large instances need: the size of an instance decides in which size of allocation it
/// finds room.
#[derive(Debug, Default)]
struct Extra {
    /// The quiet period that the last push asked for.
    life_span: Option<Duration>,
    /// The longest time that a push wants its tombstone to live.
    time_to_live: Option<Duration>,
    /// Where each identity is, while events are kept that are too many to search one by one.
    index: Option<HashMap<Identity, usize>>,
    /// Whether it has as many events as it may.
    is_cut: bool,
}

/// Whether an instance of `flow` may be folded: folding decides its flow. A trace that only the built-in flow has taken
/// so far may still turn out to be a configured flow's, for roots come last.
pub fn may_fold(flow: &Flow, rules: &impl Rules) -> bool {
    let by_default = flow.origin == Origin::BuiltIn && rules.spans_may_match();
    flow.id != rules.unmatched().id && !by_default
}

/// What was seen of an instance when it was looked at.
#[derive(Debug)]
pub struct Look {
    outline: Outline,
    family: Family,
    progress: Progress,
}

/// As an instance of which flow an instance is seen.
#[derive(Debug, Clone)]
pub struct SeenAs {
    /// How the flow was chosen.
    pub choice: Choice,
    /// The config under which it was opened.
    pub generation: u32,
    /// The flow.
    pub flow: Arc<Flow>,
}

/// How the flow of an instance was chosen, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// It was folded under it.
    Folded,
    /// A push named it.
    Pinned,
    /// An event matched it, or none has yet.
    Matched,
}

impl Body {
    fn progress(&self, flow: &Flow, is_cut: bool) -> Progress {
        match self {
            Body::Detailed { events } => Outline::of(flow, events, is_cut).seen(flow).1,
            Body::Stub(stub) => stub.outline.seen(flow).1,
        }
    }

    /// Whether it is over at `now`. `look` is what was seen of it, if it was looked at.
    fn verdict(
        &self,
        flow: &Flow,
        look: Option<&Look>,
        is_cut: bool,
        key: &Key,
        clocks: &Clocks,
        now: Arrival,
    ) -> Verdict {
        let progress = look.map_or_else(|| self.progress(flow, is_cut), |look| look.progress);
        completion::decide(flow, key, &progress, clocks, now)
    }
}

/// Puts the events in order and looks at them, if they are there.
fn look(flow: &Flow, body: &mut Body, is_cut: bool) -> Option<Look> {
    let Body::Detailed { events } = body else { return None };
    sort_by_time(events);
    let outline = Outline::of(flow, events, is_cut);
    let (family, progress) = outline.seen(flow);
    Some(Look { outline, family, progress })
}

/// Whether an event is counted with the instance that holds it.
fn is_counted(event: &Event) -> bool {
    !event.flags.has(Flags::COPY)
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is part of the instance now.
    New,
    /// The same, but it matches a flow that comes before the one the instance was folded under.
    NewAfterFolding,
    /// It was there already.
    Duplicate,
    /// Another report of it was there; one of the two remains.
    Conflict,
    /// The instance is full: it counts for bounds and stages, but is not kept.
    OverLimit,
}

/// For how many events at most room is made before they are known to differ.
const MOST_EXPECTED: usize = 64;

/// From this many events on, an index finds repeated ones.
const INDEX_FROM: usize = 32;

impl Instance {
    /// A new instance; its first event has yet to be recorded.
    pub fn new(key: &Key, now: Arrival, rules: &impl Rules) -> Self {
        Instance {
            flow: Arc::clone(rules.unmatched()),
            matched: None,
            generation: rules.generation(),
            pinned: false,
            flow_is_stale: false,
            first: now,
            last: now,
            spans: false,
            body: Body::Detailed { events: Vec::new() },
            joints: None,
            extra: None,
            lens: match key {
                Key::Also { flow, .. } => *flow,
                Key::Trace(_) | Key::Named { .. } => FlowId::NONE,
            },
            overdue: false,
            has_news: false,
            changes: 0,
            weight: 0,
            counted_events: 0,
            counted_as_stub: false,
            due: Arrival::ORIGIN,
            planned: Arrival::ORIGIN,
            wake: Arrival::ORIGIN,
        }
    }

    /// The flow that is `also` there and for which this is a view of the trace.
    fn lens(&self) -> Option<FlowId> {
        Some(self.lens).filter(|lens| *lens != FlowId::NONE)
    }

    /// A number that follows from its first events: whoever asks for it has them in the processor's cache.
    pub fn glance(&self) -> u64 {
        const FIRST: usize = 64;
        match &self.body {
            Body::Detailed { events } => {
                events.iter().take(FIRST).map(|event| event.span.0).fold(0, u64::wrapping_add)
            }
            Body::Stub(stub) => stub.coarsened,
        }
    }

    /// The flow it belongs to as far as is known.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Whether it is folded.
    pub fn is_stub(&self) -> bool {
        matches!(self.body, Body::Stub(_))
    }

    /// Events that it keeps or has joined, without those that are counted elsewhere.
    pub fn events(&self) -> u64 {
        match &self.body {
            Body::Detailed { events } if self.lens().is_none() => events.len() as u64,
            Body::Detailed { events } => events.iter().filter(|event| is_counted(event)).count() as u64,
            Body::Stub(stub) => {
                let waiting = stub.waiting.iter().filter(|event| is_counted(event)).count();
                stub.summary.counts.total() + waiting as u64
            }
        }
    }

    /// What it took in memory when [`Self::weigh`] was called last, in bytes.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Reckons anew what it takes in memory, without the facts that its events share; returns by how much that is more than
    /// before.
    pub fn weigh(&mut self) -> i64 {
        let body = match &self.body {
            Body::Detailed { events } => footprint::array::<Event>(events.capacity()),
            Body::Stub(stub) => stub.bytes(),
        };
        let index = |extra: &Extra| extra.index.as_ref().map_or(0, HashMap::capacity);
        let extra = self.extra.as_ref().map_or(0, |extra| {
            footprint::array::<Extra>(1) + footprint::table::<Identity, usize>(index(extra))
        });
        let joints = self.joints.as_ref().map_or(0, |joints| joints.bytes());
        let before = std::mem::replace(
            &mut self.weight,
            u32::try_from(footprint::array::<Instance>(1) + body + joints + extra).unwrap_or(u32::MAX),
        );
        i64::from(self.weight) - i64::from(before)
    }

    /// Whether it has so many events that it is folded while it only waits.
    pub fn folds_by_size(&self, rules: &impl Rules) -> bool {
        self.len() >= rules.fold_from()
    }

    /// Whether most of what it takes are facts that no other instance shares, so that a stub would take far less.
    pub fn is_mostly_facts(&self) -> bool {
        /// What a stub takes beside its events, roughly.
        const STUB_BYTES: usize = 1024;
        let Body::Detailed { events } = &self.body else { return false };
        let own = events.iter().filter(|event| Arc::strong_count(&event.facts) == 1);
        own.map(|event| event.facts.held.bytes()).sum::<usize>() > self.weight as usize + STUB_BYTES
    }

    /// Whether a stub would take no more than it takes itself: few events take less.
    pub fn outweighs_a_stub(&self) -> bool {
        /// What one takes with its events of a few stages, roughly.
        const STUB_BYTES: u32 = 2048;
        self.weight >= STUB_BYTES
    }

    /// Whether only what it waits for keeps it open: its quiet period has passed.
    pub fn is_held(&self, now: Arrival) -> bool {
        let quiet = self.clocks().life_span.unwrap_or(self.flow.timers.quiet_period);
        self.last.plus(quiet) <= now
    }

    /// Makes room for the first events, so that no more is taken than they need: most instances come in few pieces.
    pub fn expect(&mut self, count: usize) {
        if let Body::Detailed { events } = &mut self.body
            && events.is_empty()
        {
            events.reserve_exact(count.min(MOST_EXPECTED));
        }
    }

    /// Takes an event in.
    pub fn record(&mut self, event: Event, now: Arrival, rules: &impl Rules) -> Recorded {
        self.changes = self.changes.wrapping_add(1);
        if let Some(joints) = &mut self.joints {
            joints.changed();
        }
        if let Some(known) = self.meet(&event) {
            self.flow_is_stale |= known == Recorded::Conflict;
            return known;
        }
        self.has_news = true;
        let is_full = self.len() >= rules.events_per_instance() && !self.finds_room(&event, rules);
        // Pushes beyond the cap do not keep it open, for nothing else would end it.
        if !is_full || event.kind != Kind::Push {
            // A large request may have been on its way for longer than the one before it.
            self.last = self.last.max(now);
        }
        match &event.facts.push {
            Some(push) if !is_full => {
                let extra = self.extra.get_or_insert_default();
                extra.life_span = push.life_span;
                extra.time_to_live = extra.time_to_live.max(Some(push.time_to_live));
            }
            Some(_) => {}
            None => self.spans = true,
        }
        let better = self.consider_flow(&event, rules);
        if is_full {
            return self.record_beyond_cap(&event, rules);
        }
        match &mut self.body {
            Body::Detailed { events } => {
                if let Some(index) = self.extra.as_mut().and_then(|extra| extra.index.as_mut()) {
                    index.insert(event.identity(), events.len());
                }
                events.push(event);
                self.note_cut(rules);
                Recorded::New
            }
            Body::Stub(stub) => {
                let span = event.span;
                let is_linked = self.joints.as_ref().is_some_and(|joints| joints.is_linked(span));
                stub.take(&self.flow, event, is_linked);
                self.note_cut(rules);
                if better { Recorded::NewAfterFolding } else { Recorded::New }
            }
        }
    }

    fn len(&self) -> usize {
        match &self.body {
            Body::Detailed { events } => events.len(),
            Body::Stub(stub) => stub.outline.len(),
        }
    }

    /// Deals with an event that is known already.
    fn meet(&mut self, event: &Event) -> Option<Recorded> {
        match &mut self.body {
            Body::Detailed { events } => {
                let known = if events.len() < INDEX_FROM {
                    events.iter().position(|known| known.same_identity(event))
                } else {
                    let places = || events.iter().enumerate().map(|(place, event)| (event.identity(), place));
                    let index = &mut self.extra.get_or_insert_default().index;
                    index.get_or_insert_with(|| places().collect()).get(&event.identity()).copied()
                }?;
                let known = &mut events[known];
                let same = if event.kind == Kind::Push {
                    // A push without `created_at` gets a new time with each retry; the earliest is kept.
                    known.facts == event.facts && known.flags == event.flags
                } else {
                    known == event
                };
                if event.replaces(known) {
                    *known = event.clone();
                }
                Some(if same { Recorded::Duplicate } else { Recorded::Conflict })
            }
            Body::Stub(stub) => stub.meet(&self.flow, event),
        }
    }

    /// Keeps the flow that comes first in file order among those that pushes name, else among those that match.
    /// Returns whether the event would have changed the flow of a folded instance.
    fn consider_flow(&mut self, event: &Event, rules: &impl Rules) -> bool {
        let pin = event.facts.pushed_to(self.generation);
        let candidate = match pin {
            Some(pin) => (!self.pinned || pin < self.flow.id).then_some(pin),
            None => event
                .facts
                .matched_through(self.lens(), self.generation)
                .filter(|&matched| !self.pinned && matched < self.flow.id),
        };
        let Some(candidate) = candidate else { return false };
        if self.is_stub() {
            return candidate != self.flow.id;
        }
        self.pinned |= pin.is_some();
        self.become_one_of(candidate, rules);
        false
    }

    /// To be called when a batch has been recorded: chooses the flow anew among the events that are kept, if the
    /// report that made the choice may have been replaced.
    pub fn settle_flow(&mut self, rules: &impl Rules) {
        if !std::mem::take(&mut self.flow_is_stale) {
            return;
        }
        let Body::Detailed { events } = &self.body else { return };
        let pins = events.iter().filter_map(|event| event.facts.pushed_to(self.generation));
        let matches = events.iter();
        let matches = matches.filter_map(|event| event.facts.matched_through(self.lens(), self.generation));
        let chosen = pins.min().or_else(|| matches.min()).unwrap_or(rules.unmatched().id);
        self.become_one_of(chosen, rules);
    }

    fn become_one_of(&mut self, flow: FlowId, rules: &impl Rules) {
        if flow != self.flow.id {
            self.flow = rules.flow(flow);
            self.matched = (self.flow.origin == Origin::Configured).then_some(self.flow.home);
            self.overdue = false;
            if let Some(joints) = &mut self.joints {
                joints.changed();
            }
        }
    }

    /// Notes whether it has as many events as it may.
    pub(super) fn note_cut(&mut self, rules: &impl Rules) {
        if self.len() >= rules.events_per_instance() {
            self.extra.get_or_insert_default().is_cut = true;
        }
    }

    /// Whether an event finds room beyond the cap: what decides about a trace comes last, and one that may still turn out to be
    /// another flow's is not folded, which would keep that. The first roots are kept, and what is first to enter a service.
    fn finds_room(&self, event: &Event, rules: &impl Rules) -> bool {
        /// It is looked for among so many of the first and of the last ones: services may be made up, and events are many.
        const LOOKED_AT: usize = 512;
        let Body::Detailed { events } = &self.body else { return false };
        let is_entry = event.kind != Kind::Push && (event.kind.is_entry() || !event.parent.is_some());
        let what = |event: &Event| {
            let is_failed = event.flags.has(Flags::ERROR);
            (event.parent.is_some(), event.kind.is_entry(), is_failed, event.facts.origin)
        };
        let mut known = events.iter().take(LOOKED_AT).chain(events.iter().rev().take(LOOKED_AT));
        is_entry
            && events.len() < rules.events_per_instance() + Outline::MOST_BEYOND
            && !may_fold(&self.flow, rules)
            && !known.any(|known| what(known) == what(event))
    }

    fn record_beyond_cap(&mut self, event: &Event, rules: &impl Rules) -> Recorded {
        if !may_fold(&self.flow, rules) {
            return Recorded::OverLimit;
        }
        self.fold();
        if let Body::Stub(stub) = &mut self.body {
            stub.outline.push_beyond_cap(&self.flow, event, rules.events_per_instance());
            if let Some(view) = event.facts.view(self.flow.id).filter(|_| !event.flags.has(Flags::IGNORED)) {
                // When there was work for it cannot be looked up any more.
                let start = if stub.outline.may_have_waited(event) { event.end } else { event.start };
                stub.summary.join_again(&self.flow, event, view, start);
                stub.coarsened += stub.summary.coarsen();
            }
        }
        Recorded::OverLimit
    }

    /// Whether the instance is over at `now`. Also what was seen of it, which [`Self::close`] takes as long as nothing has
    /// come since.
    pub fn judge(&mut self, key: &Key, now: Arrival) -> (Verdict, Option<Look>) {
        let look = self.look();
        (self.body.verdict(&self.flow, look.as_ref(), self.is_cut(), key, &self.clocks(), now), look)
    }

    /// Puts its events in order and looks at them. Not with joints: a division knows the events by their places.
    fn look(&mut self) -> Option<Look> {
        if self.joints.is_some() {
            return None;
        }
        self.forget_places();
        let is_cut = self.is_cut();
        look(&self.flow, &mut self.body, is_cut)
    }

    /// To be called when its events are to be in other places.
    fn forget_places(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.index = None;
        }
    }

    /// The earliest moment at which it could be over, unless something else comes.
    pub fn earliest_end(&self) -> Arrival {
        completion::earliest_end(&self.flow, &self.clocks())
    }

    /// Whether it is known to have taken longer than its users were promised.
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Notes whether it has taken longer than promised by `now`; returns whether that is news.
    pub fn note_overdue(&mut self, now: Arrival) -> bool {
        let news = self.overdue_at().is_some_and(|at| at <= now);
        self.overdue |= news;
        news
    }

    /// When it will have taken longer than its users were promised, unless it has already.
    pub fn overdue_at(&self) -> Option<Arrival> {
        self.flow.slo.filter(|_| !self.overdue).map(|slo| self.first.plus(slo.latency))
    }

    /// What shows at `now` that it has ended, if anything does.
    pub fn ended(&self, key: &Key, now: Arrival) -> Option<Reason> {
        completion::ended(&self.flow, key, &self.progress(), &self.clocks(), now)
    }

    fn progress(&self) -> Progress {
        self.body.progress(&self.flow, self.is_cut())
    }

    /// Keeps only what closing needs.
    fn fold(&mut self) {
        self.fold_as(Arc::clone(&self.flow));
    }

    /// The same, as an instance of `flow`.
    pub fn fold_as(&mut self, flow: Arc<Flow>) {
        let Body::Detailed { events } = &self.body else {
            return;
        };
        let links = self.joints.iter().flat_map(|joints| joints.links()).map(|(span, ..)| span);
        // Of copies: should that panic, it is what it was.
        let stub = Stub::of(&flow, events.clone(), self.is_cut(), links);
        self.flow = flow;
        self.body = Body::Stub(Box::new(stub));
        self.changes = self.changes.wrapping_add(1);
        self.forget_places();
    }

    /// What remains of it in its place while it is being closed; its extent is not known yet.
    pub fn grave(&self, now: Arrival) -> Tombstone {
        let lifetime = match self.extra.as_ref().and_then(|extra| extra.time_to_live) {
            Some(longest) if !self.spans => longest,
            longest => longest.unwrap_or_default().max(self.flow.timers.tombstone),
        };
        Tombstone {
            flow: Some(self.flow.id),
            closed: now,
            lifetime,
            expires: now.plus(lifetime),
            extent: None,
            remember: self.spans,
        }
    }

    /// Ends the instance, of which `look` is the last look that was taken at it, if it has not changed since. `loss` is
    /// the last time at which events may have been lost. Also returns what its latency covered in event time, for its
    /// tombstone.
    pub fn close(
        self,
        key: Key,
        reason: Reason,
        look: Option<Look>,
        now: Arrival,
        loss: Arrival,
        rules: &impl Rules,
    ) -> (Finished, Extent) {
        let clocks = self.clocks();
        let is_cut = self.is_cut();
        let Instance { flow, body, due, .. } = self;
        let (stub, seen) = match body {
            Body::Detailed { events } => match look {
                Some(Look { outline, family, progress }) => {
                    (Stub::outlined(&flow, events, outline), Some((family, progress)))
                }
                None => (Stub::exact(&flow, events, is_cut, Vec::new()), None),
            },
            Body::Stub(stub) => (*stub, None),
        };
        let ending = Ending {
            reason,
            now,
            loss,
            due,
            role: EndingAs::Itself,
            awaits_link: false,
            missed_link: false,
            traces: Vec::new(),
        };
        stub.conclude(flow, key, &clocks, ending, seen, rules)
    }

    /// As an instance of which flow it is seen, and how that was chosen.
    pub fn seen_as(&self) -> SeenAs {
        let choice = match (self.is_stub(), self.pinned) {
            (true, _) => Choice::Folded,
            (false, true) => Choice::Pinned,
            (false, false) => Choice::Matched,
        };
        SeenAs { choice, generation: self.generation, flow: Arc::clone(&self.flow) }
    }

    /// When its events came.
    pub fn clocks(&self) -> Clocks {
        let life_span = self.extra.as_ref().and_then(|extra| extra.life_span);
        Clocks { first: self.first, last: self.last, life_span }
    }

    /// Whether it has as many events as it may, so that others may be missing.
    pub(super) fn is_cut(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.is_cut)
    }

    pub(super) fn body(&self) -> &Body {
        &self.body
    }

    /// Whether anything new has come since this was asked last.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Whether anything new has come since [`Self::take_news`].
    pub fn has_news(&self) -> bool {
        self.has_news
    }

    /// To be looked at now, whatever was planned.
    pub fn hasten(&mut self, now: Arrival) {
        self.due = now;
        self.wake = now;
    }

    /// The events that it holds, if it is not folded.
    pub fn into_events(self) -> Vec<Event> {
        match self.body {
            Body::Detailed { events } => events,
            Body::Stub(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_finds_room_in_the_smallest_size_that_it_can() {
        assert_eq!((size_of::<Instance>(), size_of::<Event>()), (128, 48));
    }
}
