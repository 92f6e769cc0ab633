//! Instances that consist of several traces: looking at them as one, and ending them together.
//!
//! Everything here happens under the one lock on the [`Claims`], which is taken before any slot's lock. Traces that are
//! neither linked nor carry a key take it only to see that nobody claims them, and that only while anybody claims
//! anything.
//!
//! A group is looked at once for all its traces: what was found is noted with each of them. What several groups share is
//! looked at for the sake of all of these only if something came to it since; else each group has its own time.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::claims::Claims;
use super::effects::{Effects, Late, Round};
use super::failures::attempt;
use super::{Aggregator, Slot, lock};
use crate::domain::completion::Verdict;
use crate::domain::event::{Event, Flags};
use crate::domain::flow::Flow;
use crate::domain::gathering::{End, EndingAs, Gathering, Role, end_divided, flow_of};
use crate::domain::ids::{FlowId, Key};
use crate::domain::instance::{Instance, Rules};
use crate::domain::joining::{Claim, Group, MAX_DEPTH, Standing, Traces, claim_of, group_of, groups_of};
use crate::domain::result::{Finished, Forecast, Reason};
use crate::domain::time::Arrival;
use crate::domain::tombstone::{Lateness, Tombstone};

/// How long it takes at most, in words of the calendar, until a claim is known that an event brings.
const ALMOST_KNOWN: Duration = Duration::from_millis(100);

/// A look at instances that are joined.
struct Joined<'a, 'r, R> {
    aggregator: &'a Aggregator,
    claims: &'a mut Claims,
    round: &'a mut Round<'r, R>,
    /// Instances to look at once more, for one that they were part of has ended.
    again: BTreeSet<Key>,
    /// Instances that panicked, to be given up when the lock on the claims is free.
    failed: Vec<Key>,
}

impl Traces for (&Aggregator, &Claims, Arrival) {
    fn standing(&self, key: &Key) -> Standing {
        let (aggregator, _, now) = self;
        match aggregator.slots.get(key).as_deref() {
            Some(Slot::Open(instance)) => Standing::Open(instance.claim(key)),
            Some(Slot::Closed(tombstone)) if tombstone.remember || *now < tombstone.expires => {
                Standing::Closed
            }
            Some(Slot::Closed(_)) => Standing::Unknown,
            None if aggregator.recall(aggregator.hash(key), *now).is_some() => Standing::Closed,
            None => Standing::Unknown,
        }
    }

    fn claimants(&self, key: &Key) -> Vec<Key> {
        self.1.of(key).to_vec()
    }
}

impl Aggregator {
    /// Registers what an open instance claims; what finds no room is taken back and counted.
    pub(super) fn claim(&self, claimant: &Key, targets: &[Key], now: Arrival, effects: &mut Effects) {
        let mut claims = lock(&self.claims);
        // With a value of its own it no longer belongs with what it is linked to: that may not have to wait any more.
        if targets.iter().any(|target| matches!(target, Key::Named { .. }))
            && let [left] = claims.by(claimant)
        {
            self.wait(left, now, now);
        }
        let mut slot = self.slots.get_mut(claimant);
        // It may have been ended meanwhile.
        let Some(Slot::Open(instance)) = slot.as_deref_mut() else { return };
        for target in targets.iter().filter(|target| *target != claimant) {
            if !claims.add(claimant, target, self.limits.traces_per_instance) {
                effects.joints_over_limit += instance.disown(claimant, target);
            }
        }
        self.claimants.store(claims.len(), Relaxed);
    }

    /// Looks at an instance that may be joined with others. Returns whether that was so; if not, nothing has happened.
    pub(super) fn judge_joined(&self, key: &Key, round: &mut Round<'_, impl Rules>) -> bool {
        if self.claimants.load(Relaxed) == 0 {
            return false;
        }
        let claims = lock(&self.claims);
        if !claims.concern(key) {
            return false;
        }
        self.look_at_joined(claims, round, |joined| joined.attempt(key, |joined| joined.judge(key)));
        true
    }

    /// Whether an instance may be joined with others.
    pub(super) fn is_claimed(&self, key: &Key) -> bool {
        self.claimants.load(Relaxed) > 0 && lock(&self.claims).concern(key)
    }

