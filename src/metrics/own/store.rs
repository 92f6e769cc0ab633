//! What there is to see of the store, where there is one.

use prometheus::{Gauge, IntCounter};

use super::Maker;

/// The metrics of the store.
#[derive(Debug)]
pub(in crate::metrics) struct StoreMetrics {
    pub(in crate::metrics) up: Gauge,
    pub(in crate::metrics) bytes: Gauge,
    pub(in crate::metrics) unsynced: Gauge,
    pub(in crate::metrics) errors: IntCounter,
    pub(in crate::metrics) checkpoints: IntCounter,
    pub(in crate::metrics) cut_bytes: IntCounter,
    pub(in crate::metrics) recovery_seconds: Gauge,
    pub(in crate::metrics) recovered_entries: Gauge,
}

impl StoreMetrics {
    pub(super) fn new(make: &Maker) -> Self {
        StoreMetrics {
            up: make.gauge(
                "store_up",
                "Whether something can be stored: 1, or 0 while requests are refused for want of it.",
            ),
            bytes: make.gauge("store_bytes", "Bytes of all files of the store."),
            unsynced: make.gauge(
                "store_unsynced_seconds",
                "For how long something is in the store that a loss of power would take.",
            ),
            errors: make.counter("store_errors_total", "How often the store could not be written or synced."),
            checkpoints: make.counter("store_checkpoints_total", "States written to the store."),
            cut_bytes: make.counter(
                "store_cut_bytes_total",
                "Bytes at the end of the log that were damaged at the start, and cut off.",
            ),
            recovery_seconds: make
                .gauge("store_recovery_seconds", "How long it took at the start to restore what was stored."),
            recovered_entries: make
                .gauge("store_recovered_entries", "Entries of the log that were applied again at the start."),
        }
    }
}
