//! Clocks of hosts that disagree: a served call that does not lie within the call that waited for it is moved there, for
//! the analysis only.
//!
//! The estimate is that of NTP and of Jaeger's clock skew adjustment (jaeger/cmd/query/app/querysvc/adjuster): the way
//! there and the way back take equally long. What was measured is never moved, only who is said to have worked when.

use std::time::Duration;

use super::critical_path::Timed;
use super::time::{EventTime, nanoseconds};

/// What a span has to do with its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// It runs by the same clock.
    SameClock,
    /// It serves the call that its parent waits for, by another clock.
    Served,
    /// Its parent does not wait for it, or it is not known whether.
    Other,
}

/// A span that does not lie within the call that it served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misplaced {
    /// Where it is in the list.
    pub span: usize,
    /// By how much it would have to be moved.
    pub nanoseconds: u64,
    /// Whether that is little enough, so that it was.
    pub moved: bool,
}

/// A way along the time line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Shift {
    nanoseconds: u64,
    is_back: bool,
}

/// Moves spans, and what runs by the same clock inside of them, by at most `limit`; returns which had to be moved.
/// `edge` says what the span at a place has to do with its parent.
pub fn align(spans: &mut [Timed], edge: impl Fn(usize) -> Edge, limit: Duration) -> Vec<Misplaced> {
    let mut shifts: Vec<Option<Shift>> = vec![None; spans.len()];
    let mut misplaced = Vec::new();
    for start in 0..spans.len() {
        // Parents first; a circle has been entered somewhere, and stays as it is there.
        let mut way = vec![start];
        while let Some(parent) = spans[way[way.len() - 1]].parent {
            if shifts[parent].is_some() || way.contains(&parent) || way.len() > MAX_DEPTH {
                break;
            }
            way.push(parent);
        }
        while let Some(span) = way.pop() {
            if shifts[span].is_some() {
                continue;
            }
            let inherited = spans[span].parent.and_then(|parent| shifts[parent]).unwrap_or_default();
            let shift = match edge(span) {
                Edge::SameClock => inherited,
                Edge::Other => Shift::default(),
                Edge::Served => {
                    let needed = spans[span].parent.and_then(|parent| offset(&spans[parent], &spans[span]));
                    let needed = needed.unwrap_or_default();
                    let moved = needed.nanoseconds <= nanoseconds(limit);
                    if needed != Shift::default() {
                        misplaced.push(Misplaced { span, nanoseconds: needed.nanoseconds, moved });
                    }
                    if moved { needed } else { Shift::default() }
                }
            };
            spans[span].start = shift.apply(spans[span].start);
            spans[span].end = shift.apply(spans[span].end);
            shifts[span] = Some(shift);
        }
    }
    misplaced
}

/// Whether `served` does not lie within `call`, although it could.
pub fn is_misplaced(call: &Timed, served: &Timed) -> bool {
    offset(call, served).is_some()
}

/// Deeper calls than this are taken as they are.
const MAX_DEPTH: usize = 1000;

/// How far `served` has to be moved to lie in the middle of `call`; nothing if it lies within it, or is longer and so
/// cannot.
fn offset(call: &Timed, served: &Timed) -> Option<Shift> {
    let is_within = call.start <= served.start && served.end <= call.end;
    let spare = call
        .end
        .nanoseconds_since(call.start)
        .checked_sub(served.end.nanoseconds_since(served.start))
        .filter(|_| !is_within)?;
    let target = call.start.plus(Duration::from_nanos(spare / 2));
    Some(Shift {
        nanoseconds: target.nanoseconds_since(served.start).max(served.start.nanoseconds_since(target)),
        is_back: target < served.start,
    })
}

impl Shift {
    fn apply(self, time: EventTime) -> EventTime {
        let by = Duration::from_nanos(self.nanoseconds);
        if self.is_back { time.minus(by) } else { time.plus(by) }
    }
}
