//! The log while it is written: one order for all that is taken in, one thread that writes, one that syncs.
//!
//! Whoever takes something in holds the [`Order`] while it is applied and appended, so that the log says in which order
//! everything happened; it is acknowledged when [`Journal::stored`] says so. Many requests share one write. Invariant: when
//! the disk fails, nothing is taken in any more until a new state is on the disk, which says all that is known by then.

mod checkpointing;
mod writing;

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, warn};

use super::frames::Entry;
use super::{Folder, LOOK_INTERVAL, Opened};

/// How the log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// When what was written is made to outlive a loss of power.
    pub fsync: Fsync,
    /// How many bytes of log there are at least before a new state is written.
    pub checkpoint_bytes: u64,
    /// How many bytes must stay free.
    pub free_bytes: u64,
}

/// When what was written is made to outlive a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before it is acknowledged.
    Always,
    /// So often.
    Every(Duration),
    /// When the operating system does.
    Never,
}

/// Nothing can be stored at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotStored;

/// How far the log has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// So many entries have been handed to the operating system.
    written: u64,
    /// So many are on the disk.
    synced: u64,
    /// Goes up whenever what was not written then never will be.
    failures: u64,
}

/// The log while it is written.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    folder: Folder,
    seed: u64,
    settings: Settings,
    /// How many entries there are. Taken before every other lock here.
    position: Mutex<u64>,
    queue: Mutex<Queue>,
    wake_writer: Condvar,
    syncing: Mutex<Syncing>,
    wake_syncer: Condvar,
    progress: watch::Sender<Progress>,
    /// The disk failed, and no later state is on it yet.
    failed: AtomicBool,
    /// There is too little room.
    full: AtomicBool,
    /// Bytes of log since the last state, and of that state.
    log_bytes: AtomicU64,
    state_bytes: AtomicU64,
    errors: AtomicU64,
    checkpoints: AtomicU64,
    /// Since when something is written that is not synced, since the start; 0: all is.
    unsynced_since: AtomicU64,
    started: Instant,
    last_tried: Mutex<Option<Instant>>,
    /// Held by whoever writes a state.
    checkpointing: Mutex<()>,
    /// As if the disk did not work.
    #[cfg(test)]
    is_broken: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("folder", &self.folder).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Queue {
    items: Vec<Item>,
    bytes: usize,
    ends: bool,
}

#[derive(Debug)]
enum Item {
    Entry(Entry),
    /// What follows goes into a new file, of this number.
    Segment(u64),
}

#[derive(Debug, Default)]
struct Syncing {
    file: Option<Arc<File>>,
    wanted: bool,
    ends: bool,
}

/// How much may wait to be written: with a disk that is slower, senders are told to come again.
const MAX_QUEUE_BYTES: usize = 128 << 20;
/// How long after a failure it is tried again to write a state.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Nothing else is taken in while it is held.
#[derive(Debug)]
pub struct Order<'j> {
    shared: &'j Shared,
    position: MutexGuard<'j, u64>,
}

impl Order<'_> {
    /// Appends what has just been applied; returns how many entries there are then.
    pub fn append(&mut self, entry: Entry) -> u64 {
        *self.position += 1;
        let mut queue = lock(&self.shared.queue);
        queue.bytes += entry.frame().len();
        let was_empty = queue.items.is_empty();
        queue.items.push(Item::Entry(entry));
        drop(queue);
        if was_empty {
            self.shared.wake_writer.notify_one();
        }
        *self.position
    }
}

/// What there is to see of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Condition {
    /// Whether something can be stored.
    pub is_well: bool,
    /// Bytes of all its files.
    pub bytes: u64,
    /// For how long something has been written that a loss of power would take.
    pub unsynced: Duration,
    /// How often something could not be done.
    pub errors: u64,
    /// How many states have been written.
    pub checkpoints: u64,
}

impl Journal {
    /// How often [`Self::look`] should be called.
    pub const LOOK_INTERVAL: Duration = LOOK_INTERVAL;

    /// Goes on with the log of `opened` behind its last entry. Where there is no state, or the log may not be on the
    /// disk, nothing is taken in before there is a new one.
    pub fn start(opened: Opened, seed: u64, settings: Settings) -> Journal {
        let position = opened.log.position();
        let progress = Progress { written: position, synced: position, failures: 0 };
        let is_safe = settings.fsync == Fsync::Never || opened.folder.sync_log().is_ok();
        let has_state = opened.state.is_some() && is_safe;
        let first = has_state.then_some(Item::Segment(position));
        let shared = Arc::new(Shared {
            log_bytes: AtomicU64::new(opened.folder.bytes()),
            folder: opened.folder,
            seed,
            settings,
            position: Mutex::new(position),
            queue: Mutex::new(Queue { items: first.into_iter().collect(), bytes: 0, ends: false }),
            wake_writer: Condvar::new(),
            syncing: Mutex::default(),
            wake_syncer: Condvar::new(),
            progress: watch::Sender::new(progress),
            failed: AtomicBool::new(!has_state),
            full: AtomicBool::new(false),
            state_bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            unsynced_since: AtomicU64::new(0),
            started: Instant::now(),
            last_tried: Mutex::default(),
            checkpointing: Mutex::default(),
            #[cfg(test)]
            is_broken: AtomicBool::new(false),
        });
        let writer = Arc::clone(&shared);
        let syncer = Arc::clone(&shared);
        let threads =
            vec![std::thread::spawn(move || writer.write()), std::thread::spawn(move || syncer.sync())];
        Journal { shared, threads: Mutex::new(threads) }
    }

