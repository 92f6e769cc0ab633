//! The open instances and the tombstones of closed ones, found by key, and the timers that wake them.
//!
//! Owns every lock on them and gives out values only, never guards. Knows no clock: both ways to end an instance,
//! an event ([`Aggregator::ingest`]) and the timer ([`Aggregator::sweep`]), are handed the time and return what was
//! closed through the one function that closes, `Aggregator::finish`, so that nothing is observed twice.

mod budget;
mod calendar;
mod changes;
mod claims;
mod effects;
mod failures;
mod groups;
mod judging;
mod memory;
mod remembered;
mod stored;
mod tombstones;

use std::hash::BuildHasher;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::domain::batch::{Batch, Events, Run};
use crate::domain::event::{Event, Flags};
use crate::domain::flow::Flow;
use crate::domain::footprint;
use crate::domain::ids::{FlowId, Key};
use crate::domain::instance::{Instance, Look, Recorded, Rules};
use crate::domain::joining::Joint;
use crate::domain::result::{Finished, Reason};
use crate::domain::time::Arrival;
use crate::domain::tombstone::Tombstone;
pub use budget::{Budget, Pressure};
use calendar::Calendar;
pub use changes::Changes;
use claims::Claims;
use effects::Round;
pub use effects::{Effects, Late};
use failures::attempt;
use judging::plan;
pub use memory::Relief;
use memory::Victims;
use remembered::Remembered;
pub use stored::Seed;
use tombstones::{NO_FLOW, meet_tombstone};

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What may be kept in all; events of instances beyond it are refused.
    pub budget: Budget,
    /// Tombstones; the ones that expire first make room.
    pub tombstones: usize,
    /// Keys of closed traces that are remembered after their tombstone expired.
    pub remembered: usize,
    /// Traces that one instance may consist of, and traces that may name the same other.
    pub traces_per_instance: usize,
    /// Links and key values that one trace may carry.
    pub links_per_trace: usize,
}

/// What is kept at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Population {
    /// Open instances, stubs included.
    pub open: u64,
    /// Of these, stubs.
    pub stubs: u64,
    /// Events in open instances.
    pub events: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes of all this and of what goes with it, and how many there may be.
    pub memory_bytes: u64,
    pub memory_limit_bytes: u64,
    /// What is done about it.
    pub pressure: Pressure,
}

/// The open instances and the tombstones of closed ones.
#[derive(Debug)]
pub struct Aggregator {
    slots: DashMap<Key, Slot, foldhash::quality::SeedableRandomState>,
    /// When to look at which key; a key's shard follows from its hash.
    timers: Box<[Mutex<Timers>]>,
    /// Which open instances name which others. Taken before any slot's lock.
    claims: Mutex<Claims>,
    /// How many instances claim anything.
    claimants: AtomicUsize,
    limits: Limits,
    /// The last time at which events may have been lost: the start of the process, or a refusal since.
    loss: AtomicU64,
    open: AtomicU64,
    stubs: AtomicU64,
    events: AtomicU64,
    tombstones: AtomicU64,
    /// What open instances take, as they were weighed last.
    bytes: AtomicI64,
    /// What the tables take, as they were reckoned last.
    tables: AtomicU64,
    /// What is kept of instances elsewhere, likewise.
    others: AtomicU64,
    /// What is done about how much is kept, and since when.
    pressure: Mutex<(Pressure, Arrival)>,
    /// Whether that is to refuse requests.
    refuses: AtomicBool,
    /// Whether all is done again elsewhere, so that nothing may depend on the memory of this machine.
    is_repeated: bool,
    victims: Mutex<Victims>,
    /// When [`Self::give_back`] looked last.
    looked_for_room: AtomicU64,
}

#[derive(Debug)]
enum Slot {
    Open(Box<Instance>),
    Closed(Box<Tombstone>),
}

impl Slot {
    /// Puts a tombstone in the place of an open instance and hands the instance out, for whoever ends it.
    fn take_out(&mut self, now: Arrival) -> Option<Box<Instance>> {
        let Slot::Open(instance) = self else {
            return None;
        };
        let grave = instance.grave(now);
        match std::mem::replace(self, Slot::Closed(Box::new(grave))) {
            Slot::Open(instance) => Some(instance),
            Slot::Closed(_) => None,
        }
    }

