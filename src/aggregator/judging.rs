//! Whether an instance that stands alone is over, once it may be.
//!
//! A large instance is copied and looked at while it is not locked. Invariant: what was found is taken only if nothing came
//! meanwhile; where something comes again and again, the lock is held for one look after all, so that no instance is
//! looked at in vain for ever.

use std::sync::Arc;

use dashmap::mapref::one::RefMut;

use super::effects::Round;
use super::failures::attempt;
use super::{Aggregator, Slot};
use crate::domain::completion::Verdict;
use crate::domain::ids::Key;
use crate::domain::instance::{Instance, Likeness, Look, Rules, may_fold};
use crate::domain::time::Arrival;

/// How often a large instance is looked at in vain before that is done under its lock.
const LOOKS_APART: usize = 3;

impl Aggregator {
    /// Decides about one instance that may be over. A bug that makes it panic costs this instance, and no other.
    pub(super) fn judge(&self, key: Key, hash: u64, round: &mut Round<'_, impl Rules>) {
        let judged = attempt(|| self.judge_at_risk(key.clone(), hash, round));
        if judged.is_none() {
            self.give_up(&key, 0, round);
        }
    }

    fn judge_at_risk(&self, key: Key, hash: u64, round: &mut Round<'_, impl Rules>) {
        let mut looks_apart = 0;
        loop {
            if self.judge_joined(&key, round) {
                return;
            }
            let Some(mut slot) = self.slots.get_mut(&key) else { return };
            let Slot::Open(instance) = slot.value_mut() else { return };
            // Something came after this timer was set, and a later one is on its way.
            if instance.wake > round.now {
                return;
            }
            if instance.note_overdue(round.now) {
                round.effects.overdue_change.add(instance.flow().id, 1);
            }
            if instance.due > round.now {
                let due = instance.due;
                return self.look_again(slot, key, hash, due, round.now);
            }
            // Where all is done in one order, there is nobody who could wait for the lock.
            let is_apart = looks_apart < LOOKS_APART && !self.is_repeated;
            let Some(likeness) = is_apart.then(|| instance.likeness()).flatten() else {
                let (verdict, look) = instance.judge(&key, round.now);
                let may_fold = matches!(verdict, Verdict::Wait { fold: true, .. })
                    && may_fold(instance.flow(), round.rules);
                if may_fold && self.folds(instance, round.rules) {
                    round.effects.bytes_change += self.fold(instance, Arc::clone(instance.flow()));
                }
                return self.carry_out(verdict, look, slot, key, hash, round);
            };
            let folds = self.folds(instance, round.rules);
            drop(slot);
            if self.judge_apart(&key, hash, likeness, folds, round) {
                return;
            }
            looks_apart += 1;
        }
    }

    /// Decides about a large instance by its likeness. Returns whether that was of use: something may have come meanwhile.
    fn judge_apart(
        &self,
        key: &Key,
        hash: u64,
        mut likeness: Likeness,
        folds: bool,
        round: &mut Round<'_, impl Rules>,
    ) -> bool {
        let (verdict, look) = likeness.judge(key, round.now);
        let folds = folds && matches!(verdict, Verdict::Wait { fold: true, .. });
        let is_folded = folds && may_fold(likeness.flow(), round.rules) && likeness.fold();
        if self.is_claimed(key) {
            return false;
        }
        let Some(mut slot) = self.slots.get_mut(key) else { return true };
        let Slot::Open(instance) = slot.value_mut() else { return true };
        if instance.wake > round.now || !instance.is_like(&likeness) {
            return false;
        }
        if is_folded || matches!(verdict, Verdict::Close(_)) {
            instance.become_like(&mut likeness);
        }
        if is_folded {
            self.count_stub(instance);
            round.effects.bytes_change += instance.weigh();
        }
        self.carry_out(verdict, look, slot, key.clone(), hash, round);
        true
    }

    /// Does what was decided about an instance.
    fn carry_out(
        &self,
        verdict: Verdict,
        look: Option<Look>,
        mut slot: RefMut<'_, Key, Slot>,
        key: Key,
        hash: u64,
        round: &mut Round<'_, impl Rules>,
    ) {
        match verdict {
            Verdict::Wait { until, .. } => self.look_again(slot, key, hash, until, round.now),
            Verdict::Close(reason) => {
                let taken = slot.value_mut().take_out(round.now);
                drop(slot);
                if let Some(instance) = taken {
                    self.finish(key, hash, *instance, reason, look, round);
                }
            }
        }
    }

    /// Has an instance looked at again at this moment.
    fn look_again(&self, mut slot: RefMut<'_, Key, Slot>, key: Key, hash: u64, until: Arrival, now: Arrival) {
        let Slot::Open(instance) = slot.value_mut() else { return };
        let planned = plan(instance, until, now);
        drop(slot);
        if let Some(until) = planned {
            self.timers(hash).instances.add(until, key);
        }
    }

    /// Whether there is any use in folding an instance: a stub of few events takes more than they do, unless it frees what
    /// their spans said; and when memory is short, it must free some. Where all is done again elsewhere, as with a store, it is
    /// done to all, for that would be decided otherwise there.
    pub(super) fn folds(&self, instance: &Instance, rules: &impl Rules) -> bool {
        // Which facts are shared here may be shared nowhere else.
        if self.is_repeated {
            return true;
        }
        let is_large = instance.folds_by_size(rules) && (!self.is_refusing() || instance.outweighs_a_stub());
        is_large || instance.is_mostly_facts()
    }
}

/// Sets when an instance is looked at again; returns that moment, if the calendar has no entry for it yet.
pub(super) fn plan(instance: &mut Instance, until: Arrival, now: Arrival) -> Option<Arrival> {
    instance.due = until;
    let until = instance.overdue_at().map_or(until, |at| at.min(until));
    instance.wake = until;
    // That of `max_age` stands still while others pass; an entry of a moment that has come is used up.
    let is_planned = instance.planned == until && until > now;
    instance.planned = instance.planned.max(until);
    (!is_planned).then_some(until)
}
