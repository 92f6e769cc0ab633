//! The series of one family and flow: created at zero, bounded in number.
//!
//! Invariant: totals are exact. What does not fit, and what has not changed for long, is counted in a series that keeps
//! the closed labels (outcome, reason ...) and replaces the open-valued ones by `otel_metric_overflow="true"`; a new
//! series shows zero for one scrape interval, because a rate cannot see a first value, and its true value after that.

mod rows;
mod stored;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use hashbrown::HashTable;

use super::distinct::Distinct;
use crate::domain::labels::Label;
use crate::domain::time::{Arrival, EventTime};
pub(super) use rows::{Reading, Rows};

/// The label that stands for all label sets that found no room.
pub(super) const OVERFLOW_LABEL: &str = "otel_metric_overflow";

/// The open-valued labels of a series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Open {
    /// Their values.
    Labels(Arc<[Label]>),
    /// There was no room for them.
    Overflow,
}

/// Names and values of open labels, wherever they are kept.
pub(super) trait LabelSet {
    /// Them, in their order.
    fn pairs(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<str>)>;
}

impl LabelSet for [Label] {
    fn pairs(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<str>)> {
        self.iter().map(|(name, value)| (name, value))
    }
}

impl<const N: usize> LabelSet for [(&Arc<str>, &Arc<str>); N] {
    fn pairs(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<str>)> {
        self.iter().copied()
    }
}

/// Open labels with their hash: several families ask for the same ones.
#[derive(Debug)]
pub(super) struct Hashed<'l, L: ?Sized> {
    labels: &'l L,
    hash: u64,
}

impl<'l, L: LabelSet + ?Sized> Hashed<'l, L> {
    pub(super) fn of(labels: &'l L) -> Self {
        let mut hasher = HASHER.build_hasher();
        labels.pairs().for_each(|pair| pair.hash(&mut hasher));
        Hashed { labels, hash: hasher.finish() }
    }
}

/// What strangers choose as labels is hashed with a random seed.
static HASHER: LazyLock<foldhash::quality::RandomState> = LazyLock::new(Default::default);

impl Open {
    fn is(&self, labels: Option<&(impl LabelSet + ?Sized)>) -> bool {
        match (self, labels) {
            (Open::Labels(known), Some(labels)) => {
                known.len() == labels.pairs().len() && known.pairs().eq(labels.pairs())
            }
            (Open::Overflow, None) => true,
            _ => false,
        }
    }

    /// Their values; none of the overflow.
    fn labels(&self) -> Option<&[Label]> {
        match self {
            Open::Labels(labels) => Some(labels),
            Open::Overflow => None,
        }
    }

    /// The labels as they are shown.
    pub(super) fn shown(&self) -> Vec<Label> {
        match self {
            Open::Labels(labels) => labels.to_vec(),
            Open::Overflow => vec![(Arc::from(OVERFLOW_LABEL), Arc::from("true"))],
        }
    }
}

/// When something new is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Birth {
    /// Now, by our own clock.
    pub(super) now: Arrival,
    /// Until when a new series shows zero.
    pub(super) visible_from: Arrival,
    /// Now, by our wall clock: when a new series begins.
    pub(super) created: EventTime,
}

/// How many series there may be.
#[derive(Debug, Clone)]
pub(super) struct SeriesLimits {
    /// With open labels of their own; they have [`LABEL_BYTES`] each on average.
    pub(super) series: usize,
    /// Values of each open label.
    pub(super) values_per_label: usize,
    /// Room for the lines of the page that they take, if there is a bound on these that is shared with others.
    pub(super) lines: Option<Arc<Lines>>,
}

/// Room for lines of the page, of several families and flows together.
#[derive(Debug)]
pub(super) struct Lines {
    left: AtomicUsize,
}

impl Lines {
    /// Room for `lines`.
    pub(super) fn new(lines: usize) -> Arc<Self> {
        Arc::new(Lines { left: AtomicUsize::new(lines) })
    }

    /// Takes room for so many, if there is any.
    fn take(&self, lines: usize) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(lines)).is_ok()
    }

    fn give_back(&self, lines: usize) {
        self.left.fetch_add(lines, Relaxed);
    }
}

