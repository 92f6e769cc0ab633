//! What everything that is kept takes in memory, and what is ended early to make room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::budget::{Pressure, Used};
use super::calendar::Calendar;
use super::effects::{Effects, Round};
use super::failures::attempt;
use super::{Aggregator, Slot, lock};
use crate::domain::footprint;
use crate::domain::ids::Key;
use crate::domain::instance::{Instance, Rules, may_fold};
use crate::domain::result::Reason;
use crate::domain::time::Arrival;
use crate::domain::tombstone::Tombstone;

/// How much an instance is worth, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// No flow has taken it yet.
    Unmatched,
    /// It only waits for something that may never come.
    Held,
    /// Something came to it a short while ago.
    Fresh,
}

impl Worth {
    fn of(instance: &Instance, now: Arrival, rules: &impl Rules) -> Self {
        match () {
            () if instance.flow().id == rules.unmatched().id => Worth::Unmatched,
            () if instance.is_held(now) => Worth::Held,
            () => Worth::Fresh,
        }
    }
}

/// How often instances are looked through for those that are to be ended.
const CHOOSE_INTERVAL: Duration = Duration::from_secs(1);

/// Instances that are to be ended early.
#[derive(Debug, Default)]
pub(super) struct Victims {
    /// Those that go first at the end.
    keys: Vec<Key>,
    /// When others may be chosen, if these have gone and there is still no room.
    chosen_anew: Arrival,
}

/// What is let go for want of room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relief {
    /// Instances that are folded.
    pub folded: Vec<Key>,
    /// Instances that are ended.
    pub ended: Vec<Key>,
    /// Whether nothing else was to go with them.
    pub is_last: bool,
}

/// How many instances are chosen at once: a list of more would take much of the memory that is short.
const MOST_VICTIMS: u64 = 1 << 18;

/// Instances of one worth that are about as heavy: the power of two that their weight has.
type Class = (Worth, std::cmp::Reverse<u32>);

impl Aggregator {
    /// What is kept: of open instances and tombstones at this moment, of everything else when it was reckoned last.
    pub(super) fn used(&self) -> Used {
        let tombstones = self.tombstones.load(Relaxed) * footprint::array::<Tombstone>(1) as u64;
        // What one thread has added may be taken away by another before the first has said so.
        let open = self.bytes.load(Relaxed).max(0).cast_unsigned();
        let tables = self.tables.load(Relaxed) + self.others.load(Relaxed);
        let bytes = open + tombstones + tables + footprint::held();
        Used { bytes, instances: self.open.load(Relaxed) }
    }

    /// What is done about how much is kept.
    pub fn pressure(&self) -> Pressure {
        lock(&self.pressure).0
    }

    /// Whether requests are to be sent again later. What is refused may be lost.
    pub fn refuses(&self, now: Arrival) -> bool {
        let refuses = self.refuses.load(Relaxed);
        if refuses {
            self.loss.fetch_max(now.nanoseconds(), Relaxed);
        }
        refuses
    }

    /// Decides anew what is done about how much is kept; returns it if it is news.
    pub(super) fn feel_pressure(&self, now: Arrival) -> Option<Pressure> {
        let used = self.used();
        let mut pressure = lock(&self.pressure);
        let (current, since) = *pressure;
        let next = self.limits.budget.next(current, since, used, now);
        if next == current {
            return None;
        }
        *pressure = (next, now);
        self.refuses.store(next > Pressure::None, Relaxed);
        Some(next)
    }

    /// Reckons anew what the tables take in which everything is found; `others` is what is kept of instances elsewhere.
    pub fn reckon_tables(&self, others: u64) {
        self.others.store(others, Relaxed);
        self.reckon_own_tables();
    }

    fn reckon_own_tables(&self) {
        let timers: usize = self.timers.iter().map(|timers| lock(timers).bytes()).sum();
        let slots = footprint::table::<Key, Slot>(self.slots.capacity());
        let tables = timers + slots + lock(&self.claims).bytes();
        self.tables.store(tables as u64, Relaxed);
    }

    /// Ends what costs most for least, or folds it where that frees most of it, at most `limit` instances at a time.
    /// Returns what happened and whether more has to go.
    pub fn make_room(&self, now: Arrival, limit: usize, rules: &impl Rules) -> (Effects, bool) {
        match self.choose_relief(now, limit, rules) {
            Some(relief) => self.relieve(relief, now, rules),
            None => (Effects::default(), false),
        }
    }

    /// What has to go next, if anything has.
    pub fn choose_relief(&self, now: Arrival, limit: usize, rules: &impl Rules) -> Option<Relief> {
        let mut victims = lock(&self.victims);
        if self.pressure() != Pressure::Evicting {
            *victims = Victims::default();
            return None;
        }
        if victims.keys.is_empty() {
            // Where what is kept is not theirs, ending instances is of no use, however often they are looked through.
            if now < victims.chosen_anew {
                return None;
            }
            victims.keys = self.choose_victims(now, rules);
            victims.chosen_anew = now.plus(CHOOSE_INTERVAL);
        }
        let rest = victims.keys.len().saturating_sub(limit);
        let chosen = victims.keys.split_off(rest);
        drop(victims);
        let (folded, ended) = chosen.into_iter().partition(|key| self.is_better_folded(key, rules));
        Some(Relief { folded, ended, is_last: rest == 0 })
    }

