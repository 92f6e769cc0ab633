//! Counts and observes what a request or a sweep did.
//!
//! Invariant: a closed instance is observed in `Metrics::observe`, once, and nowhere else.

use std::sync::{Arc, PoisonError};

use tracing::{error, info, warn};

use super::flows::FlowMetrics;
use super::{Metrics, Task, add, seconds};
use crate::aggregator::{Changes, Effects, Pressure};
use crate::domain::catalog::Catalog;
use crate::domain::flow::Flow;
use crate::domain::instance::Rules;
use crate::domain::result::{Closed, Finished, Outcome, Sums};
use crate::domain::time::Now;

impl Metrics {
    /// Takes in what a request or a sweep did: the only caller of `Metrics::observe`.
    pub fn record(&self, effects: &Effects, now: Now, catalog: &Catalog) {
        let own = &self.own;
        add(&own.instances.opened, effects.opened);
        add(&own.instances.merged, effects.merged);
        add(&own.instances.joints_over_limit, effects.joints_over_limit);
        add(&own.events.duplicate, effects.duplicates);
        add(&own.events.conflict, effects.conflicts);
        if effects.over_limit > 0 {
            own.events.over_limit.inc_by(effects.over_limit);
            self.warned.over_limit.get_or_init(|| {
                warn!("events find no room: see limits.instances and limits.events_per_instance");
            });
        }
        add(&own.events.unmatched, effects.unmatched);
        add(&own.events.after_folding, effects.after_folding);
        add(&own.instances.tombstones_evicted, effects.tombstones_evicted);
        own.panics.count_several(Task::Instance, effects.panics);
        effects.pressure.inspect(|pressure| felt(*pressure));
        for late in &effects.late {
            let flow = catalog.flow(late.flow);
            own.events.late.with_label_values(&[&*flow.name, self.late_stage(&flow, &late.stage)]).inc();
            if let Some(lateness) = late.lateness {
                own.times.late.observe(seconds(lateness.late));
                let extension = own.times.late_extension.with_label_values(&[&*flow.name]);
                extension.observe(seconds(lateness.extension));
            }
        }
        let of_flows = |changes: &Changes, change: fn(&FlowMetrics, i64)| {
            let of_some = changes.each().filter(|(flow, _)| *flow != catalog.unmatched().id);
            of_some.for_each(|(flow, by)| change(&self.of(&catalog.flow(flow), now), by));
        };
        of_flows(&effects.open_change, FlowMetrics::change_open);
        of_flows(&effects.overdue_change, FlowMetrics::change_overdue);
        self.observe(&effects.finished, now);
        for finished in &effects.finished {
            match finished {
                Finished::Closed(_) => {}
                Finished::Unmatched { events, ignored } => {
                    own.instances.unmatched.inc();
                    own.events.unmatched.inc_by(*events);
                    own.events.ignored.inc_by(*ignored);
                }
                Finished::Divided { events, unmatched, ignored, skewed } => {
                    own.events.closed.inc_by(*events);
                    own.events.unmatched.inc_by(*unmatched);
                    own.events.ignored.inc_by(*ignored);
                    own.events.skewed.inc_by(*skewed);
                }
            }
        }
    }

    /// A stage that a late event may name: one that the flow has shown, so that strangers cannot make up series.
    fn late_stage<'a>(&self, flow: &Flow, stage: &'a Arc<str>) -> &'a str {
        let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
        if !flows.get(&flow.name).is_some_and(|metrics| metrics.knows_stage(stage)) {
            return "";
        }
        // Stages may come and go, but what was said of them stays.
        let mut said = self.late_stages.lock().unwrap_or_else(PoisonError::into_inner);
        let stages = said.entry(Arc::clone(&flow.name)).or_default();
        if stages.len() < self.settings.values_per_label {
            stages.insert(Arc::clone(stage));
        }
        if stages.contains(stage) { stage } else { "" }
    }

    /// Observes each closed instance, once.
    fn observe(&self, finished: &[Finished], now: Now) {
        let closed: Vec<&Closed> = finished
            .iter()
            .filter_map(|finished| match finished {
                Finished::Closed(closed) => Some(&**closed),
                Finished::Unmatched { .. } | Finished::Divided { .. } => None,
            })
            .collect();
        if closed.is_empty() {
            return;
        }
        let own = &self.own;
        let birth = self.birth(now);
        let lags = own.times.close_lag.local();
        // These counters are shared with other threads, so they are touched once for all.
        let mut sum = Sums::default();
        let (mut outcomes, mut failed) = ([0; Outcome::ALL.len()], 0);
        for of_one in closed.chunk_by(|a, b| Arc::ptr_eq(&a.flow, &b.flow)) {
            // If a reload puts others in their place meanwhile, it is as if it had done so a moment later.
            failed += self.of(&of_one[0].flow, now).observe(of_one, birth);
        }
        for closed in closed {
            lags.observe(seconds(now.arrival.since(closed.due)));
            sum.add(&closed.notes);
            outcomes[closed.outcome as usize] += 1;
            self.note_oddities(closed);
        }
        lags.flush();
        own.panics.count_several(Task::Instance, failed);
        own.instances.closed.iter().zip(outcomes).for_each(|(counter, count)| add(counter, count));
        add(&own.events.closed, sum.events);
        add(&own.events.ignored, sum.ignored);
        add(&own.events.unmatched, sum.foreign);
        add(&own.events.skewed, sum.skewed);
        add(&own.instances.stub_gaps_joined, sum.coarsened);
        add(&own.instances.coarse_paths, sum.coarse_paths);
        add(&own.instances.parent_cycles, sum.cycles);
    }

    /// Counts what is odd about an instance.
    fn note_oddities(&self, closed: &Closed) {
        let (own, notes) = (&self.own.instances, &closed.notes);
        for (noted, counter) in [
            (notes.reversed, &own.reversed),
            (notes.orphan_root, &own.orphan_roots),
            (notes.unanswered, &own.unanswered_producers),
            (notes.unseen_link, &own.unseen_links),
            (notes.missed_link, &own.missed_links),
            (!closed.skews.is_empty(), &own.uncertain),
            (notes.label_conflict, &own.label_conflicts),
        ] {
            if noted {
                counter.with_label_values(&[&*closed.flow.name]).inc();
            }
        }
    }
}

/// Says what is done from now on about how much is kept.
fn felt(pressure: Pressure) {
    match pressure {
        Pressure::None => info!("there is room again for what requests bring"),
        Pressure::Refusing => {
            warn!(
                "requests are refused until instances have ended: see limits.memory_bytes and limits.instances"
            );
        }
        Pressure::Evicting => {
            error!("instances are evicted for want of room: see limits.memory_bytes and limits.instances");
        }
    }
}