    /// When its tombstone expires, if it is one.
    fn expires(&self) -> Option<Arrival> {
        match self {
            Slot::Open(_) => None,
            Slot::Closed(tombstone) => Some(tombstone.expires),
        }
    }
}

/// What a request brings to one instance.
#[derive(Debug)]
struct Brought<'a> {
    runs: &'a [Run],
    /// Which of the runs are its own, each with the hash of its key.
    places: &'a [(u64, usize)],
    events: &'a mut Events,
    /// How many events have been taken out that are counted here.
    taken: u64,
}

impl Brought<'_> {
    fn count(&self) -> usize {
        self.places.iter().map(|(_, place)| self.runs[*place].length).sum()
    }

    /// Takes out each event in turn, with what it says about where its trace belongs.
    fn each(&mut self, mut take: impl FnMut(Event, &[Joint])) {
        let Brought { runs, places, events, taken } = self;
        for run in places.iter().map(|(_, place)| &runs[*place]) {
            for place in run.first..run.first + run.length {
                if let Some((event, joints)) = events.take(place) {
                    *taken += u64::from(!event.flags.has(Flags::COPY));
                    take(event, joints);
                }
            }
        }
    }

    /// The same for those that are counted here; a copy is counted where its home is.
    fn each_counted(&mut self, mut take: impl FnMut(&Event)) {
        self.each(|event, _| {
            if !event.flags.has(Flags::COPY) {
                take(&event);
            }
        });
    }
}

/// One part of the keys' timers; which one is decided by the key's hash.
#[derive(Debug)]
struct Timers {
    /// When open instances have to be looked at.
    instances: Calendar,
    /// When tombstones expire.
    tombstones: Calendar,
    /// Traces whose tombstones have expired.
    remembered: Remembered,
}

/// A part of the map is locked while it grows, so they are many and small.
const SLOT_SHARDS: usize = 1024;

/// How often it is looked whether the map is far larger than what it holds, and what far larger is.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(10);
const SPARE_ROOM: u64 = 16;
/// The same when memory is short.
const SPARE_ROOM_WHEN_SHORT: u64 = 2;

/// The part of the budget that tombstones and remembered keys may take, as a divisor.
const TOMBSTONES_SHARE: u64 = 8;
const REMEMBERED_SHARE: u64 = 16;

/// Enough that two ingesting threads and the sweep rarely meet.
const TIMER_SHARDS: usize = 64;

/// A large instance is not looked at more often than that, whatever comes: each event may say that it ends at once.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// At how many instances is looked ahead: about as many lines as a processor waits for at a time.
const LOOK_AHEAD: usize = 16;

/// How long the key of a closed trace is remembered at least, if there is room.
const REMEMBER: Duration = Duration::from_secs(3600);

impl Aggregator {
    /// An empty aggregator.
    pub fn new(limits: Limits) -> Self {
        let fit = |share: u64, each: usize| {
            usize::try_from(limits.budget.bytes / share / each as u64).unwrap_or(usize::MAX)
        };
        let tombstone = footprint::array::<Tombstone>(1) + footprint::table::<Key, Slot>(7) / 7;
        let limits = Limits {
            tombstones: limits.tombstones.min(fit(TOMBSTONES_SHARE, tombstone)),
            remembered: limits.remembered.min(fit(REMEMBERED_SHARE, footprint::table::<u64, FlowId>(7) / 7)),
            ..limits
        };
        Aggregator {
            slots: DashMap::with_hasher_and_shard_amount(Default::default(), SLOT_SHARDS),
            timers: (0..TIMER_SHARDS)
                .map(|_| Mutex::new(Timers::new(limits.remembered / TIMER_SHARDS)))
                .collect(),
            claims: Mutex::default(),
            claimants: AtomicUsize::new(0),
            limits,
            loss: AtomicU64::new(Arrival::ORIGIN.nanoseconds()),
            open: AtomicU64::new(0),
            stubs: AtomicU64::new(0),
            events: AtomicU64::new(0),
            tombstones: AtomicU64::new(0),
            bytes: AtomicI64::new(0),
            tables: AtomicU64::new(0),
            others: AtomicU64::new(0),
            pressure: Mutex::new((Pressure::None, Arrival::ORIGIN)),
            refuses: AtomicBool::new(false),
            is_repeated: false,
            victims: Mutex::default(),
            looked_for_room: AtomicU64::new(0),
        }
    }

