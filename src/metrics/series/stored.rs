//! Series as they are stored. How many there would be without limits is counted anew.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Accumulate, Birth, Entry, Hashed, Lines, Open, SeriesLimits, SeriesMap, hash_of, length};
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored, stored_fields};
use crate::domain::time::Arrival;

stored_fields!(Birth { now, visible_from, created });

impl Lines {
    /// Takes room for so many again that had it before.
    fn take_back(&self, lines: usize) {
        let taken = self.left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(lines)));
        debug_assert!(taken.is_ok());
    }
}

impl<C: Copy + Eq + Hash + Ord + Stored, V: Accumulate> SeriesMap<C, V> {
    /// Writes all series; `store` writes a value.
    pub(in crate::metrics) fn store(&self, to: &mut Encoder<'_>, store: impl Fn(&V, &mut Encoder<'_>)) {
        self.refused.write(to);
        let mut sorted: Vec<&Entry<C, V>> = self.entries.iter().collect();
        sorted.sort_unstable_by(|a, b| (a.closed, &a.open).cmp(&(b.closed, &b.open)));
        to.number(sorted.len() as u128);
        for Entry { closed, open, stays, birth, touched, value, hash: _ } in sorted {
            to.pause();
            closed.write(to);
            open.labels().map(Arc::<[_]>::from).write(to);
            stays.write(to);
            birth.write(to);
            touched.write(to);
            store(value, to);
        }
    }

    /// Reads them again; `restore` reads a value.
    pub(in crate::metrics) fn restore(
        limits: &SeriesLimits,
        lines_each: usize,
        from: &mut Decoder<'_>,
        restore: impl Fn(&mut Decoder<'_>) -> Result<V, Damaged>,
    ) -> Result<Self, Damaged> {
        let mut map = SeriesMap::new(limits, lines_each);
        map.refused = Stored::read(from)?;
        let count: usize = from.number()?;
        for _ in 0..count {
            from.pause();
            let closed = C::read(from)?;
            let open = Option::read(from)?.map_or(Open::Overflow, Open::Labels);
            let (stays, birth) = Stored::read(from)?;
            let touched = Arrival::read(from)?;
            let value = restore(from)?;
            let hash = hash_of(closed, open.labels().map(|labels| Hashed::of(labels).hash));
            map.put_back(Entry { hash, closed, open, stays, birth, touched, value });
        }
        Ok(map)
    }

    fn put_back(&mut self, entry: Entry<C, V>) {
        if let Some(labels) = entry.open.labels().filter(|_| !entry.stays) {
            self.own += 1;
            self.limits.lines.iter().for_each(|lines| lines.take_back(self.lines_each));
            self.label_bytes += length(labels);
            for (name, value) in labels {
                self.values.entry(Arc::clone(name)).or_default().insert(Arc::clone(value));
            }
        }
        self.add(entry);
    }
}
