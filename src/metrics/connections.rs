//! The metrics of the connections made to one address, and of what is under way on all of them.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge};

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

/// Shows how many bytes of requests are under way.
#[derive(Debug, Clone)]
pub struct InFlightGauge(pub(super) Gauge);

impl InFlightGauge {
    /// Shows so many more.
    pub fn add(&self, bytes: usize) {
        self.0.add(bytes as f64);
    }

    /// Shows so many less.
    pub fn sub(&self, bytes: usize) {
        self.0.sub(bytes as f64);
    }
}

impl Default for InFlightGauge {
    /// One that nobody sees.
    fn default() -> Self {
        InFlightGauge(Gauge::new("unseen", "Unseen.").expect("a valid name"))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