    /// What is kept at this moment.
    pub fn population(&self) -> Population {
        Population {
            open: self.open.load(Relaxed),
            stubs: self.stubs.load(Relaxed),
            events: self.events.load(Relaxed),
            tombstones: self.tombstones.load(Relaxed),
            memory_bytes: self.used().bytes,
            memory_limit_bytes: self.limits.budget.bytes,
            pressure: self.pressure(),
        }
    }

    /// Applies a whole request, then closes what it ended.
    pub fn ingest(&self, batch: Batch, now: Arrival, rules: &impl Rules) -> Effects {
        let mut round = Round::new(now, rules);
        let (mut due, mut targets) = (Vec::new(), Vec::new());
        let (runs, mut events) = batch.into_parts();
        let order = self.by_hash(&runs);
        for same in order.chunk_by(|a, b| a.0 == b.0 && runs[a.1].key == runs[b.1].key) {
            let (hash, key) = (same[0].0, &runs[same[0].1].key);
            let mut brought = Brought { runs: &runs, places: same, events: &mut events, taken: 0 };
            let counted = round.effects.counted();
            let applied = attempt(|| {
                let wake = self.apply(key, hash, &mut brought, &mut round, &mut targets);
                if !targets.is_empty() {
                    self.claim(key, &targets, now, &mut round.effects);
                }
                wake
            });
            targets.clear();
            match applied {
                Some(Some(wake)) if wake <= now => due.push((key.clone(), hash)),
                Some(Some(wake)) => self.timers(hash).instances.add(wake, key.clone()),
                Some(None) => {}
                None => {
                    // What had not been taken out is taken, only to be counted.
                    brought.each(|_, _| {});
                    let more = brought.taken - (round.effects.counted() - counted);
                    self.give_up(key, more, &mut round);
                }
            }
        }
        for (key, hash) in due {
            self.judge(key, hash, &mut round);
        }
        self.end_round(round)
    }

    /// What comes of a round that is over.
    fn end_round(&self, round: Round<'_, impl Rules>) -> Effects {
        let Round { now, mut effects, .. } = round;
        self.weighed(&effects);
        effects.pressure = self.feel_pressure(now);
        effects
    }

    /// The places of the runs with the hashes of their keys, those of one instance side by side and in the order in which
    /// they came.
    fn by_hash(&self, runs: &[Run]) -> Vec<(u64, usize)> {
        let hashed = runs.iter().enumerate().map(|(place, run)| (self.hash(&run.key), place));
        let mut order: Vec<(u64, usize)> = hashed.collect();
        order.sort_unstable();
        order
    }

