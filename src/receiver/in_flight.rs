//! Room for the bytes of all requests that are under way, of every way in together.
//!
//! Invariant: what was reserved is given back when the request is done, however it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::metrics::InFlightGauge;

/// Room for the bytes of all requests that are under way.
#[derive(Debug)]
pub struct InFlight {
    limit: usize,
    reserved: AtomicUsize,
    shown: InFlightGauge,
}

impl InFlight {
    /// Room for `limit` bytes; how much is taken is `shown`.
    pub fn new(limit: usize, shown: InFlightGauge) -> Arc<Self> {
        Arc::new(InFlight { limit, reserved: AtomicUsize::new(0), shown })
    }

    /// Begins a request, of no bytes so far.
    pub(super) fn begin(self: &Arc<Self>) -> Reserved {
        Reserved { bytes: 0, of: Arc::clone(self) }
    }
}

/// The room of one request.
#[derive(Debug)]
pub(super) struct Reserved {
    bytes: usize,
    of: Arc<InFlight>,
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

    /// Takes room for `bytes` more.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let fits = |reserved: usize| reserved.checked_add(bytes).filter(|sum| *sum <= self.of.limit);
        if self.bytes.checked_add(bytes).is_none_or(|sum| sum > self.of.limit) {
            return Err(NoRoom::Ever);
        }
        self.of.reserved.fetch_update(Relaxed, Relaxed, fits).map_err(|_| NoRoom::Now)?;
        self.of.shown.add(bytes);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.of.reserved.fetch_sub(self.bytes, Relaxed);
        self.of.shown.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_share_the_room_and_give_it_back() {
        let in_flight = InFlight::new(100, InFlightGauge::default());
        let (mut first, mut second) = (in_flight.begin(), in_flight.begin());
        assert_eq!(first.grow(60), Ok(()));
        assert_eq!(second.grow(41), Err(NoRoom::Now));
        assert_eq!(second.grow(40), Ok(()));
        assert_eq!(first.grow(40), Err(NoRoom::Now));
        assert_eq!(first.grow(41), Err(NoRoom::Ever));
        assert_eq!(first.grow(usize::MAX), Err(NoRoom::Ever));
        drop(first);
        assert_eq!(second.grow(60), Ok(()));
        drop(second);
        assert_eq!(in_flight.reserved.load(Relaxed), 0);
    }
}
