//! Buffers that requests are put together in, used again and again: memory that comes anew from the system has to be
//! mapped and cleared first, and is in no processor's cache.

use std::mem::take;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// How many buffers are kept while no request needs them.
const KEPT: usize = 8;
/// How large a buffer may be to be kept.
pub(in crate::receiver) const KEPT_BYTES: usize = 1024 * 1024;

/// The buffers that no request needs at the moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer with room for so many bytes.
    pub(super) fn take(&self, bytes: usize) -> Buffer {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = Buffer { bytes: kept.unwrap_or_default(), home: self.clone() };
        buffer.reserve_exact(bytes);
        buffer
    }

    fn keep(&self, mut bytes: Vec<u8>) {
        if (1..=KEPT_BYTES).contains(&bytes.capacity()) {
            bytes.clear();
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT {
                kept.push(bytes);
            }
        }
    }
}

/// A buffer, which goes back to the others when nobody has hold of it any more.
#[derive(Debug)]
pub(in crate::receiver) struct Buffer {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffer {
    /// What it holds.
    pub(in crate::receiver) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.keep(take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_nobody_has_hold_of_it() {
        let buffers = Buffers::default();
        let mut first = buffers.take(100);
        first.extend_from_slice(b"first");
        let place = first.as_ptr();
        let frozen = first.freeze();
        let part = frozen.slice(1..3);
        assert_ne!(buffers.take(100).as_ptr(), place, "it is in use");
        drop(frozen);
        assert_ne!(buffers.take(100).as_ptr(), place, "a part of it is in use");
        assert_eq!(&*part, b"ir");
        drop(part);
        let again = buffers.take(100);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn only_a_few_small_ones_are_kept() {
        let buffers = Buffers::default();
        let kept = || buffers.0.lock().expect("no test panics with it").len();
        drop(buffers.take(KEPT_BYTES + 1));
        assert_eq!(kept(), 0);
        drop((0..2 * KEPT).map(|_| buffers.take(1)).collect::<Vec<_>>());
        assert_eq!(kept(), KEPT);
    }
}