    /// Records the events of one instance; returns when to look at it, if that is sooner than planned. What it newly
    /// claims goes to `targets`.
    fn apply(
        &self,
        key: &Key,
        hash: u64,
        brought: &mut Brought<'_>,
        round: &mut Round<'_, impl Rules>,
        targets: &mut Vec<Key>,
    ) -> Option<Arrival> {
        let mut slot = match self.slots.entry(key.clone()) {
            Entry::Occupied(slot) => slot.into_ref(),
            Entry::Vacant(slot) => {
                if let Some(flow) = self.recall(hash, round.now) {
                    brought.each_counted(|event| match flow {
                        NO_FLOW => round.effects.unmatched += 1,
                        flow => round.effects.late.push(Late::of(flow, event, None)),
                    });
                    return None;
                }
                if self.open.load(Relaxed) >= self.limits.budget.instances {
                    brought.each_counted(|_| round.effects.over_limit += 1);
                    self.loss.fetch_max(round.now.nanoseconds(), Relaxed);
                    return None;
                }
                let instance = Instance::new(slot.key(), round.now, round.rules);
                self.opened(&instance, &mut round.effects);
                slot.insert(Slot::Open(Box::new(instance)))
            }
        };
        if let Slot::Closed(tombstone) = slot.value_mut() {
            if tombstone.remember || round.now < tombstone.expires {
                meet_tombstone(tombstone, brought, round);
                return None;
            }
            // Its time is over, only the sweep has not come by yet: a new instance.
            let instance = Instance::new(slot.key(), round.now, round.rules);
            self.tombstones.fetch_sub(1, Relaxed);
            self.opened(&instance, &mut round.effects);
            *slot.value_mut() = Slot::Open(Box::new(instance));
        }
        let (key, slot) = slot.pair_mut();
        let Slot::Open(instance) = slot else {
            return None;
        };
        instance.expect(brought.count());
        let mut joints = Vec::new();
        let anything_new = self.record(instance, brought, round, &mut joints);
        round.effects.bytes_change += instance.weigh();
        targets.extend(joints.iter().map(|joint| joint.target(key)));
        if !anything_new && instance.wake != Arrival::ORIGIN {
            return None;
        }
        let earliest_end = instance.earliest_end();
        let is_planned = instance.wake != Arrival::ORIGIN;
        instance.due = if is_planned { instance.due.min(earliest_end) } else { earliest_end };
        let wake = instance.overdue_at().map_or(instance.due, |at| at.min(instance.due));
        let wake = if instance.is_large() { wake.max(round.now.plus(LOOK_INTERVAL)) } else { wake };
        if instance.wake != Arrival::ORIGIN && instance.wake <= wake {
            return None;
        }
        instance.planned = instance.planned.max(wake);
        instance.wake = wake;
        Some(wake)
    }

    fn opened(&self, instance: &Instance, effects: &mut Effects) {
        self.open.fetch_add(1, Relaxed);
        effects.open_change.add(instance.flow().id, 1);
        effects.opened += 1;
    }