    /// The open instance that is found by `key`, or that the trace `key` is part of, as it stands; none if there is none,
    /// or no flow takes it.
    pub fn forecast(&self, key: &Key, now: Arrival, rules: &impl Rules) -> Option<Forecast> {
        let mut claims = lock(&self.claims);
        let mut round = Round::new(now, rules);
        let mut joined = Joined::new(self, &mut claims, &mut round);
        let (group, flow) = joined.group(key);
        let exists = !group.members.is_empty() || !group.parts.is_empty();
        let gathering = joined.gather(&group, flow);
        exists.then_some(gathering)?.forecast(now, rules)
    }

    /// Ends those of the instances `open` that are joined with others, together with these.
    pub(super) fn close_joined(&self, open: &[Key], otherwise: Reason, round: &mut Round<'_, impl Rules>) {
        let claims = lock(&self.claims);
        let mut concerned: Vec<Key> = open.iter().filter(|key| claims.concern(key)).cloned().collect();
        self.look_at_joined(claims, round, |joined| {
            // Batches and divided traces go last: they are parts of others.
            let is_shared =
                |key: &Key| joined.claim(key).is_some_and(|claim| claim.is_batch() || claim.is_split());
            concerned.sort_by_cached_key(|key| (is_shared(key), key.clone()));
            for key in concerned {
                joined.attempt(&key, |joined| joined.end_early(&key, otherwise));
            }
        });
    }

    /// Looks at instances that are joined, and then at those that waited for what has ended thereby. Gives the lock on the
    /// claims back before it gives up what panicked.
    fn look_at_joined<'r, R: Rules>(
        &self,
        mut claims: MutexGuard<'_, Claims>,
        round: &mut Round<'r, R>,
        look: impl FnOnce(&mut Joined<'_, 'r, R>),
    ) {
        let mut joined = Joined::new(self, &mut claims, round);
        look(&mut joined);
        joined.judge_again();
        let failed = joined.failed;
        self.claimants.store(claims.len(), Relaxed);
        drop(claims);
        for key in &failed {
            // Of their events none is under way.
            self.give_up(key, 0, round);
        }
    }
}

impl<'a, 'r, R: Rules> Joined<'a, 'r, R> {
    fn new(aggregator: &'a Aggregator, claims: &'a mut Claims, round: &'a mut Round<'r, R>) -> Self {
        Joined { aggregator, claims, round, again: BTreeSet::new(), failed: Vec::new() }
    }

    /// Does something for the sake of one instance, which is to be given up if that panics.
    fn attempt(&mut self, key: &Key, work: impl FnOnce(&mut Self)) {
        if attempt(|| work(self)).is_none() {
            self.failed.push(key.clone());
        }
    }

    fn traces(&self) -> (&Aggregator, &Claims, Arrival) {
        (self.aggregator, self.claims, self.round.now)
    }

    fn standing(&self, key: &Key) -> Standing {
        self.traces().standing(key)
    }

    fn is_open(&self, key: &Key) -> bool {
        matches!(self.aggregator.slots.get(key).as_deref(), Some(Slot::Open(_)))
    }

    fn claim(&self, key: &Key) -> Option<Arc<Claim>> {
        claim_of(key, &self.traces(), self.aggregator.limits.traces_per_instance)
    }

    /// The group that an instance belongs to and its flow.
    fn group(&mut self, key: &Key) -> (Group, Arc<Flow>) {
        let group = group_of(key, &self.traces(), self.aggregator.limits.traces_per_instance);
        let flow = self.flow_of(&group);
        self.round.effects.joints_over_limit += u64::from(group.is_cut);
        (group, flow)
    }

    fn flow_of(&self, group: &Group) -> Arc<Flow> {
        let all = group.members.iter().chain(&group.parts).chain(&group.tails);
        let seen = all.filter_map(|key| self.with(key, |instance| instance.seen_as()));
        flow_of(seen).unwrap_or_else(|| Arc::clone(self.round.rules.unmatched()))
    }

