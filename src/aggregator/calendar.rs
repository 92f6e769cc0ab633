//! Which keys have to be looked at when.
//!
//! A key's entry only wakes: what is due is decided from the state found under the key. Entries are never removed
//! early, so an entry may find nothing to do. Adding costs the same however many instances are open, and taking
//! what is due costs what is due: entries are only written down until their page comes up, and put in order then.

mod page;
mod stored;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::footprint;
use crate::domain::ids::Key;
use crate::domain::time::Arrival;
use page::Page;

/// Keys by the moment at which they have to be looked at, in ticks of [`Calendar::TICK`].
#[derive(Debug, Default)]
pub(super) struct Calendar {
    /// Pages that have not come up yet, each in the order in which its entries came.
    later: BTreeMap<u64, Page>,
    /// Of the page that has come up last, the entries that are left, the soonest last.
    open: Page,
    /// The first page that has not come up; the one before it has come up last.
    next_page: u64,
    /// What came for a page that had come up already.
    added: BTreeMap<u64, Vec<Key>>,
}

impl Calendar {
    /// How late a key may be looked at: the price for many keys sharing an entry.
    pub(super) const TICK: Duration = Duration::from_millis(10);

    /// How many ticks a page has, at most 256: as few pages as may be are written to at a time, and little is put in order
    /// at once.
    const PAGE: u64 = 100;

    /// Looks at `key` at `at`, or up to a tick later, never sooner.
    pub(super) fn add(&mut self, at: Arrival, key: Key) {
        self.add_at(at.nanoseconds().div_ceil(Self::tick()), key);
    }

    fn add_at(&mut self, tick: u64, key: Key) {
        let page = tick / Self::PAGE;
        if page >= self.next_page {
            self.later.entry(page).or_default().push(Self::within_page(tick), key);
        } else {
            self.added.entry(tick).or_default().push(key);
        }
    }

    /// Takes out at most `limit` keys whose moment has come.
    pub(super) fn take_due(&mut self, now: Arrival, limit: usize) -> Vec<Key> {
        let now = now.nanoseconds() / Self::tick();
        let mut due = Vec::new();
        loop {
            self.open_next_page(now);
            let added = self.added.first_key_value().map_or(u64::MAX, |(tick, _)| *tick);
            let before = due.len();
            while due.len() < limit
                && let Some(key) = self.pop_until(now.min(added))
            {
                due.push(key);
            }
            if added <= now
                && due.len() < limit
                && self.open_tick().is_none_or(|tick| tick > added)
                && let Some(mut first) = self.added.first_entry()
            {
                let keys = first.get_mut();
                let rest = keys.len().saturating_sub(limit - due.len());
                due.extend(keys.drain(rest..));
                if keys.is_empty() {
                    first.remove();
                }
            }
            if due.len() == before || due.len() >= limit {
                return due;
            }
        }
    }

    /// Puts the entries of the next page in order, if it has come up and those of the page before it are gone.
    fn open_next_page(&mut self, now: u64) {
        if !self.open.is_empty() {
            return;
        }
        // What a burst took is given back when it is over.
        self.open = Page::default();
        if let Some(first) = self.later.first_entry().filter(|first| *first.key() * Self::PAGE <= now) {
            self.next_page = *first.key() + 1;
            self.open = first.remove();
            self.open.sort();
        }
    }

    /// The number of the page that has come up last.
    fn open_page(&self) -> u64 {
        self.next_page.saturating_sub(1)
    }

    /// Takes the soonest entry out of the page that has come up last, if its moment is no later than this tick.
    fn pop_until(&mut self, tick: u64) -> Option<Key> {
        let ticks = tick.checked_sub(self.open_page() * Self::PAGE)?;
        self.open.pop_until(u8::try_from(ticks).unwrap_or(u8::MAX))
    }

    /// The soonest tick of the page that has come up last.
    fn open_tick(&self) -> Option<u64> {
        self.open.last_tick().map(|tick| Self::tick_of(self.open_page(), tick))
    }

    /// The entries of a page with their ticks.
    fn entries(number: u64, page: &Page) -> impl Iterator<Item = (u64, Key)> {
        page.each().map(move |(tick, key)| (Self::tick_of(number, tick), key))
    }

    /// The entries of the page that has come up last.
    fn open_entries(&self) -> impl Iterator<Item = (u64, Key)> {
        Self::entries(self.open_page(), &self.open)
    }

    /// Which tick of its page a tick is.
    fn within_page(tick: u64) -> u8 {
        (tick % Self::PAGE) as u8
    }

