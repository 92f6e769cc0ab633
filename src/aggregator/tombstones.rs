//! What is remembered of instances that are over: for a while a tombstone, after that only the key.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use dashmap::mapref::entry::Entry;

use super::effects::{Effects, Late, Round};
use super::{Aggregator, Brought, Slot, lock};
use crate::domain::ids::{FlowId, Key};
use crate::domain::instance::Rules;
use crate::domain::result::Finished;
use crate::domain::summary::Extent;
use crate::domain::time::Arrival;
use crate::domain::tombstone::Tombstone;

/// Stands for "no flow wanted this trace" among the remembered keys.
pub(super) const NO_FLOW: FlowId = FlowId::NONE;

impl Aggregator {
    /// Puts a tombstone in the place of what was found by `key`: the tombstone of an instance that was taken out, or
    /// nothing at all.
    pub(super) fn put_tombstone(&self, key: &Key, tombstone: Tombstone) {
        let expires = match self.slots.entry(key.clone()) {
            Entry::Occupied(mut slot) => match slot.get_mut() {
                Slot::Open(_) => return,
                Slot::Closed(known) => {
                    let lifetime = known.lifetime.max(tombstone.lifetime);
                    **known = Tombstone { lifetime, expires: tombstone.closed.plus(lifetime), ..tombstone };
                    known.expires
                }
            },
            Entry::Vacant(slot) => {
                self.tombstones.fetch_add(1, Relaxed);
                slot.insert(Slot::Closed(Box::new(tombstone.clone())));
                tombstone.expires
            }
        };
        self.timers(self.hash(key)).tombstones.add(expires, key.clone());
    }

    /// The flow of an instance that is over, if it is remembered and a flow took it.
    pub(super) fn buried_flow(&self, key: &Key, now: Arrival) -> Option<FlowId> {
        match self.slots.get(key).as_deref() {
            Some(Slot::Closed(tombstone)) => tombstone.flow,
            Some(Slot::Open(_)) => None,
            None => self.recall(self.hash(key), now).filter(|flow| *flow != NO_FLOW),
        }
    }

    /// Writes on the tombstone what only closing could tell; returns when it expires.
    pub(super) fn inscribe(&self, key: &Key, finished: &Finished, extent: Extent) -> Option<Arrival> {
        let mut slot = self.slots.get_mut(key)?;
        let Slot::Closed(tombstone) = slot.value_mut() else {
            return None;
        };
        tombstone.extent = extent;
        if matches!(finished, Finished::Unmatched { .. }) {
            tombstone.flow = None;
        }
        Some(tombstone.expires)
    }

    /// Removes a tombstone that has expired; a renewed one gets a new date.
    pub(super) fn bury(&self, key: Key, now: Arrival) {
        if !self.remove_tombstone(&key, now, |tombstone| tombstone.expires <= now) {
            let renewed = match self.slots.get(&key).as_deref() {
                Some(Slot::Closed(tombstone)) => tombstone.expires,
                _ => return,
            };
            self.timers(self.hash(&key)).tombstones.add(renewed, key);
        }
    }

    fn remove_tombstone(&self, key: &Key, now: Arrival, condition: impl Fn(&Tombstone) -> bool) -> bool {
        let removed = self.slots.remove_if(key, |_, slot| {
            let Slot::Closed(tombstone) = slot else {
                return false;
            };
            let goes = condition(tombstone);
            if goes && tombstone.remember {
                // While its slot is still locked, so that no late event falls in between and opens a second instance.
                let hash = self.hash(key);
                self.timers(hash).remembered.insert(hash, tombstone.flow.unwrap_or(NO_FLOW), now);
            }
            goes
        });
        self.tombstones.fetch_sub(u64::from(removed.is_some()), Relaxed);
        removed.is_some()
    }

    /// Removes tombstones, in each shard those that expire first, until they are as few as they may be.
    pub(super) fn make_room_for_tombstones(&self, now: Arrival, effects: &mut Effects) {
        let is_crowded = || self.tombstones.load(Relaxed) > self.limits.tombstones as u64;
        let mut empty = 0;
        for timers in self.timers.iter().cycle() {
            if empty == self.timers.len() || !is_crowded() {
                return;
            }
            let soonest = lock(timers).tombstones.take_first();
            empty = if soonest.is_empty() { empty + 1 } else { 0 };
            for key in soonest {
                if is_crowded() {
                    effects.tombstones_evicted += u64::from(self.remove_tombstone(&key, now, |_| true));
                } else {
                    // Those that expire at the same moment may stay.
                    self.bury(key, now);
                }
            }
        }
    }

    /// The flow of an instance that was closed so long ago that only its key is remembered.
    pub(super) fn recall(&self, hash: u64, now: Arrival) -> Option<FlowId> {
        self.timers(hash).remembered.get(hash, now)
    }
}

/// Counts what came for an instance that is over.
pub(super) fn meet_tombstone(
    tombstone: &mut Tombstone,
    brought: &mut Brought<'_>,
    round: &mut Round<'_, impl Rules>,
) {
    let flow =
        tombstone.flow.map_or_else(|| Arc::clone(round.rules.unmatched()), |flow| round.rules.flow(flow));
    brought.each_counted(|event| {
        let lateness = tombstone.meet(&flow, event, round.now);
        match tombstone.flow {
            Some(flow) => round.effects.late.push(Late::of(flow, event, Some(lateness))),
            None => round.effects.unmatched += 1,
        }
    });
}