    /// Reads an open instance.
    fn with<T>(&self, key: &Key, read: impl FnOnce(&mut Instance) -> T) -> Option<T> {
        match self.aggregator.slots.get_mut(key).as_deref_mut() {
            Some(Slot::Open(instance)) => Some(read(instance)),
            _ => None,
        }
    }

    /// Decides about an instance whose time may have come.
    fn judge(&mut self, key: &Key) {
        let now = self.round.now;
        let seen = self.with(key, |instance| {
            let wakes = instance.wake <= now;
            let overdue = wakes && instance.note_overdue(now);
            (wakes, instance.due, overdue.then(|| instance.flow().id))
        });
        let Some((true, due, overdue)) = seen else { return };
        if let Some(flow) = overdue {
            self.round.effects.overdue_change.add(flow, 1);
        }
        if due > now {
            return self.aggregator.wait(key, due, now);
        }
        let Some(claim) = self.claim(key) else { return };
        if claim.is_split() {
            return self.judge_divided(key, &claim);
        }
        let (group, flow) = self.group(key);
        if group.is_late {
            return self.end_late(&group);
        }
        // Also its own, should its group have no room for it.
        if self.take_news(group.members.iter().chain([key])) {
            self.judge_heads(&group);
        }
        match self.judge_group(&group, flow) {
            // Also if its group has no room for it.
            Some(until) => self.aggregator.wait(key, until, self.round.now),
            // That group ended without it; what is left of it is another one.
            None if self.is_open(key) => _ = self.again.insert(key.clone()),
            None => {}
        }
    }

    /// Looks at those again that waited for what has ended.
    fn judge_again(&mut self) {
        while let Some(key) = self.again.pop_first() {
            self.attempt(&key, |joined| {
                if joined.is_released(&key) {
                    let now = joined.round.now;
                    joined.with(&key, |instance| instance.hasten(now));
                    joined.judge(&key);
                }
            });
        }
    }

    /// Whether anything came to one of `keys` since this was asked last.
    fn take_news<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> bool {
        let take = |any, key| any | self.with(key, Instance::take_news).unwrap_or_default();
        keys.into_iter().fold(false, take)
    }

    /// Decides about the instances that a batch is the tail of, for what came to it came to them.
    fn judge_heads(&mut self, group: &Group) {
        let mut waiting = self.heads(group);
        let mut seen: BTreeSet<Key> = group.members.iter().cloned().collect();
        let mut looks = 0;
        let most = self.aggregator.limits.links_per_trace.saturating_mul(MAX_DEPTH);
        while let Some(head) = waiting.pop().filter(|_| looks < most) {
            // One that is divided is no head of this batch: nobody knows with which part of it the batch goes on.
            let is_whole = self.claim(&head).is_some_and(|claim| !claim.is_split());
            if !is_whole || !seen.insert(head.clone()) {
                continue;
            }
            looks += 1;
            let (group, flow) = self.group(&head);
            let further = self.heads(&group);
            if further.is_empty() && !group.is_late {
                self.take_news(&group.members);
                self.judge_group(&group, flow);
            }
            seen.extend(group.members);
            waiting.extend(further);
        }
    }

    /// Whether what an instance waited for with others is over.
    fn is_released(&mut self, key: &Key) -> bool {
        let Some(claim) = self.claim(key) else { return false };
        if claim.is_split() {
            return self.awaited(key, &claim).next().is_none();
        }
        let (group, _) = self.group(key);
        self.heads(&group).is_empty()
    }

    /// The open traces that a batch took up the work of.
    fn heads(&self, group: &Group) -> Vec<Key> {
        let claim = self.claim(&group.key).filter(|claim| claim.is_batch());
        let mut heads = claim.map(|claim| claim.links.clone()).unwrap_or_default();
        heads.retain(|head| group.members.binary_search(head).is_err() && self.is_open(head));
        heads
    }

    /// Decides about a group; returns when to look again, unless it was over.
    fn judge_group(&mut self, group: &Group, flow: Arc<Flow>) -> Option<Arrival> {
        let until = self.decide(group, flow)?;
        for member in &group.members {
            self.aggregator.wait(member, until, self.round.now);
        }
        Some(until)
    }

