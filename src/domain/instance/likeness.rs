//! What a large instance is judged by while it is not locked: looking at thousands of events takes milliseconds, which
//! nobody is to wait for who has something for it or for another one behind the same lock.
//!
//! Invariant: what was found out about a likeness is taken only as long as nothing has come to the instance since.

use std::sync::Arc;

use super::{Body, Instance, Look, look};
use crate::domain::completion::{Clocks, Verdict};
use crate::domain::flow::Flow;
use crate::domain::ids::Key;
use crate::domain::stub::Stub;
use crate::domain::time::Arrival;

/// From so many events on an instance is large: to copy them takes a few microseconds, to look at them a hundred. Tests have
/// few events, and are to see large instances all the same.
const LARGE: usize = if cfg!(test) { 3 } else { 256 };

/// A copy of what decides about an instance.
#[derive(Debug)]
pub struct Likeness {
    flow: Arc<Flow>,
    body: Body,
    is_cut: bool,
    clocks: Clocks,
    changes: u16,
}

impl Instance {
    /// Whether to look at it takes long enough to be felt.
    pub fn is_large(&self) -> bool {
        self.len() >= LARGE
    }

    /// What it may be judged by while it is not locked, if it is large. One that belongs with others is judged with them.
    pub fn likeness(&self) -> Option<Likeness> {
        if !self.is_large() || self.joints.is_some() {
            return None;
        }
        let (flow, body) = (Arc::clone(&self.flow), self.body.clone());
        Some(Likeness { flow, body, is_cut: self.is_cut(), clocks: self.clocks(), changes: self.changes })
    }

    /// Whether nothing has come since this likeness of it was taken.
    pub fn is_like(&self, likeness: &Likeness) -> bool {
        self.changes == likeness.changes && self.clocks() == likeness.clocks && self.joints.is_none()
    }

    /// Takes over what its likeness has become, which takes over what it was.
    pub fn become_like(&mut self, likeness: &mut Likeness) {
        std::mem::swap(&mut self.body, &mut likeness.body);
        self.changes = self.changes.wrapping_add(1);
        self.forget_places();
    }
}

impl Likeness {
    /// As [`Instance::judge`].
    pub fn judge(&mut self, key: &Key, now: Arrival) -> (Verdict, Option<Look>) {
        let look = look(&self.flow, &mut self.body, self.is_cut);
        (self.body.verdict(&self.flow, look.as_ref(), self.is_cut, key, &self.clocks, now), look)
    }

    /// The flow of the instance.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Keeps only what closing needs. Whether there was more.
    pub fn fold(&mut self) -> bool {
        let Body::Detailed { events } = &mut self.body else { return false };
        let stub = Stub::of(&self.flow, std::mem::take(events), self.is_cut, std::iter::empty());
        self.body = Body::Stub(Box::new(stub));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::{Catalog, Limits};
    use crate::domain::event::{Event, Facts, Flags, Kind};
    use crate::domain::ids::{SpanId, TraceId};
    use crate::domain::time::EventTime;

    fn event(span: u64) -> Event {
        let facts = Facts {
            service: Arc::from("orders"),
            origin: 0,
            name: Arc::from(""),
            threshold: 0,
            matches: Default::default(),
            matched_before: Box::default(),
            views: Box::default(),
            push: None,
            held: Default::default(),
        };
        Event {
            end: EventTime::from_unix_nanoseconds(2),
            start: EventTime::from_unix_nanoseconds(1),
            span: SpanId(span),
            parent: SpanId::NONE,
            kind: Kind::Server,
            flags: Flags::default(),
            facts: Arc::new(facts),
            member: 0,
        }
    }

    #[test]
    fn an_instance_is_like_a_copy_of_it_until_something_comes() {
        let timers = crate::mapping::flows::Defaults::default().timers();
        let limits = Limits { pushed_flows: 0, events_per_instance: 100, fold_from: 0, explained_events: 0 };
        let rules = Catalog::new(Vec::new(), timers, false, limits);
        let mut instance = Instance::new(&Key::Trace(TraceId([1; 16])), Arrival::ORIGIN, &rules);
        assert!(instance.likeness().is_none(), "it is small");
        (1..=4).for_each(|span| _ = instance.record(event(span), Arrival::ORIGIN, &rules));
        let first = instance.likeness().expect("it is large for a test");
        assert!(instance.is_like(&first));
        // At the same moment, and then it is copied once more.
        instance.record(event(5), Arrival::ORIGIN, &rules);
        let mut second = instance.likeness().expect("it has become larger");
        assert!(!instance.is_like(&first) && instance.is_like(&second));
        assert!(second.fold());
        instance.become_like(&mut second);
        assert!(instance.is_stub() && !instance.is_like(&first));
        assert_eq!(instance.events(), 5);
    }
}
