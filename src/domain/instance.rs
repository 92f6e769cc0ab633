//! One run of a flow while it is open: takes events in, answers when it is over, and becomes its result.
//!
//! Invariant: the result depends on the set of its events only. Arrival order and repetition decide nothing but
//! when it closes, unless a cap was met.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::completion::{self, Clocks, Verdict};
use super::event::{Event, Flags, Identity, Kind};
use super::flow::{Flow, Origin};
use super::ids::{FlowId, Key};
use super::outline::{Outline, Progress};
use super::result::{Finished, Reason};
use super::stub::Stub;
use super::summary::{Extent, Summary};
use super::time::Arrival;
use super::tombstone::Tombstone;

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
}

/// An open instance.
#[derive(Debug)]
pub struct Instance {
    /// The flow it belongs to as far as is known; fixed when it is folded.
    flow: Arc<Flow>,
    /// Whether a push named its flow.
    pinned: bool,
    /// Whether a report that its flow was chosen by may have been replaced.
    flow_is_stale: bool,
    clocks: Clocks,
    /// The longest time that a push wants its tombstone to live.
    time_to_live: Option<Duration>,
    /// Whether a span has come.
    spans: bool,
    body: Body,
    /// Whether it is known to have taken longer than its users were promised.
    overdue: bool,
    /// The latest moment for which the aggregator has an entry in its calendar, likewise.
    pub planned: Arrival,
    /// When the aggregator will look at it next. The aggregator's business; kept here to have it in one place.
    pub wake: Arrival,
}

