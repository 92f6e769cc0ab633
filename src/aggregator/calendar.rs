//! Which keys have to be looked at when.
//!
//! A key's entry only wakes: what is due is decided from the state found under the key. Entries are never removed
//! early, so an entry may find nothing to do. Adding costs the same however many instances are open, and taking
//! what is due costs what is due.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::footprint;
use crate::domain::ids::Key;
use crate::domain::time::Arrival;

/// Keys by the moment at which they have to be looked at, in ticks of [`Calendar::TICK`].
#[derive(Debug, Default)]
pub(super) struct Calendar(BTreeMap<u64, Vec<Key>>);

impl Calendar {
    /// How late a key may be looked at: the price for many keys sharing an entry.
    pub(super) const TICK: Duration = Duration::from_millis(10);

    /// Looks at `key` at `at`, or up to a tick later, never sooner.
    pub(super) fn add(&mut self, at: Arrival, key: Key) {
        self.0.entry(at.nanoseconds().div_ceil(Self::tick())).or_default().push(key);
    }

    /// Takes out at most `limit` keys whose moment has come.
    pub(super) fn take_due(&mut self, now: Arrival, limit: usize) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some(mut first) = self.0.first_entry() {
            if *first.key() > now.nanoseconds() / Self::tick() || due.len() >= limit {
                break;
            }
            let room = limit - due.len();
            let keys = first.get_mut();
            due.extend(keys.drain(keys.len().saturating_sub(room)..));
            if keys.is_empty() {
                first.remove();
            }
        }
        due
    }

    /// Takes over the entries of another one for which `keep` holds.
    pub(super) fn absorb(&mut self, other: Calendar, mut keep: impl FnMut(&Key) -> bool) {
        for (tick, mut keys) in other.0 {
            keys.retain(|key| keep(key));
            if keys.is_empty() {
                continue;
            }
            keys.shrink_to_fit();
            self.0.entry(tick).or_default().append(&mut keys);
        }
    }

    /// The first moment at which a key has to be looked at.
    pub(super) fn first(&self) -> Option<Arrival> {
        let (tick, _) = self.0.first_key_value()?;
        Some(Arrival::since_origin(Duration::from_nanos(tick.saturating_mul(Self::tick()))))
    }

    /// Takes out the keys whose moment comes first.
    pub(super) fn take_first(&mut self) -> Vec<Key> {
        self.0.pop_first().map(|(_, keys)| keys).unwrap_or_default()
    }

    /// What it takes in memory, in bytes, roughly: a list grows by doubling.
    pub(super) fn bytes(&self) -> usize {
        self.0
            .values()
            .map(|keys| footprint::array::<Key>(keys.capacity()) + size_of::<(u64, Vec<Key>)>())
            .sum()
    }

    /// How many keys wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    fn tick() -> u64 {
        Self::TICK.as_nanos() as u64
    }
}