/// How long the names and values of open labels of a series are on average at most: each of its lines repeats them.
pub(super) const LABEL_BYTES: usize = 256;

/// Values that can be added up.
pub(super) trait Accumulate {
    /// Adds another value; `is_newer` says whether that one was touched later.
    fn add(&mut self, other: &Self, is_newer: bool);
}

impl Accumulate for u64 {
    fn add(&mut self, other: &Self, _: bool) {
        *self += other;
    }
}

impl Accumulate for u128 {
    fn add(&mut self, other: &Self, _: bool) {
        *self += other;
    }
}

/// The last duration of several series is the last of any.
impl Accumulate for f64 {
    fn add(&mut self, other: &Self, is_newer: bool) {
        if is_newer {
            *self = *other;
        }
    }
}

/// The series of one family and flow, by closed labels `C` and open ones.
#[derive(Debug)]
pub(super) struct SeriesMap<C, V> {
    /// In the order in which they were created.
    entries: Vec<Entry<C, V>>,
    /// Where each of them is, by its hash.
    places: HashTable<usize>,
    /// How often these have changed.
    moves: u64,
    rows: Arc<Mutex<Rows<C>>>,
    /// How many of them have open labels of their own, and how long these are together.
    own: usize,
    label_bytes: usize,
    limits: SeriesLimits,
    /// How many lines of the page each of them takes.
    lines_each: usize,
    /// The values of each open label that the series have.
    values: HashMap<Arc<str>, HashSet<Arc<str>>>,
    refused: u64,
    /// The label sets that were refused, so that it can be told how many series were wanted.
    wanted: Option<Box<Distinct>>,
}

#[derive(Debug)]
struct Entry<C, V> {
    /// Of its labels, closed and open.
    hash: u64,
    closed: C,
    open: Open,
    /// Whether it is there whatever the limits: there are few of them.
    stays: bool,
    birth: Birth,
    touched: Arrival,
    value: V,
}

impl<C: Copy + Eq + Hash + Ord, V: Accumulate> SeriesMap<C, V> {
    /// Without any series; each will take so many lines of the page.
    pub(super) fn new(limits: &SeriesLimits, lines_each: usize) -> Self {
        SeriesMap {
            entries: Vec::new(),
            places: HashTable::new(),
            moves: 0,
            rows: Arc::new(Rows::new()),
            own: 0,
            label_bytes: 0,
            limits: limits.clone(),
            lines_each,
            values: HashMap::new(),
            refused: 0,
            wanted: None,
        }
    }

    /// The value of a series, created if it is new; its zero is shown for a while then.
    pub(super) fn get(
        &mut self,
        closed: C,
        labels: &Hashed<'_, impl LabelSet + ?Sized>,
        birth: Birth,
        create: impl FnOnce() -> V,
    ) -> &mut V {
        // Without labels there is nothing to replace in the overflow.
        if labels.labels.pairs().len() == 0 {
            return self.keep(closed, labels, birth, create);
        }
        let hash = hash_of(closed, Some(labels.hash));
        if let Some(place) = self.place(hash, closed, Some(labels.labels)) {
            return self.touch(place, birth);
        }
        if self.admit(labels.labels) {
            return self.entry(hash, closed, Some(labels.labels), false, birth, create);
        }
        self.wanted.get_or_insert_default().add(hash);
        self.refused += 1;
        let overflow = hash_of(closed, None);
        self.entry(overflow, closed, None::<&[Label]>, false, birth, create)
    }

    /// The value of a series that has room whatever the limits, for there are few like it, and that never expires.
    pub(super) fn keep(
        &mut self,
        closed: C,
        labels: &Hashed<'_, impl LabelSet + ?Sized>,
        birth: Birth,
        create: impl FnOnce() -> V,
    ) -> &mut V {
        let hash = hash_of(closed, Some(labels.hash));
        self.entry(hash, closed, Some(labels.labels), true, birth, create)
    }

