//! A set of disjoint intervals of event time, and its total length.
//!
//! Invariant: sorted, non-touching, and adding an interval that is already covered changes nothing, so that a
//! duplicate event cannot change a stage's time.

mod stored;

use smallvec::SmallVec;

use super::footprint;
use super::time::EventTime;

/// Disjoint intervals, sorted by start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intervals(SmallVec<[(EventTime, EventTime); 1]>);

impl Intervals {
    /// What they take in memory beside themselves, in bytes.
    pub fn bytes(&self) -> usize {
        // One stands in them.
        let elsewhere = if self.0.spilled() { self.0.capacity() } else { 0 };
        footprint::array::<(EventTime, EventTime)>(elsewhere)
    }

    /// Joins `start..=end`, which must not be reversed, to the set.
    pub fn add(&mut self, start: EventTime, end: EventTime) {
        // Most come in the order of their starts.
        match self.0.last_mut() {
            Some(last) if last.0 <= start && start <= last.1 => {
                last.1 = last.1.max(end);
                return;
            }
            Some(last) if start < last.0 => {}
            _ => {
                self.0.push((start, end));
                return;
            }
        }
        let first = self.0.partition_point(|&(_, other_end)| other_end < start);
        let last = self.0.partition_point(|&(other_start, _)| other_start <= end);
        if first == last {
            self.0.insert(first, (start, end));
            return;
        }
        let joined = (self.0[first].0.min(start), self.0[last - 1].1.max(end));
        self.0[first] = joined;
        self.0.drain(first + 1..last);
    }

    /// Joins neighbours with the smallest gap first until at most `limit` intervals remain; returns how many
    /// gaps were lost.
    pub fn coarsen(&mut self, limit: usize) -> u64 {
        let mut lost = 0;
        while self.0.len() > limit.max(1) {
            let narrowest = (1..self.0.len())
                .min_by_key(|&index| self.0[index].0.nanoseconds_since(self.0[index - 1].1))
                .unwrap_or(1);
            self.0[narrowest - 1].1 = self.0[narrowest].1;
            self.0.remove(narrowest);
            lost += 1;
        }
        lost
    }

    /// Earliest moment covered.
    pub fn earliest(&self) -> Option<EventTime> {
        self.0.first().map(|interval| interval.0)
    }

    /// The intervals, as (start, end), by start.
    pub fn as_slice(&self) -> &[(EventTime, EventTime)] {
        &self.0
    }

    /// Total length in nanoseconds.
    pub fn nanoseconds(&self) -> u64 {
        self.0.iter().fold(0, |sum, &(start, end)| sum.saturating_add(end.nanoseconds_since(start)))
    }
}
