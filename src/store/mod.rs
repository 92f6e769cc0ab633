//! One folder that outlives the process: a log of what was taken in, and now and then the state that the log had led to.
//!
//! Knows neither what an entry says nor what a state is: both are bytes. Owns the folder, alone, from [`open`] on.
//! Invariant: a state and the entries after it are all there is to know; nothing is deleted before a later state that makes
//! it superfluous is on the disk. What is on the disk was written once, front to back, each piece with its checksum: what
//! ends in the middle of a piece ends before it.
//!
//! ```text
//! LOCK                      held by the process that owns the folder
//! 0000000000000000.state    the state before the first entry
//! 0000000000000000.log      the entries after it
//! ```
//!
//! The number of a file is how many entries came before it.

mod checkpoint;
mod frames;
mod journal;
mod log;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

pub use checkpoint::StateReader;
pub use frames::Entry;
pub use journal::{Condition, Fsync, Journal, NotStored, Order, Settings};
pub use log::{Cut, LogReader};

/// The version of what is written. A folder with a higher one is left alone.
pub const VERSION: u32 = 1;

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Something could not be done with it.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process has it.
    #[error("another process uses the store {path}: give each process a folder of its own (store.path)")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A later version of this program has written it.
    #[error(
        "the store {path} was written by a later version of this program (format {found}, this one knows {VERSION}): \
         start that version, or name another folder (store.path)"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl OpenError {
    fn io<'p>(doing: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> Self + use<'p> {
        move |source| OpenError::Io { doing, path: path.to_owned(), source }
    }
}

/// The folder, for as long as it is ours.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    _lock: File,
}

/// What a folder holds.
#[derive(Debug)]
pub struct Opened {
    folder: Folder,
    /// The last state.
    pub state: Option<StateReader>,
    /// The entries after it.
    pub log: LogReader,
    /// Where what could not be used has been put, if there was anything.
    pub damaged: Option<PathBuf>,
}

/// Where what cannot be used is put.
const DAMAGED: &str = "damaged";

/// Opens a folder, which is created if it is not there, and keeps others out of it.
pub fn open(path: &Path) -> Result<Opened, OpenError> {
    std::fs::create_dir_all(path).map_err(OpenError::io("creating the store", path))?;
    let folder = Folder { _lock: lock(path)?, path: path.to_owned() };
    let mut states = folder.numbers("state")?;
    let mut damaged = None;
    let state = loop {
        let Some(number) = states.pop() else { break None };
        let file = folder.file(number, "state");
        match StateReader::open(&file)? {
            Some(state) => break Some(state),
            None => damaged = Some(folder.put_aside(&file)?),
        }
    };
    let first = state.as_ref().map(|state| state.position);
    let segments = folder.numbers("log")?;
    let (outdated, segments): (Vec<u64>, Vec<u64>) =
        segments.into_iter().partition(|number| first.is_some_and(|first| *number < first));
    for number in outdated {
        let file = folder.file(number, "log");
        std::fs::remove_file(&file).map_err(OpenError::io("removing", &file))?;
    }
    // Without a state nobody knows what the entries meant.
    if first.is_none() {
        for number in &segments {
            damaged = Some(folder.put_aside(&folder.file(*number, "log"))?);
        }
    }
    let segments = if first.is_some() { segments } else { Vec::new() };
    let files = segments.into_iter().map(|number| (number, folder.file(number, "log"))).collect();
    let log = LogReader::new(first.unwrap_or(0), files)?;
    Ok(Opened { folder, state, log, damaged })
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file = path.join("LOCK");
    let doing = "opening";
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&file);
    // A folder that can only be read can still be ours.
    let lock = options.or_else(|error| File::open(&file).map_err(|_| error));
    let lock = lock.map_err(OpenError::io(doing, &file))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { doing: "locking", path: file, source }),
    }
}

impl Folder {
    fn file(&self, number: u64, kind: &str) -> PathBuf {
        self.path.join(format!("{number:016x}.{kind}"))
    }

    /// The numbers of the files of a kind, rising.
    fn numbers(&self, kind: &str) -> Result<Vec<u64>, OpenError> {
        let reading = || OpenError::io("reading the store", &self.path);
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(reading())? {
            let name = entry.map_err(reading())?.file_name();
            let name = name.to_string_lossy();
            let number = name.strip_suffix(kind).and_then(|name| name.strip_suffix('.'));
            numbers.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Puts a file where it harms nobody and can be looked at.
    fn put_aside(&self, file: &Path) -> Result<PathBuf, OpenError> {
        let folder = self.path.join(DAMAGED);
        std::fs::create_dir_all(&folder).map_err(OpenError::io("creating", &folder))?;
        let target = folder.join(file.file_name().unwrap_or_default());
        std::fs::rename(file, &target).map_err(OpenError::io("putting aside", file))?;
        Ok(folder)
    }

    /// Makes sure that files that were created, renamed or deleted stay so.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Makes sure that what was read of the log stays, though whoever wrote it may have been killed before.
    fn sync_log(&self) -> io::Result<()> {
        let numbers = self.numbers("log").map_err(|error| io::Error::other(error.to_string()))?;
        numbers.into_iter().try_for_each(|number| File::open(self.file(number, "log"))?.sync_all())?;
        self.sync()
    }

    /// How many bytes its files take.
    fn bytes(&self) -> u64 {
        let sizes = |path: &Path| {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| entry.metadata().ok())
                .filter(|data| data.is_file())
                .map(|d| d.len())
                .sum::<u64>()
        };
        sizes(&self.path) + sizes(&self.path.join(DAMAGED))
    }

    /// How many bytes may still be written, if that can be told.
    fn free_bytes(&self) -> Option<u64> {
        let space = rustix::fs::statvfs(&self.path).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Deletes what the state of this number has made superfluous.
    fn delete_before(&self, number: u64) -> io::Result<()> {
        for kind in ["state", "log"] {
            let numbers = self.numbers(kind).map_err(|error| io::Error::other(error.to_string()))?;
            for outdated in numbers.into_iter().filter(|known| *known < number) {
                std::fs::remove_file(self.file(outdated, kind))?;
            }
        }
        self.sync()
    }
}

/// How often it is looked whether there is room, and whether a new state is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
