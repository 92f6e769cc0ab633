//! A state on the disk: pieces, and an empty one at the end, without which it is none.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::frames::{FrameReader, Header, write_piece};
use super::{Folder, OpenError};

/// Reads a state that is whole.
#[derive(Debug)]
pub struct StateReader {
    /// How many entries it follows from.
    pub position: u64,
    /// What it was written with.
    pub seed: u64,
    path: PathBuf,
    reader: FrameReader,
}

impl StateReader {
    /// Nothing if the file is not whole.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, OpenError> {
        let Some(mut reader) = FrameReader::open(path)? else { return Ok(None) };
        let is_whole = loop {
            match reader.next().map_err(OpenError::io("reading", path))? {
                Some(piece) if piece.is_empty() => break true,
                Some(_) => {}
                None => break false,
            }
        };
        let again = if is_whole { FrameReader::open(path)? } else { None };
        Ok(again.map(|reader| StateReader {
            position: reader.header.position,
            seed: reader.header.seed,
            path: path.to_owned(),
            reader,
        }))
    }

    /// The next piece; nothing at the end, or where it cannot be read any more.
    pub fn next_piece(&mut self) -> Option<Vec<u8>> {
        self.reader.next().ok().flatten().filter(|piece| !piece.is_empty())
    }

    /// Where it stands.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a state: under another name, until it is whole.
#[derive(Debug)]
pub(super) struct StateWriter {
    file: BufWriter<File>,
    draft: PathBuf,
    target: PathBuf,
    pub(super) bytes: u64,
}

impl StateWriter {
    pub(super) fn create(folder: &Folder, header: Header) -> io::Result<Self> {
        let draft = folder.path.join("state.draft");
        let mut file = BufWriter::with_capacity(1 << 18, File::create(&draft)?);
        header.write(&mut file)?;
        Ok(StateWriter { file, draft, target: folder.file(header.position, "state"), bytes: 0 })
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.bytes += piece.len() as u64;
        write_piece(piece, &mut self.file)
    }

    /// From here on it is there, whatever happens.
    pub(super) fn finish(mut self, folder: &Folder) -> io::Result<u64> {
        write_piece(&[], &mut self.file)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        std::fs::rename(&self.draft, &self.target)?;
        folder.sync()?;
        Ok(self.bytes)
    }
}

impl Drop for StateWriter {
    /// A draft that was not finished takes room and is good for nothing.
    fn drop(&mut self) {
        // Finished, it is not there any more.
        std::fs::remove_file(&self.draft).unwrap_or_default();
    }
}
