//! When a flow is over, and how it ended for its user: section "When a flow is over" of ARCHITECTURE.md, rule by rule.
//!
//! Everything here is a function of what has come and of arrival times. Nothing else in the program decides about
//! closing; nothing here changes an instance.

use std::sync::Arc;
use std::time::Duration;

use super::flow::{Flow, Origin};
use super::ids::Key;
use super::outline::{MissingParent, Progress};
use super::result::{Await, Outcome, Reason};
use super::time::Arrival;

/// The arrival times of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// When its first event came.
    pub first: Arrival,
    /// When its last new event came.
    pub last: Arrival,
    /// The quiet period that its last push asked for.
    pub life_span: Option<Duration>,
}

/// What to do with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is over.
    Close(Reason),
    /// Look again at this moment, if nothing comes until then.
    Wait {
        /// When to look again; after `now`.
        until: Arrival,
        /// Its quiet period has passed and something is still awaited: keep a stub only.
        fold: bool,
    },
}

impl Progress {
    /// Whether a span without a parent has come.
    pub fn has_root(&self) -> bool {
        self.root.is_some_and(|root| !root.parent.is_some())
    }

    /// Whether something that the flow requires has not come: `start` and `end` if given, else `expect`. A push
    /// that says `final` is the end.
    pub fn lacks_required(&self, flow: &Flow) -> bool {
        let end_is_due = if flow.ends.is_empty() { !self.expects_all(flow) } else { self.ends == 0 };
        !self.started || (end_is_due && !self.finals)
    }

    /// Whether every expected stage has come; true when none is expected.
    pub fn expects_all(&self, flow: &Flow) -> bool {
        self.expected.count_ones() as usize == flow.expect.len()
    }

    /// Rule 1: what shows that the flow has ended, if anything does.
    pub fn evidence(&self, flow: &Flow, key: &Key) -> Option<Reason> {
        if !self.started {
            return None;
        }
        let root_rule =
            flow.ends.is_empty() && flow.expect.is_empty() && key.trace().is_some() && !self.pushes;
        if self.finals {
            Some(Reason::Final)
        } else if self.ends != 0 {
            Some(Reason::End)
        } else if flow.ends.is_empty() && !flow.expect.is_empty() && self.expects_all(flow) {
            Some(Reason::Expect)
        } else if root_rule && self.has_root() && self.missing_parent == MissingParent::None {
            Some(Reason::Root)
        } else {
            None
        }
    }

    /// Whether we may have missed how it began, should there have been an occasion to miss it.
    fn beginning_is_missing(&self, flow: &Flow) -> bool {
        if flow.start.is_some() { !self.started } else { self.spans && !self.has_root() }
    }
}

/// What shows at `now` that the instance has ended, if anything does. The holds delay the root rule only: the other
/// kinds of evidence say what they say.
pub fn ended(flow: &Flow, key: &Key, progress: &Progress, clocks: &Clocks, now: Arrival) -> Option<Reason> {
    let is_held = held_until(flow, progress, clocks) > now;
    progress.evidence(flow, key).filter(|reason| *reason != Reason::Root || !is_held)
}

/// Whether the instance is over at `now`, and else when to look again.
pub fn decide(flow: &Flow, key: &Key, progress: &Progress, clocks: &Clocks, now: Arrival) -> Verdict {
    let timers = &flow.timers;
    let quiet = clocks.last.plus(clocks.life_span.unwrap_or(timers.quiet_period));
    let too_old = age_limit(flow, clocks);
    let held = held_until(flow, progress, clocks);

    // Rule 1.
    let evidence = progress.evidence(flow, key);
    let by_evidence = evidence.map(|reason| {
        let lingered = clocks.last.plus(timers.linger);
        if reason == Reason::Root { lingered.max(held) } else { lingered }
    });
    // Rule 2.
    let by_quiet = (!progress.lacks_required(flow)).then(|| quiet.max(held));
    // Rule 3.
    let until = [by_evidence, by_quiet].into_iter().flatten().fold(too_old, Arrival::min);

    if until > now {
        let fold = quiet <= now;
        // It cannot be over before `until`, but it is folded as soon as its quiet period has passed.
        return Verdict::Wait { until: if fold { until } else { until.min(quiet) }, fold };
    }
    // What is known to have ended closes by what showed it, whichever timer was first.
    Verdict::Close(evidence.unwrap_or(if by_quiet.is_some_and(|at| at <= too_old) {
        Reason::Quiet
    } else {
        Reason::MaxAge
    }))
}

