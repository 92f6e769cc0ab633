//! The instances that were closed last, so that they can be explained.
//!
//! Bounded in instances of each flow; the oldest make room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::event::Event;
use crate::domain::footprint;
use crate::domain::ids::{FlowId, Key};
use crate::domain::result::{Closed, Finished, PathStep};
use crate::domain::time::EventTime;

/// An instance and when it was closed, by our wall clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The instance.
    pub closed: Closed,
    /// When it was closed.
    pub at: EventTime,
}

/// The instances that were closed last.
#[derive(Debug)]
pub struct Recent {
    /// How many of each flow.
    most: usize,
    by_flow: Mutex<BTreeMap<FlowId, VecDeque<Arc<Ended>>>>,
}

impl Recent {
    /// Empty, with room for `most` of each flow.
    pub fn new(most: usize) -> Self {
        Recent { most, by_flow: Mutex::default() }
    }

    /// Keeps what was closed, at `at`.
    pub fn add(&self, finished: Vec<Finished>, at: EventTime) {
        if finished.is_empty() || self.most == 0 {
            return;
        }
        // What is not kept is dropped before others have to wait.
        let last = self.last_of_each(finished);
        let mut by_flow = self.lock();
        for closed in last {
            let kept = by_flow.entry(closed.flow.home).or_default();
            if kept.len() >= self.most {
                kept.pop_front();
            }
            kept.push_back(Arc::new(Ended { closed: *closed, at }));
        }
    }

    /// As many of each flow as are kept, the last ones: a burst would only push the others out again.
    fn last_of_each(&self, finished: Vec<Finished>) -> impl Iterator<Item = Box<Closed>> + use<> {
        let mut counts: BTreeMap<FlowId, usize> = BTreeMap::new();
        let mut last = Vec::new();
        for finished in finished.into_iter().rev() {
            let Finished::Closed(closed) = finished else { continue };
            let count = counts.entry(closed.flow.home).or_default();
            *count += 1;
            if *count <= self.most {
                last.push(closed);
            }
        }
        last.into_iter().rev()
    }

    /// Those of a flow, the last one first.
    pub fn of(&self, flow: FlowId) -> Vec<Arc<Ended>> {
        self.lock().get(&flow).into_iter().flatten().rev().cloned().collect()
    }

    /// The last of a flow that was found by `key`, or that `key` was a trace of.
    pub fn find(&self, flow: FlowId, key: &Key) -> Option<Arc<Ended>> {
        let is_it =
            |ended: &&Arc<Ended>| ended.closed.key == *key || ended.closed.detail.traces.contains(key);
        self.lock().get(&flow)?.iter().rev().find(is_it).cloned()
    }

    /// What they take in memory, in bytes, roughly, without the facts that events share.
    pub fn bytes(&self) -> usize {
        let each = |ended: &Arc<Ended>| {
            let detail = &ended.closed.detail;
            footprint::array::<Ended>(1)
                + footprint::array::<Event>(detail.events.capacity())
                + footprint::array::<PathStep>(detail.steps.capacity())
        };
        self.lock().values().flatten().map(each).sum()
    }

    /// Takes out everything.
    pub fn take_all(&self) -> Vec<Arc<Ended>> {
        std::mem::take(&mut *self.lock()).into_values().flatten().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FlowId, VecDeque<Arc<Ended>>>> {
        self.by_flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