    /// Lets go what has to. Returns what happened and whether more has to go.
    pub fn relieve(&self, relief: Relief, now: Arrival, rules: &impl Rules) -> (Effects, bool) {
        let mut round = Round::new(now, rules);
        self.loss.fetch_max(now.nanoseconds(), Relaxed);
        let Relief { folded, ended, is_last } = relief;
        let is_any = !folded.is_empty() || !ended.is_empty();
        for key in &folded {
            if attempt(|| self.fold_early(key, &mut round.effects)).is_none() {
                self.give_up(key, 0, &mut round);
            }
        }
        self.end_early(ended, Reason::Capacity, &mut round);
        let mut effects = round.effects;
        self.weighed(&effects);
        if is_last {
            self.tidy_tables();
        }
        effects.pressure = self.feel_pressure(now);
        let is_over = self.pressure() != Pressure::Evicting;
        if is_over {
            *lock(&self.victims) = Victims::default();
        }
        (effects, is_any && !is_over)
    }

    /// Gives back what the tables keep for instances that were ended early: entries that would find nothing to do when
    /// their time comes, and room.
    fn tidy_tables(&self) {
        for timers in &self.timers {
            let (instances, tombstones) = {
                let mut timers = lock(timers);
                (std::mem::take(&mut timers.instances), std::mem::take(&mut timers.tombstones))
            };
            // Under no lock of the timers, for those are taken after that of a slot.
            let is_open = |key: &Key| matches!(self.slots.get(key).as_deref(), Some(Slot::Open(_)));
            let is_closed = |key: &Key| matches!(self.slots.get(key).as_deref(), Some(Slot::Closed(_)));
            let mut kept = (Calendar::default(), Calendar::default());
            kept.0.absorb(instances, is_open);
            kept.1.absorb(tombstones, is_closed);
            let mut timers = lock(timers);
            timers.instances.absorb(kept.0, |_| true);
            timers.tombstones.absorb(kept.1, |_| true);
        }
        lock(&self.claims).give_back();
        self.slots.shrink_to_fit();
        self.reckon_own_tables();
    }

    /// As many of the open instances as have to go, those that are to go first at the end.
    fn choose_victims(&self, now: Arrival, rules: &impl Rules) -> Vec<Key> {
        let excess = self.limits.budget.excess(self.used());
        let is_enough = |freed: Used| freed.bytes >= excess.bytes && freed.instances >= excess.instances;
        let mut classes: BTreeMap<Class, Used> = BTreeMap::new();
        self.for_each_open(|_, instance| {
            classes.entry(class_of(instance, now, rules)).or_default().add(freed_with(instance));
        });
        // All of the classes before the last one go, and of that as many as are needed.
        let (mut freed, mut last) = (Used::default(), None);
        for (class, in_it) in classes {
            last = Some(class);
            let with_it =
                Used { bytes: freed.bytes + in_it.bytes, instances: freed.instances + in_it.instances };
            if is_enough(with_it) || with_it.instances >= MOST_VICTIMS {
                break;
            }
            freed = with_it;
        }
        let mut victims: Vec<(Class, Key)> = Vec::new();
        self.for_each_open(|key, instance| {
            let class = class_of(instance, now, rules);
            let is_needed = Some(class) == last && !is_enough(freed) && freed.instances < MOST_VICTIMS;
            if is_needed {
                freed.add(freed_with(instance));
            }
            if is_needed || Some(class) < last {
                victims.push((class, key.clone()));
            }
        });
        victims.sort_unstable_by_key(|(class, _)| std::cmp::Reverse(*class));
        victims.into_iter().map(|(_, key)| key).collect()
    }

    fn for_each_open(&self, mut look: impl FnMut(&Key, &Instance)) {
        for slot in &self.slots {
            if let Slot::Open(instance) = slot.value() {
                look(slot.key(), instance);
            }
        }
    }

    /// Whether folding an instance frees most of what it takes.
    fn is_better_folded(&self, key: &Key, rules: &impl Rules) -> bool {
        match self.slots.get(key).as_deref() {
            Some(Slot::Open(instance)) => {
                may_fold(instance.flow(), rules) && !instance.has_joints() && instance.is_mostly_facts()
            }
            _ => false,
        }
    }

    fn fold_early(&self, key: &Key, effects: &mut Effects) {
        let mut slot = self.slots.get_mut(key);
        let Some(Slot::Open(instance)) = slot.as_deref_mut() else { return };
        effects.bytes_change += self.fold(instance, Arc::clone(instance.flow()));
    }

    /// Adds what a batch changed of the weight of open instances.
    pub(super) fn weighed(&self, effects: &Effects) {
        self.bytes.fetch_add(effects.bytes_change, Relaxed);
    }
}

fn class_of(instance: &Instance, now: Arrival, rules: &impl Rules) -> Class {
    (Worth::of(instance, now, rules), std::cmp::Reverse(instance.weight().max(1).ilog2()))
}

/// What ending an instance frees at least: what it takes itself, without the facts of its events, which may be others' as well.
/// A tombstone stays.
fn freed_with(instance: &Instance) -> u64 {
    u64::from(instance.weight()).saturating_sub(footprint::array::<Tombstone>(1) as u64)
}
