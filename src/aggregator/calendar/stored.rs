//! Calendars as they are stored: with the order among the entries of one moment.

use super::Calendar;
use crate::aggregator::stored::{restore_tree, store_tree};
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored};
use crate::domain::time::Arrival;

impl Calendar {
    pub(in crate::aggregator) fn store(&self, to: &mut Encoder<'_>) {
        let Calendar { later, open, next_page, added } = self;
        store_tree(later, to);
        to.many(open.iter());
        next_page.write(to);
        store_tree(added, to);
    }

    pub(in crate::aggregator) fn restore(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Calendar {
            later: restore_tree(from)?,
            open: from.many()?,
            next_page: Stored::read(from)?,
            added: restore_tree(from)?,
        })
    }

    /// Whether taking what is due would change anything.
    pub(in crate::aggregator) fn comes_up(&self, now: Arrival) -> bool {
        let now = now.nanoseconds() / Self::tick();
        let is_due = |tick: Option<&u64>| tick.is_some_and(|tick| *tick <= now);
        let page = self.later.first_key_value().filter(|_| self.open.is_empty());
        is_due(self.open.last().map(|(tick, _)| tick))
            || is_due(self.added.first_key_value().map(|(tick, _)| tick))
            || page.is_some_and(|(page, _)| page * Self::PAGE <= now)
    }
}
