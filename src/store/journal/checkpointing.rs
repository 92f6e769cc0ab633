//! Writing a state while the log goes on, and beginning anew with one after a failure.
//!
//! Invariant: between the last entry before a state and the first one after it nothing is applied.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use tracing::{error, info};

use super::{Item, Shared, lock};
use crate::store::checkpoint::StateWriter;
use crate::store::frames::Header;

/// Pieces of a state that wait to be written.
const PIECES_IN_FLIGHT: usize = 64;

impl Shared {
    pub(super) fn look_for_room(&self) {
        let free = self.folder.free_bytes();
        let is_full = free.is_some_and(|free| free < self.settings.free_bytes);
        if self.full.swap(is_full, Relaxed) == is_full {
            return;
        }
        match is_full {
            true => error!("there is no room in the store for what requests bring: see store.free_bytes"),
            false => info!("there is room in the store again"),
        }
    }

    pub(super) fn checkpoint(&self, state: impl FnOnce(&mut dyn FnMut(Vec<u8>))) -> io::Result<()> {
        let _one_at_a_time = lock(&self.checkpointing);
        let order = lock(&self.position);
        let position = *order;
        let repairs = self.failed.load(Relaxed);
        self.ask_disk()?;
        let mut writer = StateWriter::create(&self.folder, Header { seed: self.seed, position })?;
        if !repairs {
            self.begin_segment(position);
        }
        let (pieces, incoming) = std::sync::mpsc::sync_channel::<Vec<u8>>(PIECES_IN_FLIGHT);
        let write = move || -> io::Result<StateWriter> {
            for piece in incoming {
                writer.write(&piece)?;
            }
            Ok(writer)
        };
        let (writer, order) = std::thread::scope(|scope| {
            let writing = scope.spawn(write);
            // If it cannot be written, that is found out when the writer is asked.
            state(&mut |piece| _ = pieces.send(piece));
            drop(pieces);
            // Others may go on, unless the log itself waits for this state.
            let order = repairs.then_some(order);
            let writer = writing.join().unwrap_or_else(|_| Err(io::Error::other("the writer has panicked")));
            (writer, order)
        });
        let bytes = writer?.finish(&self.folder)?;
        self.state_bytes.store(bytes, Relaxed);
        self.checkpoints.fetch_add(1, Relaxed);
        if repairs {
            self.begin_segment(position);
            self.failed.store(false, Relaxed);
            if self.errors.load(Relaxed) > 0 {
                info!("the store can be written again");
            }
        }
        self.progress.send_modify(|progress| {
            progress.written = progress.written.max(position);
            progress.synced = progress.synced.max(position);
        });
        drop(order);
        self.folder.delete_before(position)
    }

    /// What is appended from now on goes into a new file. Only for whoever holds the order.
    fn begin_segment(&self, position: u64) {
        let mut queue = lock(&self.queue);
        // After a failure nothing that waits can be written any more; the state says it.
        if self.failed.load(Relaxed) {
            queue.items.clear();
            queue.bytes = 0;
        }
        queue.items.push(Item::Segment(position));
        self.log_bytes.store(0, Relaxed);
        self.wake_writer.notify_one();
    }
}
