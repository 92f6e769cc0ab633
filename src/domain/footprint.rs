//! What things take in memory: in bytes, as an allocator hands them out.
//!
//! What an instance owns alone is reckoned from its parts. What many events share, their facts, is reckoned once, when it
//! comes and when it goes.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What an allocation of this size takes: sizes are rounded up to 16 bytes, and larger ones to four steps in each power of
/// two, as mimalloc does it (`mi_bin` of its version 2).
pub fn allocated(bytes: usize) -> usize {
    const FINE: usize = 16;
    match bytes {
        0 => 0,
        1..=128 => bytes.next_multiple_of(FINE),
        _ => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
    }
}

/// What `count` values of a type take side by side.
pub fn array<T>(count: usize) -> usize {
    allocated(count * size_of::<T>())
}

/// What a hash table takes that has room for `capacity` pairs: of eight places seven are used, each with a byte beside it
/// (hashbrown).
pub fn table<K, V>(capacity: usize) -> usize {
    (capacity / 7 * 8) * (size_of::<(K, V)>() + 1)
}

/// What a text takes that is counted.
pub(super) fn text(text: &str) -> usize {
    const COUNTS: usize = 16;
    allocated(COUNTS + text.len())
}

/// What all values take that are there at this moment and hold a [`Held`].
pub fn held() -> u64 {
    HELD.load(Relaxed)
}

/// Memory is a matter of the process, and so is this.
static HELD: AtomicU64 = AtomicU64::new(0);

/// So many bytes, for as long as it lives. Any two are equal: it is no part of what holds it.
#[derive(Debug, Default)]
pub struct Held(u32);

impl Held {
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        HELD.fetch_add(u64::from(bytes), Relaxed);
        Held(bytes)
    }

    pub(super) fn bytes(&self) -> usize {
        self.0 as usize
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(u64::from(self.0), Relaxed);
    }
}

impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

/// What a list of texts takes, without the texts that are `known` already.
pub(super) fn texts<'t>(texts: impl Iterator<Item = &'t Arc<str>>, known: &[&Arc<str>]) -> usize {
    texts.filter(|one| !known.iter().any(|known| Arc::ptr_eq(known, one))).map(|one| text(one)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_as_the_allocator_does_it() {
        for (asked, taken) in [
            (0, 0),
            (1, 16),
            (48, 48),
            (100, 112),
            (128, 128),
            (129, 160),
            (384, 384),
            (385, 448),
            (1024, 1024),
            (1025, 1280),
        ] {
            assert_eq!(allocated(asked), taken, "{asked}");
        }
    }
}
