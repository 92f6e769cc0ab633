//! Calendars as they are stored: with the order among the entries of one moment.

use std::collections::BTreeMap;

use super::{Calendar, Page};
use crate::aggregator::stored::{restore_tree, store_tree};
use crate::domain::ids::Key;
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored};
use crate::domain::time::Arrival;

impl Calendar {
    pub(in crate::aggregator) fn store(&self, to: &mut Encoder<'_>) {
        let Calendar { later, open: _, next_page, added } = self;
        let entries = |(number, page): (&u64, &Page)| (*number, Self::entries(*number, page).collect());
        let later: BTreeMap<u64, Vec<(u64, Key)>> = later.iter().map(entries).collect();
        store_tree(&later, to);
        let open: Vec<(u64, Key)> = self.open_entries().collect();
        to.many(open.iter());
        next_page.write(to);
        store_tree(added, to);
    }

    pub(in crate::aggregator) fn restore(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let later = restore_tree::<(u64, Key)>(from)?;
        Ok(Calendar {
            later: later.into_iter().map(|(number, entries)| (number, page(entries))).collect(),
            open: page(from.many()?),
            next_page: Stored::read(from)?,
            added: restore_tree(from)?,
        })
    }

    /// Whether taking what is due would change anything.
    pub(in crate::aggregator) fn comes_up(&self, now: Arrival) -> bool {
        let now = now.nanoseconds() / Self::tick();
        let is_due = |tick: Option<&u64>| tick.is_some_and(|tick| *tick <= now);
        let page = self.later.first_key_value().filter(|_| self.open.is_empty());
        is_due(self.open_tick().as_ref())
            || is_due(self.added.first_key_value().map(|(tick, _)| tick))
            || page.is_some_and(|(page, _)| page * Self::PAGE <= now)
    }
}

/// A page of these entries, in their order.
fn page(entries: Vec<(u64, Key)>) -> Page {
    let mut page = Page::default();
    for (tick, key) in entries {
        page.push(Calendar::within_page(tick), key);
    }
    page
}
