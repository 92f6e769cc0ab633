//! The entries of one page of a calendar, in as little room as most of them need: nearly all keys are traces.

use crate::domain::footprint;
use crate::domain::ids::{Key, TraceId};

/// When keys have to be looked at, each in ticks since the page began, and the keys.
#[derive(Debug, Default)]
pub(super) struct Page {
    entries: Vec<Entry>,
    /// Keys that are more than a trace.
    others: Vec<Key>,
}

/// A page has no more ticks than a byte can number.
type Entry = (u8, Waiting);

#[derive(Debug, Clone, Copy)]
enum Waiting {
    Trace(TraceId),
    /// The place among the others, in bytes: so entries need not be aligned.
    Other([u8; 4]),
}

impl Page {
    pub(super) fn push(&mut self, tick: u8, key: Key) {
        let waiting = match key {
            Key::Trace(trace) => Waiting::Trace(trace),
            other => {
                self.others.push(other);
                Waiting::Other((self.others.len() as u32 - 1).to_le_bytes())
            }
        };
        self.entries.push((tick, waiting));
    }

    /// Puts the soonest last, and of those of one tick the one that came first.
    pub(super) fn sort(&mut self) {
        self.entries.reverse();
        self.entries.sort_by_key(|(tick, _)| std::cmp::Reverse(*tick));
    }

    /// Takes out the last one, if it is to be looked at up to this tick.
    pub(super) fn pop_until(&mut self, tick: u8) -> Option<Key> {
        let (_, waiting) = self.entries.pop_if(|(own, _)| *own <= tick)?;
        Some(self.key(waiting))
    }

    /// The tick of the last one.
    pub(super) fn last_tick(&self) -> Option<u8> {
        self.entries.last().map(|(tick, _)| *tick)
    }

    /// The soonest tick of all.
    pub(super) fn first_tick(&self) -> Option<u8> {
        self.entries.iter().map(|(tick, _)| *tick).min()
    }

    /// All entries as they stand.
    pub(super) fn each(&self) -> impl Iterator<Item = (u8, Key)> {
        self.entries.iter().map(|(tick, waiting)| (*tick, self.key(*waiting)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.entries.shrink_to_fit();
        self.others.shrink_to_fit();
    }

    /// What it takes in memory beside itself, in bytes.
    pub(super) fn bytes(&self) -> usize {
        footprint::array::<Entry>(self.entries.capacity()) + footprint::array::<Key>(self.others.capacity())
    }

    fn key(&self, waiting: Waiting) -> Key {
        match waiting {
            Waiting::Trace(trace) => Key::Trace(trace),
            Waiting::Other(place) => self.others[u32::from_le_bytes(place) as usize].clone(),
        }
    }
}