    fn decide(&mut self, group: &Group, flow: Arc<Flow>) -> Option<Arrival> {
        let is_batch = self.claim(&group.key).is_some_and(|claim| claim.is_batch());
        if is_batch && !self.heads(group).is_empty() {
            let began = group.members.iter().filter_map(|key| self.with(key, |open| open.clocks().first));
            let age_limit = began.min().map(|first| first.plus(flow.timers.max_age));
            if let Some(age_limit) = age_limit.filter(|limit| self.round.now < *limit) {
                return Some(age_limit);
            }
        }
        let gathering = self.gather(group, flow);
        match gathering.judge(self.round.now) {
            Verdict::Close(reason) => {
                self.finish(group, gathering, reason);
                None
            }
            Verdict::Wait { until, fold } => {
                if fold && !is_batch {
                    self.fold(group, gathering.flow());
                }
                Some(until)
            }
        }
    }

    /// Decides about the instances that a divided trace is part of, and about the trace when these have ended.
    fn judge_divided(&mut self, key: &Key, claim: &Claim) {
        let has_news = self.take_news([key]);
        let limit = self.aggregator.limits.traces_per_instance;
        let mut next: Option<Arrival> = None;
        let mut last: Option<Arrival> = None;
        for group in groups_of(self.awaited(key, claim), &self.traces(), limit) {
            if !group.parts.contains(key) {
                // The value has just come, and it is not known yet that this trace carries it.
                next = next.max(Some(self.round.now.plus(ALMOST_KNOWN)));
                continue;
            }
            let due = group.members.iter().filter_map(|member| self.with(member, |open| open.due)).min();
            if let Some(due) = due.filter(|due| !has_news && *due > self.round.now) {
                // Its own traces look after it.
                last = last.max(Some(due));
                continue;
            }
            self.round.effects.joints_over_limit += u64::from(group.is_cut);
            let flow = self.flow_of(&group);
            self.take_news(&group.members);
            next = [next, self.judge_group(&group, flow)].into_iter().flatten().min();
        }
        match next.or(last) {
            Some(until) => self.aggregator.wait(key, until, self.round.now),
            None => self.end_divided(key),
        }
    }

