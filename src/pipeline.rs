//! The straight line that every event takes: from a decoded request through the aggregator to the metrics.
//!
//! All ways in end here. Invariant: whatever the aggregator closes goes to [`Metrics::record`] at once and once,
//! whether a request or the sweep closed it.

mod durable;
pub mod input;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::aggregator::{Aggregator, Effects, Pressure};
use crate::domain::batch::Batch;
use crate::domain::catalog::Catalog;
use crate::domain::flow::Flow;
use crate::domain::ids::Key;
use crate::domain::time::{Arrival, EventTime, Now, nanoseconds};
use crate::explain::{Closing, Explanation, FlowOverview};
use crate::mapping::facts::SpanRules;
use crate::mapping::push::{PushLimits, trace_id};
use crate::metrics::snapshot::Family;
use crate::metrics::{Metrics, Received, Transport};
use crate::recent::{Ended, Recent};
use crate::store::Journal;
pub use durable::Applied;

/// Everything between a decoded request and a scrape.
#[derive(Debug)]
pub struct Pipeline {
    origin: Instant,
    in_force: RwLock<Arc<InForce>>,
    /// What bounds spans and pushes.
    pub limits: PushLimits,
    aggregator: Aggregator,
    metrics: Metrics,
    recent: Recent,
    /// False once everything has been closed: what came after could not be observed any more.
    accepts: RwLock<bool>,
    /// When it was reckoned last what is kept beside open instances.
    reckoned: AtomicU64,
    /// Where everything is logged, if it is.
    journal: OnceLock<Arc<Journal>>,
    /// By how much our clock is ahead of the time since the start: it went on from where it was before.
    ahead: AtomicU64,
    /// Whether a request was refused that the log does not know of.
    lost: AtomicBool,
    /// When a sweep was logged last, and anything.
    swept: AtomicU64,
    logged: AtomicU64,
    /// What the configs in force were made of.
    configs: Mutex<Arc<[u8]>>,
    /// What a scrape has shown last that nothing takes back.
    last_shown: Mutex<Option<Arc<Vec<Family>>>>,
}

/// The rules by which events are mapped and instances are ended. Whoever maps an event by them hands them on with it.
#[derive(Debug)]
pub struct InForce {
    /// All flows.
    pub catalog: Catalog,
    /// What is read of each span.
    pub rules: SpanRules,
    /// Bucket bounds in seconds of flows that name none.
    pub buckets: Arc<[f64]>,
}

/// Everything has been closed; the sender should try another replica, or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShuttingDown;

/// Our wall clock.
pub fn wall() -> EventTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EventTime::from_unix_nanoseconds(nanoseconds(since))
}

/// How often the sweep looks for what is due. Its cost follows from what is due, so it may be often.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(20);
/// How many instances one sweep looks at before it lets others run.
const SWEEP_BATCH: usize = 1024;
/// How often it is reckoned what is kept beside open instances.
const RECKON_INTERVAL: Duration = Duration::from_millis(200);

impl Pipeline {
    /// A pipeline with nothing in it, whose clock starts now.
    pub fn new(
        in_force: InForce,
        limits: PushLimits,
        aggregator: Aggregator,
        metrics: Metrics,
        recent: Recent,
    ) -> Self {
        Pipeline {
            origin: Instant::now(),
            in_force: RwLock::new(Arc::new(in_force)),
            limits,
            aggregator,
            metrics,
            recent,
            accepts: RwLock::new(true),
            reckoned: AtomicU64::new(0),
            journal: OnceLock::new(),
            ahead: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            swept: AtomicU64::new(0),
            logged: AtomicU64::new(0),
            configs: Mutex::default(),
            last_shown: Mutex::default(),
        }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        let ahead = Duration::from_nanos(self.ahead.load(Relaxed));
        Now { arrival: Arrival::since_origin(ahead + self.origin.elapsed()), wall: wall() }
    }

    /// The rules in force.
    pub fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From here on `next` is in force. What is under way goes on by the rules by which it was mapped.
    pub fn put_in_force(&self, next: InForce, now: Now) {
        self.metrics.take_over(&next.catalog, Arc::clone(&next.buckets), now);
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }

    /// Applies a decoded request as a whole, then closes what it ended. Returns how many events repeat earlier ones with
    /// other content.
    pub fn ingest(
        &self,
        in_force: &InForce,
        transport: Transport,
        received: &Received,
        events: Batch,
        now: Now,
    ) -> Result<u64, ShuttingDown> {
        let accepts = self.accepts.read().unwrap_or_else(PoisonError::into_inner);
        if !*accepts {
            return Err(ShuttingDown);
        }
        self.metrics.received(transport, received);
        let effects = self.aggregator.ingest(events, now.arrival, &in_force.catalog);
        let conflicts = effects.conflicts;
        self.note(effects, in_force, now);
        Ok(conflicts)
    }

    /// Where everything goes that ingesting and sweeping bring about.
    fn note(&self, effects: Effects, in_force: &InForce, now: Now) {
        self.metrics.record(&effects, now, &in_force.catalog);
        self.recent.add(effects.finished, now.wall);
    }

