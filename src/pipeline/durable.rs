//! The pipeline with a log behind it: everything that changes anything happens in one order, and is in the log before
//! anybody is told of it.
//!
//! Without a log nothing here does anything, and requests are applied side by side.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Pipeline, SWEEP_BATCH, input::Input};
use crate::aggregator::{Pressure, Relief};
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored};
use crate::domain::time::{Arrival, Now, nanoseconds};
use crate::metrics::snapshot::Family;
use crate::metrics::{Stability, StoreHealth, stability};
use crate::store::{Condition, Entry, Journal, NotStored};

/// What came of an input, and how many entries the log had then: none without a log.
#[derive(Debug)]
pub struct Applied<T> {
    /// What came of it.
    pub value: T,
    /// After how many entries of the log it may be told to anybody.
    pub position: Option<u64>,
}

/// How often the log is told that time goes by, when nothing else happens.
const HEARTBEAT: Duration = Duration::from_secs(1);

impl Pipeline {
    /// From now on everything is logged. To be called before anything is served.
    pub fn keep(&self, journal: Arc<Journal>) {
        if self.journal.set(journal).is_err() {
            tracing::error!("a pipeline has one log");
        }
    }

    /// The log, if there is one.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.get()
    }

    /// Lets our clock go on from this moment.
    pub fn set_clock(&self, now: Arrival) {
        self.logged.store(now.nanoseconds(), Relaxed);
        let ahead = now.nanoseconds().saturating_sub(nanoseconds(self.origin.elapsed()));
        self.ahead.store(ahead, Relaxed);
    }

    /// Applies an input while no other is applied, and logs it unless it was refused.
    pub fn log<T, E: From<NotStored>>(
        &self,
        input: &Input<'_>,
        apply: impl FnOnce() -> Result<T, E>,
    ) -> Result<Applied<T>, E> {
        let Some(journal) = self.journal() else {
            return Ok(Applied { value: apply()?, position: None });
        };
        let entry = Entry::new(input.bytes(), |to| input.write(to));
        let mut order = journal.order().inspect_err(|_| self.note_loss())?;
        let applied = catch_unwind(AssertUnwindSafe(apply));
        if let Ok(Err(refused)) = applied {
            return Err(refused);
        }
        // Also if it met a bug: it may have changed something before, and does so again when the log is read.
        self.logged.fetch_max(input.now().arrival.nanoseconds(), Relaxed);
        let position = Some(order.append(entry));
        drop(order);
        let value = applied.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(Applied { value, position })
    }

    /// Resolves when what was applied may be acknowledged.
    pub async fn stored<T>(&self, applied: Applied<T>) -> Result<T, NotStored> {
        if let (Some(journal), Some(position)) = (self.journal(), applied.position) {
            journal.stored(position).await?;
        }
        Ok(applied.value)
    }

    /// How many instances are open.
    pub fn open_instances(&self) -> u64 {
        self.aggregator.population().open
    }

    /// Whether anything can be stored.
    pub fn can_store(&self) -> bool {
        self.journal().is_none_or(|journal| journal.has_room())
    }

    /// Takes note that a request was refused, which may so be lost.
    pub(super) fn note_loss(&self) {
        self.lost.store(true, Relaxed);
    }

    /// One sweep, in order. Returns whether more is due.
    pub(super) fn sweep_in_order(&self, now: Now) -> bool {
        if self.lost.swap(false, Relaxed) {
            let note = || {
                self.aggregator.note_loss(now.arrival);
                Ok::<_, NotStored>(())
            };
            let noted = self.log(&Input::Loss { now }, note);
            self.lost.fetch_or(noted.is_err(), Relaxed);
        }
        let swept = Arrival::since_origin(Duration::from_nanos(self.swept.load(Relaxed)));
        let mut more = false;
        if self.aggregator.has_work(now.arrival) || now.arrival.since(swept) >= HEARTBEAT {
            self.swept.store(now.arrival.nanoseconds(), Relaxed);
            let applied = self.log(&Input::Sweep { now }, || Ok::<_, NotStored>(self.close_due(now)));
            more = applied.is_ok_and(|applied| applied.value);
        }
        if self.aggregator.pressure() == Pressure::Evicting {
            more |= self.make_room_in_order(now);
        }
        self.reckon(now);
        more
    }

    fn make_room_in_order(&self, now: Now) -> bool {
        let in_force = self.in_force();
        self.forget_what_is_known(&in_force);
        let Some(relief) = self.aggregator.choose_relief(now.arrival, SWEEP_BATCH, &in_force.catalog) else {
            return false;
        };
        let input = Input::Relief { now, relief: relief.clone() };
        let applied = self.log(&input, || Ok::<_, NotStored>(self.relieve(relief, now)));
        applied.is_ok_and(|applied| applied.value)
    }

    /// Lets go what has to. Returns whether more has to go.
    fn relieve(&self, relief: Relief, now: Now) -> bool {
        let in_force = self.in_force();
        let (effects, more) = self.aggregator.relieve(relief, now.arrival, &in_force.catalog);
        self.note(effects, &in_force, now);
        more
    }

    /// Applies again what needs neither a decoder nor a config. Returns whether it was that.
    pub fn apply_again(&self, input: Input<'_>) -> bool {
        match input {
            Input::Sweep { now } => _ = self.close_due(now),
            Input::Loss { now } => self.aggregator.note_loss(now.arrival),
            Input::Relief { now, relief } => _ = self.relieve(relief, now),
            Input::Downtime { now, downtime } => self.aggregator.grow_older(downtime, now.arrival),
            Input::Traces { .. } | Input::Pushes { .. } | Input::Config { .. } => return false,
        }
        true
    }

    /// Writes down all that is known. Nothing may be applied meanwhile.
    pub fn store(&self, to: &mut Encoder<'_>) {
        let in_force = self.in_force();
        self.configs().to_vec().write(to);
        let logged = Arrival::since_origin(Duration::from_nanos(self.logged.load(Relaxed)));
        Now { arrival: logged, ..self.now() }.write(to);
        in_force.catalog.store(to);
        self.aggregator.store(&in_force.catalog, to);
        self.metrics.store(to);
    }

    /// What the configs were made of that are in force for some instance, for whoever stores it.
    pub fn configs(&self) -> Arc<[u8]> {
        Arc::clone(&self.configs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets what [`Self::configs`] returns.
    pub fn set_configs(&self, configs: Vec<u8>) {
        *self.configs.lock().unwrap_or_else(PoisonError::into_inner) = configs.into();
    }

    /// Reads it again, by the rules under which it was written; the configs have been read. Returns when that was.
    pub fn restore(&self, from: &mut Decoder<'_>) -> Result<Now, Damaged> {
        let in_force = self.in_force();
        let now = Now::read(from)?;
        in_force.catalog.restore(from)?;
        self.aggregator.restore(&in_force.catalog, from)?;
        self.metrics.restore(&in_force.catalog, now, from)?;
        if from.is_at_end() { Ok(now) } else { Err(Damaged) }
    }

    /// What a scrape shows: nothing that could be taken back. When the log cannot be written, what has last been shown of
    /// all that depends on it.
    pub async fn shown(self: Arc<Self>) -> Option<Arc<Vec<Family>>> {
        let pipeline = Arc::clone(&self);
        let read = move || {
            let families = pipeline.snapshot(pipeline.shown_at());
            // Asked afterwards: whatever was seen is among so many entries.
            (families, pipeline.journal().map(|journal| journal.position()))
        };
        let (families, position) = tokio::task::spawn_blocking(read).await.ok()?;
        let Some((journal, position)) = self.journal().zip(position) else {
            return Some(Arc::new(families));
        };
        let last = |families: Option<Arc<Vec<Family>>>| {
            let mut last = self.last_shown.lock().unwrap_or_else(PoisonError::into_inner);
            *last = families.or(last.take());
            last.clone()
        };
        if journal.settled(position).await.is_ok() {
            return last(Some(Arc::new(families)));
        }
        let settled = last(None).unwrap_or_default();
        let settled = settled.iter().filter(|family| stability(&family.name) == Stability::Settled);
        let fresh = families.into_iter().filter(|family| stability(&family.name) == Stability::Fresh);
        Some(Arc::new(settled.cloned().chain(fresh).collect()))
    }

    /// Shows how the log does.
    pub(super) fn look_at_store(&self) {
        let Some(journal) = self.journal() else { return };
        let Condition { is_well, bytes, unsynced, errors, checkpoints } = journal.condition();
        self.metrics.store_health(&StoreHealth { is_up: is_well, bytes, unsynced, errors, checkpoints });
    }

    /// Writes a new state if one is due.
    pub fn look_after_store(&self) {
        if let Some(journal) = self.journal() {
            journal.look(|hand_out| self.store_in_pieces(hand_out));
        }
    }

    /// Writes a new state. Returns whether that could be done.
    pub fn checkpoint(&self) -> bool {
        self.journal().is_none_or(|journal| journal.checkpoint(|hand_out| self.store_in_pieces(hand_out)))
    }

    fn store_in_pieces(&self, hand_out: &mut dyn FnMut(Vec<u8>)) {
        let mut encoder = Encoder::new(hand_out);
        self.store(&mut encoder);
        encoder.finish();
    }

    /// Takes note that what would be shown now has been read from the disk, and may be shown whatever happens to that.
    pub fn is_settled(&self) {
        let families = Arc::new(self.snapshot(self.shown_at()));
        *self.last_shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(families);
    }

    /// The moment at which things are shown. With a log it is one that the log tells: what was shown once a series was old
    /// enough must not be hidden again.
    fn shown_at(&self) -> Now {
        let now = self.now();
        match self.journal() {
            Some(_) => {
                Now { arrival: Arrival::since_origin(Duration::from_nanos(self.logged.load(Relaxed))), ..now }
            }
            None => now,
        }
    }

    /// Takes nothing in any more, and leaves what is open as it is.
    pub fn stop_accepting(&self) {
        *self.accepts.write().unwrap_or_else(PoisonError::into_inner) = false;
    }
}
