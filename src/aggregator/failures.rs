//! What becomes of an instance when dealing with it panics, which is a bug of ours: it is given up, and no other pays for it.
//!
//! Invariant: also then every event and every instance is counted once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::effects::Round;
use super::{Aggregator, lock};
use crate::domain::ids::Key;
use crate::domain::instance::Rules;
use crate::domain::result::Finished;

/// Does something for one instance; nothing comes of it if it panics. Guards are given back then, and what is behind them
/// is of use: an instance that panicked is given up.
pub(super) fn attempt<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

impl Aggregator {
    /// Ends an instance that panicked, if it is still there, with all that were counted as its events and `more` that have
    /// not been counted anywhere.
    pub(super) fn give_up(&self, key: &Key, more: u64, round: &mut Round<'_, impl Rules>) {
        round.effects.panics += 1;
        let taken = self.slots.get_mut(key).and_then(|mut slot| {
            let instance = slot.take_out(round.now)?;
            Some((instance, slot.expires()?))
        });
        let Some((instance, expires)) = taken else {
            round.effects.unmatched += more;
            return;
        };
        self.no_longer_open(&instance, &mut round.effects);
        let mut claims = lock(&self.claims);
        claims.forget(key);
        self.claimants.store(claims.len(), Relaxed);
        drop(claims);
        self.tombstones.fetch_add(1, Relaxed);
        self.timers(self.hash(key)).tombstones.add(expires, key.clone());
        let events = u64::from(instance.counted_events) + more;
        let flow = Arc::clone(instance.flow());
        round.effects.finished.push(Finished::given_up(flow, key.clone(), events, round.now, round.rules));
    }
}
