//! The series of one family and flow as a scrape reads them: in pieces, so that whoever adds to them waits for the
//! copy of a few values at most.
//!
//! What stays the same from one scrape to the next, labels and order, is kept under another lock than the values. Invariant:
//! all values of a reading are of a time in which no series has gone into the overflow, so that nothing is read twice.

use std::sync::Mutex;

use super::{Entry, Open, SeriesMap};
use crate::domain::labels::Label;
use crate::domain::time::{Arrival, EventTime};
use crate::metrics::snapshot::{Labels, SideBySide};

/// The series that have been read before.
#[derive(Debug)]
pub(in crate::metrics) struct Rows<C> {
    /// By their places in the map.
    rows: Vec<Row<C>>,
    /// These places, in the order in which the series are shown.
    order: Vec<usize>,
    /// How often places had changed in the map.
    moves: u64,
}

#[derive(Debug)]
struct Row<C> {
    closed: C,
    open: Open,
    labels: Labels,
}

/// The series of a map, as far as they have been read.
#[derive(Debug)]
pub(in crate::metrics) struct Reading<'r, C, T> {
    known: &'r mut Rows<C>,
    /// When each series began, and what was read of it, by its place.
    values: Vec<Option<(EventTime, T)>>,
    /// The series among those read last that are not known.
    new: Vec<(C, Open)>,
    /// What the values read last have side by side.
    counts: SideBySide,
}

/// How many series are read under one lock.
const PIECE: usize = 64;

impl<C> Rows<C> {
    /// None.
    pub(super) fn new() -> Mutex<Self> {
        Mutex::new(Rows { rows: Vec::new(), order: Vec::new(), moves: 0 })
    }
}

impl<C: Copy + Ord, V> SeriesMap<C, V> {
    /// Reads some more series, as they are at `now`; `copy` is told whether a value is still to be shown as zero, and has
    /// a place for counts. Returns whether there are more.
    pub(in crate::metrics) fn read<T>(
        &self,
        reading: &mut Reading<'_, C, T>,
        now: Arrival,
        copy: impl Fn(&V, bool, &mut SideBySide) -> T,
    ) -> bool {
        if reading.known.moves != self.moves {
            reading.start_over(self.moves);
        }
        let read = reading.values.len();
        let piece = self.entries[read..].iter().take(PIECE);
        for Entry { closed, open, birth, value, .. } in piece.clone() {
            let is_hidden = now < birth.visible_from;
            reading.values.push(Some((birth.created, copy(value, is_hidden, &mut reading.counts))));
            if reading.values.len() > reading.known.rows.len() + reading.new.len() {
                reading.new.push((*closed, open.clone()));
            }
        }
        read + piece.len() < self.entries.len()
    }
}

impl<'r, C: Copy + Ord, T> Reading<'r, C, T> {
    /// Nothing has been read yet.
    pub(in crate::metrics) fn new(known: &'r mut Rows<C>) -> Self {
        // With room for the next piece, so that the list does not grow under the lock.
        let values = Vec::with_capacity(known.rows.len() + PIECE);
        Reading { known, values, new: Vec::new(), counts: SideBySide::default() }
    }

    fn start_over(&mut self, moves: u64) {
        *self.known = Rows { rows: Vec::new(), order: Vec::new(), moves };
        self.values.clear();
    }

    /// Does what need not be done under the lock; `labels` are those that a series is shown with.
    pub(in crate::metrics) fn take_in(&mut self, labels: impl Fn(C, Vec<Label>) -> Vec<Label>) {
        self.values.reserve(PIECE);
        self.counts.show();
        let shown = self.new.iter().map(|(closed, open)| labels(*closed, open.shown()));
        let shown = Labels::side_by_side(shown.collect());
        let row = |((closed, open), labels)| Row { closed, open, labels };
        self.known.rows.extend(self.new.drain(..).zip(shown).map(row));
    }

    /// All that has been read, as `show` has it, in a stable order.
    pub(in crate::metrics) fn in_order<S>(mut self, show: impl Fn(Labels, EventTime, T) -> S) -> Vec<S> {
        let Rows { rows, order, .. } = self.known;
        if order.len() < rows.len() {
            order.extend(order.len()..rows.len());
            order.sort_by(|&a, &b| (rows[a].closed, &rows[a].open).cmp(&(rows[b].closed, &rows[b].open)));
        }
        let mut shown = Vec::with_capacity(order.len());
        shown.extend(order.iter().filter_map(|&place| {
            let (created, value) = self.values[place].take()?;
            Some(show(rows[place].labels.clone(), created, value))
        }));
        shown
    }
}