    fn record(
        &self,
        instance: &mut Instance,
        brought: &mut Brought<'_>,
        round: &mut Round<'_, impl Rules>,
        new_joints: &mut Vec<Joint>,
    ) -> bool {
        let was_overdue = instance.is_overdue();
        let (flow_before, before) = (instance.flow().id, round.effects.new);
        let record_all = || self.record_all(instance, brought, round, new_joints);
        let recorded = catch_unwind(AssertUnwindSafe(record_all));
        // Also when that panicked: what came before is to be counted.
        let flow = instance.flow().id;
        if flow != flow_before {
            round.effects.open_change.shift(flow_before, flow);
        }
        // Another flow makes another promise, even when it is the same one again at the end of the batch.
        if was_overdue && !instance.is_overdue() {
            round.effects.overdue_change.add(flow_before, -1);
        }
        self.events.fetch_add(round.effects.new - before, Relaxed);
        // An instance keeps far fewer.
        instance.counted_events += (round.effects.new - before) as u32;
        self.count_stub(instance);
        recorded.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Returns whether any of the events says something new.
    fn record_all(
        &self,
        instance: &mut Instance,
        brought: &mut Brought<'_>,
        round: &mut Round<'_, impl Rules>,
        new_joints: &mut Vec<Joint>,
    ) -> bool {
        let mut anything_new = false;
        brought.each(|event, joints| {
            if !joints.is_empty() {
                let limit = self.limits.links_per_trace;
                round.effects.joints_over_limit +=
                    instance.join(event.span, joints, limit, round.rules, new_joints);
            }
            // A copy is counted where its home is.
            let one = u64::from(!event.flags.has(Flags::COPY));
            let recorded = instance.record(event, round.now, round.rules);
            anything_new |= !matches!(recorded, Recorded::Duplicate | Recorded::Conflict);
            match recorded {
                Recorded::New => round.effects.new += one,
                Recorded::NewAfterFolding => {
                    round.effects.new += one;
                    round.effects.after_folding += one;
                }
                Recorded::Duplicate => round.effects.duplicates += one,
                Recorded::Conflict => {
                    round.effects.duplicates += one;
                    round.effects.conflicts += one;
                }
                Recorded::OverLimit => round.effects.over_limit += one,
            }
        });
        instance.settle_flow(round.rules);
        anything_new
    }

    /// Keeps a stub of an instance, as one of `flow`; returns by how many bytes that makes it heavier.
    fn fold(&self, instance: &mut Instance, flow: Arc<Flow>) -> i64 {
        instance.fold_as(flow);
        self.count_stub(instance);
        instance.weigh()
    }

    /// Counts an instance as a stub once it is one.
    fn count_stub(&self, instance: &mut Instance) {
        let is_news = instance.is_stub() && !std::mem::replace(&mut instance.counted_as_stub, true);
        self.stubs.fetch_add(u64::from(is_news), Relaxed);
    }

    /// Closes what is due at `now`, and looks at no other instance. Returns what happened and whether more is due:
    /// a call looks at `limit` keys at most, so that a burst does not hold up its caller.
    pub fn sweep(&self, now: Arrival, limit: usize, rules: &impl Rules) -> (Effects, bool) {
        let mut round = Round::new(now, rules);
        let mut budget = limit;
        for timers in &self.timers {
            let due = lock(timers).instances.take_due(now, budget);
            budget -= due.len();
            self.for_each_ahead(due, |key| {
                let hash = self.hash(&key);
                self.judge(key, hash, &mut round);
            });
            let expired = lock(timers).tombstones.take_due(now, budget);
            budget -= expired.len();
            self.for_each_ahead(expired, |key| self.bury(key, now));
            if budget == 0 {
                break;
            }
        }
        if budget > 0 {
            self.make_room_for_tombstones(now, &mut round.effects);
            self.give_back(now);
        }
        (self.end_round(round), budget == 0)
    }

    /// Deals with these keys in turn, and before that looks at what is found by the next ones: what is not in the processor's
    /// cache is so waited for side by side, and not for one key after the other, which is what a sweep takes most of its time
    /// for.
    fn for_each_ahead(&self, keys: Vec<Key>, mut deal: impl FnMut(Key)) {
        let mut keys = keys.into_iter();
        while !keys.as_slice().is_empty() {
            self.look_at(keys.as_slice().iter().take(LOOK_AHEAD));
            keys.by_ref().take(LOOK_AHEAD).for_each(&mut deal);
        }
    }

    /// Looks at what is found by these keys, and does nothing with it.
    fn look_at<'k>(&self, keys: impl Iterator<Item = &'k Key>) {
        let look = |key| match self.slots.get(key).as_deref() {
            Some(Slot::Open(instance)) => instance.glance(),
            Some(Slot::Closed(tombstone)) => tombstone.expires.nanoseconds(),
            None => 0,
        };
        // What follows from nothing would not be looked at.
        black_box(keys.map(look).fold(0, u64::wrapping_add));
    }

    /// Gives back the room that a burst took in the map, some time after it is over.
    fn give_back(&self, now: Arrival) {
        let looked_at = Arrival::since_origin(Duration::from_nanos(self.looked_for_room.load(Relaxed)));
        if now.since(looked_at) < LOOK_FOR_ROOM {
            return;
        }
        self.looked_for_room.store(now.nanoseconds(), Relaxed);
        let used = self.open.load(Relaxed) + self.tombstones.load(Relaxed);
        let spare_room = if self.refuses.load(Relaxed) { SPARE_ROOM_WHEN_SHORT } else { SPARE_ROOM };
        if self.slots.capacity() as u64 > spare_room * used.max(SLOT_SHARDS as u64) {
            self.slots.shrink_to_fit();
        }
    }

    /// The only place where an instance becomes a result. It has been taken out of the map: no one else has it.
    fn finish(
        &self,
        key: Key,
        hash: u64,
        instance: Instance,
        reason: Reason,
        look: Option<Look>,
        round: &mut Round<'_, impl Rules>,
    ) {
        self.no_longer_open(&instance, &mut round.effects);
        if instance.has_joints() {
            // They may have been registered after it was found that nothing concerns it.
            let mut claims = lock(&self.claims);
            claims.forget(&key);
            self.claimants.store(claims.len(), Relaxed);
        }
        let (flow, events) = (Arc::clone(instance.flow()), u64::from(instance.counted_events));
        let closed =
            attempt(|| instance.close(key.clone(), reason, look, round.now, self.last_loss(), round.rules));
        let (finished, extent) = closed.unwrap_or_else(|| {
            round.effects.panics += 1;
            (Finished::given_up(flow, key.clone(), events, round.now, round.rules), None)
        });
        self.tombstones.fetch_add(1, Relaxed);
        if let Some(expires) = self.inscribe(&key, &finished, extent) {
            self.timers(hash).tombstones.add(expires, key);
        }
        round.effects.finished.push(finished);
    }

