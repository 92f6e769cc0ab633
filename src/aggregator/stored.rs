//! What is open and what is remembered, as it is stored: exactly, down to the order in which what is due is looked at.
//!
//! What only bounds memory is left out: it is reckoned anew. Invariant: an aggregator that was restored answers to
//! everything that comes later as the one would that was stored.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use super::calendar::Calendar;
use super::claims::Claims;
use super::{Aggregator, Limits, SLOT_SHARDS, Slot, TIMER_SHARDS, lock};
use crate::domain::instance::{Instance, Rules};
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored};
use crate::domain::time::Arrival;

/// Decides in which order the instances of a request are dealt with. Chosen at random, so that nobody can choose keys that
/// meet; what is stored is dealt with in the same order again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

/// For how long senders are believed to keep what they cannot send. The SDK that gives up first does so after about eight seconds
/// (RetryPolicy of opentelemetry-java: five attempts, one second apart at first, then half as long again each time).
const RIDDEN_OUT: Duration = Duration::from_secs(10);

impl Seed {
    fn hasher(self) -> SeedableRandomState {
        // There is one for each store that a process opens, which is one.
        let shared = Box::leak(Box::new(SharedSeed::from_u64(self.0)));
        SeedableRandomState::with_seed(self.0.rotate_left(32), shared)
    }
}

impl Aggregator {
    /// An empty aggregator that does everything in the same order as any other with the same seed. `start` is when it
    /// begins: what came before is lost.
    pub fn with_seed(limits: Limits, seed: Seed, start: Arrival) -> Self {
        let mut aggregator = Aggregator::new(limits);
        aggregator.slots = dashmap::DashMap::with_hasher_and_shard_amount(seed.hasher(), SLOT_SHARDS);
        aggregator.loss.store(start.nanoseconds(), Relaxed);
        aggregator.is_repeated = true;
        aggregator
    }

    /// Writes everything down.
    pub fn store(&self, rules: &impl Rules, to: &mut Encoder<'_>) {
        self.loss.load(Relaxed).write(to);
        for timers in &self.timers {
            to.pause();
            let timers = lock(timers);
            timers.instances.store(to);
            timers.tombstones.store(to);
            timers.remembered.store(to);
        }
        lock(&self.claims).store(to);
        to.number(self.slots.len() as u128);
        for slot in &self.slots {
            to.pause();
            slot.key().write(to);
            match slot.value() {
                Slot::Open(instance) => {
                    true.write(to);
                    instance.store(rules, to);
                }
                Slot::Closed(tombstone) => {
                    false.write(to);
                    tombstone.write(to);
                }
            }
        }
    }

    /// Reads everything again, into an empty aggregator with the same seed.
    pub fn restore(&self, rules: &impl Rules, from: &mut Decoder<'_>) -> Result<(), Damaged> {
        self.loss.store(Stored::read(from)?, Relaxed);
        debug_assert_eq!(self.timers.len(), TIMER_SHARDS);
        for timers in &self.timers {
            from.pause();
            let mut timers = lock(timers);
            timers.instances = Calendar::restore(from)?;
            timers.tombstones = Calendar::restore(from)?;
            timers.remembered.restore(from)?;
        }
        let claims = Claims::restore(from)?;
        self.claimants.store(claims.len(), Relaxed);
        *lock(&self.claims) = claims;
        let count: usize = from.number()?;
        for _ in 0..count {
            from.pause();
            let key = Stored::read(from)?;
            let slot = if bool::read(from)? {
                Slot::Open(Box::new(self.restore_instance(rules, from)?))
            } else {
                self.tombstones.fetch_add(1, Relaxed);
                Slot::Closed(Stored::read(from)?)
            };
            self.slots.insert(key, slot);
        }
        Ok(())
    }

    fn restore_instance(&self, rules: &impl Rules, from: &mut Decoder<'_>) -> Result<Instance, Damaged> {
        let instance = Instance::restore(rules, from)?;
        self.open.fetch_add(1, Relaxed);
        self.stubs.fetch_add(u64::from(instance.counted_as_stub), Relaxed);
        self.events.fetch_add(u64::from(instance.counted_events), Relaxed);
        self.bytes.fetch_add(i64::from(instance.weight()), Relaxed);
        Ok(instance)
    }

    /// Whether a sweep at `now` would find anything to do.
    pub fn has_work(&self, now: Arrival) -> bool {
        let is_crowded = self.tombstones.load(Relaxed) > self.limits.tombstones as u64;
        is_crowded
            || self.timers.iter().any(|timers| {
                let timers = lock(timers);
                timers.instances.comes_up(now) || timers.tombstones.comes_up(now)
            })
    }

    /// Takes note that nothing was received for `downtime` before `now`, while our clock stood still: quiet periods go on
    /// from where they were, but what is open is as old as it is.
    pub fn grow_older(&self, downtime: Duration, now: Arrival) {
        if downtime > RIDDEN_OUT {
            self.note_loss(now);
        }
        let mut earlier = Vec::new();
        for mut slot in self.slots.iter_mut() {
            let (key, slot) = slot.pair_mut();
            if let Slot::Open(instance) = slot
                && let Some(at) = instance.grow_older(downtime, now)
            {
                earlier.push((at, key.clone()));
            }
        }
        // In an order that does not depend on where they are in the map.
        earlier.sort();
        for (at, key) in earlier {
            self.timers(self.hash(&key)).instances.add(at, key);
        }
    }

    /// Whether requests are to be sent again later.
    pub fn is_refusing(&self) -> bool {
        self.refuses.load(Relaxed)
    }

    /// Takes note that events may have been lost at `now`.
    pub fn note_loss(&self, now: Arrival) {
        self.loss.fetch_max(now.nanoseconds(), Relaxed);
    }
}

/// Writes a map in the order of its keys.
pub(super) fn store_map<K: Stored + Ord + Hash, V: Stored, S>(map: &HashMap<K, V, S>, to: &mut Encoder<'_>) {
    let mut sorted: Vec<(&K, &V)> = map.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    to.number(sorted.len() as u128);
    for (key, value) in sorted {
        to.pause();
        key.write(to);
        value.write(to);
    }
}

/// Writes lists by their numbers.
pub(super) fn store_tree<V: Stored>(tree: &BTreeMap<u64, Vec<V>>, to: &mut Encoder<'_>) {
    to.number(tree.len() as u128);
    for (number, list) in tree {
        to.pause();
        number.write(to);
        to.many(list.iter());
    }
}

/// Reads what [`store_tree`] wrote.
pub(super) fn restore_tree<V: Stored>(from: &mut Decoder<'_>) -> Result<BTreeMap<u64, Vec<V>>, Damaged> {
    let mut tree = BTreeMap::new();
    let count: usize = from.number()?;
    for _ in 0..count {
        from.pause();
        tree.insert(Stored::read(from)?, from.many()?);
    }
    Ok(tree)
}

/// Reads what [`store_map`] wrote.
pub(super) fn restore_map<K: Stored + Eq + Hash, V: Stored, S: Default + std::hash::BuildHasher>(
    from: &mut Decoder<'_>,
) -> Result<HashMap<K, V, S>, Damaged> {
    Ok(from.many::<(K, V)>()?.into_iter().collect())
}
