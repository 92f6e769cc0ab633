//! The straight line that every event takes: from a decoded request through the aggregator to the metrics.
//!
//! All ways in end here. Invariant: whatever the aggregator closes goes to [`Metrics::record`] at once and once,
//! whether a request or the sweep closed it.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::aggregator::Aggregator;
use crate::domain::catalog::Catalog;
use crate::domain::event::Incoming;
use crate::domain::time::{Arrival, EventTime, Now, nanoseconds};
use crate::mapping::facts::SpanRules;
use crate::mapping::push::PushLimits;
use crate::metrics::snapshot::Family;
use crate::metrics::{Metrics, Received, Transport};

/// Everything between a decoded request and a scrape.
#[derive(Debug)]
pub struct Pipeline {
    origin: Instant,
    /// All flows.
    pub catalog: Catalog,
    /// What is read of each span.
    pub rules: SpanRules,
    /// What bounds spans and pushes.
    pub limits: PushLimits,
    aggregator: Aggregator,
    metrics: Metrics,
    /// False once everything has been closed: what came after could not be observed any more.
    accepts: RwLock<bool>,
}

/// Everything has been closed; the sender should try another replica, or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShuttingDown;

/// How often the sweep looks for what is due. Its cost follows from what is due, so it may be often.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(20);
/// How many instances one sweep looks at before it lets others run.
const SWEEP_BATCH: usize = 1024;

impl Pipeline {
    /// A pipeline with nothing in it, whose clock starts now.
    pub fn new(
        catalog: Catalog,
        rules: SpanRules,
        limits: PushLimits,
        aggregator: Aggregator,
        metrics: Metrics,
    ) -> Self {
        Pipeline {
            origin: Instant::now(),
            catalog,
            rules,
            limits,
            aggregator,
            metrics,
            accepts: RwLock::new(true),
        }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            arrival: Arrival::since_origin(self.origin.elapsed()),
            wall: EventTime::from_unix_nanoseconds(nanoseconds(wall)),
        }
    }

    /// Applies a decoded request as a whole, then closes what it ended. Returns how many events repeat earlier ones with
    /// other content.
    pub fn ingest(
        &self,
        transport: Transport,
        received: &Received,
        events: Vec<Incoming>,
        now: Now,
    ) -> Result<u64, ShuttingDown> {
        let accepts = self.accepts.read().unwrap_or_else(PoisonError::into_inner);
        if !*accepts {
            return Err(ShuttingDown);
        }
        self.metrics.received(transport, received);
        let effects = self.aggregator.ingest(events, now.arrival, &self.catalog);
        self.metrics.record(&effects, now, &self.catalog);
        Ok(effects.conflicts)
    }

    /// Closes what is due. Returns whether more is due.
    pub fn sweep(&self, now: Now) -> bool {
        let (effects, more) = self.aggregator.sweep(now.arrival, SWEEP_BATCH, &self.catalog);
        self.metrics.record(&effects, now, &self.catalog);
        more
    }

    /// Closes everything: what shows that it has ended normally, the rest as evicted. New series show at once, and
    /// nothing is accepted any more. Returns how many instances were closed.
    pub fn close_all(&self, now: Now) -> usize {
        *self.accepts.write().unwrap_or_else(PoisonError::into_inner) = false;
        let effects = self.aggregator.close_all(now.arrival, &self.catalog);
        self.metrics.record(&effects, now, &self.catalog);
        self.metrics.show_all();
        effects.finished.len()
    }

    /// What a scrape shows.
    pub fn snapshot(&self, now: Now) -> Vec<Family> {
        self.metrics.snapshot(now.arrival, self.aggregator.population())
    }

    /// The metrics, for what is counted where requests are answered.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
