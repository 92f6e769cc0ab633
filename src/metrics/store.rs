//! What a scrape shows of the store.

use std::time::Duration;

use super::Metrics;

/// What was found in the store at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Recovery {
    /// How long it took to restore it.
    pub took: Duration,
    /// Entries of the log that were applied again.
    pub entries: u64,
    /// Bytes that were damaged and cut off.
    pub cut_bytes: u64,
}

/// How the store does.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StoreHealth {
    /// Whether something can be stored.
    pub is_up: bool,
    /// Bytes of all its files.
    pub bytes: u64,
    /// For how long something is in it that a loss of power would take.
    pub unsynced: Duration,
    /// How often it could not be written or synced.
    pub errors: u64,
    /// States written.
    pub checkpoints: u64,
}

impl Metrics {
    /// Shows that there is a store, and what was found in it.
    pub fn recovered(&self, recovery: &Recovery) {
        let store = self.store.get_or_init(|| self.own.store());
        store.recovery_seconds.set(recovery.took.as_secs_f64());
        store.recovered_entries.set(recovery.entries as f64);
        store.cut_bytes.inc_by(recovery.cut_bytes);
    }

    /// Shows how the store does.
    pub fn store_health(&self, health: &StoreHealth) {
        let Some(store) = self.store.get() else { return };
        store.up.set(f64::from(u8::from(health.is_up)));
        store.bytes.set(health.bytes as f64);
        store.unsynced.set(health.unsynced.as_secs_f64());
        store.errors.inc_by(health.errors.saturating_sub(store.errors.get()));
        store.checkpoints.inc_by(health.checkpoints.saturating_sub(store.checkpoints.get()));
    }
}