    /// The values of a divided trace whose instances have not ended, with it or without it. Those that ended with it are
    /// not known by their tombstones alone, which are forgotten sooner or later.
    fn awaited<'c>(&self, key: &Key, claim: &'c Claim) -> impl Iterator<Item = &'c Key> {
        let is_observed = move |value| self.with(key, |instance| instance.was_observed_with(value));
        let awaited = claim.values.iter().filter(move |value| is_observed(value) != Some(true));
        awaited.filter(|value| self.standing(value) != Standing::Closed)
    }

    /// The traces of a group as one, with the flow as it is at this moment.
    fn gather(&self, group: &Group, flow: Arc<Flow>) -> Gathering {
        let mut gathering = Gathering::new(flow, group);
        for (keys, role) in
            [(&group.members, Role::Whole), (&group.parts, Role::Part), (&group.tails, Role::Tail)]
        {
            for key in keys {
                self.with(key, |instance| gathering.add(key, instance, role));
            }
        }
        gathering
    }

    fn fold(&mut self, group: &Group, flow: &Arc<Flow>) {
        if !crate::domain::instance::may_fold(flow, self.round.rules) {
            return;
        }
        for key in &group.members {
            let folded = self.with(key, |instance| {
                if !self.aggregator.folds(instance, self.round.rules) {
                    return None;
                }
                let (was_stub, before) = (instance.is_stub(), instance.flow().id);
                let was_overdue = instance.is_overdue();
                (!was_stub).then(|| (before, was_overdue, self.aggregator.fold(instance, Arc::clone(flow))))
            });
            let Some((before, was_overdue, heavier)) = folded.flatten() else { continue };
            self.round.effects.bytes_change += heavier;
            if before != flow.id {
                self.round.effects.open_change.shift(before, flow.id);
                if was_overdue {
                    self.round.effects.overdue_change.shift(before, flow.id);
                }
            }
        }
    }

    /// Ends a group: its members leave the map together, and become one result.
    fn finish(&mut self, group: &Group, gathering: Gathering, reason: Reason) {
        let unmatched = Arc::clone(self.round.rules.unmatched());
        let flow = Arc::clone(gathering.flow());
        drop(gathering);
        let due = group.members.iter().chain(&group.parts).filter_map(|key| self.with(key, |open| open.due));
        let due = due.filter(|due| *due <= self.round.now).max().unwrap_or(self.round.now);
        // Their events may be more by now than those that were judged.
        let members: Vec<(Key, Instance)> =
            group.members.iter().filter_map(|key| Some((key.clone(), self.take_out(key)?))).collect();
        // Observed with others already, it only says what is its own.
        let head = members.iter().find(|(key, _)| *key == group.key && key.trace().is_some());
        let observed = head.and_then(|(_, instance)| instance.observed_flow());
        match members.len() {
            0 => self.round.effects.opened += 1,
            several => self.round.effects.merged += several as u64 - 1,
        }
        let role = if observed.is_some() { EndingAs::Tail } else { EndingAs::Itself };
        let end = End { reason, now: self.round.now, loss: self.aggregator.last_loss(), due };
        let closed = attempt(|| {
            let flow = observed.map_or_else(|| Arc::clone(&flow), |flow| self.round.rules.flow(flow));
            self.gather_taken(group, &members, flow, role).close(end, role, self.round.rules)
        });
        let (finished, extent) = closed.unwrap_or_else(|| {
            self.round.effects.panics += 1;
            let events = members.iter().map(|(_, instance)| u64::from(instance.counted_events)).sum();
            (Finished::given_up(flow, group.key.clone(), events, self.round.now, self.round.rules), None)
        });
        let flow = match &finished {
            Finished::Closed(closed) => Some(Arc::clone(&closed.flow)),
            Finished::Unmatched { .. } | Finished::Divided { .. } => None,
        };
        self.round.effects.finished.push(finished);
        let grave = |lifetime| Tombstone {
            flow: flow.as_ref().map(|flow| flow.id),
            closed: self.round.now,
            lifetime,
            expires: self.round.now.plus(lifetime),
            extent,
            remember: true,
        };
        let lifetime = flow.as_ref().unwrap_or(&unmatched).timers.tombstone;
        for (key, _) in &members {
            self.aggregator.put_tombstone(key, grave(lifetime));
        }
        if matches!(group.key, Key::Named { .. }) && !group.members.contains(&group.key) {
            self.aggregator.put_tombstone(&group.key, grave(lifetime));
        }
        if let Some(flow) = flow.filter(|_| observed.is_none()) {
            self.settle(group, &flow);
        }
    }

    /// A group whose members have left the map, as one.
    fn gather_taken(
        &self,
        group: &Group,
        members: &[(Key, Instance)],
        flow: Arc<Flow>,
        role: EndingAs,
    ) -> Gathering {
        let mut gathering = Gathering::new(flow, group);
        for (key, instance) in members {
            gathering.add(key, instance, Role::Whole);
        }
        let others = [(&group.parts, Role::Part), (&group.tails, Role::Tail)];
        for (keys, part) in others.into_iter().filter(|_| role != EndingAs::Tail) {
            for key in keys {
                self.with(key, |instance| gathering.add(key, instance, part));
            }
        }
        gathering
    }

    /// Tells the traces that were part of it that it has ended.
    fn settle(&mut self, group: &Group, flow: &Flow) {
        if matches!(group.key, Key::Named { .. }) {
            for key in &group.neighbours {
                self.with(key, Instance::contest);
            }
        }
        for key in group.parts.iter().chain(&group.tails) {
            self.with(key, |instance| instance.settle_with(group.key.clone(), flow.id));
            // What follows a batch ends with it.
            let waits = self.claim(key).is_some_and(|claim| claim.is_split() || claim.is_batch());
            self.again.extend(waits.then(|| key.clone()));
        }
    }

    /// Takes an open instance out of the map, with all that is counted of open ones.
    fn take_out(&mut self, key: &Key) -> Option<Instance> {
        let instance = *self.aggregator.slots.get_mut(key)?.take_out(self.round.now)?;
        self.aggregator.no_longer_open(&instance, &mut self.round.effects);
        // Whoever waits for it, such as a batch for its heads, need not any longer.
        self.again.extend(self.claims.of(key).iter().cloned());
        self.claims.forget(key);
        self.aggregator.tombstones.fetch_add(1, Relaxed);
        Some(instance)
    }

    /// Ends a trace whose spans were parts of other instances.
    fn end_divided(&mut self, key: &Key) {
        let Some(instance) = self.take_out(key) else { return };
        let flow = instance.observed_flow();
        self.aggregator.put_tombstone(key, Tombstone { flow, ..instance.grave(self.round.now) });
        let (finished, late) = attempt(|| end_divided(&instance)).unwrap_or_else(|| {
            self.round.effects.panics += 1;
            let events = u64::from(instance.counted_events);
            (Finished::Divided { events, unmatched: 0, ignored: 0, skewed: 0 }, Vec::new())
        });
        for (home, event) in late {
            self.late(&home, std::iter::once(event));
        }
        self.round.effects.merged += 1;
        self.round.effects.finished.push(finished);
    }

    /// Ends traces that belong to an instance that is over.
    fn end_late(&mut self, group: &Group) {
        for key in &group.members {
            let Some(instance) = self.take_out(key) else { continue };
            let flow = self.aggregator.buried_flow(&group.key, self.round.now);
            self.aggregator.put_tombstone(key, Tombstone { flow, ..instance.grave(self.round.now) });
            self.round.effects.merged += 1;
            let folded = if instance.is_stub() { instance.events() } else { 0 };
            self.late(&group.key, instance.into_events().into_iter());
            match flow {
                None => self.round.effects.unmatched += folded,
                Some(flow) => {
                    let unknown = Late { flow, stage: Arc::from(""), lateness: None };
                    self.round.effects.late.extend((0..folded).map(|_| unknown.clone()));
                }
            }
        }
    }

    /// Counts events that came too late for the instance found by `home`.
    fn late(&mut self, home: &Key, events: impl Iterator<Item = Event>) {
        let events = events.filter(|event| !event.flags.has(Flags::COPY));
        let Some(flow) = self.aggregator.buried_flow(home, self.round.now) else {
            // No flow took what they belong to.
            self.round.effects.unmatched += events.count() as u64;
            return;
        };
        for event in events {
            let lateness = attempt(|| self.meet(home, flow, &event)).unwrap_or_else(|| {
                self.round.effects.panics += 1;
                None
            });
            self.round.effects.late.push(Late::of(flow, &event, lateness));
        }
    }

    /// How late an event is for the instance found by `home`, if that is known in detail.
    fn meet(&self, home: &Key, flow: FlowId, event: &Event) -> Option<Lateness> {
        let rules = self.round.rules.flow(flow);
        match self.aggregator.slots.get_mut(home).as_deref_mut() {
            Some(Slot::Closed(tombstone)) => Some(tombstone.meet(&rules, event, self.round.now)),
            _ => None,
        }
    }

    /// Ends an instance, for the reason `otherwise` unless something shows that it has ended.
    fn end_early(&mut self, key: &Key, otherwise: Reason) {
        let Some(claim) = self.claim(key) else { return };
        if claim.is_split() {
            let values: Vec<&Key> = self.awaited(key, &claim).collect();
            for value in values {
                let (group, flow) = self.group(value);
                // Else it has just come, and it is not known yet that this trace carries it.
                if group.parts.contains(key) {
                    self.end_group_early(&group, flow, otherwise);
                }
            }
            return self.end_divided(key);
        }
        let (group, flow) = self.group(key);
        if group.is_late { self.end_late(&group) } else { self.end_group_early(&group, flow, otherwise) }
    }

    fn end_group_early(&mut self, group: &Group, flow: Arc<Flow>, otherwise: Reason) {
        let gathering = self.gather(group, flow);
        let reason = gathering.ended(self.round.now).unwrap_or(otherwise);
        let now = self.round.now;
        for key in group.members.iter().chain(&group.parts) {
            self.with(key, |instance| instance.hasten(now));
        }
        self.finish(group, gathering, reason);
    }
}
