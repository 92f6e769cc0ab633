//! The two threads of a journal: one writes what waits, all at once, and one makes sure that it is on the disk.
//!
//! Invariant: what goes into a file comes after what went into the file before it, on the disk, too.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tracing::error;

use super::{Fsync, Item, Shared, elapsed, lock};
use crate::store::frames::{Entry, Header};

impl Shared {
    /// The writer: takes what waits, all at once.
    pub(super) fn write(&self) {
        let mut file: Option<Arc<File>> = None;
        let mut written = self.progress.borrow().written;
        while let Some(items) = self.next_items() {
            let mut frames = Vec::new();
            for item in items {
                match item {
                    Item::Entry(entry) => frames.push(entry),
                    Item::Segment(number) => {
                        self.write_frames(&mut file, &mut frames, &mut written);
                        self.close(&mut file);
                        file = self.open_segment(number);
                        written = number;
                    }
                }
            }
            self.write_frames(&mut file, &mut frames, &mut written);
        }
        self.close(&mut file);
    }

    fn next_items(&self) -> Option<Vec<Item>> {
        let mut queue = lock(&self.queue);
        while queue.items.is_empty() {
            if queue.ends {
                return None;
            }
            queue = self.wake_writer.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.bytes = 0;
        Some(std::mem::take(&mut queue.items))
    }

    fn write_frames(&self, file: &mut Option<Arc<File>>, frames: &mut Vec<Entry>, written: &mut u64) {
        let frames = std::mem::take(frames);
        let Some(open) = file.as_ref().filter(|_| !frames.is_empty()) else { return };
        let mut result = self.ask_disk().and_then(|()| write_all(open, &frames));
        let is_synced = self.settings.fsync == Fsync::Always;
        if is_synced {
            result = result.and_then(|()| open.sync_data());
        }
        if let Err(error) = result {
            *file = None;
            return self.fail("writing to the store", &error);
        }
        *written += frames.len() as u64;
        self.log_bytes.fetch_add(frames.iter().map(|entry| entry.frame().len() as u64).sum(), Relaxed);
        if !is_synced && self.unsynced_since.load(Relaxed) == 0 {
            self.unsynced_since.store(elapsed(self.started).max(1), Relaxed);
        }
        let written = *written;
        self.progress.send_modify(|progress| {
            progress.written = progress.written.max(written);
            if is_synced {
                progress.synced = progress.synced.max(written);
            }
        });
    }

    /// Makes sure that what a file holds is on the disk before anything goes into the next one.
    fn close(&self, file: &mut Option<Arc<File>>) {
        let Some(open) = file.take() else { return };
        lock(&self.syncing).file = None;
        if self.settings.fsync == Fsync::Never {
            return;
        }
        let written = self.progress.borrow().written;
        match open.sync_data() {
            Ok(()) => self.synced(written),
            Err(error) => self.fail("syncing the store", &error),
        }
    }

    fn open_segment(&self, number: u64) -> Option<Arc<File>> {
        let create = || {
            self.ask_disk()?;
            let mut file = File::create(self.folder.file(number, "log"))?;
            Header { seed: self.seed, position: number }.write(&mut file)?;
            if self.settings.fsync != Fsync::Never {
                file.sync_all()?;
                self.folder.sync()?;
            }
            Ok(Arc::new(file))
        };
        match create() {
            Ok(file) => {
                lock(&self.syncing).file = Some(Arc::clone(&file));
                Some(file)
            }
            Err(error) => {
                self.fail("beginning a file of the store", &error);
                None
            }
        }
    }

    #[cfg(not(test))]
    pub(super) fn ask_disk(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn ask_disk(&self) -> io::Result<()> {
        if self.is_broken.load(Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// From now on nothing is taken in, until a new state is on the disk.
    pub(super) fn fail(&self, doing: &str, error: &io::Error) {
        self.errors.fetch_add(1, Relaxed);
        if !self.failed.swap(true, Relaxed) {
            error!(%error, "{doing} failed: nothing is taken in until a new state could be written");
        }
        self.progress.send_modify(|progress| progress.failures += 1);
    }

    /// The one that syncs, every so often or when somebody waits for it.
    pub(super) fn sync(&self) {
        let interval = match self.settings.fsync {
            Fsync::Every(interval) => interval,
            Fsync::Always | Fsync::Never => Duration::MAX,
        };
        loop {
            let (file, written) = {
                let mut syncing = lock(&self.syncing);
                if !syncing.wanted && !syncing.ends {
                    let woken = self.wake_syncer.wait_timeout(syncing, interval.min(FOR_EVER));
                    syncing = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                if syncing.ends {
                    return;
                }
                syncing.wanted = false;
                // In this order: what was written before into another file has been synced with that.
                let written = self.progress.borrow().written;
                (syncing.file.clone(), written)
            };
            let is_behind = self.progress.borrow().synced < written;
            let Some(file) = file.filter(|_| is_behind) else { continue };
            self.unsynced_since.store(0, Relaxed);
            match self.ask_disk().and_then(|()| file.sync_data()) {
                Ok(()) => self.synced(written),
                Err(error) => self.fail("syncing the store", &error),
            }
        }
    }

    fn synced(&self, written: u64) {
        self.progress.send_modify(|progress| progress.synced = progress.synced.max(written));
    }
}

/// As long as any interval that somebody may wait for.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

fn write_all(mut file: &File, entries: &[Entry]) -> io::Result<()> {
    for entries in entries.chunks(WRITE_ENTRIES) {
        let mut slices: Vec<IoSlice<'_>> = entries.iter().map(|entry| IoSlice::new(entry.frame())).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// How many entries are handed to the operating system at once: it takes no more.
const WRITE_ENTRIES: usize = 1024;
