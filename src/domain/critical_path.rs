//! Which stage made the flow as slow as it was: the chain of events without which it would have ended sooner.
//!
//! Walks backwards in time from where the latency ends to where it starts, in the manner of CRISP (Zhang et al.,
//! "CRISP: Critical Path Analysis of Large-Scale Microservice Architectures", USENIX ATC 2022), and goes on across
//! queues and between roots, where CRISP stops. Invariant: the steps cover the latency without gap or overlap, so
//! that their lengths sum to it to the nanosecond.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::time::Duration;

use smallvec::smallvec;

use super::few::Few;
use super::time::{EventTime, nanoseconds};

/// An event as the walk sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timed {
    /// When it began to work: a consumer's start is its producer's at the earliest.
    pub start: EventTime,
    /// When it ended; not before `start`.
    pub end: EventTime,
    /// Where that is in the list inside of which it happened: its parent, or else whose work it took up.
    pub parent: Option<usize>,
    /// Whether that did not wait for it.
    pub is_asynchronous: bool,
    /// Where that is without which it would not have begun: whose work it took up, or else its parent.
    pub cause: Option<usize>,
}

impl Timed {
    /// An event that began because of its parent, and for which that waits.
    pub fn inside_of(parent: Option<usize>, start: EventTime, end: EventTime) -> Self {
        Timed { start, end, parent, is_asynchronous: false, cause: parent }
    }
}

/// One stretch of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Its earlier end.
    pub from: EventTime,
    /// Its later end.
    pub to: EventTime,
    /// What happened in it.
    pub spent: Spent,
}

/// How a stretch of the path was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// The event at this place in the list worked.
    Working(usize),
    /// Nothing on the path worked, until the event at this place in the list began.
    Waiting(usize),
    /// Something worked, but what it had to do with the rest is not known.
    Unknown,
}

impl Step {
    /// Its length.
    pub fn nanoseconds(&self) -> u64 {
        self.to.nanoseconds_since(self.from)
    }
}

/// A path, and what was odd about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CriticalPath {
    /// From the end of the latency to its start.
    pub steps: Few<Step>,
    /// Parents that were not followed, because the path had been there.
    pub cycles: u64,
}

/// Hosts' clocks differ: a child that ends this much after the point reached counts as having ended before it.
const MAX_OVERLAP: Duration = Duration::from_millis(10);
/// The same, as a part of the span: one in this many.
const OVERLAP_PART: u64 = 100;

/// The path from `to`, where the event `last` ends the latency, back to `from`. `events` must be in an order that
/// depends on their content only; so does the result then.
pub fn critical_path(events: &[Timed], last: usize, from: EventTime, to: EventTime) -> CriticalPath {
    let mut walk = Walk::new(events, from, to);
    let mut event = last;
    walk.visited[last] = true;
    while walk.is_under_way() {
        walk.inside(event);
        if !walk.is_under_way() {
            break;
        }
        let Some(next) = walk.cause(event).or_else(|| walk.predecessor(event)) else { break };
        walk.visited[next] = true;
        event = next;
    }
    walk.spend(from, Spent::Unknown);
    walk.path
}

struct Walk<'e> {
    events: &'e [Timed],
    /// The point reached; never rises.
    at: EventTime,
    /// Where the latency starts.
    from: EventTime,
    visited: Few<bool>,
    /// Places of the children, those of each event side by side, the one that ended last first.
    children: Few<usize>,
    /// Where in `children` those of each event end; they begin where those of the one before it end.
    children_end: Few<usize>,
    /// Places of all events, the one that ended last first, and how far of them is behind us.
    by_end: Few<usize>,
    ended: usize,
    /// Starts in rising order, each with the event that ends last among those that start no later. Few paths ask.
    longest_since: OnceCell<Vec<(EventTime, usize)>>,
    path: CriticalPath,
}

impl<'e> Walk<'e> {
    fn new(events: &'e [Timed], from: EventTime, to: EventTime) -> Self {
        let mut by_end: Few<usize> = (0..events.len()).collect();
        // Of those that are alike the one that comes first in the list.
        by_end.sort_unstable_by_key(|&event| (Reverse((events[event].end, events[event].start)), event));
        let parent_of = |event: usize| events[event].parent.filter(|&parent| parent != event);
        // Counted first, so that each finds its place at once.
        let mut children_end: Few<usize> = smallvec![0; events.len()];
        for parent in (0..events.len()).filter_map(parent_of) {
            children_end[parent] += 1;
        }
        let mut total = 0;
        for count in &mut children_end {
            total += std::mem::replace(count, total);
        }
        // Each begins where it is to end, and is moved on by its children.
        let mut children: Few<usize> = smallvec![0; total];
        for &event in &by_end {
            if let Some(parent) = parent_of(event) {
                children[children_end[parent]] = event;
                children_end[parent] += 1;
            }
        }
        Walk {
            at: to,
            from,
            visited: smallvec![false; events.len()],
            children,
            children_end,
            by_end,
            ended: 0,
            longest_since: OnceCell::new(),
            events,
            path: CriticalPath::default(),
        }
    }