/// Rule 3: when the instance is too old. A flow that pushes create has no other setting than their life span, so
/// that one is kept to, however long it is.
pub(super) fn age_limit(flow: &Flow, clocks: &Clocks) -> Arrival {
    let limit = clocks.first.plus(flow.timers.max_age);
    if flow.origin != Origin::Pushed {
        return limit;
    }
    limit.max(clocks.last.plus(clocks.life_span.unwrap_or(flow.timers.quiet_period)))
}

/// What has not come yet.
pub fn awaits(flow: &Flow, progress: &Progress) -> Vec<Await> {
    let missing_stages =
        flow.expect.iter().enumerate().filter(|(bit, _)| progress.expected & (1 << bit) == 0);
    let parent = match progress.missing_parent {
        MissingParent::None => None,
        MissingParent::Remote => Some(Await::RemoteParent),
        MissingParent::Local => Some(Await::LocalParent),
    };
    let lacks_end = !flow.ends.is_empty() && progress.ends == 0 && !progress.finals;
    let single = [
        (!progress.started).then_some(Await::Start),
        lacks_end.then_some(Await::End),
        parent,
        progress.unanswered.then_some(Await::Consumer),
        progress.awaits_link.then_some(Await::Link),
    ];
    let stages = missing_stages.map(|(_, stage)| Await::Stage(Arc::clone(stage)));
    single.into_iter().flatten().chain(stages).collect()
}

/// Until when something that has not come is waited for; in the past when nothing is.
fn held_until(flow: &Flow, progress: &Progress, clocks: &Clocks) -> Arrival {
    let parent = match progress.missing_parent {
        MissingParent::None => Arrival::ORIGIN,
        MissingParent::Remote => clocks.last.plus(flow.timers.parent_wait),
        // It is still running, for as long as an instance may live.
        MissingParent::Local => Arrival::since_origin(Duration::MAX),
    };
    let awaits_other_side = progress.unanswered || progress.awaits_link;
    let other_side =
        if awaits_other_side { clocks.last.plus(flow.timers.async_wait) } else { Arrival::ORIGIN };
    parent.max(other_side)
}

/// The earliest moment at which an instance that just got an event could be over.
pub fn earliest_end(flow: &Flow, clocks: &Clocks) -> Arrival {
    let quiet = clocks.life_span.unwrap_or(flow.timers.quiet_period);
    let soonest = clocks.last.plus(quiet.min(flow.timers.linger));
    soonest.min(age_limit(flow, clocks))
}

/// How the instance ended for its user. `loss` is the last time at which events may have been lost: our start, or later.
pub fn outcome(flow: &Flow, progress: &Progress, clocks: &Clocks, reason: Reason, loss: Arrival) -> Outcome {
    if matches!(reason, Reason::Capacity | Reason::Shutdown | Reason::Failure) {
        return Outcome::Evicted;
    }
    let loss_may_matter = clocks.first.since(loss) <= flow.timers.max_age;
    if loss_may_matter && progress.beginning_is_missing(flow) && flow.origin != Origin::Pushed {
        return Outcome::Orphan;
    }
    match (reason, progress.lacks_required(flow)) {
        (Reason::MaxAge, true) => Outcome::Incomplete,
        (Reason::MaxAge, false) => Outcome::Truncated,
        _ if progress.error => Outcome::Error,
        _ => Outcome::Ok,
    }
}
