//! Pieces of a file, each with its length and its checksum in front, behind a header.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use super::{OpenError, VERSION};

/// What every file begins with.
const MAGIC: &[u8; 8] = b"latagg\r\n";
const HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 4;
/// Length and checksum.
pub(super) const HEAD_BYTES: usize = 8;
/// No piece is longer; a length that says so is none.
const MAX_PIECE_BYTES: u32 = 1 << 30;

/// What a file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// What decides about orders that nothing else decides about.
    pub(super) seed: u64,
    /// How many entries came before it.
    pub(super) position: u64,
}

impl Header {
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.seed.to_le_bytes());
        bytes.extend_from_slice(&self.position.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        to.write_all(&bytes)
    }
}

/// One entry of the log, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry(Vec<u8>);

impl Entry {
    /// An entry of about so many bytes, which `write` appends.
    pub fn new(bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut frame = Vec::with_capacity(HEAD_BYTES + bytes);
        frame.extend_from_slice(&[0; HEAD_BYTES]);
        write(&mut frame);
        seal(&mut frame);
        Entry(frame)
    }

    pub(super) fn frame(&self) -> &[u8] {
        &self.0
    }
}

/// Fills in length and checksum, for which there is room in front.
fn seal(frame: &mut [u8]) {
    let (head, content) = frame.split_at_mut(HEAD_BYTES);
    let length = u32::try_from(content.len()).expect("a request or a piece is no larger");
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc32fast::hash(content).to_le_bytes());
}

/// Writes a piece.
pub(super) fn write_piece(content: &[u8], to: &mut impl Write) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&crc32fast::hash(content).to_le_bytes())?;
    to.write_all(content)
}

/// Reads the pieces of a file.
#[derive(Debug)]
pub(super) struct FrameReader {
    file: BufReader<File>,
    pub(super) header: Header,
    /// How far all is well.
    pub(super) good_bytes: u64,
}

impl FrameReader {
    /// Nothing if the file does not even have a header.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, OpenError> {
        let reading = || OpenError::io("reading", path);
        let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(reading())?);
        let mut bytes = [0; HEADER_BYTES];
        let read = read_up_to(&mut file, &mut bytes).map_err(reading())?;
        let (said, checksum) = bytes.split_at(HEADER_BYTES - 4);
        if read < HEADER_BYTES || !said.starts_with(MAGIC) {
            return Ok(None);
        }
        let number = |from: usize| u64::from_le_bytes(said[from..from + 8].try_into().expect("eight bytes"));
        let version = u32::from_le_bytes(said[8..12].try_into().expect("four bytes"));
        if crc32fast::hash(said).to_le_bytes() != checksum {
            return Ok(None);
        }
        if version > VERSION {
            return Err(OpenError::Newer { path: path.to_owned(), found: version });
        }
        let header = Header { seed: number(12), position: number(20) };
        Ok(Some(FrameReader { file, header, good_bytes: HEADER_BYTES as u64 }))
    }

    /// The next piece; nothing where none follows that is whole.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut head = [0; HEAD_BYTES];
        if read_up_to(&mut self.file, &mut head)? < HEAD_BYTES {
            return Ok(None);
        }
        let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
        if length > MAX_PIECE_BYTES {
            return Ok(None);
        }
        let mut content = Vec::new();
        let read = (&mut self.file).take(u64::from(length)).read_to_end(&mut content)?;
        if read < length as usize || crc32fast::hash(&content).to_le_bytes() != head[4..] {
            return Ok(None);
        }
        self.good_bytes += (HEAD_BYTES + content.len()) as u64;
        Ok(Some(content))
    }
}

fn read_up_to(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read(&mut bytes[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