    /// The value of the series with this hash; without labels that of the overflow.
    fn entry(
        &mut self,
        hash: u64,
        closed: C,
        labels: Option<&(impl LabelSet + ?Sized)>,
        stays: bool,
        birth: Birth,
        create: impl FnOnce() -> V,
    ) -> &mut V {
        let place = self.place(hash, closed, labels).unwrap_or_else(|| {
            let open = labels.map_or(Open::Overflow, |labels| Open::Labels(copy_of(labels)));
            self.add(Entry { hash, closed, open, stays, birth, touched: birth.now, value: create() })
        });
        self.touch(place, birth)
    }

    /// The value of the series at a place, which is about to change.
    fn touch(&mut self, place: usize, now: Birth) -> &mut V {
        let entry = &mut self.entries[place];
        entry.touched = now.now;
        &mut entry.value
    }

    /// Where the series with this hash is.
    fn place(&self, hash: u64, closed: C, labels: Option<&(impl LabelSet + ?Sized)>) -> Option<usize> {
        self.places.find(hash, |&place| self.entries[place].is(closed, labels)).copied()
    }

    /// Adds a series that is not there yet. Returns where it is.
    fn add(&mut self, entry: Entry<C, V>) -> usize {
        let place = self.entries.len();
        let hash = entry.hash;
        self.entries.push(entry);
        self.places.insert_unique(hash, place, |&place| self.entries[place].hash);
        place
    }

    /// Makes room for a new label set, if there is any.
    fn admit(&mut self, labels: &(impl LabelSet + ?Sized)) -> bool {
        let limit = self.limits.values_per_label;
        let has_room = |(name, value): (&Arc<str>, &Arc<str>)| {
            self.values.get(name).is_none_or(|known| known.contains(value) || known.len() < limit)
        };
        let bytes = self.label_bytes + length(labels);
        let is_full =
            self.own >= self.limits.series || bytes > self.limits.series.saturating_mul(LABEL_BYTES);
        if is_full || !labels.pairs().all(has_room) {
            return false;
        }
        if self.limits.lines.as_ref().is_some_and(|lines| !lines.take(self.lines_each)) {
            return false;
        }
        self.own += 1;
        self.label_bytes = bytes;
        for (name, value) in labels.pairs() {
            self.values.entry(Arc::clone(name)).or_default().insert(Arc::clone(value));
        }
        true
    }

    /// Moves series with open labels that nothing was added to for `idle` into the overflow series. Returns how many.
    pub(super) fn expire(&mut self, birth: Birth, idle: Duration) -> u64 {
        let is_idle = |entry: &mut Entry<C, V>| {
            let has_labels = entry.open.labels().is_some();
            has_labels && !entry.stays && birth.now.since(entry.touched) >= idle
        };
        let mut expired: Vec<_> = self.entries.extract_if(.., is_idle).collect();
        // When they were created decides nothing.
        expired.sort_unstable_by(|a, b| (a.closed, &a.open).cmp(&(b.closed, &b.open)));
        if expired.is_empty() {
            return 0;
        }
        self.moves += 1;
        self.places.clear();
        for (place, entry) in self.entries.iter().enumerate() {
            self.places.insert_unique(entry.hash, place, |&place| self.entries[place].hash);
        }
        self.own -= expired.len();
        self.give_back(expired.len());
        self.label_bytes = 0;
        self.values.clear();
        let kept = self.entries.iter().filter(|entry| !entry.stays);
        for labels in kept.filter_map(|entry| entry.open.labels()) {
            self.label_bytes += length(labels);
            for (name, value) in labels {
                self.values.entry(Arc::clone(name)).or_default().insert(Arc::clone(value));
            }
        }
        let count = expired.len() as u64;
        for entry in expired {
            let hash = hash_of(entry.closed, None);
            match self.place(hash, entry.closed, None::<&[Label]>) {
                Some(place) => {
                    let overflow = &mut self.entries[place];
                    let is_newer = entry.touched > overflow.touched;
                    overflow.value.add(&entry.value, is_newer);
                    overflow.touched = overflow.touched.max(entry.touched);
                    // As below, even if it has only just been made.
                    overflow.birth.visible_from = overflow.birth.visible_from.min(birth.now);
                }
                None => {
                    // It is shown at once: these observations have been seen, and sums over all series must not fall.
                    let birth = Birth { visible_from: birth.now, ..birth };
                    self.add(Entry { hash, open: Open::Overflow, stays: true, birth, ..entry });
                }
            }
        }
        count
    }