    /// Keeps others from taking anything in, or says that nothing can be stored.
    pub fn order(&self) -> Result<Order<'_>, NotStored> {
        let position = lock(&self.shared.position);
        // Only now, for whoever was before us may have met the failure.
        if self.shared.failed.load(Relaxed) || lock(&self.shared.queue).bytes > MAX_QUEUE_BYTES {
            return Err(NotStored);
        }
        Ok(Order { shared: &self.shared, position })
    }

    /// Takes nothing in any more until there is a new state: what the log says would not lead to what is known.
    pub fn need_state(&self) {
        self.shared.failed.store(true, Relaxed);
    }

    /// Whether there is room for what requests bring.
    pub fn has_room(&self) -> bool {
        !self.shared.failed.load(Relaxed) && !self.shared.full.load(Relaxed)
    }

    /// How many entries there are, those included that are being applied at this moment.
    pub fn position(&self) -> u64 {
        *lock(&self.shared.position)
    }

    /// Resolves when as many entries are safe as an acknowledgement asks for, or never will be.
    pub async fn stored(&self, position: u64) -> Result<(), NotStored> {
        let is_safe = |progress: &Progress| match self.shared.settings.fsync {
            Fsync::Always => progress.synced >= position,
            Fsync::Every(_) | Fsync::Never => progress.written >= position,
        };
        self.wait_for(is_safe).await
    }

    /// Resolves when so many entries can be shown: nothing takes them back.
    pub async fn settled(&self, position: u64) -> Result<(), NotStored> {
        self.wait_for(|progress| progress.written >= position).await?;
        if self.shared.settings.fsync == Fsync::Never {
            return Ok(());
        }
        if self.shared.progress.borrow().synced < position {
            lock(&self.shared.syncing).wanted = true;
            self.shared.wake_syncer.notify_one();
        }
        self.wait_for(|progress| progress.synced >= position).await
    }

    async fn wait_for(&self, is_safe: impl Fn(&Progress) -> bool) -> Result<(), NotStored> {
        let mut progress = self.shared.progress.subscribe();
        let failures = progress.borrow_and_update().failures;
        if self.shared.failed.load(Relaxed) && !is_safe(&progress.borrow()) {
            return Err(NotStored);
        }
        let reached = progress.wait_for(|now| is_safe(now) || now.failures != failures).await;
        if reached.is_ok_and(|now| is_safe(&now)) { Ok(()) } else { Err(NotStored) }
    }

    /// Writes a new state if one is due, and one as soon as possible after a failure. `state` hands out the state of this
    /// moment in pieces. To be called now and then.
    pub fn look(&self, state: impl FnOnce(&mut dyn FnMut(Vec<u8>))) {
        let shared = &*self.shared;
        shared.look_for_room();
        let least = shared.settings.checkpoint_bytes.max(shared.state_bytes.load(Relaxed));
        let is_due = shared.log_bytes.load(Relaxed) >= least;
        if !is_due && !shared.failed.load(Relaxed) {
            return;
        }
        {
            let mut tried = lock(&shared.last_tried);
            if tried.is_some_and(|tried| tried.elapsed() < TRY_AGAIN) {
                return;
            }
            *tried = Some(Instant::now());
        }
        self.checkpoint(state);
    }

    /// Writes the state of this moment, and deletes what it makes superfluous. Returns whether that could be done.
    pub fn checkpoint(&self, state: impl FnOnce(&mut dyn FnMut(Vec<u8>))) -> bool {
        let shared = &*self.shared;
        let log_bytes = shared.log_bytes.load(Relaxed);
        match shared.checkpoint(state) {
            Ok(()) => true,
            Err(error) => {
                // All of it is still needed.
                shared.log_bytes.fetch_add(log_bytes, Relaxed);
                shared.errors.fetch_add(1, Relaxed);
                warn!(%error, "a state could not be written to the store; it is tried again");
                false
            }
        }
    }

    /// What there is to see of it.
    pub fn condition(&self) -> Condition {
        let shared = &*self.shared;
        let unsynced_since = shared.unsynced_since.load(Relaxed);
        let now = elapsed(shared.started);
        let unsynced = if unsynced_since == 0 { 0 } else { now.saturating_sub(unsynced_since) };
        Condition {
            is_well: self.has_room(),
            bytes: shared.folder.bytes(),
            unsynced: Duration::from_nanos(unsynced),
            errors: shared.errors.load(Relaxed),
            checkpoints: shared.checkpoints.load(Relaxed),
        }
    }

    /// Lets the disk fail from now on, or work again.
    #[cfg(test)]
    pub(super) fn break_disk(&self, is_broken: bool) {
        self.shared.is_broken.store(is_broken, Relaxed);
    }

    /// Writes and syncs what there is, and ends.
    pub fn stop(&self) {
        lock(&self.shared.queue).ends = true;
        self.shared.wake_writer.notify_all();
        let mut threads = lock(&self.threads);
        // The writer first: what it writes is synced.
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                error!("a thread of the store has panicked");
            }
            lock(&self.shared.syncing).ends = true;
            self.shared.wake_syncer.notify_all();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop();
    }
}

fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A lock on plain data that no panic can leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
