//! What a large instance is judged by while it is not locked: looking at thousands of events takes milliseconds, which
//! nobody is to wait for who has something for it or for another one behind the same lock.
//!
//! Invariant: what was found out about a likeness is taken only as long as nothing has come to the instance since.

use std::sync::Arc;

use super::{Body, Instance, Look, look};
use crate::domain::completion::{self, Clocks, Verdict};
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
    clocks: Clocks,
}

impl Instance {
    /// What it may be judged by while it is not locked, if it is large. One that belongs with others is judged with them.
    pub fn likeness(&mut self) -> Option<Likeness> {
        if self.len() < LARGE || self.joints.is_some() {
            return None;
        }
        self.is_as_copied = true;
        Some(Likeness { flow: Arc::clone(&self.flow), body: self.body.clone(), clocks: self.clocks() })
    }

    /// Whether nothing has come since its likeness was taken.
    pub fn is_as_copied(&self) -> bool {
        self.is_as_copied && self.joints.is_none()
    }

    /// Takes over what its likeness has become, which takes over what it was.
    pub fn become_like(&mut self, likeness: &mut Likeness) {
        std::mem::swap(&mut self.body, &mut likeness.body);
        self.forget_places();
    }
}

impl Likeness {
    /// As [`Instance::judge`].
    pub fn judge(&mut self, key: &Key, now: Arrival) -> (Verdict, Option<Look>) {
        let look = look(&self.flow, &mut self.body);
        let progress = look.as_ref().map_or_else(|| self.body.progress(&self.flow), |look| look.progress);
        (completion::decide(&self.flow, key, &progress, &self.clocks, now), look)
    }

    /// The flow of the instance.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Keeps only what closing needs. Whether there was more.
    pub fn fold(&mut self) -> bool {
        let Body::Detailed { events } = &mut self.body else { return false };
        let stub = Stub::of(&self.flow, std::mem::take(events), std::iter::empty());
        self.body = Body::Stub(Box::new(stub));
        true
    }
}