    /// Whether the series exists by its own labels.
    pub(super) fn contains(&self, closed: C, labels: &Hashed<'_, impl LabelSet + ?Sized>) -> bool {
        self.place(hash_of(closed, Some(labels.hash)), closed, Some(labels.labels)).is_some()
    }

    /// How many times a value went to the overflow series.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// How many series there would be without limits, roughly.
    pub(super) fn wanted(&self) -> u64 {
        self.own as u64 + self.wanted.as_ref().map_or(0, |wanted| wanted.estimate())
    }
}

impl<C, V> SeriesMap<C, V> {
    /// What is kept of its series for the next scrape; to be locked before whatever guards the map.
    pub(super) fn rows(&self) -> Arc<Mutex<Rows<C>>> {
        Arc::clone(&self.rows)
    }

    /// Gives back the room of so many series.
    fn give_back(&self, series: usize) {
        if let Some(lines) = &self.limits.lines {
            lines.give_back(series * self.lines_each);
        }
    }
}

impl<C, V> Drop for SeriesMap<C, V> {
    fn drop(&mut self) {
        self.give_back(self.own);
    }
}

impl<C: Eq, V> Entry<C, V> {
    fn is(&self, closed: C, labels: Option<&(impl LabelSet + ?Sized)>) -> bool {
        self.closed == closed && self.open.is(labels)
    }
}

/// Of a series whose open labels have this hash, or of the overflow.
fn hash_of(closed: impl Hash, labels: Option<u64>) -> u64 {
    HASHER.hash_one((closed, labels))
}

fn copy_of(labels: &(impl LabelSet + ?Sized)) -> Arc<[Label]> {
    labels.pairs().map(|(name, value)| (Arc::clone(name), Arc::clone(value))).collect()
}

