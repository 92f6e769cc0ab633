//! Which open instances name which others: the links and key values of traces, in both directions.
//!
//! Invariant: only open instances claim anything; whoever ends one makes it [`forget`](Claims::forget) its claims.

mod stored;

use std::collections::HashMap;

use crate::domain::footprint;
use crate::domain::ids::Key;

/// Who claims what.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_target: HashMap<Key, Vec<Key>, foldhash::quality::RandomState>,
    by_claimant: HashMap<Key, Vec<Key>, foldhash::quality::RandomState>,
}

impl Claims {
    /// Takes note of a claim, unless `limit` others claim the same already. Returns whether it stands.
    pub(super) fn add(&mut self, claimant: &Key, target: &Key, limit: usize) -> bool {
        let claimants = self.by_target.entry(target.clone()).or_default();
        if claimants.contains(claimant) {
            return true;
        }
        if claimants.len() >= limit {
            return false;
        }
        claimants.push(claimant.clone());
        self.by_claimant.entry(claimant.clone()).or_default().push(target.clone());
        true
    }

    /// What they take in memory, in bytes, roughly: most lists have one claim, and room for four.
    pub(super) fn bytes(&self) -> usize {
        let tables = self.by_target.capacity() + self.by_claimant.capacity();
        let lists = self.by_target.len() + self.by_claimant.len();
        footprint::table::<Key, Vec<Key>>(tables) + lists * footprint::array::<Key>(4)
    }

    /// Gives back the room that is not needed any more.
    pub(super) fn give_back(&mut self) {
        self.by_target.shrink_to_fit();
        self.by_claimant.shrink_to_fit();
    }

    /// Drops all claims of an instance that is over.
    pub(super) fn forget(&mut self, claimant: &Key) {
        for target in self.by_claimant.remove(claimant).unwrap_or_default() {
            if let Some(claimants) = self.by_target.get_mut(&target) {
                claimants.retain(|known| known != claimant);
                if claimants.is_empty() {
                    self.by_target.remove(&target);
                }
            }
        }
    }

    /// What an open instance claims.
    pub(super) fn by(&self, claimant: &Key) -> &[Key] {
        self.by_claimant.get(claimant).map_or(&[], Vec::as_slice)
    }

    /// The open instances that claim `target`.
    pub(super) fn of(&self, target: &Key) -> &[Key] {
        self.by_target.get(target).map_or(&[], Vec::as_slice)
    }

    /// Whether `key` claims anything or is claimed.
    pub(super) fn concern(&self, key: &Key) -> bool {
        self.by_claimant.contains_key(key) || self.by_target.contains_key(key)
    }

    /// How many instances claim anything.
    pub(super) fn len(&self) -> usize {
        self.by_claimant.len()
    }
}