    /// Whether there is room for what requests may bring; if not, they are to be sent again later. What is refused so is
    /// known as a loss.
    pub fn has_room(&self) -> bool {
        if self.journal().is_none() {
            // Only what is refused needs to know when.
            return !self.aggregator.is_refusing() || !self.aggregator.refuses(self.now().arrival);
        }
        let has_room = !self.aggregator.is_refusing() && self.can_store();
        if !has_room {
            self.note_loss();
        }
        has_room
    }

    /// Closes what is due. Returns whether more is due.
    pub fn sweep(&self, now: Now) -> bool {
        if self.journal().is_some() {
            return self.sweep_in_order(now);
        }
        let more_is_due = self.close_due(now);
        let more_must_go = self.aggregator.pressure() == Pressure::Evicting && self.make_room(now);
        self.reckon(now);
        more_is_due || more_must_go
    }

    fn close_due(&self, now: Now) -> bool {
        let in_force = self.in_force();
        let (effects, more_is_due) = self.aggregator.sweep(now.arrival, SWEEP_BATCH, &in_force.catalog);
        self.note(effects, &in_force, now);
        self.metrics.expire(now);
        more_is_due
    }

    /// Ends some of what costs most for least. Returns whether more has to go.
    fn make_room(&self, now: Now) -> bool {
        let in_force = self.in_force();
        self.forget_what_is_known(&in_force);
        let (effects, more) = self.aggregator.make_room(now.arrival, SWEEP_BATCH, &in_force.catalog);
        self.note(effects, &in_force, now);
        more
    }

    /// Forgets what is kept for convenience.
    fn forget_what_is_known(&self, in_force: &InForce) {
        in_force.rules.forget_seen();
        drop(self.recent.take_all());
    }

    /// Reckons anew, now and then, what is kept beside open instances themselves.
    fn reckon(&self, now: Now) {
        let reckoned = Arrival::since_origin(Duration::from_nanos(self.reckoned.load(Relaxed)));
        if now.arrival.since(reckoned) >= RECKON_INTERVAL {
            self.reckoned.store(now.arrival.nanoseconds(), Relaxed);
            self.aggregator.reckon_tables(self.recent.bytes() as u64);
        }
    }

    /// Closes everything: what shows that it has ended normally, the rest as evicted. New series show at once, and
    /// nothing is accepted any more. Returns how many instances were closed.
    pub fn close_all(&self, now: Now) -> usize {
        *self.accepts.write().unwrap_or_else(PoisonError::into_inner) = false;
        let in_force = self.in_force();
        let effects = self.aggregator.close_all(now.arrival, &in_force.catalog);
        let closed = effects.finished.len();
        self.note(effects, &in_force, now);
        self.metrics.show_all();
        closed
    }

    /// The earliest moment at which a sweep has something to do with an open instance.
    pub fn next_due(&self) -> Option<Arrival> {
        self.aggregator.next_due()
    }

    /// All flows, each with its instances that were closed last, the last one first.
    pub fn overview(&self) -> Vec<(FlowOverview, Vec<Closing>)> {
        let describe = |flow: Arc<Flow>| {
            let (open, overdue) = self.metrics.in_flight(&flow.name);
            let recent = self.recent.of(flow.home);
            let closings = recent.iter().map(|ended| Closing::new(&ended.closed, ended.at)).collect();
            (FlowOverview::new(&flow, open, overdue), closings)
        };
        self.in_force().catalog.all().into_iter().map(describe).collect()
    }

    /// The instance of a flow that `key` names as people write it (a trace id, a push's id, a business key's value), open
    /// or closed a short while ago.
    pub fn explain(&self, flow: &str, key: &str, now: Now) -> Option<Explanation> {
        let in_force = self.in_force();
        let catalog = &in_force.catalog;
        let flow = catalog.all().into_iter().find(|known| *known.name == *flow)?;
        let by_trace = trace_id(key)
            .into_iter()
            .flat_map(|trace| [Key::Trace(trace), Key::Also { flow: flow.home, trace }]);
        let keys: Vec<Key> = by_trace.chain([Key::Named { flow: flow.home, id: key.into() }]).collect();
        let open = keys.iter().filter_map(|key| self.aggregator.forecast(key, now.arrival, catalog));
        let open = open
            .filter(|forecast| forecast.closed.flow.home == flow.home)
            .map(|forecast| Explanation::of_open(&forecast, now.arrival));
        let closed = keys.iter().filter_map(|key| self.recent.find(flow.home, key));
        let closed = closed.map(|ended| Explanation::of_closed(&ended.closed, ended.at));
        open.chain(closed).next()
    }

    /// The instances that were closed last, of which none is kept any longer.
    pub fn take_recent(&self) -> Vec<Arc<Ended>> {
        self.recent.take_all()
    }

    /// What a scrape shows.
    pub fn snapshot(&self, now: Now) -> Vec<Family> {
        self.look_at_store();
        self.metrics.snapshot(now, self.aggregator.population())
    }

    /// The metrics, for what is counted where requests are answered.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
