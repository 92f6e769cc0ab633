//! The metrics of the connections made to one address, and of what is under way on all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::own::ConnectionsMetrics;
use super::tasks::Panics;

/// The metrics of the connections made to one address.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    listener: &'static str,
    open: IntGauge,
    refused: IntCounter,
    timed_out: IntCounterVec,
    panics: Panics,
}

/// A connection that is open as long as this lives.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

impl ConnectionMetrics {
    pub(super) fn new(
        own: &ConnectionsMetrics,
        listener: &'static str,
        reasons: &[&str],
        panics: Panics,
    ) -> Self {
        for reason in reasons {
            own.timed_out.with_label_values(&[listener, reason]).inc_by(0);
        }
        ConnectionMetrics {
            listener,
            open: own.open.with_label_values(&[listener]),
            refused: own.refused.with_label_values(&[listener]),
            timed_out: own.timed_out.clone(),
            panics,
        }
    }

    /// Where panics are counted.
    pub fn panics(&self) -> &Panics {
        &self.panics
    }

    /// Counts a connection for which there was no room.
    pub fn refused(&self) {
        self.refused.inc();
    }

    /// Counts a connection as open for as long as what is returned lives.
    pub fn opened(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// Counts a connection that was ended because it was overdue.
    pub fn timed_out(&self, reason: &'static str) {
        self.timed_out.with_label_values(&[self.listener, reason]).inc();
    }
}

/// How many bytes of requests are under way. A scrape reads it; each request changes it twice.
#[derive(Debug, Clone, Default)]
pub struct BytesInFlight(Arc<AtomicUsize>);

impl BytesInFlight {
    /// So many more, unless that would be more than `limit`. Whether they are.
    pub fn add(&self, bytes: usize, limit: usize) -> bool {
        let fits = |before: usize| before.checked_add(bytes).filter(|sum| *sum <= limit);
        self.0.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// So many less.
    pub fn sub(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
