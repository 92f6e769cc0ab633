//! The keys of traces that were closed long ago, as fingerprints, in bounded room.
//!
//! Two generations: when the younger one is old enough or full, it becomes the elder, and the elder is forgotten.
//! A key is so remembered for one to two lifetimes, or less when there is no room.

mod stored;

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::footprint;
use crate::domain::ids::FlowId;
use crate::domain::time::Arrival;

/// Fingerprints of closed traces and their flows.
#[derive(Debug)]
pub(super) struct Remembered {
    young: HashMap<u64, FlowId, foldhash::quality::RandomState>,
    old: HashMap<u64, FlowId, foldhash::quality::RandomState>,
    turned: Arrival,
    lifetime: Duration,
    capacity: usize,
}

impl Remembered {
    pub(super) fn new(capacity: usize, lifetime: Duration) -> Self {
        Remembered {
            young: HashMap::default(),
            old: HashMap::default(),
            turned: Arrival::ORIGIN,
            lifetime,
            capacity,
        }
    }

    /// What it takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        footprint::table::<u64, FlowId>(self.young.capacity() + self.old.capacity())
    }

    pub(super) fn insert(&mut self, fingerprint: u64, flow: FlowId, now: Arrival) {
        self.turn(now);
        // Half the room for each generation.
        if self.young.len() >= self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
        if self.capacity > 1 {
            self.young.insert(fingerprint, flow);
        }
    }

    pub(super) fn get(&mut self, fingerprint: u64, now: Arrival) -> Option<FlowId> {
        self.turn(now);
        self.young.get(&fingerprint).or_else(|| self.old.get(&fingerprint)).copied()
    }

    fn turn(&mut self, now: Arrival) {
        let age = now.since(self.turned);
        if age >= self.lifetime {
            self.old =
                if age >= 2 * self.lifetime { HashMap::default() } else { std::mem::take(&mut self.young) };
            self.young = HashMap::default();
            self.turned = now;
        }
    }
}