    /// The tick that is this one of its page.
    fn tick_of(page: u64, tick: u8) -> u64 {
        page * Self::PAGE + u64::from(tick)
    }

    /// Takes over the entries of another one for which `keep` holds.
    pub(super) fn absorb(&mut self, other: Calendar, mut keep: impl FnMut(&Key) -> bool) {
        let later = other.later.iter().flat_map(|(number, page)| Self::entries(*number, page));
        let added = other.added.iter().flat_map(|(tick, keys)| keys.iter().map(|key| (*tick, key.clone())));
        for (tick, key) in later.chain(other.open_entries()).chain(added).filter(|(_, key)| keep(key)) {
            self.add_at(tick, key);
        }
        self.later.values_mut().for_each(Page::shrink_to_fit);
    }

    /// The first moment at which a key has to be looked at.
    pub(super) fn first(&self) -> Option<Arrival> {
        let tick = self.first_tick()?;
        Some(Arrival::since_origin(Duration::from_nanos(tick.saturating_mul(Self::tick()))))
    }

    fn first_tick(&self) -> Option<u64> {
        let open = self.open_tick();
        let added = self.added.first_key_value().map(|(tick, _)| *tick);
        let shown = [open, added].into_iter().flatten().min();
        // No page that has not come up holds anything sooner than those that have.
        shown.or_else(|| {
            let (number, page) = self.later.first_key_value()?;
            page.first_tick().map(|tick| Self::tick_of(*number, tick))
        })
    }

    /// Takes out the keys whose moment comes first.
    pub(super) fn take_first(&mut self) -> Vec<Key> {
        match self.first() {
            Some(first) => self.take_due(first, usize::MAX),
            None => Vec::new(),
        }
    }

    /// What it takes in memory, in bytes, roughly: lists grow by doubling.
    pub(super) fn bytes(&self) -> usize {
        let list = |page: &Page| page.bytes() + size_of::<(u64, Page)>();
        let added = self.added.values();
        self.later.values().map(list).sum::<usize>()
            + list(&self.open)
            + added
                .map(|keys| footprint::array::<Key>(keys.capacity()) + size_of::<(u64, Vec<Key>)>())
                .sum::<usize>()
    }

    /// How many keys wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let later: usize = self.later.values().map(Page::len).sum();
        later + self.open.len() + self.added.values().map(Vec::len).sum::<usize>()
    }

    fn tick() -> u64 {
        Self::TICK.as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::FlowId;

    fn key(number: usize) -> Key {
        Key::Named { flow: FlowId::at(0), id: Arc::from(number.to_string()) }
    }

    fn at(milliseconds: u64) -> Arrival {
        Arrival::since_origin(Duration::from_millis(milliseconds))
    }

    proptest! {
        #[test]
        fn every_key_is_taken_once_when_its_moment_has_come(
            steps in prop::collection::vec((0_u64..400, 0_u64..5_000, 1_usize..4), 1..60),
        ) {
            let mut calendar = Calendar::default();
            let (mut now, mut waiting) = (0, Vec::new());
            for (number, (passed, ahead, limit)) in steps.into_iter().enumerate() {
                calendar.add(at(now + ahead), key(number));
                waiting.push((now + ahead, key(number)));
                now += passed;
                prop_assert_eq!(calendar.len(), waiting.len());
                let first = waiting.iter().map(|(moment, _)| moment.next_multiple_of(10)).min();
                prop_assert_eq!(calendar.first(), first.map(at));
                for key in calendar.take_due(at(now), limit) {
                    let place = waiting.iter().position(|(_, waits)| *waits == key).expect("it waits");
                    prop_assert!(waiting.swap_remove(place).0 <= now);
                }
                if limit == 3 {
                    for key in calendar.take_due(at(now), usize::MAX) {
                        let place = waiting.iter().position(|(_, waits)| *waits == key).expect("it waits");
                        prop_assert!(waiting.swap_remove(place).0 <= now);
                    }
                    let is_due = |moment: u64| moment.next_multiple_of(10) <= now;
                    prop_assert!(waiting.iter().all(|(moment, _)| !is_due(*moment)));
                }
            }
            while let Some(first) = calendar.first() {
                let keys = calendar.take_first();
                prop_assert!(!keys.is_empty());
                for key in keys {
                    let place = waiting.iter().position(|(_, waits)| *waits == key).expect("it waits");
                    prop_assert_eq!(at(waiting.swap_remove(place).0.next_multiple_of(10)), first);
                }
            }
            prop_assert_eq!((calendar.len(), waiting.len()), (0, 0));
        }
    }
}