fn length(labels: &(impl LabelSet + ?Sized)) -> usize {
    labels.pairs().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::snapshot::Labels;

    fn at(second: u64) -> Birth {
        let now = Arrival::since_origin(Duration::from_secs(second));
        Birth { now, visible_from: now, created: EventTime::EPOCH.plus(Duration::from_secs(second)) }
    }

    fn labels(tenant: &str, region: &str) -> Arc<[Label]> {
        [("tenant", tenant), ("region", region)].map(|(name, value)| (name.into(), value.into())).into()
    }

    fn map<V: Accumulate>(series: usize, values_per_label: usize) -> SeriesMap<(), V> {
        SeriesMap::new(&SeriesLimits { series, values_per_label, lines: None }, 1)
    }

    /// Labels, when it began, the value, and whether it is hidden, of each series.
    fn read<V: Accumulate + Copy>(map: &SeriesMap<(), V>, now: Arrival) -> Vec<(String, u64, V, bool)> {
        let rows = map.rows();
        let mut rows = rows.lock().unwrap();
        let mut reading = Reading::new(&mut rows);
        while map.read(&mut reading, now, |value, is_hidden, _| (*value, is_hidden)) {
            reading.take_in(|(), open| open);
        }
        reading.take_in(|(), open| open);
        let line = |labels: Labels, created: EventTime, (value, is_hidden): (V, bool)| {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            (labels.join(" "), created.unix_nanoseconds() / 1_000_000_000, value, is_hidden)
        };
        reading.in_order(line)
    }

    fn shown(map: &SeriesMap<(), u64>) -> Vec<(String, u64, u64)> {
        let all = read(map, Arrival::since_origin(Duration::MAX));
        all.into_iter().map(|(labels, created, value, _)| (labels, value, created)).collect()
    }

    #[test]
    fn a_million_label_values_are_as_many_series_as_may_be_and_lose_no_count() {
        let mut map = map(100, 1000);
        for value in 0..1_000_000 {
            *map.get((), &Hashed::of(&*labels(&value.to_string(), "eu")), at(1), || 0) += 1;
        }
        let series = shown(&map);
        assert_eq!(series.len(), 101);
        assert_eq!(series.iter().map(|(_, value, _)| value).sum::<u64>(), 1_000_000);
        assert_eq!(map.refused(), 999_900);
        let wanted = map.wanted() as f64;
        assert!((wanted / 1e6 - 1.0).abs() < 0.1, "{wanted}");
    }

    #[test]
    fn a_label_with_too_many_values_overflows_and_leaves_room_for_the_others() {
        let mut map = map(100, 2);
        for (tenant, region) in
            [("a", "eu"), ("b", "eu"), ("c", "eu"), ("a", "us"), ("c", "us"), ("a", "asia")]
        {
            *map.get((), &Hashed::of(&*labels(tenant, region)), at(1), || 0) += 1;
        }
        assert_eq!(
            shown(&map),
            [
                ("tenant=a region=eu".to_owned(), 1, 1),
                ("tenant=a region=us".to_owned(), 1, 1),
                ("tenant=b region=eu".to_owned(), 1, 1),
                ("otel_metric_overflow=true".to_owned(), 3, 1),
            ]
        );
        assert_eq!(map.wanted(), 6);
    }

    #[test]
    fn long_labels_take_the_room_of_several() {
        let mut map = map(4, 100);
        let long = "x".repeat(2 * LABEL_BYTES);
        for (tenant, region) in [("a", "eu"), (&long, "eu"), (&long, "us"), ("b", "eu")] {
            *map.get((), &Hashed::of(&*labels(tenant, region)), at(1), || 0) += 1;
        }
        let overflow = ("otel_metric_overflow=true".to_owned(), 1, 1);
        assert_eq!(shown(&map).len(), 4);
        assert_eq!(shown(&map).last(), Some(&overflow), "of the second long one");
    }

    #[test]
    fn several_families_share_the_lines_of_the_page_and_give_them_back() {
        let lines = Lines::new(45);
        let limits = SeriesLimits { series: 100, values_per_label: 100, lines: Some(lines.clone()) };
        let mut counters: SeriesMap<(), u64> = SeriesMap::new(&limits, 1);
        let mut histograms: SeriesMap<(), u64> = SeriesMap::new(&limits, 20);
        for tenant in ["a", "b", "c"] {
            *histograms.get((), &Hashed::of(&*labels(tenant, "eu")), at(1), || 0) += 1;
            *counters.get((), &Hashed::of(&*labels(tenant, "eu")), at(1), || 0) += 1;
        }
        let overflow = ("otel_metric_overflow=true".to_owned(), 1, 1);
        assert_eq!((shown(&histograms).len(), shown(&histograms).last()), (3, Some(&overflow)));
        assert_eq!((shown(&counters).len(), counters.refused()), (3, 0));
        assert_eq!(lines.left.load(Relaxed), 2);
        assert_eq!(histograms.expire(at(100), Duration::from_secs(60)), 2);
        assert_eq!(lines.left.load(Relaxed), 42);
        drop(counters);
        assert_eq!(lines.left.load(Relaxed), 45);
    }

    #[test]
    fn what_stays_needs_no_room_and_does_not_expire() {
        let mut map = map(1, 1);
        for value in ["a", "b", "c"] {
            *map.keep((), &Hashed::of(&*labels(value, "eu")), at(1), || 0) += 1;
        }
        *map.get((), &Hashed::of(&[] as &[Label]), at(1), || 0) += 1;
        *map.get((), &Hashed::of(&*labels("d", "us")), at(1), || 0) += 1;
        assert_eq!((shown(&map).len(), map.refused()), (5, 0));
        assert_eq!(map.expire(at(100), Duration::from_secs(60)), 1, "d");
        assert_eq!(shown(&map).len(), 5, "with the overflow");
    }

    #[test]
    fn what_expires_does_not_vanish_for_a_while() {
        let mut map = map(9, 9);
        *map.get((), &Hashed::of(&*labels("a", "eu")), at(1), || 0_u64) += 5;
        let later = Birth { visible_from: Arrival::since_origin(Duration::from_secs(85)), ..at(70) };
        assert_eq!(map.expire(later, Duration::from_secs(60)), 1);
        let series = read(&map, Arrival::since_origin(Duration::from_secs(71)));
        assert_eq!(series, [("otel_metric_overflow=true".to_owned(), 70, 5, false)]);
    }

    #[test]
    fn what_expires_does_not_vanish_in_an_overflow_that_is_not_shown_yet() {
        let mut map = map(1, 9);
        *map.get((), &Hashed::of(&*labels("a", "eu")), at(1), || 0_u64) += 5;
        let hidden = Birth { visible_from: Arrival::since_origin(Duration::from_secs(85)), ..at(62) };
        *map.get((), &Hashed::of(&*labels("b", "eu")), hidden, || 0_u64) += 1;
        assert_eq!(map.expire(at(70), Duration::from_secs(60)), 1);
        let series = read(&map, Arrival::since_origin(Duration::from_secs(71)));
        assert_eq!(series, [("otel_metric_overflow=true".to_owned(), 62, 6, false)]);
    }

    #[test]
    fn the_last_value_of_several_series_is_that_of_the_last() {
        let mut map = map(1, 9);
        *map.get((), &Hashed::of(&*labels("a", "eu")), at(1), || 0.0) = 1.0;
        *map.get((), &Hashed::of(&*labels("b", "eu")), at(50), || 0.0) = 2.0;
        map.expire(at(62), Duration::from_secs(60));
        let series = read(&map, Arrival::since_origin(Duration::MAX));
        assert_eq!(series.iter().map(|(_, _, value, _)| *value).collect::<Vec<_>>(), [2.0]);
    }

    #[test]
    fn idle_series_go_into_the_overflow_and_come_back_at_zero() {
        let mut map = map(2, 2);
        *map.get((), &Hashed::of(&*labels("a", "eu")), at(1), || 0) += 5;
        *map.get((), &Hashed::of(&*labels("b", "eu")), at(50), || 0) += 1;
        assert_eq!(map.expire(at(70), Duration::from_secs(60)), 1);
        *map.get((), &Hashed::of(&*labels("b", "eu")), at(71), || 0) += 1;
        *map.get((), &Hashed::of(&*labels("c", "eu")), at(72), || 0) += 1;
        let before = ("otel_metric_overflow=true".to_owned(), 5, 70);
        assert_eq!(shown(&map).last(), Some(&before));
        assert_eq!(map.expire(at(131), Duration::from_secs(60)), 1, "b is idle, c is not");
        *map.get((), &Hashed::of(&*labels("a", "eu")), at(132), || 0) += 1;
        assert_eq!(
            shown(&map),
            [
                ("tenant=a region=eu".to_owned(), 1, 132),
                ("tenant=c region=eu".to_owned(), 1, 72),
                ("otel_metric_overflow=true".to_owned(), 7, 70),
            ]
        );
    }

    #[test]
    fn what_goes_into_the_overflow_while_it_is_read_is_read_once() {
        let mut map = map(1000, 1000);
        for place in 0..200 {
            *map.get((), &Hashed::of(&*labels(&place.to_string(), "eu")), at(1), || 0) += 1;
        }
        let (rows, now) = (map.rows(), Arrival::since_origin(Duration::MAX));
        let mut rows = rows.lock().unwrap();
        let mut reading = Reading::new(&mut rows);
        assert!(map.read(&mut reading, now, |value, _, _| *value), "there are more than are read at once");
        reading.take_in(|(), open| open);
        assert_eq!(map.expire(at(100), Duration::from_secs(60)), 200);
        *map.get((), &Hashed::of(&*labels("b", "eu")), at(101), || 0) += 1;
        *map.get((), &Hashed::of(&*labels("a", "eu")), at(101), || 0) += 1;
        assert!(!map.read(&mut reading, now, |value, _, _| *value));
        reading.take_in(|(), open| open);
        let read: Vec<(String, u64)> = reading.in_order(|labels, _, value| (labels[0].1.to_string(), value));
        assert_eq!(read, [("a".to_owned(), 1), ("b".to_owned(), 1), ("true".to_owned(), 200)]);
    }
}
