//! Room for the bytes of all requests that are under way, of every way in together.
//!
//! Invariant: what was reserved is given back when the request is done, however it ends.

mod buffer;

use crate::metrics::BytesInFlight;
use buffer::Buffers;
pub(super) use buffer::{Buffer, KEPT_BYTES};

/// Room for the bytes of all requests that are under way.
#[derive(Debug, Clone)]
pub struct InFlight {
    limit: usize,
    reserved: BytesInFlight,
    buffers: Buffers,
}

impl InFlight {
    /// Room for `limit` bytes; how much is taken is `reserved`.
    pub fn new(limit: usize, reserved: BytesInFlight) -> Self {
        InFlight { limit, reserved, buffers: Buffers::default() }
    }

    /// Begins a request, of no bytes so far.
    pub(super) fn begin(&self) -> Reserved {
        Reserved { bytes: 0, of: self.clone() }
    }
}

/// The room of one request.
#[derive(Debug)]
pub(super) struct Reserved {
    bytes: usize,
    of: InFlight,
}

/// There is no room for so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// At the moment.
    Now,
    /// Not even if there were no other request.
    Ever,
}

impl Reserved {
    /// Room for the same request, of no bytes so far.
    pub(super) fn another(&self) -> Reserved {
        self.of.begin()
    }

    /// A buffer for it with room for so many bytes, which are yet to be reserved.
    pub(super) fn buffer(&self, bytes: usize) -> Buffer {
        self.of.buffers.take(bytes)
    }

    /// Takes room for `bytes` more.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if self.bytes.checked_add(bytes).is_none_or(|sum| sum > self.of.limit) {
            return Err(NoRoom::Ever);
        }
        if !self.of.reserved.add(bytes, self.of.limit) {
            return Err(NoRoom::Now);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// How much room it has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what it has beyond `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.of.reserved.sub(surplus);
        self.bytes -= surplus;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.of.reserved.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_share_the_room_and_give_it_back() {
        let in_flight = InFlight::new(100, BytesInFlight::default());
        let (mut first, mut second) = (in_flight.begin(), in_flight.begin());
        assert_eq!(first.grow(60), Ok(()));
        assert_eq!(second.grow(41), Err(NoRoom::Now));
        assert_eq!(second.grow(40), Ok(()));
        assert_eq!(first.grow(40), Err(NoRoom::Now));
        assert_eq!(first.grow(41), Err(NoRoom::Ever));
        assert_eq!(first.grow(usize::MAX), Err(NoRoom::Ever));
        drop(first);
        assert_eq!(second.grow(60), Ok(()));
        second.shrink_to(30);
        second.shrink_to(50);
        assert_eq!((second.bytes(), in_flight.reserved.get()), (30, 30));
        drop(second);
        assert_eq!(in_flight.reserved.get(), 0);
    }
}