    /// Of the events that started before the point reached, the one that ends last.
    fn longest(&self) -> Option<usize> {
        let events = self.events;
        let longest_since = self.longest_since.get_or_init(|| {
            let mut by_start: Vec<usize> = (0..events.len()).collect();
            by_start.sort_by_key(|&event| events[event].start);
            let longest_since = by_start.into_iter().scan(None, |longest: &mut Option<usize>, event| {
                let ends_later = longest.is_none_or(|known| events[event].end > events[known].end);
                *longest = if ends_later { Some(event) } else { *longest };
                longest.map(|longest| (events[event].start, longest))
            });
            longest_since.collect()
        });
        let started = longest_since.partition_point(|(start, _)| *start < self.at);
        longest_since[..started].last().map(|(_, longest)| *longest)
    }

    fn is_under_way(&self) -> bool {
        self.at > self.from
    }

    /// Goes back to `until`, or to where the latency starts.
    fn spend(&mut self, until: EventTime, spent: Spent) {
        let until = until.max(self.from);
        if until < self.at {
            self.path.steps.push(Step { from: until, to: self.at, spent });
            self.at = until;
        }
    }

    /// Goes back through an event and those of its descendants that it waited for, to its start.
    fn inside(&mut self, event: usize) {
        let mut open: Few<(usize, usize)> = smallvec![(event, 0)];
        while let Some(&mut (parent, ref mut looked_at)) = open.last_mut() {
            let Timed { start, end, .. } = self.events[parent];
            let tolerance = (end.nanoseconds_since(start) / OVERLAP_PART).min(nanoseconds(MAX_OVERLAP));
            let latest = self.at.plus(Duration::from_nanos(tolerance));
            // What goes on after its parent has ended was waited for as long as that lasted; nothing that is asynchronous was.
            let waited_for = |&child: &usize| {
                let ended = self.events[child].end;
                let child_ended = if self.events[child].is_asynchronous { ended } else { ended.min(end) };
                let is_inside = child_ended > start && self.events[child].start < self.at;
                !self.visited[child] && is_inside && child_ended <= latest
            };
            let first = parent.checked_sub(1).map_or(0, |before| self.children_end[before]);
            let rest = &self.children[first..self.children_end[parent]][*looked_at..];
            let child = rest.iter().position(waited_for).filter(|_| self.at > self.from);
            *looked_at += child.map_or(rest.len(), |skipped| skipped + 1);
            if let Some(child) = child.map(|skipped| rest[skipped]) {
                self.visited[child] = true;
                self.spend(self.events[child].end, Spent::Working(parent));
                open.push((child, 0));
            } else {
                self.spend(start, Spent::Working(parent));
                open.pop();
            }
        }
    }

    /// What caused the event whose start has been reached, and the wait for it.
    fn cause(&mut self, event: usize) -> Option<usize> {
        let cause = self.events[event].cause?;
        if self.visited[cause] {
            self.path.cycles += 1;
            return None;
        }
        self.spend(self.events[cause].end, Spent::Waiting(event));
        Some(cause)
    }

    /// What came before an event that nothing is known to have caused: what ended last, or else what was active.
    fn predecessor(&mut self, event: usize) -> Option<usize> {
        let Walk { events, at, .. } = *self;
        let rest = &self.by_end[self.ended..];
        let is_before = |&place: &usize| events[place].end <= at && events[place].start < at;
        // What is passed over now never comes into question again: the point reached does not rise.
        let skipped = rest.iter().position(|place| is_before(place) && !self.visited[*place]);
        let ended = skipped.map(|skipped| rest[skipped]);
        self.ended += skipped.unwrap_or(rest.len());
        let active = self.longest().filter(|&longest| events[longest].end > at);
        let Some(ended) = ended else { return active.filter(|&active| !self.visited[active]) };
        let spent = if active.is_some() { Spent::Unknown } else { Spent::Waiting(event) };
        self.spend(events[ended].end, spent);
        Some(ended)
    }
}

/// The same at the level of stages, for what is left of a stub: of the intervals that began before the point reached,
/// the one that ends last worked, and a gap was waiting. The places in the steps are places in `intervals`.
pub fn coarse_path(intervals: &[(EventTime, EventTime)], from: EventTime, to: EventTime) -> CriticalPath {
    let events: Vec<Timed> =
        intervals.iter().map(|&(start, end)| Timed::inside_of(None, start, end)).collect();
    let mut walk = Walk::new(&events, from, to);
    let mut next = None;
    while walk.is_under_way() {
        let Some(longest) = walk.longest() else { break };
        if let Some(next) = next {
            walk.spend(events[longest].end, Spent::Waiting(next));
        } else {
            walk.spend(events[longest].end, Spent::Unknown);
        }
        walk.spend(events[longest].start, Spent::Working(longest));
        next = Some(longest);
    }
    walk.spend(from, Spent::Unknown);
    walk.path
}
