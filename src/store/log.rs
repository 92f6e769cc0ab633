//! Reading the log: entry by entry, up to the first one that is not whole.
//!
//! Invariant: what comes behind a bad entry is never read, for it would not mean what it meant.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::OpenError;
use super::frames::FrameReader;

/// The entries after a state.
#[derive(Debug)]
pub struct LogReader {
    /// How many entries came before the next one.
    position: u64,
    segments: std::vec::IntoIter<(u64, PathBuf)>,
    current: Option<(PathBuf, FrameReader)>,
    cut: Option<Cut>,
}

/// What had to be cut off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// How many bytes that were.
    pub bytes: u64,
    /// The file that ends there now.
    pub file: PathBuf,
}

impl LogReader {
    pub(super) fn new(position: u64, segments: Vec<(u64, PathBuf)>) -> Result<Self, OpenError> {
        Ok(LogReader { position, segments: segments.into_iter(), current: None, cut: None })
    }

    /// How many entries there were before the next one.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What was cut off, once there are no more entries.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// The next entry. Where none follows that is whole, the log ends, also on the disk.
    pub fn next_entry(&mut self) -> Result<Option<Vec<u8>>, OpenError> {
        loop {
            let Some((path, reader)) = &mut self.current else {
                if !self.next_segment()? {
                    return Ok(None);
                }
                continue;
            };
            if let Some(entry) = reader.next().map_err(OpenError::io("reading", path))? {
                self.position += 1;
                return Ok(Some(entry));
            }
            let (path, good_bytes) = (path.clone(), reader.good_bytes);
            self.current = None;
            self.end_at(path, good_bytes)?;
        }
    }

    /// Goes on with the next file, if it is the one that follows.
    fn next_segment(&mut self) -> Result<bool, OpenError> {
        let Some((number, path)) = self.segments.next() else { return Ok(false) };
        let reader = if number == self.position { FrameReader::open(&path)? } else { None };
        match reader.filter(|reader| reader.header.position == number) {
            Some(reader) => self.current = Some((path, reader)),
            None => self.drop_segment(path)?,
        }
        Ok(true)
    }

    /// Cuts a file off behind what is good of it; all others are of no use then.
    fn end_at(&mut self, path: PathBuf, good_bytes: u64) -> Result<(), OpenError> {
        let cutting = || OpenError::io("cutting off", &path);
        let length = std::fs::metadata(&path).map_err(cutting())?.len();
        if length == good_bytes {
            return Ok(());
        }
        let file = File::options().write(true).open(&path).map_err(cutting())?;
        file.set_len(good_bytes).and_then(|()| file.sync_all()).map_err(cutting())?;
        self.note_cut(length - good_bytes, path.clone());
        Ok(())
    }

    /// Removes a file that does not go on where the one before it ends.
    fn drop_segment(&mut self, path: PathBuf) -> Result<(), OpenError> {
        let removing = || OpenError::io("removing", &path);
        let length = std::fs::metadata(&path).map_err(removing())?.len();
        std::fs::remove_file(&path).or_else(not_found).map_err(removing())?;
        self.note_cut(length, path.clone());
        Ok(())
    }

    fn note_cut(&mut self, bytes: u64, file: PathBuf) {
        let before = self.cut.take().unwrap_or_default();
        self.cut = Some(Cut { bytes: before.bytes + bytes, file });
    }
}

fn not_found(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