#[derive(Debug)]
enum Body {
    Detailed {
        events: Vec<Event>,
        /// Where each identity is; only for instances too large to search one by one.
        index: Option<HashMap<Identity, usize>>,
    },
    Stub(Box<Stub>),
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

/// From this many events on, an index finds repeated ones.
const INDEX_FROM: usize = 32;

impl Instance {
    /// A new instance; its first event has yet to be recorded.
    pub fn new(now: Arrival, rules: &impl Rules) -> Self {
        Instance {
            flow: Arc::clone(rules.unmatched()),
            pinned: false,
            flow_is_stale: false,
            clocks: Clocks { first: now, last: now, life_span: None },
            time_to_live: None,
            spans: false,
            body: Body::Detailed { events: Vec::new(), index: None },
            overdue: false,
            planned: Arrival::ORIGIN,
            wake: Arrival::ORIGIN,
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

    /// Events that it keeps or has joined.
    pub fn events(&self) -> u64 {
        match &self.body {
            Body::Detailed { events, .. } => events.len() as u64,
            Body::Stub(stub) => {
                let summary = &stub.summary;
                summary.events + summary.ignored + summary.foreign + stub.waiting.len() as u64
            }
        }
    }

    /// Takes an event in.
    pub fn record(&mut self, event: Event, now: Arrival, rules: &impl Rules) -> Recorded {
        if let Some(known) = self.meet(&event) {
            self.flow_is_stale |= known == Recorded::Conflict;
            return known;
        }
        let is_full = self.len() >= rules.events_per_instance();
        // Pushes beyond the cap do not keep it open, for nothing else would end it.
        if !is_full || event.kind != Kind::Push {
            // A large request may have been on its way for longer than the one before it.
            self.clocks.last = self.clocks.last.max(now);
        }
        match &event.facts.push {
            Some(push) if !is_full => {
                self.clocks.life_span = push.life_span;
                self.time_to_live = self.time_to_live.max(Some(push.time_to_live));
            }
            Some(_) => {}
            None => self.spans = true,
        }
        let better = self.consider_flow(&event, rules);
        if is_full {
            return self.record_beyond_cap(&event, rules);
        }
        match &mut self.body {
            Body::Detailed { events, index } => {
                if let Some(index) = index {
                    index.insert(event.identity(), events.len());
                } else if events.len() == INDEX_FROM {
                    let all = events.iter().chain([&event]).enumerate();
                    *index = Some(all.map(|(place, event)| (event.identity(), place)).collect());
                }
                events.push(event);
                Recorded::New
            }
            Body::Stub(stub) => {
                stub.take(&self.flow, event);
                if better { Recorded::NewAfterFolding } else { Recorded::New }
            }
        }
    }

    fn len(&self) -> usize {
        match &self.body {
            Body::Detailed { events, .. } => events.len(),
            Body::Stub(stub) => stub.outline.len(),
        }
    }

    /// Deals with an event that is known already.
    fn meet(&mut self, event: &Event) -> Option<Recorded> {
        match &mut self.body {
            Body::Detailed { events, index } => {
                let known = match index {
                    Some(index) => index.get(&event.identity()).copied(),
                    None => events.iter().position(|known| known.same_identity(event)),
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
        let pin = event.facts.push.as_ref().map(|push| push.flow);
        let candidate = match pin {
            Some(pin) => (!self.pinned || pin < self.flow.id).then_some(pin),
            None => event.facts.matched.filter(|&matched| !self.pinned && matched < self.flow.id),
        };
        let Some(candidate) = candidate else { return false };
        if self.is_stub() {
            return candidate != self.flow.id;
        }
        self.pinned |= pin.is_some();
        if candidate != self.flow.id {
            self.flow = rules.flow(candidate);
            self.overdue = false;
        }
        false
    }

    /// To be called when a batch has been recorded: chooses the flow anew among the events that are kept, if the
    /// report that made the choice may have been replaced.
    pub fn settle_flow(&mut self, rules: &impl Rules) {
        if !std::mem::take(&mut self.flow_is_stale) {
            return;
        }
        let Body::Detailed { events, .. } = &self.body else { return };
        let pins = events.iter().filter_map(|event| event.facts.push.as_ref().map(|push| push.flow));
        let matches = events.iter().filter_map(|event| event.facts.matched);
        let chosen = pins.min().or_else(|| matches.min()).unwrap_or(rules.unmatched().id);
        if chosen != self.flow.id {
            self.flow = rules.flow(chosen);
            self.overdue = false;
        }
    }

    fn record_beyond_cap(&mut self, event: &Event, rules: &impl Rules) -> Recorded {
        // Without a flow there is nothing to fold it under.
        if self.flow.id == rules.unmatched().id {
            return Recorded::OverLimit;
        }
        self.fold();
        if let Body::Stub(stub) = &mut self.body {
            stub.outline.push_beyond_cap(&self.flow, event);
            if let Some(view) = event.facts.view(self.flow.id).filter(|_| !event.flags.has(Flags::IGNORED)) {
                stub.summary.join_again(&self.flow, event, view, event.start);
                stub.coarsened += stub.summary.coarsen();
            }
        }
        Recorded::OverLimit
    }

    /// Whether the instance is over at `now`; folds it when only a stub is needed from here on.
    pub fn judge(&mut self, key: &Key, now: Arrival, rules: &impl Rules) -> Verdict {
        let verdict = completion::decide(&self.flow, key, &self.progress(), &self.clocks, now);
        if matches!(verdict, Verdict::Wait { fold: true, .. }) && self.may_fold(rules) {
            self.fold();
        }
        verdict
    }

    /// Whether its flow is known: folding decides it. A trace that only the built-in flow has taken so far may still
    /// turn out to be a configured flow's, for roots come last.
    fn may_fold(&self, rules: &impl Rules) -> bool {
        let by_default = self.flow.origin == Origin::BuiltIn && rules.spans_may_match();
        self.flow.id != rules.unmatched().id && !by_default
    }

    /// The earliest moment at which it could be over, unless something else comes.
    pub fn earliest_end(&self) -> Arrival {
        completion::earliest_end(&self.flow, &self.clocks)
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
        self.flow.slo.filter(|_| !self.overdue).map(|slo| self.clocks.first.plus(slo.latency))
    }

    /// What shows at `now` that it has ended, if anything does.
    pub fn ended(&self, key: &Key, now: Arrival) -> Option<Reason> {
        completion::ended(&self.flow, key, &self.progress(), &self.clocks, now)
    }

    fn progress(&self) -> Progress {
        match &self.body {
            Body::Detailed { events, .. } => Outline::of(&self.flow, events).progress(&self.flow),
            Body::Stub(stub) => stub.outline.progress(&self.flow),
        }
    }

    /// Keeps only what closing needs.
    fn fold(&mut self) {
        let Body::Detailed { events, .. } = &mut self.body else {
            return;
        };
        let stub = Stub::of(&self.flow, std::mem::take(events));
        self.body = Body::Stub(Box::new(stub));
    }

    /// What remains of it in its place while it is being closed; its extent is not known yet.
    pub fn grave(&self, now: Arrival) -> Tombstone {
        let lifetime = match self.time_to_live {
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

    /// Ends the instance. `loss` is the last time at which events may have been lost. Also returns what its latency
    /// covered in event time, for its tombstone.
    pub fn close(
        self,
        key: Key,
        reason: Reason,
        now: Arrival,
        loss: Arrival,
        rules: &impl Rules,
    ) -> (Finished, Extent) {
        let Instance { flow, clocks, body, wake, .. } = self;
        let mut stub = match body {
            Body::Detailed { events, .. } => Stub::exact(&flow, events),
            Body::Stub(stub) => *stub,
        };
        stub.settle(&flow);
        let progress = stub.outline.progress(&flow);
        // A trace whose root is ignored is no trace to the flow that takes what nobody else wants.
        let ignored = flow.origin == Origin::BuiltIn
            && progress.root.is_some_and(|root| root.flags.has(Flags::IGNORED));
        if flow.id == rules.unmatched().id || stub.summary.events == 0 || ignored {
            let Summary { events, ignored, foreign, .. } = stub.summary;
            return (Finished::Unmatched { events: events + foreign, ignored }, None);
        }
        let extent = stub.bounds(&flow, &progress);
        let outcome = completion::outcome(&flow, &progress, &clocks, reason, loss);
        let closed = stub.finish(flow, key, &progress, outcome, reason, now.since(clocks.first), wake);
        (Finished::Closed(Box::new(closed)), extent)
    }
}
