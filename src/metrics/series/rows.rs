//! The series of one family and flow as a scrape reads them: in pieces, so that whoever adds to them waits for the
//! copy of a few values at most.
//!
//! What stays the same from one scrape to the next, labels and order, is kept under another lock than the values. Invariant:
//! all values of a reading are of a time in which no series has gone into the overflow, so that nothing is read twice.

use std::sync::Mutex;

use super::{Entry, Open, SeriesMap};
use crate::domain::labels::Label;
use crate::domain::time::{Arrival, EventTime};
use crate::metrics::snapshot::Labels;

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
    /// What has been read under the lock, until there is time for it.
    piece: Vec<(EventTime, T)>,
    /// The series among these that are not known.
    new: Vec<(C, Open)>,
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
    /// Reads some more series, as they are at `now`; `copy` is told whether a value is still to be shown as zero. Returns
    /// whether there are more.
    pub(in crate::metrics) fn read<T>(
        &self,
        reading: &mut Reading<'_, C, T>,
        now: Arrival,
        copy: impl Fn(&V, bool) -> T,
    ) -> bool {
        if reading.known.moves != self.moves {
            reading.start_over(self.moves);
        }
        let read = reading.values.len();
        for Entry { closed, open, birth, value, .. } in self.entries[read..].iter().take(PIECE) {
            reading.piece.push((birth.created, copy(value, now < birth.visible_from)));
            if read + reading.piece.len() > reading.known.rows.len() + reading.new.len() {
                reading.new.push((*closed, open.clone()));
            }
        }
        read + reading.piece.len() < self.entries.len()
    }
}

impl<'r, C: Copy + Ord, T> Reading<'r, C, T> {
    /// Nothing has been read yet.
    pub(in crate::metrics) fn new(known: &'r mut Rows<C>) -> Self {
        let (values, new) = (Vec::with_capacity(known.rows.len()), Vec::new());
        Reading { known, values, piece: Vec::with_capacity(PIECE), new }
    }

    fn start_over(&mut self, moves: u64) {
        *self.known = Rows { rows: Vec::new(), order: Vec::new(), moves };
        self.values.clear();
    }

    /// Does what need not be done under the lock; `labels` are those that a series is shown with.
    pub(in crate::metrics) fn take_in(&mut self, labels: impl Fn(C, Vec<Label>) -> Vec<Label>) {
        self.values.extend(self.piece.drain(..).map(Some));
        for (closed, open) in self.new.drain(..) {
            let labels = labels(closed, open.shown()).into_iter().collect();
            self.known.rows.push(Row { closed, open, labels });
        }
    }

    /// All that has been read, in a stable order.
    pub(in crate::metrics) fn in_order(mut self) -> impl Iterator<Item = (Labels, EventTime, T)> {
        let Rows { rows, order, .. } = self.known;
        if order.len() < rows.len() {
            order.extend(order.len()..rows.len());
            order.sort_by(|&a, &b| (rows[a].closed, &rows[a].open).cmp(&(rows[b].closed, &rows[b].open)));
        }
        order.iter().filter_map(move |&place| {
            let (created, value) = self.values[place].take()?;
            Some((rows[place].labels.clone(), created, value))
        })
    }
}