    /// Takes an instance out of what is counted of open ones.
    fn no_longer_open(&self, instance: &Instance, effects: &mut Effects) {
        self.open.fetch_sub(1, Relaxed);
        effects.bytes_change -= i64::from(instance.weight());
        effects.open_change.add(instance.flow().id, -1);
        effects.overdue_change.add(instance.flow().id, -i64::from(instance.is_overdue()));
        self.stubs.fetch_sub(u64::from(instance.counted_as_stub), Relaxed);
        self.events.fetch_sub(u64::from(instance.counted_events), Relaxed);
    }

    /// The last time at which events may have been lost.
    fn last_loss(&self) -> Arrival {
        Arrival::since_origin(Duration::from_nanos(self.loss.load(Relaxed)))
    }

    /// Looks at an open instance again at `until`, or sooner if something came to it since its news were taken.
    fn wait(&self, key: &Key, until: Arrival, now: Arrival) {
        let plan = match self.slots.get_mut(key).as_deref_mut() {
            Some(Slot::Open(instance)) if instance.has_news() => {
                let soonest = instance.earliest_end().min(until);
                plan(instance, soonest, now)
            }
            Some(Slot::Open(instance)) => plan(instance, until, now),
            _ => None,
        };
        if let Some(until) = plan {
            self.timers(self.hash(key)).instances.add(until, key.clone());
        }
    }

    fn hash(&self, key: &Key) -> u64 {
        self.slots.hasher().hash_one(key)
    }

    /// The earliest moment at which an open instance has to be looked at.
    pub fn next_due(&self) -> Option<Arrival> {
        self.timers.iter().filter_map(|timers| lock(timers).instances.first()).min()
    }

    /// Ends everything: what shows that it has ended closes normally, the rest as `evicted`.
    pub fn close_all(&self, now: Arrival, rules: &impl Rules) -> Effects {
        let mut round = Round::new(now, rules);
        let is_open = |slot: &Slot| matches!(slot, Slot::Open(_));
        let open: Vec<Key> =
            self.slots.iter().filter(|slot| is_open(slot.value())).map(|slot| slot.key().clone()).collect();
        self.end_early(open, Reason::Shutdown, &mut round);
        self.weighed(&round.effects);
        round.effects
    }

    /// Ends instances, which end normally where something shows that they have, else for the reason `otherwise`.
    fn end_early(&self, keys: Vec<Key>, otherwise: Reason, round: &mut Round<'_, impl Rules>) {
        self.close_joined(&keys, otherwise, round);
        for key in keys {
            if attempt(|| self.end_one_early(&key, otherwise, round)).is_none() {
                self.give_up(&key, 0, round);
            }
        }
    }

    fn end_one_early(&self, key: &Key, otherwise: Reason, round: &mut Round<'_, impl Rules>) {
        let Some(mut slot) = self.slots.get_mut(key) else {
            return;
        };
        let Slot::Open(instance) = slot.value_mut() else {
            return;
        };
        let reason = instance.ended(key, round.now).unwrap_or(otherwise);
        // It is closed early, not late.
        instance.hasten(round.now);
        let taken = slot.value_mut().take_out(round.now);
        drop(slot);
        if let Some(instance) = taken {
            self.finish(key.clone(), self.hash(key), *instance, reason, None, round);
        }
    }

    fn timers(&self, hash: u64) -> MutexGuard<'_, Timers> {
        lock(&self.timers[hash as usize % self.timers.len()])
    }
}

impl Timers {
    fn new(remembered: usize) -> Self {
        Timers {
            instances: Calendar::default(),
            tombstones: Calendar::default(),
            remembered: Remembered::new(remembered, REMEMBER),
        }
    }

    fn bytes(&self) -> usize {
        self.instances.bytes() + self.tombstones.bytes() + self.remembered.bytes()
    }
}

/// A lock on plain data that no panic can leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
